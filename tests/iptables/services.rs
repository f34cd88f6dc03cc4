//! Single Services, worked out by hand from the recorded API objects as seen from node-a (zone-1).

use kpx::inspect::iptables::Lifted;
use kpx::model::{
    Detector, Exposure, Family, Frontend, Masquerade, NoBackends, NodePortScope, Origin, Policy, Protocol,
    TrafficSource,
};

use super::lifted;
use crate::support;

/// The node of `small`, as v1.36 on iptables-nft programmed it.
fn small() -> Option<Lifted> {
    Some(lifted(&support::recordings()?.join("small/iptables-nft/running")))
}

fn frontends<'t>(lifted: &'t Lifted, service: &str, port: &str, exposure: Exposure) -> Vec<&'t Frontend> {
    let named = |f: &&Frontend| {
        f.service.as_ref().is_some_and(|s| s.to_string() == service)
            && f.port_name.as_deref() == Some(port)
            && f.key.exposure == exposure
    };
    lifted.table.frontends().iter().filter(named).collect()
}

/// The one frontend of this Service port and exposure in a family.
fn one<'t>(lifted: &'t Lifted, service: &str, port: &str, exposure: Exposure, family: Family) -> &'t Frontend {
    let found: Vec<_> =
        frontends(lifted, service, port, exposure).into_iter().filter(|f| Family::of(f.key.ip) == family).collect();
    assert_eq!(found.len(), 1, "{service}:{port} {exposure} {family}");
    found[0]
}

/// Backends that a source reaches.
fn reached(lifted: &Lifted, frontend: &Frontend, source: TrafficSource) -> Vec<String> {
    let detector = &lifted.table.facts(Family::of(frontend.key.ip)).detector;
    frontend.treatment(source, detector).backends.iter().map(|(addr, _)| addr.to_string()).collect()
}

fn masqueraded(lifted: &Lifted, frontend: &Frontend) -> [bool; 3] {
    let detector = &lifted.table.facts(Family::of(frontend.key.ip)).detector;
    TrafficSource::ALL.map(|source| frontend.treatment(source, detector).masquerade)
}

use Exposure::{ClusterIp, ExternalIp, LoadBalancer, NodePort};
use Family::{V4, V6};
use TrafficSource::{Node, Outside, Pod};

#[test]
fn facts_of_the_node() {
    let Some(lifted) = small() else { return };
    assert_eq!(lifted.table.v4.detector, Detector::Cidr("10.244.0.0/16".parse().expect("a network")));
    assert_eq!(lifted.table.v6.detector, Detector::Cidr("fd00:10:244::/48".parse().expect("a network")));
    assert_eq!(lifted.table.v4.node_ports, NodePortScope::All { loopback: true });
    assert_eq!(lifted.table.v6.node_ports, NodePortScope::All { loopback: false });
    assert_eq!(lifted.families[0].masquerade_mark, Some(0x4000));
    let nfacct: Vec<_> = lifted.families[0].nfacct.iter().map(String::as_str).collect();
    assert_eq!(nfacct, ["ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts"]);
    let health = lifted.table.health_checks.as_ref().expect("known");
    let health: Vec<_> = health.iter().map(|(port, s)| (*port, s.iter().map(ToString::to_string).collect())).collect();
    let wanted = [
        (30722, "edge/lb-local"),
        (31313, "edge/lb-local-sources"),
        (32001, "edge/lb-local-none-here"),
        (32066, "edge/lb-affinity"),
    ];
    assert_eq!(health, wanted.map(|(port, name)| (port, vec![name.to_owned()])));
}

#[test]
fn external_traffic_policy_local_with_a_local_endpoint() {
    let Some(lifted) = small() else { return };
    for exposure in [LoadBalancer, NodePort] {
        let f = one(&lifted, "edge/lb-local", "http", exposure, V4);
        assert_eq!((f.external_policy, f.internal_policy), (Policy::Local, Policy::Cluster));
        assert_eq!(reached(&lifted, f, Outside), ["10.244.1.13:8080"]);
        for source in [Pod, Node] {
            assert_eq!(reached(&lifted, f, source), ["10.244.1.13:8080", "10.244.2.13:8080"]);
        }
        assert_eq!(masqueraded(&lifted, f), [false, false, true]);
        let local: Vec<_> = f.cluster.iter().map(|b| b.local).collect();
        assert_eq!(local, [Some(true), Some(false)]);
    }
    let vip = one(&lifted, "edge/lb-local", "https", LoadBalancer, V6);
    assert_eq!(vip.key.to_string(), "[fd00:203::14]:443/TCP");
    assert_eq!(reached(&lifted, vip, Outside), ["[fd00:10:244:1::13]:8443"]);
    let cluster_ip = one(&lifted, "edge/lb-local", "http", ClusterIp, V4);
    assert_eq!(reached(&lifted, cluster_ip, Outside).len(), 2);
    assert_eq!(masqueraded(&lifted, cluster_ip), [true, false, true]);
}

#[test]
fn external_traffic_policy_local_without_a_local_endpoint() {
    let Some(lifted) = small() else { return };
    let f = one(&lifted, "edge/np-local-none-here", "http", NodePort, V4);
    assert_eq!(f.key.port, 30082);
    assert_eq!(f.no_backends, Some(NoBackends::Drop));
    assert!(reached(&lifted, f, Outside).is_empty());
    assert_eq!(reached(&lifted, f, Pod), ["10.244.2.23:8080", "10.244.3.23:8080"]);
    assert_eq!(f.origin.to_string(), "IPv4 nat KUBE-NODEPORTS rule 2");
    let cluster_ip = one(&lifted, "edge/np-local-none-here", "http", ClusterIp, V4);
    assert_eq!((cluster_ip.no_backends, cluster_ip.own_list().len()), (None, 2));
}

#[test]
fn source_ranges_by_family_and_with_the_vip_itself() {
    let Some(lifted) = small() else { return };
    let sources = |f: &Frontend| f.sources.iter().map(ToString::to_string).collect::<Vec<_>>();
    let v4 = one(&lifted, "edge/lb-sources-dual", "http", LoadBalancer, V4);
    assert_eq!(sources(v4), ["198.51.100.0/24"]);
    let v6 = one(&lifted, "edge/lb-sources-dual", "http", LoadBalancer, V6);
    assert_eq!(sources(v6), ["2001:db8:1::/48"]);
    // 192.168.50.0/24 holds the node's own address, so the VIP may be its own client.
    let with_vip = one(&lifted, "edge/lb-sources", "https", LoadBalancer, V4);
    assert_eq!(sources(with_vip), ["192.0.2.7/32", "192.168.50.0/24", "198.51.100.0/24", "203.0.113.12/32"]);
    assert!(one(&lifted, "edge/lb-sources", "https", NodePort, V4).sources.is_empty());
    let local = one(&lifted, "edge/lb-local-sources", "http", LoadBalancer, V4);
    assert_eq!((sources(local), local.external_policy), (vec!["10.0.0.0/8".to_owned()], Policy::Local));
}

#[test]
fn session_affinity() {
    let Some(lifted) = small() else { return };
    for family in Family::BOTH {
        assert_eq!(one(&lifted, "shop/session", "http", ClusterIp, family).affinity, Some(10_800));
        assert_eq!(one(&lifted, "shop/session-short", "http", NodePort, family).affinity, Some(120));
        assert_eq!(one(&lifted, "edge/np", "http", NodePort, family).affinity, None);
    }
    let local = one(&lifted, "edge/lb-affinity", "https", LoadBalancer, V4);
    assert_eq!((local.affinity, local.external_policy), (Some(600), Policy::Local));
}

#[test]
fn no_endpoint_anywhere_is_rejected() {
    let Some(lifted) = small() else { return };
    for (exposure, port) in [(ClusterIp, 80), (ExternalIp, 80), (NodePort, 30090)] {
        let f = one(&lifted, "data/no-endpoints-np", "http", exposure, V4);
        assert_eq!((f.key.port, f.no_backends), (port, Some(NoBackends::Reject)));
        assert!(f.cluster.is_empty() && f.local.is_empty());
        assert!(matches!(&f.origin, Origin::Rule { table, .. } if &**table == "filter"));
    }
    let udp = one(&lifted, "data/no-endpoints", "udp", ClusterIp, V6);
    assert_eq!((udp.key.protocol, udp.no_backends), (Protocol::Udp, Some(NoBackends::Reject)));
    // All endpoints terminate and do not serve.
    let dead = one(&lifted, "data/draining-dead", "http", ClusterIp, V4);
    assert_eq!(dead.no_backends, Some(NoBackends::Reject));
}

#[test]
fn internal_traffic_policy_local() {
    let Some(lifted) = small() else { return };
    let here = one(&lifted, "shop/itp-local", "http", ClusterIp, V4);
    assert_eq!(here.internal_policy, Policy::Local);
    for source in TrafficSource::ALL {
        assert_eq!(reached(&lifted, here, source), ["10.244.1.11:8080"]);
    }
    assert_eq!(here.local[0].local, Some(true));
    let elsewhere = one(&lifted, "shop-staging/itp-local-none-here", "http", ClusterIp, V4);
    assert_eq!((elsewhere.internal_policy, elsewhere.no_backends), (Policy::Local, Some(NoBackends::Drop)));
    let both = one(&lifted, "edge/np-both-local", "http", NodePort, V4);
    assert_eq!((both.internal_policy, both.external_policy), (Policy::Local, Policy::Local));
    assert_eq!(reached(&lifted, both, Pod), ["10.244.1.13:8080", "10.244.2.13:8080"]);
    let both = one(&lifted, "edge/np-both-local", "http", ClusterIp, V4);
    assert_eq!(reached(&lifted, both, Pod), ["10.244.1.13:8080"]);
}

#[test]
fn external_ip_that_is_an_address_of_the_node() {
    let Some(lifted) = small() else { return };
    let f = one(&lifted, "edge/ext-ip-node-address", "http", ExternalIp, V4);
    assert_eq!(f.key.to_string(), "192.168.50.11:8081/TCP");
    assert_eq!(f.masquerade, Masquerade::Always);
    assert_eq!(reached(&lifted, f, Outside), ["10.244.1.13:8080", "10.244.2.13:8080"]);
    let local = one(&lifted, "edge/ext-ip-local", "http", ExternalIp, V4);
    assert_eq!(local.external_policy, Policy::Local);
    assert_eq!(reached(&lifted, local, Outside), ["10.244.1.13:8080"]);
}

#[test]
fn many_endpoints_have_even_shares() {
    let Some(lifted) = small() else { return };
    let f = one(&lifted, "data/big", "http", ClusterIp, V4);
    assert_eq!(f.cluster.len(), 150);
    assert!(f.cluster.iter().all(|b| b.weight == 1 && b.port == 8080));
    assert!(f.cluster.is_sorted_by_key(|b| (b.ip, b.port)));
}

#[test]
fn families_protocols_and_odd_slices() {
    let Some(lifted) = small() else { return };
    assert!(frontends(&lifted, "data/v6-only", "http", NodePort).iter().all(|f| Family::of(f.key.ip) == V6));
    assert_eq!(one(&lifted, "data/v6-only", "http", NodePort, V6).key.port, 30096);
    assert_eq!(frontends(&lifted, "shop/frontend-dual", "http", ClusterIp).len(), 2);
    assert_eq!(one(&lifted, "edge/diameter", "diameter", NodePort, V4).key.protocol, Protocol::Sctp);
    let sip = one(&lifted, "edge/sip", "sip", NodePort, V4);
    let sip_tcp = one(&lifted, "edge/sip", "sip-tcp", NodePort, V4);
    assert_eq!((sip.key.port, sip.key.protocol), (30560, Protocol::Udp));
    assert_eq!((sip_tcp.key.port, sip_tcp.key.protocol), (30560, Protocol::Tcp));
    // ipMode Proxy: the load balancer's address is not programmed.
    assert!(frontends(&lifted, "edge/lb-proxy", "http", LoadBalancer).is_empty());
    // Only terminating endpoints are left, and they still serve.
    let draining = one(&lifted, "data/draining", "http", ClusterIp, V4);
    assert_eq!(draining.cluster.len(), 4);
    // One port name with two port numbers, a duplicate, one not ready.
    let manual = one(&lifted, "data/manual", "http", ClusterIp, V4);
    let addrs: Vec<_> = manual.cluster.iter().map(|b| b.addr().to_string()).collect();
    assert_eq!(addrs, ["10.244.1.22:8080", "10.244.1.22:8081", "10.244.2.22:8081", "192.0.2.80:8080"]);
    // trafficDistribution PreferSameZone: node-a and node-c are in zone-1.
    let zonal = one(&lifted, "data/zonal", "http", ClusterIp, V4);
    let addrs: Vec<_> = zonal.cluster.iter().map(|b| b.addr().to_string()).collect();
    assert_eq!(addrs, ["10.244.1.30:8080", "10.244.1.31:8080", "10.244.3.30:8080", "10.244.3.31:8080"]);
}

/// v1.23 had other chains and masqueraded external IPs by the detector; the traffic is told from its rules all the same.
#[test]
fn v1_23_says_the_same_in_other_chains() {
    let Some(root) = support::recordings() else { return };
    let old = lifted(&root.join("small/v1.23-iptables-nft/running"));
    let f = one(&old, "edge/lb-local", "http", LoadBalancer, V4);
    assert_eq!(f.external_policy, Policy::Local);
    assert_eq!(reached(&old, f, Outside), ["10.244.1.13:8080"]);
    assert_eq!(reached(&old, f, Pod).len(), 2);
    assert_eq!(masqueraded(&old, f), [false, false, true]);
    let none_here = one(&old, "edge/np-local-none-here", "http", NodePort, V4);
    assert_eq!((none_here.no_backends, none_here.local.len()), (Some(NoBackends::Drop), 0));
    let ranges = one(&old, "edge/lb-sources", "http", LoadBalancer, V4);
    // That kube-proxy did not know its node's address, and let no VIP in as its own client.
    let sources: Vec<_> = ranges.sources.iter().map(ToString::to_string).collect();
    assert_eq!(sources, ["192.0.2.7/32", "192.168.50.0/24", "198.51.100.0/24"]);
    assert_eq!(one(&old, "edge/lb-vip", "http", LoadBalancer, V4).sources, []);
    assert_eq!(one(&old, "edge/np", "http", NodePort, V4).masquerade, Masquerade::Always);
    assert_eq!(one(&old, "edge/lb-vip", "http", LoadBalancer, V4).masquerade, Masquerade::Always);
    // -A KUBE-SVC-… ! -s 10.244.0.0/16 -d 198.51.100.40/32 … "edge/ext-ip:http external IP" … -j KUBE-MARK-MASQ
    assert_eq!(one(&old, "edge/ext-ip", "http", ExternalIp, V4).masquerade, Masquerade::OffCluster);
    assert_eq!(one(&old, "edge/lb-affinity", "http", LoadBalancer, V4).affinity, Some(600));
    // Two addresses of one load balancer.
    assert_eq!(frontends(&old, "edge/lb-no-nodeports", "http", LoadBalancer).len(), 2);
    assert!(old.notices.iter().any(|n| n.code() == "inert-drop-mark"), "no kubelet ran in the recording");
}
