//! Every recorded world of iptables mode: the table from the API equals the table from the rules.

use std::path::Path;

use fs_err as fs;
use kpx::capture::{Node, NodeOptions};
use kpx::inspect::{iptables, kube};
use kpx::model::{Difference, ServiceTable, diff};

use crate::support::recordings;

/// A file of a recording, unpacked; `None` if it is not there.
fn file(path: &Path) -> Option<Vec<u8>> {
    if path.is_file() {
        return Some(fs::read(path).expect("a recording can be read"));
    }
    let packed = path.with_added_extension("gz");
    packed.is_file().then(|| {
        let mut out = Vec::new();
        let packed = fs::File::open(packed).expect("a recording can be opened");
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut out).expect("gzip");
        out
    })
}

/// The table that the rules in `dir` make. `prefix` is empty or `legacy-`/`nft-` as in the names of the other variant.
fn rules(dir: &Path) -> ServiceTable {
    let text = |name: &str| file(&dir.join(name)).unwrap_or_else(|| panic!("{} has {name}", dir.display()));
    let (v4, v6) = (text("iptables-save.txt"), text("ip6tables-save.txt"));
    let dump = |text| iptables::parse(text).expect("iptables-save text");
    iptables::lift(Some(&dump(&v4)), Some(&dump(&v6))).table
}

/// The table that the API gives for the node recorded in `dir`.
fn api(dir: &Path, objects: &Path, node_name: Option<&str>) -> kube::KubeState {
    let options = NodeOptions {
        from: Some(dir.to_owned()),
        services_from: Some(objects.to_owned()),
        node_name: node_name.map(str::to_owned),
        ..NodeOptions::default()
    };
    let node = Node::open(&options).expect("a recording is a snapshot");
    kube::read_node(&node).unwrap_or_else(|e| panic!("{}: {e:?}", dir.display()))
}

fn assert_same(dir: &Path, objects: &Path) {
    let found = diff(&api(dir, objects, None).table, &rules(dir));
    assert!(found.is_empty(), "{}: {} differences\n{}", dir.display(), found.len(), shown(&found));
}

fn shown(found: &[Difference]) -> String {
    found.iter().take(12).map(|d| format!("{d:#?}\n")).collect()
}

#[test]
fn small_worlds_of_every_version() {
    let Some(root) = recordings() else { return };
    let small = root.join("small");
    for world in [
        "iptables-nft/running",
        "iptables-nft/stopped",
        "iptables-legacy/running",
        "v1.30-iptables-nft/running",
        "v1.25-iptables-legacy/running",
        "v1.23-iptables-nft/running",
    ] {
        assert_same(&small.join(world), &small.join("api"));
    }
}
