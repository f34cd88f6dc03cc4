//! kube-proxy's effective configuration, each value with the source it was read from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::{Family, KubeVersion};

/// A value and where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value in effect.
    pub value: T,
    /// Where it was read.
    pub source: Source,
}

/// Where a setting was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// kube-proxy's own answer over HTTP (`/configz`, `/metrics`, `/proxyMode`): what is in effect.
    Answer {
        /// File or address.
        place: String,
    },
    /// A line of its log.
    Log {
        /// The log.
        place: String,
        /// Line number, from 1.
        line: usize,
    },
    /// Its ConfigMap: what the next start will use.
    ConfigMap {
        /// File or object.
        place: String,
    },
    /// A flag of kube-proxy as the operator gives it.
    Given {
        /// The flag.
        flag: String,
    },
    /// kube-proxy's documented default.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { place } | Self::ConfigMap { place } => f.write_str(place),
            Self::Log { place, line } => write!(f, "{place}:{line}"),
            Self::Given { flag } => write!(f, "--kube-proxy-flag {flag}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Mode of kube-proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// `iptables`, the default on Linux.
    Iptables,
    /// `ipvs`.
    Ipvs,
    /// `nftables`.
    Nftables,
    /// Another word.
    Other(String),
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
            Self::Nftables => "nftables",
            Self::Other(word) => word,
        })
    }
}

/// How kube-proxy recognises traffic of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocal {
    /// By `clusterCIDR`.
    ClusterCidr,
    /// By the Node's `spec.podCIDRs`.
    NodeCidr,
    /// By the name of a bridge.
    BridgeInterface(String),
    /// By the start of an interface's name.
    InterfaceNamePrefix(String),
}

/// First cluster CIDR of each family: kube-proxy uses no other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterCidrs {
    /// IPv4.
    pub v4: Option<IpNet>,
    /// IPv6.
    pub v6: Option<IpNet>,
}

impl ClusterCidrs {
    /// The CIDR of one family.
    pub const fn of(&self, family: Family) -> Option<IpNet> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// One word of `nodePortAddresses`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePortAddress {
    /// `primary`: the Node's own addresses.
    Primary,
    /// Local addresses inside this network.
    Net(IpNet),
}

/// Settings of conntrack that kube-proxy writes at start and that outlive it; zero: left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// `nf_conntrack_max` for each core.
    pub max_per_core: u32,
    /// Lower bound of `nf_conntrack_max`.
    pub min: u32,
    /// `nf_conntrack_tcp_timeout_established`.
    pub tcp_established: Duration,
    /// `nf_conntrack_tcp_timeout_close_wait`.
    pub tcp_close_wait: Duration,
    /// `nf_conntrack_tcp_be_liberal`.
    pub tcp_be_liberal: bool,
    /// `nf_conntrack_udp_timeout`.
    pub udp: Duration,
    /// `nf_conntrack_udp_timeout_stream`.
    pub udp_stream: Duration,
}

impl Default for Conntrack {
    fn default() -> Self {
        Self {
            max_per_core: 32_768,
            min: 131_072,
            tcp_established: Duration::from_hours(24),
            tcp_close_wait: Duration::from_hours(1),
            tcp_be_liberal: false,
            udp: Duration::ZERO,
            udp_stream: Duration::ZERO,
        }
    }
}

/// The part of kube-proxy's configuration that decides what packets meet, or that outlives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Version of kube-proxy; `None` where nothing says.
    pub version: Setting<Option<KubeVersion>>,
    /// `mode`.
    pub mode: Setting<ProxyMode>,
    /// `clusterCIDR`. `Source::Default` means that nothing says, not that it is known to be empty.
    pub cluster_cidrs: Setting<ClusterCidrs>,
    /// `detectLocalMode` with its interface.
    pub detect_local: Setting<DetectLocal>,
    /// `nodePortAddresses`; empty: every address.
    pub node_port_addresses: Setting<Vec<NodePortAddress>>,
    /// `iptables.masqueradeAll`, or that of `nftables` in its mode.
    pub masquerade_all: Setting<bool>,
    /// `iptables.masqueradeBit`: bit of the packet mark, from 0.
    pub masquerade_bit: Setting<u8>,
    /// `iptables.localhostNodePorts`.
    pub localhost_node_ports: Setting<bool>,
    /// `hostnameOverride`, in lower case as kube-proxy compares it.
    pub hostname_override: Setting<Option<String>>,
    /// `bindAddress`.
    pub bind_address: Setting<IpAddr>,
    /// `featureGates`: those set, or all where the metrics tell.
    pub feature_gates: Setting<BTreeMap<String, bool>>,
    /// `conntrack`.
    pub conntrack: Setting<Conntrack>,
}

/// A captured text and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// A path or a command line.
    pub place: &'a str,
}

/// Everything that can tell how kube-proxy is configured.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConfigSources<'a> {
    /// `/proxyMode`.
    pub proxy_mode: Option<Text<'a>>,
    /// `/configz`.
    pub configz: Option<Text<'a>>,
    /// `/metrics`.
    pub metrics: Option<Text<'a>>,
    /// The log.
    pub log: Option<Text<'a>>,
    /// The ConfigMap.
    pub config_map: Option<Text<'a>>,
    /// Flags of kube-proxy as the operator gives them, name and value; `version` stands for its version.
    pub flags: &'a [(String, String)],
}

/// A source that cannot be read, or a value in it that kube-proxy would not take.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither JSON nor YAML.
    #[error("{place} is no {what}")]
    Syntax {
        /// File or address.
        place: String,
        /// What it should be.
        what: &'static str,
        /// The parser's reason.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// The document is something else.
    #[error("{place} holds no KubeProxyConfiguration")]
    NoConfiguration {
        /// File or address.
        place: String,
    },
    /// No flag of kube-proxy that kpx has a use for.
    #[error("{flag} is no flag of kube-proxy that kpx reads")]
    UnknownFlag {
        /// As given.
        flag: String,
    },
    /// A setting has a value kube-proxy would not take.
    #[error("{source_name}: {setting} is {value:?}: {reason}")]
    Value {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// Where it was read.
        source_name: Source,
        /// What is wrong.
        reason: &'static str,
    },
}
