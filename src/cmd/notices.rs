//! What readers noticed, on stderr: the first few, all of them with `-v`.

use super::Context;
use crate::source::Lifted;

/// How many are shown without `-v`.
const FIRST: usize = 3;

/// Warns of what the reader of one source noticed.
pub(super) fn show(context: &mut Context, lifted: &Lifted) {
    let (via, notices) = (lifted.via, &lifted.notices);
    // A line that says "1 more" would take the place of that one.
    let all = context.globals.verbose > 0 || notices.len() <= FIRST + 1;
    let shown = if all { notices.len() } else { FIRST };
    for notice in &notices[..shown] {
        context.ui.warn(&format!("{via}: {}", notice.text));
    }
    if shown < notices.len() {
        context.ui.warn(&format!("{via}: {} more remarks; -v shows all", notices.len() - shown));
    }
}
