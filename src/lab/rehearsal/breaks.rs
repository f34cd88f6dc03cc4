//! What would break: from blockers, gates, errors and traffic to a list that an operator can act upon. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::lab::report::QUIET;
use crate::lab::{TrafficReport, Trouble};
use crate::migrate::Blocker;

/// What kind of thing breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakKind {
    /// The plan is blocked: the migration refuses to begin.
    Blocked,
    /// A gate was not passed: the migration stopped in front of the next phase.
    Gate,
    /// A command ended with an error.
    Failed,
    /// What eBPF does is not what the rules do.
    Verify,
    /// Flows that were open were lost.
    Flows,
    /// New connections ended otherwise than before.
    Connects,
    /// The node is not as before after the way back.
    Remains,
    /// Traffic was hurt while nothing was done: what is lost later proves nothing.
    Baseline,
}

/// One thing that breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Break {
    /// What kind.
    pub kind: BreakKind,
    /// In which phase of the rehearsal.
    pub phase: String,
    /// What happens, a clause.
    pub what: String,
    /// How often, where that can be counted.
    pub count: Option<u64>,
    /// Each thing: the first few, and a count of the rest.
    pub details: Vec<String>,
    /// What to do about it, where that is known.
    pub remedy: Option<String>,
}

impl Break {
    pub(super) fn new(kind: BreakKind, phase: &str, what: impl Into<String>) -> Self {
        let (phase, what) = (phase.to_owned(), what.into());
        Self { kind, phase, what, count: None, details: Vec::new(), remedy: None }
    }
}

/// Details are listed up to this many.
const FEW: usize = 6;

fn few(mut details: Vec<String>) -> Vec<String> {
    let more = details.len().saturating_sub(FEW);
    if more > 0 {
        details.truncate(FEW);
        details.push(format!("and {more} more"));
    }
    details
}

/// A blocker of a plan.
pub(super) fn of_blocker(blocker: &Blocker, phase: &str) -> Break {
    let id = serde_json::to_value(blocker.id).unwrap_or_default();
    let what = format!("{}: {}", id.as_str().unwrap_or_default(), blocker.reason);
    let (details, remedy) = (blocker.details.clone(), Some(blocker.remedy.clone()));
    Break { details, remedy, ..Break::new(BreakKind::Blocked, phase, what) }
}

/// The checks of a gate, or of `verify`, that failed.
pub(super) fn of_findings(kind: BreakKind, phase: &str, what: String, findings: &[FailedCheck]) -> Break {
    let details = findings.iter().map(|f| format!("{}: {}", f.check, f.detail)).collect();
    Break { details: few(details), ..Break::new(kind, phase, what) }
}

/// A check that failed, as kpx prints it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub(super) struct FailedCheck {
    pub(super) check: String,
    #[serde(default)]
    pub(super) ok: bool,
    #[serde(default)]
    pub(super) detail: String,
}

/// What happened to the traffic: one entry for each kind and reason, with the phases and the frontends that it met.
pub(super) fn of_traffic(report: &TrafficReport) -> Vec<Break> {
    let mut groups: BTreeMap<(BreakKind, &str), Vec<&Trouble>> = BTreeMap::new();
    let place = |phase: &str| report.phases.iter().position(|p| p.phase == phase).unwrap_or_default();
    for trouble in report.troubles.iter().filter(|trouble| is_harm(trouble)) {
        let kind = match (QUIET.contains(&trouble.phase.as_str()), trouble.what == "connect") {
            (true, _) => BreakKind::Baseline,
            (false, true) => BreakKind::Connects,
            (false, false) => BreakKind::Flows,
        };
        groups.entry((kind, &trouble.reason)).or_default().push(trouble);
    }
    let mut out: Vec<Break> = Vec::new();
    for ((kind, reason), troubles) in groups {
        let phases: BTreeSet<(usize, &str)> = troubles.iter().map(|t| (place(&t.phase), t.phase.as_str())).collect();
        let phase = match (phases.first(), phases.last()) {
            (Some((_, first)), Some((_, last))) if first != last => format!("{first} to {last}"),
            (first, _) => first.map(|(_, only)| (*only).to_owned()).unwrap_or_default(),
        };
        let connect = troubles[0].what == "connect";
        let what = if connect { format!("connections {reason}") } else { format!("flows lost: {reason}") };
        let mut frontends: BTreeMap<String, u64> = BTreeMap::new();
        for t in &troubles {
            *frontends.entry(format!("{} {} from {}", t.service, t.addr, t.place)).or_default() += 1;
        }
        let detail = |(text, n): (String, u64)| if n == 1 { text } else { format!("{text}: {n} times") };
        let details = few(frontends.into_iter().map(detail).collect());
        out.push(Break { count: Some(troubles.len() as u64), details, ..Break::new(kind, &phase, what) });
    }
    // Troubles are kept up to a limit; the sums know of all.
    let (quiet, loud): (Vec<_>, Vec<_>) = report.phases.iter().partition(|p| QUIET.contains(&p.phase.as_str()));
    let known = |kind| out.iter().any(|b: &Break| b.kind == kind);
    let sums = [
        (BreakKind::Flows, loud.iter().map(|p| p.flows_lost).sum::<u64>(), "flows lost"),
        (BreakKind::Connects, loud.iter().map(|p| p.connects_failed).sum(), "connections failed"),
        (
            BreakKind::Baseline,
            quiet.iter().map(|p| p.flows_lost + p.connects_failed).sum(),
            "flows and connections lost",
        ),
    ];
    let unnamed: Vec<Break> = sums
        .into_iter()
        .filter(|(kind, number, _)| *number > 0 && !known(*kind))
        .map(|(kind, number, what)| Break { count: Some(number), ..Break::new(kind, "all", what) })
        .collect();
    out.extend(unnamed);
    out
}

/// A Service that must not answer and behaves otherwise in a quiet phase has a habit, which is no harm.
fn is_harm(trouble: &Trouble) -> bool {
    let wanted = "an answer was expected";
    !QUIET.contains(&trouble.phase.as_str()) || trouble.what != "connect" || trouble.reason.ends_with(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::PhaseReport;

    fn trouble(what: &str, service: &str, reason: &str, phase: &str) -> Trouble {
        Trouble {
            what: what.to_owned(),
            place: "pod".to_owned(),
            service: service.to_owned(),
            addr: "10.96.0.1:80/TCP".to_owned(),
            client: None,
            reason: reason.to_owned(),
            phase: phase.to_owned(),
        }
    }

    fn phase(name: &str, lost: u64, failed: u64) -> PhaseReport {
        PhaseReport {
            phase: name.to_owned(),
            seconds: 1.0,
            flows_open: 10,
            flows_opened: 0,
            flows_lost: lost,
            longest_gap_ms: 20.0,
            retransmissions: 0,
            connects: 10,
            connects_failed: failed,
            connect: None,
            frontends_asked: 5,
        }
    }

    #[test]
    fn troubles_are_told_once_for_each_reason_with_their_phases() {
        let refused = "refused, where an answer was expected";
        let report = TrafficReport {
            phases: vec![phase("idle", 0, 0), phase("apply remove", 2, 2), phase("ebpf", 0, 1)],
            troubles: vec![
                trouble("connect", "a/b", refused, "ebpf"),
                trouble("connect", "a/b", refused, "apply remove"),
                trouble("connect", "a/b", refused, "apply remove"),
                trouble("tcp", "a/b", "reset", "apply remove"),
                trouble("udp-idle", "a/c", "reset", "apply remove"),
            ],
            ..TrafficReport::default()
        };
        let breaks = of_traffic(&report);
        let lines: Vec<_> = breaks.iter().map(|b| (b.kind, b.phase.as_str(), b.count)).collect();
        assert_eq!(
            lines,
            [(BreakKind::Flows, "apply remove", Some(2)), (BreakKind::Connects, "apply remove to ebpf", Some(3))]
        );
        assert_eq!(breaks[1].details, ["a/b 10.96.0.1:80/TCP from pod: 3 times"]);
        assert_eq!(breaks[0].what, "flows lost: reset");
    }

    #[test]
    fn habits_are_no_harm_and_a_bad_baseline_is() {
        let report = TrafficReport {
            phases: vec![phase("idle", 1, 0)],
            troubles: vec![
                trouble("connect", "a/b", "answered, where a refusal was expected", "idle"),
                trouble("tcp", "a/b", "reset", "idle"),
            ],
            ..TrafficReport::default()
        };
        let breaks = of_traffic(&report);
        assert_eq!(breaks.iter().map(|b| b.kind).collect::<Vec<_>>(), [BreakKind::Baseline]);
    }

    #[test]
    fn what_only_the_sums_know_is_not_forgotten() {
        let report = TrafficReport { phases: vec![phase("ebpf", 0, 3)], ..TrafficReport::default() };
        assert_eq!(of_traffic(&report)[0].count, Some(3));
        assert!(
            of_traffic(&TrafficReport { phases: vec![phase("ebpf", 0, 0)], ..TrafficReport::default() }).is_empty()
        );
    }
}
