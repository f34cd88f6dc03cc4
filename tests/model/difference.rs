//! The diff names exactly what differs, and nothing else.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use kpx::model::{
    Backend, BackendState, Detector, Difference, Exposure, Family, Frontend, FrontendKey, Masquerade, NoBackends,
    NodePortScope, Origin, Policy, Protocol, ServiceName, ServiceTable, diff,
};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::{backend, cluster_ip, facts, load_balancer_local, table};

fn service(name: &str) -> ServiceName {
    ServiceName { namespace: "shop".to_owned(), name: name.to_owned() }
}

/// Fields named by the differences between the two frontends, which share their key.
fn fields(a: Frontend, b: Frontend) -> Vec<&'static str> {
    let mut out = Vec::new();
    for difference in diff(&table(vec![a]), &table(vec![b])) {
        match difference {
            Difference::Frontend { fields, .. } => out.extend(fields.iter().map(|f| f.field)),
            other => panic!("frontends of one key were not paired: {other:?}"),
        }
    }
    out.dedup();
    out
}

#[test]
fn each_field_that_matters_is_named_and_no_other() {
    let changed = |change: fn(&mut Frontend)| {
        let mut f = load_balancer_local();
        change(&mut f);
        fields(load_balancer_local(), f)
    };
    assert_eq!(changed(|f| f.cluster.truncate(1)), ["backends"]);
    assert_eq!(changed(|f| f.local[0].port = 8081), ["backends"]);
    assert_eq!(changed(|f| f.cluster[1].weight = 2), ["backends"]);
    assert_eq!(changed(|f| f.affinity = Some(600)), ["affinity_seconds"]);
    assert_eq!(changed(|f| f.sources.clear()), ["source_ranges"]);
    assert_eq!(changed(|f| f.masquerade = Masquerade::Always), ["masquerade"]);
    assert_eq!(changed(|f| f.external_policy = Policy::Cluster), ["backends", "masquerade"]);
    let refused = |verdict| {
        let mut f = load_balancer_local();
        (f.local, f.no_backends) = (Vec::new(), Some(verdict));
        f
    };
    assert_eq!(fields(refused(NoBackends::Drop), refused(NoBackends::Reject)), ["no_backends"]);
}

#[test]
fn what_no_packet_meets_is_no_difference() {
    let changed = |change: fn(&mut Frontend)| {
        let mut f = cluster_ip();
        change(&mut f);
        fields(cluster_ip(), f)
    };
    assert!(changed(|f| f.local = vec![backend("10.244.9.9:1", true)]).is_empty(), "no traffic uses the Local list");
    assert!(changed(|f| f.external_policy = Policy::Local).is_empty(), "a ClusterIP has no external traffic");
    assert!(changed(|f| f.origin = Origin::MapEntry { map: "other", id: 9 }).is_empty());
    assert!(changed(|f| f.port_name = None).is_empty());
    assert!(changed(|f| f.service = None).is_empty());
    assert!(changed(|f| f.service = Some(service("renamed"))).is_empty());
    assert!(changed(|f| f.cluster.reverse()).is_empty());
    assert!(
        changed(|f| {
            for b in &mut f.cluster {
                (b.local, b.state) = (None, Some(BackendState::Terminating));
            }
        })
        .is_empty(),
        "why a backend is in the list changes no packet"
    );
}

#[test]
fn traffic_is_named_where_not_all_of_it_is_concerned() {
    let mut b = load_balancer_local();
    b.local = vec![backend("10.244.1.6:8080", true)];
    let found = diff(&table(vec![load_balancer_local()]), &table(vec![b]));
    let text = serde_json::to_value(&found).expect("differences serialise");
    assert_eq!(text[0]["fields"][0]["traffic"], serde_json::json!(["outside"]));
    assert_eq!(text[0]["service"], "shop/cart");
}

#[test]
fn a_missing_frontend_is_named_on_its_side() {
    let (a, b) = (table(vec![cluster_ip(), load_balancer_local()]), table(vec![cluster_ip()]));
    let only = |found: Vec<Difference>| match found.as_slice() {
        [Difference::OnlyInA(side)] => ('a', side.ip.to_string()),
        [Difference::OnlyInB(side)] => ('b', side.ip.to_string()),
        other => panic!("one frontend is missing, found {other:?}"),
    };
    assert_eq!(only(diff(&a, &b)), ('a', "203.0.113.5".to_owned()));
    assert_eq!(only(diff(&b, &a)), ('b', "203.0.113.5".to_owned()));
}

#[test]
fn facts_of_the_node_count_where_both_sides_know_them() {
    let with = |detector: Detector, node_ports: NodePortScope| {
        let mut t = table(vec![cluster_ip()]);
        (t.v4.detector, t.v4.node_ports) = (detector, node_ports);
        t
    };
    let base = table(vec![cluster_ip()]);
    let named = |other: &ServiceTable| -> Vec<&'static str> {
        diff(&base, other)
            .iter()
            .map(|d| match d {
                Difference::Node { family: Family::V4, field } => field.field,
                other => panic!("only facts differ, found {other:?}"),
            })
            .collect()
    };
    let every = facts().node_ports;
    assert!(named(&with(Detector::Unknown, NodePortScope::Unknown)).is_empty());
    assert_eq!(named(&with(Detector::InterfacePrefix("cali".to_owned()), every)), ["local_detector"]);
    assert_eq!(named(&with(facts().detector, NodePortScope::All { loopback: false })), ["node_port_addresses"]);
}

#[test]
fn no_detector_shows_as_such_and_in_the_masquerade_it_takes_away() {
    let mut none = table(vec![Frontend { masquerade: Masquerade::Never, ..cluster_ip() }]);
    none.v4.detector = Detector::None;
    let found = diff(&table(vec![cluster_ip()]), &none);
    assert!(matches!(&found[0], Difference::Node { field, .. } if field.field == "local_detector"), "{found:?}");
    assert!(matches!(&found[1], Difference::Frontend { fields, .. } if fields[0].field == "masquerade"), "{found:?}");

    // The side that does not know the detector takes the other's word.
    let mut unknown = table(vec![cluster_ip()]);
    unknown.v4.detector = Detector::Unknown;
    assert!(diff(&unknown, &none).is_empty());
}

#[test]
fn health_check_ports_count_where_both_sides_know_them() {
    let with = |port: u16, name: &str| {
        let mut t = table(vec![]);
        t.health_checks = Some(BTreeMap::from([(port, [service(name)].into())]));
        t
    };
    let ports = |found: Vec<Difference>| -> Vec<u16> {
        found
            .iter()
            .map(|d| match d {
                Difference::HealthCheck { port, .. } => *port,
                other => panic!("only health checks differ, found {other:?}"),
            })
            .collect()
    };
    assert_eq!(ports(diff(&with(32_000, "cart"), &with(32_001, "cart"))), [32_000, 32_001]);
    assert_eq!(ports(diff(&with(32_000, "cart"), &with(32_000, "till"))), [32_000]);
    assert!(diff(&with(32_000, "cart"), &table(vec![])).is_empty(), "the other side cannot know them");
}

#[test]
fn frontends_on_one_address_are_paired_by_service() {
    let mut other = cluster_ip();
    other.service = Some(service("till"));
    other.cluster.truncate(1);
    let (a, b) = (table(vec![cluster_ip(), other.clone()]), table(vec![other, cluster_ip()]));
    assert!(diff(&a, &b).is_empty());
}

#[test]
fn how_an_address_is_exposed_is_not_what_packets_meet() {
    let refused = |exposure| {
        let mut f = load_balancer_local();
        f.key.exposure = exposure;
        (f.cluster, f.local, f.no_backends) = (Vec::new(), Vec::new(), Some(NoBackends::Reject));
        table(vec![f])
    };
    assert!(diff(&refused(Exposure::LoadBalancer), &refused(Exposure::ExternalIp)).is_empty());
}

#[test]
fn frontends_of_different_services_are_no_pair_unless_alike() {
    let mut other = cluster_ip();
    other.service = Some(service("till"));
    other.cluster.truncate(1);
    let found = diff(&table(vec![cluster_ip()]), &table(vec![other]));
    assert!(matches!(found.as_slice(), [Difference::OnlyInA(_), Difference::OnlyInB(_)]), "{found:?}");
}

#[test]
fn conflicts_name_every_claimant() {
    let mut external = load_balancer_local();
    external.key.exposure = Exposure::ExternalIp;
    external.service = Some(service("till"));
    let t = table(vec![cluster_ip(), load_balancer_local(), external]);
    let conflicts: Vec<_> = t.conflicts().iter().map(ToString::to_string).collect();
    assert_eq!(conflicts, ["203.0.113.5:80/TCP: shop/cart:http (LoadBalancer), shop/till:http (ExternalIP)"]);
    assert!(table(vec![cluster_ip(), load_balancer_local()]).conflicts().is_empty());
}

fn any_backend() -> impl Strategy<Value = Backend> {
    (0_u8..6, 0_u16..3, 1_u16..3, any::<bool>()).prop_map(|(host, port, weight, local)| Backend {
        ip: IpAddr::from([10, 244, 1, host]),
        port: 8080 + port,
        weight,
        local: Some(local),
        state: Some(BackendState::Ready),
    })
}

fn any_frontend() -> impl Strategy<Value = Frontend> {
    let exposures = [Exposure::ClusterIp, Exposure::NodePort, Exposure::LoadBalancer, Exposure::ExternalIp];
    let policies = || prop_oneof![Just(Policy::Cluster), Just(Policy::Local)];
    let masquerade = prop_oneof![Just(Masquerade::Always), Just(Masquerade::OffCluster), Just(Masquerade::Never)];
    let ranges = btree_set(prop_oneof![Just("10.0.0.0/8"), Just("198.51.100.0/24"), Just("0.0.0.0/0")], 0..3);
    (
        (0_u8..8, proptest::sample::select(exposures.to_vec()), 0_u8..3),
        (vec(any_backend(), 0..4), vec(any_backend(), 0..3)),
        (policies(), policies()),
        (proptest::option::of(1_u32..4), ranges, masquerade),
    )
        .prop_map(
            |((host, exposure, name), (cluster, local), (internal, external), (affinity, ranges, masquerade))| {
                let mut f = Frontend {
                    key: FrontendKey {
                        ip: IpAddr::from([10, 96, 0, host]),
                        port: 80,
                        protocol: Protocol::Udp,
                        exposure,
                    },
                    service: Some(service(["cart", "till", "stock"][usize::from(name)])),
                    port_name: None,
                    cluster,
                    local,
                    internal_policy: internal,
                    external_policy: external,
                    affinity,
                    sources: ranges.iter().map(|net| net.parse::<IpNet>().expect("a network in a test")).collect(),
                    masquerade,
                    no_backends: None,
                    selection: None,
                    forwarding: None,
                    origin: Origin::MapEntry { map: "test", id: 0 },
                };
                f.no_backends = f.own_list().is_empty().then_some(NoBackends::Reject);
                f
            },
        )
}

proptest! {
    #[test]
    fn a_table_equals_itself(frontends in vec(any_frontend(), 0..12)) {
        let t = table(frontends);
        prop_assert_eq!(diff(&t, &t.clone()), Vec::new());
    }

    #[test]
    fn the_order_frontends_come_in_does_not_matter(mut frontends in vec(any_frontend(), 0..12)) {
        // Of several frontends on one key and of one Service only one can be meant.
        frontends.sort_by(|a, b| (a.key, &a.service).cmp(&(b.key, &b.service)));
        frontends.dedup_by(|a, b| (a.key, &a.service) == (b.key, &b.service));
        let a = table(frontends.clone());
        frontends.reverse();
        prop_assert_eq!(diff(&a, &table(frontends)), Vec::new());
    }

    #[test]
    fn both_directions_agree_on_whether_tables_differ(
        a in vec(any_frontend(), 0..6),
        b in vec(any_frontend(), 0..6),
    ) {
        let (a, b) = (table(a), table(b));
        prop_assert_eq!(diff(&a, &b).len(), diff(&b, &a).len());
    }

    #[test]
    fn frontends_treated_alike_are_equal_and_others_are_named(a in any_frontend(), mut b in any_frontend()) {
        b.key = a.key;
        b.service.clone_from(&a.service);
        let detector = facts().detector;
        let alike = kpx::model::TrafficSource::ALL
            .iter()
            .all(|source| a.treatment(*source, &detector) == b.treatment(*source, &detector));
        prop_assert_eq!(fields(a, b).is_empty(), alike);
    }
}
