//! What readers noticed, on stderr: the first few, all of them with `-v`.

use super::Context;
use crate::source::Lifted;
use crate::ui::count;

/// How many are shown without `-v`.
const FIRST: usize = 3;

/// Warns of what the reader of one source noticed.
pub(super) fn show(context: &mut Context, lifted: &Lifted) {
    let (via, notices) = (lifted.via, &lifted.notices);
    let all = context.globals.verbose > 0;
    let shown = if all { notices.len() } else { FIRST.min(notices.len()) };
    for notice in &notices[..shown] {
        context.ui.warn(&format!("{via}: {}", notice.text));
    }
    if shown < notices.len() {
        context.ui.warn(&format!("{via}: {} more; -v shows all", count(notices.len() - shown, "remark")));
    }
}
