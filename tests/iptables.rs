//! Reading iptables-save: every recorded file, against counts and expectations that other programs gave.

mod mutations;
mod nodes;
mod notices;
mod properties;
mod recordings;
mod replay;
mod services;

use std::io::Read as _;
use std::path::Path;

use kpx::inspect::iptables::{Lifted, Notice, lift, parse};

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

/// The rules of one recorded node, lifted.
fn lifted(world: &Path) -> Lifted {
    let read = |name: &str| text(&world.join(name)).unwrap_or_else(|| panic!("{} has {name}", world.display()));
    let (v4, v6) = (read("iptables-save.txt"), read("ip6tables-save.txt"));
    lift(Some(&parse(&v4).expect("IPv4 parses")), Some(&parse(&v6).expect("IPv6 parses")))
}

/// The notices that block, for messages.
fn blocking(notices: &[Notice]) -> Vec<String> {
    notices.iter().filter(|n| n.blocks_migration()).map(ToString::to_string).collect()
}
