//! Every recorded world, against nft's own text, raw JSON counts and the API.

use std::path::Path;

use kpx::capture::{Node, NodeOptions};
use kpx::inspect::kube;
use kpx::inspect::nftables::{NftablesState, Ruleset, read_node};
use kpx::model::{Family, ServiceTable, diff};

use super::super::iptables::text;
use crate::support;

/// Recorded nodes whose kube-proxy ran in nftables mode.
const WORLDS: [&str; 8] = [
    "small/nftables/running",
    "small/v1.30-nftables/running",
    "stale/conflicting-addresses/nftables",
    "stale/docker-flannel-nftables",
    "stale/switch-iptables-to-nftables/after",
    "stale/switch-legacy-to-nftables",
    "scale/1000",
    "scale/10000",
];

fn node(path: &Path) -> Node {
    Node::open(&NodeOptions { from: Some(path.to_owned()), ..NodeOptions::default() }).expect("a snapshot")
}

fn state(root: &Path, world: &str) -> NftablesState {
    read_node(&node(&root.join(world))).unwrap_or_else(|e| panic!("{world}: {e}"))
}

/// Rules and map elements of kube-proxy's tables in nft's own text, without its line breaks.
fn printed_lines(path: &Path, family: Family) -> Vec<String> {
    let text = String::from_utf8(text(path).expect("nft's text")).expect("UTF-8");
    let word = if family == Family::V4 { "ip" } else { "ip6" };
    let start = format!("table {word} kube-proxy {{");
    let mut rules = Vec::new();
    let mut inside = None;
    for line in text.lines().skip_while(|line| *line != start).skip(1).take_while(|line| *line != "}") {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("chain ").and_then(|l| l.strip_suffix(" {")) {
            inside = Some(name.to_owned());
        } else if line == "}" || line.starts_with("set ") || line.starts_with("map ") {
            inside = None;
        } else if let Some(chain) = &inside
            && !line.starts_with("type ")
            && !line.starts_with("comment ")
        {
            let rule = line.split(" comment \"").next().unwrap_or(line);
            rules.push(format!("{chain}: {rule}"));
        }
    }
    rules.sort();
    rules
}

fn our_lines(ruleset: &Ruleset, family: Family) -> Vec<String> {
    let table = ruleset.table(family).expect("a table");
    let mut lines = Vec::new();
    for (name, chain) in &table.chains {
        lines.extend(chain.rules.iter().map(|rule| format!("{name}: {}", rule.text(family))));
    }
    lines.sort();
    lines
}

/// The oracle is nft's other output: every rule read from JSON prints as nft's text has it.
#[test]
fn every_rule_prints_as_nft_prints_it() {
    let Some(root) = support::recordings() else { return };
    for world in WORLDS {
        let state = state(&root, world);
        for family in Family::BOTH {
            let expected = printed_lines(&root.join(world).join("nft-ruleset.txt"), family);
            let ours = our_lines(&state.ruleset, family);
            assert!(!expected.is_empty(), "{world}");
            for (a, b) in expected.iter().zip(&ours) {
                assert_eq!(a, b, "{world}");
            }
            assert_eq!(expected.len(), ours.len(), "{world}");
        }
    }
}

#[test]
fn recorded_worlds_are_understood_whole() {
    let Some(root) = support::recordings() else { return };
    for world in WORLDS {
        let state = state(&root, world);
        let notices: Vec<_> = state.notices.iter().map(ToString::to_string).collect();
        let expected: &[&str] = match world {
            // kube-proxy 1.30 looks at what it refuses before it translates, for the node's own connections.
            "small/v1.30-nftables/running" => &[
                "203.0.113.15:80/TCP: connections of the node itself are dropped before they are translated",
                "203.0.113.15:443/TCP: connections of the node itself are dropped before they are translated",
            ],
            // Two Services have one external IP and port; the map holds one of them.
            "stale/conflicting-addresses/nftables" => {
                &["ip kube-proxy chain external-B46C5LSA-conflict/same-ip-2/tcp/http: left over, no packet reaches it \
                 (2 inside)"]
            }
            _ => &[],
        };
        assert_eq!(notices, expected, "{world}");
        assert_eq!(state.blocking().count(), 0, "{world}");
        assert_eq!(state.masquerade_marks, [Some(0x4000), Some(0x4000)], "{world}");
    }
}

#[test]
fn other_modes_leave_no_table() {
    let Some(root) = support::recordings() else { return };
    for world in
        ["small/nftables/after-cleanup", "small/iptables-nft/running", "stale/switch-nftables-to-iptables/after"]
    {
        let state = state(&root, world);
        assert!(state.ruleset.is_empty() && state.table.frontends().is_empty(), "{world}");
    }
}

/// The table that the API gives for a recorded node.
fn api(world: &Path, objects: &Path) -> ServiceTable {
    let options = NodeOptions {
        from: Some(world.to_owned()),
        services_from: Some(objects.to_owned()),
        node_name: Some("node-a".to_owned()),
        ..NodeOptions::default()
    };
    kube::read_node(&Node::open(&options).expect("a snapshot"))
        .unwrap_or_else(|e| panic!("{}: {e:?}", world.display()))
        .table
}

#[test]
fn the_api_says_what_the_tables_do() {
    let Some(root) = support::recordings() else { return };
    let stale = crate::kube::worlds::objects_of_stale(&root);
    let small = root.join("small/api");
    for (world, objects) in [
        ("small/nftables/running", small.as_path()),
        ("small/v1.30-nftables/running", &small),
        ("stale/docker-flannel-nftables", stale.path()),
        ("stale/switch-iptables-to-nftables/after", stale.path()),
        ("stale/switch-legacy-to-nftables", stale.path()),
    ] {
        assert_same(world, &api(&root.join(world), objects), &state(&root, world).table);
    }
    // These objects were made anew after the recording of their API: only the others have their addresses still.
    let world = "stale/conflicting-addresses/nftables";
    let others = |table: &ServiceTable| table.filter(|f| f.service.as_ref().is_none_or(|s| s.namespace != "conflict"));
    let api = api(&root.join(world), stale.path());
    let tables = state(&root, world).table;
    assert_same(world, &api, &others(&tables));
    // The verdict map has one element for an address that three Services claim.
    assert!(tables.conflicts().is_empty());
    let contested = tables.frontends().iter().filter(|f| f.key.to_string() == "198.51.100.60:8080/TCP");
    let owners: Vec<_> = contested.map(kpx::model::Frontend::display_name).collect();
    assert_eq!(owners, ["conflict/same-ip-1:http"]);
}

fn assert_same(world: &str, api: &ServiceTable, tables: &ServiceTable) {
    let found = diff(api, tables);
    assert!(found.is_empty(), "{world}: {} differences, first {:#?}", found.len(), found.first());
}

/// 1 000 and 10 000 Services; kube-proxy's log has another name there than in a snapshot.
#[test]
fn the_api_says_what_the_tables_do_at_scale() {
    let Some(root) = support::recordings() else { return };
    for services in ["1000", "10000"] {
        let recorded = root.join("scale").join(services);
        let snapshot = tempfile::tempdir().expect("a folder");
        for (from, to) in [
            ("nft-ruleset.json.gz", "nft-ruleset.json.gz"),
            ("kube-proxy-nftables-nft.log", "kube-proxy.log"),
            ("metrics-nftables-nft.txt", "metrics.txt"),
        ] {
            std::fs::copy(recorded.join(from), snapshot.path().join(to)).expect("a copy");
        }
        let tables = read_node(&node(snapshot.path())).expect("tables").table;
        assert_same(services, &api(snapshot.path(), &recorded), &tables);
    }
}
