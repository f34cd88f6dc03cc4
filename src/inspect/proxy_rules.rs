//! kube-proxy's rules on a node, in whichever of its modes they were written.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::iptables::{self, IptablesError, IptablesState};
use super::ipvs::{self, IpvsError, IpvsState};
use super::nftables::{self, NftablesError, NftablesState};
use crate::capture::{CaptureError, Captured, Item, Node, Variant};
use crate::error::Hinted;
use crate::model::{Difference, Family, Protocol, ServiceTable, diff, join_names};

/// The mode that rules are of, and for iptables mode the variant of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RulesMode {
    /// iptables mode, legacy iptables.
    IptablesLegacy,
    /// iptables mode, iptables over nf_tables.
    IptablesNft,
    /// nftables mode.
    Nftables,
    /// ipvs mode: virtual services, with rules and sets around them.
    Ipvs,
}

impl RulesMode {
    /// kube-proxy's word for the mode.
    pub const fn word(self) -> &'static str {
        match self {
            Self::IptablesLegacy | Self::IptablesNft => "iptables",
            Self::Nftables => "nftables",
            Self::Ipvs => "ipvs",
        }
    }

    /// The variant of iptables mode.
    pub const fn variant(self) -> Option<Variant> {
        match self {
            Self::IptablesLegacy => Some(Variant::Legacy),
            Self::IptablesNft => Some(Variant::Nft),
            Self::Nftables | Self::Ipvs => None,
        }
    }

    /// What kube-proxy in this mode makes of what the API asks for: in ipvs mode not all of it.
    pub fn made_of(self, asked: &ServiceTable) -> Cow<'_, ServiceTable> {
        match self {
            Self::IptablesLegacy | Self::IptablesNft | Self::Nftables => Cow::Borrowed(asked),
            Self::Ipvs => Cow::Owned(ipvs::as_ipvs(asked)),
        }
    }

    /// The addresses at which kube-proxy in this mode does not do what the API asks for.
    pub fn otherwise(self, asked: &ServiceTable) -> BTreeSet<(IpAddr, u16, Protocol)> {
        let differences = diff(asked, &self.made_of(asked));
        let address = |difference: &Difference| match difference {
            Difference::Frontend { side, .. } => Some((side.ip, side.port, side.protocol)),
            _ => None,
        };
        differences.iter().filter_map(address).collect()
    }

    /// What differs between what kube-proxy in this mode makes of what the API asks for, and the rules.
    pub fn differences(self, asked: &ServiceTable, rules: &ServiceTable) -> Vec<Difference> {
        let made = self.made_of(asked);
        // IPVS knows no names, and whose a port of health checks is the sets do not tell.
        if self == Self::Ipvs { diff(&made, &join_names(rules, &made)) } else { diff(&made, rules) }
    }
}

impl From<Variant> for RulesMode {
    fn from(variant: Variant) -> Self {
        match variant {
            Variant::Legacy => Self::IptablesLegacy,
            Variant::Nft => Self::IptablesNft,
        }
    }
}

impl fmt::Display for RulesMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.variant() {
            Some(variant) => write!(f, "{} ({variant})", self.word()),
            None => f.write_str(self.word()),
        }
    }
}

/// kube-proxy's rules of one mode.
#[derive(Clone, Debug)]
pub enum ProxyRules {
    /// Of iptables mode, in this variant.
    Iptables(Variant, Box<IptablesState>),
    /// Of nftables mode.
    Nftables(Box<NftablesState>),
    /// Of ipvs mode.
    Ipvs(Box<IpvsState>),
}

impl ProxyRules {
    /// The mode.
    pub fn mode(&self) -> RulesMode {
        match self {
            Self::Iptables(variant, _) => (*variant).into(),
            Self::Nftables(_) => RulesMode::Nftables,
            Self::Ipvs(_) => RulesMode::Ipvs,
        }
    }

    /// What they mean.
    pub fn table(&self) -> &ServiceTable {
        match self {
            Self::Iptables(_, state) => &state.table,
            Self::Nftables(state) => &state.table,
            Self::Ipvs(state) => &state.table,
        }
    }

    /// The same, without the rest.
    pub fn into_table(self) -> ServiceTable {
        match self {
            Self::Iptables(_, state) => state.table,
            Self::Nftables(state) => state.table,
            Self::Ipvs(state) => state.table,
        }
    }

    /// How many there are, by family; of ipvs mode each virtual service counts as one.
    pub fn counts(&self) -> BTreeMap<Family, usize> {
        let count = |family: Family| match self {
            Self::Iptables(_, state) => state.families[usize::from(family == Family::V6)].rules.values().sum(),
            Self::Nftables(state) => {
                let chains = state.ruleset.table(family).into_iter().flat_map(|table| table.chains.values());
                chains.map(|chain| chain.rules.len()).sum()
            }
            Self::Ipvs(state) => {
                let services = state.state.own().filter(|service| service.family() == family).count();
                services + state.state.rules[usize::from(family == Family::V6)].number
            }
        };
        Family::BOTH.map(|family| (family, count(family))).into()
    }

    /// Bits of the mark by which packets ask to be masqueraded, as far as no reader of rules in general sees them.
    pub fn masquerade_marks(&self) -> u32 {
        match self {
            Self::Iptables(..) | Self::Ipvs(_) => 0,
            Self::Nftables(state) => state.masquerade_marks.into_iter().flatten().fold(0, |all, bit| all | bit),
        }
    }
}

/// Why they could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// Raw state.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Of iptables mode.
    #[error(transparent)]
    Iptables(#[from] IptablesError),
    /// Of nftables mode.
    #[error(transparent)]
    Nftables(#[from] NftablesError),
    /// Of ipvs mode.
    #[error(transparent)]
    Ipvs(#[from] IpvsError),
}

impl Hinted for RulesError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Capture(source) => source.hints(),
            Self::Iptables(source) => source.hints(),
            Self::Nftables(source) => source.hints(),
            Self::Ipvs(source) => source.hints(),
        }
    }
}

/// What stands on a node.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The rules of each mode that has any; first those of the mode that a kube-proxy says it runs in.
    pub rules: Vec<ProxyRules>,
    /// What else tells of a mode, where no mode has rules.
    pub remarks: Vec<String>,
}

/// Reads the rules of every mode. More than one has some only where an earlier kube-proxy left them.
pub fn read_node(node: &Node) -> Result<Found, RulesError> {
    let mut found = Found::default();
    match iptables::read_node(node) {
        Ok(state) => match state.variant {
            Some(variant) => found.rules.push(ProxyRules::Iptables(variant, Box::new(state))),
            None => found.remarks.extend(state.blocking().map(ToString::to_string)),
        },
        Err(error @ IptablesError::NotCaptured { .. }) => found.remarks.push(error.to_string()),
        Err(error) => return Err(error.into()),
    }
    match nftables::read_node(node) {
        Ok(state) if state.ruleset.is_empty() => {}
        Ok(state) => found.rules.push(ProxyRules::Nftables(Box::new(state))),
        Err(NftablesError::NotCaptured { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    match ipvs::read_node(node) {
        Ok(state) if state.state.own().next().is_none() => {}
        Ok(state) => found.rules.push(ProxyRules::Ipvs(Box::new(state))),
        Err(IpvsError::NotCaptured { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    if let (2.., Captured::Present { bytes, .. }) = (found.rules.len(), node.read(Item::ProxyMode)?) {
        found.rules.sort_by_key(|rules| bytes.trim_ascii() != rules.mode().word().as_bytes());
    }
    Ok(found)
}
