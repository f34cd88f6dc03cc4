//! Recordings of real kube-proxies are snapshots.

use std::path::{Path, PathBuf};

use kpx::capture::{Captured, Item, Node, NodeOptions, Variant, command};
use kpx::model::Family;

use super::{kpx, listing, open, read, read_text, scratch, take};
use crate::support::recordings;

/// Every folder with rules.
fn nodes(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(&folder).expect("the folder can be listed") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if path.is_dir() {
                folders.push(path);
            } else if matches!(name, "iptables-save.txt" | "iptables-save.txt.gz") {
                found.push(folder.clone());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn rules_are_those_of_the_variant_asked_for() {
    let Some(root) = recordings() else { return };
    let nodes = nodes(&root);
    assert!(nodes.len() > 30, "{nodes:?}");
    for path in nodes {
        let node = open(&path);
        let mut present = 0;
        for family in Family::BOTH {
            for variant in Variant::BOTH {
                let Ok(bytes) = read(&node, Item::IptablesSave(family, variant)) else { continue };
                present += 1;
                let heading = Variant::by_heading(&bytes);
                assert!(heading.is_none_or(|h| h == variant), "{} {family:?} {variant}", path.display());
            }
        }
        let both = path.join("iptables-legacy-save.txt").exists();
        assert_eq!(present, if both { 4 } else { 2 }, "{}", path.display());
    }
}

#[test]
fn stale_rules_of_the_other_variant_are_found() {
    let Some(root) = recordings() else { return };
    let node = open(&root.join("stale/switch-legacy-to-nftables"));
    let legacy = read_text(&node, Item::IptablesSave(Family::V4, Variant::Legacy));
    assert!(legacy.contains("KUBE-SVC-"));
    assert_eq!(read(&node, Item::IptablesSave(Family::V4, Variant::Nft)), Ok(Vec::new()));
    let only_nft = open(&root.join("small/iptables-nft/running"));
    let absent = read(&only_nft, Item::IptablesSave(Family::V4, Variant::Legacy));
    assert_eq!(absent, Err("not in the snapshot".to_owned()));
}

#[test]
fn node_names_come_from_the_log_the_configuration_or_the_option() {
    let Some(root) = recordings() else { return };
    assert_eq!(open(&root.join("small/iptables-nft/running")).node_name(), "node-a");
    assert_eq!(open(&root.join("scale/1000")).node_name(), "node-a", "from kube-proxy-iptables-nft.log");
    let folder = scratch();
    let configz = root.join("small/iptables-nft/running/configz.json");
    fs_err::copy(configz, folder.path().join("configz.json")).expect("copy");
    assert_eq!(open(folder.path()).node_name(), "node-a", "from configz.json");
    let from = Some(folder.path().to_owned());
    let options = NodeOptions { from, node_name: Some("Other".to_owned()), ..NodeOptions::default() };
    assert_eq!(Node::open(&options).expect("opens").node_name(), "other");
}

#[test]
fn log_and_metrics_of_scale_recordings_are_those_of_the_rules_variant() {
    let Some(root) = recordings() else { return };
    let path = root.join("scale/1000");
    let node = open(&path);
    let file = |name: &str| fs_err::read(path.join(name)).expect("the recording is there");
    assert_eq!(read(&node, Item::ProxyLog), Ok(file("kube-proxy-iptables-nft.log")));
    assert_eq!(read(&node, Item::Metrics), Ok(file("metrics-iptables-nft.txt")));
    assert!(read_text(&node, Item::Services).starts_with("{\"kind\":\"ServiceList\""));
}

#[test]
fn objects_come_from_folders_lists_and_mixed_lists() {
    let Some(root) = recordings() else { return };
    let node = |services_from: &str| {
        let from = Some(root.join("small/iptables-nft/running"));
        let services_from = Some(root.join(services_from));
        Node::open(&NodeOptions { from, services_from, ..NodeOptions::default() }).expect("opens")
    };
    let objects = [Item::Services, Item::EndpointSlices, Item::Nodes];
    let folder = node("small/api");
    for (item, kind) in objects.into_iter().zip(["Service", "EndpointSlice", "Node"]) {
        assert!(read_text(&folder, item).contains(&format!("\"kind\": \"{kind}\"")), "{item}");
        assert!(read_text(&node("small/api/all.json.gz"), item).contains("\"EndpointSlice\""), "{item}");
    }
    let services = node("small/api/services.json");
    assert!(read_text(&services, Item::Services).contains("\"frontend\""));
    assert!(read(&services, Item::Nodes).expect_err("absent").ends_with("services.json holds no Node objects"));
    // Everything else still comes from the node.
    assert!(read_text(&services, Item::Configz).contains("clusterCIDR"));
    assert_eq!(
        read(&open(&root.join("small/iptables-nft/running")), Item::Services),
        Err("not in the snapshot".to_owned())
    );
}

#[test]
fn a_recording_survives_folder_and_archive() {
    let Some(root) = recordings() else { return };
    let scratch = scratch();
    for name in ["small/iptables-legacy/running", "small/iptables-nft/running", "stale/legacy-then-nft", "scale/1000"] {
        let original = open(&root.join(name));
        let (folder, archive) = (scratch.path().join("folder"), scratch.path().join("node.tar.zst"));
        take(&original, &folder).expect("a folder is written");
        take(&open(&folder), &archive).expect("an archive is written");
        for copy in [open(&folder), open(&archive)] {
            assert_eq!(copy.node_name(), original.node_name());
            for item in Item::ALL {
                let both = [&original, &copy].map(|node| read(node, item));
                assert!(both[0] == both[1], "{item} of {name} in {}", copy.label());
            }
        }
        fs_err::remove_dir_all(folder).expect("removed");
        fs_err::remove_file(archive).expect("removed");
    }
}

#[test]
fn other_tools_read_our_archives_and_we_theirs() {
    let Some(root) = recordings() else { return };
    let scratch = scratch();
    let archive = scratch.path().join("node.tar.zst");
    take(&open(&root.join("small/iptables-nft/running")), &archive).expect("an archive is written");
    let tar = |args: &[&str], stdin: Option<&[u8]>| command::output("tar", args, stdin).expect("tar runs");
    let place = scratch.path().to_str().expect("UTF-8");
    let unzipped = zstd::decode_all(fs_err::File::open(&archive).expect("opens")).expect("zstd");
    tar(&["-xf", "-", "-C", place], Some(&unzipped));
    let unpacked = scratch.path().join("node");
    assert!(listing(&unpacked).contains(&"iptables-save.txt".to_owned()));
    let theirs = scratch.path().join("theirs.tar.zst");
    let source = root.join("small/iptables-nft/running");
    let packed = tar(&["--format=posix", "-cf", "-", "-C", source.to_str().expect("UTF-8"), "."], None);
    fs_err::write(&theirs, zstd::encode_all(packed.as_slice(), 1).expect("zstd")).expect("written");
    let (theirs, ours) = (open(&theirs), open(&archive));
    for item in Item::ALL {
        let [theirs, ours, unpacked] = [&theirs, &ours, &open(&unpacked)].map(|node| read(node, item));
        assert!(theirs == ours && ours == unpacked, "{item}");
    }
}

#[test]
fn a_folder_of_snapshots_is_none_but_names_them() {
    let Some(root) = recordings() else { return };
    let folder = root.join("small/iptables-nft");
    let output = kpx().arg("--from").arg(&folder).args(["snapshot", "/nonexistent/x"]).output().expect("kpx runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("is not a snapshot") && stderr.contains("iptables-nft/running"), "{stderr}");
}

#[test]
fn places_name_the_file() {
    let Some(root) = recordings() else { return };
    let path = root.join("scale/1000");
    let captured = open(&path).read(Item::IptablesSave(Family::V4, Variant::Nft)).expect("reads");
    let Captured::Present { place, .. } = captured else { panic!("the rules are there") };
    assert_eq!(place, path.join("iptables-save.txt.gz").display().to_string());
}

#[test]
fn at_one_moment_everything_is_read_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("proxyMode.txt");
    fs_err::write(&file, "iptables").expect("it is written");
    let node = open(folder.path());
    node.at_one_moment(|node| {
        assert_eq!(read_text(node, Item::ProxyMode), "iptables");
        fs_err::write(&file, "nftables").expect("it is written");
        assert_eq!(read_text(node, Item::ProxyMode), "iptables");
    });
    assert_eq!(read_text(&node, Item::ProxyMode), "nftables");
}
