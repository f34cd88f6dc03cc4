//! The table itself: frontends in order, and the facts of the node that give them their meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Family, Frontend, FrontendKey, Protocol, ServiceName};

/// How the node recognises traffic of pods (kube-proxy's detectLocalMode), for one family.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detector {
    /// The source does not say.
    #[default]
    Unknown,
    /// Not at all: pods count as outside.
    None,
    /// By source address.
    Cidr(IpNet),
    /// By input interface.
    Interface(String),
    /// By prefix of the input interface's name.
    InterfacePrefix(String),
}

impl fmt::Display for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::None => f.write_str("none"),
            Self::Cidr(net) => write!(f, "source {net}"),
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::InterfacePrefix(prefix) => write!(f, "interface {prefix}*"),
        }
    }
}

/// On which addresses of the node NodePorts are served, for one family.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodePortScope {
    /// The source does not say.
    #[default]
    Unknown,
    /// On every local address; `loopback` tells whether 127.0.0.0/8 (or ::1) too.
    All {
        /// Whether NodePorts answer on the loopback address.
        loopback: bool,
    },
    /// On these addresses.
    Addresses(BTreeSet<IpAddr>),
}

impl fmt::Display for NodePortScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::All { loopback: true } => f.write_str("every address, loopback too"),
            Self::All { loopback: false } => f.write_str("every address but loopback"),
            Self::Addresses(list) => {
                let list: Vec<_> = list.iter().map(IpAddr::to_string).collect();
                f.write_str(&list.join(", "))
            }
        }
    }
}

/// Facts of one node and family that the frontends' meaning depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// How pods are recognised.
    pub detector: Detector,
    /// Where NodePorts are served.
    pub node_ports: NodePortScope,
}

/// Frontends that claim one address, port and protocol: the packet can follow only one of them.
#[derive(Clone, Debug)]
pub struct Conflict<'a> {
    /// The frontends, in the order of the table.
    pub frontends: Vec<&'a Frontend>,
}

impl fmt::Display for Conflict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, frontend) in self.frontends.iter().enumerate() {
            let lead = if i == 0 { format!("{}: ", frontend.key) } else { ", ".to_owned() };
            write!(f, "{lead}{} ({})", frontend.display_name(), frontend.key.exposure)?;
        }
        Ok(())
    }
}

/// What a node does with the packets of Services.
#[derive(Clone, Debug, Default)]
pub struct ServiceTable {
    frontends: Vec<Frontend>,
    /// Facts for IPv4.
    pub v4: NodeFacts,
    /// Facts for IPv6.
    pub v6: NodeFacts,
    /// `healthCheckNodePort`s and the Services they answer for; `None` where the source cannot know.
    pub health_checks: Option<BTreeMap<u16, BTreeSet<ServiceName>>>,
}

impl ServiceTable {
    /// A table of these frontends, sorted by key, then by Service.
    pub fn new(mut frontends: Vec<Frontend>, v4: NodeFacts, v6: NodeFacts) -> Self {
        frontends.sort_by(|a, b| a.key.cmp(&b.key).then_with(|| a.service.cmp(&b.service)));
        Self { frontends, v4, v6, health_checks: None }
    }

    /// The frontends, sorted by key, then by Service. Keys may repeat: see [`Self::conflicts`].
    pub fn frontends(&self) -> &[Frontend] {
        &self.frontends
    }

    /// The facts of one family.
    pub const fn facts(&self, family: Family) -> &NodeFacts {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The frontends with this key.
    pub fn get(&self, key: &FrontendKey) -> &[Frontend] {
        let start = self.frontends.partition_point(|f| f.key < *key);
        let end = start + self.frontends[start..].partition_point(|f| f.key == *key);
        &self.frontends[start..end]
    }

    /// The frontends with this address, port and protocol, however exposed.
    pub fn at(&self, address: (IpAddr, u16, Protocol)) -> &[Frontend] {
        let start = self.frontends.partition_point(|f| f.key.address() < address);
        let end = start + self.frontends[start..].partition_point(|f| f.key.address() == address);
        &self.frontends[start..end]
    }

    /// Groups of frontends of different Service ports, or of different exposures, on one address, port and protocol.
    pub fn conflicts(&self) -> Vec<Conflict<'_>> {
        self.frontends
            .chunk_by(|a, b| a.key.address() == b.key.address())
            .filter(|group| group.windows(2).any(|w| w[0].service != w[1].service || w[0].key != w[1].key))
            .map(|group| Conflict { frontends: group.iter().collect() })
            .collect()
    }

    /// The part of the table that `keep` selects, with the same facts.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(&Frontend) -> bool) -> Self {
        Self {
            frontends: self.frontends.iter().filter(|f| keep(f)).cloned().collect(),
            v4: self.v4.clone(),
            v6: self.v6.clone(),
            health_checks: self.health_checks.clone(),
        }
    }
}
