//! From Cilium's maps to a table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::layout::{BackendState as CiliumState, ServiceKey, ServiceValue, flag};
use super::notice::Notice;
use super::read::{SERVICES, State};
use crate::inspect::entry::{Frontends, MapEntry};
use crate::model::{
    Backend, BackendState, Exposure, Family, Frontend, FrontendKey, Masquerade, NoBackends, NodeFacts, NodePortScope,
    Origin, Policy, Protocol, ServiceTable,
};

/// Lifts the state; notices of reading and lifting together come second, the frontends of each service id third.
pub fn lift(state: &State) -> (ServiceTable, Vec<Notice>, Frontends) {
    let mut lift = Lift { state, notices: state.notices.clone(), node: BTreeMap::new() };
    let mut frontends = Vec::new();
    let mut ids = Frontends::new();
    for (key, value) in &state.services {
        for frontend in lift.frontend(key, value) {
            ids.entry(value.id.into()).or_default().push(frontend.key);
            frontends.push(frontend);
        }
    }
    let facts = |family| NodeFacts {
        node_ports: lift.node.get(&family).cloned().map_or(NodePortScope::Unknown, NodePortScope::Addresses),
        ..NodeFacts::default()
    };
    (ServiceTable::new(frontends, facts(Family::V4), facts(Family::V6)), lift.notices, ids)
}

/// The entries of the maps that make up a service's frontends.
pub fn entries_of(state: &State, ids: &BTreeSet<u32>) -> Vec<MapEntry> {
    let own = state.services.iter().filter(|(_, value)| ids.contains(&value.id.into()));
    own.map(|(key, value)| slot_entry(state, key, value)).collect()
}

/// An entry of the map of services, for people.
pub(super) fn slot_entry(state: &State, key: &ServiceKey, value: &ServiceValue) -> MapEntry {
    let at = SocketAddr::new(key.address, key.port);
    let protocol = Protocol::from_number(key.protocol).map_or_else(|| "ANY".to_owned(), |p| p.to_string());
    let scope = if key.scope == INTERNAL_SCOPE { " inside" } else { "" };
    let family = Family::of(key.address);
    let value = match key.slot {
        0 => format!("service {}, {} slots, flags {:#06x}", value.id, value.count, value.flags),
        _ => match state.backends.get(&(family, value.union)) {
            Some(backend) => format!("backend {}, {}", value.union, backend.addr),
            None => format!("backend {}, which is not there", value.union),
        },
    };
    let map = SERVICES[usize::from(family == Family::V6)];
    MapEntry { map, key: format!("{at}/{protocol}{scope} slot {}", key.slot), value }
}

struct Lift<'a> {
    state: &'a State,
    notices: Vec<Notice>,
    /// Addresses of the node on which NodePorts are served.
    node: BTreeMap<Family, BTreeSet<IpAddr>>,
}

pub(super) const INTERNAL_SCOPE: u8 = 1;

impl Lift<'_> {
    /// The frontend of an entry: none for slots and for what is part of another one, one for each protocol otherwise.
    fn frontend(&mut self, key: &ServiceKey, value: &ServiceValue) -> Vec<Frontend> {
        if key.slot != 0 || key.scope == INTERNAL_SCOPE {
            return Vec::new();
        }
        let family = Family::of(key.address);
        let at = SocketAddr::new(key.address, key.port);
        let exposure = match value {
            v if v.has(flag::HOST_PORT) => {
                self.notices.push(Notice::HostPort { frontend: at });
                return Vec::new();
            }
            v if v.has(flag::LOAD_BALANCER) => Exposure::LoadBalancer,
            v if v.has(flag::EXTERNAL_IP) => Exposure::ExternalIp,
            v if v.has(flag::NODE_PORT) => Exposure::NodePort,
            _ => Exposure::ClusterIp,
        };
        if exposure == Exposure::NodePort && !key.address.is_unspecified() {
            self.node.entry(family).or_default().insert(key.address);
            let wildcard = ServiceKey { address: family.unspecified(), ..*key };
            if self.state.services.contains_key(&wildcard) {
                return Vec::new();
            }
        }
        self.remark(at, value);
        let outside = self.list(key, value);
        let internal = ServiceKey { scope: INTERNAL_SCOPE, ..*key };
        let inside = match self.state.services.get(&internal) {
            Some(value) => self.list(&internal, value),
            None => outside.clone(),
        };
        let external_local = value.has(flag::EXTERNAL_LOCAL);
        let internal_local = value.has(flag::INTERNAL_LOCAL);
        let (cluster, local) = match (external_local, internal_local) {
            (false, false) => (outside, Vec::new()),
            (false, true) => (outside, inside),
            (true, _) => (inside, outside),
        };
        let policy = |local| if local { Policy::Local } else { Policy::Cluster };
        let off_cluster = exposure.is_external() && !external_local && !value.has(flag::DSR);
        let ip = if exposure == Exposure::NodePort { family.unspecified() } else { key.address };
        let backends = cluster.iter().chain(&local).map(|(_, protocol)| *protocol);
        let protocols = self.protocols(at, key.protocol, backends);
        let plain = |list: &[(Backend, u8)]| merged(list.iter().map(|(backend, _)| *backend));
        let map = SERVICES[usize::from(family == Family::V6)];
        let make = |protocol| {
            let mut frontend = Frontend {
                key: FrontendKey { ip, port: key.port, protocol, exposure },
                service: None,
                port_name: None,
                cluster: plain(&cluster),
                local: plain(&local),
                internal_policy: policy(internal_local),
                external_policy: policy(external_local),
                affinity: value.affinity(),
                sources: self.sources(value, family),
                masquerade: if off_cluster { Masquerade::OffCluster } else { Masquerade::Never },
                no_backends: None,
                selection: None,
                forwarding: None,
                origin: Origin::MapEntry { map, id: value.id.into() },
            };
            frontend.no_backends = frontend.own_list().is_empty().then_some(NoBackends::Reject);
            frontend
        };
        protocols.into_iter().map(make).collect()
    }

    fn remark(&mut self, frontend: SocketAddr, value: &ServiceValue) {
        if value.has(flag::LOCAL_REDIRECT) {
            self.notices.push(Notice::LocalRedirect { frontend });
        }
        if value.has(flag::L7) {
            self.notices.push(Notice::L7 { frontend });
        }
        if value.has(flag::SOURCE_RANGES) && value.has(flag::QUARANTINED_OR_DENY) {
            self.notices.push(Notice::DenyRanges { frontend });
        }
    }

    /// The protocols of a frontend: its own; up to Cilium 1.16, which writes none, those of its backends.
    fn protocols(&mut self, at: SocketAddr, own: u8, backends: impl Iterator<Item = u8>) -> BTreeSet<Protocol> {
        if own != 0 {
            return Protocol::from_number(own).into_iter().collect();
        }
        let found: BTreeSet<Protocol> = backends.filter_map(Protocol::from_number).collect();
        if found.is_empty() {
            self.notices.push(Notice::NoProtocol { frontend: at });
            return BTreeSet::from([Protocol::Tcp]);
        }
        found
    }

    /// Backends of the slots in use, each with its protocol.
    fn list(&mut self, key: &ServiceKey, value: &ServiceValue) -> Vec<(Backend, u8)> {
        let frontend = SocketAddr::new(key.address, key.port);
        let (family, other) = match Family::of(key.address) {
            Family::V4 => (Family::V4, Family::V6),
            Family::V6 => (Family::V6, Family::V4),
        };
        let mut found = Vec::new();
        for slot in 1..=value.count {
            let Some(named) = self.state.services.get(&ServiceKey { slot, ..*key }) else {
                self.notices.push(Notice::NoSlot { frontend, slot });
                continue;
            };
            let id = named.union;
            // Ids are of both families: with NAT46x64 a backend may be of the other one.
            let backend = [family, other].iter().find_map(|family| self.state.backends.get(&(*family, id)));
            let Some(backend) = backend else {
                self.notices.push(Notice::NoBackend { frontend, slot, id });
                continue;
            };
            let state = match backend.state {
                CiliumState::Active => Some(BackendState::Ready),
                CiliumState::Terminating => Some(BackendState::Terminating),
                CiliumState::Quarantined | CiliumState::Maintenance | CiliumState::Unknown(_) => None,
            };
            let (ip, port) = (backend.addr.ip(), backend.addr.port());
            found.push((Backend { ip, port, weight: 1, local: None, state }, backend.protocol));
        }
        found
    }

    fn sources(&self, value: &ServiceValue, family: Family) -> Vec<IpNet> {
        if !value.has(flag::SOURCE_RANGES) || value.has(flag::QUARANTINED_OR_DENY) {
            return Vec::new();
        }
        let own = self.state.ranges.iter().filter(|r| r.service == value.id && Family::of(r.address) == family);
        let mut nets: Vec<IpNet> = own.filter_map(|range| IpNet::new(range.address, range.prefix).ok()).collect();
        nets.sort_unstable();
        nets
    }
}

/// Each backend once, with its slots as weight.
fn merged(list: impl Iterator<Item = Backend>) -> Vec<Backend> {
    let mut found: BTreeMap<SocketAddr, Backend> = BTreeMap::new();
    for backend in list {
        found
            .entry(backend.addr())
            .and_modify(|known| known.weight = known.weight.saturating_add(1))
            .or_insert(backend);
    }
    found.into_values().collect()
}
