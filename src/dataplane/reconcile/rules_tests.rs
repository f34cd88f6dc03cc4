//! The lookup against kube-proxy's rules, walked by a model of them: written from what the rules do, Kubernetes 1.36, not
//! from the lookup. Services are turned into a table, the table into maps, and packets are sent to both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use kpx_abi::{AddressFlags, DropReason, FrontendKey as AbiKey, NetworkFlags, Origin, Request, Verdict, lookup};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::image::Sizes;
use super::reader::Reader;
use super::wanted::{Node, addr, ip};
use super::{Image, Planner, Wanted, key_of};
use crate::model::{
    Backend, BackendSelection, Exposure, Frontend, FrontendKey, Masquerade, NoBackends, NodeFacts, NodePortScope,
    Origin as Read, Policy, Protocol, ServiceName, ServiceTable,
};

const ROOMY: Sizes = Sizes { frontends: 200, entries: 400, services: 200, backends: 2000, slots: 20_000, sources: 200 };

/// One Service with one port, as the API has it.
#[derive(Clone, Debug)]
struct Service {
    cluster_ip: u8,
    node_port: Option<u16>,
    vips: BTreeSet<u8>,
    external_ips: BTreeSet<u8>,
    internal: Policy,
    external: Policy,
    ranges: Vec<u8>,
    /// Ready endpoints, and whether each is on this node.
    endpoints: BTreeMap<u8, bool>,
    maglev: bool,
}

/// The node's part.
#[derive(Clone, Copy, Debug)]
struct Setup {
    masquerade_all: bool,
    detector: bool,
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    to: IpAddr,
    port: u16,
    from: IpAddr,
    origin: Origin,
    random: u32,
}

/// What becomes of it.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// No rule of kube-proxy is about it.
    Untouched,
    /// To one of these, the source replaced (`true`) or kept, endpoint by endpoint.
    Forwarded(BTreeMap<SocketAddr, bool>),
    Rejected,
    Dropped,
    UndefinedPort,
    Unallocated,
}

fn cluster_ip(n: u8) -> IpAddr {
    [10, 96, 0, n].into()
}

fn vip(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn external_ip(n: u8) -> IpAddr {
    [198, 51, 100, n].into()
}

fn endpoint(n: u8) -> SocketAddr {
    SocketAddr::new([10, 244, 1, n].into(), 8080)
}

fn range(n: u8) -> IpNet {
    IpNet::new([10, 244, 1, n & !3].into(), 30).expect("a length of IPv4")
}

const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 16, 0, 1));
const PORT: u16 = 80;

impl Service {
    fn exposed(&self) -> bool {
        self.node_port.is_some() || !self.vips.is_empty() || !self.external_ips.is_empty()
    }

    fn external(&self) -> Policy {
        if self.exposed() { self.external } else { Policy::Cluster }
    }

    /// The rules from KUBE-SERVICES on, or the maps of nftables mode: which list, what if it is empty, and who is masqueraded.
    fn walk(&self, external: bool, packet: &Packet, setup: Setup) -> Fate {
        let all: BTreeSet<u8> = self.endpoints.keys().copied().collect();
        let here: BTreeSet<u8> = self.endpoints.iter().filter(|(_, local)| **local).map(|(n, _)| *n).collect();
        // KUBE-SERVICES rejects where nothing is usable anywhere.
        if all.is_empty() {
            return Fate::Rejected;
        }
        let pod = packet.origin == Origin::Pod && setup.detector;
        let node = packet.origin == Origin::Node;
        // (list, masquerade)
        let (list, masquerade) = match (external, self.internal, self.external()) {
            (false, policy, _) => {
                let list = if policy == Policy::Local { &here } else { &all };
                (list, setup.masquerade_all || setup.detector && !pod)
            }
            (true, _, Policy::Cluster) => (&all, true),
            // KUBE-EXT: pods and the node itself go to KUBE-SVC, the node masqueraded; the others to KUBE-SVL.
            (true, _, Policy::Local) if pod => (&all, false),
            (true, _, Policy::Local) if node => (&all, true),
            (true, _, Policy::Local) => (&here, false),
        };
        if list.is_empty() {
            return Fate::Dropped;
        }
        let hairpin = |to: SocketAddr| to.ip() == packet.from;
        Fate::Forwarded(list.iter().map(|n| endpoint(*n)).map(|to| (to, masquerade || hairpin(to))).collect())
    }
}

/// The rules in their order: addresses first, node ports last.
fn rules(services: &[Service], packet: &Packet, setup: Setup) -> Fate {
    let to = |ip: IpAddr| packet.to == ip && packet.port == PORT;
    for service in services {
        if to(cluster_ip(service.cluster_ip)) {
            return service.walk(false, packet, setup);
        }
        if service.external_ips.iter().any(|n| to(external_ip(*n))) {
            return service.walk(true, packet, setup);
        }
        if service.vips.iter().any(|n| to(vip(*n))) {
            let let_in = service.ranges.is_empty() || service.ranges.iter().any(|n| range(*n).contains(&packet.from));
            return if let_in { service.walk(true, packet, setup) } else { Fate::Dropped };
        }
    }
    let local = packet.to == NODE || packet.to.is_loopback() && packet.origin == Origin::Node;
    if let Some(service) = services.iter().find(|s| local && s.node_port == Some(packet.port)) {
        return service.walk(true, packet, setup);
    }
    match packet.to {
        ip if services.iter().any(|s| cluster_ip(s.cluster_ip) == ip) => Fate::UndefinedPort,
        IpAddr::V4(v4) if v4.octets()[..2] == [10, 96] => Fate::Unallocated,
        _ => Fate::Untouched,
    }
}

/// The Services as a table, in the form in which tables are lifted from the API.
fn table(services: &[Service], setup: Setup) -> ServiceTable {
    let mut frontends = Vec::new();
    for (n, service) in services.iter().enumerate() {
        let mut add = |exposure: Exposure, ip: IpAddr, port: u16| {
            let policy = if exposure.is_external() { service.external() } else { service.internal };
            let list = |only_here: bool| -> Vec<Backend> {
                let chosen = service.endpoints.iter().filter(|(_, local)| !only_here || **local);
                let backend = |(n, local): (&u8, &bool)| {
                    let to = endpoint(*n);
                    Backend { ip: to.ip(), port: to.port(), weight: 1, local: Some(*local), state: None }
                };
                chosen.map(backend).collect()
            };
            let mut frontend = Frontend {
                key: FrontendKey { ip, port, protocol: Protocol::Tcp, exposure },
                service: Some(ServiceName { namespace: "shop".into(), name: n.to_string() }),
                port_name: None,
                cluster: if policy == Policy::Cluster || exposure.is_external() { list(false) } else { Vec::new() },
                local: if policy == Policy::Local { list(true) } else { Vec::new() },
                internal_policy: service.internal,
                external_policy: service.external(),
                affinity: None,
                sources: Vec::new(),
                masquerade: match (exposure, service.external()) {
                    (Exposure::ClusterIp, _) if setup.masquerade_all => Masquerade::Always,
                    (Exposure::ClusterIp, _) => Masquerade::OffCluster,
                    (_, Policy::Cluster) => Masquerade::Always,
                    (_, Policy::Local) => Masquerade::Never,
                },
                no_backends: None,
                selection: service.maglev.then_some(BackendSelection::Maglev),
                forwarding: None,
                origin: Read::MapEntry { map: "test", id: 0 },
            };
            if exposure == Exposure::LoadBalancer {
                frontend.sources = service.ranges.iter().map(|n| range(*n)).collect();
            }
            if frontend.own_list().is_empty() {
                let anywhere = if service.endpoints.is_empty() { NoBackends::Reject } else { NoBackends::Drop };
                frontend.no_backends = Some(anywhere);
            }
            frontends.push(frontend);
        };
        add(Exposure::ClusterIp, cluster_ip(service.cluster_ip), PORT);
        service.external_ips.iter().for_each(|n| add(Exposure::ExternalIp, external_ip(*n), PORT));
        service.vips.iter().for_each(|n| add(Exposure::LoadBalancer, vip(*n), PORT));
        if let Some(port) = service.node_port {
            add(Exposure::NodePort, [0, 0, 0, 0].into(), port);
        }
    }
    let scope = NodePortScope::All { loopback: true };
    ServiceTable::new(frontends, NodeFacts { node_ports: scope, ..NodeFacts::default() }, NodeFacts::default())
}

/// What the maps say of it: the fate, as far as one lookup shows it.
fn maps(reader: &Reader<'_>, packet: &Packet, setup: Setup) -> Fate {
    let protocol = Protocol::Tcp;
    let key = FrontendKey { ip: packet.to, port: packet.port, protocol, exposure: Exposure::ClusterIp };
    let key: AbiKey = key_of(&key);
    let origin = if packet.origin == Origin::Pod && !setup.detector { Origin::Outside } else { packet.origin };
    let (random, client) = (packet.random, addr(packet.from));
    let request = Request { key, origin, client, random, hash: random, now_ns: 0 };
    match lookup(reader, &request, || panic!("an attempt met a hole")) {
        Verdict::NotService => Fate::Untouched,
        Verdict::Backend { backend, masquerade, .. } => {
            let to = SocketAddr::new(ip(backend.addr), u16::from_be(backend.port));
            Fate::Forwarded(BTreeMap::from([(to, masquerade)]))
        }
        Verdict::Reject { .. } => Fate::Rejected,
        Verdict::Drop { why: DropReason::NoLocalEndpoint | DropReason::Source, .. } => Fate::Dropped,
        Verdict::UndefinedPort => Fate::UndefinedPort,
        Verdict::Unallocated => Fate::Unallocated,
        other => panic!("{other:?}"),
    }
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::Cluster), Just(Policy::Local)]
}

fn service() -> impl Strategy<Value = Service> {
    let endpoints = prop::collection::btree_map(1_u8..16, any::<bool>(), 0..5);
    let ips = || btree_set(0_u8..2, 0..2);
    let ports = prop::option::of(Just(30_000));
    (ports, ips(), ips(), policy(), policy(), vec(0_u8..16, 0..3), endpoints, any::<bool>()).prop_map(
        |(node_port, vips, external_ips, internal, external, ranges, endpoints, maglev)| Service {
            cluster_ip: 0,
            node_port,
            vips,
            external_ips,
            internal,
            external,
            ranges,
            endpoints,
            maglev,
        },
    )
}

/// Services that do not claim each other's addresses.
fn services() -> impl Strategy<Value = Vec<Service>> {
    vec(service(), 1..5).prop_map(|mut services| {
        for (n, service) in (1_u8..).zip(&mut services) {
            let apart = |ips: &BTreeSet<u8>| ips.iter().map(|ip| 10 * n + ip).collect();
            (service.cluster_ip, service.vips, service.external_ips) =
                (n, apart(&service.vips), apart(&service.external_ips));
            service.node_port = service.node_port.map(|port| port + u16::from(n));
        }
        services
    })
}

fn packet() -> impl Strategy<Value = Packet> {
    let number = || 0_u8..6;
    let to = prop_oneof![
        number().prop_map(cluster_ip),
        (1_u8..5, 0_u8..2).prop_map(|(n, ip)| vip(10 * n + ip)),
        (1_u8..5, 0_u8..2).prop_map(|(n, ip)| external_ip(10 * n + ip)),
        Just(NODE),
        Just([127, 0, 0, 5].into()),
        Just([203, 0, 113, 1].into()),
    ];
    let port = prop_oneof![3 => Just(PORT), 3 => 30_000_u16..30_005, 1 => Just(81)];
    let from = prop_oneof![4 => (1_u8..16).prop_map(|n| endpoint(n).ip()), 1 => Just(NODE)];
    let origin = prop_oneof![Just(Origin::Outside), Just(Origin::Pod), Just(Origin::Node)];
    (to, port, from, origin, any::<u32>()).prop_map(|(to, port, from, origin, random)| Packet {
        to,
        port,
        from,
        origin,
        random,
    })
}

proptest! {
    #[test]
    fn the_lookup_does_what_the_rules_do(
        services in services(), packets in vec(packet(), 60), masquerade_all in any::<bool>(), detector in any::<bool>(),
    ) {
        let setup = Setup { masquerade_all, detector };
        let table = table(&services, setup);
        let node =
            Node { pods: [detector; 2], maglev_size: 251, ..Node::default() };
        let wanted = Wanted::of(table.frontends(), &node);
        prop_assert_eq!(wanted.len(), services.len(), "frontends of one port share a service id");
        let mut image = Image::empty(ROOMY);
        let (ops, _) = Planner::adopt(&image, Duration::ZERO).plan(&image, &wanted, Duration::ZERO).unwrap();
        for op in &ops {
            image.apply(op);
        }
        let local = BTreeSet::from([NODE, [127, 0, 0, 1].into()]);
        let addresses = super::super::node_addresses(&table, &local);
        let reader = Reader {
            image: &image,
            affinity: super::reader::all_had(0),
            address: Box::new(|addr| addresses.get(&ip(*addr)).copied().unwrap_or(AddressFlags::default())),
            network: Box::new(|addr| match ip(*addr) {
                IpAddr::V4(v4) if v4.octets()[..2] == [10, 96] => NetworkFlags::SERVICE,
                _ => NetworkFlags::default(),
            }),
        };
        for packet in &packets {
            let (expected, found) = (rules(&services, packet, setup), maps(&reader, packet, setup));
            let right = match (&expected, &found) {
                (Fate::Forwarded(all), Fate::Forwarded(one)) => one.iter().all(|(to, masq)| all.get(to) == Some(masq)),
                _ => expected == found,
            };
            prop_assert!(right, "{packet:?}\nrules {expected:?}\nmaps {found:?}\n{services:#?}");
        }
    }
}
