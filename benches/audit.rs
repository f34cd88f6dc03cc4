//! The whole audit of a recorded node with 100 to 10 000 Services: time, processor time and memory.
//!
//! `cargo bench --bench audit` needs the recordings (see `tests/support.rs`) and says so where they are not.

#![allow(clippy::print_stdout, reason = "a benchmark reports on stdout")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use kpx::audit::{Area, Audit, audit};
use kpx::capture::{Node, NodeOptions};

/// The system's allocator, counting live bytes and their peak.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grew(by: usize) {
    let live = LIVE.fetch_add(by, Ordering::Relaxed) + by;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

#[expect(unsafe_code, reason = "an allocator is unsafe to write")]
// SAFETY: every call is handed to the system's allocator unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may both exist while the bytes are copied.
        grew(size);
        // SAFETY: the caller's promises are passed on.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        moved
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SIZES: [usize; 4] = [100, 1_000, 5_000, 10_000];
const RUNS: usize = 11;
const FILES: [&str; 5] =
    ["iptables-save.txt", "ip6tables-save.txt", "services.json", "endpointslices.json", "nodes.json"];

/// The recording's rules and objects in a folder, unpacked: what gzip takes is not the audit's. Returns the size of it all.
fn unpack(from: &Path, to: &Path) -> std::io::Result<usize> {
    let mut total = 0;
    for name in FILES {
        let mut bytes = Vec::new();
        match fs_err::File::open(from.join(format!("{name}.gz"))) {
            Ok(file) => flate2::read::GzDecoder::new(file).read_to_end(&mut bytes)?,
            Err(_) => fs_err::File::open(from.join(name))?.read_to_end(&mut bytes)?,
        };
        total += bytes.len();
        fs_err::write(to.join(name), bytes)?;
    }
    Ok(total)
}

/// Milliseconds this process has been on processors, all threads together, in steps of ten: user and system time of
/// /proc/self/stat, behind the name in brackets.
fn on_cpu() -> f64 {
    let stat = fs_err::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 * 10.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn run(folder: &Path) -> Audit {
    let options =
        NodeOptions { from: Some(folder.to_owned()), node_name: Some("node-a".to_owned()), ..NodeOptions::default() };
    audit(&Node::open(&options).expect("the snapshot opens"), &Area::ALL)
}

fn main() -> std::io::Result<()> {
    let root = std::env::var_os("KPX_FIXTURES")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures")), PathBuf::from);
    if !root.is_dir() {
        println!("skipped: no recordings beside the project (set KPX_FIXTURES)");
        return Ok(());
    }
    println!("Services  rules    MB read  wall ms  processor ms  peak MB  checks made  findings");
    for size in SIZES {
        let folder = tempfile::tempdir()?;
        let bytes = unpack(&root.join("scale").join(size.to_string()), folder.path())?;
        let mut wall = Vec::new();
        let busy = on_cpu();
        for _ in 0..RUNS {
            let start = Instant::now();
            black_box(run(folder.path()));
            wall.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let cpu = (on_cpu() - busy) / RUNS as f64;
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let audit = run(folder.path());
        let peak = PEAK.load(Ordering::Relaxed) - before;
        let rules: usize = audit.costs.iter().map(|cost| cost.rules).sum();
        let made = audit.judged.iter().filter(|judged| judged.found.is_ok()).count();
        let findings = audit.judged.iter().filter(|judged| judged.fired()).count();
        println!(
            "{size:8}  {rules:6}  {:7.1}  {:7.1}  {:12.1}  {:7.1}  {made:11}  {findings:8}",
            bytes as f64 / 1e6,
            median(wall),
            cpu,
            peak as f64 / 1e6,
        );
    }
    Ok(())
}
