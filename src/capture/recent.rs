//! The clients that rules of iptables remember for kube-proxy's session affinity: `/proc/net/xt_recent/KUBE-SEP-*`.

use std::fmt::Write as _;
use std::io;

use fs_err as fs;

/// Of this thread, so that a thread in another namespace than the process sees its own.
const FOLDER: &str = "/proc/thread-self/net/xt_recent";
pub(super) const PLACE: &str = "/proc/net/xt_recent";

/// How many sources a list holds, by the module's parameter.
const LIMIT: &str = "/sys/module/xt_recent/parameters/ip_list_tot";

/// Frequencies of the kernel's clock that there are (`CONFIG_HZ`).
const FREQUENCIES: [u64; 6] = [100, 250, 300, 500, 1000, 24];

/// A heading with what it takes to read the times, then each line with its list's name in front:
///
/// ```text
/// # jiffies 4296745746 hz 250 limit 100
/// KUBE-SEP-ABCDEFGHIJKLMNOP src=10.0.0.3 ttl: 64 last_seen: 4295239672 oldest_pkt: 1 4295239672
/// ```
pub(super) fn read() -> io::Result<Vec<u8>> {
    let mut text = heading();
    let names = match fs::read_dir(FOLDER) {
        Ok(entries) => entries,
        // The module is not loaded, or no rule in this namespace uses it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(text.into_bytes()),
        Err(e) => return Err(e),
    };
    let mut names: Vec<String> = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.retain(|name| name.starts_with("KUBE-"));
    names.sort();
    for name in names {
        match fs::read_to_string(format!("{FOLDER}/{name}")) {
            Ok(lines) => lines.lines().for_each(|line| {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{name} {line}");
            }),
            // Its rule has gone since.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(text.into_bytes())
}

fn heading() -> String {
    let number = |text: String| text.trim().parse::<u64>().ok();
    let jiffies = fs::read_to_string("/proc/timer_list")
        .ok()
        .and_then(|list| list.lines().find_map(|line| line.strip_prefix("jiffies: ")?.trim().parse::<u64>().ok()));
    let uptime = fs::read_to_string("/proc/uptime").ok().and_then(|text| number(text.split('.').next()?.to_owned()));
    let mut heading = "#".to_owned();
    if let Some((jiffies, hz)) = jiffies.zip(uptime).and_then(|(jiffies, up)| Some((jiffies, frequency(jiffies, up)?)))
    {
        let _ = write!(heading, " jiffies {jiffies} hz {hz}");
    }
    if let Some(limit) = fs::read_to_string(LIMIT).ok().and_then(number) {
        let _ = write!(heading, " limit {limit}");
    }
    heading + "\n"
}

/// The frequency with which jiffies reach this number after so many seconds. They begin five minutes before 2³²
/// (`INITIAL_JIFFIES` in linux/jiffies.h).
fn frequency(jiffies: u64, uptime: u64) -> Option<u64> {
    let off = |hz: &u64| {
        let begun = (1 << 32) - 300 * hz;
        jiffies.checked_sub(begun).map(|ticks| (ticks / hz).abs_diff(uptime))
    };
    let best = FREQUENCIES.into_iter().filter_map(|hz| Some((off(&hz)?, hz))).min()?;
    // A machine that has slept counts the sleep in its uptime, not in jiffies.
    (best.0 <= uptime / 5 + 10).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_known_by_its_hands() {
        assert_eq!(frequency(4_296_745_746, 7_414), Some(250));
        assert_eq!(frequency((1 << 32) - 300_000 + 7_414_000, 7_414), Some(1000));
        assert_eq!(frequency(5, 7_414), None);
    }

    #[test]
    fn this_machine_has_a_heading() {
        let text = String::from_utf8(read().expect("it can be read")).expect("text");
        assert!(text.starts_with('#'), "{text}");
    }
}
