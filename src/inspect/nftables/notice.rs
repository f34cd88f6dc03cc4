//! What a reader of kube-proxy's nftables tables must be told besides the ServiceTable, and whether a migration may go on.

use std::fmt;

use super::name::NameError;
use super::ruleset::TABLE;
use super::text::word;
use crate::model::{Family, FrontendKey};

/// A chain, set, map or element of kube-proxy's tables, for messages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Family of the table.
    pub family: Family,
    /// `chain`, `set`, `map` or another kind.
    pub kind: &'static str,
    /// Name.
    pub name: Box<str>,
    /// Rule in a chain (position from 1, handle), or key of an element.
    pub part: Part,
}

/// What of a [`Place`] is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// All of it.
    Whole,
    /// One rule.
    Rule {
        /// Position, from 1.
        number: usize,
        /// The kernel's number, as `nft -a` shows it.
        handle: u64,
    },
    /// One element.
    Element(Box<str>),
}

impl Place {
    pub(super) fn chain(family: Family, name: &str) -> Self {
        Self { family, kind: "chain", name: name.into(), part: Part::Whole }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {TABLE} {} {}", word(self.family), self.kind, self.name)?;
        match &self.part {
            Part::Whole => Ok(()),
            Part::Rule { number, handle } => write!(f, " rule {number} (handle {handle})"),
            Part::Element(key) => write!(f, " {{ {key} }}"),
        }
    }
}

/// Something about the tables that the ServiceTable alone does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A rule that no known kube-proxy writes at this place.
    UnknownRule {
        /// Where it is.
        at: Place,
        /// The rule, as nft prints it.
        rule: String,
    },
    /// A chain, set, map, counter or the like that no known kube-proxy makes.
    UnknownObject {
        /// Family of the table.
        family: Family,
        /// Kind and name.
        object: String,
    },
    /// An element that no known kube-proxy puts there.
    UnknownElement {
        /// Where it is.
        at: Place,
    },
    /// A chain lacks a rule without which it does not do its work.
    IncompleteChain {
        /// The chain.
        chain: Place,
        /// The rule.
        missing: String,
    },
    /// The rules of a chain are in an order that kube-proxy does not give them.
    Misordered {
        /// The chain.
        chain: Place,
    },
    /// A chain, set or map that rules or elements need is not there.
    Missing {
        /// What is not there.
        what: Place,
    },
    /// The kernel calls the chain elsewhere, or at another time, than kube-proxy asks for; or lets what is left fall.
    UnusualHook {
        /// The chain.
        chain: Place,
        /// Hook and priority found.
        found: String,
        /// Hook and priority that kube-proxy gives.
        expected: String,
    },
    /// A chain of a Service port, or set of an endpoint, that no packet reaches.
    Stale {
        /// The chain or set.
        what: Place,
        /// Rules or elements in it.
        size: usize,
    },
    /// A name is not one that kube-proxy gives.
    BadName {
        /// The chain or set.
        at: Place,
        /// What is wrong with it.
        error: NameError,
    },
    /// The numbers drawn and the numbers that choose an endpoint do not match: some packets go on untranslated.
    OddBalance {
        /// The rule.
        at: Place,
    },
    /// Rules disagree on how pods are recognised.
    MixedDetectors {
        /// A rule that disagrees with those before it.
        at: Place,
    },
    /// An element refuses what has backends, or says another thing than the chains.
    Contradiction {
        /// The element.
        at: Place,
    },
    /// A frontend without a backend that no element refuses: packets go on untranslated.
    Unanswered {
        /// The frontend.
        key: FrontendKey,
        /// The chain that its packets go to.
        chain: Place,
    },
    /// Connections of the node itself are refused before the rules would send them to endpoints of other nodes, which is what
    /// kube-proxy means to do (Kubernetes before 1.35).
    NodeTrafficRefused {
        /// The frontend.
        key: FrontendKey,
    },
    /// A pod that connects to its own Service and is chosen itself is not masqueraded, and gets no answer.
    NoHairpin {
        /// Address, port and protocol of the endpoint.
        endpoint: String,
    },
}

impl Notice {
    /// Whether a migration must not start while this stands: the table may not be what packets meet.
    pub const fn blocks_migration(&self) -> bool {
        match self {
            Self::UnknownRule { .. }
            | Self::UnknownObject { .. }
            | Self::UnknownElement { .. }
            | Self::IncompleteChain { .. }
            | Self::Misordered { .. }
            | Self::Missing { .. }
            | Self::UnusualHook { .. }
            | Self::BadName { .. }
            | Self::OddBalance { .. }
            | Self::MixedDetectors { .. }
            | Self::Contradiction { .. }
            | Self::Unanswered { .. } => true,
            Self::Stale { .. } | Self::NodeTrafficRefused { .. } | Self::NoHairpin { .. } => false,
        }
    }

    /// A word for it, stable for scripts.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownRule { .. } => "unknown-rule",
            Self::UnknownObject { .. } => "unknown-object",
            Self::UnknownElement { .. } => "unknown-element",
            Self::IncompleteChain { .. } => "incomplete-chain",
            Self::Misordered { .. } => "misordered-chain",
            Self::Missing { .. } => "missing-object",
            Self::UnusualHook { .. } => "unusual-hook",
            Self::Stale { .. } => "stale-chain",
            Self::BadName { .. } => "bad-name",
            Self::OddBalance { .. } => "odd-balance",
            Self::MixedDetectors { .. } => "mixed-detectors",
            Self::Contradiction { .. } => "contradiction",
            Self::Unanswered { .. } => "unanswered",
            Self::NodeTrafficRefused { .. } => "node-traffic-refused",
            Self::NoHairpin { .. } => "no-hairpin",
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRule { at, rule } => write!(f, "{at}: no known kube-proxy writes this rule: {rule}"),
            Self::UnknownObject { family, object } => {
                write!(f, "{} {TABLE}: no known kube-proxy makes {object}", word(*family))
            }
            Self::UnknownElement { at } => write!(f, "{at}: no known kube-proxy writes this element"),
            Self::IncompleteChain { chain, missing } => write!(f, "{chain}: {missing} is missing"),
            Self::Misordered { chain } => write!(f, "{chain}: the rules are not in kube-proxy's order"),
            Self::Missing { what } => write!(f, "{what} is missing"),
            Self::UnusualHook { chain, found, expected } => write!(f, "{chain}: called at {found}, not at {expected}"),
            Self::Stale { what, size } => write!(f, "{what}: left over, no packet reaches it ({size} inside)"),
            Self::BadName { at, error } => write!(f, "{at}: {error}"),
            Self::OddBalance { at } => write!(f, "{at}: some of the numbers drawn choose no endpoint"),
            Self::MixedDetectors { at } => write!(f, "{at}: recognises pods in another way than the rules before it"),
            Self::Contradiction { at } => {
                write!(f, "{at}: refuses what the chains answer, or otherwise than they mean")
            }
            Self::Unanswered { key, chain } => {
                write!(f, "{chain}: no backend for {key}, and nothing refuses: packets go on untranslated")
            }
            Self::NodeTrafficRefused { key } => {
                write!(f, "{key}: connections of the node itself are dropped before they are translated")
            }
            Self::NoHairpin { endpoint } => {
                write!(f, "{endpoint} gets no answer when it connects to itself through its Service")
            }
        }
    }
}
