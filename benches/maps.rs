//! A dump of a large map: `kpx inspect map` against `bpftool map dump`.
//!
//! `cargo bench --bench maps` needs root and bpftool. Both programs read the same map, which has BTF; they take turns in one
//! run, so that a noisy machine is equally noisy to both.

#![allow(clippy::print_stdout, reason = "a benchmark reports on stdout")]

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use kpx::capture::command;

#[path = "../tests/bpf/raw.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod raw;

use raw::{Bpffs, Btf, HASH, Map, Types};

/// Entries of the map.
const ENTRIES: u32 = 100_000;
/// Runs of each program.
const RUNS: usize = 15;

fn main() -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root (BPF)");
        return Ok(());
    }
    let bpffs = Bpffs::new();
    let pin = bpffs.path("large");
    fill(&pin);
    let pin = pin.to_str().map(str::to_owned).ok_or_else(|| io::Error::other("the path is UTF-8"))?;
    let kpx = env!("CARGO_BIN_EXE_kpx");
    let programs: [(&str, &str, &[&str]); 5] = [
        ("bpftool map dump -j", "bpftool", &["-j", "map", "dump", "pinned", &pin]),
        ("bpftool map dump", "bpftool", &["map", "dump", "pinned", &pin]),
        ("kpx inspect map", kpx, &["inspect", "map", &pin]),
        ("kpx inspect map, 80 columns", "env", &["COLUMNS=80", kpx, "inspect", "map", &pin]),
        ("kpx inspect map -o json", kpx, &["inspect", "map", &pin, "-o", "json"]),
    ];
    let mut times = programs.map(|_| Vec::new());
    let mut sizes = programs.map(|_| 0);
    for _ in 0..RUNS {
        for (i, (_, program, args)) in programs.iter().enumerate() {
            let start = Instant::now();
            let out = command::output(program, args.iter().copied(), None).map_err(io::Error::other)?;
            times[i].push(start.elapsed());
            sizes[i] = out.len();
        }
    }
    let medians = times.map(median);
    println!("a hash of {ENTRIES} entries, 20 + 24 bytes, {RUNS} runs of each in turn");
    for (((name, ..), time), size) in programs.iter().zip(&medians).zip(sizes) {
        let ratio = medians[0].as_secs_f64() / time.as_secs_f64();
        println!("{name:<28} median {time:>10.1?}  {:>5.1} MB printed  {ratio:>5.1}x", size as f64 / 1e6);
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// A map of services' keys to counters, as a load balancer might have it.
fn fill(pin: &Path) {
    let mut btf = Btf::new();
    let [byte, short, word, long] =
        [("u8", 1), ("u16", 2), ("u32", 4), ("u64", 8)].map(|(name, size)| btf.int(name, size, false));
    let address = btf.array(byte, word, 16);
    let key = [("addr", address, 0, 0), ("port", short, 128, 0), ("proto", byte, 144, 0), ("pad", byte, 152, 0)];
    let key = btf.structure("frontend", 20, &key);
    let value =
        btf.structure("counters", 24, &[("packets", long, 0, 0), ("bytes", long, 64, 0), ("last", long, 128, 0)]);
    let fd = btf.load();
    let types = Types { btf: Some(&fd), key, value };
    let map = Map::new(HASH, "bench_map", 20, 24, u64::from(ENTRIES), types);
    for n in 0..ENTRIES {
        let address = (0xffff_0a60_0000_u128 + u128::from(n)).to_be_bytes();
        let key = [&address[..], &80_u16.to_be_bytes(), &[6, 0]].concat();
        let value: Vec<u8> = [1, 3, 7].iter().flat_map(|k| (u64::from(n) * k).to_ne_bytes()).collect();
        map.put(&key, &value);
    }
    map.pin(pin);
}
