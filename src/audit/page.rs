//! The checks as documentation: `docs/checks.md` and `kpx explain`.

use std::fmt::Write as _;

use super::check::{Area, Check};
use super::checks::all;

const HEAD: &str = "\
# Checks

What `kpx audit` looks for, generated from the checks themselves by `cargo xtask generate`. Identifiers are stable: one that is
no longer used is not given to another check. `kpx explain KPX-A101` prints the same text.

A check has found something, found nothing, or was skipped because what it needs was not there; the report says which. Severities:
**error** hurts now or stands in the way of any change; **warning** will hurt under circumstances or when kube-proxy goes;
**info** is good to know before a migration.
";

/// `docs/checks.md`.
pub fn page() -> String {
    let mut out = HEAD.to_owned();
    for area in Area::ALL {
        let _ = writeln!(out, "\n## {area}\n\n| Check | Severity | Looks for |\n| --- | --- | --- |");
        for check in all().filter(|c| c.area == area) {
            let _ = writeln!(
                out,
                "| [{}](#{}) | {} | {} |",
                check.id,
                check.id.to_ascii_lowercase(),
                check.severity,
                check.title
            );
        }
        for check in all().filter(|c| c.area == area) {
            let _ = write!(out, "\n{}", section(check));
        }
    }
    out
}

/// One check's section of the page.
pub fn section(check: &Check) -> String {
    let Check { id, severity, title, why, remedy, command, .. } = check;
    format!("### {id}\n\n{title} ({severity})\n\n{why}\n\n{remedy}\n\n    {}\n", command.replace('\n', "\n    "))
}
