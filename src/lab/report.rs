//! What the traffic of a lab went through, summed over its clients.

use std::collections::BTreeMap;

use serde::Serialize;

use super::client::{Class, PhaseTally, Tallies, Trouble, Unlike};

/// The phase in which flows are opened, and one in which nothing is done to the node: what goes wrong in them is no
/// change.
pub(super) const QUIET: [&str; 2] = ["start", "idle"];

/// What the traffic went through.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TrafficReport {
    /// Flows opened.
    pub flows_total: u64,
    /// Flows lost: closed or silent, records missing, or the backend saw another source.
    pub flows_lost: u64,
    /// Records that one end sent and the other never saw.
    pub records_lost: u64,
    /// Longest time between two records of one flow, milliseconds, once the first flows were open and outside of the idle
    /// phase.
    pub longest_gap_ms: f64,
    /// The same in the idle phase, in which nothing was done to the node; null if there was none.
    pub idle_gap_ms: Option<f64>,
    /// Short connections to Services that have to answer.
    pub connects_total: u64,
    /// Short connections that failed, refusals among them.
    pub connects_failed: u64,
    /// Short connections that were refused.
    pub connects_refused: u64,
    /// Probes of Services that have to refuse or be silent.
    pub probes_total: u64,
    /// Probes that met something else.
    pub probes_unexpected: u64,
    /// By class of flow.
    pub classes: Vec<ClassReport>,
    /// By phase.
    pub phases: Vec<PhaseReport>,
    /// What went wrong, the first few hundred.
    pub troubles: Vec<Trouble>,
    /// Frontends to which flows were opened, each place counted by itself.
    pub frontends_with_flows: u64,
    /// Frontends that never did what the table says, and always the same instead.
    pub unlike: Vec<Unlike>,
}

/// One class of flows.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClassReport {
    /// The class.
    pub class: Class,
    /// Flows opened.
    pub flows_total: u64,
    /// Flows lost.
    pub flows_lost: u64,
    /// Longest gap, as above.
    pub longest_gap_ms: f64,
    /// Longest gap in the idle phase.
    pub idle_gap_ms: Option<f64>,
}

/// One phase.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseReport {
    /// Its name.
    pub phase: String,
    /// How long it took, seconds.
    pub seconds: f64,
    /// Flows open at its start.
    pub flows_open: u64,
    /// Flows opened in it.
    pub flows_opened: u64,
    /// Flows lost in it.
    pub flows_lost: u64,
    /// Longest time between two records of one flow, milliseconds.
    pub longest_gap_ms: f64,
    /// TCP segments that were sent again, by whichever end.
    pub retransmissions: u64,
    /// Short connections.
    pub connects: u64,
    /// Short connections that failed or were refused.
    pub connects_failed: u64,
    /// Time that their connect took, over TCP.
    pub connect: Option<Latency>,
    /// Frontends that were asked in it, each place counted by itself.
    pub frontends_asked: u64,
}

/// Time that connects took, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Half of them took no longer.
    pub p50_us: u32,
    /// 99 of 100 took no longer.
    pub p99_us: u32,
}

impl Latency {
    fn of(mut times: Vec<u32>) -> Option<Self> {
        times.sort_unstable();
        let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied();
        Some(Self { p50_us: at(50)?, p99_us: at(99)? })
    }
}

impl TrafficReport {
    /// Whether nothing was lost, nothing was refused and every Service behaved as the table says.
    pub const fn clean(&self) -> bool {
        self.flows_lost == 0 && self.connects_failed == 0 && self.probes_unexpected == 0
    }

    /// A phase by name.
    pub fn phase(&self, name: &str) -> Option<&PhaseReport> {
        self.phases.iter().find(|phase| phase.phase == name)
    }
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// Sums what several clients counted. They have the same phases in the same order.
pub(super) fn merge(clients: impl Iterator<Item = Tallies>) -> TrafficReport {
    let mut report = TrafficReport::default();
    let mut phases: Vec<PhaseTally> = Vec::new();
    for client in clients {
        report.troubles.extend(client.troubles);
        report.unlike.extend(client.unlike);
        report.frontends_with_flows += client.flowed;
        for (i, phase) in client.phases.into_iter().enumerate() {
            match phases.get_mut(i) {
                Some(sum) => add(sum, phase),
                None => phases.push(phase),
            }
        }
    }
    let mut classes: BTreeMap<Class, ClassReport> = BTreeMap::new();
    for phase in phases {
        let [start, idle] = QUIET.map(|quiet| phase.phase == quiet);
        let longer = |longest: &mut f64, idle_gap: &mut Option<f64>, us: u64| {
            if idle {
                *idle_gap = Some(idle_gap.unwrap_or_default().max(ms(us)));
            } else if !start {
                *longest = longest.max(ms(us));
            }
        };
        let (mut opened, mut lost, mut gap) = (0, 0, 0);
        for (class, tally) in &phase.classes {
            opened += tally.opened;
            lost += tally.lost;
            gap = gap.max(tally.longest_gap_us);
            report.records_lost += tally.records_lost;
            let sum = classes.entry(*class).or_insert(ClassReport {
                class: *class,
                flows_total: 0,
                flows_lost: 0,
                longest_gap_ms: 0.0,
                idle_gap_ms: None,
            });
            sum.flows_total += tally.opened;
            sum.flows_lost += tally.lost;
            longer(&mut sum.longest_gap_ms, &mut sum.idle_gap_ms, tally.longest_gap_us);
        }
        report.flows_total += opened;
        report.flows_lost += lost;
        longer(&mut report.longest_gap_ms, &mut report.idle_gap_ms, gap);
        report.connects_total += phase.connects;
        report.connects_failed += phase.failed + phase.refused;
        report.connects_refused += phase.refused;
        report.probes_total += phase.probes;
        report.probes_unexpected += phase.unexpected;
        report.phases.push(PhaseReport {
            phase: phase.phase,
            seconds: ms(phase.lasted_ms),
            flows_open: phase.open,
            flows_opened: opened,
            flows_lost: lost,
            longest_gap_ms: ms(gap),
            retransmissions: 0,
            connects: phase.connects,
            connects_failed: phase.failed + phase.refused,
            connect: Latency::of(phase.connect_us),
            frontends_asked: phase.asked,
        });
    }
    report.classes = classes.into_values().collect();
    report
}

fn add(sum: &mut PhaseTally, other: PhaseTally) {
    sum.lasted_ms = sum.lasted_ms.max(other.lasted_ms);
    sum.open += other.open;
    for (class, tally) in other.classes {
        let into = sum.classes.entry(class).or_default();
        into.opened += tally.opened;
        into.ended += tally.ended;
        into.lost += tally.lost;
        into.records_lost += tally.records_lost;
        into.longest_gap_us = into.longest_gap_us.max(tally.longest_gap_us);
        into.longest_client_gap_us = into.longest_client_gap_us.max(tally.longest_client_gap_us);
    }
    sum.connects += other.connects;
    sum.refused += other.refused;
    sum.failed += other.failed;
    sum.probes += other.probes;
    sum.unexpected += other.unexpected;
    sum.connect_us.extend(other.connect_us);
    sum.asked += other.asked;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::client::ClassTally;

    fn phase(name: &str, lost: u64, gap: u64) -> PhaseTally {
        let tally = ClassTally { opened: 2, lost, longest_gap_us: gap, ..ClassTally::default() };
        PhaseTally {
            phase: name.to_owned(),
            open: 5,
            classes: BTreeMap::from([(Class::Tcp, tally)]),
            connects: 3,
            refused: 1,
            connect_us: vec![10, 30],
            ..PhaseTally::default()
        }
    }

    #[test]
    fn sums_over_clients_and_the_idle_gap_apart() {
        let client =
            |gap| Tallies { phases: vec![phase("idle", 0, 9_000), phase("apply", 1, gap)], ..Tallies::default() };
        let report = merge([client(4_000), client(5_500)].into_iter());
        assert_eq!((report.flows_total, report.flows_lost), (8, 2));
        assert!((report.longest_gap_ms - 5.5).abs() < 1e-9);
        assert_eq!(report.idle_gap_ms, Some(9.0));
        assert_eq!((report.connects_total, report.connects_failed), (12, 4));
        let apply = report.phase("apply").unwrap();
        assert_eq!((apply.flows_open, apply.flows_lost), (10, 2));
        assert_eq!(apply.connect, Some(Latency { p50_us: 30, p99_us: 30 }));
        assert!(!report.clean());
    }
}
