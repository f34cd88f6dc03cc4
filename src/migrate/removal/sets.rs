//! IP sets of ipvs mode, line by line as ipset saves them, which is as it takes them back.

use std::collections::{BTreeMap, BTreeSet};

use super::Count;
use super::change::{Act, Change};
use crate::inspect::ipvs::KubeSet;
use crate::model::Family;

/// A saved set: its line of creation and those of its entries.
#[derive(Debug, PartialEq, Eq)]
struct Lines<'s> {
    create: &'s str,
    entries: BTreeSet<&'s str>,
}

/// The names of kube-proxy's sets, of both families.
fn names() -> BTreeSet<String> {
    Family::BOTH.into_iter().flat_map(|family| KubeSet::ALL.map(|set| set.name(family))).collect()
}

/// kube-proxy's among saved sets, in the order of the text.
fn own(saved: &str) -> Vec<(&str, Lines<'_>)> {
    let names = names();
    let mut found: Vec<(&str, Lines<'_>)> = Vec::new();
    let mut places = BTreeMap::new();
    for line in saved.lines() {
        let mut words = line.split(' ');
        let (command, Some(name)) = (words.next(), words.next().filter(|name| names.contains(*name))) else { continue };
        match command {
            Some("create") => {
                places.insert(name, found.len());
                found.push((name, Lines { create: line, entries: BTreeSet::new() }));
            }
            Some("add") => {
                if let Some(&place) = places.get(name) {
                    found[place].1.entries.insert(line);
                }
            }
            _ => {}
        }
    }
    found
}

/// Sets that sets of others hold as members (`list:set`).
pub(super) fn members(saved: &str) -> BTreeSet<String> {
    let listed = saved.lines().filter_map(|line| line.strip_prefix("add ")?.split(' ').nth(1));
    let names = names();
    listed.filter(|member| names.contains(*member)).map(str::to_owned).collect()
}

/// A set of kube-proxy that is there and was not, or not with these entries.
pub(super) fn added<'s>(then: &str, now: &'s str) -> Option<&'s str> {
    let then: BTreeMap<_, _> = own(then).into_iter().collect();
    own(now).into_iter().find(|(name, set)| then.get(name) != Some(set)).map(|(name, _)| name)
}

/// The change that destroys kube-proxy's sets but those that are `used`.
pub(super) fn removal(saved: &str, used: &BTreeSet<String>) -> Option<Change> {
    let gone: Vec<_> = own(saved).into_iter().filter(|(name, _)| !used.contains(*name)).collect();
    let text: String = gone.iter().flat_map(|(name, _)| ["destroy ", *name, "\n"]).collect();
    change(text, gone.len(), gone.iter().map(|(_, set)| set.entries.len()).sum())
}

/// kube-proxy's sets that stay because something else uses them.
pub(super) fn kept<'s>(saved: &'s str, used: &BTreeSet<String>) -> Vec<&'s str> {
    own(saved).into_iter().map(|(name, _)| name).filter(|name| used.contains(*name)).collect()
}

/// The change that makes kube-proxy's sets what they were. A set that is there with other entries is emptied first.
pub(super) fn restoration(then: &str, now: &str) -> Option<Change> {
    let now: BTreeMap<_, _> = own(now).into_iter().collect();
    let (mut text, mut sets, mut entries) = (String::new(), 0, 0);
    for (name, set) in own(then) {
        match now.get(name) {
            Some(there) if there.entries == set.entries => continue,
            Some(_) => text.extend(["flush ", name, "\n"]),
            None => text.extend([set.create, "\n"]),
        }
        for entry in &set.entries {
            text.extend([*entry, "\n"]);
        }
        (sets, entries) = (sets + 1, entries + set.entries.len());
    }
    change(text, sets, entries)
}

fn change(text: String, sets: usize, entries: usize) -> Option<Change> {
    let count = Count::new("ipset", [("sets", sets), ("entries", entries)]);
    (sets > 0).then(|| Change { act: Act::Sets(text.into_bytes()), count })
}
