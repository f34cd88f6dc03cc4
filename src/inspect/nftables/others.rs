//! nftables tables of others: who they are, where they hook in, and whether they keep conntrack and nat alive.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::decode;
use super::ruleset::{Chain, Hook, Rule, Set, Table};
use super::text::word;
use super::tree::Json;
use crate::capture::nft_table_has_reader;
use crate::model::Family;

/// What `nft -j` says of everybody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Version of nft.
    pub version: Option<String>,
    /// The tables, kube-proxy's and those of iptables-nft left out.
    pub tables: Vec<OtherTable>,
    /// Chains of iptables-nft's tables, as far as they are listed, by family, table and name.
    pub iptables: BTreeMap<(Family, String, String), Listed>,
}

/// A chain of iptables-nft's tables, as nft lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Rules in it.
    pub rules: usize,
    /// Rules that iptables-nft prints without a condition: number from 1, and the condition.
    pub losing: Vec<(usize, Loss)>,
    /// Rules that do not count, which all of iptables-nft's own do.
    pub native: usize,
}

/// A condition that nft has and iptables-nft does not print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// One by a set or a map.
    Set,
    /// One by a range of addresses.
    Range,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Set => "a set or map",
            Self::Range => "a range of addresses",
        })
    }
}

/// A table of somebody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherTable {
    /// `ip`, `ip6`, `inet` or another.
    pub family: String,
    /// Name.
    pub name: String,
    /// Chains that the kernel calls, by name.
    pub hooks: Vec<(String, Hook)>,
    /// Rules in it.
    pub rules: usize,
    /// Whether a rule makes the kernel track connections.
    pub tracks: bool,
    /// Whether a chain holds the nat hooks.
    pub translates: bool,
    /// Rules that ask conntrack how a packet was translated: chain and handle.
    pub ask_translation: Vec<(String, u64)>,
    /// What packets of a family meet in it, as far as that is understood.
    pub meets: BTreeMap<Family, Table>,
}

impl OtherTable {
    /// Whether packets of a family meet it.
    pub fn serves(&self, family: Family) -> bool {
        self.meets.contains_key(&family)
    }

    /// The same without the chains that translate destinations later than at this priority.
    #[must_use]
    pub fn in_front_of(mut self, priority: i32) -> Self {
        let late = |hook: &Hook| {
            &*hook.kind == "nat" && matches!(&*hook.hook, "prerouting" | "output") && hook.priority > priority
        };
        for table in self.meets.values_mut() {
            table.chains.retain(|_, chain| !chain.hook.as_ref().is_some_and(late));
        }
        self
    }
}

/// Reads what `nft -j list ruleset`, or several lists joined, prints.
pub fn others(bytes: &[u8]) -> Result<Others, serde_json::Error> {
    serde_json::from_slice::<Document>(bytes).map(|document| document.nftables.0)
}

#[derive(Deserialize)]
struct Document {
    nftables: Objects,
}

struct Objects(Others);

impl<'de> Deserialize<'de> for Objects {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Objects;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Objects, A::Error> {
                let mut others = Others::default();
                while let Some(object) = seq.next_element()? {
                    add(&mut others, object).map_err(de::Error::custom)?;
                }
                Ok(Objects(others))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// An object with one member, which tells its kind. Other kinds are passed over.
#[derive(Deserialize)]
struct Object<'a> {
    metainfo: Option<Metainfo>,
    table: Option<TableObject>,
    chain: Option<ChainObject>,
    #[serde(borrow)]
    rule: Option<RuleObject<'a>>,
    #[serde(borrow)]
    set: Option<SetObject<'a>>,
    #[serde(borrow)]
    map: Option<SetObject<'a>>,
}

#[derive(Deserialize)]
struct Metainfo {
    version: Option<String>,
}

#[derive(Deserialize)]
struct TableObject {
    family: String,
    name: String,
}

#[derive(Deserialize)]
struct ChainObject {
    family: String,
    table: String,
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    hook: Option<String>,
    prio: Option<i32>,
    policy: Option<String>,
}

/// A rule, with its statements as text: those of kube-proxy, which are most, are not looked at.
#[derive(Deserialize)]
struct RuleObject<'a> {
    #[serde(borrow)]
    family: Cow<'a, str>,
    #[serde(borrow)]
    table: Cow<'a, str>,
    chain: String,
    #[serde(default)]
    handle: u64,
    comment: Option<String>,
    #[serde(borrow)]
    expr: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct SetObject<'a> {
    family: String,
    table: String,
    name: String,
    #[serde(borrow)]
    elem: Option<&'a RawValue>,
}

/// The items of a list that is there; each in this family's words.
fn items<T>(list: Option<&RawValue>, read: impl Fn(&Json<'_>) -> Option<T>) -> Result<Vec<T>, serde_json::Error> {
    let items: Vec<Json<'_>> = list.map_or(Ok(Vec::new()), |text| serde_json::from_str(text.get()))?;
    Ok(items.iter().filter_map(read).collect())
}

impl RuleObject<'_> {
    fn statements(&self) -> Result<Value, serde_json::Error> {
        self.expr.map_or(Ok(Value::Null), |text| serde_json::from_str(text.get()))
    }
}

/// The family of a table that iptables-nft shows.
fn is_iptables(family: &str, table: &str) -> Option<Family> {
    let shown = table != "kube-proxy" && nft_table_has_reader(family, table);
    Family::BOTH.into_iter().find(|of| shown && word(*of) == family)
}

/// What iptables-nft makes of an expression; tried with 1.8.9.
#[derive(Clone, Copy, Default)]
struct Printed {
    /// What it leaves out.
    loss: Option<Loss>,
    /// Whether it counts.
    counts: bool,
}

impl Printed {
    const fn losing(loss: Option<Loss>) -> Self {
        Self { loss, counts: false }
    }

    fn and(self, other: Self) -> Self {
        Self { loss: self.loss.or(other.loss), counts: self.counts || other.counts }
    }

    fn of(expression: &Value) -> Self {
        match expression {
            Value::String(text) => Self::losing(text.starts_with('@').then_some(Loss::Set)),
            Value::Array(items) => items.iter().map(Self::of).fold(Self::default(), Self::and),
            Value::Object(members) => members.iter().map(Self::of_member).fold(Self::default(), Self::and),
            _ => Self::default(),
        }
    }

    fn of_member((key, below): (&String, &Value)) -> Self {
        match key.as_str() {
            "set" | "map" | "vmap" | "concat" => Self::losing(Some(Loss::Set)),
            "counter" => Self { loss: None, counts: true },
            // Of ports it is printed.
            "range" => {
                let of_addresses = below.as_array().is_some_and(|ends| ends.iter().any(Value::is_string));
                Self::losing(of_addresses.then_some(Loss::Range))
            }
            _ => Self::of(below),
        }
    }
}

/// Whether an expression makes the kernel track connections.
fn tracks(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(key, below)| {
            matches!(key.as_str(), "ct" | "dnat" | "snat" | "masquerade" | "redirect" | "ct helper" | "ct count")
                || tracks(below)
        }),
        Value::Array(items) => items.iter().any(tracks),
        _ => false,
    }
}

/// Whether an expression asks conntrack how a packet was translated: `ct status dnat` or `snat`, or an address or port of a
/// connection's original or reply direction (man nft).
fn asks_translation(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(key, below)| match key.as_str() {
            "match" if below["left"]["ct"]["key"] == "status" => names_translation(&below["right"]),
            "ct" => {
                let key = below["key"].as_str().unwrap_or_default();
                below["dir"].is_string()
                    && ["saddr", "daddr", "proto-src", "proto-dst"].iter().any(|k| key.ends_with(k))
            }
            _ => asks_translation(below),
        }),
        Value::Array(items) => items.iter().any(asks_translation),
        _ => false,
    }
}

fn names_translation(status: &Value) -> bool {
    match status {
        Value::String(word) => word == "dnat" || word == "snat",
        Value::Object(members) => members.values().any(names_translation),
        Value::Array(items) => items.iter().any(names_translation),
        _ => false,
    }
}

fn add(others: &mut Others, object: Object<'_>) -> Result<(), serde_json::Error> {
    if let Some(info) = object.metainfo {
        others.version = others.version.take().or(info.version);
    }
    if let Some(TableObject { family, name }) = object.table {
        table_of(others, &family, &name);
    }
    if let Some(chain) = object.chain
        && let Some(table) = table_of(others, &chain.family, &chain.table)
    {
        let accepts = chain.policy.as_deref() != Some("drop");
        let hook = chain.kind.zip(chain.hook).zip(chain.prio).map(|((kind, hook), priority)| Hook {
            kind: kind.into(),
            hook: hook.into(),
            priority,
            accepts,
        });
        for meets in table.meets.values_mut() {
            meets.chains.insert(chain.name.as_str().into(), Chain { hook: hook.clone(), rules: Vec::new() });
        }
        table.translates |= hook.as_ref().is_some_and(|hook| &*hook.kind == "nat");
        table.hooks.extend(hook.map(|hook| (chain.name, hook)));
    }
    for (set, is_map) in object.set.map(|set| (set, false)).into_iter().chain(object.map.map(|map| (map, true))) {
        let Some(table) = table_of(others, &set.family, &set.table) else { continue };
        for (family, meets) in &mut table.meets {
            let mut elements = items(set.elem, |json| decode::element(json, is_map, *family))?;
            elements.sort_by(|a, b| a.key.cmp(&b.key));
            meets.sets.insert(set.name.as_str().into(), Set { is_map, timeout: None, elements });
        }
    }
    if let Some(rule) = object.rule {
        if let Some(family) = is_iptables(&rule.family, &rule.table) {
            let printed = Printed::of(&rule.statements()?);
            let chain = others.iptables.entry((family, rule.table.into_owned(), rule.chain)).or_default();
            chain.rules += 1;
            chain.native += usize::from(!printed.counts);
            chain.losing.extend(printed.loss.map(|loss| (chain.rules, loss)));
        } else if let Some(table) = table_of(others, &rule.family, &rule.table) {
            table.rules += 1;
            let statements = rule.statements()?;
            table.tracks |= tracks(&statements);
            for (family, meets) in &mut table.meets {
                let statements = items(rule.expr, |json| decode::statement_of_others(json, *family))?;
                let chain = meets.chains.entry(rule.chain.as_str().into()).or_default();
                let comment = rule.comment.as_deref().map(Box::from);
                chain.rules.push(Rule { handle: rule.handle, comment, statements });
            }
            if asks_translation(&statements) {
                table.ask_translation.push((rule.chain, rule.handle));
            }
        }
    }
    Ok(())
}

/// The table, made when it is first met; `None` for those that other readers have.
fn table_of<'o>(others: &'o mut Others, family: &str, name: &str) -> Option<&'o mut OtherTable> {
    if nft_table_has_reader(family, name) {
        return None;
    }
    let known = others.tables.iter().position(|t| t.family == family && t.name == name);
    let at = known.unwrap_or_else(|| {
        let meets = Family::BOTH.into_iter().filter(|of| family == "inet" || family == word(*of));
        others.tables.push(OtherTable {
            family: family.to_owned(),
            name: name.to_owned(),
            meets: meets.map(|of| (of, Table::default())).collect(),
            ..OtherTable::default()
        });
        others.tables.len() - 1
    });
    others.tables.get_mut(at)
}

#[cfg(test)]
mod tests {
    use super::super::ruleset::{Key, Statement};
    use super::{Family, others};

    #[test]
    fn who_hooks_in_and_who_tracks() {
        let text = br#"{"nftables": [
            {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
            {"table": {"family": "inet", "name": "firewalld", "handle": 3}},
            {"table": {"family": "ip", "name": "nat", "handle": 1}},
            {"chain": {"family": "ip", "table": "nat", "name": "POSTROUTING", "type": "nat", "hook": "postrouting", "prio": 100}},
            {"chain": {"family": "inet", "table": "firewalld", "name": "filter_INPUT", "type": "filter", "hook": "input", "prio": 10, "policy": "drop"}},
            {"chain": {"family": "inet", "table": "firewalld", "name": "nat_PRE", "type": "nat", "hook": "prerouting", "prio": -90, "policy": "accept"}},
            {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_INPUT", "handle": 9,
                "expr": [{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established"]}}, {"accept": null}]}},
            {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_INPUT", "handle": 10,
                "expr": [{"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}, {"accept": null}]}},
            {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_INPUT", "handle": 11,
                "expr": [{"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "assured"}}, {"accept": null}]}},
            {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_INPUT", "handle": 12,
                "expr": [{"match": {"op": "==", "left": {"ct": {"key": "ip daddr", "dir": "original"}}, "right": "192.0.2.1"}}, {"drop": null}]}},
            {"rule": {"family": "inet", "table": "firewalld", "chain": "nat_PRE", "handle": 13, "expr": [
                {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": "@x"}},
                {"counter": {"packets": 1, "bytes": 60}}, {"redirect": {"port": 8080}}]}},
            {"set": {"family": "inet", "table": "firewalld", "name": "x", "type": "ipv4_addr", "elem": ["192.0.2.1"]}}
        ]}"#;
        let found = others(text).expect("it is what nft prints");
        assert_eq!(found.version.as_deref(), Some("1.0.6"));
        assert_eq!(found.tables.len(), 1);
        let table = &found.tables[0];
        assert_eq!((table.name.as_str(), table.rules, table.tracks, table.translates), ("firewalld", 5, true, true));
        assert_eq!(table.ask_translation, [10, 12].map(|handle| ("filter_INPUT".to_owned(), handle)));
        assert!(!table.hooks[0].1.accepts && table.hooks[1].1.accepts);
        assert!(table.serves(Family::V6));
        let ipv4 = &table.meets[&Family::V4];
        let statements = &ipv4.chains["nat_PRE"].rules[0].statements;
        assert!(matches!(&statements[..], [Statement::Match(_), Statement::Elsewhere(_)]), "{statements:?}");
        assert_eq!(ipv4.sets["x"].elements[0].key, Key::Address("192.0.2.1".parse().expect("an address")));
        let first = table.clone().in_front_of(-100);
        assert!(!first.meets[&Family::V4].chains.contains_key("nat_PRE"));
        assert!(first.meets[&Family::V4].chains.contains_key("filter_INPUT"));
    }
}
