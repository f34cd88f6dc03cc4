//! A small table with one of each sight, for snapshots of screens.

use std::net::IpAddr;

use crate::model::{
    Backend, BackendState, Exposure, Family, Frontend, FrontendKey, Masquerade, NoBackends, NodeFacts, Origin, Policy,
    Protocol, ServiceName, ServiceTable,
};
use crate::source::{Lifted, Remark, Via};

fn backends(range: std::ops::Range<u8>) -> Vec<Backend> {
    let backend = |n| Backend {
        ip: IpAddr::from([10, 244, 1, n]),
        port: 8080,
        weight: 1,
        local: Some(n % 2 == 1),
        state: Some(BackendState::Ready),
    };
    range.map(backend).collect()
}

pub(super) fn frontend(exposure: Exposure, ip: &str, port: u16, name: Option<(&str, &str)>) -> Frontend {
    let service = name.map(|(service, _)| {
        let (namespace, name) = service.split_once('/').expect("samples are named namespace/name");
        ServiceName { namespace: namespace.to_owned(), name: name.to_owned() }
    });
    Frontend {
        key: FrontendKey { ip: ip.parse().expect("an address"), port, protocol: Protocol::Tcp, exposure },
        service,
        port_name: name.map(|(_, port)| port.to_owned()),
        cluster: backends(5..8),
        local: Vec::new(),
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity: None,
        sources: Vec::new(),
        masquerade: Masquerade::OffCluster,
        no_backends: None,
        selection: None,
        forwarding: None,
        origin: Origin::Rule { family: Family::V4, table: "nat".into(), chain: "KUBE-SERVICES".into(), number: 7 },
    }
}

pub(super) fn lifted(via: Via) -> Lifted {
    let cart = frontend(Exposure::ClusterIp, "10.96.0.20", 80, Some(("shop/cart", "http")));
    let mut wide = frontend(Exposure::ClusterIp, "10.96.7.3", 443, Some(("shop/catalogue", "https")));
    wide.cluster = backends(1..151);
    wide.affinity = Some(10800);
    let mut local = frontend(Exposure::LoadBalancer, "203.0.113.9", 443, Some(("shop/catalogue", "https")));
    (local.local, local.external_policy) = (backends(5..6), Policy::Local);
    local.sources = vec!["198.51.100.0/24".parse().expect("a network")];
    local.masquerade = Masquerade::Never;
    let mut node_port = frontend(Exposure::NodePort, "::", 30080, Some(("shop/cart", "http")));
    (node_port.external_policy, node_port.no_backends) = (Policy::Local, Some(NoBackends::Drop));
    let long = "a-namespace-with-a-rather-long-name/and-a-service-whose-name-is-longer-still";
    let mut empty = frontend(Exposure::ClusterIp, "fd00:10:96::beef", 9090, Some((long, "metrics")));
    (empty.cluster, empty.no_backends) = (Vec::new(), Some(NoBackends::Reject));
    let unnamed = frontend(Exposure::ExternalIp, "198.51.100.7", 8443, None);
    Lifted {
        via,
        place: "iptables-legacy of node-a".to_owned(),
        table: ServiceTable::new(
            vec![cart, wide, local, node_port, empty, unnamed],
            NodeFacts::default(),
            NodeFacts::default(),
        ),
        notices: vec![Remark { code: "stale-chain", text: "IPv4 nat KUBE-SVC-OLD: left over".to_owned() }],
    }
}
