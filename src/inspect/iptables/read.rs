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
struct Texts {
    variant: Variant,
    of: [Option<(Vec<u8>, String)>; 2],
}

/// One backend's rules, lifted.
struct Backend {
    variant: Variant,
    lifted: Lifted,
    remarks: Vec<Notice>,
    /// Whether the kubelet's hint is in its mangle table.
    hinted: bool,
}

impl Backend {
    fn programmed(&self) -> bool {
        self.lifted.families.iter().any(|f| f.programmed)
    }
}

/// Reads both backends' rules of a node and lifts kube-proxy's.
pub fn read_node(node: &Node) -> Result<IptablesState, IptablesError> {
    let mut notices = Vec::new();
    let mut backends = Vec::new();
    for variant in [Variant::Nft, Variant::Legacy] {
        if let Some(texts) = capture(node, variant, &mut notices)? {
            backends.push(backend(&texts)?);
        }
    }
    if let (true, Some(Notice::NotCaptured { reason, .. })) = (backends.is_empty(), notices.first()) {
        return Err(IptablesError::NotCaptured { reason: reason.clone() });
    }
    let mut state = choose(backends);
    state.notices.append(&mut notices);
    if state.variant.is_some()
        && let Captured::Present { bytes, .. } = node.read(Item::ProxyMode).map_err(IptablesError::Capture)?
    {
        let mode = String::from_utf8_lossy(&bytes).trim().to_owned();
        if !mode.is_empty() && mode != "iptables" {
            state.notices.push(Notice::OtherMode { mode });
        }
    }
    Ok(state)
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

fn backend(texts: &Texts) -> Result<Backend, IptablesError> {
    let mut dumps: [Option<Dump<'_>>; 2] = [None, None];
    let mut remarks = Vec::new();
    let mut hinted = false;
    for ((slot, text), family) in dumps.iter_mut().zip(&texts.of).zip(Family::BOTH) {
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
        *slot = Some(dump);
    }
    let [v4, v6] = &dumps;
    Ok(Backend { variant: texts.variant, lifted: lift(v4.as_ref(), v6.as_ref()), remarks, hinted })
}

/// Takes the backend that kube-proxy writes to.
///
/// If both hold its rules: the one that the kubelet's hint names, else nft, which is how kube-proxy's image chooses
/// (iptables-wrappers, versions 2 and 3).
fn choose(mut backends: Vec<Backend>) -> IptablesState {
    let mut remarks: Vec<Notice> = backends.iter_mut().flat_map(|b| std::mem::take(&mut b.remarks)).collect();
    let best = backends
        .iter()
        .enumerate()
        .max_by_key(|(_, b)| (b.programmed(), b.hinted, b.variant == Variant::Nft))
        .map(|(i, _)| i);
    let Some(best) = best else { return IptablesState { notices: remarks, ..IptablesState::default() } };
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
