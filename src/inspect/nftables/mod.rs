//! kube-proxy in nftables mode: the tables `ip kube-proxy` and `ip6 kube-proxy`, typed, and lifted into the ServiceTable.
//!
//! The typed tables do not depend on where they were read: [`parse`] reads what `nft -j` prints, [`read_live`] asks the kernel.

mod decode;
mod json;
mod lift;
mod live;
mod name;
mod notice;
mod others;
mod read;
mod ruleset;
mod text;
mod tree;

pub use json::{Element as JsonElement, ParseError, parse};
pub use lift::{Lift, lift, without_hairpin};
pub use live::{LiveError, read as read_live};
pub use name::{ChainKind, ChainName, NameError};
pub use notice::{Notice, Part, Place};
pub use others::{Listed, Loss, OtherTable, Others, others};
pub use read::{NftablesError, NftablesState, read_node};
pub use ruleset::{
    Addresses, Balance, Chain, Element, Hook, Key, Match, Rule, Ruleset, Set, Side, Statement, TABLE, Table, Verdict,
};
