//! What a reader of kube-proxy's rules must be told besides the table, and whether a migration may go on in spite of it.

use std::fmt;

use crate::capture::Variant;
use crate::model::{Family, FrontendKey, Origin};

/// A chain, for messages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Family of the table.
    pub family: Family,
    /// Table.
    pub table: Box<str>,
    /// Chain.
    pub chain: Box<str>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.chain)
    }
}

/// Something about the rules that the table alone does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A rule in one of kube-proxy's chains that no known kube-proxy writes there.
    UnknownRule {
        /// Where it is.
        at: Origin,
        /// The rule, as saved.
        rule: String,
    },
    /// One of kube-proxy's chains lacks a rule without which it does not do its work.
    IncompleteChain {
        /// The chain.
        chain: Place,
        /// The rule, in words.
        missing: &'static str,
    },
    /// A rule jumps to a chain that the text does not declare.
    MissingChain {
        /// The rule.
        at: Origin,
        /// The chain.
        chain: String,
    },
    /// A built-in chain does not send packets to kube-proxy's chain: its rules have no effect there.
    MissingJump {
        /// The built-in chain.
        from: Place,
        /// kube-proxy's chain.
        to: &'static str,
    },
    /// One of kube-proxy's chains that no packet reaches any more.
    StaleChain {
        /// The chain.
        chain: Place,
    },
    /// The chain's name does not hold the hash of the Service port (or endpoint) that its rules name.
    HashMismatch {
        /// The rule that names the Service and jumps to the chain.
        at: Origin,
        /// The chain.
        chain: String,
        /// What the hash should stand for.
        of: String,
    },
    /// The probabilities of a balancing chain are not those of any small whole weights.
    OddProbabilities {
        /// The chain.
        chain: Place,
    },
    /// Several frontends have one address, port and protocol; packets follow the first rule.
    Conflict {
        /// The frontend whose rule comes first.
        first: Origin,
        /// Address, port, protocol.
        key: FrontendKey,
        /// The frontends that never see a packet.
        shadowed: Vec<Origin>,
        /// Whether a ClusterIP is among those.
        hides_cluster_ip: bool,
    },
    /// Rules disagree on how pods are recognised.
    MixedDetectors {
        /// A rule that disagrees with those before it.
        at: Origin,
    },
    /// A filter rule refuses a frontend that has backends, or drops where the rules before it say reject.
    Contradiction {
        /// The filter rule.
        at: Origin,
        /// The rule, as saved.
        rule: String,
    },
    /// A frontend without a backend that no filter rule refuses: its packets go on untranslated.
    Unrefused {
        /// The rule that sends its packets on.
        at: Origin,
        /// `namespace/name:port` of the Service.
        service: String,
    },
    /// A frontend that has backends elsewhere is refused to clients outside, as it should be, but no rule of the nat table sends pods
    /// and the node itself there.
    Undispatched {
        /// The filter rule that refuses.
        at: Origin,
        /// `namespace/name:port` of the Service.
        service: String,
    },
    /// A rule of somebody else jumps to one of kube-proxy's chains: it breaks when that chain goes.
    ForeignReference {
        /// The rule.
        at: Origin,
        /// The rule, as saved.
        rule: String,
        /// kube-proxy's chain.
        target: String,
    },
    /// A rule of somebody else is about a ClusterIP, such as those of NodeLocal DNS: who serves it cannot be told from
    /// kube-proxy's rules alone, and hooks at sockets would go past that rule.
    ForeignService {
        /// The rule.
        at: Origin,
        /// The rule, as saved.
        rule: String,
        /// `namespace/name:port` of the Service.
        service: String,
    },
    /// `KUBE-MARK-DROP` marks nothing, or nothing drops what it marks: refused traffic goes on unanswered by the rules.
    InertDropMark {
        /// Family of the tables.
        family: Family,
    },
    /// `KUBE-PROXY-CANARY` is not in the mangle table: a flush would go unnoticed, or kube-proxy never finished its start.
    MissingCanary {
        /// Family of the tables.
        family: Family,
    },
    /// The rules are those of kube-proxy in ipvs mode.
    IpvsMode {
        /// Family of the tables.
        family: Family,
    },
    /// Chains of the userspace mode, which Kubernetes 1.26 removed.
    UserspaceMode {
        /// The first such chain.
        chain: Place,
    },
    /// iptables-nft left a table out because it holds what only nft can show.
    Incompatible {
        /// Family of the table.
        family: Family,
        /// Backend.
        variant: Variant,
        /// The table.
        table: String,
    },
    /// The table is in the text twice; the last was read.
    RepeatedTable {
        /// Family of the table.
        family: Family,
        /// The table.
        table: String,
    },
    /// The other iptables backend holds rules of kube-proxy too: they act on every packet, frozen.
    StaleBackend {
        /// The other backend.
        variant: Variant,
        /// Family of its tables.
        family: Family,
        /// kube-proxy's chains in it.
        chains: usize,
        /// Rules in those chains.
        rules: usize,
        /// Frontends in it.
        frontends: usize,
    },
    /// kube-proxy runs in another mode: these rules are left over from before.
    OtherMode {
        /// What its `/proxyMode` says.
        mode: String,
    },
    /// The rules of one backend and family could not be captured.
    NotCaptured {
        /// Backend.
        variant: Variant,
        /// Family.
        family: Family,
        /// Why.
        reason: String,
    },
}

impl Notice {
    /// Whether a migration must not start while this stands: the table may not be what packets meet.
    pub const fn blocks_migration(&self) -> bool {
        match self {
            Self::UnknownRule { .. }
            | Self::IncompleteChain { .. }
            | Self::MissingChain { .. }
            | Self::MissingJump { .. }
            | Self::HashMismatch { .. }
            | Self::OddProbabilities { .. }
            | Self::MixedDetectors { .. }
            | Self::Contradiction { .. }
            | Self::Unrefused { .. }
            | Self::Undispatched { .. }
            | Self::IpvsMode { .. }
            | Self::UserspaceMode { .. }
            | Self::Incompatible { .. }
            | Self::RepeatedTable { .. }
            | Self::ForeignService { .. }
            | Self::StaleBackend { .. }
            | Self::OtherMode { .. } => true,
            // The socket hooks serve ClusterIPs: one that never sees a packet today would start to.
            Self::Conflict { hides_cluster_ip, .. } => *hides_cluster_ip,
            Self::StaleChain { .. }
            | Self::ForeignReference { .. }
            | Self::InertDropMark { .. }
            | Self::MissingCanary { .. }
            | Self::NotCaptured { .. } => false,
        }
    }

    /// The rule it is about, if it is about one.
    pub const fn origin(&self) -> Option<&Origin> {
        match self {
            Self::UnknownRule { at, .. }
            | Self::MissingChain { at, .. }
            | Self::HashMismatch { at, .. }
            | Self::MixedDetectors { at }
            | Self::Contradiction { at, .. }
            | Self::ForeignReference { at, .. }
            | Self::ForeignService { at, .. }
            | Self::Unrefused { at, .. }
            | Self::Undispatched { at, .. }
            | Self::Conflict { first: at, .. } => Some(at),
            _ => None,
        }
    }

    /// A word for it, stable for scripts.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownRule { .. } => "unknown-rule",
            Self::IncompleteChain { .. } => "incomplete-chain",
            Self::MissingChain { .. } => "missing-chain",
            Self::MissingJump { .. } => "missing-jump",
            Self::StaleChain { .. } => "stale-chain",
            Self::HashMismatch { .. } => "hash-mismatch",
            Self::OddProbabilities { .. } => "odd-probabilities",
            Self::Conflict { .. } => "conflict",
            Self::MixedDetectors { .. } => "mixed-detectors",
            Self::Contradiction { .. } => "contradiction",
            Self::Unrefused { .. } => "unrefused",
            Self::Undispatched { .. } => "undispatched",
            Self::ForeignReference { .. } => "foreign-reference",
            Self::ForeignService { .. } => "foreign-service",
            Self::InertDropMark { .. } => "inert-drop-mark",
            Self::MissingCanary { .. } => "missing-canary",
            Self::IpvsMode { .. } => "ipvs-mode",
            Self::UserspaceMode { .. } => "userspace-mode",
            Self::Incompatible { .. } => "incompatible-table",
            Self::RepeatedTable { .. } => "repeated-table",
            Self::StaleBackend { .. } => "stale-backend",
            Self::OtherMode { .. } => "other-mode",
            Self::NotCaptured { .. } => "not-captured",
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRule { at, rule } => write!(f, "{at}: no known kube-proxy writes this rule: {rule}"),
            Self::IncompleteChain { chain, missing } => write!(f, "{chain}: {missing} is missing"),
            Self::MissingChain { at, chain } => write!(f, "{at}: jumps to {chain}, which does not exist"),
            Self::MissingJump { from, to } => write!(f, "{from}: no jump to {to}, whose rules have no effect there"),
            Self::StaleChain { chain } => write!(f, "{chain}: left over, no packet reaches it"),
            Self::HashMismatch { at, chain, of } => write!(f, "{at}: {chain} is not the chain of {of}"),
            Self::OddProbabilities { chain } => {
                write!(f, "{chain}: the probabilities are not those of whole weights")
            }
            Self::Conflict { first, key, shadowed, .. } => {
                write!(f, "{key}: packets follow {first}; ")?;
                for (i, origin) in shadowed.iter().enumerate() {
                    write!(f, "{}{origin}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str(" never sees one")
            }
            Self::MixedDetectors { at } => write!(f, "{at}: recognises pods in another way than the rules before it"),
            Self::Contradiction { at, rule } => {
                write!(f, "{at}: refuses what the nat table has backends for: {rule}")
            }
            Self::Unrefused { at, service } => {
                write!(f, "{at}: {service} has no backend here, and no filter rule refuses what is sent to it")
            }
            Self::Undispatched { at, service } => {
                write!(f, "{at}: {service} has backends elsewhere, and no rule sends pods and the node there")
            }
            Self::ForeignReference { at, rule, target } => {
                write!(f, "{at}: not of kube-proxy, but depends on its chain {target}: {rule}")
            }
            Self::ForeignService { at, rule, service } => {
                write!(f, "{at}: not of kube-proxy, but about the ClusterIP of {service}: {rule}")
            }
            Self::InertDropMark { family } => {
                write!(f, "{family}: KUBE-MARK-DROP is used, but nothing drops what it marks")
            }
            Self::MissingCanary { family } => write!(f, "{family}: no KUBE-PROXY-CANARY in the mangle table"),
            Self::IpvsMode { family } => write!(f, "{family}: the rules are those of kube-proxy in ipvs mode"),
            Self::UserspaceMode { chain } => write!(f, "{chain}: belongs to kube-proxy's old userspace mode"),
            Self::Incompatible { family, variant, table } => {
                write!(f, "{family} {table}: iptables-{variant} cannot show this table (it holds native nft rules)")
            }
            Self::RepeatedTable { family, table } => write!(f, "{family} {table}: saved twice; the last one was read"),
            Self::StaleBackend { variant, family, chains, rules, frontends } => {
                write!(
                    f,
                    "{family}: iptables-{variant} holds rules of kube-proxy too, frozen and active: {chains} chains, {rules} \
                     rules, {frontends} frontends"
                )
            }
            Self::OtherMode { mode } => {
                write!(f, "kube-proxy runs in {mode} mode; its iptables rules are left over, and active")
            }
            Self::NotCaptured { variant, family, reason } => {
                write!(f, "{family}: the rules of iptables-{variant} were not captured: {reason}")
            }
        }
    }
}
