//! Reading iptables-save: every recorded file, against counts and expectations that other programs gave.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use kpx::inspect::iptables::{Lifted, lift, parse};

use crate::support;

/// A recorded file, unpacked if only its `.gz` is there.
pub(crate) fn text(path: &Path) -> Option<Vec<u8>> {
    if let Ok(bytes) = std::fs::read(path) {
        return Some(bytes);
    }
    let packed = std::fs::read(path.with_added_extension("gz")).ok()?;
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut out).expect("the recording is gzip");
    Some(out)
}

/// Every recorded iptables-save text.
fn recorded_texts(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of recordings") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|n| n.to_str()).expect("a UTF-8 name").to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.contains("tables") {
                let unpacked = name.strip_suffix(".gz").unwrap_or(&name);
                if unpacked.ends_with("-save.txt") {
                    found.push(path.with_file_name(unpacked));
                }
            }
        }
    }
    found.sort();
    found
}

/// The rules of one recorded node, lifted.
fn lifted(world: &Path) -> Lifted {
    let (v4, v6) = (world.join("iptables-save.txt"), world.join("ip6tables-save.txt"));
    let (v4, v6) = (text(&v4).expect("IPv4 rules"), text(&v6).expect("IPv6 rules"));
    lift(Some(&parse(&v4).expect("IPv4 parses")), Some(&parse(&v6).expect("IPv6 parses")))
}

#[test]
fn every_recording_prints_back_byte_by_byte() {
    let Some(root) = support::recordings() else { return };
    let texts = recorded_texts(&root);
    assert!(texts.len() > 60, "only {} texts found", texts.len());
    for path in texts {
        let text = text(&path).expect("readable");
        let dump = parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(dump.to_bytes() == text, "{} does not print back", path.display());
    }
}

#[test]
fn every_version_lifts_without_a_blocking_notice() {
    let Some(root) = support::recordings() else { return };
    for world in [
        "small/iptables-nft/running",
        "small/iptables-nft/stopped",
        "small/iptables-legacy/running",
        "small/v1.30-iptables-nft/running",
        "small/v1.25-iptables-legacy/running",
        "small/v1.23-iptables-nft/running",
        "stale/conflicting-addresses/iptables",
        "stale/docker-flannel-iptables",
        "stale/upgraded-from-v1.23",
        "stale/upgraded-from-v1.30",
        "stale/switch-iptables-to-nftables/before",
        "stale/switch-nftables-to-iptables/after",
        "scale/100",
        "scale/1000",
        "scale/5000",
        "scale/10000",
    ] {
        let lifted = lifted(&root.join(world));
        let blocking: Vec<_> =
            lifted.notices.iter().filter(|n| n.blocks_migration()).map(ToString::to_string).collect();
        assert!(blocking.is_empty(), "{world}: {blocking:#?}");
        assert!(lifted.table.frontends().len() > 100, "{world}");
    }
}
