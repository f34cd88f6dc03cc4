use std::cell::RefCell;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::super::phase::{Check, Gate};
use super::*;

/// A node of a few steps, each with three parts that can be there or not, which dies when its fuel is used up.
#[derive(Default)]
struct Fake {
    parts: [[bool; 3]; STEPS],
    fuel: Option<u32>,
    gate_fails: Option<PhaseName>,
    /// The step whose time has not come.
    too_early: Option<usize>,
    /// What was done to which step, in order.
    log: RefCell<Vec<(usize, Action)>>,
}

const STEPS: usize = 6;

#[derive(Debug, thiserror::Error)]
#[error("the power went off")]
struct PowerCut;

impl World for Fake {
    type Error = PowerCut;
    type Facts = ();

    fn facts(&self) -> &() {
        &()
    }
}

impl Fake {
    fn burn(&mut self) -> Result<(), PowerCut> {
        match &mut self.fuel {
            Some(0) => Err(PowerCut),
            Some(n) => {
                *n -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

struct Bit(usize);

const NAMES: [&str; STEPS] = ["s0", "s1", "s2", "s3", "s4", "s5"];

impl Step<Fake> for Bit {
    fn id(&self) -> &'static str {
        NAMES[self.0]
    }

    fn describe(&self, _facts: &()) -> String {
        format!("set bit {}", self.0)
    }

    fn check(&self, world: &mut Fake) -> Result<Check, PowerCut> {
        world.burn()?;
        let done = world.parts[self.0].iter().all(|p| *p);
        Ok(if done { Check::Done } else { Check::NotDone("a part is missing".into()) })
    }

    fn waits(&self, world: &mut Fake) -> Result<Option<String>, PowerCut> {
        Ok((world.too_early == Some(self.0)).then(|| "a flow".to_owned()))
    }

    fn perform(&self, world: &mut Fake) -> Result<(), PowerCut> {
        world.log.borrow_mut().push((self.0, Action::Do));
        for part in 0..3 {
            world.burn()?;
            world.parts[self.0][part] = true;
        }
        Ok(())
    }

    fn undo(&self, world: &mut Fake) -> Result<(), PowerCut> {
        world.log.borrow_mut().push((self.0, Action::Undo));
        for part in 0..3 {
            world.burn()?;
            world.parts[self.0][part] = false;
        }
        Ok(())
    }
}

struct Always(PhaseName);

impl Gate<Fake> for Always {
    fn describe(&self) -> &'static str {
        "nothing much"
    }

    fn findings(&self, world: &mut Fake) -> Result<Vec<Finding>, PowerCut> {
        world.burn()?;
        let fails = world.gate_fails == Some(self.0);
        Ok(vec![Finding { check: "fake", ok: !fails, detail: "as set".into() }])
    }
}

fn phases() -> Vec<Phase<Fake>> {
    let names = [PhaseName::Load, PhaseName::Shadow, PhaseName::Sockets];
    names
        .into_iter()
        .enumerate()
        .map(|(i, name)| Phase {
            name,
            steps: vec![Box::new(Bit(2 * i)), Box::new(Bit(2 * i + 1))],
            gate: Some(Box::new(Always(name))),
            undo_on_failed_gate: name == PhaseName::Sockets,
        })
        .collect()
}

struct Rig {
    dir: tempfile::TempDir,
    world: Fake,
    stop: AtomicBool,
}

impl Rig {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), world: Fake::default(), stop: AtomicBool::new(false) }
    }

    fn run(&mut self, direction: Direction, until: Option<PhaseName>) -> Result<Outcome, EngineError<PowerCut>> {
        let phases = phases();
        let mut journal = Journal::open(self.dir.path()).unwrap();
        let mut engine =
            Engine { phases: &phases, journal: &mut journal, stop: &self.stop, boot_id: "boot", notify: &mut |_| {} };
        match direction {
            Direction::Forward => engine.forward(&mut self.world, until),
            Direction::Backward => engine.backward(&mut self.world),
        }
    }

    fn progress(&self) -> Progress {
        Progress::of(&Journal::read(self.dir.path()).unwrap())
    }

    fn all(&self, value: bool) -> bool {
        self.world.parts.iter().flatten().all(|p| *p == value)
    }
}

#[test]
fn forward_does_every_step_in_order_and_backward_undoes_them_in_reverse() {
    let mut rig = Rig::new();
    assert_eq!(rig.run(Direction::Forward, None).unwrap(), Outcome::Complete);
    assert!(rig.all(true));
    assert_eq!(rig.run(Direction::Backward, None).unwrap(), Outcome::RolledBack);
    assert!(rig.all(false));
    let order: Vec<usize> = rig.world.log.borrow().iter().map(|(i, _)| *i).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0]);
    assert!(rig.progress().is_closed());
}

#[test]
fn a_second_run_changes_nothing() {
    let mut rig = Rig::new();
    rig.run(Direction::Forward, None).unwrap();
    rig.world.log.borrow_mut().clear();
    rig.run(Direction::Forward, None).unwrap();
    assert!(rig.world.log.borrow().is_empty());
}

#[test]
fn what_the_node_lost_is_done_again_though_the_journal_says_done() {
    let mut rig = Rig::new();
    rig.run(Direction::Forward, None).unwrap();
    rig.world.parts = Default::default();
    rig.run(Direction::Forward, None).unwrap();
    assert!(rig.all(true));
}

#[test]
fn it_stops_behind_the_phase_asked_for_and_goes_on_from_there() {
    let mut rig = Rig::new();
    let until = Some(PhaseName::Shadow);
    assert_eq!(rig.run(Direction::Forward, until).unwrap(), Outcome::Reached(PhaseName::Shadow));
    assert_eq!(rig.world.parts[4], [false; 3]);
    assert_eq!(rig.progress().phase(), Some(PhaseName::Shadow));
    assert_eq!(rig.run(Direction::Forward, None).unwrap(), Outcome::Complete);
}

#[test]
fn a_failed_gate_stops_and_the_phase_that_moved_traffic_is_undone() {
    let mut rig = Rig::new();
    rig.world.gate_fails = Some(PhaseName::Sockets);
    let outcome = rig.run(Direction::Forward, None).unwrap();
    assert!(matches!(outcome, Outcome::GateFailed { phase: PhaseName::Sockets, undone: true, .. }));
    assert_eq!((rig.world.parts[3], rig.world.parts[4]), ([true; 3], [false; 3]));
    let mut rig = Rig::new();
    rig.world.gate_fails = Some(PhaseName::Load);
    let outcome = rig.run(Direction::Forward, None).unwrap();
    assert!(matches!(outcome, Outcome::GateFailed { phase: PhaseName::Load, undone: false, .. }));
}

#[test]
fn a_gate_that_was_gone_through_has_nothing_to_say_unless_something_was_done_anew() {
    let mut rig = Rig::new();
    assert_eq!(rig.run(Direction::Forward, None).unwrap(), Outcome::Complete);
    rig.world.gate_fails = Some(PhaseName::Load);
    assert_eq!(rig.run(Direction::Forward, None).unwrap(), Outcome::Complete);
    rig.world.parts[1] = [false; 3];
    let outcome = rig.run(Direction::Forward, None).unwrap();
    assert!(matches!(outcome, Outcome::GateFailed { phase: PhaseName::Load, undone: false, .. }));
    assert!(rig.all(true), "what later phases rest on stays");
}

#[test]
fn a_step_whose_time_has_not_come_ends_the_run_well_and_a_later_one_goes_on() {
    let mut rig = Rig::new();
    rig.world.too_early = Some(4);
    let outcome = rig.run(Direction::Forward, None).unwrap();
    assert_eq!(outcome, Outcome::Waiting { phase: PhaseName::Sockets, why: "a flow".into() });
    assert!(matches!(rig.progress().end, Some(End::Waiting { phase: PhaseName::Sockets, .. })));
    assert_eq!((rig.world.parts[3], rig.world.parts[4]), ([true; 3], [false; 3]));
    rig.world.too_early = None;
    assert_eq!(rig.run(Direction::Forward, None).unwrap(), Outcome::Complete);
    assert!(rig.all(true));
    rig.world.too_early = Some(4);
    assert_eq!(rig.run(Direction::Forward, None).unwrap(), Outcome::Complete, "what is done waits for nothing");
}

#[test]
fn a_signal_stops_it_between_two_steps() {
    let mut rig = Rig::new();
    rig.stop.store(true, Ordering::SeqCst);
    assert_eq!(rig.run(Direction::Forward, None).unwrap(), Outcome::Interrupted);
    assert!(rig.all(false));
    rig.stop.store(false, Ordering::SeqCst);
    assert_eq!(rig.run(Direction::Forward, None).unwrap(), Outcome::Complete);
}

#[test]
fn rolling_back_a_migration_that_never_began_is_fine() {
    let mut rig = Rig::new();
    assert_eq!(rig.run(Direction::Backward, None).unwrap(), Outcome::RolledBack);
    assert!(rig.world.log.borrow().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Any series of runs in any direction, each dying anywhere with any part of the last journal line lost: then either
    /// direction still ends where it should.
    #[test]
    fn whatever_happened_before_both_directions_finish(
        runs in prop::collection::vec((any::<bool>(), 0_u32..60, 0_usize..140), 0..6),
        forward in any::<bool>(),
    ) {
        let mut rig = Rig::new();
        for (forward, fuel, torn) in runs {
            rig.world.fuel = Some(fuel);
            let direction = if forward { Direction::Forward } else { Direction::Backward };
            let died = rig.run(direction, None).is_err();
            if died {
                // A process that died wrote no line about it; the line it was writing may be there in part.
                let path = rig.dir.path().join("journal.jsonl");
                let mut text = fs_err::read(&path).unwrap();
                let failed = Progress::of(&Journal::read(rig.dir.path()).unwrap()).failure.is_some();
                let line = text[..text.len() - 1].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
                if failed {
                    let last = text.split_off(line);
                    text.extend_from_slice(&last[..torn.min(last.len() - 1)]);
                }
                fs_err::write(&path, &text).unwrap();
            }
        }
        rig.world.fuel = None;
        let direction = if forward { Direction::Forward } else { Direction::Backward };
        let outcome = rig.run(direction, None).unwrap();
        prop_assert!(rig.all(forward));
        prop_assert_eq!(outcome, if forward { Outcome::Complete } else { Outcome::RolledBack });
        prop_assert_eq!(rig.progress().is_closed(), !forward);
    }
}
