//! The sums that a client keeps, phase by phase.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::connect::Outcome;
use super::flow::Flow;
use super::{Class, Expect, Target};
use crate::lab::report::QUIET;
use crate::lab::wire::Account;
use crate::model::Protocol;

/// The sums of one phase.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::lab) struct PhaseTally {
    /// Name of the phase.
    pub(in crate::lab) phase: String,
    /// How long it took, milliseconds.
    pub(in crate::lab) lasted_ms: u64,
    /// Flows open at its start.
    pub(in crate::lab) open: u64,
    /// By class of flow.
    pub(in crate::lab) classes: BTreeMap<Class, ClassTally>,
    /// Short connections to Services that must answer.
    pub(in crate::lab) connects: u64,
    /// Those that were refused.
    pub(in crate::lab) refused: u64,
    /// Those that failed otherwise.
    pub(in crate::lab) failed: u64,
    /// Probes of Services that must refuse or be silent.
    pub(in crate::lab) probes: u64,
    /// Those that met something else.
    pub(in crate::lab) unexpected: u64,
    /// Time of each TCP connect that worked, microseconds.
    pub(in crate::lab) connect_us: Vec<u32>,
    /// Frontends that were asked, each counted once.
    pub(in crate::lab) asked: u64,
}

/// The sums of one class of flows in one phase.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(in crate::lab) struct ClassTally {
    /// Opened in the phase.
    pub(in crate::lab) opened: u64,
    /// Ended in good order in the phase.
    pub(in crate::lab) ended: u64,
    /// Lost in the phase.
    pub(in crate::lab) lost: u64,
    /// Longest time between two records of one flow, microseconds; none for idle flows, whose silence is their own choice.
    pub(in crate::lab) longest_gap_us: u64,
    /// The same, as backends saw the clients' records; known when a flow ends.
    pub(in crate::lab) longest_client_gap_us: u64,
    /// Records that one end sent and the other never saw.
    pub(in crate::lab) records_lost: u64,
}

/// A flow or a connect that did not go as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// `tcp`, `udp-connected`, `udp-unconnected`, or `connect`.
    pub what: String,
    /// Where the client was: `node`, `pod`, `outside`.
    pub place: String,
    /// `namespace/name:port`.
    pub service: String,
    /// The frontend.
    pub addr: String,
    /// The client's own address, if it had one.
    pub client: Option<String>,
    /// What happened.
    pub reason: String,
    /// In which phase.
    pub phase: String,
}

/// Everything a client counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::lab) struct Tallies {
    /// Phases in order.
    pub(in crate::lab) phases: Vec<PhaseTally>,
    /// What went wrong, the first few hundred.
    pub(in crate::lab) troubles: Vec<Trouble>,
    /// Frontends that never did what was expected of them, and always the same instead.
    pub(in crate::lab) unlike: Vec<Unlike>,
    /// Frontends to which flows were opened.
    pub(in crate::lab) flowed: u64,
}

/// A frontend that does something else than its table says, whoever asks and whenever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlike {
    /// Where the client was: `node`, `pod`, `outside`.
    pub place: String,
    /// `namespace/name:port`.
    pub service: String,
    /// The frontend.
    pub addr: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// What the table says.
    pub expected: Expect,
    /// What was met.
    pub met: String,
    /// The same as something that can be expected; `None` for an error of another kind.
    pub becomes: Option<Expect>,
}

/// More of them would say nothing new.
const TROUBLES: usize = 300;

/// The running sums.
pub(super) struct Tally {
    place: String,
    phases: Vec<(Instant, PhaseTally)>,
    troubles: Vec<Trouble>,
    /// What probes met in quiet phases, where it was not what the table says.
    habits: HashMap<SocketAddr, String>,
    /// Frontends that were asked in this phase, by their index.
    asked: BTreeSet<usize>,
    /// Frontends to which flows were opened, by their index.
    flowed: BTreeSet<usize>,
    /// What each frontend was met with, by its index; `None` once it was met with another thing.
    met: BTreeMap<usize, Option<Outcome>>,
}

impl Tally {
    pub(super) fn new(place: String) -> Self {
        let first = PhaseTally { phase: QUIET[0].to_owned(), ..PhaseTally::default() };
        Self {
            place,
            phases: vec![(Instant::now(), first)],
            troubles: Vec::new(),
            habits: HashMap::new(),
            asked: BTreeSet::new(),
            flowed: BTreeSet::new(),
            met: BTreeMap::new(),
        }
    }

    /// Begins a phase; the sums of the one before.
    pub(super) fn phase(&mut self, name: String, open: u64) -> Option<PhaseTally> {
        let ended = self.close();
        self.phases.push((Instant::now(), PhaseTally { phase: name, open, ..PhaseTally::default() }));
        ended
    }

    /// The sums of all phases.
    pub(super) fn finish(&mut self, targets: &[Target]) -> Tallies {
        self.close();
        let phases = std::mem::take(&mut self.phases).into_iter().map(|(_, phase)| phase).collect();
        let met = std::mem::take(&mut self.met);
        let unlike = met.iter().filter_map(|(index, met)| self.unlike(targets.get(*index)?, met.as_ref()?)).collect();
        Tallies { phases, troubles: std::mem::take(&mut self.troubles), unlike, flowed: self.flowed.len() as u64 }
    }

    /// What a frontend was always met with, if that is not what was expected of it.
    fn unlike(&self, target: &Target, met: &Outcome) -> Option<Unlike> {
        let becomes = met.expectation();
        (becomes != Some(target.expect)).then(|| Unlike {
            place: self.place.clone(),
            service: target.service.clone(),
            addr: target.addr,
            protocol: target.protocol,
            expected: target.expect,
            met: met.word().to_owned(),
            becomes,
        })
    }

    fn close(&mut self) -> Option<PhaseTally> {
        let (began, phase) = self.phases.last_mut()?;
        phase.lasted_ms = began.elapsed().as_millis() as u64;
        phase.asked = std::mem::take(&mut self.asked).len() as u64;
        Some(phase.clone())
    }

    fn now(&mut self) -> &mut PhaseTally {
        &mut self.phases.last_mut().expect("there is one from the start").1
    }

    fn class(&mut self, class: Class) -> &mut ClassTally {
        self.now().classes.entry(class).or_default()
    }

    pub(super) fn opened(&mut self, class: Class, target: usize) {
        self.flowed.insert(target);
        self.class(class).opened += 1;
    }

    pub(super) fn ended(&mut self, flow: &Flow) {
        self.class(flow.class).ended += 1;
    }

    pub(super) fn gap(&mut self, class: Class, gap: Duration) {
        let tally = self.class(class);
        tally.longest_gap_us = tally.longest_gap_us.max(gap.as_micros() as u64);
    }

    pub(super) fn account(&mut self, class: Class, account: &Account) {
        if class.is_idle() {
            return;
        }
        let tally = self.class(class);
        tally.longest_client_gap_us = tally.longest_client_gap_us.max(account.longest_gap_us);
    }

    pub(super) fn records_lost(&mut self, class: Class, records: u64) {
        self.class(class).records_lost += records;
    }

    /// Counts a lost flow in the phase in which its last record came.
    pub(super) fn lost(&mut self, flow: &Flow, target: &Target, why: &str) {
        let last = flow.last_heard();
        let at = self.phases.iter().rposition(|(began, _)| *began <= last).unwrap_or(0);
        let phase = &mut self.phases[at].1;
        phase.classes.entry(flow.class).or_default().lost += 1;
        let phase = phase.phase.clone();
        self.trouble(flow.class.name(), target, flow.local().map(|a| a.to_string()), why, phase);
    }

    /// Counts a flow whose socket could not even be opened.
    pub(super) fn never_opened(&mut self, class: Class, target: &Target, error: &io::Error) {
        self.class(class).lost += 1;
        let phase = self.now().phase.clone();
        self.trouble(class.name(), target, None, &error.to_string(), phase);
    }

    /// Counts a short connection or a probe.
    pub(super) fn connected(&mut self, index: usize, target: &Target, outcome: &Outcome) {
        self.asked.insert(index);
        let same = |known: &Option<Outcome>| known.as_ref().is_some_and(|known| known.word() == outcome.word());
        self.met
            .entry(index)
            .and_modify(|known| *known = same(known).then(|| outcome.clone()))
            .or_insert_with(|| Some(outcome.clone()));
        let now = self.now();
        let phase = now.phase.clone();
        let met = outcome.word();
        let as_expected = outcome.expectation() == Some(target.expect);
        if target.expect == Expect::Answer {
            now.connects += 1;
            match outcome {
                Outcome::Answered(time) if target.protocol == Protocol::Tcp => {
                    now.connect_us.push(time.as_micros().min(u128::from(u32::MAX)) as u32);
                }
                Outcome::Answered(_) => {}
                Outcome::Refused => now.refused += 1,
                _ => now.failed += 1,
            }
        } else {
            now.probes += 1;
        }
        if as_expected {
            return;
        }
        if target.expect != Expect::Answer {
            let quiet = QUIET.contains(&phase.as_str());
            let known = self.habits.get(&target.addr).is_some_and(|habit| habit == met);
            if known {
                return;
            } else if quiet {
                // So it was before anything was done: listed, but no change when it comes again.
                self.habits.insert(target.addr, met.to_owned());
            } else {
                self.now().unexpected += 1;
            }
        }
        let wanted = match target.expect {
            Expect::Answer => "an answer",
            Expect::Refusal => "a refusal",
            Expect::Silence => "silence",
        };
        self.trouble("connect", target, None, &format!("{met}, where {wanted} was expected"), phase);
    }

    fn trouble(&mut self, what: &str, target: &Target, client: Option<String>, reason: &str, phase: String) {
        if self.troubles.len() < TROUBLES {
            self.troubles.push(Trouble {
                what: what.to_owned(),
                place: self.place.clone(),
                service: target.service.clone(),
                addr: format!("{}/{}", target.addr, target.protocol),
                client,
                reason: reason.to_owned(),
                phase,
            });
        }
    }
}
