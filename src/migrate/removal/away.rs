//! What is to be taken away, computed from a state.

use std::collections::BTreeSet;
use std::fmt;

use super::change::{Act, Change};
use super::ipvs;
use super::select::select;
use super::state::{State, Text};
use super::{Count, Kept, Reason, RemovalError, lossy, sets, sysctl, tables};
use crate::capture::Variant;
use crate::inspect::iptables::{Rule, Table};
use crate::model::{Family, KubeVersion};

/// What is to be taken away from a node, borrowed from its state.
#[derive(Debug)]
pub struct Removal<'s> {
    tables: Vec<TablePart<'s>>,
    /// What is of other kinds.
    others: Vec<Change>,
    kept: Vec<Kept>,
}

/// One table's part of a removal.
#[derive(Debug)]
struct TablePart<'s> {
    variant: Variant,
    family: Family,
    table: &'s [u8],
    /// Jumps in built-in chains: the chain, and the rule's text.
    jumps: Vec<(&'s [u8], &'s [u8])>,
    chains: Vec<ChainPart<'s>>,
}

/// A chain that goes, with its rules' text.
#[derive(Debug)]
struct ChainPart<'s> {
    name: &'s [u8],
    rules: Vec<&'s [u8]>,
}

impl<'s> Removal<'s> {
    /// What goes from a node in this state. With an old kubelet some of kube-proxy's chains are the kubelet's too, and stay; if its
    /// version is not known, its other chains tell.
    pub fn of(state: &'s State, kubelet: Option<KubeVersion>) -> Result<Self, RemovalError> {
        if let Some(unseen) = state.unseen.first() {
            return Err(RemovalError::Unseen(unseen.clone()));
        }
        let mut removal = Self { tables: Vec::new(), others: Vec::new(), kept: Vec::new() };
        let mut used = sets::members(&state.sets);
        for text in &state.rules {
            for table in text.parsed()?.tables() {
                removal.table(text, table, kubelet, &mut used);
            }
        }
        removal.tables.sort_by_key(|part| order(part.table));
        for family in Family::BOTH {
            removal.others.extend(state.listing(family).map(|listing| tables::removal(family, listing)));
        }
        if let Some(change) = ipvs::removal(&state.virtual_services()?) {
            removal.others.extend(sysctl::expiry(&state.sysctls));
            removal.others.push(change);
        }
        removal.others.extend(state.device()?.and_then(|device| device.removal(&state.in_use)));
        let stays = |set: &str| Kept { what: format!("ipset {set}"), reason: Reason::Used };
        removal.kept.extend(sets::kept(&state.sets, &used).into_iter().map(stays));
        removal.others.extend(sets::removal(&state.sets, &used));
        let (counters, counting): (Vec<_>, Vec<_>) =
            state.counters.iter().cloned().partition(|name| !used.contains(name));
        removal.kept.extend(counting.iter().map(|name| Kept { what: format!("nfacct {name}"), reason: Reason::Used }));
        if !counters.is_empty() {
            let count = Count::new("nfacct", [("counters", counters.len())]);
            removal.others.push(Change { act: Act::DeleteCounters(counters), count });
        }
        Ok(removal)
    }

    /// Adds what goes from a table, and to `used` the names of sets and counters that what stays of it uses.
    fn table(&mut self, text: &Text, table: &Table<'s>, kubelet: Option<KubeVersion>, used: &mut BTreeSet<String>) {
        let (variant, family) = (text.variant, text.family);
        let selection = select(table, kubelet);
        let name = |chain: usize| table.chains()[chain].name;
        self.kept.extend(selection.kept.into_iter().map(|(chain, reason)| Kept {
            what: format!("iptables-{variant} {family} {} {}", lossy(table.name()), lossy(name(chain))),
            reason,
        }));
        let goes: BTreeSet<usize> = selection.chains.iter().copied().collect();
        for rule in table.rules().iter().filter(|rule| !goes.contains(&rule.chain())) {
            used.extend(uses(rule));
        }
        if selection.chains.is_empty() && selection.jumps.is_empty() {
            return;
        }
        let jump = |(chain, number)| Some((name(chain), table.rule(chain, number + 1)?.body()));
        self.tables.push(TablePart {
            variant,
            family,
            table: table.name(),
            jumps: selection.jumps.into_iter().filter_map(jump).collect(),
            chains: selection.chains.into_iter().map(|chain| ChainPart::of(table, chain)).collect(),
        });
    }

    /// Whether there is nothing to take away.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.others.is_empty()
    }

    /// Whether nothing but the device of ipvs mode is left to take away.
    pub fn is_at_most_the_device(&self) -> bool {
        self.tables.is_empty() && self.others.iter().all(|change| matches!(change.act, Act::Device(_)))
    }

    /// How much goes, table by table, in the order of the removal.
    pub fn counts(&self) -> Vec<Count> {
        let others = self.others.iter().map(|change| change.count.clone());
        self.tables.iter().map(TablePart::count).chain(others).collect()
    }

    /// What of kube-proxy's name stays, and why: each reason once.
    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    pub(super) fn changes(self) -> Vec<Change> {
        self.tables.iter().map(TablePart::change).chain(self.others).collect()
    }

    /// Whether all of it is in a state that was kept before.
    pub(super) fn is_in(&self, kept: &State, now: &State) -> Result<(), RemovalError> {
        for part in &self.tables {
            let what = |name: &[u8]| {
                let (table, name) = (lossy(part.table), lossy(name));
                RemovalError::NotKept { what: format!("iptables-{} {} {table} {name}", part.variant, part.family) }
            };
            let dump = kept.text(part.variant, part.family).map(Text::parsed).transpose()?.unwrap_or_default();
            let table = dump.table(&lossy(part.table));
            let bodies = |name: &[u8]| {
                let table = table?;
                Some(table.rules_of(table.chain(name)?).map(Rule::body))
            };
            for chain in &part.chains {
                if !bodies(chain.name).is_some_and(|rules| rules.eq(chain.rules.iter().copied())) {
                    return Err(what(chain.name));
                }
            }
            for (from, rule) in &part.jumps {
                if !bodies(from).is_some_and(|mut rules| rules.any(|body| body == *rule)) {
                    return Err(what(from));
                }
            }
        }
        let differs = |what: String| Err(RemovalError::NotKept { what });
        for family in Family::BOTH {
            let (then, now) = (kept.listing(family), now.listing(family));
            if now.is_some_and(|now| then.is_none_or(|then| tables::still(then) != tables::still(now))) {
                return differs(format!("kube-proxy's nftables table of {family}"));
            }
        }
        // What would have to come back, were all gone, is all that is there.
        if let Some(set) = sets::added(&kept.sets, &now.sets) {
            return differs(format!("ipset {set}"));
        }
        if let Some(service) = ipvs::added(&kept.virtual_services()?, &now.virtual_services()?) {
            return differs(format!("virtual service {service}"));
        }
        Ok(())
    }
}

impl fmt::Display for Removal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.tables {
            writeln!(f, "{}", part.count())?;
            for (from, rule) in &part.jumps {
                writeln!(f, "  -A {} {}", lossy(from), lossy(rule))?;
            }
            for chain in &part.chains {
                let name = lossy(chain.name);
                writeln!(f, "  :{name}")?;
                for rule in &chain.rules {
                    writeln!(f, "  -A {name} {}", lossy(rule))?;
                }
            }
        }
        for change in &self.others {
            writeln!(f, "{}", change.count)?;
            change.lines().iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        self.kept.iter().try_for_each(|kept| writeln!(f, "{kept}"))
    }
}

impl<'s> ChainPart<'s> {
    fn of(table: &Table<'s>, chain: usize) -> Self {
        Self { name: table.chains()[chain].name, rules: table.rules_of(chain).map(Rule::body).collect() }
    }
}

impl TablePart<'_> {
    fn count(&self) -> Count {
        let rules = self.chains.iter().map(|chain| chain.rules.len()).sum();
        Count::of_rules(self.variant, self.family, self.table, [self.jumps.len(), self.chains.len(), rules])
    }

    /// Jumps by their text; chains are declared, which empties them, and then deleted.
    fn change(&self) -> Change {
        let mut text = begin(self.table);
        for chain in &self.chains {
            text.extend([b":", chain.name, b" - [0:0]\n"].concat());
        }
        for (from, rule) in &self.jumps {
            text.extend([b"-D ", *from, b" ", *rule, b"\n"].concat());
        }
        for chain in &self.chains {
            text.extend([b"-X ", chain.name, b"\n"].concat());
        }
        text.extend(COMMIT);
        let act = Act::Rules { variant: self.variant, family: self.family, text };
        Change { act, count: self.count() }
    }
}

/// The order in which tables go: first what translates, which is kube-proxy's own order. They come back the other way round, so
/// that nothing is translated that the filter does not let pass.
pub(super) fn order(table: &[u8]) -> u8 {
    match table {
        b"nat" => 0,
        b"filter" => 1,
        _ => 2,
    }
}

pub(super) const COMMIT: &[u8] = b"COMMIT\n";

pub(super) fn begin(table: &[u8]) -> Vec<u8> {
    [b"*", table, b"\n"].concat()
}

/// The names of kube-proxy's sets and counters that a rule uses.
fn uses(rule: &Rule<'_>) -> Vec<String> {
    let names = ["--match-set", "--add-set", "--del-set", "--map-set", "--nfacct-name"];
    let mut words = rule.words().filter(|word| !word.raw().is_empty());
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        if names.iter().any(|name| word.raw() == name.as_bytes()) {
            found.extend(words.next().map(|name| name.text().into_owned()));
        }
    }
    found
}
