//! The node's rules, sets and tables, put into its namespace in the order in which they were made.
//!
//! What this machine cannot hold (an extension or a kind of set that its kernel or its tools do not have) is found, left out and
//! told; rules of kube-proxy are never left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::left_out::few;
use super::rules::{self, Rules};
use super::tables::Tables;
use super::{LabError, LeftOut};
use crate::capture::Variant;
use crate::capture::command::CommandError;
use crate::migrate::removal::State;
use crate::model::Family;

/// What is to be put back.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorded {
    /// `iptables-save` of each family and variant.
    pub(super) rules: Vec<Rules>,
    /// kube-proxy's tables of nftables mode, as nft lists them.
    pub(super) own_tables: String,
    /// Tables of others.
    pub(super) tables: Tables,
    /// `ipset save`.
    pub(super) ipsets: Vec<u8>,
    /// All that kube-proxy has made, in ipvs mode.
    pub(super) ipvs: Option<State>,
}

/// One thing to load.
enum Load<'r> {
    OwnTables,
    Table(usize),
    Rules(&'r Rules),
}

impl Recorded {
    /// Puts everything back, in the thread's network namespace, and tells what could not be.
    pub(super) fn load(&self) -> Result<Vec<LeftOut>, LabError> {
        let mut out: Vec<LeftOut> = Vec::new();
        if !self.tables.native.is_empty() {
            let what = format!("rules that nft wrote into tables of iptables-nft: {}", few(&self.tables.native));
            out.push(LeftOut::new(what, "the order of both kinds is not in a snapshot"));
        }
        out.extend(load_ipsets(&self.ipsets)?);
        rules::make_nfacct(&self.rules.iter().flat_map(Rules::nfacct).collect())?;
        for load in self.in_order() {
            match load {
                Load::OwnTables => rules::load_tables(&self.own_tables)?,
                Load::Table(at) => out.extend(self.tables.others[at].load()?),
                Load::Rules(rules) => out.extend(load_rules(rules)?),
            }
        }
        self.ipvs.as_ref().map_or(Ok(()), rules::load_ipvs)?;
        Ok(out)
    }

    /// Chains of one hook and priority judge in the order in which they came: so tables are made in the order in which they were.
    fn in_order(&self) -> Vec<Load<'_>> {
        let made = |family: &str, names: &[&str]| names.iter().filter_map(|name| self.tables.made(family, name)).min();
        let own = ["ip", "ip6"].into_iter().filter_map(|family| made(family, &["kube-proxy"])).min();
        let mut loads = vec![(own, Load::OwnTables)];
        for (at, table) in self.tables.others.iter().enumerate() {
            loads.push((made(&table.family, &[&table.name]), Load::Table(at)));
        }
        for rules in &self.rules {
            let family = if rules.family == Family::V4 { "ip" } else { "ip6" };
            let made = match rules.variant {
                Variant::Nft => made(family, &["nat", "filter", "mangle", "raw", "security"]),
                Variant::Legacy => None,
            };
            loads.push((made, Load::Rules(rules)));
        }
        // What has no number comes behind all that has, in the order above.
        loads.sort_by_key(|(made, _)| made.unwrap_or(u64::MAX));
        loads.into_iter().map(|(_, load)| load).collect()
    }
}

/// Restores what `ipset save` printed: as a whole, or set by set where that fails.
fn load_ipsets(saved: &[u8]) -> Result<Vec<LeftOut>, LabError> {
    match rules::restore_ipsets(saved) {
        Ok(()) => return Ok(Vec::new()),
        Err(LabError::Command(CommandError::Failed { .. })) => {}
        Err(error) => return Err(error),
    }
    let text = String::from_utf8_lossy(saved);
    let mut sets: Vec<(&str, String)> = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let (Some(verb), Some(name)) = (words.next(), words.next()) else { continue };
        if verb == "create" {
            sets.push((name, String::new()));
        }
        if let Some((_, lines)) = sets.iter_mut().find(|(known, _)| *known == name) {
            lines.push_str(line);
            lines.push('\n');
        }
    }
    let mut out = Vec::new();
    for (name, lines) in sets {
        if let Err(LabError::Command(CommandError::Failed { stderr, .. })) = rules::restore_ipsets(lines.as_bytes()) {
            out.push(LeftOut::new(format!("ipset {name}"), reason(&stderr)));
        }
    }
    Ok(out)
}

/// Restores rules: as a whole, or without those that this machine cannot hold.
fn load_rules(rules: &Rules) -> Result<Vec<LeftOut>, LabError> {
    let whole = match rules.restore(&rules.text) {
        Ok(()) => return Ok(Vec::new()),
        Err(LabError::Command(error @ CommandError::Failed { .. })) => error,
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(&rules.text);
    let saved = Saved::parse(&text);
    let (mut bad, mut out) = (BTreeSet::new(), Vec::new());
    for (shape, members) in saved.shapes() {
        let Err(error) = rules.restore(saved.only(&members).as_bytes()) else { continue };
        let LabError::Command(CommandError::Failed { stderr, .. }) = &error else { return Err(error) };
        let first = &saved.rules[members[0]];
        if members.iter().any(|at| saved.rules[*at].is_kube_proxys()) {
            return Err(LabError::CannotHold { rule: first.text.to_owned(), message: reason(stderr) });
        }
        let chains: BTreeSet<&str> = members.iter().map(|at| saved.rules[*at].chain).collect();
        let chains: Vec<&str> = chains.into_iter().collect();
        let number = if members.len() == 1 { "1 rule".to_owned() } else { format!("{} rules", members.len()) };
        out.push(LeftOut::new(
            format!("{number} of iptables-{} {} in {} ({shape})", rules.variant, rules.family, few(&chains)),
            reason(stderr),
        ));
        bad.extend(members);
    }
    if bad.is_empty() {
        return Err(whole.into());
    }
    rules.restore(saved.without(&bad).as_bytes())?;
    Ok(out)
}

/// The line of a tool's complaint that says why.
fn reason(stderr: &str) -> String {
    let empty = |line: &&str| {
        line.is_empty() || ["Try `", "Error occurred at line", "# Warning"].iter().any(|start| line.starts_with(start))
    };
    let mut lines = stderr.lines().map(str::trim).filter(|line| !empty(line));
    let first = lines.next().unwrap_or("no reason given");
    // `iptables-restore v1.8.9 (nf_tables): ` says nothing.
    first.split_once("): ").map_or(first, |(_, why)| why).trim_end_matches(':').to_owned()
}

/// A text of iptables-save, taken apart.
struct Saved<'t> {
    /// Every line with the table it is of; rules by their number instead.
    lines: Vec<Line<'t>>,
    rules: Vec<Rule<'t>>,
}

enum Line<'t> {
    Other(&'t str),
    Rule(usize),
}

struct Rule<'t> {
    table: &'t str,
    chain: &'t str,
    text: &'t str,
}

impl Rule<'_> {
    fn is_kube_proxys(&self) -> bool {
        ["KUBE-SERVICES", "KUBE-SVC-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-NODEPORTS", "KUBE-MARK-MASQ", "KUBE-POSTROUTING"]
            .iter()
            .any(|start| self.chain.starts_with(start))
    }

    /// The words that decide whether a machine can hold it: options, and the names of extensions and sets.
    fn shape(&self, chains: &BTreeSet<(&str, &str)>) -> String {
        let words: Vec<&str> = self.text.split(' ').skip_while(|word| *word != "-A").skip(2).collect();
        let mut shape: Vec<&str> = Vec::new();
        for (at, word) in words.iter().enumerate() {
            let before = at.checked_sub(1).map_or("", |before| words[before]);
            let own_chain = ["-j", "-g"].contains(&before) && chains.contains(&(self.table, *word));
            let named = ["-m", "-j", "-g", "--match-set", "--add-set", "--del-set"].contains(&before);
            if (named && !own_chain) || (word.starts_with('-') && word.len() > 1) {
                shape.push(word);
            }
        }
        shape.join(" ")
    }

    /// The chain that it goes to, if any.
    fn target(&self) -> Option<&str> {
        let mut words = self.text.split(' ');
        words.find(|word| ["-j", "-g"].contains(word))?;
        words.next()
    }
}

impl<'t> Saved<'t> {
    fn parse(text: &'t str) -> Self {
        let (mut table, mut lines, mut rules) = ("", Vec::new(), Vec::new());
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            }
            let rule = line.split_once("-A ").filter(|(before, _)| before.is_empty() || before.starts_with('['));
            match rule {
                Some((_, rule)) => {
                    lines.push(Line::Rule(rules.len()));
                    rules.push(Rule { table, chain: rule.split(' ').next().unwrap_or_default(), text: line });
                }
                None => lines.push(Line::Other(line)),
            }
        }
        Self { lines, rules }
    }

    /// Every chain with its table.
    fn chains(&self) -> BTreeSet<(&'t str, &'t str)> {
        let mut table = "";
        let mut chains = BTreeSet::new();
        for line in &self.lines {
            let Line::Other(line) = line else { continue };
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            } else if let Some(chain) = line.strip_prefix(':') {
                chains.insert((table, chain.split(' ').next().unwrap_or_default()));
            }
        }
        chains
    }

    /// The rules by table and shape.
    fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let chains = self.chains();
        let mut shapes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, rule) in self.rules.iter().enumerate() {
            shapes.entry(format!("{}: {}", rule.table, rule.shape(&chains))).or_default().push(at);
        }
        shapes
    }

    /// A text with these rules of one table, and the chains that they need.
    fn only(&self, members: &[usize]) -> String {
        let table = self.rules[members[0]].table;
        let chains = self.chains();
        let mut needed: BTreeSet<&str> = BTreeSet::new();
        for at in members {
            let rule = &self.rules[*at];
            needed.insert(rule.chain);
            needed.extend(rule.target().filter(|target| chains.contains(&(table, *target))));
        }
        let built_in = |chain: &str| ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"].contains(&chain);
        let mut text = format!("*{table}\n");
        for chain in needed {
            let policy = if built_in(chain) { "ACCEPT" } else { "-" };
            let _ = writeln!(text, ":{chain} {policy} [0:0]");
        }
        for at in members {
            text.push_str(self.rules[*at].text);
            text.push('\n');
        }
        text.push_str("COMMIT\n");
        text
    }

    /// The text without these rules.
    fn without(&self, bad: &BTreeSet<usize>) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let line = match line {
                Line::Other(line) => line,
                Line::Rule(at) if bad.contains(at) => continue,
                Line::Rule(at) => self.rules[*at].text,
            };
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "*filter\n:INPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:cali-fw - [0:0]\n\
        [1:2] -A INPUT -j KUBE-SERVICES\n[0:0] -A INPUT -m physdev --physdev-in eth0 -j cali-fw\n\
        -A cali-fw -m set --match-set a src -j DROP\n-A cali-fw -m set --match-set b src -j DROP\nCOMMIT\n";

    #[test]
    fn rules_are_grouped_by_what_they_need() {
        let saved = Saved::parse(TEXT);
        let shapes: Vec<(String, usize)> = saved.shapes().into_iter().map(|(s, m)| (s, m.len())).collect();
        let expected = [
            ("filter: -j", 1),
            ("filter: -m physdev --physdev-in -j", 1),
            ("filter: -m set --match-set a -j DROP", 1),
            ("filter: -m set --match-set b -j DROP", 1),
        ];
        assert_eq!(shapes, expected.map(|(shape, number)| (shape.to_owned(), number)));
    }

    #[test]
    fn a_trial_has_the_chains_it_needs_and_the_rest_has_all_but_the_bad() {
        let saved = Saved::parse(TEXT);
        assert_eq!(
            saved.only(&[1]),
            "*filter\n:INPUT ACCEPT [0:0]\n:cali-fw - [0:0]\n[0:0] -A INPUT -m physdev --physdev-in eth0 -j cali-fw\nCOMMIT\n"
        );
        let rest = saved.without(&BTreeSet::from([1, 3]));
        assert!(
            !rest.contains("physdev") && !rest.contains("--match-set b") && rest.contains("--match-set a"),
            "{rest}"
        );
        assert_eq!(saved.without(&BTreeSet::new()), TEXT);
    }

    #[test]
    fn a_complaint_is_cut_to_its_reason() {
        let legacy = "iptables-restore v1.8.9 (legacy): Couldn't load match `foo':No such file or directory\n\n\
                      Error occurred at line: 7\nTry `iptables-restore -h' or 'iptables-restore --help' for more information.\n";
        assert_eq!(reason(legacy), "Couldn't load match `foo':No such file or directory");
        assert_eq!(reason("iptables-restore: line 7 failed\n"), "iptables-restore: line 7 failed");
    }
}
