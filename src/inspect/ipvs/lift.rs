//! IPVS, sets and rules → ServiceTable.
//!
//! One virtual service treats all traffic alike, wherever it comes from: its frontends follow the Cluster policy in the
//! table, with the servers that there are. What `Local` policies become in IPVS mode, see [`super::as_ipvs`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::addresses::Addresses;
use super::notice::Notice;
use super::rules::Rules;
use super::sets::{KubeSet, KubeSets};
use super::state::{Forward, Ipvs, RealServer, Virtual, VirtualService};
use crate::inspect::ipset::{Entry, Part, Sets};
use crate::model::{
    Backend, Exposure, Family, Frontend, FrontendKey, Masquerade, NoBackends, NodeFacts, NodePortScope, Origin, Policy,
    Protocol, ServiceTable,
};

type Address = (IpAddr, u16, Protocol);

/// All that tells what IPVS does on a node.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Virtual services and their servers.
    pub ipvs: Ipvs,
    /// IP sets.
    pub sets: Sets,
    /// Addresses; `None` where they were not captured.
    pub addresses: Option<Addresses>,
    /// Rules of IPv4 and IPv6.
    pub rules: [Rules; 2],
    /// kube-proxy's `ipvs.excludeCIDRs`; `None` where its configuration was not captured.
    pub excluded: Option<Vec<IpNet>>,
}

impl State {
    /// Whether a virtual service is kube-proxy's, and how its Service is exposed there; empty for other people's.
    ///
    /// One of kube-proxy's whose member is missing in its sets counts as a ClusterIP.
    pub fn exposures(&self, service: &VirtualService) -> Vec<Exposure> {
        let Some(address) = service.address() else { return Vec::new() };
        let sets = KubeSets::new(&self.sets, Family::of(address.0));
        let mut found = self.by_sets(address);
        let on_device =
            self.addresses.as_ref().and_then(|a| a.services.as_ref()).is_some_and(|all| all.contains(&address.0));
        if found.is_empty() && (on_device || sets.has_ip(address.0)) {
            found.push(Exposure::ClusterIp);
        }
        found
    }

    /// kube-proxy's virtual services, but for those in networks that it is told to leave alone.
    pub fn own(&self) -> impl Iterator<Item = &VirtualService> {
        let excluded = |service: &VirtualService| self.is_excluded(service) == Some(true);
        self.ipvs.services.iter().filter(move |service| !self.exposures(service).is_empty() && !excluded(service))
    }

    fn by_sets(&self, address: Address) -> Vec<Exposure> {
        let sets = KubeSets::new(&self.sets, Family::of(address.0));
        let on_node = self.addresses.as_ref().is_none_or(|a| a.node.contains(&address.0));
        let mut found = Vec::new();
        if sets.has(KubeSet::ClusterIp, address) {
            found.push(Exposure::ClusterIp);
        }
        if sets.has(KubeSet::LoadBalancer, address) {
            found.push(Exposure::LoadBalancer);
        }
        if sets.has(KubeSet::ExternalIp, address) || sets.has(KubeSet::ExternalIpLocal, address) {
            found.push(Exposure::ExternalIp);
        }
        if on_node && found.is_empty() && sets.has_node_port(false, address) {
            found.push(Exposure::NodePort);
        }
        found
    }

    fn is_excluded(&self, service: &VirtualService) -> Option<bool> {
        let (ip, ..) = service.address()?;
        self.excluded.as_ref().map(|nets| nets.iter().any(|net| net.contains(&ip)))
    }

    /// Whether the node has the address, as far as its addresses are known.
    fn is_delivered(&self, ip: IpAddr) -> bool {
        self.addresses
            .as_ref()
            .is_none_or(|a| a.node.contains(&ip) || a.services.as_ref().is_some_and(|services| services.contains(&ip)))
    }

    /// Lifts kube-proxy's part into a table.
    pub fn lift(&self, notices: &mut Vec<Notice>) -> ServiceTable {
        let mut frontends = Vec::new();
        let mut node_ports = NodePorts::default();
        for service in &self.ipvs.services {
            let exposures = self.exposures(service);
            let Some(address) = service.address().filter(|_| !exposures.is_empty()) else {
                notices.push(Notice::Foreign { service: service.key, excluded: self.is_excluded(service) });
                continue;
            };
            judge_servers(service, notices);
            if !self.is_delivered(address.0) {
                notices.push(Notice::NoAddress { service: service.key });
                continue;
            }
            for exposure in exposures {
                let frontend = self.frontend(service, address, exposure, notices);
                if exposure == Exposure::NodePort { node_ports.add(frontend) } else { frontends.push(frontend) }
            }
        }
        let mut facts = [NodeFacts::default(), NodeFacts::default()];
        for (family, facts) in Family::BOTH.into_iter().zip(&mut facts) {
            facts.detector = self.rules[usize::from(family == Family::V6)].detector.clone();
            facts.node_ports = node_ports.scope(family, self.addresses.as_ref());
            node_ports.finish(family, &facts.node_ports, self.addresses.as_ref(), &mut frontends, notices);
        }
        self.orphans(notices);
        let [v4, v6] = facts;
        let mut table = ServiceTable::new(frontends, v4, v6);
        table.health_checks = self.health_checks();
        table
    }

    fn frontend(
        &self,
        service: &VirtualService,
        address: Address,
        exposure: Exposure,
        notices: &mut Vec<Notice>,
    ) -> Frontend {
        let (ip, port, protocol) = address;
        let family = Family::of(ip);
        let sets = KubeSets::new(&self.sets, family);
        let refused = self.by_sets(address).is_empty();
        if refused {
            notices.push(Notice::NoMember { service: service.key });
        }
        let by_set = |local: bool| if local { Masquerade::Never } else { Masquerade::Always };
        let masquerade = match exposure {
            Exposure::ClusterIp => {
                self.rules[usize::from(family == Family::V6)].cluster_ip.unwrap_or(Masquerade::OffCluster)
            }
            Exposure::LoadBalancer => by_set(sets.has(KubeSet::LoadBalancerLocal, address)),
            Exposure::ExternalIp => by_set(!sets.has(KubeSet::ExternalIp, address)),
            Exposure::NodePort => by_set(sets.has_node_port(true, address)),
        };
        let sources = if exposure == Exposure::LoadBalancer { sets.sources(address) } else { None };
        let cluster = if refused { Vec::new() } else { backends(&service.servers) };
        Frontend {
            key: FrontendKey { ip, port, protocol, exposure },
            service: None,
            port_name: None,
            no_backends: cluster.is_empty().then_some(NoBackends::Reject),
            cluster,
            local: Vec::new(),
            internal_policy: Policy::Cluster,
            external_policy: Policy::Cluster,
            affinity: service.affinity(),
            sources: sources.unwrap_or_default(),
            masquerade,
            selection: None,
            forwarding: None,
            origin: Origin::VirtualService(SocketAddr::new(ip, port), protocol),
        }
    }

    /// Members of sets and addresses without a virtual service, and addresses that no rule guards.
    fn orphans(&self, notices: &mut Vec<Notice>) {
        let served: BTreeSet<Address> = self.ipvs.services.iter().filter_map(VirtualService::address).collect();
        let of_services = [KubeSet::ClusterIp, KubeSet::ExternalIp, KubeSet::ExternalIpLocal, KubeSet::LoadBalancer];
        for family in Family::BOTH {
            let sets = KubeSets::new(&self.sets, family);
            for set in of_services {
                for entry in sets.entries(set).filter(|e| member(e).is_some_and(|a| !served.contains(&a))) {
                    notices.push(Notice::NoService { family, set, member: entry.to_string() });
                }
            }
        }
        let ips: BTreeSet<IpAddr> = served.iter().map(|(ip, ..)| *ip).collect();
        for ip in self.addresses.iter().filter_map(|a| a.services.as_ref()).flatten() {
            if !ips.contains(ip) {
                notices.push(Notice::IdleAddress { ip: *ip });
            }
            if !KubeSets::new(&self.sets, Family::of(*ip)).has_ip(*ip) {
                notices.push(Notice::Unguarded { ip: *ip });
            }
        }
    }

    /// Ports of health checks. Whose they are, the sets do not tell.
    fn health_checks(&self) -> Option<BTreeMap<u16, BTreeSet<crate::model::ServiceName>>> {
        let mut exist = false;
        let mut ports = BTreeMap::new();
        for family in Family::BOTH {
            let sets = KubeSets::new(&self.sets, family);
            exist |= sets.exist();
            ports.extend(sets.entries(KubeSet::HealthCheck).filter_map(|entry| match entry.0.as_slice() {
                [Part::Port(None, port)] => Some((*port, BTreeSet::new())),
                _ => None,
            }));
        }
        exist.then_some(ports)
    }
}

/// The address, port and protocol of a member of a `hash:ip,port`.
fn member(entry: &Entry) -> Option<Address> {
    match entry.0.as_slice() {
        [Part::Ip(ip), Part::Port(Some(protocol), port)] => Some((*ip, *port, *protocol)),
        _ => None,
    }
}

/// Those that take new connections. Schedulers without weights treat them alike, but kube-proxy gives every server 1, and
/// another number is another hand's: it counts as a share.
fn backends(servers: &[RealServer]) -> Vec<Backend> {
    let backend = |server: &RealServer| Backend {
        ip: server.address.ip(),
        port: server.address.port(),
        weight: u16::try_from(server.weight).unwrap_or(u16::MAX),
        local: None,
        state: None,
    };
    let mut list: Vec<Backend> = servers.iter().filter(|s| s.weight > 0).map(backend).collect();
    list.sort_unstable();
    list
}

fn judge_servers(service: &VirtualService, notices: &mut Vec<Notice>) {
    let key = service.key;
    for server in &service.servers {
        if server.forward != Forward::Masquerade {
            notices.push(Notice::Forwarding { service: key, server: server.address, forward: server.forward });
        }
        match server.weight {
            0 => notices.push(Notice::Draining {
                service: key,
                server: server.address,
                connections: u64::from(server.active) + u64::from(server.inactive),
            }),
            1 => {}
            weight => notices.push(Notice::Weight { service: key, server: server.address, weight }),
        }
    }
}

/// NodePorts: one virtual service for each address of the node, gathered into one frontend where they agree.
#[derive(Default)]
struct NodePorts {
    by_port: BTreeMap<(Family, u16, Protocol), Vec<Frontend>>,
}

impl NodePorts {
    fn add(&mut self, frontend: Frontend) {
        let FrontendKey { ip, port, protocol, .. } = frontend.key;
        self.by_port.entry((Family::of(ip), port, protocol)).or_default().push(frontend);
    }

    fn addresses(&self, family: Family) -> BTreeSet<IpAddr> {
        self.by_port.iter().filter(|((f, ..), _)| *f == family).flat_map(|(_, list)| list).map(|f| f.key.ip).collect()
    }

    fn scope(&self, family: Family, known: Option<&Addresses>) -> NodePortScope {
        let serving = self.addresses(family);
        match known {
            _ if serving.is_empty() => NodePortScope::Unknown,
            Some(known) if known.of_node(family) != serving => NodePortScope::Addresses(serving),
            // kube-proxy in IPVS mode never serves NodePorts on loopback.
            _ => NodePortScope::All { loopback: false },
        }
    }

    /// One frontend for each port, as most addresses have it, and one for each address that has it otherwise or not at all.
    fn finish(
        &self,
        family: Family,
        scope: &NodePortScope,
        known: Option<&Addresses>,
        out: &mut Vec<Frontend>,
        notices: &mut Vec<Notice>,
    ) {
        let serving = match (scope, known) {
            (NodePortScope::All { .. }, Some(known)) => known.of_node(family),
            _ => self.addresses(family),
        };
        for ((_, port, protocol), list) in self.by_port.iter().filter(|((f, ..), _)| *f == family) {
            let alike = |a: &Frontend, b: &Frontend| a.cluster == b.cluster && a.affinity == b.affinity;
            let Some(usual) = list.iter().max_by_key(|f| list.iter().filter(|other| alike(f, other)).count()) else {
                continue;
            };
            let mut odd: Vec<Frontend> = list.iter().filter(|f| !alike(f, usual)).cloned().collect();
            for ip in serving.iter().filter(|ip| !list.iter().any(|f| f.key.ip == **ip)) {
                odd.push(Frontend {
                    key: FrontendKey { ip: *ip, ..usual.key },
                    cluster: Vec::new(),
                    no_backends: Some(NoBackends::Reject),
                    origin: Origin::VirtualService(SocketAddr::new(*ip, *port), *protocol),
                    ..usual.clone()
                });
            }
            notices
                .extend(odd.iter().map(|f| Notice::Uneven {
                    service: Virtual::Address(SocketAddr::new(f.key.ip, *port), *protocol),
                }));
            out.push(Frontend { key: FrontendKey { ip: family.unspecified(), ..usual.key }, ..usual.clone() });
            out.append(&mut odd);
        }
    }
}
