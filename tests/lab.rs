//! The lab: what it builds is what was recorded, its traffic notices every kind of loss, and nothing stays behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
#[expect(clippy::disallowed_types, reason = "tests run the program and its oracles themselves")]
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use kpx::capture::{Node, NodeOptions};
use kpx::lab::{self, Lab, LabError, Place, Spec, Traffic, TrafficOptions, TrafficReport};
use serde_json::Value;

use crate::cli::schema::conforms;
use crate::support::{privileged, recordings};

#[path = "lab/rebuilt.rs"]
mod rebuilt;

/// The program under test, which also is the lab's backends and clients.
const KPX: &str = env!("CARGO_BIN_EXE_kpx");

/// The recorded world of the project itself.
fn world() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lab/node")
}

/// A name that no other run of the tests uses.
fn name(of: &str) -> String {
    format!("t{}-{of}", std::process::id())
}

fn spec(name: &str, from: &Path, services_from: Option<PathBuf>) -> Spec {
    let options = NodeOptions { from: Some(from.to_owned()), services_from, ..NodeOptions::default() };
    Spec::read(&Node::open(&options).expect("the snapshot opens"), name).expect("the snapshot is understood")
}

fn up(name: &str) -> Lab {
    Lab::up(&spec(name, &world(), None), Path::new(KPX)).expect("the lab comes up")
}

#[expect(clippy::disallowed_types, reason = "tests run the program and its oracles themselves")]
fn program_of(path: &str) -> Command {
    Command::new(path)
}

fn run(program: &str, args: &[&str]) -> String {
    let output = program_of(program).args(args).output().expect("the program runs");
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

/// Everything on this machine that bears the lab's name: namespaces, mounts, cgroups, directories, processes.
fn traces(name: &str) -> Vec<String> {
    let mut found: Vec<String> = run("ip", &["netns", "list"]).lines().map(str::to_owned).collect();
    found.extend(run("cat", &["/proc/mounts"]).lines().map(str::to_owned));
    found.extend(run("find", &["/sys/fs/cgroup", "-maxdepth", "3", "-type", "d"]).lines().map(str::to_owned));
    found.extend(run("find", &["/run/kpx", "/run/netns", "-maxdepth", "2"].map(existing)).lines().map(str::to_owned));
    let own = |line: &String| line.contains(&format!("lab-{name}")) || line.contains(&format!("lab/{name}"));
    found.retain(own);
    found
}

/// `find` complains about what is not there.
fn existing(path: &'static str) -> &'static str {
    if path.starts_with('/') && !Path::new(path).exists() { "/run" } else { path }
}

fn backends(lab: &Lab) -> u32 {
    lab.record().processes.iter().find(|p| p.role == "backends").expect("backends run").pid
}

fn little() -> TrafficOptions {
    TrafficOptions { flows: 60, connects_per_second: 30, ..TrafficOptions::default() }
}

/// Runs traffic for a while, does something to the node, and lets it run on.
fn traffic(lab: &mut Lab, after: Duration, act: impl FnOnce(&Lab)) -> TrafficReport {
    let mut traffic = Traffic::start(lab, &little()).expect("the clients start");
    traffic.phase("idle").expect("the clients listen");
    thread::sleep(Duration::from_millis(1500));
    traffic.phase("acted").expect("the clients listen");
    act(lab);
    thread::sleep(after);
    traffic.stop().expect("the clients report")
}

fn reasons(report: &TrafficReport, what: &str) -> BTreeSet<String> {
    report.troubles.iter().filter(|t| t.what.starts_with(what)).map(|t| t.reason.clone()).collect()
}

#[test]
fn up_and_down_leave_nothing() {
    if !privileged() {
        return;
    }
    let name = name("clean");
    let lab = up(&name);
    let pid = backends(&lab);
    assert!(traces(&name).len() >= 7, "namespaces, a mount, cgroups and a directory: {:?}", traces(&name));
    assert!(matches!(Lab::up(&spec(&name, &world(), None), Path::new(KPX)), Err(LabError::Exists { .. })));
    assert!(!traces(&name).is_empty(), "a refused second lab does not touch the first");
    drop(lab);
    assert_eq!(traces(&name), Vec::<String>::new());
    assert!(!Path::new(&format!("/proc/{pid}/exe")).exists(), "backends are ended");
    assert!(matches!(lab::down(&name), Err(LabError::Unknown { .. })));
}

#[test]
fn a_lab_killed_at_any_moment_can_be_removed() {
    if !privileged() {
        return;
    }
    // Bringing up takes about a second: these moments fall before, into and after each part of it.
    for (i, millis) in [15, 35, 60, 100, 150, 220, 300, 450, 900].into_iter().enumerate() {
        let name = name(&format!("k{i}"));
        let mut child = program_of(KPX)
            .args(["lab", "up", "--name", &name, "--from"])
            .arg(world())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("kpx starts");
        thread::sleep(Duration::from_millis(millis));
        child.kill().expect("it can be killed, or has ended and is still to be waited for");
        child.wait().expect("it ends");
        match lab::down(&name) {
            Ok(()) | Err(LabError::Unknown { .. }) => {}
            Err(error) => panic!("killed after {millis} ms: {error}"),
        }
        assert_eq!(traces(&name), Vec::<String>::new(), "killed after {millis} ms");
    }
}

/// The rules of an `iptables-save` text as a set: counters, comments and the order of tables are the tool's.
fn rules(text: &str) -> BTreeSet<String> {
    let mut table = "";
    let mut found = BTreeSet::new();
    let mut position = 0;
    for line in text.lines() {
        match line.as_bytes().first() {
            Some(b'*') => (table, position) = (line, 0),
            Some(b':') => drop(found.insert(format!("{table} {}", line.split(" [").next().unwrap_or_default()))),
            Some(b'[') => {
                position += 1;
                let rule = line.split_once("] ").map_or(line, |(_, rule)| rule);
                found.insert(format!("{table} {position} {rule}"));
            }
            _ => {}
        }
    }
    found
}

/// Every recorded iptables world is what the lab's node has afterwards, by iptables' own account.
#[test]
fn rules_are_the_recorded_ones() {
    if !privileged() {
        return;
    }
    let mut worlds = vec![(world(), None, "nft")];
    if let Some(fixtures) = recordings() {
        let api = Some(fixtures.join("small/api"));
        worlds.push((fixtures.join("small/iptables-legacy/running"), api.clone(), "legacy"));
        worlds.push((fixtures.join("small/v1.23-iptables-nft/running"), api, "nft"));
    }
    for (i, (from, services_from, variant)) in worlds.into_iter().enumerate() {
        if !from.is_dir() {
            println!("skipped: no {}", from.display());
            continue;
        }
        let name = name(&format!("r{i}"));
        let lab = Lab::up(&spec(&name, &from, services_from), Path::new(KPX)).expect("the lab comes up");
        for program in ["iptables", "ip6tables"] {
            let save = format!("{program}-{variant}-save");
            let there = run("ip", &["netns", "exec", &lab.names().node(), &save, "-c"]);
            let recorded = std::fs::read_to_string(from.join(format!("{program}-save.txt"))).expect("recorded");
            assert_eq!(rules(&there), rules(&recorded), "{save} of {}", from.display());
        }
    }
}

#[test]
fn the_node_has_the_recorded_network() {
    if !privileged() {
        return;
    }
    let lab = up(&name("net"));
    let addresses = run("ip", &["-n", &lab.names().node(), "-j", "addr"]);
    let recorded = std::fs::read_to_string(world().join("ip-addr.json")).expect("recorded");
    // Link-local addresses of bridges and of their ports follow from random link-layer addresses.
    let of = |text: &str| -> BTreeSet<String> {
        let links: Value = serde_json::from_str(text).expect("ip prints JSON");
        let mut found = BTreeSet::new();
        for link in links.as_array().expect("a list of interfaces") {
            for address in link["addr_info"].as_array().expect("a list of addresses") {
                if address["scope"] != "link" {
                    found.insert(format!("{} {}/{}", link["ifname"], address["local"], address["prefixlen"]));
                }
            }
        }
        found
    };
    assert_eq!(of(&addresses), of(&recorded));
    let route = run("ip", &["-n", &lab.names().node(), "route", "get", "10.244.2.13"]);
    assert!(route.contains("via 192.168.50.12 dev eth0"), "{route}");
}

#[test]
fn undisturbed_traffic_loses_nothing() {
    if !privileged() {
        return;
    }
    let mut lab = up(&name("idle"));
    assert!(lab.targets(Place::Node).len() > 40, "one of everything: {:?}", lab.targets(Place::Node));
    let report = traffic(&mut lab, Duration::from_secs(3), |_| {});
    assert!(report.clean(), "{:?}", report.troubles);
    assert_eq!(report.records_lost, 0);
    assert!(report.flows_total > 80 && report.connects_total > 60 && report.probes_total > 3, "{report:?}");
    assert!(report.classes.iter().all(|class| class.flows_total > 10), "{:?}", report.classes);
    assert!(report.longest_gap_ms >= 10.0, "records come every 20 ms: {}", report.longest_gap_ms);
}

/// Traffic that cannot lose anything would prove nothing. First sabotage: the kernel forgets all flows.
#[test]
fn forgotten_flows_are_lost_flows() {
    if !privileged() {
        return;
    }
    let mut lab = up(&name("forget"));
    let report = traffic(&mut lab, Duration::from_secs(3), |lab| {
        run("ip", &["netns", "exec", &lab.names().node(), "conntrack", "-F"]);
    });
    assert!(!report.clean());
    let acted = report.phase("acted").expect("the phase is there");
    assert!(acted.flows_open >= 60, "{acted:?}");
    for class in &report.classes {
        assert!(class.flows_lost > 0, "{class:?}: {:?}", report.troubles);
    }
    assert!(reasons(&report, "tcp").contains("reset"), "{:?}", report.troubles);
}

/// Second sabotage: new connections find no rule, old ones live on in the kernel's table.
#[test]
fn new_connections_without_rules_fail() {
    if !privileged() {
        return;
    }
    let mut lab = up(&name("rules"));
    let report = traffic(&mut lab, Duration::from_secs(3), |lab| {
        run("ip", &["netns", "exec", &lab.names().node(), "iptables-nft", "-w", "-t", "nat", "-F", "KUBE-SERVICES"]);
    });
    assert!(report.connects_failed > 0, "{report:?}");
    let opened_before: Vec<_> = report.troubles.iter().filter(|t| t.phase == "idle").collect();
    assert!(opened_before.is_empty(), "{opened_before:?}");
}

/// Third sabotage, which an echo would not notice: the answers still come, but the backend sees another port.
#[test]
fn a_changed_source_port_is_a_loss() {
    if !privileged() {
        return;
    }
    let mut lab = up(&name("port"));
    let report = traffic(&mut lab, Duration::from_millis(900), |lab| {
        run("ip", &["netns", "exec", &lab.names().node(), "conntrack", "-D", "-p", "udp"]);
    });
    let saw = "the backend saw another source address or port";
    assert!(reasons(&report, "udp").contains(saw), "{:?}", report.troubles);
    assert_eq!(reasons(&report, "tcp"), BTreeSet::new());
}

/// Runs the demonstration in a process, does something to the lab after a while, and gives exit code and report.
fn demo(name: &str, act_after: Duration, act: impl FnOnce(u32)) -> (Option<i32>, Value) {
    let child = program_of(KPX)
        .args(["lab", "demo", "--name", name, "--hold", "3", "--flows", "60", "--connects", "30", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kpx starts");
    let pid = child.id();
    let output = thread::scope(|scope| {
        let waiting = scope.spawn(|| child.wait_with_output().expect("it ends"));
        thread::sleep(act_after);
        act(pid);
        waiting.join().expect("the waiting does not panic")
    });
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    conforms(&report);
    (output.status.code(), report)
}

/// The promise: from the rules to eBPF and back, and both ends of every flow saw every record.
#[test]
fn the_demonstration_loses_nothing() {
    if !privileged() {
        return;
    }
    let name = name("demo");
    let (code, report) = demo(&name, Duration::ZERO, |_| {});
    assert_eq!((code, &report["outcome"]), (Some(0), &"told".into()), "{report:#}");
    assert_eq!((&report["flows_lost"], &report["connects_failed"]), (&0.into(), &0.into()), "{report:#}");
    assert!(report["flows_total"].as_u64() > Some(100) && report["longest_gap_ms"].as_f64() > Some(10.0), "{report:#}");
    for phase in ["idle", "apply", "ebpf", "rollback", "rules-again"] {
        let found = report["phases"].as_array().expect("a list").iter().find(|p| p["phase"] == phase);
        let found = found.unwrap_or_else(|| panic!("no phase {phase}: {report:#}"));
        assert!(found["flows_open"].as_u64() >= Some(60), "{found:#}");
        assert!(found["connects"].as_u64() > Some(0), "{found:#}");
    }
    assert_eq!(traces(&name), Vec::<String>::new());
}

/// The same, and somebody breaks the node while it runs: the report says so, and so does the exit code.
#[test]
fn a_demonstration_that_loses_flows_says_so() {
    if !privileged() {
        return;
    }
    let name = name("hurt");
    let node = lab::Names::new(&name).expect("a good name").node();
    let (code, report) = demo(&name, Duration::from_secs(8), |_| {
        run("ip", &["netns", "exec", &node, "conntrack", "-F"]);
    });
    assert_ne!(code, Some(0), "{report:#}");
    assert!(report["flows_lost"].as_u64() > Some(0), "{report:#}");
    assert_eq!(traces(&name), Vec::<String>::new());
}

#[test]
fn a_demonstration_that_is_interrupted_is_removed() {
    if !privileged() {
        return;
    }
    let name = name("int");
    let (code, report) = demo(&name, Duration::from_secs(3), |pid| {
        run("kill", &["-INT", &pid.to_string()]);
    });
    assert_eq!(code, Some(130), "{report:#}");
    assert_eq!(traces(&name), Vec::<String>::new());
}

/// What `kpx lab` prints: the options to paste, the list, the report for programs.
#[test]
fn commands_speak_json() {
    if !privileged() {
        return;
    }
    let name = name("cli");
    let kpx = |args: &[&str]| {
        let output = program_of(KPX).args(args).output().expect("kpx runs");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if !document.is_null() {
            conforms(&document);
        }
        (output.status.code(), document)
    };
    let from = world();
    let (code, up) = kpx(&["lab", "up", "--name", &name, "--from", from.to_str().expect("a plain path"), "-o", "json"]);
    assert_eq!((code, &up["items"][0]["node"]), (Some(0), &Value::from("node-a")));
    let (_, list) = kpx(&["lab", "list", "-o", "json"]);
    let listed = list["items"].as_array().expect("a list").iter().find(|lab| lab["name"] == name.as_str());
    assert_eq!(listed.expect("the lab is listed")["whole"], true);
    let (code, report) = kpx(&["lab", "traffic", &name, "--seconds", "1", "--flows", "20", "-o", "json"]);
    assert_eq!((code, &report["flows_lost"], &report["connects_failed"]), (Some(0), &0.into(), &0.into()));
    assert!(report["flows_total"].as_u64() >= Some(20), "{report}");
    assert_eq!(kpx(&["lab", "down", &name]).0, Some(0));
    assert_eq!(kpx(&["lab", "down", &name]).0, Some(1));
    assert_eq!(traces(&name), Vec::<String>::new());
}
