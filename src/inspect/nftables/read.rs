//! From a node: kube-proxy's tables and what they make.

use super::json::{ParseError, parse};
use super::lift::{Lift, lift};
use super::live::{LiveError, read as read_live};
use super::notice::Notice;
use super::ruleset::Ruleset;
use crate::capture::{CaptureError, Captured, Item, Node};
use crate::error::Hinted;
use crate::model::ServiceTable;

/// kube-proxy's nftables tables on a node.
#[derive(Clone, Debug, Default)]
pub struct NftablesState {
    /// The ServiceTable that they make; see [`Lift::table`].
    pub table: ServiceTable,
    /// What the table does not tell.
    pub notices: Vec<Notice>,
    /// The mark that asks for masquerading, of IPv4 and of IPv6; `None` without a table.
    pub masquerade_marks: [Option<u32>; 2],
    /// The tables themselves.
    pub ruleset: Ruleset,
}

impl NftablesState {
    /// The notices that stand in the way of a migration.
    pub fn blocking(&self) -> impl Iterator<Item = &Notice> {
        self.notices.iter().filter(|n| n.blocks_migration())
    }
}

impl From<Ruleset> for NftablesState {
    fn from(ruleset: Ruleset) -> Self {
        let Lift { table, notices, masquerade_marks } = lift(&ruleset);
        Self { table, notices, masquerade_marks, ruleset }
    }
}

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
pub enum NftablesError {
    /// The tables may be there, but could not be read.
    #[error("cannot read the nftables ruleset")]
    Capture(#[source] CaptureError),
    /// The kernel did not tell.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// The text is not what nft prints.
    #[error("cannot parse {place}")]
    Parse {
        /// Where the text comes from.
        place: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The ruleset was not captured.
    #[error("no nftables ruleset was captured: {reason}")]
    NotCaptured {
        /// Why.
        reason: String,
    },
}

impl Hinted for NftablesError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Capture(source) => source.hints(),
            Self::Live(source) => source.hints(),
            Self::Parse { source, .. } => source.hints(),
            Self::NotCaptured { .. } => {
                vec!["install nft on the node (apt-get install nftables), and record it again".to_owned()]
            }
        }
    }
}

/// Reads kube-proxy's tables of a node and lifts them.
pub fn read_node(node: &Node) -> Result<NftablesState, NftablesError> {
    if node.is_live() {
        return Ok(read_live()?.into());
    }
    match node.read(Item::NftRuleset).map_err(NftablesError::Capture)? {
        Captured::Present { bytes, place } => {
            parse(&bytes).map(NftablesState::from).map_err(|source| NftablesError::Parse { place, source })
        }
        Captured::Absent { reason } => Err(NftablesError::NotCaptured { reason }),
    }
}
