//! nftables tables of others (firewalls, operators), put back as nft listed them.
//!
//! A listing in JSON is nearly what nft takes: it has handles, which are the kernel's to give, and an order in which a rule may
//! stand before what it names. What iptables-nft prints of itself comes by iptables-restore and is none of these.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::LeftOut;
use super::left_out::few;
use crate::capture::{command, nft_table_has_reader};

/// Tables of a recorded ruleset.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tables {
    /// Those of others, in the order in which they were made.
    pub(super) others: Vec<Table>,
    /// The kernel's number of every table, by family and name: it grows with each that is made.
    pub(super) handles: BTreeMap<(String, String), u64>,
    /// Chains of iptables-nft's tables that hold rules which only nft can have written.
    pub(super) native: Vec<String>,
}

/// A table of somebody else.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    pub(super) family: String,
    pub(super) name: String,
    /// What is in it, as nft lists it.
    objects: Vec<Value>,
}

#[derive(Deserialize)]
struct Document {
    nftables: Vec<BTreeMap<String, Value>>,
}

/// Kinds of objects in the order in which nft can take them: what is named stands before what names it.
const ORDER: [&[&str]; 6] = [
    &["table"],
    &["counter", "quota", "limit", "secmark", "synproxy", "ct helper", "ct timeout", "ct expectation"],
    &["flowtable"],
    &["chain"],
    &["set", "map", "element"],
    &["rule"],
];

impl Tables {
    /// Reads what `nft -j` said: of a whole ruleset or of the tables of others.
    pub(super) fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_slice(text)?;
        let mut tables = Self::default();
        let mut found: BTreeMap<(String, String), Vec<(usize, Value)>> = BTreeMap::new();
        for (kind, object) in document.nftables.into_iter().flatten() {
            let Some(place) = ORDER.iter().position(|kinds| kinds.contains(&kind.as_str())) else { continue };
            let word = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let key = (word("family"), word(if kind == "table" { "name" } else { "table" }));
            if kind == "table" {
                tables.handles.extend(object["handle"].as_u64().map(|handle| (key.clone(), handle)));
            }
            if nft_table_has_reader(&key.0, &key.1) {
                if kind == "rule" && key.1 != "kube-proxy" && is_native(&object) {
                    let chain = format!("{} {} {}", key.0, key.1, word("chain"));
                    if !tables.native.contains(&chain) {
                        tables.native.push(chain);
                    }
                }
                continue;
            }
            let objects = found.entry(key).or_default();
            let known = kind == "table" && objects.iter().any(|(at, _)| *at == 0);
            if !known {
                objects.push((place, json!({ kind: without_handle(object) })));
            }
        }
        tables.others = found
            .into_iter()
            .map(|((family, name), mut objects)| {
                objects.sort_by_key(|(place, _)| *place);
                Table { family, name, objects: objects.into_iter().map(|(_, object)| object).collect() }
            })
            .collect();
        let handles = &tables.handles;
        let handle = |table: &Table| handles.get(&(table.family.clone(), table.name.clone())).copied();
        tables.others.sort_by_key(|table| (handle(table), table.name.clone()));
        Ok(tables)
    }

    /// When a table was made, as a number that only compares.
    pub(super) fn made(&self, family: &str, name: &str) -> Option<u64> {
        self.handles.get(&(family.to_owned(), name.to_owned())).copied()
    }
}

/// Whether a rule in a table of iptables-nft is not one of its own: all of those count packets.
fn is_native(rule: &Value) -> bool {
    let statements = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
    !statements.iter().any(|statement| statement.get("counter").is_some() || statement.get("xt").is_some())
}

fn without_handle(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove("handle");
    }
    object
}

/// Whether nft printed a rule without all of it: extensions of iptables, which it cannot take back.
fn is_lossy(object: &Value) -> bool {
    let statements = object["rule"]["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
    statements.iter().any(|statement| statement.is_null() || statement.get("xt").is_some())
}

impl Table {
    /// Makes the table in the thread's network namespace; what cannot be made is told.
    pub(super) fn load(&self) -> Result<Vec<LeftOut>, command::CommandError> {
        let table = format!("nftables table {} {}", self.family, self.name);
        let mut out = Vec::new();
        let (lossy, objects): (Vec<&Value>, Vec<&Value>) = self.objects.iter().partition(|object| is_lossy(object));
        if !lossy.is_empty() {
            let chains: Vec<&str> = lossy.iter().filter_map(|rule| rule["rule"]["chain"].as_str()).collect();
            out.push(LeftOut::new(
                format!("{} rules of {table}, in {}", lossy.len(), few(&chains)),
                "they hold extensions of iptables, which nft lists but does not take",
            ));
        }
        let text = json!({ "nftables": objects }).to_string();
        let run = command::run("nft", ["-j", "-f", "-"], Some(text.as_bytes()))?;
        if !run.status.success() {
            let said = String::from_utf8_lossy(&run.stderr);
            let why = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("nft does not take it back");
            // An error repeats what it is about, which may be all of the text.
            let why: String = why.chars().take(160).collect();
            out.push(LeftOut::new(table, why.trim_start_matches("internal:0:0-0: ").to_owned()));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_others_without_handles_and_in_an_order_that_nft_takes() {
        let text = br#"{"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "ip", "name": "kube-proxy", "handle": 7}},
            {"table": {"family": "ip", "name": "filter", "handle": 2}},
            {"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 9, "expr": [{"drop": null}]}},
            {"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "handle": 3,
                      "expr": [{"counter": {"packets": 0, "bytes": 0}}]}},
            {"table": {"family": "inet", "name": "site", "handle": 3}},
            {"rule": {"family": "inet", "table": "site", "chain": "input", "handle": 8, "expr": [{"xt": null}]}},
            {"map": {"family": "inet", "table": "site", "name": "m", "handle": 5, "type": "mark", "map": "verdict"}},
            {"chain": {"family": "inet", "table": "site", "name": "input", "handle": 1}},
            {"table": {"family": "inet", "name": "early", "handle": 1}},
            {"table": {"family": "inet", "name": "site", "handle": 3}}]}"#;
        let tables = Tables::parse(text).expect("JSON");
        let names: Vec<_> = tables.others.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, ["early", "site"]);
        let kinds: Vec<_> =
            tables.others[1].objects.iter().filter_map(|o| o.as_object()?.keys().next().cloned()).collect();
        assert_eq!(kinds, ["table", "chain", "map", "rule"]);
        assert!(!tables.others[1].objects.iter().any(|object| object.to_string().contains("handle")));
        assert!(is_lossy(&tables.others[1].objects[3]));
        assert_eq!(tables.native, ["ip filter FORWARD"]);
        assert!(tables.made("ip", "filter") < tables.made("ip", "kube-proxy"));
    }
}
