//! Reports for other programs.

use std::fmt::Write as _;

use super::report::AuditReport;
use crate::audit::{Area, Evidence, Judged, Severity};
use crate::cmd::checks::{self, Case, Outcome};

/// JUnit XML: one suite an area, one case a check. Findings below `threshold` pass, with what they say as output.
pub(super) fn junit(audit: &AuditReport, threshold: Option<Severity>) -> String {
    let suite = |area: Area| {
        let of_area = audit.judged.iter().filter(|judged| judged.check.area == area);
        (area.word(), of_area.map(|judged| case(judged, threshold)).collect())
    };
    checks::junit(&format!("kpx audit of {}", audit.node), Area::ALL.map(suite))
}

fn case(judged: &Judged, threshold: Option<Severity>) -> Case {
    let check = judged.check;
    let mut evidence = String::new();
    for Evidence { at, text, .. } in judged.evidence() {
        let _ = writeln!(evidence, "{at}: {text}");
    }
    let fails = judged.fired() && threshold.is_some_and(|threshold| check.severity >= threshold);
    let outcome = match &judged.found {
        Err(skip) => Outcome::Skipped(skip.0.clone()),
        Ok(_) if fails => Outcome::Failed {
            message: check.title.to_owned(),
            severity: check.severity,
            text: format!("{evidence}{}\n{}\n", check.remedy, check.command),
        },
        Ok(_) => Outcome::Passed(judged.fired().then_some(evidence)),
    };
    Case { name: format!("{} {}", check.id, check.title), class: format!("kpx.audit.{}", check.area), outcome }
}
