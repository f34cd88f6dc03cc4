//! What a way there or back took, phase by phase, on the terminal.

use crate::migrate::{Direction, Took};
use crate::ui::Table;

/// `apply` or `rollback`.
const fn command(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "apply",
        Direction::Backward => "rollback",
    }
}

/// One row a phase.
pub(super) fn table(took: &Took) -> Table {
    let mut table = Table::new(&["PHASE", "SECONDS", "FOUND"]).right(&["SECONDS"]).prose();
    for phase in &took.phases {
        let notes: Vec<&str> = phase.notes.values().map(String::as_str).collect();
        table.row([phase.phase.to_string(), format!("{:.1}", phase.seconds), notes.join("; ")]);
    }
    table.title(format!("What {} took", command(took.direction))).footer(format!("{:.1} s in all", took.seconds))
}

/// A clause: what the latest way there took, and the way back behind it.
pub(super) fn last_time(there: &Took, back: Option<&Took>) -> String {
    let back = back.map_or_else(String::new, |back| format!(", rollback {:.1} s", back.seconds));
    let when = there.began.strftime("%Y-%m-%dT%H:%M:%SZ");
    format!("on this node, apply of {when} took {:.1} s{back}", there.seconds)
}
