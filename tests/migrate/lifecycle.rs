//! There and back, and every command on the way.

use std::path::Path;

use kpx::lab::{Traffic, TrafficOptions};
use serde_json::Value;

use super::rig::{Rig, assert_gone, tool};
use crate::support::privileged;

/// Numbers of the modes in the maps.
const SHADOW: u64 = 1;
const ACTIVE: u64 = 2;
const DRAIN: u64 = 3;

const QUICK: [&str; 2] = ["--probe-timeout", "300ms"];

fn failed_checks(verify: &Value) -> Vec<&str> {
    let items = verify["items"].as_array().expect("a list");
    items.iter().filter(|f| f["ok"] == false).filter_map(|f| f["check"].as_str()).collect()
}

#[test]
fn a_node_goes_to_ebpf_in_steps_and_comes_back_as_it_was() {
    if !privileged() {
        return;
    }
    let rig = Rig::up("mig-life");
    let before = rig.fingerprint();
    assert_eq!(rig.kpx(&["migrate", "status", "-o", "json"]).exits(0).json()["state"], "none");
    let nothing = rig.kpx(&["migrate", "rollback"]).exits(0);
    assert!(nothing.stdout.contains("Nothing is migrated"), "{nothing:?}");
    rig.kpx(&["migrate", "verify"]).exits(1);

    // A plan is a value: twice the same, saved, and nothing is changed by making it.
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("node-a.plan");
    let file = file.to_str().expect("plain");
    let first = rig.kpx(&["migrate", "plan", "--out", file, "-o", "json"]).exits(0);
    let second = rig.kpx(&["migrate", "plan", "-o", "json"]).exits(0);
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(fs_err::read_to_string(file).expect("written").parse::<Value>().expect("JSON"), first.json());
    assert_eq!(rig.fingerprint(), before);

    // Nobody to ask, and no --yes.
    let refused = rig.kpx(&["migrate", "apply"]).exits(64);
    assert!(refused.stderr.contains("--yes"), "{refused:?}");
    assert_eq!(rig.fingerprint(), before);

    // As far as shadow, told as one object a line.
    let shadow =
        rig.kpx(&[&["migrate", "apply", file, "--until", "shadow", "-o", "json"][..], &QUICK].concat()).exits(0);
    let events = shadow.events();
    assert_eq!((&events[0]["type"], &events[0]["apiVersion"]), (&Value::from("version"), &Value::from("kpx.dev/v1")));
    assert_eq!(events.last().expect("an end")["exit"], 0);
    assert_eq!((rig.mode(), rig.hooks().len()), (Some(SHADOW), 10));
    let status = rig.kpx(&["migrate", "status", "-o", "json"]).exits(0).json();
    assert_eq!(
        (&status["state"], &status["after"], &status["serving"]),
        (&"stopped".into(), &"shadow".into(), &"rules".into())
    );
    // A plan now says what stands in its way.
    let plan = rig.kpx(&["migrate", "plan", "-o", "json"]).exits(2).json();
    assert_eq!(plan["blockers"][0]["id"], "migration-open");

    // To the end.
    let applied = rig.kpx(&[&["migrate", "apply", "--yes", "--until", "sockets"][..], &QUICK].concat()).exits(0);
    let rollback = applied.stdout.lines().last().expect("a last line");
    let command = format!("kpx migrate rollback --netns {}", rig.option("--netns"));
    assert!(rollback.contains(&command), "{rollback}");
    assert_eq!(rig.mode(), Some(ACTIVE));
    let programs = rig.program_ids();
    let verify = rig.kpx(&[&["migrate", "verify", "-o", "json"][..], &QUICK].concat()).exits(0).json();
    assert_eq!(failed_checks(&verify), Vec::<&str>::new());

    // An entry that disappears from the maps is found, and the next apply brings it back.
    let index = format!("{}/maps/kpx_index", rig.option("--bpffs"));
    let dump: Value = tool("bpftool", &["-j", "map", "dump", "pinned", &index]).parse().expect("JSON");
    let key: Vec<&str> = dump[0]["key"].as_array().expect("bytes").iter().filter_map(Value::as_str).collect();
    tool(
        "bpftool",
        &[&["map", "delete", "pinned", &index, "key", "hex"][..], &key.iter().map(|b| &b[2..]).collect::<Vec<_>>()]
            .concat(),
    );
    let verify = rig.kpx(&[&["migrate", "verify", "-o", "json"][..], &QUICK].concat()).exits(2).json();
    // Which entry the map lists first differs from map to map; a probe of that very Service is not counted either.
    let failed = failed_checks(&verify);
    assert_eq!((failed[0], failed.iter().all(|check| ["api-maps", "counters"].contains(check))), ("api-maps", true));
    let status = rig.kpx(&["migrate", "status"]).exits(0);
    assert!(status.stdout.contains("BEHIND"), "{status:?}");
    assert!(status.stderr.contains("bring the maps up to date: kpx migrate apply"), "{status:?}");
    rig.kpx(&[&["migrate", "apply", "--yes", "--until", "sockets"][..], &QUICK].concat()).exits(0);
    rig.kpx(&[&["migrate", "verify"][..], &QUICK].concat()).exits(0);

    let rollback = rig.kpx(&["migrate", "rollback", "-o", "json"]).exits(0).events();
    assert_eq!(rollback.last().expect("an end")["took"]["direction"], "backward");
    assert_eq!(rig.fingerprint(), before);
    assert_gone(&programs);
    let list = rig.kpx(&["migrate", "list", "-o", "json"]).exits(0).json();
    assert_eq!((list["items"].as_array().map(Vec::len), &list["items"][0]["state"]), (Some(1), &"rolled back".into()));

    // The saved plan is refused once a rule has changed, by the name of what changed.
    let netns = rig.option("--netns");
    tool("ip", &["netns", "exec", &netns, "iptables-nft", "-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP"]);
    let stale = rig.kpx(&["migrate", "apply", file, "--yes"]).exits(1);
    assert!(stale.stderr.contains("rules iptables-nft IPv4: changed"), "{stale:?}");
    assert_eq!(rig.kpx(&["migrate", "list", "-o", "name"]).exits(0).stdout.lines().count(), 1);
}

#[test]
fn a_rollback_waits_for_udp_sockets_and_says_how_to_go_on() {
    if !privileged() {
        return;
    }
    let mut rig = Rig::up("mig-drain");
    let before = rig.fingerprint();
    rig.kpx(&[&["migrate", "apply", "--yes", "--until", "sockets"][..], &QUICK].concat()).exits(0);
    // Flows that begin now are the hooks' own.
    let options =
        TrafficOptions { flows: 30, timed_per_second: 0, connects_per_second: 0, ..TrafficOptions::default() };
    let traffic = Traffic::start(&mut rig.lab, &options).expect("traffic");
    let waiting = rig.kpx(&["migrate", "rollback", "--drain-timeout", "2s"]).exits(3);
    assert!(waiting.stderr.contains("UDP sockets still use translations"), "{waiting:?}");
    assert!(waiting.stderr.contains("--force") && waiting.stderr.contains("--drain-timeout"), "{waiting:?}");
    assert_eq!((rig.mode(), rig.hooks().len()), (Some(DRAIN), 10), "flows that are ours go on");
    let status = rig.kpx(&["migrate", "status", "-o", "json"]).exits(0).json();
    assert_eq!((&status["state"], &status["serving"]), (&"rollback-unfinished".into(), &"rules".into()));
    let report = traffic.stop().expect("a report");
    assert_eq!(report.flows_lost, 0, "{report:?}");
    rig.kpx(&["migrate", "rollback"]).exits(0);
    assert_eq!(rig.fingerprint(), before);
}

#[test]
fn after_a_reboot_status_says_so_and_both_ways_are_open() {
    if !privileged() {
        return;
    }
    let rig = Rig::up("mig-boot");
    let before = rig.fingerprint();
    for forward in [true, false] {
        rig.kpx(&[&["migrate", "apply", "--yes", "--until", "sockets"][..], &QUICK].concat()).exits(0);
        reboot(&rig);
        let status = rig.kpx(&["migrate", "status", "-o", "json"]).exits(0).json();
        assert_eq!((&status["state"], &status["serving"]), (&"rebooted".into(), &"rules".into()), "{status}");
        if forward {
            rig.kpx(&[&["migrate", "apply", "--yes", "--until", "sockets"][..], &QUICK].concat()).exits(0);
            assert_eq!((rig.mode(), rig.hooks().len()), (Some(ACTIVE), 10));
        }
        rig.kpx(&["migrate", "rollback"]).exits(0);
        assert_eq!(rig.fingerprint(), before);
    }
}

/// What a boot does to a migration: pins and links go, the boot id is another one.
fn reboot(rig: &Rig) {
    let pins = rig.option("--bpffs");
    fs_err::remove_dir_all(&pins).expect("pins");
    let migrations = Path::new(&rig.option("--state-dir")).join("migrations");
    let newest = fs_err::read_dir(migrations).expect("migrations").map(|e| e.expect("an entry").path()).max();
    let newest = newest.expect("a migration");
    let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot id");
    for file in ["journal.jsonl", "plan.json"] {
        let path = newest.join(file);
        let text = fs_err::read_to_string(&path).expect("a record");
        fs_err::write(&path, text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000")).expect("written");
    }
}

#[test]
fn a_damaged_journal_is_told_with_its_line() {
    if !privileged() {
        return;
    }
    let rig = Rig::up("mig-damage");
    rig.kpx(&[&["migrate", "apply", "--yes", "--until", "load"][..], &QUICK].concat()).exits(0);
    let migrations = Path::new(&rig.option("--state-dir")).join("migrations");
    let newest = fs_err::read_dir(migrations).expect("migrations").map(|e| e.expect("an entry").path()).max();
    let journal = newest.expect("a migration").join("journal.jsonl");
    let text = fs_err::read_to_string(&journal).expect("a journal");
    fs_err::write(&journal, text.replacen("\"event\":\"done\"", "\"event\":\"dnoe\"", 1)).expect("written");
    for command in [&["migrate", "status"][..], &["migrate", "apply", "--yes"], &["migrate", "rollback"]] {
        let refused = rig.kpx(command).exits(1);
        assert!(refused.stderr.contains("journal.jsonl is damaged at line 3"), "{refused:?}");
        assert!(refused.stderr.contains("look at what else wrote to"), "{refused:?}");
    }
    fs_err::write(&journal, text).expect("written");
    rig.kpx(&["migrate", "rollback"]).exits(0);
}

#[test]
fn one_kpx_at_a_time_changes_a_node() {
    if !privileged() {
        return;
    }
    let rig = Rig::up("mig-lock");
    let path = Path::new(&rig.option("--state-dir")).join("lock");
    let file = fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(path).expect("a lock file");
    fs_err::write(file.path(), r#"{"pid":4242,"since":"2026-11-24T06:00:00Z"}"#).expect("written");
    file.file().lock().expect("locked");
    for command in [&["migrate", "apply", "--yes"][..], &["migrate", "rollback"]] {
        let refused = rig.kpx(&[command, &["--lock-timeout", "100ms"]].concat()).exits(1);
        assert!(refused.stderr.contains("process 4242 since 2026-11-24T06:00:00Z"), "{refused:?}");
    }
    // Reading needs no lock.
    rig.kpx(&["migrate", "plan"]).exits(0);
    rig.kpx(&["migrate", "status"]).exits(0);
}
