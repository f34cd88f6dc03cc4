//! The table's equality: what makes two frontends differ, and which endpoints kube-proxy would choose.

mod difference;
mod select;
mod treatment;

use std::net::{IpAddr, SocketAddr};

use kpx::model::{
    Backend, BackendState, Detector, Exposure, Frontend, FrontendKey, Masquerade, NodeFacts, NodePortScope, Origin,
    Policy, Protocol, ServiceName, ServiceTable,
};

pub(crate) fn backend(addr: &str, local: bool) -> Backend {
    let addr: SocketAddr = addr.parse().expect("an address in a test");
    Backend { ip: addr.ip(), port: addr.port(), weight: 1, local: Some(local), state: Some(BackendState::Ready) }
}

/// A ClusterIP frontend with two backends, one of them on this node.
pub(crate) fn cluster_ip() -> Frontend {
    Frontend {
        key: FrontendKey {
            ip: IpAddr::from([10, 96, 0, 10]),
            port: 80,
            protocol: Protocol::Tcp,
            exposure: Exposure::ClusterIp,
        },
        service: Some(ServiceName { namespace: "shop".to_owned(), name: "cart".to_owned() }),
        port_name: Some("http".to_owned()),
        cluster: vec![backend("10.244.1.5:8080", true), backend("10.244.2.9:8080", false)],
        local: Vec::new(),
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity: None,
        sources: Vec::new(),
        masquerade: Masquerade::OffCluster,
        no_backends: None,
        selection: None,
        forwarding: None,
        origin: Origin::MapEntry { map: "test", id: 1 },
    }
}

/// A LoadBalancer frontend of the same Service under externalTrafficPolicy Local, with a source range.
pub(crate) fn load_balancer_local() -> Frontend {
    let mut f = cluster_ip();
    f.key.ip = IpAddr::from([203, 0, 113, 5]);
    f.key.exposure = Exposure::LoadBalancer;
    f.external_policy = Policy::Local;
    f.local = vec![f.cluster[0]];
    f.masquerade = Masquerade::Never;
    f.sources = vec!["198.51.100.0/24".parse().expect("a network in a test")];
    f
}

pub(crate) fn facts() -> NodeFacts {
    NodeFacts {
        detector: Detector::Cidr("10.244.0.0/16".parse().expect("a network in a test")),
        node_ports: NodePortScope::All { loopback: true },
    }
}

pub(crate) fn table(frontends: Vec<Frontend>) -> ServiceTable {
    ServiceTable::new(frontends, facts(), NodeFacts::default())
}
