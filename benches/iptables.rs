//! Reading the rules of 10 000 Services from iptables-save text: bytes a second, and memory at the peak.
//!
//! `cargo bench --bench iptables` needs the recordings (see `tests/support.rs`) and says so where they are not.

#![allow(missing_docs, reason = "criterion's macros make an item without docs")]
#![allow(clippy::print_stdout, reason = "a benchmark reports on stdout")]

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group};
use kpx::inspect::iptables::{lift, parse};

#[path = "support/memory.rs"]
mod memory;
#[expect(dead_code, reason = "other benchmarks use more of it")]
mod support;

/// What a quick script does: split lines at spaces, keep owned words by chain. No quoting, no table, no check.
fn naive(text: &[u8]) -> HashMap<String, Vec<Vec<String>>> {
    let mut chains: HashMap<String, Vec<Vec<String>>> = HashMap::new();
    for line in String::from_utf8_lossy(text).lines() {
        let Some((_, rule)) = line.split_once("-A ") else { continue };
        let mut words = rule.split(' ').map(str::to_owned);
        let chain = words.next().unwrap_or_default();
        chains.entry(chain).or_default().push(words.collect());
    }
    chains
}

/// Bytes at the peak of `work` beyond those before it, as a multiple of the text.
fn peak<T>(text: &[u8], work: impl FnOnce(&[u8]) -> T) -> f64 {
    memory::peak(|| work(text)) as f64 / text.len() as f64
}

/// Nanoseconds this thread has been on a processor.
fn on_cpu() -> Option<u64> {
    fs_err::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}

/// Median of the processor time of `work`, as megabytes of text a second: what a machine with other work on it allows to
/// say.
fn processor_rate<T>(text: &[u8], work: impl Fn(&[u8]) -> T) -> f64 {
    let run = || {
        let start = on_cpu()?;
        black_box(work(text));
        Some(on_cpu()? - start)
    };
    let mut times: Vec<u64> = (0..31).filter_map(|_| run()).collect();
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |ns| text.len() as f64 * 1e3 / *ns as f64)
}

fn measure(criterion: &mut Criterion) {
    let Some(root) = support::recordings() else { return };
    let text = support::recorded(&root.join("scale/10000"), "iptables-save.txt").expect("the recording is there");
    let table = |text: &[u8]| lift(Some(&parse(text).expect("the recording parses")), None).table;
    println!("text: {} bytes, {} frontends", text.len(), table(&text).frontends().len());
    println!("peak memory beyond the text, as a multiple of it, and rate over processor time, MB/s:");
    let line = |name: &str, memory: f64, rate: f64| println!("  {name:<13} {memory:.2}  {rate:.0}");
    line(
        "parse",
        peak(&text, |t| parse(t).map(|d| d.tables().len())),
        processor_rate(&text, |t| parse(t).map(|d| d.tables().len())),
    );
    line("parse + lift", peak(&text, table), processor_rate(&text, table));
    // Last: its million small allocations leave a heap on which everything after it is slower.
    line("naive split", peak(&text, naive), processor_rate(&text, naive));

    let mut group = criterion.benchmark_group("iptables-save of 10 000 Services");
    group.throughput(Throughput::Bytes(text.len() as u64)).sample_size(20);
    group.bench_function("parse", |b| b.iter(|| parse(black_box(&text)).expect("the recording parses")));
    group.bench_function("parse + lift", |b| b.iter(|| table(black_box(&text))));
    group.bench_function("naive split", |b| b.iter(|| naive(black_box(&text))));
    group.finish();
}

criterion_group!(benches, measure);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
}
