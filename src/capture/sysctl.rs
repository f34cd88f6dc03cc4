//! The networking lines of `sysctl -a`, read from /proc/sys/net.

use std::io;
use std::path::Path;

use fs_err as fs;

/// What is kept of the hundreds of lines that every interface adds.
const OF_AN_INTERFACE: &[&str] = &[
    "accept_local",
    "accept_ra",
    "arp_announce",
    "arp_filter",
    "arp_ignore",
    "disable_ipv6",
    "forwarding",
    "proxy_arp",
    "proxy_ndp",
    "route_localnet",
    "rp_filter",
    "src_valid_mark",
];

/// Keys that hold secrets of the host, such as the one that signs TCP fast-open cookies.
const SECRET: &[&str] = &["tcp_fastopen_key", "stable_secret"];

/// All lines, sorted, each `key = value`.
pub(super) fn read() -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    walk(Path::new("/proc/sys/net"), "net", &mut lines)?;
    lines.sort();
    Ok(lines.concat().into_bytes())
}

fn walk(folder: &Path, key: &str, lines: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // sysctl(8) swaps the two separators in names such as eth0.100.
        let name = entry.file_name().to_string_lossy().replace('.', "/");
        let inner = format!("{key}.{name}");
        if entry.file_type()?.is_dir() {
            if name != "neigh" {
                walk(&entry.path(), &inner, lines)?;
            }
        } else if wanted(key, &name) {
            // Some keys can only be written, some answer only when they are set, and interfaces come and go.
            let Ok(value) = fs::read(entry.path()) else { continue };
            let value = String::from_utf8_lossy(&value);
            if value.is_empty() {
                lines.push(format!("{inner} = \n"));
            }
            lines.extend(value.lines().map(|line| format!("{inner} = {line}\n")));
        }
    }
    Ok(())
}

fn wanted(key: &str, name: &str) -> bool {
    let of_an_interface = key.starts_with("net.ipv4.conf.") || key.starts_with("net.ipv6.conf.");
    !SECRET.contains(&name) && (!of_an_interface || OF_AN_INTERFACE.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine() {
        let text = String::from_utf8(read().expect("/proc/sys/net can be read")).expect("text");
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.is_sorted());
        assert!(lines.iter().any(|l| l.starts_with("net.ipv4.ip_forward = ")), "{text}");
        assert!(lines.iter().any(|l| l.starts_with("net.ipv4.conf.all.rp_filter = ")));
        assert!(!text.contains("tcp_fastopen_key") && !text.contains(".neigh."));
    }
}
