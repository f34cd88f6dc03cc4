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
//! Both ways are harmless to repeat, and after a crash: what is done already is not in the next transaction.

mod back;
mod run;
mod select;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::Serialize;

pub use run::{Done, remove, restore};
pub use select::Reason;
pub use state::{State, Unseen};

use self::back::Back;
use self::select::select;
use self::state::Text;
use super::store::StoreError;
use crate::capture::command::CommandError;
use crate::capture::netlink::NetlinkError;
use crate::capture::{CaptureError, Variant};
use crate::error::Hinted;
use crate::inspect::iptables::{Dump, ParseError, Rule, Table, parse};
use crate::model::{Family, KubeVersion};

/// Why nothing was removed or restored, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// The node could not be read.
    #[error("cannot read the node's rules")]
    Read(#[source] CaptureError),
    /// The kernel does not tell what is there.
    #[error("the kernel does not tell which chains there are")]
    Kernel(#[source] io::Error),
    /// nf_tables does not.
    #[error("nf_tables does not tell which chains there are")]
    Netlink(#[source] NetlinkError),
    /// A text is not one of iptables-save.
    #[error("cannot parse {place}")]
    Parse {
        /// Where the text comes from.
        place: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// A text holds a table twice: which of them the kernel has cannot be told.
    #[error("{place} holds table {table} twice")]
    RepeatedTable {
        /// Where the text comes from.
        place: String,
        /// The table.
        table: String,
    },
    /// kube-proxy's rules are, or may be, where no tool shows them.
    #[error("{} of iptables-{}: {}", .0.family, .0.variant, .0.reason)]
    Unseen(Unseen),
    /// Something would go that was not kept.
    #[error("{what} is not as it was kept, so it could not be put back")]
    NotKept {
        /// What.
        what: String,
    },
    /// A tool failed, and not for a change by somebody else.
    #[error("cannot change table {table} of {program}")]
    Tool {
        /// The restore program.
        program: &'static str,
        /// The table.
        table: String,
        /// What it said.
        source: CommandError,
    },
    /// There was always something left to do.
    #[error("table {table} of {program} was changed by somebody else each of {tries} times")]
    Restless {
        /// The restore program.
        program: &'static str,
        /// The table.
        table: String,
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
            Self::Tool { source, .. } => source.hints(),
            Self::Unseen(unseen) if unseen.variant == Variant::Nft => {
                vec!["move rules that are not of iptables into a table of their own (nft list ruleset), or install iptables-nft".into()]
            }
            Self::Unseen(_) => vec!["install iptables-legacy".into()],
            Self::NotKept { .. } | Self::Restless { .. } => {
                vec![
                    "see that kube-proxy no longer runs on this node, and that no other program removes its rules"
                        .into(),
                ]
            }
            Self::Kernel(_) | Self::Parse { .. } | Self::RepeatedTable { .. } => Vec::new(),
        }
    }
}

/// What is to be taken away from a node, borrowed from its state.
#[derive(Debug)]
pub struct Removal<'s> {
    tables: Vec<TablePart<'s>>,
    kept: Vec<Kept>,
}

/// A chain of kube-proxy's name that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Backend.
    pub variant: Variant,
    /// Family.
    pub family: Family,
    /// Table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variant, family, table, chain, reason } = self;
        write!(f, "iptables-{variant} {family} {table} {chain} stays: {reason}")
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
    fn of_rules(variant: Variant, family: Family, table: &[u8], [jumps, chains, rules]: [usize; 3]) -> Self {
        let place = format!("iptables-{variant} {family} {}", lossy(table));
        Self { place, numbers: BTreeMap::from([("jumps", jumps), ("chains", chains), ("rules", rules)]) }
    }

    /// All together.
    pub fn total(&self) -> usize {
        self.numbers.values().sum()
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.numbers.iter().filter(|(_, number)| **number > 0);
        let one = |what: &'static str| what.strip_suffix('s').unwrap_or(what);
        let numbers: Vec<_> =
            numbers.map(|(what, number)| format!("{number} {}", if *number == 1 { one(what) } else { what })).collect();
        write!(f, "{}: {}", self.place, numbers.join(", "))
    }
}

/// One table's part of a removal.
#[derive(Debug)]
struct TablePart<'s> {
    variant: Variant,
    family: Family,
    table: &'s [u8],
    /// Jumps in built-in chains: the chain, and the rule's text.
    jumps: Vec<(&'s [u8], &'s [u8])>,
    chains: Vec<ChainPart<'s>>,
}

/// A chain that goes, with its rules' text.
#[derive(Debug)]
struct ChainPart<'s> {
    name: &'s [u8],
    rules: Vec<&'s [u8]>,
}

/// What `iptables-restore --noflush` is to be fed for one table.
#[derive(Debug, PartialEq, Eq)]
struct Transaction {
    variant: Variant,
    family: Family,
    table: String,
    text: Vec<u8>,
    count: Count,
}

impl<'s> Removal<'s> {
    /// What goes from a node in this state. With an old kubelet some of kube-proxy's chains are the kubelet's too, and stay; if its
    /// version is not known, its other chains tell.
    pub fn of(state: &'s State, kubelet: Option<KubeVersion>) -> Result<Self, RemovalError> {
        if let Some(unseen) = state.unseen.first() {
            return Err(RemovalError::Unseen(unseen.clone()));
        }
        let mut removal = Self { tables: Vec::new(), kept: Vec::new() };
        for text in &state.rules {
            for table in read(text)?.tables() {
                removal.table(text, table, kubelet);
            }
        }
        removal.tables.sort_by_key(|part| order(part.table));
        Ok(removal)
    }

    fn table(&mut self, text: &Text, table: &Table<'s>, kubelet: Option<KubeVersion>) {
        let (variant, family) = (text.variant, text.family);
        let selection = select(table, kubelet);
        let name = |chain: usize| table.chains()[chain].name;
        self.kept.extend(selection.kept.into_iter().map(|(chain, reason)| Kept {
            variant,
            family,
            table: lossy(table.name()),
            chain: lossy(name(chain)),
            reason,
        }));
        if selection.chains.is_empty() && selection.jumps.is_empty() {
            return;
        }
        let jump = |(chain, number)| Some((name(chain), table.rule(chain, number + 1)?.body()));
        self.tables.push(TablePart {
            variant,
            family,
            table: table.name(),
            jumps: selection.jumps.into_iter().filter_map(jump).collect(),
            chains: selection.chains.into_iter().map(|chain| ChainPart::of(table, chain)).collect(),
        });
    }

    /// Whether there is nothing to take away.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// How much goes, table by table, in the order of the removal.
    pub fn counts(&self) -> Vec<Count> {
        self.tables.iter().map(TablePart::count).collect()
    }

    /// Chains of kube-proxy's name that stay, and why: each reason once.
    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    fn transactions(&self) -> impl Iterator<Item = Transaction> {
        self.tables.iter().map(TablePart::transaction)
    }

    /// Whether all of it is in a state that was kept before.
    fn is_in(&self, kept: &State) -> Result<(), RemovalError> {
        for part in &self.tables {
            let what = |name: &[u8]| {
                let (table, name) = (lossy(part.table), lossy(name));
                RemovalError::NotKept { what: format!("iptables-{} {} {table} {name}", part.variant, part.family) }
            };
            let dump = kept.text(part.variant, part.family).map(read).transpose()?.unwrap_or_default();
            let table = dump.table(&lossy(part.table));
            let bodies = |name: &[u8]| {
                let table = table?;
                Some(table.rules_of(table.chain(name)?).map(Rule::body))
            };
            for chain in &part.chains {
                if !bodies(chain.name).is_some_and(|rules| rules.eq(chain.rules.iter().copied())) {
                    return Err(what(chain.name));
                }
            }
            for (from, rule) in &part.jumps {
                if !bodies(from).is_some_and(|mut rules| rules.any(|body| body == *rule)) {
                    return Err(what(from));
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Removal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.tables {
            writeln!(f, "{}", part.count())?;
            for (from, rule) in &part.jumps {
                writeln!(f, "  -A {} {}", lossy(from), lossy(rule))?;
            }
            for chain in &part.chains {
                let name = lossy(chain.name);
                writeln!(f, "  :{name}")?;
                for rule in &chain.rules {
                    writeln!(f, "  -A {name} {}", lossy(rule))?;
                }
            }
        }
        self.kept.iter().try_for_each(|kept| writeln!(f, "{kept}"))
    }
}

impl<'s> ChainPart<'s> {
    fn of(table: &Table<'s>, chain: usize) -> Self {
        Self { name: table.chains()[chain].name, rules: table.rules_of(chain).map(Rule::body).collect() }
    }
}

impl TablePart<'_> {
    fn count(&self) -> Count {
        let rules = self.chains.iter().map(|chain| chain.rules.len()).sum();
        Count::of_rules(self.variant, self.family, self.table, [self.jumps.len(), self.chains.len(), rules])
    }

    /// Jumps by their text; chains are declared, which empties them, and then deleted.
    fn transaction(&self) -> Transaction {
        let mut text = begin(self.table);
        for chain in &self.chains {
            text.extend([b":", chain.name, b" - [0:0]\n"].concat());
        }
        for (from, rule) in &self.jumps {
            text.extend([b"-D ", *from, b" ", *rule, b"\n"].concat());
        }
        for chain in &self.chains {
            text.extend([b"-X ", chain.name, b"\n"].concat());
        }
        text.extend(COMMIT);
        let (variant, family, table) = (self.variant, self.family, lossy(self.table));
        Transaction { variant, family, table, text, count: self.count() }
    }
}

/// What is to be put back on a node.
#[derive(Debug)]
pub struct Restoration {
    transactions: Vec<Transaction>,
}

impl Restoration {
    /// What a removal has taken from a node that was in state `kept` and is in state `now`: its chains with their rules, and its
    /// jumps at the places that they had among the rules of others. Where those have changed since, a jump comes behind the nearest
    /// rule of others that it was behind of; if none of these is left, before the nearest that it was before of; else to the head.
    pub fn of(kept: &State, now: &State) -> Result<Self, RemovalError> {
        if let Some(unseen) = now.unseen.first() {
            return Err(RemovalError::Unseen(unseen.clone()));
        }
        let mut transactions = Vec::new();
        for text in &kept.rules {
            let dump = now.text(text.variant, text.family).map(read).transpose()?.unwrap_or_default();
            for then in read(text)?.tables() {
                let (selection, now) = (select::all(then), dump.table(&lossy(then.name())));
                transactions.extend(Back { then, now }.transaction(text, &selection));
            }
        }
        transactions.sort_by_key(|t| std::cmp::Reverse(order(t.table.as_bytes())));
        Ok(Self { transactions })
    }

    /// Whether everything is in its place.
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// How much comes back, table by table, in the order of the restoration.
    pub fn counts(&self) -> Vec<Count> {
        self.transactions.iter().map(|t| t.count.clone()).collect()
    }
}

impl fmt::Display for Restoration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for transaction in &self.transactions {
            writeln!(f, "{}", transaction.count)?;
            for line in String::from_utf8_lossy(&transaction.text).lines() {
                writeln!(f, "  {line}")?;
            }
        }
        Ok(())
    }
}

/// The order in which tables go: first what translates, which is kube-proxy's own order. They come back the other way round, so
/// that nothing is translated that the filter does not let pass.
fn order(table: &[u8]) -> u8 {
    match table {
        b"nat" => 0,
        b"filter" => 1,
        _ => 2,
    }
}

const COMMIT: &[u8] = b"COMMIT\n";

fn begin(table: &[u8]) -> Vec<u8> {
    [b"*", table, b"\n"].concat()
}

/// Parses a text; each table may be there once.
fn read(text: &Text) -> Result<Dump<'_>, RemovalError> {
    let dump = parse(&text.bytes).map_err(|source| RemovalError::Parse { place: text.place.clone(), source })?;
    for (i, table) in dump.tables().iter().enumerate() {
        if dump.tables()[..i].iter().any(|other| other.name() == table.name()) {
            let table = lossy(table.name());
            return Err(RemovalError::RepeatedTable { place: text.place.clone(), table });
        }
    }
    Ok(dump)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
