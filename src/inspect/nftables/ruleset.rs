//! The tables of kube-proxy's nftables mode, typed: the words its rules are made of, and everything else verbatim.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Family, Protocol};

/// Name of kube-proxy's table in either family.
pub const TABLE: &str = "kube-proxy";

/// kube-proxy's tables of one node. The other tables of nftables are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Table `ip kube-proxy`.
    pub v4: Option<Table>,
    /// Table `ip6 kube-proxy`.
    pub v6: Option<Table>,
}

impl Ruleset {
    /// The table of one family.
    pub const fn table(&self, family: Family) -> Option<&Table> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    /// Where the table of one family goes.
    pub(super) const fn slot(&mut self, family: Family) -> &mut Option<Table> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// Whether there is neither table.
    pub const fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Chains by name.
    pub chains: BTreeMap<Box<str>, Chain>,
    /// Sets and verdict maps by name, the anonymous ones left out: those are part of their rules.
    pub sets: BTreeMap<Box<str>, Set>,
    /// Objects of other kinds, such as `counter x`: kube-proxy makes none.
    pub others: Vec<String>,
}

/// One chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel calls it; `None` for a chain that only rules and verdict maps reach.
    pub hook: Option<Hook>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// Where and when the kernel calls a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `filter`, `nat` or `route`.
    pub kind: Box<str>,
    /// `prerouting`, `input`, `forward`, `output` or `postrouting`.
    pub hook: Box<str>,
    /// Priority: lower comes first.
    pub priority: i32,
    /// Whether the policy is accept.
    pub accepts: bool,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The kernel's number for it, as `nft -a` shows and `nft delete rule` takes.
    pub handle: u64,
    /// Comment.
    pub comment: Option<Box<str>>,
    /// Matches and what follows from them, in order.
    pub statements: Vec<Statement>,
}

/// One match or action of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// A condition.
    Match(Match),
    /// Bits set in the packet's mark: `meta mark set meta mark | bits`.
    MarkOr(u32),
    /// Bits flipped in the packet's mark: `meta mark set meta mark ^ bits`.
    MarkXor(u32),
    /// A verdict looked up by destination address, protocol and port.
    ServiceMap(Box<str>),
    /// A verdict looked up by protocol and destination port.
    NodePortMap(Box<str>),
    /// A verdict drawn at random.
    Spread(Balance<Verdict>),
    /// A new destination drawn at random.
    DnatSpread(Balance<(IpAddr, u16)>),
    /// A new destination.
    Dnat(IpAddr, u16),
    /// A new destination in a form that kube-proxy's rules do not have, as it was read.
    Elsewhere(Box<str>),
    /// The source address put into a set, or its time-out started anew.
    Remember(Box<str>),
    /// The source address replaced by that of the outgoing interface.
    Masquerade {
        /// Whether the source port is random.
        fully_random: bool,
    },
    /// Refused with ICMP port unreachable.
    Reject,
    /// A fixed verdict.
    Verdict(Verdict),
    /// Anything else, as it was read.
    Other(Box<str>),
}

/// A condition on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// An address is, or is not, among some.
    Address {
        /// Which of the packet's addresses.
        side: Side,
        /// Whether the condition holds for the addresses that are not among them.
        not: bool,
        /// The addresses.
        among: Addresses,
    },
    /// An address is one of the node's own (`fib … type local`).
    Local(Side),
    /// The transport protocol.
    Protocol(Protocol),
    /// Protocol and destination port.
    Port(Protocol, u16),
    /// The input interface is, or is not, this one.
    Interface {
        /// Whether the condition holds for all other interfaces.
        not: bool,
        /// Whether the rule holds the interface's index (`iif`) instead of its name (`iifname`).
        by_index: bool,
        /// Name; a trailing `*` stands for any rest.
        name: Box<str>,
    },
    /// Some of these bits of the mark are set, or none is.
    Marked {
        /// The bits.
        bits: u32,
        /// Whether the condition is that some are set.
        set: bool,
    },
    /// First packet of a connection (`ct state new`).
    New,
    /// The connection's destination was replaced (`ct status dnat`).
    Translated,
    /// Source address, destination address, protocol and destination port are in this set.
    Hairpin(Box<str>),
}

/// One of a packet's two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Source.
    Source,
    /// Destination.
    Destination,
}

/// Addresses of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Those in a named set.
    Set(Box<str>),
    /// These.
    Nets(Vec<IpNet>),
}

/// A random choice: a number below `modulus`, then what the map has for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance<T> {
    /// Numbers are drawn from 0 to this, exclusive.
    pub modulus: u32,
    /// What each number stands for. A number without an entry chooses nothing, and the packet goes on.
    pub choices: Vec<(u32, T)>,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ends this table's hook well.
    Accept,
    /// Ends the packet.
    Drop,
    /// Goes on with the next rule.
    Continue,
    /// Goes back to the calling chain.
    Return,
    /// Calls a chain.
    Jump(Box<str>),
    /// Goes to a chain and does not come back.
    Goto(Box<str>),
}

/// A set, or a verdict map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Whether it is a map from keys to verdicts.
    pub is_map: bool,
    /// Time after which an element goes, seconds.
    pub timeout: Option<u64>,
    /// The elements, sorted by key: the kernel's own order means nothing.
    pub elements: Vec<Element>,
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Key.
    pub key: Key,
    /// Verdict, in a verdict map.
    pub verdict: Option<Verdict>,
    /// Comment.
    pub comment: Option<Box<str>>,
    /// Time until it goes, seconds.
    pub expires: Option<u64>,
}

/// Key of an element: the shapes kube-proxy's sets have, and everything else verbatim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An address.
    Address(IpAddr),
    /// Address, protocol, port.
    Service(IpAddr, Protocol, u16),
    /// Protocol, port.
    NodePort(Protocol, u16),
    /// Source address, destination address, protocol, port.
    Hairpin(IpAddr, IpAddr, Protocol, u16),
    /// Anything else, as it was read.
    Other(Box<str>),
}
