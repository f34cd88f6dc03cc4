//! What Kubernetes' own tests of Services ask for, of kpx and, as the oracle, of the rules of a real kube-proxy.

mod behaviour;
mod client;
mod cluster;
mod document;
mod edit;
mod names;
mod netns;
mod probe;
mod registry;
mod run;
mod server;
mod state;
mod subject;
mod twins;

use std::sync::Mutex;

use kpx::model::Family;

use crate::dataplane::features;
use crate::support;
use behaviour::Behaviour;
use run::Stage;
use state::Worlds;

/// Behaviours that leave the world as it is are asked at once by so many threads: most of them only wait.
const THREADS: usize = 6;

#[test]
fn rules_still() {
    still(false);
}

#[test]
fn kpx_still() {
    still(true);
}

#[test]
fn rules_changing() {
    changing(false);
}

#[test]
fn kpx_changing() {
    changing(true);
}

/// Whether the subject can serve two nodes on this machine; prints why not.
fn can(kpx: bool) -> bool {
    // Which node's a client is, kpx's programs know by its network namespace here.
    let known = !kpx || features::tells_netns_cookie();
    if !known {
        println!("skipped: nodes of one kernel are told apart by SO_NETNS_COOKIE (5.14)");
    }
    known && support::privileged()
}

fn still(kpx: bool) {
    if !can(kpx) {
        return;
    }
    let worlds = worlds(kpx);
    let stage = Stage::new(&worlds, kpx);
    let scene = stage.scene();
    let runs = runs(&worlds, kpx).into_iter().filter(|(behaviour, _)| behaviour.is_still());
    let todo: Vec<_> = runs.flat_map(|(b, families)| families.into_iter().map(move |f| (b.clone(), f))).collect();
    let queue = Mutex::new(todo.iter());
    let faults = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((behaviour, family)) = { queue.lock().expect("no holder panics").next() } {
                    let outcome = scene.still(behaviour, *family);
                    faults.lock().expect("no holder panics").extend(fault(behaviour, *family, kpx, outcome));
                }
            });
        }
    });
    report(&faults.into_inner().expect("no holder panics"));
}

fn changing(kpx: bool) {
    if !can(kpx) {
        return;
    }
    let worlds = worlds(kpx);
    let mut stage = Stage::new(&worlds, kpx);
    let mut faults = Vec::new();
    for (behaviour, families) in runs(&worlds, kpx).iter().filter(|(behaviour, _)| !behaviour.is_still()) {
        let outcomes = stage.change(behaviour, families);
        faults.extend(outcomes.into_iter().filter_map(|(family, outcome)| fault(behaviour, family, kpx, outcome)));
    }
    report(&faults);
}

/// The worlds of a subject.
fn worlds(kpx: bool) -> Worlds {
    let worlds = Worlds::read();
    if kpx { worlds.with_twins() } else { worlds }
}

/// What there is to run: each behaviour in the families that its Services have, where its recordings are there.
fn runs(worlds: &Worlds, kpx: bool) -> Vec<(Behaviour, Vec<Family>)> {
    let there = registry::all().into_iter().filter(|behaviour| worlds.have(behaviour, !kpx));
    let mut runs: Vec<_> = there.map(|behaviour| (behaviour.clone(), worlds.families(&behaviour))).collect();
    // Those that begin alike follow one another: a state that is there already need not be made.
    runs.sort_by_key(|(behaviour, _)| behaviour.states().collect::<Vec<_>>());
    runs
}

/// A behaviour that is pending has to fail with kpx, or it is pending by mistake.
fn fault(behaviour: &Behaviour, family: Family, kpx: bool, outcome: Result<(), String>) -> Option<String> {
    let text = match (outcome, behaviour.pending.filter(|_| kpx)) {
        (Ok(()), None) | (Err(_), Some(_)) => return None,
        (Ok(()), Some(_)) => "passes, and is called pending".to_owned(),
        (Err(fault), None) => fault,
    };
    Some(format!("{} {family}: {text}", behaviour.id))
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "{} behaviours:\n{}", faults.len(), faults.join("\n"));
}
