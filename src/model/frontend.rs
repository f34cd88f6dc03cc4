//! A frontend: one address, port and protocol, and what happens to the packets sent there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// IP address family. Each family has its own rules, and kube-proxy computes each alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The unspecified address (`0.0.0.0` or `::`), which stands for "every address of the node" in a NodePort frontend.
    pub const fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Transport protocol of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The IANA protocol number, as in an IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol of an IANA number, if it is one a Service can have.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The lower-case name, as iptables, nftables and kube-proxy's chain hashes have it.
    pub const fn lower(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// How a Service port is reachable by a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Exposure {
    /// `spec.clusterIPs`.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// `spec.ports[].nodePort` on addresses of the node.
    NodePort,
    /// `status.loadBalancer.ingress[].ip` with `ipMode` VIP.
    LoadBalancer,
    /// `spec.externalIPs`.
    #[serde(rename = "ExternalIP")]
    ExternalIp,
}

impl Exposure {
    /// Whether the frontend follows `externalTrafficPolicy` (all but ClusterIP).
    pub const fn is_external(self) -> bool {
        !matches!(self, Self::ClusterIp)
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalIp => "ExternalIP",
        })
    }
}

/// Namespace and name of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceName {
    /// Namespace.
    pub namespace: String,
    /// Name inside the namespace.
    pub name: String,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What tells one frontend of a node from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// Destination address; unspecified for a NodePort: on which addresses of the node it is served, the table's
    /// [`NodeFacts`](super::NodeFacts) say.
    pub ip: IpAddr,
    /// Destination port, host byte order.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// How the Service is exposed there.
    pub exposure: Exposure,
}

impl FrontendKey {
    /// What a packet shows of it.
    pub const fn address(&self) -> (IpAddr, u16, Protocol) {
        (self.ip, self.port, self.protocol)
    }
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.ip, self.port), self.protocol)
    }
}

/// Why a backend is in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// Ready as published in the EndpointSlice.
    Ready,
    /// Serving and terminating: used because no ready endpoint is left.
    Terminating,
}

/// One backend of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Address.
    pub ip: IpAddr,
    /// Port, host byte order.
    pub port: u16,
    /// Share of new connections relative to the other backends of the list; 1 from kube-proxy.
    pub weight: u16,
    /// Whether it runs on this node; `None` where the source cannot know.
    pub local: Option<bool>,
    /// Ready or terminating; `None` where the source cannot know.
    pub state: Option<BackendState>,
}

impl Backend {
    /// Address and port.
    pub const fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

/// `internalTrafficPolicy` or `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Policy {
    /// Every endpoint of the cluster.
    #[default]
    Cluster,
    /// Endpoints of this node only.
    Local,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        })
    }
}

/// When the client's address is replaced by the node's on the way to a backend.
///
/// Hairpin traffic (the backend chosen is the client itself) is always masqueraded and not part of this. A frontend
/// with `externalTrafficPolicy: Local` is [`Masquerade::Never`]; the node's own traffic to it is masqueraded all the same
/// ([`Frontend::treatment`] knows).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Masquerade {
    /// Every client.
    Always,
    /// Clients which the [`Detector`](super::Detector) does not recognise as pods.
    OffCluster,
    /// No client.
    Never,
}

impl fmt::Display for Masquerade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Always => "always",
            Self::OffCluster => "off-cluster",
            Self::Never => "never",
        })
    }
}

/// What a new connection meets when the list its policy asks for is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoBackends {
    /// ICMP port unreachable: no usable endpoint anywhere.
    Reject,
    /// Silence: a Local policy, with usable endpoints on other nodes only.
    Drop,
}

impl fmt::Display for NoBackends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reject => "reject",
            Self::Drop => "drop",
        })
    }
}

/// How one of several backends is chosen for a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendSelection {
    /// By chance, each by its weight.
    #[default]
    Random,
    /// By a hash of the connection, the same on every node (Maglev). Rules cannot do that, so it is no difference from
    /// them: each backend still gets its share.
    Maglev,
}

/// How clients outside reach a backend on another node, where the policy is Cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForwardingMode {
    /// The backend sees an address of the node that the client sent to, and answers go back by way of that.
    #[default]
    Snat,
    /// The backend sees the client, and its node answers the client itself (direct server return). Rules cannot do that, so it
    /// is no difference from them: the client talks to the same backend by the same address.
    Dsr,
}

/// Where an entry was read, so that every statement can be traced to a line the operator can see.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A rule of iptables.
    Rule {
        /// Family of the tables.
        family: Family,
        /// Table, such as `nat`.
        table: Box<str>,
        /// Chain.
        chain: Box<str>,
        /// Position in the chain, from 1, as `iptables -L --line-numbers` counts.
        number: u32,
    },
    /// An element of a verdict map of nftables.
    NftElement {
        /// Family of the table `kube-proxy`.
        family: Family,
        /// Map.
        map: &'static str,
        /// Key, as nft prints it.
        key: Box<str>,
    },
    /// A field of an API object.
    Object {
        /// Kind, such as `Service`.
        kind: &'static str,
        /// Namespace and name.
        name: ServiceName,
        /// JSON path, such as `spec.ports[0]`.
        field: Box<str>,
    },
    /// A virtual service of IPVS.
    VirtualService(SocketAddr, Protocol),
    /// An entry of a pinned BPF map.
    MapEntry {
        /// Name of the map.
        map: &'static str,
        /// The Service id that the entry carries.
        id: u32,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { family, table, chain, number } => write!(f, "{family} {table} {chain} rule {number}"),
            Self::NftElement { family, map, key } => {
                let ip = match family {
                    Family::V4 => "ip",
                    Family::V6 => "ip6",
                };
                write!(f, "{ip} kube-proxy map {map} {{ {key} }}")
            }
            Self::Object { kind, name, field } => write!(f, "{kind} {name} {field}"),
            Self::VirtualService(address, protocol) => write!(f, "IPVS {address}/{protocol}"),
            Self::MapEntry { map, id } => write!(f, "map {map} service {id}"),
        }
    }
}

/// One frontend of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Address, port, protocol, exposure.
    pub key: FrontendKey,
    /// The Service; `None` where the source cannot know.
    pub service: Option<ServiceName>,
    /// Name of the Service port; `None` for an unnamed port or where the source cannot know.
    pub port_name: Option<String>,
    /// List for the Cluster policy, sorted by address. May be empty where no traffic uses it and the source does not say.
    pub cluster: Vec<Backend>,
    /// List for the Local policy, sorted by address. May be empty where no traffic uses it and the source does not say.
    pub local: Vec<Backend>,
    /// `internalTrafficPolicy`.
    pub internal_policy: Policy,
    /// `externalTrafficPolicy` where it counts; Cluster otherwise.
    pub external_policy: Policy,
    /// ClientIP affinity, seconds.
    pub affinity: Option<u32>,
    /// Source addresses let in (LoadBalancer only), sorted; empty: all. Holds the VIP itself where kube-proxy lets it in.
    pub sources: Vec<IpNet>,
    /// When the client's address is replaced.
    pub masquerade: Masquerade,
    /// What traffic under the frontend's own policy meets when its list is empty; `None` when it is not empty.
    pub no_backends: Option<NoBackends>,
    /// How a backend is chosen; `None`: as the node chooses in general.
    pub selection: Option<BackendSelection>,
    /// How clients outside reach backends on other nodes; `None`: as the node does in general.
    pub forwarding: Option<ForwardingMode>,
    /// Where it was read.
    pub origin: Origin,
}

impl Frontend {
    /// The policy that this frontend follows: internal for a ClusterIP, external for all others.
    pub const fn policy(&self) -> Policy {
        if self.key.exposure.is_external() { self.external_policy } else { self.internal_policy }
    }

    /// The list used by traffic under the frontend's own policy.
    pub fn own_list(&self) -> &[Backend] {
        match self.policy() {
            Policy::Cluster => &self.cluster,
            Policy::Local => &self.local,
        }
    }

    /// `ns/name:port`, or `ns/name`, or the address where the Service is not known.
    pub fn display_name(&self) -> String {
        match (&self.service, &self.port_name) {
            (Some(service), Some(port)) if !port.is_empty() => format!("{service}:{port}"),
            (Some(service), _) => service.to_string(),
            (None, _) => self.key.to_string(),
        }
    }
}
