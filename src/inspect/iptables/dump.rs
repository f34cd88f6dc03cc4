//! What iptables-save printed: tables, chains, rules and comments, borrowed from the text, and written back as they were.

use std::fmt;
use std::io;

use super::Map;
use super::spec::Spec;
use super::words::Words;

/// Packets and bytes, as `[packets:bytes]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}:{}]", self.packets, self.bytes)
    }
}

/// What a chain does with a packet that no rule decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainPolicy {
    /// Built-in chain, lets it pass.
    Accept,
    /// Built-in chain, drops it.
    Drop,
    /// User-defined chain: goes back to the caller (written `-`).
    Return,
}

impl ChainPolicy {
    const fn word(self) -> &'static str {
        match self {
            Self::Accept => "ACCEPT",
            Self::Drop => "DROP",
            Self::Return => "-",
        }
    }
}

/// The declaration of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain<'a> {
    /// Name.
    pub name: &'a [u8],
    /// Policy.
    pub policy: ChainPolicy,
    /// Counters of the policy.
    pub counters: Option<Counters>,
    /// Line of the text, from 1.
    pub line: u32,
}

impl Chain<'_> {
    /// Whether the kernel made the chain, not a user.
    pub fn is_builtin(&self) -> bool {
        self.policy != ChainPolicy::Return
    }
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule<'a> {
    /// What follows the chain's name, with the space in front.
    pub(super) tail: &'a [u8],
    pub(super) counters: Option<Counters>,
    pub(super) line: u32,
    pub(super) chain: u32,
}

impl<'a> Rule<'a> {
    /// Everything after the chain's name, as written.
    pub fn body(&self) -> &'a [u8] {
        self.tail.get(1..).unwrap_or_default()
    }

    /// Packet and byte counters (`iptables-save -c`).
    pub const fn counters(&self) -> Option<Counters> {
        self.counters
    }

    /// Line of the text, from 1.
    pub const fn line(&self) -> u32 {
        self.line
    }

    /// Index of its chain in [`Table::chains`].
    pub const fn chain(&self) -> usize {
        self.chain as usize
    }

    /// The words after the chain's name.
    pub fn words(&self) -> Words<'a> {
        Words::new(self.body())
    }

    /// The rule with types: what kpx understands of it, and whether that is all.
    pub fn spec(&self) -> Spec<'a> {
        Spec::read(self.words())
    }

    /// Whether it asks conntrack how a packet was translated (`-m conntrack`, man iptables-extensions): states DNAT and SNAT, or
    /// addresses and ports of the original or the reply direction.
    pub fn asks_translation(&self) -> bool {
        let mut words = self.words().map(|word| word.text().into_owned());
        while let Some(word) = words.next() {
            let asks = match word.strip_prefix("--ct") {
                Some("state") => {
                    words.next().is_some_and(|states| states.split(',').any(|s| s == "DNAT" || s == "SNAT"))
                }
                Some(field) => ["orig", "repl"].iter().any(|way| {
                    field.strip_prefix(way).is_some_and(|end| ["src", "dst", "srcport", "dstport"].contains(&end))
                }),
                None => false,
            };
            if asks {
                return true;
            }
        }
        false
    }
}

impl fmt::Display for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.body()))
    }
}

/// One table.
#[derive(Clone, Debug)]
pub struct Table<'a> {
    pub(super) name: &'a [u8],
    pub(super) line: u32,
    pub(super) commit: u32,
    pub(super) chains: Vec<Chain<'a>>,
    pub(super) rules: Vec<Rule<'a>>,
    pub(super) by_name: Map<&'a [u8], u32>,
    /// Rules sorted by chain; those of chain `i` are at `starts[i]..starts[i + 1]`.
    pub(super) order: Vec<u32>,
    pub(super) starts: Vec<u32>,
}

impl<'a> Table<'a> {
    /// Name, such as `nat`.
    pub const fn name(&self) -> &'a [u8] {
        self.name
    }

    /// The chains, in the order of their declaration.
    pub fn chains(&self) -> &[Chain<'a>] {
        &self.chains
    }

    /// All rules, in the order of the text.
    pub fn rules(&self) -> &[Rule<'a>] {
        &self.rules
    }

    /// Index of a chain by name.
    pub fn chain(&self, name: &[u8]) -> Option<usize> {
        self.by_name.get(name).map(|&i| i as usize)
    }

    /// The rules of a chain, in order; the number of the first is 1 in iptables' count.
    pub fn rules_of(&self, chain: usize) -> impl ExactSizeIterator<Item = &Rule<'a>> + Clone {
        let range = match (self.starts.get(chain), self.starts.get(chain + 1)) {
            (Some(&start), Some(&end)) => start as usize..end as usize,
            _ => 0..0,
        };
        self.order[range].iter().map(|&i| &self.rules[i as usize])
    }

    /// A rule by its chain and its number in there, from 1 as iptables counts.
    pub fn rule(&self, chain: usize, number: usize) -> Option<&Rule<'a>> {
        let (start, end) = (*self.starts.get(chain)? as usize, *self.starts.get(chain + 1)? as usize);
        let at = start.checked_add(number.checked_sub(1)?)?;
        let rule = *self.order.get(at).filter(|_| at < end)?;
        self.rules.get(rule as usize)
    }

    pub(super) fn index(&mut self) {
        let mut starts = vec![0_u32; self.chains.len() + 1];
        for rule in &self.rules {
            starts[rule.chain as usize + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut next = starts.clone();
        self.order = vec![0; self.rules.len()];
        for (i, rule) in self.rules.iter().enumerate() {
            let slot = &mut next[rule.chain as usize];
            self.order[*slot as usize] = u32::try_from(i).expect("rules are counted in u32");
            *slot += 1;
        }
        self.starts = starts;
    }
}

/// What a comment of the iptables tools says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark<'a> {
    /// `# Generated by iptables-save v1.8.9 (nf_tables) on …`: the program, its version and what else it says.
    Generated(&'a str),
    /// ``# Table `filter' is incompatible, use 'nft' tool.``: the table is there and was left out.
    Incompatible {
        /// Its name.
        table: &'a str,
    },
    /// `# Warning: …`, such as the one about legacy tables being present.
    Warning(&'a str),
}

/// A whole text of iptables-save.
#[derive(Clone, Debug, Default)]
pub struct Dump<'a> {
    pub(super) tables: Vec<Table<'a>>,
    /// Comments and empty lines with their line, from 1.
    pub(super) comments: Vec<(u32, &'a [u8])>,
    /// Whether the last line lacks its newline.
    pub(super) open_end: bool,
}

impl<'a> Dump<'a> {
    /// The tables, in the order of the text.
    pub fn tables(&self) -> &[Table<'a>] {
        &self.tables
    }

    /// The table of this name; if there are several, the last, which is what a restore leaves.
    pub fn table(&self, name: &str) -> Option<&Table<'a>> {
        self.tables.iter().rfind(|t| t.name == name.as_bytes())
    }

    /// Comment lines, as written.
    pub fn comments(&self) -> impl Iterator<Item = &'a [u8]> {
        self.comments.iter().map(|&(_, text)| text).filter(|text| !text.is_empty())
    }

    /// Comments that tell something of the tables.
    pub fn remarks(&self) -> impl Iterator<Item = Remark<'a>> {
        self.comments().filter_map(remark)
    }

    /// Writes the text back: what was parsed from iptables-save comes out byte by byte.
    pub fn write_to(&self, out: &mut impl io::Write) -> io::Result<()> {
        let mut printer = Printer { out, comments: self.comments.iter().peekable(), first: true };
        for table in &self.tables {
            printer.at(table.line, |out| {
                out.write_all(b"*")?;
                out.write_all(table.name)
            })?;
            let mut rules = table.rules.iter().peekable();
            for chain in &table.chains {
                while let Some(rule) = rules.next_if(|r| r.line < chain.line) {
                    printer.rule(table, rule)?;
                }
                printer.at(chain.line, |out| write_chain(out, chain))?;
            }
            for rule in rules {
                printer.rule(table, rule)?;
            }
            printer.at(table.commit, |out| out.write_all(b"COMMIT"))?;
        }
        printer.comments_before(u32::MAX)?;
        if !self.open_end && !printer.first {
            printer.out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// The text of [`Self::write_to`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_to(&mut out).expect("writing to memory does not fail");
        out
    }
}

impl fmt::Display for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes()))
    }
}

struct Printer<'d, 'a, W> {
    out: &'d mut W,
    comments: std::iter::Peekable<std::slice::Iter<'d, (u32, &'a [u8])>>,
    first: bool,
}

impl<W: io::Write> Printer<'_, '_, W> {
    fn line(&mut self, write: impl FnOnce(&mut W) -> io::Result<()>) -> io::Result<()> {
        if !std::mem::take(&mut self.first) {
            self.out.write_all(b"\n")?;
        }
        write(self.out)
    }

    fn comments_before(&mut self, line: u32) -> io::Result<()> {
        while let Some(&(_, text)) = self.comments.next_if(|(at, _)| *at < line) {
            self.line(|out| out.write_all(text))?;
        }
        Ok(())
    }

    fn at(&mut self, line: u32, write: impl FnOnce(&mut W) -> io::Result<()>) -> io::Result<()> {
        self.comments_before(line)?;
        self.line(write)
    }

    fn rule(&mut self, table: &Table<'_>, rule: &Rule<'_>) -> io::Result<()> {
        self.at(rule.line, |out| {
            if let Some(counters) = rule.counters {
                write!(out, "{counters} ")?;
            }
            out.write_all(b"-A ")?;
            out.write_all(table.chains[rule.chain()].name)?;
            out.write_all(rule.tail)
        })
    }
}

fn write_chain(out: &mut impl io::Write, chain: &Chain<'_>) -> io::Result<()> {
    out.write_all(b":")?;
    out.write_all(chain.name)?;
    write!(out, " {}", chain.policy.word())?;
    match chain.counters {
        Some(counters) => write!(out, " {counters}"),
        None => Ok(()),
    }
}

fn remark(comment: &[u8]) -> Option<Remark<'_>> {
    let text = std::str::from_utf8(comment).ok()?.strip_prefix("# ")?;
    if let Some(rest) = text.strip_prefix("Table `") {
        let (table, rest) = rest.split_once('\'')?;
        return rest.contains("incompatible").then_some(Remark::Incompatible { table });
    }
    let generated = text.strip_prefix("Generated by ").map(Remark::Generated);
    generated.or_else(|| text.strip_prefix("Warning: ").map(Remark::Warning))
}
