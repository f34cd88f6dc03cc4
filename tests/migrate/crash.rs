//! kill -9 at every journal write, forward and backward: afterwards either command finishes, and the node is as before.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use super::rig::{Rig, Run, assert_gone};
use crate::support::privileged;

const APPLY: [&str; 7] = ["migrate", "apply", "--yes", "--probe-timeout", "200ms", "--until", "sockets"];
const ROLLBACK: [&str; 2] = ["migrate", "rollback"];
/// `enum mode` of the maps: 2 is active.
const ACTIVE: u64 = 2;

/// Whether a run was killed rather than ended.
fn killed(run: &Run) -> bool {
    if run.code.is_none() {
        return true;
    }
    assert_eq!(run.code, Some(0), "neither killed nor fine: {run:?}");
    false
}

/// `status` works, and says who serves as the map itself has it.
fn status_is_true(rig: &Rig, when: &str) {
    let status = rig.kpx(&["migrate", "status", "-o", "json"]).exits(0).json();
    let serving = if rig.mode() == Some(ACTIVE) { "ebpf" } else { "rules" };
    assert_eq!(status["serving"], serving, "{when}: {status}");
    for step in status["items"].as_array().unwrap() {
        assert!(step["on_node"].is_boolean(), "{when}: {step}");
        let done = step["journal"] == "done";
        assert!(!done || step["on_node"] == true, "{when}: the journal says done and the node does not: {step}");
    }
}

/// Everything is as it was, and no program is left in the kernel.
fn as_before(rig: &Rig, before: &str, programs: &[u64], when: &str) {
    assert_eq!(rig.fingerprint(), before, "{when}");
    assert_gone(programs);
}

/// Runs `test` for each journal write, until it says that the run was no longer killed.
fn every_write(name: &str, at_least: u32, test: impl Fn(&Rig, u32) -> bool) {
    if !privileged() {
        return;
    }
    let rig = Rig::up(name);
    let before = rig.fingerprint();
    for n in 1.. {
        let was_killed = test(&rig, n);
        let programs = rig.program_ids();
        rig.kpx(&ROLLBACK).exits(0);
        as_before(&rig, &before, &programs, &format!("journal write {n}"));
        if !was_killed {
            assert!(n > at_least, "only {n} crash points: the failpoint does not work");
            break;
        }
    }
}

#[test]
fn apply_killed_after_any_journal_write_can_be_rolled_back() {
    every_write("mig-crash-1", 15, |rig, n| {
        let was_killed = killed(&rig.kpx_with(&APPLY, Some(&format!("after:{n}"))));
        status_is_true(rig, &format!("apply killed after write {n}"));
        was_killed
    });
}

#[test]
fn apply_and_rollback_killed_after_any_journal_write_can_be_finished_either_way() {
    every_write("mig-crash-2", 15, |rig, n| {
        let crash = format!("after:{n}");
        let apply_killed = killed(&rig.kpx_with(&APPLY, Some(&crash)));
        status_is_true(rig, &format!("apply killed after write {n}"));
        // Forward to the end, back half-way, forward again, back half-way again; the caller goes all the way back.
        for _ in 0..2 {
            rig.kpx(&APPLY).exits(0);
            assert_eq!((rig.mode(), rig.hooks().len()), (Some(ACTIVE), 10), "write {n}");
            if !killed(&rig.kpx_with(&ROLLBACK, Some(&crash))) {
                break;
            }
            status_is_true(rig, &format!("rollback killed after write {n}"));
        }
        apply_killed
    });
}
