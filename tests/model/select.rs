//! kube-proxy's choice of endpoints, by version. Expectations are derived by hand from its documented rules.

use std::collections::BTreeMap;

use kpx::model::select::{Endpoint, Hint, HintRule, PortPolicy, Selection, select};
use kpx::model::{KubeVersion, NoBackends, Policy, Semantics};

const READY: (bool, bool, bool) = (true, true, false);
const DRAINING: (bool, bool, bool) = (false, true, true);
const DEAD: (bool, bool, bool) = (false, false, true);
const STARTING: (bool, bool, bool) = (false, false, false);

fn endpoint(host: u8, local: bool, (ready, serving, terminating): (bool, bool, bool)) -> Endpoint {
    Endpoint {
        addr: ([10, 244, 1, host], 8080).into(),
        ready,
        serving,
        terminating,
        local,
        zone_hint: Hint::None,
        node_hint: Hint::None,
    }
}

fn hinted(host: u8, zone_hint: Hint, node_hint: Hint) -> Endpoint {
    Endpoint { zone_hint, node_hint, ..endpoint(host, false, READY) }
}

fn version(minor: u16) -> Semantics {
    Semantics::new(KubeVersion::v1(minor), &BTreeMap::new())
}

fn policy(internal: Policy, external: Policy, external_access: bool) -> PortPolicy {
    PortPolicy { internal, external, external_access, follows_hints: true }
}

fn hosts(list: &[kpx::model::Backend]) -> Vec<u8> {
    list.iter().map(|b| if let std::net::IpAddr::V4(ip) = b.ip { ip.octets()[3] } else { 0 }).collect()
}

fn chosen(endpoints: &[Endpoint], policy: PortPolicy, minor: u16) -> (Vec<u8>, Vec<u8>) {
    let Selection { cluster, local, .. } = select(endpoints, policy, version(minor));
    (hosts(&cluster), hosts(&local))
}

const CLUSTER: PortPolicy =
    PortPolicy { internal: Policy::Cluster, external: Policy::Cluster, external_access: false, follows_hints: true };

#[test]
fn ready_endpoints_are_used_and_no_others() {
    let all = [
        endpoint(4, true, STARTING),
        endpoint(3, false, DRAINING),
        endpoint(2, true, READY),
        endpoint(1, false, READY),
    ];
    assert_eq!(chosen(&all, CLUSTER, 36), (vec![1, 2], vec![]));
}

#[test]
fn ready_counts_as_published_even_if_terminating() {
    // publishNotReadyAddresses makes the control plane publish ready for pods that start and that end.
    assert_eq!(chosen(&[endpoint(1, false, (true, false, true))], CLUSTER, 36).0, [1]);
}

#[test]
fn draining_endpoints_stand_in_for_each_list_alone() {
    let all = [endpoint(1, true, DRAINING), endpoint(2, false, READY), endpoint(3, true, DEAD)];
    let external = policy(Policy::Cluster, Policy::Local, true);
    assert_eq!(chosen(&all, external, 36), (vec![2], vec![1]));
    assert_eq!(chosen(&all[..1], external, 36), (vec![1], vec![1]));
    // The gate was off by default up to 1.25.
    assert_eq!(chosen(&all, external, 25), (vec![2], vec![]));
    assert_eq!(chosen(&all[..1], external, 25), (vec![], vec![]));
}

#[test]
fn nothing_usable_is_rejected_and_nothing_usable_here_is_dropped() {
    let far = [endpoint(1, false, READY)];
    let both_local = policy(Policy::Local, Policy::Local, true);
    let verdicts = |endpoints: &[Endpoint], minor| {
        let s = select(endpoints, both_local, version(minor));
        (s.no_backends(s.internal), s.no_backends(s.external))
    };
    assert_eq!(verdicts(&far, 36), (Some(NoBackends::Drop), Some(NoBackends::Drop)));
    assert_eq!(verdicts(&[], 36), (Some(NoBackends::Reject), Some(NoBackends::Reject)));
    assert_eq!(verdicts(&[endpoint(1, true, DEAD)], 36), (Some(NoBackends::Reject), Some(NoBackends::Reject)));
    assert_eq!(verdicts(&[endpoint(1, false, DRAINING)], 36), (Some(NoBackends::Drop), Some(NoBackends::Drop)));
    assert_eq!(verdicts(&[endpoint(1, false, DRAINING)], 25), (Some(NoBackends::Reject), Some(NoBackends::Reject)));
    assert_eq!(verdicts(&[endpoint(1, true, READY)], 36), (None, None));
}

#[test]
fn lists_that_no_traffic_uses_are_empty() {
    let all = [endpoint(1, true, READY), endpoint(2, false, READY)];
    assert_eq!(chosen(&all, policy(Policy::Local, Policy::Cluster, false), 36), (vec![], vec![1]));
    assert_eq!(chosen(&all, policy(Policy::Local, Policy::Cluster, true), 36), (vec![1, 2], vec![1]));
    assert_eq!(chosen(&all, policy(Policy::Cluster, Policy::Local, false), 36), (vec![1, 2], vec![]));
}

#[test]
fn before_1_24_the_internal_policy_narrowed_the_one_list() {
    let all = [endpoint(1, true, READY), endpoint(2, false, READY)];
    // Outside traffic too was kept on the node.
    assert_eq!(chosen(&all, policy(Policy::Local, Policy::Cluster, true), 23), (vec![1], vec![1]));
    // And what was not there was rejected.
    let s = select(&all[1..], policy(Policy::Local, Policy::Cluster, false), version(23));
    assert_eq!(s.no_backends(s.internal), Some(NoBackends::Reject));
    // With an external policy of Local the internal one was not looked at.
    let s = select(&all, policy(Policy::Local, Policy::Local, true), version(23));
    assert_eq!((s.internal, hosts(&s.cluster), hosts(&s.local)), (Policy::Cluster, vec![1, 2], vec![1]));
}

#[test]
fn zone_hints_narrow_only_if_every_ready_endpoint_has_one() {
    let (here, there, none) = (Hint::Here, Hint::Elsewhere, Hint::None);
    let zones = |hints: &[Hint]| -> Vec<Endpoint> {
        hints.iter().zip(1..).map(|(hint, host)| hinted(host, *hint, Hint::None)).collect()
    };
    assert_eq!(chosen(&zones(&[here, there, here]), CLUSTER, 36).0, [1, 3]);
    assert_eq!(chosen(&zones(&[here, none]), CLUSTER, 36).0, [1, 2]);
    assert_eq!(chosen(&zones(&[there, there]), CLUSTER, 36).0, [1, 2]);

    let mut with_starting = zones(&[here, there]);
    with_starting.push(endpoint(9, false, STARTING));
    assert_eq!(chosen(&with_starting, CLUSTER, 36).0, [1], "only ready endpoints have a say");

    let ignoring = PortPolicy { follows_hints: false, ..CLUSTER };
    assert_eq!(chosen(&zones(&[here, there]), ignoring, 30).0, [1, 2]);
}

#[test]
fn node_hints_go_before_zone_hints_in_versions_that_know_them() {
    let all = [
        hinted(1, Hint::Here, Hint::Here),
        hinted(2, Hint::Here, Hint::Elsewhere),
        hinted(3, Hint::Elsewhere, Hint::Elsewhere),
    ];
    assert_eq!(chosen(&all, CLUSTER, 36).0, [1]);
    assert_eq!(chosen(&all, CLUSTER, 33).0, [1, 2]);
    assert_eq!(chosen(&all[1..], CLUSTER, 36).0, [2], "no endpoint for this node: by zone");
}

#[test]
fn hints_never_narrow_the_local_list_nor_the_draining_stand_ins() {
    let mut all = vec![hinted(1, Hint::Here, Hint::None), hinted(2, Hint::Elsewhere, Hint::None)];
    all[1].local = true;
    assert_eq!(chosen(&all, policy(Policy::Cluster, Policy::Local, true), 36), (vec![1], vec![2]));
    for e in &mut all {
        (e.ready, e.terminating) = (false, true);
    }
    assert_eq!(chosen(&all, CLUSTER, 36).0, [1, 2]);
}

#[test]
fn the_annotation_decides_up_to_1_30() {
    let follows = |minor, aware, mode| version(minor).follows_hints(aware, mode);
    assert!(!follows(23, Some("Auto"), None), "the gate was off by default");
    assert!(follows(25, Some("auto"), None));
    assert!(!follows(25, None, Some("Auto")), "topology-mode came with 1.27");
    assert!(!follows(25, Some("PreferZone"), None));
    assert!(follows(30, None, Some("Auto")));
    assert!(follows(30, None, Some("example.com/any")));
    assert!(!follows(30, Some("Disabled"), Some("Auto")), "the older annotation goes first");
    assert!(!follows(30, None, None));
    assert!(follows(31, None, None));
}

#[test]
fn gates_count_while_they_can_be_set() {
    let with = |minor, gate: &str, on| Semantics::new(KubeVersion::v1(minor), &BTreeMap::from([(gate.to_owned(), on)]));
    assert_eq!(with(23, "TopologyAwareHints", true).zone_hints, HintRule::AnnotationAuto);
    assert_eq!(with(30, "ServiceTrafficDistribution", true).zone_hints, HintRule::Always);
    assert_eq!(with(31, "ServiceTrafficDistribution", false).zone_hints, HintRule::AnnotationPresent);
    assert!(!with(26, "ProxyTerminatingEndpoints", false).terminating_fallback);
    assert!(with(28, "ProxyTerminatingEndpoints", false).terminating_fallback, "locked on");
    assert!(!with(21, "ProxyTerminatingEndpoints", true).terminating_fallback, "not known yet");
    assert!(with(29, "LoadBalancerIPMode", true).lb_ip_mode && !version(29).lb_ip_mode && version(30).lb_ip_mode);
}

#[test]
fn versions_are_read_as_components_print_them() {
    for (text, minor) in
        [("v1.36.2", 36), ("1.30", 30), ("v1.30.5-eks-1552ad0", 30), ("v1.27+", 27), ("v1.28.4+k3s1", 28)]
    {
        assert_eq!(text.parse::<KubeVersion>(), Ok(KubeVersion::v1(minor)), "{text}");
    }
    for text in ["", "v", "v1", "1.", "one.two", "v1.x"] {
        assert!(text.parse::<KubeVersion>().is_err(), "{text}");
    }
}
