//! Runs the phases forward and backward, with the journal around every step.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::journal::{Action, Direction, End, Event, Journal, JournalError, Mark, Progress};
use super::phase::{Check, Finding, Found, Lasting, Phase, PhaseName, Step, World};
use crate::error::{Hinted, with_causes};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every phase is done and its gate passed.
    Complete,
    /// Stopped behind this phase, as asked.
    Reached(PhaseName),
    /// The gate behind this phase was not passed.
    GateFailed {
        /// The phase.
        phase: PhaseName,
        /// What is not as it must be.
        findings: Vec<Finding>,
        /// Whether the phase was undone at once.
        undone: bool,
    },
    /// Stopped in front of this phase: its time has not come, and nothing is wrong.
    Waiting {
        /// The phase.
        phase: PhaseName,
        /// What is waited for.
        why: String,
    },
    /// Everything is undone.
    RolledBack,
    /// Stopped between two steps, as a signal asked.
    Interrupted,
}

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum EngineError<E: std::error::Error + 'static> {
    /// A step failed.
    #[error("cannot {} step {step} of phase {phase}", match action { Action::Do => "do", Action::Undo => "undo" })]
    Step {
        /// The phase.
        phase: PhaseName,
        /// The step.
        step: &'static str,
        /// Which way.
        action: Action,
        /// Why.
        #[source]
        source: E,
    },
    /// A step reported success and the node does not show it.
    #[error("step {step} of phase {phase} had no effect: {missing}")]
    NoEffect {
        /// The phase.
        phase: PhaseName,
        /// The step.
        step: &'static str,
        /// What is missing.
        missing: String,
    },
    /// Looking at a step or a gate failed.
    #[error("cannot check {what} of phase {phase}")]
    Check {
        /// The phase.
        phase: PhaseName,
        /// The step, or the gate.
        what: &'static str,
        /// Why.
        #[source]
        source: E,
    },
    /// The journal cannot be written: nothing is done without it.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl<E: Hinted + 'static> Hinted for EngineError<E> {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Step { source, .. } | Self::Check { source, .. } => source.hints(),
            Self::Journal(source) => source.hints(),
            Self::NoEffect { .. } => Vec::new(),
        }
    }
}

/// What the engine tells while it runs.
#[derive(Clone, Debug)]
pub enum Notice<'a> {
    /// A step begins.
    Begin {
        /// Its phase.
        phase: PhaseName,
        /// Its id.
        step: &'static str,
        /// Which way.
        action: Action,
        /// What it will do.
        text: &'a str,
    },
    /// The step that began is done.
    Done {
        /// Its phase.
        phase: PhaseName,
        /// Its id.
        step: &'static str,
        /// Which way.
        action: Action,
        /// What it did.
        text: &'a str,
        /// What it found out.
        note: Option<&'a str>,
    },
    /// A step needed nothing.
    Skipped {
        /// Its phase.
        phase: PhaseName,
        /// Its id.
        step: &'static str,
    },
    /// It is too early for a step, which is waited for.
    Waits {
        /// Its phase.
        phase: PhaseName,
        /// Its id.
        step: &'static str,
        /// What is waited for.
        why: &'a str,
        /// How long at most.
        left: Duration,
    },
    /// A gate is looked at.
    GateBegin {
        /// The phase in front of it.
        phase: PhaseName,
        /// What is looked at.
        text: &'static str,
    },
    /// A gate was looked at.
    Gate {
        /// The phase in front of it.
        phase: PhaseName,
        /// What was seen.
        findings: &'a [Finding],
    },
}

/// How often a step that is too early is looked at.
const GLANCE: Duration = Duration::from_millis(500);

/// What became of a step on the way forward.
enum Forward {
    /// It needed nothing.
    Skipped,
    /// It was done.
    Done,
    /// Its time has not come, for this reason.
    TooEarly(String),
}

/// Runs phases over a world.
pub struct Engine<'a, W: World> {
    /// The phases, in order.
    pub phases: &'a [Phase<W>],
    /// Where every step is written down.
    pub journal: &'a mut Journal,
    /// Set by a signal: stop behind the step at hand.
    pub stop: &'a AtomicBool,
    /// Identifies the boot, for the journal.
    pub boot_id: &'a str,
    /// Listens.
    pub notify: &'a mut dyn FnMut(&Notice<'_>),
}

impl<W: World> Engine<'_, W> {
    /// Runs forward, to the end or behind `until`. Steps whose effect is there are skipped.
    pub fn forward(&mut self, world: &mut W, until: Option<PhaseName>) -> Result<Outcome, EngineError<W::Error>> {
        self.begin(Direction::Forward)?;
        let phases = self.phases;
        for (i, phase) in phases.iter().enumerate() {
            let mut changed = false;
            for step in &phase.steps {
                if self.stop.load(Ordering::SeqCst) {
                    return self.end(End::Interrupted, Outcome::Interrupted);
                }
                match self.step_forward(world, phase.name, step.as_ref())? {
                    Forward::Skipped => {}
                    Forward::Done => changed = true,
                    Forward::TooEarly(_) if self.stop.load(Ordering::SeqCst) => {
                        return self.end(End::Interrupted, Outcome::Interrupted);
                    }
                    Forward::TooEarly(why) => {
                        let phase = phase.name;
                        return self.end(End::Waiting { phase, why: why.clone() }, Outcome::Waiting { phase, why });
                    }
                }
            }
            // A gate guards the way into the next phase: once that was taken, it has nothing to say.
            let gone_through = self.is_begun(&phases[i + 1..]);
            if gone_through && !changed && Progress::of(self.journal.records()).gate_passed(phase.name) {
                if until == Some(phase.name) {
                    return self.end(End::Reached { phase: phase.name }, Outcome::Reached(phase.name));
                }
                continue;
            }
            let findings = self.gate(world, phase)?;
            if findings.iter().any(|f| !f.ok) {
                // What later phases rest on stays.
                let undo = phase.undo_on_failed_gate && !gone_through;
                if undo {
                    for step in phase.steps.iter().rev() {
                        self.step_backward(world, phase.name, step.as_ref())?;
                    }
                }
                let (name, undone) = (phase.name, undo);
                return self
                    .end(End::GateFailed { phase: name }, Outcome::GateFailed { phase: name, findings, undone });
            }
            if until == Some(phase.name) && until != phases.last().map(|p| p.name) {
                return self.end(End::Reached { phase: phase.name }, Outcome::Reached(phase.name));
            }
        }
        self.end(End::Complete, Outcome::Complete)
    }

    /// Runs backward over everything that was ever begun, or whose effect is there.
    pub fn backward(&mut self, world: &mut W) -> Result<Outcome, EngineError<W::Error>> {
        self.begin(Direction::Backward)?;
        let phases = self.phases;
        for phase in phases.iter().rev() {
            for step in phase.steps.iter().rev() {
                if self.stop.load(Ordering::SeqCst) {
                    return self.end(End::Interrupted, Outcome::Interrupted);
                }
                self.step_backward(world, phase.name, step.as_ref())?;
            }
        }
        self.end(End::RolledBack, Outcome::RolledBack)
    }

    fn begin(&mut self, direction: Direction) -> Result<(), JournalError> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        self.journal.append(Event::Begin { direction, boot_id: self.boot_id.to_owned(), version })
    }

    fn end(&mut self, end: End, outcome: Outcome) -> Result<Outcome, EngineError<W::Error>> {
        self.journal.append(Event::End { end })?;
        Ok(outcome)
    }

    fn mark(&self, step: &str) -> Mark {
        Progress::of(self.journal.records()).mark(step)
    }

    /// Whether any step of these phases was begun and not undone.
    fn is_begun(&self, phases: &[Phase<W>]) -> bool {
        let progress = Progress::of(self.journal.records());
        let mut steps = phases.iter().flat_map(|phase| &phase.steps);
        steps.any(|step| !matches!(progress.mark(step.id()), Mark::Untouched | Mark::Undone))
    }

    /// Does a step, unless it is done or its time has not come.
    fn step_forward(
        &mut self,
        world: &mut W,
        phase: PhaseName,
        step: &dyn Step<W>,
    ) -> Result<Forward, EngineError<W::Error>> {
        let id = step.id();
        let failed = |source| EngineError::Check { phase, what: id, source };
        if self.mark(id) == Mark::Done && step.check(world).map_err(failed)?.is_done() {
            (self.notify)(&Notice::Skipped { phase, step: id });
            return Ok(Forward::Skipped);
        }
        if let Some(why) = self.wait(world, phase, step).map_err(failed)? {
            return Ok(Forward::TooEarly(why));
        }
        self.around(world, phase, step, Action::Do, |world| step.perform(world))?;
        Ok(Forward::Done)
    }

    /// Waits as long as a step has patience; why it is too early still.
    fn wait(&mut self, world: &mut W, phase: PhaseName, step: &dyn Step<W>) -> Result<Option<String>, W::Error> {
        let begun = Instant::now();
        let mut told = None;
        loop {
            let Some(why) = step.waits(world)? else { return Ok(None) };
            let left = step.patience(world).saturating_sub(begun.elapsed());
            if left.is_zero() || self.stop.load(Ordering::SeqCst) {
                return Ok((!(left.is_zero() && step.goes_on(world))).then_some(why));
            }
            if told.as_ref() != Some(&why) {
                (self.notify)(&Notice::Waits { phase, step: step.id(), why: &why, left });
                told = Some(why);
            }
            std::thread::sleep(GLANCE.min(left));
        }
    }

    fn step_backward(
        &mut self,
        world: &mut W,
        phase: PhaseName,
        step: &dyn Step<W>,
    ) -> Result<(), EngineError<W::Error>> {
        let id = step.id();
        let untouched = matches!(self.mark(id), Mark::Untouched | Mark::Undone);
        // A step that cannot even be looked at is undone all the same: that is how its error is told.
        let mut there = || step.check(world).map_or(true, |check| check.is_done());
        let record = step.lasting() == Lasting::Record;
        if untouched && (step.lasting() != Lasting::Change || !there()) {
            (self.notify)(&Notice::Skipped { phase, step: id });
            return Ok(());
        }
        if record {
            // Done again on the next way forward, as if it had never been.
            let Found { note, counts } = Found::default();
            self.journal.append(Event::Done { phase, step: id.to_owned(), action: Action::Undo, note, counts })?;
            return Ok(());
        }
        self.around(world, phase, step, Action::Undo, |world| step.undo(world))
    }

    /// Intent, change, look, result.
    fn around(
        &mut self,
        world: &mut W,
        phase: PhaseName,
        step: &dyn Step<W>,
        action: Action,
        change: impl FnOnce(&mut W) -> Result<(), W::Error>,
    ) -> Result<(), EngineError<W::Error>> {
        let id = step.id();
        let text = match action {
            Action::Do => step.describe(world.facts()),
            Action::Undo => step.describe_undo(world.facts()),
        };
        self.journal.append(Event::Intent { phase, step: id.to_owned(), action })?;
        (self.notify)(&Notice::Begin { phase, step: id, action, text: &text });
        let failed = |source| EngineError::Check { phase, what: id, source };
        let look = |world: &mut W| match action {
            Action::Do => match step.check(world).map_err(failed)? {
                Check::Done => Ok(()),
                Check::NotDone(missing) => Err(EngineError::NoEffect { phase, step: id, missing }),
            },
            Action::Undo if step.is_undone(world).map_err(failed)? => Ok(()),
            Action::Undo => {
                Err(EngineError::NoEffect { phase, step: id, missing: "its effect is still there".to_owned() })
            }
        };
        let result = change(world)
            .map_err(|source| EngineError::Step { phase, step: id, action, source })
            .and_then(|()| look(world));
        let Found { note, counts } = world.take_found();
        match result {
            Ok(()) => {
                let note = note.clone();
                self.journal.append(Event::Done { phase, step: id.to_owned(), action, note, counts })?;
            }
            Err(error) => {
                let text = with_causes(&error);
                self.journal.append(Event::Failed { phase, step: id.to_owned(), action, error: text })?;
                return Err(error);
            }
        }
        (self.notify)(&Notice::Done { phase, step: id, action, text: &text, note: note.as_deref() });
        Ok(())
    }

    fn gate(&mut self, world: &mut W, phase: &Phase<W>) -> Result<Vec<Finding>, EngineError<W::Error>> {
        let Some(gate) = &phase.gate else {
            self.journal.append(Event::Gate { phase: phase.name, passed: true, failures: Vec::new() })?;
            return Ok(Vec::new());
        };
        (self.notify)(&Notice::GateBegin { phase: phase.name, text: gate.describe() });
        let findings = gate.findings(world).map_err(|source| EngineError::Check {
            phase: phase.name,
            what: "the gate",
            source,
        })?;
        let failures: Vec<_> =
            findings.iter().filter(|f| !f.ok).map(|f| format!("{}: {}", f.check, f.detail)).collect();
        self.journal.append(Event::Gate { phase: phase.name, passed: failures.is_empty(), failures })?;
        (self.notify)(&Notice::Gate { phase: phase.name, findings: &findings });
        Ok(findings)
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
