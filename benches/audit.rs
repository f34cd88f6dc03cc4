//! The whole audit of a recorded node with 100 to 10 000 Services: time, processor time and memory.
//!
//! `cargo bench --bench audit` needs the recordings (see `tests/support.rs`) and says so where they are not.

#![allow(clippy::print_stdout, reason = "a benchmark reports on stdout")]

use std::hint::black_box;
use std::path::Path;

use kpx::audit::{Area, Audit, audit};
use kpx::capture::{Node, NodeOptions};

#[path = "support/memory.rs"]
mod memory;
#[expect(dead_code, reason = "other benchmarks use more of it")]
mod support;

const SIZES: [usize; 4] = [100, 1_000, 5_000, 10_000];
const RUNS: usize = 11;
const FILES: [&str; 5] =
    ["iptables-save.txt", "ip6tables-save.txt", "services.json", "endpointslices.json", "nodes.json"];

/// The recording's rules and objects in a folder, unpacked: what gzip takes is not the audit's. Returns the size of it all.
fn unpack(from: &Path, to: &Path) -> std::io::Result<usize> {
    let mut total = 0;
    for name in FILES {
        let bytes = support::recorded(from, name)?;
        total += bytes.len();
        fs_err::write(to.join(name), bytes)?;
    }
    Ok(total)
}

fn run(folder: &Path) -> Audit {
    let options =
        NodeOptions { from: Some(folder.to_owned()), node_name: Some("node-a".to_owned()), ..NodeOptions::default() };
    audit(&Node::open(&options).expect("the snapshot opens"), &Area::ALL)
}

fn main() -> std::io::Result<()> {
    let Some(root) = support::recordings() else { return Ok(()) };
    println!("Services  rules    MB read  wall ms  processor ms  peak MB  checks made  findings");
    for size in SIZES {
        let folder = tempfile::tempdir()?;
        let bytes = unpack(&root.join("scale").join(size.to_string()), folder.path())?;
        let mut wall = Vec::new();
        let busy = support::on_cpu(false);
        for _ in 0..RUNS {
            let (done, time) = support::timed(|| run(folder.path()));
            drop(black_box(done));
            wall.push(time.as_secs_f64() * 1e3);
        }
        let cpu = (support::on_cpu(false) - busy) / RUNS as f64;
        let peak = memory::peak(|| run(folder.path()));
        let audit = run(folder.path());
        let rules: usize = audit.costs.iter().map(|cost| cost.rules).sum();
        let made = audit.judged.iter().filter(|judged| judged.found.is_ok()).count();
        let findings = audit.judged.iter().filter(|judged| judged.fired()).count();
        println!(
            "{size:8}  {rules:6}  {:7.1}  {:7.1}  {:12.1}  {:7.1}  {made:11}  {findings:8}",
            bytes as f64 / 1e6,
            support::percentile(&mut wall, 50),
            cpu,
            peak as f64 / 1e6,
        );
    }
    Ok(())
}
