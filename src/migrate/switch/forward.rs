//! Rules that let Services' packets through where the FORWARD chain drops, as kube-proxy's KUBE-FORWARD did.
//!
//! They stand in the very chain that drops, in the same variant of iptables: one drop is enough, whoever else accepts.
//! What kube-proxy accepted is accepted in the place of its own jump, so rules in front of it (of network policies) judge these
//! packets as before. Packets of flows that were taken over are accepted first of all: to conntrack they are of no
//! connection any more, and whatever judged them did so when they began. In nftables mode kube-proxy accepted nothing, and
//! there is nothing but the latter to accept.

use std::fmt::Write as _;

use crate::capture::command::{self, CommandError};
use crate::capture::{CaptureError, Captured, Item, Node, Variant};
use crate::inspect::iptables::{self, ChainPolicy, Dump, Owner, Table};
use crate::inspect::proxy_rules::RulesMode;
use crate::migrate::marks::Marks;
use crate::migrate::steps::Facts;
use crate::model::Family;

/// The chain that stands in for KUBE-FORWARD.
const CHAIN: &str = "KPX-FORWARD";
const COMMENT: &str = "kpx: flows of Services that were taken over";
/// kube-proxy's chain.
const THEIRS: &[u8] = b"KUBE-FORWARD";

/// What is to be let through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) marks: Marks,
    /// Whether what kube-proxy's rules let through is, besides flows that were taken over.
    pub(super) as_theirs: bool,
}

impl Wanted {
    /// What a node with these rules needs.
    pub(super) fn of(facts: &Facts) -> Self {
        Self { marks: facts.marks, as_theirs: facts.mode != Some(RulesMode::Nftables) }
    }
}

/// The filter table of one variant and family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Filter {
    variant: Variant,
    family: Family,
}

impl Filter {
    fn all() -> impl Iterator<Item = Self> {
        Variant::BOTH.into_iter().flat_map(|variant| Family::BOTH.map(|family| Self { variant, family }))
    }

    fn text(self, node: &Node) -> Result<Vec<u8>, CaptureError> {
        Ok(match node.read(Item::IptablesSave(self.family, self.variant))? {
            Captured::Present { bytes, .. } => bytes,
            Captured::Absent { .. } => Vec::new(),
        })
    }

    fn restore(self, lines: &str) -> Result<(), CommandError> {
        let program = match self.family {
            Family::V4 => format!("iptables-{}-restore", self.variant),
            Family::V6 => format!("ip6tables-{}-restore", self.variant),
        };
        let text = format!("*filter\n{lines}COMMIT\n");
        command::output(&program, ["--noflush", "--wait", "10"], Some(text.as_bytes())).map(drop)
    }
}

/// What a filter table has of ours, and whether it needs it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Whether something in FORWARD, or its policy, drops what others do not accept.
    drops: bool,
    /// Rules of ours in FORWARD, as iptables-save has them behind `-A FORWARD `.
    ours: Vec<String>,
    /// Whether our chain is there, and its rules.
    chain: Option<Vec<String>>,
    /// Number of kube-proxy's jump among the rules of FORWARD that are not ours, from 1.
    theirs: Option<usize>,
}

impl Found {
    fn of(text: &[u8]) -> Self {
        let Ok(dump) = iptables::parse(text) else { return Self::default() };
        Self::in_dump(&dump)
    }

    fn in_dump(dump: &Dump<'_>) -> Self {
        let mut found = Self::default();
        let Some(table) = dump.table("filter") else { return found };
        let Some(forward) = table.chain(b"FORWARD") else { return found };
        let rules = |chain| table.rules_of(chain).map(ToString::to_string).collect::<Vec<_>>();
        found.chain = table.chain(CHAIN.as_bytes()).map(rules);
        let mut number = 0;
        for rule in table.rules_of(forward) {
            let spec = rule.spec();
            if spec.target_name() == CHAIN.as_bytes() || spec.plain_comment() == Some(COMMENT) {
                found.ours.push(rule.to_string());
                continue;
            }
            number += 1;
            if spec.target_name() == THEIRS {
                found.theirs.get_or_insert(number);
            }
        }
        found.drops = table.chains()[forward].policy == ChainPolicy::Drop || drops(table, forward);
        found
    }

    /// Whether what is there is what is to be there.
    fn is_right(&self, wanted: Wanted) -> bool {
        if !self.drops {
            return self.ours.is_empty() && self.chain.is_none();
        }
        if !wanted.as_theirs {
            return self.ours == [first(wanted.marks)] && self.chain.is_none();
        }
        let accepts = accepts(wanted.marks);
        self.ours == [first(wanted.marks), jump()] && self.chain.as_ref().is_some_and(|rules| *rules == accepts)
    }

    /// Lines of a restore that take away what is there.
    fn away(&self) -> String {
        let mut lines = String::new();
        for rule in &self.ours {
            let _ = writeln!(lines, "-D FORWARD {rule}");
        }
        if self.chain.is_some() {
            let _ = writeln!(lines, "-F {CHAIN}\n-X {CHAIN}");
        }
        lines
    }

    /// Lines of a restore that make it right.
    fn put(&self, wanted: Wanted) -> String {
        if !wanted.as_theirs {
            return format!("{}-I FORWARD 1 {}\n", self.away(), first(wanted.marks));
        }
        let mut lines = format!(":{CHAIN} - [0:0]\n");
        for rule in &self.ours {
            let _ = writeln!(lines, "-D FORWARD {rule}");
        }
        for rule in accepts(wanted.marks) {
            let _ = writeln!(lines, "-A {CHAIN} {rule}");
        }
        // Where kube-proxy has no jump, first but for the rule above.
        let place = self.theirs.map_or(2, |number| number + 1);
        let _ = writeln!(lines, "-I FORWARD 1 {}\n-I FORWARD {place} {}", first(wanted.marks), jump());
        lines
    }
}

fn first(marks: Marks) -> String {
    format!("-m comment --comment \"{COMMENT}\" -m mark --mark {0:#x}/{0:#x} -j ACCEPT", marks.unseen)
}

fn jump() -> String {
    format!("-j {CHAIN}")
}

fn accepts(marks: Marks) -> [String; 2] {
    [
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".to_owned(),
        format!("-m mark --mark {0:#x}/{0:#x} -j ACCEPT", marks.accept),
    ]
}

/// Whether a rule that packets come to from a chain drops or rejects; kube-proxy's own rules go with it.
fn drops(table: &Table<'_>, from: usize) -> bool {
    let mut seen = vec![false; table.chains().len()];
    let mut todo = vec![from];
    while let Some(chain) = todo.pop() {
        if std::mem::replace(&mut seen[chain], true) {
            continue;
        }
        for rule in table.rules_of(chain) {
            let spec = rule.spec();
            let target = spec.target_name();
            if target == b"DROP" || target == b"REJECT" {
                return true;
            }
            let ours = target == CHAIN.as_bytes();
            let kube = matches!(iptables::owner(target), owner if owner.is_kube_proxy() || owner == Owner::Kubelet);
            if !ours && !kube {
                todo.extend(table.chain(target));
            }
        }
    }
    false
}

/// Why the rules could not be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// Rules cannot be read.
    #[error(transparent)]
    Read(#[from] CaptureError),
    /// Rules cannot be written.
    #[error(transparent)]
    Write(#[from] CommandError),
}

/// Which filter tables are not as they have to be, in words.
pub(super) fn wrong(node: &Node, wanted: Wanted) -> Result<Vec<String>, ForwardError> {
    let mut out = Vec::new();
    for filter in Filter::all() {
        if !Found::of(&filter.text(node)?).is_right(wanted) {
            out.push(format!("chain FORWARD of iptables-{}, {}", filter.variant, filter.family));
        }
    }
    Ok(out)
}

/// Whether anything of ours is there.
pub(super) fn exists(node: &Node) -> Result<bool, ForwardError> {
    for filter in Filter::all() {
        let found = Found::of(&filter.text(node)?);
        if !found.ours.is_empty() || found.chain.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes all filter tables right, each in one transaction.
pub(super) fn put(node: &Node, wanted: Wanted) -> Result<(), ForwardError> {
    for filter in Filter::all() {
        let found = Found::of(&filter.text(node)?);
        if !found.is_right(wanted) {
            let lines = if found.drops { found.put(wanted) } else { found.away() };
            filter.restore(&lines)?;
        }
    }
    Ok(())
}

/// Takes our rules away everywhere. Twice is no error.
pub(super) fn away(node: &Node) -> Result<(), ForwardError> {
    for filter in Filter::all() {
        let lines = Found::of(&filter.text(node)?).away();
        if !lines.is_empty() {
            filter.restore(&lines)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks { accept: 0x2000, unseen: 0x1000 };
    const WANTED: Wanted = Wanted { marks: MARKS, as_theirs: true };

    fn saved(policy: &str, rules: &str) -> String {
        format!("*filter\n:FORWARD {policy} [0:0]\n:KUBE-FORWARD - [0:0]\n:POLICY - [0:0]\n{rules}COMMIT\n")
    }

    #[test]
    fn a_chain_that_drops_nothing_gets_nothing() {
        let kube = "-A FORWARD -j KUBE-FORWARD\n-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n";
        let found = Found::of(saved("ACCEPT", kube).as_bytes());
        assert!(!found.drops && found.is_right(WANTED));
        let found = Found::of(saved("DROP", kube).as_bytes());
        assert!(found.drops && !found.is_right(WANTED));
        let jump = "-A FORWARD -j POLICY\n-A POLICY -s 192.0.2.1/32 -j DROP\n";
        assert!(Found::of(saved("ACCEPT", jump).as_bytes()).drops, "a chain of somebody's");
        assert_eq!(Found::of(b"not iptables"), Found::default());
    }

    #[test]
    fn what_is_put_stands_in_kube_proxys_place_and_goes_again() {
        let rules =
            "-A FORWARD -j POLICY\n-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n";
        let found = Found::of(saved("DROP", rules).as_bytes());
        let lines = found.put(WANTED);
        let expected = [
            "-I FORWARD 1 -m comment --comment \"kpx: flows of Services that were taken over\" -m mark --mark 0x1000/0x1000 -j ACCEPT",
            "-I FORWARD 3 -j KPX-FORWARD",
        ];
        assert!(lines.ends_with(&(expected.join("\n") + "\n")), "{lines}");
        let standing = format!(
            "*filter\n:FORWARD DROP [0:0]\n:KPX-FORWARD - [0:0]\n-A FORWARD {}\n-A FORWARD -j POLICY\n-A FORWARD {}\n\
             -A FORWARD -j KUBE-FORWARD\n-A KPX-FORWARD {}\n-A KPX-FORWARD {}\nCOMMIT\n",
            first(MARKS),
            jump(),
            accepts(MARKS)[0],
            accepts(MARKS)[1]
        );
        let found = Found::of(standing.as_bytes());
        assert!(found.is_right(WANTED) && found.theirs == Some(2), "{found:?}");
        assert_eq!(found.away().lines().filter(|line| line.starts_with("-D FORWARD ")).count(), 2);
        assert!(!found.is_right(Wanted { marks: Marks { accept: 0x40, ..MARKS }, as_theirs: true }));
    }

    #[test]
    fn in_nftables_mode_only_flows_that_were_taken_over_are_let_through() {
        let wanted = Wanted { as_theirs: false, ..WANTED };
        let found = Found::of(saved("DROP", "-A FORWARD -j POLICY\n").as_bytes());
        assert_eq!(found.put(wanted), format!("-I FORWARD 1 {}\n", first(MARKS)));
        let found = Found::of(saved("DROP", &format!("-A FORWARD {}\n", first(MARKS))).as_bytes());
        assert!(found.is_right(wanted) && !found.is_right(WANTED), "{found:?}");
    }
}
