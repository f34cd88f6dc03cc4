//! Kills this process at a chosen moment, so that tests can prove what a crash there leaves behind.
//!
//! Read from the environment variable `KPX_CRASH`: `before:N` or `after:N`, where N counts the journal writes of the process
//! from 1; `change:N`, behind the Nth change of the kernel; or several of them with commas between, of which the first that
//! comes counts. The process ends by SIGKILL, as a power cut would end it. Not meant for any use but tests.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// In front of a write of the journal.
    Before,
    /// Behind it.
    After,
    /// Behind a change of the kernel.
    Change,
}

/// A moment, and its number.
type Point = (Moment, u64);

fn parse(text: &str) -> Vec<Point> {
    let point = |part: &str| {
        let (when, number) = part.split_once(':')?;
        let moment = match when {
            "before" => Moment::Before,
            "after" => Moment::After,
            "change" => Moment::Change,
            _ => return None,
        };
        Some((moment, number.parse().ok()?))
    };
    text.split(',').filter_map(point).collect()
}

/// The process may be asked to end in front of this write of its journal.
pub fn before_write(number: u64) {
    pass(Moment::Before, number);
}

/// And behind it.
pub fn after_write(number: u64) {
    pass(Moment::After, number);
}

/// Something of the kernel was changed just now: a map, a link, a pin, a connection, or what a program changes that is given
/// input.
pub fn changed() {
    static CHANGES: AtomicU64 = AtomicU64::new(0);
    pass(Moment::Change, CHANGES.fetch_add(1, Ordering::SeqCst) + 1);
}

fn pass(moment: Moment, number: u64) {
    static POINTS: OnceLock<Vec<Point>> = OnceLock::new();
    let points = POINTS.get_or_init(|| std::env::var("KPX_CRASH").map(|text| parse(&text)).unwrap_or_default());
    if points.contains(&(moment, number)) {
        // Only the kernel's own way to end a process runs no destructor and flushes nothing.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_and_what_is_none_is_left_out() {
        let points = [(Moment::Change, 2), (Moment::After, 3)];
        assert_eq!(parse("change:2,after:3,later:1,before:x,"), points);
        assert_eq!(parse(""), []);
    }
}
