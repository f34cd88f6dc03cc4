//! Rules rendered from API objects, beside those that a real kube-proxy made of the same objects.

use std::collections::BTreeMap;
use std::path::Path;

use kpx::capture::{Node, NodeOptions, Variant};
use kpx::inspect::kube;
use kpx::migrate::removal::{Form, remove, render, restore};
use kpx::model::Family;

use super::rules::{make_counters, node};
use super::text::{assert_same, is_kube_proxys, load, saved};
use crate::support::{in_new_netns, privileged, recordings};

/// kube-proxy's part of a saved text, with what it leaves to chance put in order: Services in the chains that they share, and the
/// order of source ranges, which a table has sorted.
fn ordered(lines: &[String]) -> Vec<String> {
    let shared = |chain: &str| {
        ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL"].contains(&chain)
            || chain.starts_with("KUBE-FW-")
    };
    let mut chains: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    for line in lines {
        if line.starts_with('*') {
            table.clone_from(line);
        }
        if !is_kube_proxys(line, &[]) {
            continue;
        }
        let named = line.strip_prefix(':').or_else(|| line.strip_prefix("-A ")).expect("a chain or a rule");
        let chain = named.split(' ').next().expect("a name").to_owned();
        chains.entry((table.clone(), chain)).or_default().push(line.clone());
    }
    let mut all = Vec::new();
    for ((table, chain), mut lines) in chains {
        if shared(&chain) {
            // Two that must come last, and do.
            let last = |line: &String| line.contains("must be the last rule") || line.contains("will be dropped by");
            lines.sort_by_key(|line| (line.starts_with("-A"), last(line), line.clone()));
        }
        all.extend(lines.into_iter().map(|line| format!("{table} {line}")));
    }
    all
}

fn recording(recordings: &Path, version: &str, services: &Path) -> Node {
    let options = NodeOptions {
        from: Some(recordings.join("small").join(version).join("running")),
        services_from: Some(recordings.join(services)),
        ..NodeOptions::default()
    };
    Node::open(&options).expect("the recording opens")
}

fn file(family: Family) -> &'static str {
    if family == Family::V4 { "iptables-save.txt" } else { "ip6tables-save.txt" }
}

#[test]
fn rendered_rules_are_those_that_kube_proxy_made() {
    let (true, Some(recordings)) = (privileged(), recordings()) else { return };
    for (version, counters) in [("iptables-nft", true), ("iptables-legacy", true), ("v1.30-iptables-nft", false)] {
        let recorded = recording(&recordings, version, Path::new("small/api"));
        let table = kube::read_node(&recorded).expect("its objects are there").table;
        for variant in Variant::BOTH {
            let wanted = in_new_netns(|| {
                make_counters();
                Family::BOTH.map(|family| {
                    let path = recordings.join("small").join(version).join("running").join(file(family));
                    load(variant, family, &fs_err::read_to_string(path).expect("the recording is there"));
                    saved(variant, family)
                })
            });
            in_new_netns(|| {
                let rendered = render(&table, variant, Form { counters, ..Form::default() });
                restore(&node(), &rendered).expect("they load");
                assert_eq!(restore(&node(), &rendered).expect("all is there"), [], "they are as iptables prints them");
                for (family, wanted) in Family::BOTH.into_iter().zip(&wanted) {
                    let what = format!("{version} {family} in {variant}");
                    let wanted = ordered(wanted);
                    assert!(wanted.len() > 400, "{what}: all of kube-proxy's lines");
                    assert_same(&ordered(&saved(variant, family)), &wanted, &what);
                }
                remove(&node(), &rendered, None).expect("they go");
            });
        }
    }
}

#[test]
fn rendered_jumps_come_first_but_for_the_kubelets() {
    let (true, Some(recordings)) = (privileged(), recordings()) else { return };
    let recorded = recording(&recordings, "iptables-nft", Path::new("small/api"));
    let table = kube::read_node(&recorded).expect("its objects are there").table;
    in_new_netns(|| {
        let text = "*filter\n:INPUT ACCEPT [0:0]\n:KUBE-FIREWALL - [0:0]\n-A INPUT -j KUBE-FIREWALL\n\
                    -A INPUT -i lo -j ACCEPT\n-A INPUT -j DROP\nCOMMIT\n";
        load(Variant::Nft, Family::V4, text);
        restore(&node(), &render(&table, Variant::Nft, Form::default())).expect("they load");
        let lines = saved(Variant::Nft, Family::V4);
        let targets: Vec<_> = super::text::rules_of(&lines, "filter", "INPUT")
            .iter()
            .map(|rule| rule.rsplit(' ').next().expect("a target").to_owned())
            .collect();
        let wanted =
            ["KUBE-FIREWALL", "KUBE-PROXY-FIREWALL", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "ACCEPT", "DROP"];
        assert_eq!(targets, wanted);
    });
}
