//! Reports for other programs.

use std::fmt::Write as _;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::report::AuditReport;
use crate::audit::{Area, Evidence, Judged, Severity};

/// JUnit XML: one suite an area, one case a check. Findings below `threshold` pass, with what they say as output.
pub(super) fn junit(audit: &AuditReport, threshold: Option<Severity>) -> String {
    let mut report = Report::new(format!("kpx audit of {}", audit.node));
    for area in Area::ALL {
        let mut suite = TestSuite::new(area.word());
        let of_area = audit.judged.iter().filter(|judged| judged.check.area == area);
        suite.add_test_cases(of_area.map(|judged| case(judged, threshold)));
        if suite.tests > 0 {
            report.add_test_suite(suite);
        }
    }
    report.to_string().expect("memory takes everything, and all strings are UTF-8")
}

fn case(judged: &Judged, threshold: Option<Severity>) -> TestCase {
    let check = judged.check;
    let mut evidence = String::new();
    for Evidence { at, text, .. } in judged.evidence() {
        let _ = writeln!(evidence, "{at}: {text}");
    }
    let fails = judged.fired() && threshold.is_some_and(|threshold| check.severity >= threshold);
    let mut status = match &judged.found {
        Err(_) => TestCaseStatus::skipped(),
        Ok(_) if fails => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Ok(_) => TestCaseStatus::success(),
    };
    if let Err(skip) = &judged.found {
        status.set_message(skip.0.clone());
    } else if fails {
        status.set_message(check.title).set_type(check.severity.to_string());
        status.set_description(format!("{evidence}{}\n{}\n", check.remedy, check.command));
    }
    let mut case = TestCase::new(format!("{} {}", check.id, check.title), status);
    case.set_classname(format!("kpx.audit.{}", check.area));
    if judged.fired() && !fails {
        case.set_system_out(evidence);
    }
    case
}
