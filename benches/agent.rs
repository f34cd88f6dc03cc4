//! The agent's way from an event to the maps, in a cluster of 100 and of 10 000 Services.
//!
//! `cargo bench --bench agent` needs root and a cgroup2 mount. The agent runs as a program against an API server that knows only
//! what this benchmark tells it; what its own metric has counted is printed: the time from an event's arrival, read and decoded,
//! until the maps had the change. Each change is one endpoint of one Service, and the next one comes when it is in.

#![allow(clippy::print_stdout, reason = "a benchmark reports on stdout")]

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use kpx::capture::command;
use kpx::dataplane::Dataplane;

#[path = "../tests/agent/api.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod api;
#[path = "support/ground.rs"]
mod ground;
#[expect(dead_code, reason = "other benchmarks use more of it")]
mod support;

use api::{Api, node, service, slice};
use ground::Ground;

const SIZES: [u32; 2] = [100, 10_000];
const CHANGES: u32 = 3_000;
const APART: Duration = Duration::from_millis(3);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(2);

fn main() -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root (network namespaces, BPF)");
        return Ok(());
    }
    let ground = Ground::new()?;
    for size in SIZES {
        measure(&ground, size)?;
        Dataplane::remove(&ground.paths).map_err(io::Error::other)?;
    }
    Ok(())
}

fn measure(ground: &Ground, size: u32) -> io::Result<()> {
    let api = Api::start();
    api.put(node());
    for n in 0..size {
        let ip = Ipv4Addr::from_bits(0x0a60_0001 + n).to_string();
        api.put(service(&format!("s{n}"), &ip, 80, "TCP"));
        api.put(endpoints(n, 0));
    }
    let folder = tempfile::tempdir()?;
    let (agent, begun) = (Agent::start(ground, &api, folder.path())?, Instant::now());
    let healthy = || ask(10256, "/healthz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"));
    agent.until("healthy", healthy)?;
    let ready = begun.elapsed();
    let (before, busy) = (Metrics::read()?, agent.on_cpu());
    for change in 1..=CHANGES {
        api.put(endpoints(change * 7 % size, change));
        std::thread::sleep(APART);
    }
    let all = before.changes + f64::from(CHANGES);
    agent.until("all changes", || Metrics::read().is_ok_and(|now| now.changes >= all))?;
    let (after, busy) = (Metrics::read()?, agent.on_cpu() - busy);
    let count = after.count - before.count;
    println!("\n{size} Services with 3 endpoints each; lists read, maps made, filled and attached in {ready:.1?}");
    println!("  {CHANGES} changes of one endpoint, {APART:?} apart, in {count} writes");
    println!("  event to maps, mean            {:>8.1} µs", (after.sum - before.sum) * 1e6 / count);
    for percent in [50.0, 99.0, 99.9] {
        let below = after.below(&before, percent);
        println!("  event to maps, {percent:>4} % are below {:>8.1} µs", below * 1e6);
    }
    println!(
        "  processor time of the agent for each change, reading and decoding included: {:.1} µs",
        busy * 1e3 / f64::from(CHANGES)
    );
    Ok(())
}

/// The EndpointSlice of the `n`th Service; its third endpoint is another one after each change.
fn endpoints(n: u32, change: u32) -> serde_json::Value {
    let ip = |i: u32| Ipv4Addr::from_bits(0x0a80_0000 + 3 * n + i).to_string();
    let other = Ipv4Addr::from_bits(0x0ac0_0000 + change).to_string();
    slice(&format!("s{n}"), &format!("s{n}-x"), 8080, "TCP", &[&ip(0), &ip(1), &other])
}

/// The agent as a program. Killed with this value.
struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    fn start(ground: &Ground, api: &Api, folder: &Path) -> io::Result<Self> {
        fs_err::write(folder.join("kubeconfig"), api.kubeconfig())?;
        let (log, folder) = (folder.join("log"), folder.display());
        let (bpffs, cgroup) = (ground.paths.pins.display(), ground.paths.cgroup.display());
        let line = format!(
            "exec {} --bpffs {bpffs} --cgroup {cgroup} --state-dir {folder}/state --node-name node-a \
             --kubeconfig {folder}/kubeconfig agent --paths sockets 2>{folder}/log",
            env!("CARGO_BIN_EXE_kpx"),
        );
        Ok(Self { child: command::start("sh", ["-c", &line]).map_err(io::Error::other)?, log })
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) -> io::Result<()> {
        let begun = Instant::now();
        while !holds() {
            if begun.elapsed() > PATIENCE {
                let log = fs_err::read_to_string(&self.log).unwrap_or_default();
                return Err(io::Error::other(format!("{what}: not within {PATIENCE:?}; the agent's log:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Milliseconds on processors.
    fn on_cpu(&self) -> f64 {
        support::on_cpu_of(self.child.id())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// What the agent counts.
struct Metrics {
    /// Changes of EndpointSlices that have come.
    changes: f64,
    /// Writes to the maps, and seconds from the event to their end, all together.
    count: f64,
    sum: f64,
    /// Seconds, and how many took no longer.
    buckets: Vec<(f64, f64)>,
}

impl Metrics {
    fn read() -> io::Result<Self> {
        let text = ask(10249, "/metrics")?;
        let value = |line: &str| line.rsplit(' ').next().and_then(|word| word.parse().ok());
        let of = |name: &str| text.lines().find_map(|line| value(line.strip_prefix(name)?));
        let missing = || io::Error::other(format!("the agent's metrics are others:\n{text}"));
        let bucket = |line: &str| {
            let (bound, _) = line.strip_prefix("kpx_event_to_map_seconds_bucket{le=\"")?.split_once('"')?;
            Some((bound.parse().unwrap_or(f64::INFINITY), value(line)?))
        };
        Ok(Self {
            changes: of("kubeproxy_sync_proxy_rules_endpoint_changes_total ").ok_or_else(missing)?,
            count: of("kpx_event_to_map_seconds_count ").ok_or_else(missing)?,
            sum: of("kpx_event_to_map_seconds_sum ").ok_or_else(missing)?,
            buckets: text.lines().filter_map(bucket).collect(),
        })
    }

    /// The least bound below which so many percent of what came since lie.
    fn below(&self, before: &Self, percent: f64) -> f64 {
        let count = (self.count - before.count) * percent / 100.0;
        let since = self.buckets.iter().zip(&before.buckets).map(|((bound, now), (_, then))| (*bound, now - then));
        since.into_iter().find(|(_, below)| *below >= count).map_or(f64::INFINITY, |(bound, _)| bound)
    }
}
