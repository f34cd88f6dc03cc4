//! kube-proxy's sets: what each is for, and what is in it.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::inspect::ipset::{Entry, Part, Sets};
use crate::model::{Family, Protocol};

/// A set of kube-proxy in IPVS mode (`pkg/proxy/ipvs/ipset.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KubeSet {
    /// Endpoints of this node, with themselves: masqueraded on the way to themselves.
    LoopBack,
    /// ClusterIPs and their ports.
    ClusterIp,
    /// External IPs, externalTrafficPolicy Cluster.
    ExternalIp,
    /// External IPs, externalTrafficPolicy Local.
    ExternalIpLocal,
    /// Addresses of load balancers.
    LoadBalancer,
    /// Those with externalTrafficPolicy Local.
    LoadBalancerLocal,
    /// Those with source ranges.
    LoadBalancerFirewall,
    /// Those which may speak to themselves.
    LoadBalancerSourceIp,
    /// Those with the networks that are let in.
    LoadBalancerSourceCidr,
    /// NodePorts of a protocol.
    NodePort(Protocol),
    /// Those with externalTrafficPolicy Local.
    NodePortLocal(Protocol),
    /// `healthCheckNodePort`s.
    HealthCheck,
    /// Addresses on kube-ipvs0.
    Ips,
}

impl KubeSet {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::LoopBack,
        Self::ClusterIp,
        Self::ExternalIp,
        Self::ExternalIpLocal,
        Self::LoadBalancer,
        Self::LoadBalancerLocal,
        Self::LoadBalancerFirewall,
        Self::LoadBalancerSourceIp,
        Self::LoadBalancerSourceCidr,
        Self::NodePort(Protocol::Tcp),
        Self::NodePort(Protocol::Udp),
        Self::NodePort(Protocol::Sctp),
        Self::NodePortLocal(Protocol::Tcp),
        Self::NodePortLocal(Protocol::Udp),
        Self::NodePortLocal(Protocol::Sctp),
        Self::HealthCheck,
        Self::Ips,
    ];

    const fn suffix(self) -> &'static str {
        match self {
            Self::LoopBack => "LOOP-BACK",
            Self::ClusterIp => "CLUSTER-IP",
            Self::ExternalIp => "EXTERNAL-IP",
            Self::ExternalIpLocal => "EXTERNAL-IP-LOCAL",
            Self::LoadBalancer => "LOAD-BALANCER",
            Self::LoadBalancerLocal => "LOAD-BALANCER-LOCAL",
            Self::LoadBalancerFirewall => "LOAD-BALANCER-FW",
            Self::LoadBalancerSourceIp => "LOAD-BALANCER-SOURCE-IP",
            Self::LoadBalancerSourceCidr => "LOAD-BALANCER-SOURCE-CIDR",
            Self::NodePort(Protocol::Tcp) => "NODE-PORT-TCP",
            Self::NodePort(Protocol::Udp) => "NODE-PORT-UDP",
            Self::NodePort(Protocol::Sctp) => "NODE-PORT-SCTP-HASH",
            Self::NodePortLocal(Protocol::Tcp) => "NODE-PORT-LOCAL-TCP",
            Self::NodePortLocal(Protocol::Udp) => "NODE-PORT-LOCAL-UDP",
            Self::NodePortLocal(Protocol::Sctp) => "NODE-PORT-LOCAL-SCTP-HASH",
            Self::HealthCheck => "HEALTH-CHECK-NODE-PORT",
            Self::Ips => "IPVS-IPS",
        }
    }

    /// The set's name. The kernel takes names of 31 characters, so kube-proxy cuts those of IPv6.
    pub fn name(self, family: Family) -> String {
        /// `IPSET_MAXNAMELEN` without the closing zero.
        const LONGEST: usize = 31;
        let infix = if family == Family::V6 { "6-" } else { "" };
        let mut name = format!("KUBE-{infix}{}", self.suffix());
        name.truncate(LONGEST);
        name
    }
}

/// kube-proxy's sets of one family.
#[derive(Clone, Copy, Debug)]
pub struct KubeSets<'a> {
    sets: &'a Sets,
    family: Family,
}

impl<'a> KubeSets<'a> {
    /// Those among all sets of a node.
    pub const fn new(sets: &'a Sets, family: Family) -> Self {
        Self { sets, family }
    }

    /// Whether the kernel has any of them.
    pub fn exist(&self) -> bool {
        KubeSet::ALL.iter().any(|set| self.sets.contains_key(&set.name(self.family)))
    }

    /// The entries of one; none where it does not exist.
    pub fn entries(&self, set: KubeSet) -> impl Iterator<Item = &'a Entry> {
        self.sets.get(&set.name(self.family)).into_iter().flat_map(|set| &set.entries)
    }

    /// Whether a set holds an address and port.
    pub fn has(&self, set: KubeSet, (ip, port, protocol): (IpAddr, u16, Protocol)) -> bool {
        self.has_entry(set, vec![Part::Ip(ip), Part::Port(Some(protocol), port)])
    }

    /// Whether a set holds an address.
    pub fn has_ip(&self, ip: IpAddr) -> bool {
        self.has_entry(KubeSet::Ips, vec![Part::Ip(ip)])
    }

    /// Whether a port is a NodePort on an address of the node.
    pub fn has_node_port(&self, local: bool, address: (IpAddr, u16, Protocol)) -> bool {
        let (_, port, protocol) = address;
        let set = if local { KubeSet::NodePortLocal(protocol) } else { KubeSet::NodePort(protocol) };
        if protocol == Protocol::Sctp {
            self.has(set, address)
        } else {
            self.has_entry(set, vec![Part::Port(None, port)])
        }
    }

    /// Networks that may reach a load balancer's address; `None` where all may.
    pub fn sources(&self, (ip, port, protocol): (IpAddr, u16, Protocol)) -> Option<Vec<IpNet>> {
        if !self.has(KubeSet::LoadBalancerFirewall, (ip, port, protocol)) {
            return None;
        }
        let of_this = |entry: &&Entry| matches!(entry.0.as_slice(), [Part::Ip(i), Part::Port(Some(p), n), _] if (*i, *n, *p) == (ip, port, protocol));
        let network = |entry: &Entry| match entry.0.last() {
            Some(Part::Net(net)) => Some(*net),
            Some(Part::Ip(ip)) => Some(IpNet::from(*ip)),
            _ => None,
        };
        let lists = [KubeSet::LoadBalancerSourceCidr, KubeSet::LoadBalancerSourceIp];
        let mut nets: Vec<IpNet> =
            lists.into_iter().flat_map(|set| self.entries(set).filter(of_this).filter_map(network)).collect();
        nets.sort_unstable();
        Some(nets)
    }

    fn has_entry(&self, set: KubeSet, parts: Vec<Part>) -> bool {
        self.sets.get(&set.name(self.family)).is_some_and(|set| set.entries.contains(&Entry(parts)))
    }
}
