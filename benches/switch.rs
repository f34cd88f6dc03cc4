//! Ways from kube-proxy's rules to eBPF on the same recorded node, under the same traffic: kpx's, and the two that operators know.
//!
//! `cargo bench --bench switch` needs root, a cgroup2 mount, iptables and nft. Each way has a lab of its own
//! (network namespaces, backends on the recorded addresses, clients on the node, in a pod and outside). What comes out goes to
//! `target/bench/switch.json`; `cargo xtask bench --record -- --bench switch` makes the tables of docs/benchmarks.md of it.
//! `KPX_BENCH_FLOWS` says with how many flows kpx is measured (100,1000,10000); the node of 10 000 Services needs the recordings
//! beside the project (`KPX_FIXTURES`).

#![allow(clippy::print_stdout, reason = "a benchmark reports on stdout")]

#[path = "switch/node.rs"]
mod node;
#[path = "support/mod.rs"]
#[allow(dead_code, reason = "shared by several benchmarks")]
mod support;
#[path = "switch/ways.rs"]
mod ways;

use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use kpx::lab::{Traffic, TrafficOptions, TrafficReport};
use node::{Before, Node};
use serde_json::{Value, json};
use ways::Way;

/// How long traffic runs untouched before, and behind a change: what stands still is lost after two seconds.
const UNTOUCHED: Duration = Duration::from_secs(5);

fn main() -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root (network namespaces, BPF)");
        return Ok(());
    }
    let load = || fs_err::read_to_string("/proc/loadavg");
    let begin = load()?;
    let mut compared = Vec::new();
    for foreign in [false, true] {
        for way in Way::ALL {
            compared.push(compare(way, foreign)?);
        }
    }
    let sizes = std::env::var("KPX_BENCH_FLOWS").unwrap_or_else(|_| "100,1000,10000".to_owned());
    let sizes = sizes.split(',').filter_map(|size| size.trim().parse().ok());
    let flows = sizes.map(many_flows).collect::<io::Result<Vec<_>>>()?;
    let services = match support::recordings() {
        Some(root) => {
            [1_000, 10_000].map(|size| many_services(&root, size)).into_iter().collect::<io::Result<Vec<_>>>()?
        }
        None => Vec::new(),
    };
    let kernel = fs_err::read_to_string("/proc/sys/kernel/osrelease")?;
    let loads = [begin, load()?].map(|load| load.split(' ').take(3).collect::<Vec<_>>().join(" "));
    let all =
        json!({ "kernel": kernel.trim(), "loads": loads, "compared": compared, "flows": flows, "services": services });
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs_err::create_dir_all(&target)?;
    fs_err::write(target.join("switch.json"), format!("{all:#}\n"))
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// One way, on a node with the rules of others or without.
fn compare(way: Way, foreign: bool) -> io::Result<Value> {
    let mut node = Node::up(&format!("b-{}", way.name()), &node::builtin())?;
    if foreign {
        node.add_foreign_rules()?;
    }
    let before = Before::of(&node)?;
    let mut traffic = Traffic::start(&mut node.lab, &TrafficOptions::default()).map_err(other)?;
    traffic.phase("idle").map_err(other)?;
    sleep(UNTOUCHED);
    traffic.phase("switch").map_err(other)?;
    let begun = Instant::now();
    let said = way.go(&node, &mut |_| ())?;
    let seconds = begun.elapsed().as_secs_f64();
    traffic.phase("after").map_err(other)?;
    sleep(UNTOUCHED);
    let report = traffic.stop().map_err(other)?;
    let (damaged, leftovers) = before.compare(&node)?;
    println!(
        "{:<9} others' rules {:<3}: {} of {} flows lost, {} of {} connects refused or failed, longest gap {:.1} ms ({:.1} \
         untouched), {damaged} of {} foreign rules gone, {leftovers} of kube-proxy's left, {seconds:.1} s",
        way.name(),
        if foreign { "yes" } else { "no" },
        report.flows_lost,
        report.flows_total,
        report.connects_failed,
        report.connects_total,
        gap(&report),
        report.idle_gap_ms.unwrap_or_default(),
        before.foreign(),
    );
    for line in &said {
        println!("  {line}");
    }
    Ok(json!({
        "way": way.name(), "foreign_rules": foreign, "seconds": seconds, "said": said,
        "flows_total": report.flows_total, "flows_lost": report.flows_lost,
        "connects_total": report.connects_total, "connects_failed": report.connects_failed,
        "connects_refused": report.connects_refused, "gap_ms": gap(&report), "idle_gap_ms": report.idle_gap_ms,
        "retransmissions": report.phases.iter().filter(|p| p.phase != "idle").map(|p| p.retransmissions).sum::<u64>(),
        "foreign_total": before.foreign(), "foreign_damaged": damaged, "leftovers": leftovers,
    }))
}

/// The longest gap; a flow that stood still until it was given up has none that ended.
fn gap(report: &TrafficReport) -> f64 {
    report.longest_gap_ms
}

/// kpx there and back among so many flows, of which a few are looked at closely.
fn many_flows(flows: u32) -> io::Result<Value> {
    let mut node = Node::up("b-flows", &node::builtin())?;
    let many = TrafficOptions {
        flows,
        interval: Duration::from_secs(1),
        timed_per_second: 0,
        connects_per_second: 0,
        ..TrafficOptions::default()
    };
    let few = TrafficOptions {
        flows: 30,
        interval: Duration::from_millis(5),
        timed_per_second: 0,
        connects_per_second: 0,
        ..TrafficOptions::default()
    };
    let crowd = Traffic::start(&mut node.lab, &many).map_err(other)?;
    let mut watched = Traffic::start(&mut node.lab, &few).map_err(other)?;
    watched.phase("idle").map_err(other)?;
    sleep(UNTOUCHED);
    let mut took = Vec::new();
    for way in [Way::Kpx, Way::KpxBack] {
        let begun = Instant::now();
        way.go(&node, &mut |phase| {
            // A phase that cannot be told is missed in the report.
            let _ = watched.phase(&format!("{} {phase}", way.name()));
        })?;
        took.push(begun.elapsed().as_secs_f64());
        watched.phase("between").map_err(other)?;
        sleep(UNTOUCHED);
    }
    let (watched, crowd) = (watched.stop().map_err(other)?, crowd.stop().map_err(other)?);
    let of = |prefix: &str| {
        let phases = watched.phases.iter().filter(|phase| phase.phase.starts_with(prefix));
        phases.map(|phase| phase.longest_gap_ms).fold(0.0, f64::max)
    };
    let phases: Vec<Value> = watched
        .phases
        .iter()
        .map(|p| json!({ "phase": p.phase, "seconds": p.seconds, "gap_ms": p.longest_gap_ms, "retransmissions": p.retransmissions }))
        .collect();
    let idle = watched.idle_gap_ms.unwrap_or_default();
    println!(
        "{flows} flows: {} lost; longest gap {idle:.1} ms untouched, {:.1} there, {:.1} back; {:.1} s there, {:.1} s back",
        crowd.flows_lost + watched.flows_lost,
        of("kpx "),
        of("kpx-back "),
        took[0],
        took[1],
    );
    Ok(json!({
        "flows": crowd.flows_total + watched.flows_total, "flows_lost": crowd.flows_lost + watched.flows_lost,
        "idle_gap_ms": idle, "there_gap_ms": of("kpx "), "back_gap_ms": of("kpx-back "),
        "there_seconds": took[0], "back_seconds": took[1], "phases": phases,
    }))
}

/// The whole switch of a large node, there and back.
fn many_services(root: &Path, size: usize) -> io::Result<Value> {
    let snapshot = node::large(root, size)?;
    let mut node = Node::up("b-large", snapshot.path())?;
    let rules = node.rules()?;
    let mut traffic = Traffic::start(&mut node.lab, &TrafficOptions::default()).map_err(other)?;
    traffic.phase("idle").map_err(other)?;
    sleep(UNTOUCHED);
    let mut took = Vec::new();
    for way in [Way::Kpx, Way::KpxBack] {
        traffic.phase(way.name()).map_err(other)?;
        let begun = Instant::now();
        way.go(&node, &mut |_| ())?;
        took.push(begun.elapsed().as_secs_f64());
    }
    let report = traffic.stop().map_err(other)?;
    println!(
        "{size} Services, {rules} rules: {:.1} s there, {:.1} s back, {} of {} flows lost, longest gap {:.1} ms ({:.1} untouched)",
        took[0],
        took[1],
        report.flows_lost,
        report.flows_total,
        gap(&report),
        report.idle_gap_ms.unwrap_or_default(),
    );
    Ok(json!({
        "services": size, "rules": rules, "there_seconds": took[0], "back_seconds": took[1],
        "flows_total": report.flows_total, "flows_lost": report.flows_lost, "connects_failed": report.connects_failed,
        "gap_ms": gap(&report), "idle_gap_ms": report.idle_gap_ms,
    }))
}
