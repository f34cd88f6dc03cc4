//! What a node's rules and settings are, without what traffic changes: to be compared before and after.

use std::collections::BTreeMap;

use crate::capture::{Captured, Item, Node, NodeOptions, Variant};
use crate::lab::{LabError, Names, netns};
use crate::model::Family;

/// Lines by what they are of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State(BTreeMap<String, Vec<String>>);

/// Differences are listed up to this many.
const FEW: usize = 8;

impl State {
    /// Reads it from a lab's node.
    pub(super) fn read(names: &Names) -> Result<Self, LabError> {
        netns::inside(&names.node(), || {
            let node = Node::open(&NodeOptions::default())?;
            let mut state = Self::default();
            let saves = Variant::BOTH.into_iter().flat_map(|v| Family::BOTH.map(|f| Item::IptablesSave(f, v)));
            for item in saves.chain([Item::NftTables, Item::NftOthers, Item::Ipset, Item::RouteRules, Item::Sysctl]) {
                if let Captured::Present { bytes, .. } = node.read(item)? {
                    state.0.insert(item.name().to_owned(), lines(item, &String::from_utf8_lossy(&bytes)));
                }
            }
            Ok(state)
        })
    }

    /// What is not in `after` as it is here: the first few, and the number of the rest.
    pub(super) fn differences(&self, after: &Self) -> Vec<String> {
        let none = Vec::new();
        let mut out = Vec::new();
        let names: std::collections::BTreeSet<&String> = self.0.keys().chain(after.0.keys()).collect();
        for name in names {
            let (one, other) = (self.0.get(name).unwrap_or(&none), after.0.get(name).unwrap_or(&none));
            if one == other {
                continue;
            }
            let before = out.len();
            out.extend(one.iter().filter(|line| !other.contains(line)).map(|line| format!("{name}: gone: {line}")));
            out.extend(other.iter().filter(|line| !one.contains(line)).map(|line| format!("{name}: new: {line}")));
            if out.len() == before {
                let at = one.iter().zip(other).find(|(a, b)| a != b).map_or("", |(a, _)| a.as_str());
                out.push(format!("{name}: in another order from: {at}"));
            }
        }
        let more = out.len().saturating_sub(FEW);
        if more > 0 {
            out.truncate(FEW);
            out.push(format!("and {more} more"));
        }
        out
    }
}

/// The lines of an item that say what the node is set to.
fn lines(item: Item, text: &str) -> Vec<String> {
    match item {
        Item::IptablesSave(..) => text.lines().filter(|line| !line.starts_with('#')).map(without_counters).collect(),
        Item::NftTables => of_nft(text),
        Item::NftOthers => of_json(text),
        Item::Sysctl => {
            let counts = |line: &&str| !line.contains("nf_conntrack_count") && !line.contains("nf_conntrack_max");
            text.lines().filter(counts).map(str::to_owned).collect()
        }
        // How many entries a set has by now is no part of how it was made.
        Item::Ipset => text.lines().filter(|line| !line.contains(" timeout ")).map(str::to_owned).collect(),
        _ => text.lines().map(str::to_owned).collect(),
    }
}

/// A line of iptables-save without `[packets:bytes]`.
fn without_counters(line: &str) -> String {
    match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, rule)) => rule.to_owned(),
        None => line.split(" [").next().unwrap_or(line).to_owned(),
    }
}

/// kube-proxy's tables without counters, and without the clients that its sets remember.
fn of_nft(text: &str) -> Vec<String> {
    let mut remembering = false;
    let mut out = Vec::new();
    for line in text.lines() {
        if line.starts_with("\tset ") || line.starts_with("\tmap ") || line.starts_with("\tchain ") {
            remembering = line.starts_with("\tset affinity-");
        }
        if remembering && !line.contains("type ") && !line.contains("set ") {
            continue;
        }
        let mut words: Vec<&str> = line.split(' ').collect();
        while let Some(at) = words.iter().position(|word| *word == "packets") {
            words.drain(at..(at + 4).min(words.len()));
        }
        out.push(words.join(" "));
    }
    out
}

/// A listing in JSON, object by object, without numbers that the kernel gives or counts.
fn of_json(text: &str) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Document {
        nftables: Vec<serde_json::Value>,
    }
    fn strip(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(map) => {
                for word in ["handle", "packets", "bytes", "expires"] {
                    map.remove(word);
                }
                map.values_mut().for_each(strip);
            }
            serde_json::Value::Array(list) => list.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let Ok(document) = serde_json::from_str::<Document>(text) else { return Vec::new() };
    let objects = document.nftables.into_iter().map(|mut object| {
        strip(&mut object);
        object.to_string()
    });
    // A table of iptables-nft that is made when it is first needed, and empty, is no change; kube-proxy's are compared as text.
    let quiet = |line: &String| {
        line.starts_with("{\"metainfo\"")
            || (line.starts_with("{\"table\"")
                && (line.contains("\"family\":\"ip\"") || line.contains("\"family\":\"ip6\"")))
    };
    let mut objects: Vec<String> = objects.filter(|line| !quiet(line)).collect();
    objects.dedup();
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str) -> State {
        let item = Item::IptablesSave(Family::V4, Variant::Nft);
        State(BTreeMap::from([("rules".to_owned(), lines(item, text))]))
    }

    #[test]
    fn counters_and_time_are_no_differences() {
        let before = state("# at noon\n*nat\n:INPUT ACCEPT [1:2]\n[3:4] -A INPUT -j A\n-A INPUT -j B\nCOMMIT\n");
        assert!(
            before
                .differences(&state("*nat\n:INPUT ACCEPT [9:9]\n[0:0] -A INPUT -j A\n-A INPUT -j B\nCOMMIT\n"))
                .is_empty()
        );
    }

    #[test]
    fn what_is_gone_new_or_elsewhere_is_told() {
        let before = state("*nat\n-A INPUT -j A\n-A INPUT -j B\n");
        assert_eq!(before.differences(&state("*nat\n-A INPUT -j B\n")), ["rules: gone: -A INPUT -j A"]);
        assert_eq!(before.differences(&state("*nat\n-A INPUT -j A\n-A INPUT -j B\n-A X\n")), ["rules: new: -A X"]);
        let turned = before.differences(&state("*nat\n-A INPUT -j B\n-A INPUT -j A\n"));
        assert_eq!(turned, ["rules: in another order from: -A INPUT -j A"]);
    }

    #[test]
    fn what_nft_counts_and_remembers_is_no_part() {
        let text = "table ip kube-proxy {\n\tset affinity-X {\n\t\ttype ipv4_addr\n\t\telements = { 10.0.0.1 timeout 3h }\n\t}\n\
                    \tchain a {\n\t\tcounter packets 3 bytes 4 drop\n\t}\n}\n";
        let kept = of_nft(text).join("\n");
        assert!(!kept.contains("10.0.0.1") && !kept.contains("packets") && kept.contains("counter drop"), "{kept}");
    }
}
