//! Settings from the words of each source, and which source is believed.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::config::{
    ClusterCidrs, ConfigError, ConfigSources, Conntrack, DetectLocal, NodePortAddress, ProxyConfig, ProxyMode, Setting,
    Source,
};
use super::document::Document;
use super::notice::Notice;
use super::text::{GoDuration, parse_ip, parse_net};
use super::{flags, metrics};
use crate::model::Family;

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
    ("version", "version"),
];

impl ProxyConfig {
    /// Reads the configuration: what kube-proxy answers goes before its log, that before its ConfigMap, that before what the operator says.
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
        let given = given(sources.flags)?;
        for (flag, value) in sources.flags {
            // One flag stands for a setting of iptables mode and its twin of nftables mode: enough if one has the value.
            let twins = SETTINGS.iter().filter(|(_, name)| name == flag);
            let said: Vec<_> = twins.filter_map(|(setting, _)| Some((*setting, words.known.get(setting)?))).collect();
            if let Some((setting, (_, source))) = said.first()
                && said.iter().all(|(_, (used, _))| used != value)
            {
                notices.push(Notice::FlagOverruled { setting, source: source.clone() });
            }
        }
        words.fill_from(given);
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

/// What the operator says.
fn given(flags: &[(String, String)]) -> Result<Words, ConfigError> {
    let mut words = Words::default();
    for (flag, value) in flags {
        let source = || Source::Given { flag: flag.clone() };
        let mut known = false;
        for (setting, _) in SETTINGS.iter().filter(|(_, name)| name == flag) {
            words.set(setting, value.clone(), source());
            known = true;
        }
        if flag == "feature-gates" {
            words.gates = Some((flags::gates(value), source()));
        } else if !known {
            return Err(ConfigError::UnknownFlag { flag: flag.clone() });
        }
    }
    Ok(words)
}

/// Flags of which kpx knows the meaning.
pub(super) fn known_flags() -> Vec<&'static str> {
    let mut flags: Vec<_> = SETTINGS.iter().map(|(_, flag)| *flag).chain(["feature-gates"]).collect();
    flags.sort_unstable();
    flags.dedup();
    flags
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
