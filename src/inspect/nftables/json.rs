//! Reads what `nft -j list ruleset` or `nft -j list table` prints, object by object.
//!
//! Tables other than kube-proxy's are skipped without being built: on a node with iptables-nft they are most of the text.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::decode;
use super::ruleset::{Chain, Hook, Rule, Ruleset, Set, TABLE};
use super::text::word;
use super::tree::{Json, Text};
use crate::error::Hinted;
use crate::model::Family;

/// The text is not what `nft -j` prints.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the nft ruleset at {element}")]
pub struct ParseError {
    /// The element that could not be read.
    pub element: Element,
    /// What is wrong, with line and column.
    #[source]
    pub source: serde_json::Error,
}

impl Hinted for ParseError {
    fn hints(&self) -> Vec<String> {
        vec!["nft -j list ruleset   (must print one JSON object with the member \"nftables\")".to_owned()]
    }
}

/// An element of nft's JSON, for messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Element {
    /// The document itself.
    #[default]
    Document,
    /// An object whose kind or name was not read yet, counted from 1.
    Item(usize),
    /// A whole object, such as a chain.
    Object {
        /// `table`, `set`, `map`, `chain` or another kind.
        kind: String,
        /// Its name, as far as read.
        name: String,
    },
    /// An element of a set or map.
    SetElement {
        /// Set or map.
        set: String,
        /// Position in the set, from 1.
        number: usize,
    },
    /// A rule.
    Rule {
        /// Chain.
        chain: String,
        /// The kernel's number for it.
        handle: u64,
    },
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document => f.write_str("the document"),
            Self::Item(number) => write!(f, "object {number}"),
            Self::Object { kind, name } => write!(f, "{kind} {name}"),
            Self::SetElement { set, number } => write!(f, "element {number} of {set}"),
            Self::Rule { chain, handle } => write!(f, "chain {chain} rule handle {handle}"),
        }
    }
}

/// Reads nft's JSON. Objects may come in any order as long as chains come before their rules, as nft prints them.
pub fn parse(bytes: &[u8]) -> Result<Ruleset, ParseError> {
    let mut state = State::default();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = Document(&mut state).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match read {
        Ok(()) => Ok(state.ruleset),
        Err(source) => Err(ParseError { element: state.at, source }),
    }
}

/// What was read so far, and where the reader is.
#[derive(Default)]
struct State {
    ruleset: Ruleset,
    at: Element,
    items: usize,
}

/// Makes a visitor of maps a seed.
macro_rules! map_seed {
    ($seed:ty, $what:literal) => {
        impl<'de> DeserializeSeed<'de> for $seed {
            type Value = ();

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                deserializer.deserialize_map(self)
            }
        }

        impl<'de> Visitor<'de> for $seed {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($what)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
                self.read(map)
            }
        }
    };
}

/// `{"nftables": [...]}`.
struct Document<'s>(&'s mut State);
map_seed!(Document<'_>, "an object with the member \"nftables\"");

impl Document<'_> {
    fn read<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(Text(key)) = map.next_key()? {
            if key == "nftables" {
                found = true;
                map.next_value_seed(Items(self.0))?;
                self.0.at = Element::Document;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if found { Ok(()) } else { Err(A::Error::missing_field("nftables")) }
    }
}

struct Items<'s>(&'s mut State);

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        loop {
            self.0.items += 1;
            self.0.at = Element::Item(self.0.items);
            if seq.next_element_seed(Item(self.0))?.is_none() {
                return Ok(());
            }
        }
    }
}

/// `{"rule": {...}}` and its kin.
struct Item<'s>(&'s mut State);
map_seed!(Item<'_>, "an object with one member, such as \"rule\"");

impl Item<'_> {
    fn read<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(kind)) = map.next_key()? {
            match &*kind {
                "metainfo" => {
                    map.next_value::<IgnoredAny>()?;
                }
                "rule" => map.next_value_seed(RuleSeed(self.0))?,
                kind => map.next_value_seed(ObjectSeed { state: self.0, kind })?,
            }
        }
        Ok(())
    }
}

/// Whose an object is, as far as its members were read.
#[derive(Default)]
struct Owner<'de> {
    family: Option<Cow<'de, str>>,
    table: Option<Cow<'de, str>>,
}

impl Owner<'_> {
    /// kube-proxy's family; `None` for other people's tables, and while nothing is known.
    fn ours(&self) -> Option<Family> {
        if self.table.as_deref() != Some(TABLE) {
            return None;
        }
        Family::BOTH.into_iter().find(|family| self.family.as_deref() == Some(word(*family)))
    }

    /// Whether it is known to be somebody else's.
    fn foreign(&self) -> bool {
        self.table.as_deref().is_some_and(|table| table != TABLE)
            || self.family.as_deref().is_some_and(|family| Family::BOTH.iter().all(|ours| word(*ours) != family))
    }
}

/// A rule.
struct RuleSeed<'s>(&'s mut State);
map_seed!(RuleSeed<'_>, "a rule");

impl RuleSeed<'_> {
    fn read<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let state = self.0;
        let mut owner = Owner::default();
        let (mut chain, mut handle, mut comment) = (None, 0, None);
        let mut expressions: Option<Vec<Json<'de>>> = None;
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "family" => owner.family = Some(map.next_value::<Text<'de>>()?.0),
                "table" => owner.table = Some(map.next_value::<Text<'de>>()?.0),
                "chain" => chain = Some(map.next_value::<Text<'de>>()?.0),
                "handle" => {
                    handle = map.next_value()?;
                    if let Some(chain) = &chain {
                        state.at = Element::Rule { chain: chain.clone().into_owned(), handle };
                    }
                }
                "comment" => comment = Some(map.next_value::<Text<'de>>()?.0.into()),
                "expr" if !owner.foreign() => expressions = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let Some(family) = owner.ours() else { return Ok(()) };
        let chain = chain.ok_or_else(|| A::Error::missing_field("chain"))?;
        let expressions = expressions.ok_or_else(|| A::Error::missing_field("expr"))?;
        let statements = expressions.iter().map(|expression| decode::statement(expression, family)).collect();
        let table = state.ruleset.slot(family).get_or_insert_default();
        match table.chains.get_mut(&*chain) {
            Some(chain) => chain.rules.push(Rule { handle, comment, statements }),
            None => return Err(A::Error::custom("a rule of a chain that was not listed")),
        }
        Ok(())
    }
}

/// A table, chain, set, map or anything else but a rule.
struct ObjectSeed<'s, 'k> {
    state: &'s mut State,
    kind: &'k str,
}
map_seed!(ObjectSeed<'_, '_>, "an object of nftables");

impl ObjectSeed<'_, '_> {
    fn read<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { state, kind } = self;
        let mut owner = Owner::default();
        let mut name: Option<Cow<'de, str>> = None;
        let mut hook = HookParts::default();
        let mut set = Set { is_map: kind == "map", ..Set::default() };
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "family" => owner.family = Some(map.next_value::<Text<'de>>()?.0),
                "table" => owner.table = Some(map.next_value::<Text<'de>>()?.0),
                "name" => {
                    let text = map.next_value::<Text<'de>>()?.0;
                    state.at = Element::Object { kind: kind.to_owned(), name: text.clone().into_owned() };
                    name = Some(text);
                }
                "type" if kind == "chain" => hook.kind = Some(map.next_value::<Text<'de>>()?.0.into()),
                "hook" if kind == "chain" => hook.hook = Some(map.next_value::<Text<'de>>()?.0.into()),
                "prio" if kind == "chain" => hook.priority = Some(map.next_value()?),
                "policy" if kind == "chain" => hook.accepts = map.next_value::<Text<'de>>()?.0 == "accept",
                "timeout" if set_like(kind) => set.timeout = Some(map.next_value()?),
                "elem" if set_like(kind) && !owner.foreign() => {
                    let family = owner.ours().unwrap_or(Family::V4);
                    let label = format!("{kind} {}", name.as_deref().unwrap_or_default());
                    map.next_value_seed(Elements { state, set: &mut set, label, family })?;
                    set.elements.sort_by(|a, b| a.key.cmp(&b.key));
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if kind == "table" {
            owner.table.clone_from(&name);
        }
        let Some(family) = owner.ours() else { return Ok(()) };
        let name = name.ok_or_else(|| A::Error::missing_field("name"))?;
        let table = state.ruleset.slot(family).get_or_insert_default();
        match kind {
            "table" => {}
            "chain" => {
                table.chains.insert(name.into(), Chain { hook: hook.whole(), rules: Vec::new() });
            }
            kind if set_like(kind) => {
                table.sets.insert(name.into(), set);
            }
            kind => table.others.push(format!("{kind} {name}")),
        }
        Ok(())
    }
}

fn set_like(kind: &str) -> bool {
    matches!(kind, "set" | "map")
}

/// A hook whose parts come one by one.
#[derive(Default)]
struct HookParts {
    kind: Option<Box<str>>,
    hook: Option<Box<str>>,
    priority: Option<i32>,
    accepts: bool,
}

impl HookParts {
    fn whole(self) -> Option<Hook> {
        Some(Hook { kind: self.kind?, hook: self.hook?, priority: self.priority?, accepts: self.accepts })
    }
}

/// The elements of a set or map.
struct Elements<'s> {
    state: &'s mut State,
    set: &'s mut Set,
    label: String,
    family: Family,
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the elements of a set")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.state.at = Element::SetElement { set: self.label, number: 1 };
        while let Some(element) = seq.next_element::<Json<'de>>()? {
            let element = decode::element(&element, self.set.is_map, self.family)
                .ok_or_else(|| A::Error::custom("neither a key nor a pair of key and verdict"))?;
            self.set.elements.push(element);
            if let Element::SetElement { number, .. } = &mut self.state.at {
                *number += 1;
            }
        }
        Ok(())
    }
}
