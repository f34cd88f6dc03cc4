//! kill -9 at every journal write and between the changes of the kernel that a step makes, on the whole way to eBPF and back,
//! under traffic: whatever is left, `status` tells it as it is, either command finishes, and no flow is lost.
//!
//! `KPX_CRASHES=all` dies at each point there is, which takes most of an hour. Otherwise each step dies at one of its points; which
//! one, a number decides that is another every minute and that `KPX_CRASHES=NUMBER` fixes.

use std::collections::BTreeSet;
use std::path::Path;

use kpx::lab::{Traffic, TrafficOptions};
use kpx::migrate::{Event, Journal};

use super::rig::{Rig, Run, assert_gone};
use super::switch::{ACTIVE, clean};
use crate::support::privileged;

/// Which points are died at.
#[derive(Clone, Copy)]
enum Points {
    All,
    /// One of each step's, chosen by this number.
    Some(usize),
}

impl Points {
    fn asked() -> Self {
        let minute = || jiff::Timestamp::now().as_second() as usize / 60;
        match std::env::var("KPX_CRASHES").ok().as_deref() {
            Some("all") => Self::All,
            asked => {
                let number = asked.and_then(|n| n.parse().ok()).unwrap_or_else(minute);
                println!("KPX_CRASHES={number}");
                Self::Some(number)
            }
        }
    }
}

/// Which way a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

impl Way {
    const fn other(self) -> Self {
        match self {
            Self::There => Self::Back,
            Self::Back => Self::There,
        }
    }
}

/// What a run that was killed had written, behind its `begin`.
struct Written {
    events: Vec<Event>,
}

impl Written {
    /// The step that was begun, if one was.
    fn step(&self) -> Option<&str> {
        self.events.iter().find_map(|event| match event {
            Event::Intent { step, .. } => Some(step.as_str()),
            _ => None,
        })
    }

    /// Whether nothing was left to do.
    fn is_at_its_end(&self) -> bool {
        matches!(self.events.last(), Some(Event::End { .. }))
    }

    /// Whether that step is done.
    fn is_done(&self) -> bool {
        self.events.len() > 1
    }
}

/// More changes than these no step makes.
const CHANGES: usize = 60;

struct Walker<'a> {
    rig: &'a Rig,
    /// What the node needs besides.
    more: &'a [&'a str],
    before: String,
    points: BTreeSet<String>,
}

impl<'a> Walker<'a> {
    fn new(rig: &'a Rig, more: &'a [&'a str]) -> Self {
        Self { rig, more, before: rig.fingerprint(), points: BTreeSet::new() }
    }

    /// The steps that were died in, this way.
    fn steps(&self, way: &str) -> BTreeSet<&str> {
        self.points.iter().filter_map(|point| point.strip_prefix(way)?.trim_start().split(',').next()).collect()
    }

    fn run(&self, way: Way, crash: Option<&str>) -> Run {
        match way {
            Way::There => self.rig.apply_with(self.more, crash),
            Way::Back => self.rig.kpx_with(&["migrate", "rollback"], crash),
        }
    }

    /// Runs until it is killed there; `None` if it came to its end.
    fn killed(&mut self, way: Way, crash: &str) -> Option<Written> {
        let run = self.run(way, Some(crash));
        if run.code.is_some() {
            assert_eq!(run.code, Some(0), "neither killed nor fine, {crash}: {run:?}");
            return None;
        }
        let written = self.written();
        let place = written.step().unwrap_or("between steps").to_owned();
        self.points.insert(format!("{way:?} {place}, {crash}"));
        self.status_is_true(&written, &format!("{way:?}, {place}, killed {crash}"));
        Some(written)
    }

    /// What the newest journal has of its last run.
    fn written(&self) -> Written {
        let migrations = Path::new(&self.rig.option("--state-dir")).join("migrations");
        let entries = fs_err::read_dir(migrations).expect("migrations").map(|entry| entry.expect("an entry").path());
        let newest = entries.max().expect("a migration");
        let mut events: Vec<Event> =
            Journal::read(&newest).expect("it is whole").into_iter().map(|record| record.event).collect();
        let begin = events.iter().rposition(|event| matches!(event, Event::Begin { .. })).expect("a run");
        Written { events: events.split_off(begin + 1) }
    }

    /// `status` works, says who serves as the map itself has it, and shows no step as done that is not.
    fn status_is_true(&self, written: &Written, when: &str) {
        let status = self.rig.kpx(&["migrate", "status", "-o", "json"]).exits(0).json();
        let serving = if self.rig.mode() == Some(ACTIVE) { "ebpf" } else { "rules" };
        assert_eq!(status["serving"], serving, "{when}: {status}");
        // Of a migration that was rolled back to its end, nothing is open any more.
        let finished =
            ["in-force", "waiting", "rolled-back", "none"].contains(&status["state"].as_str().unwrap_or_default());
        assert_eq!(finished, written.is_at_its_end(), "{when}: {status}");
        let rules = self.rig.rules_with("-j KUBE-SVC-") > 0;
        for step in status["items"].as_array().expect("a list") {
            assert!(step["on_node"].is_boolean(), "{when}: {step}");
            // The way back starts kube-proxy before the packet path stands back, and its own step comes later.
            let early = step["step"] == "stop-kube-proxy" && status["state"] == "rollback-unfinished";
            let done = step["journal"] == "done" && !early;
            assert!(!done || step["on_node"] == true, "{when}: the journal says done and the node does not: {step}");
            if step["step"] == "remove-rules" {
                assert!(!(rules && step["on_node"] == true), "{when}: rules stand: {step}");
            }
        }
    }

    /// Goes to the end, and looks whether that was reached.
    fn finish(&self, way: Way, when: &str) {
        let programs = self.rig.program_ids();
        self.run(way, None).exits(0);
        self.is_there(way, &programs, when);
    }

    fn is_there(&self, way: Way, programs: &[u64], when: &str) {
        match way {
            Way::There => {
                assert_eq!(self.rig.mode(), Some(ACTIVE), "{when}");
                assert_eq!((self.rig.devices(), self.rig.rules_with("-j KUBE-SVC-")), (4, 0), "{when}");
            }
            Way::Back => {
                assert_eq!(self.rig.fingerprint(), self.before, "{when}");
                assert_gone(programs);
            }
        }
    }

    /// All the way, dying in each step; each next run goes on from what the one before left.
    fn walk(&mut self, way: Way, points: Points) {
        let programs = self.rig.program_ids();
        for position in 0.. {
            let all = match points {
                Points::All => vec!["before:2", "after:2", "before:3"],
                Points::Some(number) => {
                    [&["before:2"][..], &["after:2"], &["before:3"], &[], &[]][(number + position) % 5].to_vec()
                }
            };
            for crash in all {
                if self.killed(way, crash).is_none() {
                    return self.is_there(way, &programs, "at its end");
                }
            }
            let changes: Vec<String> = match points {
                Points::All => (1..=CHANGES).map(|n| format!("change:{n},after:3")).collect(),
                Points::Some(number) => {
                    vec![format!("change:{},after:3", 1 + (number + position) % 3), "after:3".to_owned()]
                }
            };
            for crash in changes {
                match self.killed(way, &crash) {
                    None => return self.is_there(way, &programs, "at its end"),
                    Some(written) if written.is_at_its_end() => return self.finish(way, "at its end"),
                    // Behind the gate's word, or behind the step's: on to what is next.
                    Some(written) if written.is_done() || written.step().is_none() => break,
                    Some(_) => {}
                }
            }
        }
    }

    /// Dies, turns round and goes to the end there; again and again, each time later.
    fn turn(&mut self, way: Way, points: Points) {
        for point in 0.. {
            let crash = match points {
                Points::All => {
                    [format!("after:{}", point / 2 + 1), format!("change:{}", point / 2 + 1)][point % 2].clone()
                }
                // Three turns are made, of thirty writes or so and twice as many changes.
                Points::Some(_) if point > 2 => return,
                Points::Some(number) => [
                    format!("after:{}", 3 + (7 * number + 11 * point) % 28),
                    format!("change:{}", 1 + (11 * number + 17 * point) % 60),
                ][(number + point) % 2]
                    .clone(),
            };
            let was_killed = self.killed(way, &crash).is_some();
            self.finish(way.other(), &format!("{way:?} killed {crash}, and turned round"));
            if !was_killed && matches!(points, Points::All) && point % 2 == 1 {
                return;
            }
        }
    }
}

fn traffic() -> TrafficOptions {
    TrafficOptions { flows: 40, timed_per_second: 4, connects_per_second: 15, ..TrafficOptions::default() }
}

/// Brings a node up and lets it be died on, under traffic that notices nothing.
fn crashes(name: &str, work: impl FnOnce(&mut Walker<'_>, Points)) {
    if !privileged() {
        return;
    }
    let rig = Rig::up(name);
    rig.drop_forwarded("nft", false);
    crashes_of(name, rig, &[], work);
}

fn crashes_of(name: &str, mut rig: Rig, more: &[&str], work: impl FnOnce(&mut Walker<'_>, Points)) {
    let mut traffic = Traffic::start(&mut rig.lab, &traffic()).expect("traffic");
    traffic.phase("crashes").expect("a phase");
    let mut walker = Walker::new(&rig, more);
    work(&mut walker, Points::asked());
    println!("{name}: died at {} points", walker.points.len());
    clean(&traffic.stop().expect("a report"));
}

#[test]
fn killed_in_each_step_there_and_in_each_step_back() {
    crashes("crash-walk", |walker, points| {
        walker.walk(Way::There, points);
        walker.walk(Way::Back, points);
        let steps = |way: &str| walker.steps(way).len();
        assert!(steps("There") > 12 && steps("Back") > 9, "too few steps died: {:?}", walker.points);
    });
}

/// In ipvs mode, on kernels that have IPVS: from where the way is another one.
#[test]
fn killed_in_each_step_of_ipvs_mode() {
    let Some(rig) = super::ipvs::up("crash-ipvs") else { return };
    crashes_of("crash-ipvs", rig, &super::ipvs::WISHES, |walker, points| {
        walker.rig.apply(&[&super::ipvs::WISHES[..], &["--until", "packets"]].concat()).exits(0);
        walker.walk(Way::There, points);
        walker.walk(Way::Back, points);
        for step in ["carry-sockets", "drain-servers", "remove-rules"] {
            assert!(walker.steps("There").contains(step), "{:?}", walker.points);
        }
        for step in ["drain-servers", "remove-rules", "serve-packets"] {
            assert!(walker.steps("Back").contains(step), "{:?}", walker.points);
        }
    });
}

#[test]
fn killed_on_the_way_there_a_node_comes_back() {
    crashes("crash-there", |walker, points| walker.turn(Way::There, points));
}

#[test]
fn killed_on_the_way_back_a_node_goes_there() {
    crashes("crash-back", |walker, points| {
        walker.finish(Way::There, "at first");
        walker.turn(Way::Back, points);
        walker.finish(Way::Back, "at last");
    });
}
