//! Rules that drop packets, and how many: one that drops under eBPF and dropped nothing before is a good guess at why traffic is
//! hurt.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::capture::{Captured, Item, Node, NodeOptions, Variant};
use crate::lab::{LabError, Names, netns};
use crate::model::Family;

/// A rule that dropped packets while eBPF served, and none while nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suspect {
    /// Tool, family and table.
    pub place: String,
    /// The rule, as iptables-save prints it.
    pub rule: String,
    /// Packets that it dropped.
    pub packets: u64,
}

/// Packets by place and rule, of rules that drop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Drops(BTreeMap<(String, String), u64>);

impl Drops {
    /// Reads the counters of a lab's node.
    pub(super) fn read(names: &Names) -> Result<Self, LabError> {
        netns::inside(&names.node(), || {
            let node = Node::open(&NodeOptions::default())?;
            let mut drops = Self::default();
            for (variant, family) in Variant::BOTH.into_iter().flat_map(|v| Family::BOTH.map(|f| (v, f))) {
                if let Captured::Present { bytes, .. } = node.read(Item::IptablesSave(family, variant))? {
                    drops.add(&format!("iptables-{variant} {family}"), &String::from_utf8_lossy(&bytes));
                }
            }
            Ok(drops)
        })
    }

    fn add(&mut self, tool: &str, text: &str) {
        let mut place = String::new();
        for line in text.lines() {
            if let Some(table) = line.strip_prefix('*') {
                place = format!("{tool} {table}");
            }
            let policy = line.starts_with(':') && line.contains(" DROP [");
            let rule = line.starts_with('[') && [" -j DROP", " -j REJECT"].iter().any(|verdict| line.contains(verdict));
            let counters = line.split_once('[').and_then(|(_, rest)| rest.split_once(':'));
            if let Some((packets, _)) = counters.filter(|_| policy || rule) {
                let rule = if policy { line.split(" [").next() } else { line.split_once("] ").map(|(_, rule)| rule) };
                let key = (place.clone(), rule.unwrap_or(line).to_owned());
                *self.0.entry(key).or_default() += packets.parse::<u64>().unwrap_or_default();
            }
        }
    }

    /// What each rule dropped since an earlier reading.
    fn since(&self, before: &Self) -> BTreeMap<&(String, String), u64> {
        let grown =
            self.0.iter().map(|(key, n)| (key, n.saturating_sub(before.0.get(key).copied().unwrap_or_default())));
        grown.filter(|(_, n)| *n > 0).collect()
    }
}

/// Rules that dropped something in the second span and nothing in the first.
pub(super) fn suspects(idle: [&Drops; 2], served: [&Drops; 2]) -> Vec<Suspect> {
    let before = idle[1].since(idle[0]);
    let now = served[1].since(served[0]);
    let new = now.into_iter().filter(|(key, _)| !before.contains_key(key));
    let mut found: Vec<Suspect> =
        new.map(|((place, rule), packets)| Suspect { place: place.clone(), rule: rule.clone(), packets }).collect();
    found.sort_by_key(|suspect| std::cmp::Reverse(suspect.packets));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drops(a: u64, b: u64, policy: u64) -> Drops {
        let mut drops = Drops::default();
        drops.add(
            "iptables-nft IPv4",
            &format!(
                "*filter\n:FORWARD DROP [{policy}:9]\n:INPUT ACCEPT [7:7]\n[{a}:1] -A FORWARD -i eth0 -j DROP\n\
                 [{b}:1] -A INPUT -j REJECT --reject-with icmp-port-unreachable\n[9:9] -A INPUT -j ACCEPT\nCOMMIT\n"
            ),
        );
        drops
    }

    #[test]
    fn only_what_dropped_nothing_before_is_suspected() {
        let (start, idle, served) = (drops(0, 5, 0), drops(0, 9, 0), drops(8, 30, 3));
        let found = suspects([&start, &idle], [&idle, &served]);
        let rules: Vec<_> = found.iter().map(|s| (s.rule.as_str(), s.packets)).collect();
        assert_eq!(rules, [("-A FORWARD -i eth0 -j DROP", 8), (":FORWARD DROP", 3)]);
        assert_eq!(found[0].place, "iptables-nft IPv4 filter");
        assert!(suspects([&start, &idle], [&served, &served]).is_empty());
    }
}
