//! How long each phase took, and what came of it, from the journal.

use std::collections::BTreeMap;

use serde::Serialize;

use super::journal::{Direction, End, Event, Record};
use super::phase::PhaseName;

/// What one phase took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseTook {
    /// The phase.
    pub phase: PhaseName,
    /// How long its steps and its gate took, seconds.
    pub seconds: f64,
    /// What was moved and removed, by its name.
    pub counts: BTreeMap<String, u64>,
    /// What each step found out when it was last done, in words.
    pub notes: BTreeMap<String, String>,
}

/// One way of a node, there or back: all runs of it, however often it was stopped.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Took {
    /// Which way.
    pub direction: Direction,
    /// When it was begun.
    pub began: jiff::Timestamp,
    /// Whether it came to its end.
    pub ended: bool,
    /// The time of all phases, seconds; that between two runs is not counted.
    pub seconds: f64,
    /// Its phases, in the order in which they were gone through.
    pub phases: Vec<PhaseTook>,
}

impl Took {
    /// The latest way in this direction.
    pub fn of(records: &[Record], direction: Direction) -> Option<Self> {
        let begins = |record: &&Record| matches!(record.event, Event::Begin { direction: d, .. } if d == direction);
        let turns = |record: &Record| matches!(record.event, Event::Begin { direction: d, .. } if d != direction);
        let last = records.iter().rposition(|record| begins(&record))?;
        let first = records[..last].iter().rposition(turns).unwrap_or(0);
        let end = records[last..].iter().position(turns).map_or(records.len(), |at| last + at);
        let mut way = records[first..end].iter().skip_while(|record| !begins(record));
        let begin = way.next()?;
        let mut took = Self { direction, began: begin.at, ended: false, seconds: 0.0, phases: Vec::new() };
        let mut before = begin.at;
        for record in way {
            let seconds = record.at.duration_since(before).as_secs_f64().max(0.0);
            before = record.at;
            took.take(record, seconds);
        }
        Some(took)
    }

    fn take(&mut self, record: &Record, seconds: f64) {
        match &record.event {
            Event::Begin { .. } => {}
            Event::End { end } => {
                self.ended = matches!(end, End::Complete | End::Waiting { .. } | End::RolledBack);
            }
            Event::Intent { phase, .. } | Event::Failed { phase, .. } | Event::Gate { phase, .. } => {
                self.phase(*phase, seconds);
            }
            Event::Done { phase, step, note, counts, .. } => {
                let of = self.phase(*phase, seconds);
                of.notes.extend(note.clone().map(|note| (step.clone(), note)));
                for (what, number) in counts {
                    *of.counts.entry(what.clone()).or_default() += number;
                }
            }
        }
    }

    fn phase(&mut self, name: PhaseName, seconds: f64) -> &mut PhaseTook {
        self.seconds += seconds;
        let at = self.phases.iter().position(|phase| phase.phase == name).unwrap_or_else(|| {
            self.phases.push(PhaseTook { phase: name, seconds: 0.0, counts: BTreeMap::new(), notes: BTreeMap::new() });
            self.phases.len() - 1
        });
        self.phases[at].seconds += seconds;
        &mut self.phases[at]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::journal::Action;
    use super::*;

    fn begin(direction: Direction) -> Event {
        Event::Begin { direction, boot_id: "b".into(), version: "1".into() }
    }

    fn intent(phase: PhaseName) -> Event {
        Event::Intent { phase, step: "s".into(), action: Action::Do }
    }

    fn done(phase: PhaseName, moved: u64) -> Event {
        let counts = BTreeMap::from([("flows".to_owned(), moved)]);
        Event::Done { phase, step: "s".into(), action: Action::Do, note: Some(format!("{moved} moved")), counts }
    }

    /// Records a second apart.
    fn records(events: Vec<Event>) -> Vec<Record> {
        let numbered = (0..).zip(events);
        let record =
            |(i, event)| Record { seq: i + 1, at: jiff::Timestamp::UNIX_EPOCH + Duration::from_secs(i), event };
        numbered.map(record).collect()
    }

    #[test]
    fn runs_of_one_way_are_summed_and_the_time_between_them_is_not() {
        use Direction::{Backward, Forward};
        use PhaseName::{Handover, Packets};
        let gate = Event::Gate { phase: Packets, passed: true, failures: vec![] };
        let records = records(vec![
            begin(Forward),
            intent(Packets),
            begin(Backward),
            Event::End { end: End::RolledBack },
            begin(Forward),
            intent(Packets),
            done(Packets, 1),
            begin(Forward),
            gate,
            intent(Handover),
            done(Handover, 5),
            intent(Handover),
            done(Handover, 2),
            Event::End { end: End::Complete },
            begin(Backward),
            intent(Handover),
        ]);
        let there = Took::of(&records, Forward).unwrap();
        assert_eq!((there.began.as_second(), there.ended), (4, true));
        let phases: Vec<_> = there.phases.iter().map(|p| (p.phase, p.seconds, p.counts["flows"])).collect();
        assert_eq!(phases, [(Packets, 3.0, 1), (Handover, 4.0, 7)]);
        assert!((there.seconds - 7.0).abs() < 1e-9);
        assert_eq!(there.phases[1].notes["s"], "2 moved");
        let back = Took::of(&records, Backward).unwrap();
        assert_eq!((back.began.as_second(), back.ended, back.seconds), (14, false, 1.0));
        assert_eq!(Took::of(&records[..2], Backward), None);
    }
}
