//! From a node: both backends and both families, which of them is kube-proxy's, and what the other one holds.

use super::dump::{Dump, Remark};
use super::lift::{FamilySummary, Lifted, lift};
use super::notice::Notice;
use super::parse::{ParseError, parse};
use crate::capture::{CaptureError, Captured, Item, Node, Variant};
use crate::error::Hinted;
use crate::model::{Family, ServiceTable};

/// kube-proxy's rules on a node.
#[derive(Clone, Debug, Default)]
pub struct IptablesState {
    /// The table that the rules make.
    pub table: ServiceTable,
    /// The backend that holds them; `None` if neither does.
    pub variant: Option<Variant>,
    /// What the table does not tell.
    pub notices: Vec<Notice>,
    /// IPv4's and IPv6's share, in this order.
    pub families: [FamilySummary; 2],
    /// What kube-proxy has in the other backend, IPv4 and IPv6.
    pub other: [FamilySummary; 2],
}

impl IptablesState {
    /// The notices that stand in the way of a migration.
    pub fn blocking(&self) -> impl Iterator<Item = &Notice> {
        self.notices.iter().filter(|n| n.blocks_migration())
    }
}

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
pub enum IptablesError {
    /// The rules may be there, but could not be read.
    #[error("cannot read the iptables rules")]
    Capture(#[source] CaptureError),
    /// A text is not one of iptables-save.
    #[error("cannot parse {place}")]
    Parse {
        /// Where the text comes from.
        place: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// No rules of any backend or family were captured.
    #[error("no iptables rules were captured: {reason}")]
    NotCaptured {
        /// Why.
        reason: String,
    },
}

impl Hinted for IptablesError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Capture(source) => source.hints(),
            Self::Parse { place, .. } => {
                vec![format!("compare {place} with what iptables-save -c prints on the node")]
            }
            Self::NotCaptured { .. } => {
                vec!["install iptables on the node (apt-get install iptables), and record it again".to_owned()]
            }
        }
    }
}

/// The texts of one backend.
#[derive(Debug)]
struct Texts {
    variant: Variant,
    of: [Option<(Vec<u8>, String)>; 2],
}

/// The rules of a node as iptables-save printed them, of both backends and families.
#[derive(Debug)]
pub struct Saved {
    texts: Vec<Texts>,
    not_captured: Vec<Notice>,
    /// What kube-proxy's `/proxyMode` says.
    mode: Option<String>,
}

/// One backend's rules, parsed and lifted.
#[derive(Debug)]
pub struct Backend<'t> {
    /// Which backend.
    pub variant: Variant,
    /// The rules of IPv4 and of IPv6, as far as they were captured.
    pub dumps: [Option<Dump<'t>>; 2],
    /// Where the two texts come from.
    pub places: [&'t str; 2],
    /// kube-proxy's part.
    pub lifted: Lifted,
    /// What the tool itself said of the tables.
    pub remarks: Vec<Notice>,
    /// Whether the kubelet's hint is in its mangle table.
    pub hinted: bool,
}

impl Backend<'_> {
    /// Whether kube-proxy in iptables mode has Service rules here.
    pub fn programmed(&self) -> bool {
        self.lifted.families.iter().any(|f| f.programmed)
    }
}

/// Reads both backends' rules of a node and lifts kube-proxy's.
pub fn read_node(node: &Node) -> Result<IptablesState, IptablesError> {
    let saved = Saved::capture(node)?;
    let backends = saved.backends()?;
    Ok(saved.state(backends))
}

impl Saved {
    /// Takes the texts from a node.
    pub fn capture(node: &Node) -> Result<Self, IptablesError> {
        let mut saved = Self { texts: Vec::new(), not_captured: Vec::new(), mode: None };
        for variant in [Variant::Nft, Variant::Legacy] {
            if let Some(texts) = capture(node, variant, &mut saved.not_captured)? {
                saved.texts.push(texts);
            }
        }
        if let (true, Some(Notice::NotCaptured { reason, .. })) = (saved.texts.is_empty(), saved.not_captured.first()) {
            return Err(IptablesError::NotCaptured { reason: reason.clone() });
        }
        if let Captured::Present { bytes, .. } = node.read(Item::ProxyMode).map_err(IptablesError::Capture)? {
            saved.mode = Some(String::from_utf8_lossy(&bytes).trim().to_owned()).filter(|mode| !mode.is_empty());
        }
        Ok(saved)
    }

    /// Parses and lifts each backend's rules.
    pub fn backends(&self) -> Result<Vec<Backend<'_>>, IptablesError> {
        self.texts.iter().map(backend).collect()
    }

    /// What of the rules could not be captured.
    pub fn not_captured(&self) -> &[Notice] {
        &self.not_captured
    }

    fn state(&self, backends: Vec<Backend<'_>>) -> IptablesState {
        let mut state = choose(backends);
        state.notices.extend(self.not_captured.iter().cloned());
        if state.variant.is_some()
            && let Some(mode) = self.mode.clone().filter(|mode| mode != "iptables")
        {
            state.notices.push(Notice::OtherMode { mode });
        }
        state
    }
}

fn capture(node: &Node, variant: Variant, notices: &mut Vec<Notice>) -> Result<Option<Texts>, IptablesError> {
    let mut texts = Texts { variant, of: [None, None] };
    for (slot, family) in texts.of.iter_mut().zip(Family::BOTH) {
        match node.read(Item::IptablesSave(family, variant)).map_err(IptablesError::Capture)? {
            Captured::Present { bytes, place } => *slot = Some((bytes, place)),
            Captured::Absent { reason } => notices.push(Notice::NotCaptured { variant, family, reason }),
        }
    }
    Ok(texts.of.iter().any(Option::is_some).then_some(texts))
}

fn backend(texts: &Texts) -> Result<Backend<'_>, IptablesError> {
    let mut dumps: [Option<Dump<'_>>; 2] = [None, None];
    let mut places = [""; 2];
    let mut remarks = Vec::new();
    let mut hinted = false;
    for (i, (text, family)) in texts.of.iter().zip(Family::BOTH).enumerate() {
        let Some((bytes, place)) = text else { continue };
        let dump = parse(bytes).map_err(|source| IptablesError::Parse { place: place.clone(), source })?;
        for remark in dump.remarks() {
            if let Remark::Incompatible { table } = remark {
                let table = table.to_owned();
                remarks.push(Notice::Incompatible { family, variant: texts.variant, table });
            }
        }
        hinted |= dump
            .table("mangle")
            .is_some_and(|t| t.chain(b"KUBE-IPTABLES-HINT").is_some() || t.chain(b"KUBE-KUBELET-CANARY").is_some());
        places[i] = place;
        dumps[i] = Some(dump);
    }
    let lifted = lift(dumps[0].as_ref(), dumps[1].as_ref());
    Ok(Backend { variant: texts.variant, dumps, places, lifted, remarks, hinted })
}

/// The backend that kube-proxy writes to; `None` without any.
///
/// If both hold its rules: the one that the kubelet's hint names, else nft, which is how kube-proxy's image chooses
/// (iptables-wrappers, versions 2 and 3).
pub fn kube_proxys(backends: &[Backend<'_>]) -> Option<usize> {
    let best = |b: &Backend<'_>| (b.programmed(), b.hinted, b.variant == Variant::Nft);
    backends.iter().enumerate().max_by_key(|(_, b)| best(b)).map(|(i, _)| i)
}

/// Takes the backend that kube-proxy writes to.
fn choose(mut backends: Vec<Backend<'_>>) -> IptablesState {
    let mut remarks: Vec<Notice> = backends.iter_mut().flat_map(|b| std::mem::take(&mut b.remarks)).collect();
    let Some(best) = kube_proxys(&backends) else {
        return IptablesState { notices: remarks, ..IptablesState::default() };
    };
    let chosen = backends.swap_remove(best);
    let mut state = IptablesState {
        variant: chosen.programmed().then_some(chosen.variant),
        table: chosen.lifted.table,
        notices: chosen.lifted.notices,
        families: chosen.lifted.families,
        other: Default::default(),
    };
    state.notices.append(&mut remarks);
    for other in backends {
        for (family, summary) in Family::BOTH.into_iter().zip(&other.lifted.families) {
            if summary.programmed {
                state.notices.push(Notice::StaleBackend {
                    variant: other.variant,
                    family,
                    chains: summary.all_chains(),
                    rules: summary.all_rules(),
                    frontends: summary.frontends,
                });
            }
        }
        state.other = other.lifted.families;
    }
    state
}
