//! kube-proxy's effective configuration, each value with the source it was read from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::document::Document;
use super::flags;
use super::metrics;
use super::notice::Notice;
use super::text::{GoDuration, parse_ip, parse_net};
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
    /// An option given to kpx.
    Option {
        /// The setting as kube-proxy's flag is called.
        flag: &'static str,
    },
    /// kube-proxy's documented default.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { place } | Self::ConfigMap { place } => f.write_str(place),
            Self::Log { place, line } => write!(f, "{place}:{line}"),
            Self::Option { flag } => write!(f, "option {flag}"),
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

/// Settings given to kpx, for nodes where no source is left. Words as kube-proxy's flags take them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyOptions {
    /// `--cluster-cidr`.
    pub cluster_cidr: Option<String>,
    /// `--detect-local-mode`.
    pub detect_local_mode: Option<String>,
    /// `--pod-bridge-interface`.
    pub pod_bridge_interface: Option<String>,
    /// `--pod-interface-name-prefix`.
    pub pod_interface_name_prefix: Option<String>,
    /// `--nodeport-addresses`, with commas.
    pub nodeport_addresses: Option<String>,
    /// `--masquerade-all`.
    pub masquerade_all: Option<bool>,
    /// `--iptables-masquerade-bit`.
    pub masquerade_bit: Option<u8>,
    /// `--iptables-localhost-nodeports`.
    pub localhost_nodeports: Option<bool>,
    /// Version of kube-proxy, such as `v1.30.5`.
    pub version: Option<String>,
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
    /// Options.
    pub options: Option<&'a ProxyOptions>,
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

/// What one source says, in the words it uses. Lists are joined by commas, as flags have them.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    known: BTreeMap<&'static str, (String, Source)>,
    pub(super) gates: Option<(BTreeMap<String, bool>, Source)>,
}

impl Words {
    pub(super) fn set(&mut self, setting: &'static str, value: String, source: Source) {
        self.known.insert(setting, (value, source));
    }

    fn fill_from(&mut self, lower: Self) {
        for (setting, said) in lower.known {
            self.known.entry(setting).or_insert(said);
        }
        self.gates = self.gates.take().or(lower.gates);
    }

    fn take<T>(
        &self,
        setting: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Result<Setting<T>, ConfigError> {
        let Some((word, source)) = self.known.get(setting) else {
            return Ok(Setting { value: default, source: Source::Default });
        };
        if word.is_empty() {
            return Ok(Setting { value: default, source: source.clone() });
        }
        match parse(word) {
            Ok(value) => Ok(Setting { value, source: source.clone() }),
            Err(reason) => {
                Err(ConfigError::Value { setting, value: word.clone(), source_name: source.clone(), reason })
            }
        }
    }
}

/// Names of the settings, by their paths in KubeProxyConfiguration, with kube-proxy's flag for each.
pub(super) const SETTINGS: [(&str, &str); 21] = [
    ("mode", "proxy-mode"),
    ("clusterCIDR", "cluster-cidr"),
    ("detectLocalMode", "detect-local-mode"),
    ("detectLocal.bridgeInterface", "pod-bridge-interface"),
    ("detectLocal.interfaceNamePrefix", "pod-interface-name-prefix"),
    ("nodePortAddresses", "nodeport-addresses"),
    ("iptables.masqueradeAll", "masquerade-all"),
    ("iptables.masqueradeBit", "iptables-masquerade-bit"),
    ("iptables.localhostNodePorts", "iptables-localhost-nodeports"),
    ("nftables.masqueradeAll", "masquerade-all"),
    ("nftables.masqueradeBit", "iptables-masquerade-bit"),
    ("hostnameOverride", "hostname-override"),
    ("bindAddress", "bind-address"),
    ("conntrack.maxPerCore", "conntrack-max-per-core"),
    ("conntrack.min", "conntrack-min"),
    ("conntrack.tcpEstablishedTimeout", "conntrack-tcp-timeout-established"),
    ("conntrack.tcpCloseWaitTimeout", "conntrack-tcp-timeout-close-wait"),
    ("conntrack.tcpBeLiberal", "conntrack-tcp-be-liberal"),
    ("conntrack.udpTimeout", "conntrack-udp-timeout"),
    ("conntrack.udpStreamTimeout", "conntrack-udp-timeout-stream"),
    ("version", ""),
];

impl ProxyConfig {
    /// Reads the configuration: what kube-proxy answers goes before its log, that before its ConfigMap, that before options.
    pub fn read(sources: &ConfigSources<'_>) -> Result<(Self, Vec<Notice>), ConfigError> {
        let mut words = Words::default();
        let mut notices = Vec::new();
        if let Some(text) = sources.metrics {
            metrics::read(text, &mut words);
        }
        if let Some(text) = sources.proxy_mode {
            let mode = String::from_utf8_lossy(text.bytes).trim().to_owned();
            words.set("mode", mode, Source::Answer { place: text.place.to_owned() });
        }
        if let Some(text) = sources.configz {
            words.fill_from(Document::configz(text)?.words(&Source::Answer { place: text.place.to_owned() }));
        }
        if let Some(text) = sources.log {
            words.fill_from(flags::read(text));
        }
        if let Some(text) = sources.config_map {
            words.fill_from(Document::config_map(text)?.words(&Source::ConfigMap { place: text.place.to_owned() }));
        }
        if let Some(options) = sources.options {
            let given = options.words();
            for (setting, (value, _)) in &given.known {
                if let Some((used, source)) = words.known.get(setting)
                    && used != value
                {
                    notices.push(Notice::OptionOverruled { setting, source: source.clone() });
                }
            }
            words.fill_from(given);
        }
        let config = Self::from_words(&words, &mut notices)?;
        if config.cluster_cidrs.source == Source::Default && config.detect_local.source == Source::Default {
            notices.push(Notice::NoConfiguration);
        }
        Ok((config, notices))
    }

    fn from_words(words: &Words, notices: &mut Vec<Notice>) -> Result<Self, ConfigError> {
        let text = |setting, default: &str| words.take(setting, default.to_owned(), |w| Ok(w.to_owned()));
        let detect_mode = text("detectLocalMode", "")?;
        let bridge = text("detectLocal.bridgeInterface", "")?;
        let prefix = text("detectLocal.interfaceNamePrefix", "")?;
        let interface = |setting: &'static str, interface: Setting<String>| match interface.value.as_str() {
            "" => Err(ConfigError::Value {
                setting,
                value: String::new(),
                source_name: interface.source,
                reason: "detectLocalMode needs it",
            }),
            _ => Ok(interface.value),
        };
        let detect_local = match detect_mode.value.as_str() {
            "" | "ClusterCIDR" => DetectLocal::ClusterCidr,
            "NodeCIDR" => DetectLocal::NodeCidr,
            "BridgeInterface" => DetectLocal::BridgeInterface(interface("detectLocal.bridgeInterface", bridge)?),
            "InterfaceNamePrefix" => {
                DetectLocal::InterfaceNamePrefix(interface("detectLocal.interfaceNamePrefix", prefix)?)
            }
            _ => {
                return Err(ConfigError::Value {
                    setting: "detectLocalMode",
                    value: detect_mode.value,
                    source_name: detect_mode.source,
                    reason: "no mode kpx knows",
                });
            }
        };
        let mut unused = Vec::new();
        let cluster_cidrs =
            words.take("clusterCIDR", ClusterCidrs::default(), |word| parse_cluster_cidrs(word, &mut unused))?;
        notices.extend(unused.into_iter().map(Notice::ClusterCidrUnused));
        let gates = words.gates.clone();
        let mode = words.take("mode", ProxyMode::Iptables, |w| Ok(parse_mode(w)))?;
        // What 1.36 answers as its configuration, older versions apply without showing it.
        let default_node_ports = match mode.value {
            ProxyMode::Nftables => vec![NodePortAddress::Primary],
            _ => Vec::new(),
        };
        // IPVS mode uses the settings of iptables mode; nftables mode has its own.
        let (masquerade_all, masquerade_bit) = match mode.value {
            ProxyMode::Nftables => ("nftables.masqueradeAll", "nftables.masqueradeBit"),
            _ => ("iptables.masqueradeAll", "iptables.masqueradeBit"),
        };
        Ok(Self {
            version: words.take("version", None, |w| w.parse().map(Some).map_err(|_| "no version"))?,
            mode,
            cluster_cidrs,
            detect_local: Setting { value: detect_local, source: detect_mode.source },
            node_port_addresses: words.take("nodePortAddresses", default_node_ports, parse_node_port_addresses)?,
            masquerade_all: words.take(masquerade_all, false, parse_bool)?,
            masquerade_bit: words.take(masquerade_bit, 14, |w| match w.parse() {
                Ok(bit @ 0..=31) => Ok(bit),
                _ => Err("no bit of a 32-bit mark"),
            })?,
            localhost_node_ports: words.take("iptables.localhostNodePorts", true, parse_bool)?,
            hostname_override: words.take("hostnameOverride", None, |w| {
                Ok(Some(w.trim().to_lowercase()).filter(|name| !name.is_empty()))
            })?,
            bind_address: words
                .take("bindAddress", Family::V4.unspecified(), |w| parse_ip(w).ok_or("no IP address"))?,
            feature_gates: match gates {
                Some((value, source)) => Setting { value, source },
                None => Setting { value: BTreeMap::new(), source: Source::Default },
            },
            conntrack: Self::conntrack(words)?,
        })
    }

    fn conntrack(words: &Words) -> Result<Setting<Conntrack>, ConfigError> {
        let default = Conntrack::default();
        let number = |setting, default| words.take(setting, default, |w| w.parse().map_err(|_| "no whole number"));
        let duration = |setting, default| {
            words.take(setting, default, |w| GoDuration::parse(w).ok_or("no duration such as 1h0m0s"))
        };
        let max_per_core = number("conntrack.maxPerCore", default.max_per_core)?;
        let value = Conntrack {
            max_per_core: max_per_core.value,
            min: number("conntrack.min", default.min)?.value,
            tcp_established: duration("conntrack.tcpEstablishedTimeout", default.tcp_established)?.value,
            tcp_close_wait: duration("conntrack.tcpCloseWaitTimeout", default.tcp_close_wait)?.value,
            tcp_be_liberal: words.take("conntrack.tcpBeLiberal", default.tcp_be_liberal, parse_bool)?.value,
            udp: duration("conntrack.udpTimeout", default.udp)?.value,
            udp_stream: duration("conntrack.udpStreamTimeout", default.udp_stream)?.value,
        };
        Ok(Setting { value, source: max_per_core.source })
    }
}

impl ProxyOptions {
    fn words(&self) -> Words {
        let mut words = Words::default();
        let said = [
            ("clusterCIDR", "--cluster-cidr", self.cluster_cidr.clone()),
            ("detectLocalMode", "--detect-local-mode", self.detect_local_mode.clone()),
            ("detectLocal.bridgeInterface", "--pod-bridge-interface", self.pod_bridge_interface.clone()),
            ("detectLocal.interfaceNamePrefix", "--pod-interface-name-prefix", self.pod_interface_name_prefix.clone()),
            ("nodePortAddresses", "--nodeport-addresses", self.nodeport_addresses.clone()),
            ("iptables.masqueradeAll", "--masquerade-all", self.masquerade_all.map(|v| v.to_string())),
            ("nftables.masqueradeAll", "--masquerade-all", self.masquerade_all.map(|v| v.to_string())),
            ("iptables.masqueradeBit", "--iptables-masquerade-bit", self.masquerade_bit.map(|v| v.to_string())),
            ("nftables.masqueradeBit", "--iptables-masquerade-bit", self.masquerade_bit.map(|v| v.to_string())),
            (
                "iptables.localhostNodePorts",
                "--iptables-localhost-nodeports",
                self.localhost_nodeports.map(|v| v.to_string()),
            ),
            ("version", "--kube-proxy-version", self.version.clone()),
        ];
        for (setting, flag, value) in said {
            if let Some(value) = value {
                words.set(setting, value, Source::Option { flag });
            }
        }
        words
    }
}

fn parse_mode(word: &str) -> ProxyMode {
    match word {
        "iptables" => ProxyMode::Iptables,
        "ipvs" => ProxyMode::Ipvs,
        "nftables" => ProxyMode::Nftables,
        other => ProxyMode::Other(other.to_owned()),
    }
}

fn parse_bool(word: &str) -> Result<bool, &'static str> {
    word.parse().map_err(|_| "neither true nor false")
}

fn parse_cluster_cidrs(word: &str, unused: &mut Vec<IpNet>) -> Result<ClusterCidrs, &'static str> {
    let mut cidrs = ClusterCidrs::default();
    for part in word.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let net = parse_net(part).ok_or("no network such as 10.0.0.0/8")?;
        let slot = match net {
            IpNet::V4(_) => &mut cidrs.v4,
            IpNet::V6(_) => &mut cidrs.v6,
        };
        if slot.is_some() {
            unused.push(net);
        } else {
            *slot = Some(net);
        }
    }
    Ok(cidrs)
}

fn parse_node_port_addresses(word: &str) -> Result<Vec<NodePortAddress>, &'static str> {
    let parts = word.trim_start_matches('[').trim_end_matches(']').split([',', ' ']).filter(|p| !p.is_empty());
    let address = |part: &str| match part {
        "primary" => Ok(NodePortAddress::Primary),
        net => parse_net(net).map(NodePortAddress::Net).ok_or("neither `primary` nor networks such as 10.0.0.0/8"),
    };
    parts.map(address).collect()
}
