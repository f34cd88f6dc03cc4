//! iptables: the text of iptables-save, what it says, whose it is, and kube-proxy's part of it as a ServiceTable.

mod dump;
mod hash;
mod lift;
mod notice;
mod owner;
mod parse;
mod read;
mod spec;
mod words;

/// Names of chains are hashed by the ten thousand; the seed is random for each map.
type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

pub use dump::{Chain, ChainPolicy, Counters, Dump, Remark, Rule, Table};
pub use hash::{HASH_LEN, chain_hash};
pub use lift::{FamilySummary, Lifted, lift};
pub use notice::{Notice, Place};
pub use owner::{Hashed, Owner, hashed, owner};
pub use parse::{ParseError, Problem, parse};
pub use read::{Backend, IptablesError, IptablesState, Saved, kube_proxys, read_node};
pub use spec::{Action, Parts, Recent, Spec, Target};
pub use words::{Word, Words, quote};
