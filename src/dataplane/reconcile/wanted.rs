//! What the maps have to say of a Service port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use kpx_abi::{Addr, BackendFlags, Exposure as AbiExposure, Flags, FrontendKey as AbiKey};

use super::super::{direct::Dsr, maglev};
use crate::model::{
    Backend, BackendSelection, Exposure, Family, Frontend, FrontendKey, Masquerade, NoBackends, Policy, Protocol,
    ServiceName,
};

/// An endpoint as the maps have it: address, and port in network byte order.
pub(in crate::dataplane) type Endpoint = (Addr, u16);

/// A network as the maps have it: how many of 128 bits count, and an address without the others.
pub(in crate::dataplane) type Network = (u32, Addr);

/// Number of the list for the Cluster policy in [`Wanted::lists`].
pub(super) const CLUSTER: usize = 0;
/// Number of the list for the Local policy.
pub(super) const LOCAL: usize = 1;

/// What all frontends of a node have in common.
#[derive(Clone, Debug, Default)]
pub(in crate::dataplane) struct Node {
    /// Whether pods are recognised, by family: IPv4, IPv6.
    pub(in crate::dataplane) pods: [bool; 2],
    /// How a backend is chosen where the frontend does not say.
    pub(in crate::dataplane) selection: BackendSelection,
    /// Size of a Maglev table.
    pub(in crate::dataplane) maglev_size: u32,
    /// Which frontends are answered directly by the nodes of their backends.
    pub(in crate::dataplane) dsr: Dsr,
}

impl Node {
    fn recognises_pods(&self, family: Family) -> bool {
        self.pods[usize::from(family == Family::V6)]
    }
}

/// A frontend, apart from numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Face {
    /// Policies, exposure and verdict.
    pub(super) flags: Flags,
    /// ClientIP affinity, seconds; 0: none.
    pub(super) affinity: u32,
    /// Which of the lists some traffic uses.
    pub(super) uses: [bool; 2],
}

/// A Service port with its frontends, apart from numbers. Frontends of one port that do not agree on a list or on the
/// source ranges are several of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::dataplane) struct Wanted {
    pub(super) faces: BTreeMap<AbiKey, Face>,
    /// The lists, slot by slot; an endpoint appears as often as its weight says. Empty where no frontend uses it.
    pub(super) lists: [Vec<Endpoint>; 2],
    /// Every endpoint of the lists.
    pub(super) backends: BTreeMap<Endpoint, BackendFlags>,
    /// The networks let in by the frontends that ask for it.
    pub(super) sources: BTreeSet<Network>,
}

/// An address in the maps' form.
pub(in crate::dataplane) fn addr(ip: IpAddr) -> Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address of the maps' form.
pub(in crate::dataplane) fn ip(addr: Addr) -> IpAddr {
    Ipv6Addr::from(addr).to_canonical()
}

/// Address and port as the maps have them.
pub(in crate::dataplane) fn endpoint(socket: SocketAddr) -> Endpoint {
    (addr(socket.ip()), socket.port().to_be())
}

/// A network in the maps' form.
pub(in crate::dataplane) fn network(net: &IpNet) -> Network {
    let of_128 = match net {
        IpNet::V4(_) => 96,
        IpNet::V6(_) => 0,
    };
    (of_128 + u32::from(net.prefix_len()), addr(net.network()))
}

/// The network of the maps' form.
pub(super) fn net((prefix_len, addr): Network) -> Option<IpNet> {
    let ip = ip(addr);
    let length = if ip.is_ipv4() { prefix_len.checked_sub(96)? } else { prefix_len };
    IpNet::new(ip, u8::try_from(length).ok()?).ok()
}

/// The maps' key of a frontend.
pub(in crate::dataplane) fn key_of(key: &FrontendKey) -> AbiKey {
    AbiKey::new(addr(key.ip), key.port.to_be(), key.protocol.number())
}

/// What tells one Service port from another; a frontend that does not know its Service is one by itself.
type Port<'a> = (Option<(&'a ServiceName, &'a Option<String>)>, Option<FrontendKey>, Protocol, Family);

impl Wanted {
    /// The Service ports of these frontends, which all can be served.
    pub(in crate::dataplane) fn of<'a>(frontends: impl IntoIterator<Item = &'a Frontend>, node: &Node) -> Vec<Self> {
        let mut ports: BTreeMap<Port<'a>, Vec<Self>> = BTreeMap::new();
        for frontend in frontends {
            let family = Family::of(frontend.key.ip);
            let name = frontend.service.as_ref().map(|service| (service, &frontend.port_name));
            let alone = name.is_none().then_some(frontend.key);
            let one = Self::of_one(frontend, node);
            let parts = ports.entry((name, alone, frontend.key.protocol, family)).or_default();
            match parts.iter_mut().find(|part| part.agrees(&one)) {
                Some(part) => part.join(one),
                None => parts.push(one),
            }
        }
        ports.into_values().flatten().collect()
    }

    /// The keys of its frontends.
    pub(in crate::dataplane) fn keys(&self) -> impl Iterator<Item = &AbiKey> {
        self.faces.keys()
    }

    fn of_one(frontend: &Frontend, node: &Node) -> Self {
        let external = frontend.key.exposure.is_external();
        let uses = match (external, frontend.policy()) {
            (_, Policy::Cluster) => [true, false],
            (false, Policy::Local) => [false, true],
            // Traffic of pods and of the node takes the Cluster list all the same.
            (true, Policy::Local) => [true, true],
        };
        let maglev = frontend.selection.unwrap_or(node.selection) == BackendSelection::Maglev;
        let table = maglev.then_some(node.maglev_size);
        let mut wanted = Self::default();
        for (number, list) in [&frontend.cluster, &frontend.local].into_iter().enumerate() {
            if uses[number] {
                wanted.lists[number] = wanted.list(number, list, table);
            }
        }
        wanted.sources = frontend.sources.iter().map(network).collect();
        let face = Face {
            flags: flags(frontend, node).with(Flags::MAGLEV, maglev),
            affinity: frontend.affinity.unwrap_or(0),
            uses,
        };
        wanted.faces.insert(key_of(&frontend.key), face);
        wanted
    }

    fn list(&mut self, number: usize, backends: &[Backend], table: Option<u32>) -> Vec<Endpoint> {
        let member = if number == CLUSTER { BackendFlags::IN_CLUSTER } else { BackendFlags::IN_LOCAL };
        let mut weights: BTreeMap<Endpoint, u16> = BTreeMap::new();
        for backend in backends.iter().filter(|backend| backend.weight != 0) {
            let endpoint = endpoint(backend.addr());
            let weight = weights.entry(endpoint).or_default();
            *weight = weight.saturating_add(backend.weight);
            let flags = self.backends.entry(endpoint).or_default();
            *flags = flags.with(member, true);
            if backend.local == Some(true) {
                *flags = flags.with(BackendFlags::ON_NODE, true);
            }
        }
        let Some(size) = table else {
            return weights.iter().flat_map(|(e, weight)| std::iter::repeat_n(*e, usize::from(*weight))).collect();
        };
        for (endpoint, weight) in &weights {
            let flags = self.backends.entry(*endpoint).or_default();
            *flags = flags.with_weight(*weight);
        }
        maglev::table(&weights.into_iter().collect::<Vec<_>>(), size)
    }

    /// Whether both can share a service id: where both have a use for a list or for ranges, these are the same.
    fn agrees(&self, other: &Self) -> bool {
        let uses = |wanted: &Self, list| wanted.faces.values().any(|face| face.uses[list]);
        let any = |wanted: &Self, flag| wanted.faces.values().any(|face| face.flags.has(flag));
        let lists = (CLUSTER..=LOCAL)
            .all(|list| !uses(self, list) || !uses(other, list) || self.lists[list] == other.lists[list]);
        let ranges =
            !any(self, Flags::SOURCE_RANGES) || !any(other, Flags::SOURCE_RANGES) || self.sources == other.sources;
        lists && ranges && any(self, Flags::MAGLEV) == any(other, Flags::MAGLEV)
    }

    fn join(&mut self, other: Self) {
        for (list, theirs) in self.lists.iter_mut().zip(other.lists) {
            if list.is_empty() {
                *list = theirs;
            }
        }
        for (endpoint, flags) in other.backends {
            let known = self.backends.entry(endpoint).or_default();
            *known = known.with(flags, true);
        }
        self.sources.extend(other.sources);
        self.faces.extend(other.faces);
    }
}

fn flags(frontend: &Frontend, node: &Node) -> Flags {
    let exposure = match frontend.key.exposure {
        Exposure::ClusterIp => AbiExposure::ClusterIp,
        Exposure::NodePort => AbiExposure::NodePort,
        Exposure::LoadBalancer => AbiExposure::LoadBalancer,
        Exposure::ExternalIp => AbiExposure::ExternalIp,
    };
    let drops = frontend.own_list().iter().all(|b| b.weight == 0) && frontend.no_backends == Some(NoBackends::Drop);
    // Without a way to recognise pods kube-proxy masquerades nobody for being none.
    let off_cluster =
        frontend.masquerade == Masquerade::OffCluster && node.recognises_pods(Family::of(frontend.key.ip));
    let external = frontend.key.exposure.is_external() && frontend.external_policy == Policy::Cluster;
    Flags::default()
        .with_exposure(exposure)
        .with(Flags::DSR, external && node.dsr.covers(frontend.forwarding))
        .with(Flags::INTERNAL_LOCAL, frontend.internal_policy == Policy::Local)
        .with(Flags::EXTERNAL_LOCAL, frontend.external_policy == Policy::Local)
        .with(Flags::EMPTY_DROPS, drops)
        .with(Flags::MASQUERADE_OFF_CLUSTER, off_cluster)
        .with(Flags::MASQUERADE_ALWAYS, frontend.masquerade == Masquerade::Always)
        .with(Flags::SOURCE_RANGES, !frontend.sources.is_empty())
}
