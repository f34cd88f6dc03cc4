//! nftables mode: kube-proxy's two tables, as nft prints them, which is as nft takes them back.

use std::collections::BTreeMap;

use super::Count;
use super::change::{Act, Change};
use crate::model::Family;

/// nft's word for a family.
const fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// The change that takes a table away.
pub(super) fn removal(family: Family, listing: &str) -> Change {
    let word = word(family);
    Change { act: Act::Nft(absent(word).into_bytes()), count: count(word, listing) }
}

/// The change that makes a table what it was; `None` if it is. What is there is replaced in the same transaction.
pub(super) fn restoration(family: Family, then: &str, now: Option<&str>) -> Option<Change> {
    if now.is_some_and(|now| still(now) == still(then)) {
        return None;
    }
    let word = word(family);
    let text = format!("{}{then}", absent(word));
    Some(Change { act: Act::Nft(text.into_bytes()), count: count(word, then) })
}

/// Commands after which a table is not there, whether it was or not.
fn absent(word: &str) -> String {
    format!("add table {word} kube-proxy\ndelete table {word} kube-proxy\n")
}

/// A listing without what changes by itself: how long an element stays, and how much was counted.
pub(super) fn still(listing: &str) -> String {
    let mut still = String::with_capacity(listing.len());
    let mut words = listing.split_whitespace();
    while let Some(word) = words.next() {
        if !matches!(word, "expires" | "packets" | "bytes") {
            still.push_str(word);
            still.push(' ');
            continue;
        }
        // A value at the end of an element or of all elements takes the comma or brace with it.
        let value = words.next().unwrap_or_default();
        still.push_str(value.trim_start_matches(|c: char| c.is_ascii_alphanumeric()));
        still.push(' ');
    }
    still
}

fn count(word: &str, listing: &str) -> Count {
    let mut numbers: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut in_chain = false;
    for line in listing.lines() {
        let text = line.trim_start();
        let what = match text.split(' ').next().unwrap_or_default() {
            "chain" => Some("chains"),
            "set" => Some("sets"),
            "map" => Some("maps"),
            "" | "}" | "type" | "comment" | "policy" | "table" => None,
            _ if in_chain => Some("rules"),
            _ => None,
        };
        // Chains, sets and maps stand one level deep.
        if line.starts_with('\t') && !line.starts_with("\t\t") {
            in_chain = text.starts_with("chain ");
        }
        if let Some(what) = what {
            *numbers.entry(what).or_default() += 1;
        }
    }
    Count { place: format!("nftables {word} kube-proxy"), numbers }
}
