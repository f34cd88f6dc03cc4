//! How far a migration is: what the journal says, and what the node shows, which counts.

use serde::Serialize;

use super::journal::{Direction, End, Mark, Progress};
use super::phase::{Check, Lasting, Phase, PhaseName, World};
use super::store::{Migration, StoreError};
use super::switch::ACCEPT_FORWARDED;

/// One step, as the journal and the node have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepStatus {
    /// Its phase.
    pub phase: PhaseName,
    /// Its id.
    pub step: &'static str,
    /// What the journal says.
    pub journal: Mark,
    /// Whether its effect is on the node; `None` when it could not be looked at.
    pub on_node: Option<bool>,
    /// What is missing, or why it could not be looked at.
    pub detail: String,
    /// Whether it only records something.
    #[serde(skip)]
    pub is_record: bool,
}

/// Where a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Standing {
    /// Nothing of this migration is on the node, and nothing was begun.
    NotBegun,
    /// All is done: eBPF serves.
    InForce,
    /// All is done but for what flows need that run still.
    Waiting {
        /// The phase in front of which it waits.
        before: PhaseName,
        /// What is waited for.
        why: String,
    },
    /// Stopped behind a phase, as asked.
    Stopped {
        /// The last phase that is done.
        after: PhaseName,
    },
    /// A run forward did not end: a crash, a failure, a signal or a gate.
    Unfinished {
        /// The last phase that is done.
        after: Option<PhaseName>,
        /// Why, as far as the journal says.
        why: String,
    },
    /// A rollback did not end.
    RollbackUnfinished {
        /// Why, as far as the journal says.
        why: String,
    },
    /// The node was booted anew, and what this migration had done is not all there.
    Rebooted {
        /// The steps whose effect is gone.
        gone: Vec<&'static str>,
    },
    /// The journal says that all is done, and the node does not show it.
    Disturbed {
        /// The first step that is missing.
        step: &'static str,
        /// What is missing.
        missing: String,
    },
    /// Everything is undone.
    RolledBack,
}

/// Who serves new connections of this node's sockets to the frontends that the hooks can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Serving {
    /// kube-proxy's rules.
    Rules,
    /// The hooks.
    Ebpf,
    /// Neither.
    Nobody,
}

/// Looks at every step on the node.
pub(super) fn steps<W: World>(phases: &[Phase<W>], world: &mut W, progress: &Progress) -> Vec<StepStatus> {
    let mut out = Vec::new();
    for phase in phases {
        for step in &phase.steps {
            let (on_node, detail) = match step.check(world) {
                Ok(Check::Done) => (Some(true), String::new()),
                Ok(Check::NotDone(missing)) => (Some(false), missing),
                Err(error) => (None, error.to_string()),
            };
            let (id, journal) = (step.id(), progress.mark(step.id()));
            out.push(StepStatus {
                phase: phase.name,
                step: id,
                journal,
                on_node,
                detail,
                is_record: step.lasting() == Lasting::Record,
            });
        }
    }
    out
}

impl Standing {
    /// Judges from the journal, the steps on the node, and whether this is the boot the journal speaks of.
    pub fn of(progress: &Progress, steps: &[StepStatus], same_boot: bool) -> Self {
        if progress.is_closed() {
            return Self::RolledBack;
        }
        let Some(direction) = progress.direction else { return Self::NotBegun };
        let lost = |s: &&StepStatus| s.on_node == Some(false) && s.journal == Mark::Done && !s.is_record;
        let missing = steps.iter().find(lost);
        if !same_boot && missing.is_some() {
            return Self::Rebooted { gone: steps.iter().filter(lost).map(|step| step.step).collect() };
        }
        let why = || match (&progress.failure, &progress.end) {
            (Some(failure), _) => failure.clone(),
            (None, Some(End::Interrupted)) => "interrupted".to_owned(),
            (None, _) => "the run ended without a word: a crash, or it still runs".to_owned(),
        };
        if direction == Direction::Backward {
            return Self::RollbackUnfinished { why: why() };
        }
        if let Some(step) = missing {
            return Self::Disturbed { step: step.step, missing: step.detail.clone() };
        }
        match &progress.end {
            Some(End::Complete) => Self::InForce,
            Some(End::Reached { phase }) => Self::Stopped { after: *phase },
            Some(End::Waiting { phase, why }) => Self::Waiting { before: *phase, why: why.clone() },
            _ => Self::Unfinished { after: progress.phase(), why: why() },
        }
    }

    /// One sentence.
    pub fn describe(&self) -> String {
        match self {
            Self::NotBegun => "recorded, nothing begun; the rules serve".to_owned(),
            Self::InForce => "in force: eBPF serves".to_owned(),
            Self::Waiting { before: PhaseName::Remove, why } => {
                format!("eBPF serves what is new; virtual services and kube-ipvs0 stay for {why}")
            }
            Self::Waiting { why, .. } => {
                format!("in force: eBPF serves; conntrack and NAT are kept at work for {why}")
            }
            Self::Stopped { after } => format!("stopped after phase {after}, as asked; {}", after.who_serves()),
            Self::Unfinished { after: Some(after), why } => format!("unfinished after phase {after}: {why}"),
            Self::Unfinished { after: None, why } => format!("unfinished in its first phase: {why}"),
            Self::RollbackUnfinished { why } => format!("rollback unfinished: {why}"),
            Self::Rebooted { gone } => {
                let forward = if gone.contains(&ACCEPT_FORWARDED) {
                    "; where chain FORWARD drops, packets to Services are dropped until the next apply"
                } else {
                    ""
                };
                format!("node rebooted; to do again: {}{forward}", gone.join(", "))
            }
            Self::Disturbed { step, missing } => {
                format!("step {step} was done and its effect is gone from the node: {missing}")
            }
            Self::RolledBack => "rolled back; the rules serve".to_owned(),
        }
    }

    /// What to do next: a subcommand of `kpx migrate`, and what for.
    pub const fn next(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::NotBegun | Self::Stopped { .. } | Self::Unfinished { .. } | Self::Disturbed { .. } => {
                &[("apply", "go on"), ("rollback", "go back")]
            }
            Self::Waiting { before: PhaseName::Remove, .. } => {
                &[("apply", "remove them once these have ended"), ("rollback", "go back")]
            }
            Self::Waiting { .. } => &[
                ("apply", "let go of them once these have ended"),
                ("verify", "look whether all is well"),
                ("rollback", "go back"),
            ],
            Self::InForce => &[("verify", "look whether all is well"), ("rollback", "go back")],
            Self::RollbackUnfinished { .. } => &[("rollback", "go on going back"), ("apply", "go forward again")],
            Self::Rebooted { .. } => &[("apply", "carry the node over again"), ("rollback", "clean the record")],
            Self::RolledBack => &[("plan", "plan anew")],
        }
    }
}

/// One line of `kpx migrate list`: what the records say, without looking at the node.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Id of the migration.
    pub id: String,
    /// Name of the node.
    pub node: String,
    /// What served before.
    pub source: String,
    /// What was to serve.
    pub target: String,
    /// A few words.
    pub state: String,
    /// When it began.
    pub began: Option<jiff::Timestamp>,
    /// When the journal was last written.
    pub last: Option<jiff::Timestamp>,
}

impl Summary {
    /// Reads a migration's records.
    pub fn of(migration: &Migration) -> Result<Self, StoreError> {
        let (plan, progress) = (migration.plan()?, migration.progress()?);
        let state = match (&progress.direction, &progress.end) {
            (None, _) => "not begun".to_owned(),
            (_, Some(End::RolledBack)) => "rolled back".to_owned(),
            (_, Some(End::Waiting { phase: phase @ PhaseName::Remove, .. })) => format!("waits before {phase}"),
            (_, Some(End::Complete | End::Waiting { .. })) => "in force".to_owned(),
            (_, Some(End::Reached { phase })) => format!("stopped after {phase}"),
            (Some(Direction::Backward), _) => "rollback unfinished".to_owned(),
            (Some(Direction::Forward), Some(End::GateFailed { phase })) => format!("gate after {phase} failed"),
            (Some(Direction::Forward), _) => "unfinished".to_owned(),
        };
        Ok(Self {
            id: migration.id.clone(),
            node: plan.node.name,
            source: plan.source.dataplane,
            target: plan.target.dataplane,
            state,
            began: progress.span.map(|s| s.0),
            last: progress.span.map(|s| s.1),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::journal::{Action, Event, Record};
    use super::*;

    fn progress(events: Vec<Event>) -> Progress {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let records: Vec<_> =
            events.into_iter().enumerate().map(|(i, event)| Record { seq: i as u64 + 1, at, event }).collect();
        Progress::of(&records)
    }

    fn begin(direction: Direction) -> Event {
        Event::Begin { direction, boot_id: "b".into(), version: "1".into() }
    }

    fn done() -> Vec<Event> {
        let phase = PhaseName::Load;
        let step = "install".to_owned();
        vec![
            begin(Direction::Forward),
            Event::Intent { phase, step: step.clone(), action: Action::Do },
            Event::Done { phase, step, action: Action::Do, note: None, counts: BTreeMap::new() },
        ]
    }

    fn step(progress: &Progress, on_node: bool) -> Vec<StepStatus> {
        vec![StepStatus {
            phase: PhaseName::Load,
            step: "install",
            journal: progress.mark("install"),
            on_node: Some(on_node),
            detail: "no pins".into(),
            is_record: false,
        }]
    }

    #[test]
    fn the_node_counts_more_than_the_journal() {
        let mut events = done();
        events.push(Event::End { end: End::Complete });
        let progress = progress(events);
        let (there, gone) = (step(&progress, true), step(&progress, false));
        assert_eq!(Standing::of(&progress, &there, true), Standing::InForce);
        assert_eq!(Standing::of(&progress, &there, false), Standing::InForce, "pins outlived a boot: then it was none");
        assert_eq!(Standing::of(&progress, &gone, false), Standing::Rebooted { gone: vec!["install"] });
        assert!(matches!(Standing::of(&progress, &gone, true), Standing::Disturbed { step: "install", .. }));
    }

    #[test]
    fn a_run_without_an_end_is_unfinished_in_its_direction() {
        let forward = progress(done());
        assert!(matches!(
            Standing::of(&forward, &step(&forward, true), true),
            Standing::Unfinished { after: None, .. }
        ));
        let mut events = done();
        events.push(begin(Direction::Backward));
        let backward = progress(events);
        let standing = Standing::of(&backward, &step(&backward, true), true);
        assert!(matches!(standing, Standing::RollbackUnfinished { .. }));
        assert_eq!(standing.next()[0].0, "rollback");
    }

    #[test]
    fn nothing_begun_and_everything_undone_are_told_apart() {
        let nothing = progress(vec![]);
        assert_eq!(Standing::of(&nothing, &[], true), Standing::NotBegun);
        let undone = progress(vec![begin(Direction::Backward), Event::End { end: End::RolledBack }]);
        assert_eq!(Standing::of(&undone, &[], true), Standing::RolledBack);
    }
}
