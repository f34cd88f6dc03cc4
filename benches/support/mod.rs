//! What several benchmarks need: recordings, time, processor time.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The recordings beside the project (`KPX_FIXTURES` names another place), or `None` with the reason printed.
pub(crate) fn recordings() -> Option<PathBuf> {
    let path = std::env::var_os("KPX_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures"), PathBuf::from);
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: no recordings at {} (set KPX_FIXTURES)", path.display());
    None
}

/// A recorded file, unpacked if it is kept as gzip.
pub(crate) fn recorded(folder: &Path, name: &str) -> io::Result<Vec<u8>> {
    let Ok(packed) = fs_err::read(folder.join(format!("{name}.gz"))) else { return fs_err::read(folder.join(name)) };
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Milliseconds that this process, all threads together, or the children it has waited for have been on processors.
pub(crate) fn on_cpu(of_children: bool) -> f64 {
    ticks("self", if of_children { 13 } else { 11 })
}

/// The same for another process.
pub(crate) fn on_cpu_of(pid: u32) -> f64 {
    ticks(&pid.to_string(), 11)
}

/// Two fields of `/proc/PID/stat`, user and system time, in steps of ten milliseconds, counted from behind the name in brackets.
fn ticks(pid: &str, first: usize) -> f64 {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let ticks: u64 = fields.skip(first).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 * 10.0
}

/// What `work` gives, and how long it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}

/// The value below which so many percent lie.
pub(crate) fn percentile<T: Copy + PartialOrd>(values: &mut [T], percent: usize) -> T {
    values.sort_unstable_by(|a, b| a.partial_cmp(b).expect("no value is NaN"));
    values[(values.len() - 1) * percent / 100]
}
