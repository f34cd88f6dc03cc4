//! One kube-proxy followed through 21 changes of the objects: each state lifts, and states differ where the step says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use kpx::inspect::iptables::{Lifted, lift, parse};
use kpx::model::{Difference, diff};

use super::blocking;
use crate::support;

/// The states by number: IPv4 and IPv6 text.
fn states() -> Option<BTreeMap<usize, [Vec<u8>; 2]>> {
    let packed = std::fs::read(support::recordings()?.join("small/replay/snapshots.tar.gz")).expect("the recording");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&packed[..]));
    let mut states: BTreeMap<usize, [Vec<u8>; 2]> = BTreeMap::new();
    for entry in archive.entries().expect("a tar archive") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").into_owned();
        let Some((number, name)) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.split_once('-')) else {
            continue;
        };
        let Ok(number) = number.parse() else { continue };
        let text = &mut states.entry(number).or_default()[usize::from(name.starts_with("ip6"))];
        entry.read_to_end(text).expect("readable");
    }
    Some(states)
}

fn lifted([v4, v6]: &[Vec<u8>; 2]) -> Lifted {
    lift(Some(&parse(v4).expect("IPv4 parses")), Some(&parse(v6).expect("IPv6 parses")))
}

/// Services that differences name.
fn services(found: &[Difference]) -> BTreeSet<String> {
    let named = found.iter().filter_map(|d| match d {
        Difference::OnlyInA(side) | Difference::OnlyInB(side) | Difference::Frontend { side, .. } => {
            side.service.clone()
        }
        Difference::HealthCheck { .. } => None,
        Difference::Node { .. } => panic!("facts of the node do not change: {d:?}"),
    });
    named.collect()
}

#[test]
fn every_state_lifts_without_a_notice() {
    let Some(states) = states() else { return };
    assert_eq!(states.len(), 22);
    for (number, texts) in states {
        let lifted = lifted(&texts);
        assert!(blocking(&lifted.notices).is_empty(), "state {number}: {:?}", lifted.notices);
        assert!(lifted.notices.is_empty(), "state {number}: {:?}", lifted.notices);
    }
}

/// Services on the pods that a step touches, from the recorded objects.
const FRONTENDS: &[&str] = &["shop/frontend", "shop/frontend-dual", "shop/unnamed-port"];

#[test]
fn each_step_changes_the_services_it_names_and_no_other() {
    let Some(states) = states() else { return };
    let lifted: Vec<_> = states.values().map(lifted).collect();
    let steps = std::fs::read_to_string(support::recordings().expect("there").join("small/replay/steps.ndjson"));
    let steps: Vec<serde_json::Value> =
        steps.expect("the steps").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for (i, step) in steps.iter().take(21).enumerate() {
        let text = step["step"].as_str().expect("a text");
        let wanted: BTreeSet<String> = match text {
            _ if text.starts_with("pod shop/frontend-") => FRONTENDS.iter().map(|&s| s.to_owned()).collect(),
            "pod shop/cart-c22 turns ready" => ["shop/cart".to_owned()].into(),
            _ if text.starts_with("pod data/single-") => ["data/single".to_owned()].into(),
            "40 pods of data/big deleted" => ["data/big".to_owned()].into(),
            // Its Services have endpoints in the new zone and hints for it.
            _ if text.starts_with("node node-a zone label") => {
                ["data/topology-auto", "data/zonal", "data/zonal-close"].map(str::to_owned).into()
            }
            // The EndpointSlices keep its pods for now.
            "node node-c deleted" => BTreeSet::new(),
            _ => [text.split(' ').nth(1).expect("a Service").to_owned()].into(),
        };
        let found = diff(&lifted[i].table, &lifted[i + 1].table);
        assert_eq!(services(&found), wanted, "step {}: {text}", i + 1);
    }
}

#[test]
fn single_steps_differ_in_the_field_they_name() {
    let Some(states) = states() else { return };
    let lifted: Vec<_> = states.values().map(lifted).collect();
    let fields = |step: usize| -> BTreeSet<&'static str> {
        let found = diff(&lifted[step - 1].table, &lifted[step].table);
        let of = |d: &Difference| match d {
            Difference::Frontend { fields, .. } => fields.iter().map(|f| f.field).collect(),
            Difference::OnlyInA(_) => vec!["gone"],
            Difference::OnlyInB(_) => vec!["new"],
            Difference::HealthCheck { .. } => vec!["health check"],
            Difference::Node { .. } => vec!["node"],
        };
        found.iter().flat_map(of).collect()
    };
    assert_eq!(fields(1), ["backends"].into());
    assert_eq!(fields(5), ["gone", "new"].into());
    assert_eq!(fields(8), ["gone"].into());
    assert!(fields(9).is_superset(&["backends", "no_backends"].into()));
    assert_eq!(fields(13), ["affinity_seconds"].into());
    assert_eq!(fields(17), ["backends"].into());
    assert_eq!(fields(20), ["gone", "health check"].into());
}
