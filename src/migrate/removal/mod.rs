//! Taking away exactly what kube-proxy made, and putting it back.
//!
//! ```text
//! let kept = State::read(&node)?;      // once kube-proxy has stopped
//! kept.keep(folder)?;                  // on disk before anything goes
//! let removal = Removal::of(&kept, kubelet)?;
//! print!("{removal}");                 // every rule and chain, and what stays and why
//! remove(&node, &kept, kubelet)?;      // reads afresh, takes away, reads again until nothing is left
//! restore(&node, &kept)?;              // puts all of it back in its place
//! ```
//!
//! What goes is told by exact names of chains and by the exact text of jumps, read a moment before. Each table of each iptables
//! backend and family is one transaction of `iptables-restore --noflush`: it happens as a whole, or fails as a whole where
//! somebody has changed the table meanwhile, and is then computed again. Rules of others are never written, not even as they are.
//! Nothing goes that is not in the kept state; so what has gone can be put back, and a kube-proxy that still runs is noticed.
//!
//! The other modes' state goes likewise: the tables of nftables mode, and the sets, virtual services and the device of ipvs mode;
//! and nfacct objects. Sysctls stay as kube-proxy set them, since what serves in its place may need them; the way back writes those
//! that have changed since.
//!
//! Both ways are harmless to repeat, and after a crash: what is done already is not in the next change.

mod away;
mod back;
mod change;
mod ipvs;
mod ports;
mod render;
mod run;
mod select;
mod sets;
mod state;
mod sysctl;
mod tables;

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::Serialize;

pub use away::Removal;
pub use back::Restoration;
pub use change::CommitError;
pub use render::{Form, render};
pub use run::{Done, drain, remove, restore};
pub use select::Reason;
pub use state::{State, Unseen};

use super::store::StoreError;
use crate::capture::netlink::NetlinkError;
use crate::capture::{CaptureError, Variant};
use crate::error::Hinted;
use crate::inspect::conntrack::ConntrackError;
use crate::inspect::iptables::ParseError;
use crate::inspect::ipvs::DecodeError;
use crate::model::Family;

/// Why nothing was removed or restored, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// The node could not be read.
    #[error("cannot read what kube-proxy made")]
    Read(#[source] CaptureError),
    /// The kernel does not tell what is there.
    #[error("the kernel does not tell which chains there are")]
    Kernel(#[source] io::Error),
    /// It does not, by netlink.
    #[error("the kernel does not tell what there is of kube-proxy's")]
    Netlink(#[from] NetlinkError),
    /// A text is not one of iptables-save.
    #[error("cannot parse {place}")]
    Parse {
        /// Where the text comes from.
        place: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// What the kernel says of IPVS does not hold together.
    #[error("cannot read IPVS")]
    Ipvs(#[from] DecodeError),
    /// Which connections run is not known.
    #[error("cannot read connection tracking")]
    Conntrack(#[source] ConntrackError),
    /// What `ip` or ipset prints cannot be understood.
    #[error("cannot understand what {program} prints")]
    Output {
        /// The program.
        program: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A text holds a table twice: which of them the kernel has cannot be told.
    #[error("{place} holds table {table} twice")]
    RepeatedTable {
        /// Where the text comes from.
        place: String,
        /// The table.
        table: String,
    },
    /// What kube-proxy made is, or may be, where no tool shows it.
    #[error("{0}")]
    Unseen(Unseen),
    /// Something would go that was not kept.
    #[error("{what} is not as it was kept, so it could not be put back")]
    NotKept {
        /// What.
        what: String,
    },
    /// A change failed, and not for a change by somebody else.
    #[error("cannot change {place}")]
    Commit {
        /// What was to change.
        place: String,
        /// Why it cannot.
        source: CommitError,
    },
    /// There was always something left to do.
    #[error("{place} was changed by somebody else each of {tries} times")]
    Restless {
        /// What was changed.
        place: String,
        /// How often it was tried.
        tries: usize,
    },
    /// The kept state cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Hinted for RemovalError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Read(source) => source.hints(),
            Self::Netlink(source) => source.hints(),
            Self::Store(source) => source.hints(),
            Self::Commit { source: CommitError::Tool(source), .. } => source.hints(),
            Self::Unseen(unseen) => vec![unseen.remedy.to_owned()],
            Self::NotKept { .. } | Self::Restless { .. } => {
                vec!["see that neither kube-proxy nor another program that handles its rules runs on this node".into()]
            }
            _ => Vec::new(),
        }
    }
}

/// Something of kube-proxy's name that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What, such as `iptables-nft IPv4 nat KUBE-MARK-MASQ` or `ipset KUBE-LOOP-BACK`.
    pub what: String,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} stays: {}", self.what, self.reason)
    }
}

/// How much of something goes, or comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Where, such as `iptables-nft IPv4 nat`.
    pub place: String,
    /// How many of what: `jumps` in built-in chains, `chains`, `rules` inside these, and so on.
    pub numbers: BTreeMap<&'static str, usize>,
}

impl Count {
    fn new<const N: usize>(place: impl Into<String>, numbers: [(&'static str, usize); N]) -> Self {
        Self { place: place.into(), numbers: BTreeMap::from(numbers) }
    }

    fn of_rules(variant: Variant, family: Family, table: &[u8], [jumps, chains, rules]: [usize; 3]) -> Self {
        let place = format!("iptables-{variant} {family} {}", lossy(table));
        Self::new(place, [("jumps", jumps), ("chains", chains), ("rules", rules)])
    }

    /// All together.
    pub fn total(&self) -> usize {
        self.numbers.values().sum()
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.numbers.iter().filter(|(_, number)| **number > 0);
        let numbers: Vec<_> = numbers.map(|(what, number)| counted(*number, what)).collect();
        write!(f, "{}: {}", self.place, numbers.join(", "))
    }
}

/// A number of things, whose word is a plural.
pub(super) fn counted(number: usize, what: &str) -> String {
    let word = if number == 1 { what.strip_suffix('s').unwrap_or(what) } else { what };
    format!("{number} {word}")
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
