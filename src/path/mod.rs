//! The way of a new packet through each dataplane of a node: which rules, sets and maps decide about it, and what may come of it.
//!
//! A dataplane that draws lots sends the packet on several ways, each with its probability. Rules are walked as the kernel walks
//! them, one after the other, and IPVS among them; kpx's maps are asked by the lookup that the kernel runs; Cilium's maps and the
//! API's objects by the table that they lift into.

mod around;
mod cilium;
mod ebpf;
mod iptables;
mod ipvs;
mod nftables;
mod sets;
mod table;
mod trail;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

pub use around::Around;
pub use cilium::walk as through_cilium;
pub use ebpf::walk as through_maps;
pub use iptables::walk as through_iptables;
pub use ipvs::walk as through_ipvs;
pub use nftables::{walk as through_nftables, walk_others as through_others};
pub use table::walk as through_table;

use crate::model::{Detector, Family, Protocol, ServiceTable, TrafficSource};

/// The packet asked about: the first of a connection, or of a flow of datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub origin: TrafficSource,
    /// Its source address; `None` where nobody said, and for a socket that has none yet.
    pub source: Option<IpAddr>,
    /// Where it is sent to.
    pub destination: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// The interface it comes in by; `None` where nobody said, and for the node's own.
    pub interface: Option<String>,
}

impl Packet {
    /// IPv4 or IPv6.
    pub const fn family(&self) -> Family {
        Family::of(self.destination.ip())
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} from ", self.destination, self.protocol)?;
        match (self.origin, self.source) {
            (TrafficSource::Node, None) => f.write_str("the node itself"),
            (TrafficSource::Node, Some(ip)) => write!(f, "the node itself ({ip})"),
            (TrafficSource::Pod, Some(ip)) => write!(f, "pod {ip}"),
            (TrafficSource::Pod, None) => f.write_str("a pod"),
            (TrafficSource::Outside, Some(ip)) => write!(f, "{ip} outside"),
            (TrafficSource::Outside, None) => f.write_str("outside"),
        }?;
        self.interface.iter().try_for_each(|name| write!(f, " by {name}"))
    }
}

/// Where a packet with this source comes from, as a node sees it that recognises pods so; `None` where its interface would
/// have to be known.
pub fn origin_of(
    source: IpAddr,
    interface: Option<&str>,
    local: &BTreeSet<IpAddr>,
    table: &ServiceTable,
) -> Option<TrafficSource> {
    if source.is_loopback() || local.contains(&source) {
        return Some(TrafficSource::Node);
    }
    let pod = match &table.facts(Family::of(source)).detector {
        Detector::None | Detector::Unknown => false,
        Detector::Cidr(net) => net.contains(&source),
        Detector::Interface(name) => interface? == name,
        Detector::InterfacePrefix(prefix) => interface?.starts_with(prefix.as_str()),
    };
    Some(if pod { TrafficSource::Pod } else { TrafficSource::Outside })
}

/// A rule, an element or an entry that had a say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Where in the kernel: a hook such as `prerouting`, or a program.
    pub hook: &'static str,
    /// Table, chain and rule number from 1; or map and key.
    pub at: String,
    /// What follows.
    pub does: String,
    /// The rule or the value, as its tool prints it.
    pub text: String,
}

/// What a step says that gives a packet the node's address.
const MASQUERADES: &str = "source becomes the node's";

impl Step {
    /// Whether the packet gets the node's address for its source here.
    pub fn masquerades(&self) -> bool {
        self.does == MASQUERADES
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// It has a new destination.
    Backend {
        /// The destination.
        to: SocketAddr,
        /// Whether it has the node's address as its source: where it had another one, that was replaced.
        nodes_source: bool,
    },
    /// It goes where it was sent to.
    Untouched,
    /// It is refused, in a form that the client sees.
    Refused,
    /// It is dropped.
    Dropped,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend { to, .. } => to.fmt(f),
            Self::Untouched => f.write_str("untouched"),
            Self::Refused => f.write_str("refused"),
            Self::Dropped => f.write_str("dropped"),
        }
    }
}

/// One way that a packet may take.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// How likely it is, from 0 to 1.
    pub probability: f64,
    /// What decides, in order.
    pub steps: Vec<Step>,
    /// With how many rules, or entries of maps, the packet is compared.
    pub compared: usize,
    /// Where it ends.
    pub end: End,
}

/// The ways of a packet through one dataplane.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Path {
    /// The ways, in the order of the rules; their probabilities sum to 1.
    pub ways: Vec<Way>,
    /// What was taken for granted on the way.
    pub notes: BTreeSet<String>,
}

/// Probabilities that differ by less are the same: iptables keeps them with 31 bits.
const SAME: f64 = 1e-6;

impl Path {
    /// What may come of the packet, each with its probability.
    pub fn ends(&self) -> BTreeMap<End, f64> {
        let mut ends = BTreeMap::new();
        for way in &self.ways {
            *ends.entry(way.end).or_insert(0.0) += way.probability;
        }
        ends
    }

    /// Whether both treat the packet alike.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let (a, b) = (self.ends(), other.ends());
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < SAME)
    }

    /// How many steps all ways have in common, at their beginning and at their end.
    pub fn shared(&self) -> (usize, usize) {
        let Some((first, rest)) = self.ways.split_first() else { return (0, 0) };
        if rest.is_empty() {
            return (first.steps.len(), 0);
        }
        let least = self.ways.iter().map(|way| way.steps.len()).min().unwrap_or(0);
        let same = |at: &dyn Fn(&Way) -> usize| rest.iter().all(|way| way.steps[at(way)] == first.steps[at(first)]);
        let start = (0..least).take_while(|&i| same(&|_| i)).count();
        let end = (1..=least - start).take_while(|&i| same(&|way| way.steps.len() - i)).count();
        (start, end)
    }
}
