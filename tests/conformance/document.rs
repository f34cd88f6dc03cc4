//! `docs/conformance.md`, written from the behaviours and proven fresh.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use kpx::model::Family;

use super::behaviour::{Behaviour, Section};
use super::registry;
use super::state::Worlds;
use crate::support;

const INTRO: &str = include_str!("intro.md");

/// Tests of Kubernetes that are not repeated, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("prevent NodePort collisions; check NodePort out-of-range", "the API server's own work"),
    (
        "find a service from listing all namespaces; complete a service status lifecycle; delete a collection of services; \
      test the lifecycle of an Endpoint",
        "the API alone",
    ),
    (
        "fail health check node port if there are only terminating endpoints",
        "answered by a process, not by the dataplane",
    ),
    ("Networking should check kube-proxy urls", "answered by a process, not by the dataplane"),
    (
        "Networking should recreate its iptables rules if they are deleted",
        "work of a process that stays, not of the dataplane",
    ),
    ("Service endpoints latency should not be very high", "a figure, not a behaviour"),
    (
        "conntrack: INVALID packets do not reset connections",
        "needs forged packets on a path that kpx does not translate \
      at sockets",
    ),
    ("close-wait timeout; localhost NodePort accepted-packets metric", "sysctls and counters of kube-proxy"),
    (
        "be able to create an internal type load balancer; load balancer cleanup finalizer; LB health check interval",
        "needs \
      a cloud",
    ),
    (
        "function for pod-Service, node-Service, endpoint-Service: sctp",
        "the kernel of the tests has no SCTP; that it is \
      programmed is tested",
    ),
];

fn heading(section: Section) -> &'static str {
    match section {
        Section::Services => "`[sig-network] Services should …`",
        Section::Granular => "`[sig-network] Networking Granular Checks: Services should …`",
        Section::Others => "Others",
        Section::LoadBalancers => "`[sig-network] LoadBalancers`, with the address already in the Service's status",
    }
}

/// The document.
fn text() -> String {
    let recorded = Worlds::read();
    let twins = recorded.clone().with_twins();
    let mut sections: BTreeMap<Section, String> = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let all = registry::all();
    for behaviour in &all {
        let rules = if recorded.have(behaviour, true) { recorded.families(behaviour) } else { Vec::new() };
        let kpx = twins.families(behaviour);
        let [v4, v6] = Family::BOTH.map(|family| verdict(behaviour, rules.contains(&family), kpx.contains(&family)));
        for verdict in [v4, v6].into_iter().filter(|verdict| *verdict != NONE) {
            *counts.entry(verdict).or_default() += 1;
        }
        let tests = if behaviour.tests.is_empty() { NONE.to_owned() } else { behaviour.tests.join("; ") };
        let _ = writeln!(
            sections.entry(behaviour.section).or_default(),
            "| {} | {} | {v4} | {v6} | {tests} | {} |",
            behaviour.id,
            behaviour.says,
            note(behaviour)
        );
    }
    let counts: Vec<_> = counts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
    let mut text = format!("{INTRO}\n{} behaviours, each family counted: {}.\n", all.len(), counts.join(", "));
    for (section, rows) in sections {
        let _ = write!(
            text,
            "\n## {}\n\n| Id | Behaviour | IPv4 | IPv6 | Kubernetes' test | Note |\n| --- | --- | --- | --- | --- | --- |\n{rows}",
            heading(section)
        );
    }
    text.push_str("\n## Left out\n\n| Kubernetes' test | Why |\n| --- | --- |\n");
    for (tests, why) in LEFT_OUT {
        let _ = writeln!(text, "| {tests} | {why} |");
    }
    text
}

/// There is nothing to try in this family.
const NONE: &str = "–";

fn verdict(behaviour: &Behaviour, rules: bool, kpx: bool) -> &'static str {
    match (behaviour.pending, rules, kpx) {
        (_, _, false) => NONE,
        (Some(_), ..) => "not yet",
        (None, true, _) if behaviour.probes().any(|probe| probe.by_design.is_some()) => "equal but for the note",
        (None, true, _) => "equal",
        (None, false, _) => "by reference",
    }
}

fn note(behaviour: &Behaviour) -> String {
    if let Some(reason) = behaviour.pending {
        return reason.to_owned();
    }
    let mut reasons: Vec<_> =
        behaviour.probes().filter_map(|probe| probe.by_design.as_ref()).map(|d| d.reason).collect();
    reasons.dedup();
    reasons.join("; ")
}

/// `KPX_CONFORMANCE_DOCUMENT` names a file to write it to instead, as `cargo xtask generate` does.
#[test]
fn is_fresh() {
    if support::recordings().is_none() {
        return;
    }
    if let Some(path) = std::env::var_os("KPX_CONFORMANCE_DOCUMENT") {
        fs_err::write(path, text()).expect("the file can be written");
        return;
    }
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md");
    let committed = fs_err::read_to_string(committed).expect("it is committed");
    assert!(committed == text(), "docs/conformance.md is stale: cargo xtask generate");
}

#[test]
fn ids_are_unique_and_every_behaviour_asks_something() {
    let all = registry::all();
    let ids: std::collections::BTreeSet<_> = all.iter().map(|behaviour| behaviour.id).collect();
    assert_eq!(ids.len(), all.len());
    for behaviour in &all {
        assert!(!behaviour.steps.is_empty() && !behaviour.says.is_empty(), "{}", behaviour.id);
    }
}
