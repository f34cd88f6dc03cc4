//! From a node: IPVS, sets, addresses and rules.

use ipnet::IpNet;

use super::addresses::Addresses;
use super::connections::{self, Connection};
use super::decode::{DecodeError, decode};
use super::lift::State;
use super::notice::Notice;
use super::rules;
use super::sets::KubeSets;
use crate::capture::{CaptureError, Captured, Item, Node, Variant};
use crate::error::Hinted;
use crate::inspect::{ipset, iptables};
use crate::model::{Family, ServiceTable};

/// IPVS on a node, and what it makes.
#[derive(Clone, Debug, Default)]
pub struct IpvsState {
    /// The ServiceTable that kube-proxy's part makes. No name of a Service is in it: IPVS knows none.
    pub table: ServiceTable,
    /// What the table does not tell.
    pub notices: Vec<Notice>,
    /// What was read.
    pub state: State,
    /// IPVS's own connections; empty where they were not captured.
    pub connections: Vec<Connection>,
}

impl IpvsState {
    /// The notices that tell of damage.
    pub fn damage(&self) -> impl Iterator<Item = &Notice> {
        self.notices.iter().filter(|n| n.is_damage())
    }
}

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
pub enum IpvsError {
    /// Something may be there, but could not be read.
    #[error("cannot read IPVS")]
    Capture(#[source] CaptureError),
    /// The messages do not hold together.
    #[error("cannot read IPVS from {place}")]
    Decode {
        /// Where they come from.
        place: String,
        /// What is wrong.
        source: DecodeError,
    },
    /// The sets are not what ipset prints.
    #[error("cannot parse {place}")]
    Sets {
        /// Where the text comes from.
        place: String,
        /// What is wrong.
        source: ipset::ParseError,
    },
    /// The addresses are not what ip prints.
    #[error("{place} is not the output of `ip -j addr`")]
    Addresses {
        /// Where the text comes from.
        place: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The rules are not what iptables-save prints.
    #[error("cannot parse {place}")]
    Rules {
        /// Where the text comes from.
        place: String,
        /// What is wrong.
        source: iptables::ParseError,
    },
    /// IPVS was not captured.
    #[error("IPVS was not captured: {reason}")]
    NotCaptured {
        /// Why.
        reason: String,
    },
}

impl Hinted for IpvsError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Capture(source) => source.hints(),
            Self::Decode { source: DecodeError::Netlink(source), .. } => source.hints(),
            Self::NotCaptured { .. } => vec!["record it on the node with: kpx snapshot node.tar.zst".to_owned()],
            _ => Vec::new(),
        }
    }
}

/// Reads IPVS of a node and lifts kube-proxy's part of it.
pub fn read_node(node: &Node) -> Result<IpvsState, IpvsError> {
    let mut notices = Vec::new();
    let mut state = State::default();
    match node.read(Item::Ipvs).map_err(IpvsError::Capture)? {
        Captured::Present { bytes, place } => {
            state.ipvs = decode(&bytes).map_err(|source| IpvsError::Decode { place, source })?;
        }
        Captured::Absent { reason } => return Err(IpvsError::NotCaptured { reason }),
    }
    match node.read(Item::Ipset).map_err(IpvsError::Capture)? {
        Captured::Present { bytes, place } => {
            state.sets = ipset::parse(&bytes).map_err(|source| IpvsError::Sets { place, source })?;
        }
        Captured::Absent { reason } => notices.push(Notice::NotCaptured { what: "IP sets", reason }),
    }
    match node.read(Item::Addresses).map_err(IpvsError::Capture)? {
        Captured::Present { bytes, place } => {
            let addresses = Addresses::parse(&bytes).map_err(|source| IpvsError::Addresses { place, source })?;
            state.addresses = Some(addresses);
        }
        Captured::Absent { reason } => notices.push(Notice::NotCaptured { what: "addresses of devices", reason }),
    }
    if let Captured::Present { bytes, .. } = node.read(Item::Configz).map_err(IpvsError::Capture)? {
        state.excluded = excluded(&bytes);
    }
    for (i, family) in Family::BOTH.into_iter().enumerate() {
        let sets = KubeSets::new(&state.sets, family);
        // Without virtual services there is nothing that rules could be missing for.
        let wanted = state.ipvs.services.iter().any(|s| s.address().is_some_and(|(ip, ..)| Family::of(ip) == family));
        if wanted && sets.exist() {
            state.rules[i] = read_rules(node, family, sets, &mut notices)?;
        }
    }
    let connections = match node.read(Item::IpvsConnections).map_err(IpvsError::Capture)? {
        Captured::Present { bytes, .. } => connections::parse(&bytes),
        Captured::Absent { .. } => Vec::new(),
    };
    let table = state.lift(&mut notices);
    Ok(IpvsState { table, notices, state, connections })
}

/// `ipvs.excludeCIDRs` in the answer of `/configz`.
fn excluded(configz: &[u8]) -> Option<Vec<IpNet>> {
    let document: serde_json::Value = serde_json::from_slice(configz).ok()?;
    let listed = document.pointer("/kubeproxy.config.k8s.io/ipvs")?;
    let nets = listed.get("excludeCIDRs")?.as_array().map(Vec::as_slice).unwrap_or_default();
    Some(nets.iter().filter_map(|net| net.as_str()?.parse().ok()).collect())
}

/// The rules of whichever backend holds those of IPVS mode.
fn read_rules(
    node: &Node,
    family: Family,
    sets: KubeSets<'_>,
    notices: &mut Vec<Notice>,
) -> Result<rules::Rules, IpvsError> {
    let mut why = None;
    for variant in [Variant::Nft, Variant::Legacy] {
        match node.read(Item::IptablesSave(family, variant)).map_err(IpvsError::Capture)? {
            Captured::Present { bytes, place } => {
                let dump = iptables::parse(&bytes).map_err(|source| IpvsError::Rules { place, source })?;
                if rules::are_there(&dump) {
                    return Ok(rules::read(family, &dump, sets, notices));
                }
            }
            Captured::Absent { reason } => why = Some(reason),
        }
    }
    let reason = why.unwrap_or_else(|| format!("neither backend holds any for {family}"));
    notices.push(Notice::NotCaptured { what: "iptables rules of IPVS mode", reason });
    Ok(rules::Rules::default())
}
