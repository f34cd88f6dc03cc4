//! The way back: what is missing, computed from the kept state and the present one. Chains as they were, jumps in their places
//! among the rules of others.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::away::{COMMIT, begin, order};
use super::change::{Act, Change};
use super::select::{self, Selection};
use super::state::{State, Text};
use super::{Count, RemovalError, ipvs, lossy, sets, sysctl, tables};
use crate::inspect::iptables::{Owner, Rule, Table, owner};
use crate::model::Family;

/// What is to be put back on a node.
#[derive(Debug)]
pub struct Restoration {
    pub(super) changes: Vec<Change>,
}

impl Restoration {
    /// What a removal has taken from a node that was in state `kept` and is in state `now`: its chains with their rules, and its
    /// jumps at the places that they had among the rules of others. Where those have changed since, a jump comes behind the nearest
    /// rule of others that it was behind of; if none of these is left, before the nearest that it was before of; else to the head.
    pub fn of(kept: &State, now: &State) -> Result<Self, RemovalError> {
        if let Some(unseen) = now.unseen.first() {
            return Err(RemovalError::Unseen(unseen.clone()));
        }
        let mut changes = Vec::new();
        let missing: Vec<_> = kept.counters.iter().filter(|name| !now.counters.contains(name)).cloned().collect();
        if !missing.is_empty() {
            let count = Count::new("nfacct", [("counters", missing.len())]);
            changes.push(Change { act: Act::MakeCounters(missing), count });
        }
        // What rules and virtual services need comes before them.
        changes.extend(sysctl::restoration(&kept.sysctls, &now.sysctls));
        changes.extend(sets::restoration(&kept.sets, &now.sets));
        if let Some(device) = kept.device()? {
            changes.extend(device.restoration(now.device()?.as_ref()));
        }
        changes.extend(ipvs::restoration(&kept.virtual_services()?, &now.virtual_services()?));
        for family in Family::BOTH {
            let then = kept.listing(family);
            changes.extend(then.and_then(|then| tables::restoration(family, then, now.listing(family))));
        }
        let mut rules = Vec::new();
        for text in &kept.rules {
            let dump = now.text(text.variant, text.family).map(Text::parsed).transpose()?.unwrap_or_default();
            for then in text.parsed()?.tables() {
                let now = dump.table(&lossy(then.name()));
                let change = Back { then, now }.change(text, &select::all(then));
                rules.extend(change.map(|change| (order(then.name()), change)));
            }
        }
        rules.sort_by_key(|(order, _)| std::cmp::Reverse(*order));
        changes.extend(rules.into_iter().map(|(_, change)| change));
        Ok(Self { changes })
    }

    /// Whether everything is in its place.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How much comes back, table by table, in the order of the restoration.
    pub fn counts(&self) -> Vec<Count> {
        self.changes.iter().map(|change| change.count.clone()).collect()
    }
}

impl fmt::Display for Restoration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            writeln!(f, "{}", change.count)?;
            change.lines().iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        Ok(())
    }
}

/// A table as it was kept, and as it is.
struct Back<'d, 'a, 'n> {
    then: &'d Table<'a>,
    now: Option<&'d Table<'n>>,
}

impl<'a> Back<'_, 'a, '_> {
    /// What brings back what was selected; `None` if it is all there.
    fn change(&self, text: &Text, selection: &Selection) -> Option<Change> {
        let (mut chain_count, mut rule_count) = (0, 0);
        let (mut chains, mut rules) = (Vec::new(), Vec::new());
        for &chain in &selection.chains {
            let name = self.then.chains()[chain].name;
            if owner(name) == Owner::Kubelet && self.now_of(name).is_some() {
                continue;
            }
            let bodies = || self.then.rules_of(chain).map(Rule::body);
            if self.now_of(name).is_some_and(|now| now.iter().copied().eq(bodies())) {
                continue;
            }
            // Declaring a chain empties it, if it is there.
            chains.extend([b":", name, b" - [0:0]\n"].concat());
            for body in bodies() {
                rules.extend([b"-A ", name, b" ", body, b"\n"].concat());
                rule_count += 1;
            }
            chain_count += 1;
        }
        let host_chains = selection.jumps.chunk_by(|a, b| a.0 == b.0);
        let jump_count = host_chains.map(|jumps| self.jumps(jumps, &mut rules)).sum();
        if chains.is_empty() && rules.is_empty() {
            return None;
        }
        let (variant, family) = (text.variant, text.family);
        let count = Count::of_rules(variant, family, self.then.name(), [jump_count, chain_count, rule_count]);
        let text = [begin(self.then.name()), chains, rules, COMMIT.to_vec()].concat();
        Some(Change { act: Act::Rules { variant, family, text }, count })
    }

    /// The rules that a chain has now; `None` if there is no such chain.
    fn now_of(&self, name: &[u8]) -> Option<Vec<&[u8]>> {
        let now = self.now?;
        Some(now.rules_of(now.chain(name)?).map(Rule::body).collect())
    }

    /// The jumps of one built-in chain: unless all are in place, those that are there are taken out, and all put in. Gives
    /// how many.
    fn jumps(&self, jumps: &[(usize, usize)], rules: &mut Vec<u8>) -> usize {
        let Some(&(chain, _)) = jumps.first() else { return 0 };
        let name = self.then.chains()[chain].name;
        let numbers: HashSet<usize> = jumps.iter().map(|&(_, number)| number).collect();
        let then: Vec<(&'a [u8], bool)> =
            self.then.rules_of(chain).enumerate().map(|(i, rule)| (rule.body(), numbers.contains(&i))).collect();
        let now = self.now_of(name).unwrap_or_default();
        let target = arrange(&then, &now);
        if target.iter().map(|(body, _)| *body).eq(now.iter().copied()) {
            return 0;
        }
        let ours: HashSet<&[u8]> = then.iter().filter(|(_, ours)| *ours).map(|(body, _)| *body).collect();
        for body in now.iter().filter(|body| ours.contains(*body)) {
            rules.extend([b"-D ", name, b" ", body, b"\n"].concat());
        }
        for (i, (body, _)) in target.iter().enumerate().filter(|(_, (_, ours))| *ours) {
            rules.extend([b"-I ", name, format!(" {} ", i + 1).as_bytes(), body, b"\n"].concat());
        }
        jumps.len()
    }
}

/// The rules of a chain with kube-proxy's in their places: `then` as they were (text, and whether it is kube-proxy's), `now` as they
/// are. The rules of others come out as they are now.
fn arrange<'r>(then: &[(&'r [u8], bool)], now: &[&'r [u8]]) -> Vec<(&'r [u8], bool)> {
    let ours: HashSet<&[u8]> = then.iter().filter(|(_, ours)| *ours).map(|(body, _)| *body).collect();
    let others: Vec<&[u8]> = now.iter().copied().filter(|body| !ours.contains(body)).collect();
    let mut places: HashMap<(&[u8], usize), usize> = HashMap::new();
    for (place, key) in numbered(others.iter().copied()).enumerate() {
        places.insert(key, place);
    }
    // For each rule of others as it was, in order: where it is now.
    let then_others = then.iter().filter(|(_, ours)| !ours).map(|(body, _)| *body);
    let there: Vec<Option<usize>> = numbered(then_others).map(|key| places.get(&key).copied()).collect();

    // What comes before the rule of others with this number; the last is what comes behind all.
    let mut before: Vec<Vec<&[u8]>> = vec![Vec::new(); others.len() + 1];
    let mut passed = 0;
    for (body, ours) in then {
        if !ours {
            passed += 1;
            continue;
        }
        let behind = there[..passed].iter().rev().find_map(|place| place.map(|place| place + 1));
        let ahead = || there[passed..].iter().find_map(|place| *place);
        before[behind.or_else(ahead).unwrap_or(0)].push(body);
    }
    let mut target = Vec::with_capacity(then.len() + others.len());
    for (place, jumps) in before.into_iter().enumerate() {
        target.extend(jumps.into_iter().map(|body| (body, true)));
        target.extend(others.get(place).map(|body| (*body, false)));
    }
    target
}

/// Each text with how many equal ones came before it.
fn numbered<'r>(texts: impl Iterator<Item = &'r [u8]>) -> impl Iterator<Item = (&'r [u8], usize)> {
    let mut seen: HashMap<&[u8], usize> = HashMap::new();
    texts.map(move |text| {
        let number = seen.entry(text).or_default();
        *number += 1;
        (text, *number)
    })
}

#[cfg(test)]
mod tests {
    use super::arrange;

    /// Rules as words; kube-proxy's begin with a K.
    fn arranged(then: &'static str, now: &'static str) -> String {
        let then: Vec<_> = then.split(' ').map(|w| (w.as_bytes(), w.starts_with('K'))).collect();
        let now: Vec<_> = now.split(' ').filter(|w| !w.is_empty()).map(str::as_bytes).collect();
        let target = arrange(&then, &now);
        let words = target.iter().map(|(body, _)| std::str::from_utf8(body).expect("words"));
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn untouched_neighbours_give_the_same_chain() {
        for then in ["K1", "K1 a", "a K1", "a K1 K2 b K3", "K1 K2 a a K3 a", "a b K1 K1 c"] {
            let others: Vec<_> = then.split(' ').filter(|w| !w.starts_with('K')).collect();
            assert_eq!(arranged(then, others.join(" ").leak()), then);
            assert_eq!(arranged(then, then), then, "what is in place stays");
        }
    }

    #[test]
    fn neighbours_that_came_and_went() {
        assert_eq!(arranged("K1 a", "new a"), "new K1 a", "put in front while ours was away");
        assert_eq!(arranged("a K1", "a new"), "a K1 new", "appended while ours was away");
        assert_eq!(arranged("a K1 b", "a new b"), "a K1 new b");
        assert_eq!(arranged("a b K1 c", "a c"), "a K1 c");
        assert_eq!(arranged("a K1 b", "b"), "K1 b");
        assert_eq!(arranged("a K1 b K2", "new"), "K1 K2 new", "no neighbour is left: to the head, as kube-proxy does");
        assert_eq!(arranged("a K1", ""), "K1");
        assert_eq!(arranged("K1 a K2 b K3", "b x a"), "b K3 x K1 a K2", "each stays with its neighbour");
    }

    #[test]
    fn what_is_there_already_but_elsewhere_is_moved() {
        assert_eq!(arranged("a K1 b K2", "K2 K1 a b"), "a K1 b K2");
        assert_eq!(arranged("a K1 b", "a b K1"), "a K1 b");
        assert_eq!(arranged("a K1 K1 b", "a K1 b"), "a K1 K1 b");
    }
}
