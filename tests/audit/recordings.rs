//! Recordings of real kube-proxies: nothing wrong with those that run alone, and what is wrong with the others.

use std::path::Path;

use kpx::audit::{Area, Severity, audit};
use kpx::capture::{Node, NodeOptions};

use super::{judged, said};
use crate::support::recordings;

fn options(root: &Path, world: &str) -> NodeOptions {
    NodeOptions { from: Some(root.join(world)), services_from: Some(root.join("small/api")), ..NodeOptions::default() }
}

#[test]
fn a_node_in_order_has_no_error() {
    let Some(root) = recordings() else { return };
    for world in [
        "small/iptables-nft/running",
        "small/iptables-legacy/running",
        "small/nftables/running",
        "small/v1.23-iptables-nft/running",
        "small/v1.25-iptables-legacy/running",
        "small/v1.30-iptables-nft/running",
        "small/v1.30-nftables/running",
        "small/ipvs/running",
        "small/ipvs-strict-arp/running",
        "small/iptables-nft/after-cleanup",
        "small/nftables/after-cleanup",
    ] {
        let judged = judged(options(&root, world));
        if let Some(error) = judged.iter().find(|j| j.fired() && j.check.severity == Severity::Error) {
            panic!("{world}: {} {}", error.check.id, said(&judged, error.check.id));
        }
        // What is not skipped was looked at: most of what there is.
        let looked = judged.iter().filter(|j| j.found.is_ok()).count();
        assert!(looked >= 30, "{world}: {looked}");
    }
}

#[test]
fn ipvs_is_judged_against_the_api_and_costed() {
    let Some(root) = recordings() else { return };
    let node = Node::open(&options(&root, "small/ipvs/running")).expect("the recording opens");
    let audit = audit(&node, &Area::ALL);
    for id in ["KPX-A701", "KPX-A702", "KPX-A703", "KPX-A704", "KPX-A705", "KPX-A706", "KPX-A309"] {
        assert_eq!(said(&audit.judged, id), "passed", "{id}");
    }
    let cost = audit.costs.iter().find(|cost| cost.tool == "IPVS IPv4").expect("IPVS has its costs");
    // The API knows which frontends are of one Service.
    assert!(cost.by_chain["virtual services"] >= cost.services && cost.services < cost.frontends, "{cost:?}");
    // A lookup: as many for the first Service as for the last, and nothing more with more Services.
    assert!(cost.met.median < 40 && cost.growth.median == 0 && cost.growth.worst == 0, "{cost:?}");
}

#[test]
fn what_is_left_over_is_found() {
    let Some(root) = recordings() else { return };
    for (world, id, says) in [
        ("stale/legacy-then-nft", "KPX-A110", "iptables-legacy: 367 chains, 1101 rules, 137 frontends"),
        ("stale/switch-legacy-to-nftables", "KPX-A111", "while kube-proxy runs in nftables mode"),
        ("stale/upgraded-from-v1.23", "KPX-A112", "iptables-nft nat KUBE-XLB-"),
        ("stale/docker-flannel-iptables", "KPX-A102", "site policy, see KUBE-SERVICES before editing"),
        ("stale/docker-flannel-iptables", "KPX-A134", "Docker"),
        ("stale/docker-flannel-iptables", "KPX-A135", "flanneld masq"),
        ("small/ipvs/after-cleanup", "KPX-A302", "ipset KUBE-6-CLUSTER-IP"),
        ("small/v1.25-iptables-legacy/running", "KPX-A608", "no KUBE-FIREWALL"),
        ("stale/conflicting-addresses/iptables", "KPX-A127", "never sees one"),
    ] {
        let judged = judged(options(&root, world));
        assert!(said(&judged, id).contains(says), "{world}: {id}: {}", said(&judged, id));
    }
}

#[test]
fn rules_in_front_of_those_of_ipvs_mode_and_with_their_mark_are_found() {
    let Some(root) = recordings() else { return };
    let node = super::folder::Folder::copy_of(&root.join("small/ipvs/running"));
    let quiet = node.judged();
    assert_eq!([said(&quiet, "KPX-A104"), said(&quiet, "KPX-A135")], ["passed", "passed"]);
    node.before("iptables-save.txt", "-A PREROUTING", "-A PREROUTING -j RETURN");
    node.add("iptables-save.txt", "filter", &["-A FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT"]);
    let judged = node.judged();
    let (shadow, mark) = (said(&judged, "KPX-A104"), said(&judged, "KPX-A135"));
    assert!(shadow.contains("nat PREROUTING rule 1: -j RETURN"), "{shadow}");
    assert!(mark.contains("filter FORWARD rule ") && mark.contains("0x4000/0x4000"), "{mark}");
}
