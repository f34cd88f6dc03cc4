//! kube-proxy's nftables mode.

mod damage;
mod live;
mod mutations;
mod worlds;

use std::path::{Path, PathBuf};

use kpx::inspect::nftables::{Ruleset, parse};

use crate::iptables::text;

/// Rulesets of both generations that are part of the project.
fn samples() -> [PathBuf; 2] {
    ["v1.36", "v1.30"].map(|version| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/nftables").join(version))
}

/// nft's JSON of a sample.
fn json_of(sample: &Path) -> Vec<u8> {
    text(&sample.join("nft-ruleset.json")).expect("a sample has JSON")
}

pub(crate) fn ruleset_of(sample: &Path) -> Ruleset {
    parse(&json_of(sample)).unwrap_or_else(|e| panic!("{}: {e}", sample.display()))
}
