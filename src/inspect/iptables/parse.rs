//! From bytes to [`Dump`]: lines are cut and checked here, words and options are read when somebody asks for them.

use std::fmt;

use memchr::memchr;

use super::Map;
use super::dump::{Chain, ChainPolicy, Counters, Dump, Rule, Table};
use super::words::unclosed_quote;

/// Why a text is not one of iptables-save, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in bytes, from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The line starts with nothing that iptables-save prints.
    UnknownLine,
    /// `*` without a name behind it, or with more than a name.
    TableName,
    /// A table starts while the one before is open.
    NestedTable,
    /// A chain, rule or COMMIT outside of a table.
    OutsideTable,
    /// A chain without a name.
    ChainName,
    /// A chain's policy that is not ACCEPT, DROP or `-`.
    ChainPolicy,
    /// The chain is declared twice.
    RepeatedChain,
    /// Counters that are not `[packets:bytes]`.
    Counters,
    /// A command other than `-A`.
    Command,
    /// A rule of a chain that is not declared in its table.
    UndeclaredChain,
    /// A quote that nothing closes.
    OpenQuote,
    /// The text ends before the table's COMMIT: it is cut off.
    MissingCommit,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownLine => "expected a table (*), chain (:), rule (-A), comment (#) or COMMIT",
            Self::TableName => "expected the name of a table",
            Self::NestedTable => "a table starts before the COMMIT of the one before it",
            Self::OutsideTable => "not inside a table",
            Self::ChainName => "expected the name of a chain",
            Self::ChainPolicy => "expected the policy ACCEPT, DROP or -",
            Self::RepeatedChain => "the chain is declared twice",
            Self::Counters => "expected counters, [packets:bytes]",
            Self::Command => "expected -A and the name of a chain",
            Self::UndeclaredChain => "the chain is not declared in this table",
            Self::OpenQuote => "the quote is never closed",
            Self::MissingCommit => "the table ends without COMMIT: the text is cut off",
        })
    }
}

/// Parses what `iptables-save` or `ip6tables-save`, legacy or nft, with or without `-c`, printed.
///
/// Nothing is copied: the result borrows from `text`. Memory grows with the number of lines, never with nesting.
pub fn parse(text: &[u8]) -> Result<Dump<'_>, ParseError> {
    let mut parser = Parser { dump: Dump::default(), open: None, last_chain: 0, line: 0 };
    let mut rest = text;
    while !rest.is_empty() {
        parser.line += 1;
        let line = if let Some(end) = memchr(b'\n', rest) {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            line
        } else {
            parser.dump.open_end = true;
            std::mem::take(&mut rest)
        };
        parser.read(line).map_err(|(at, problem)| ParseError { line: parser.line, column: at + 1, problem })?;
    }
    match parser.open {
        Some(_) => Err(ParseError { line: parser.line + 1, column: 1, problem: Problem::MissingCommit }),
        None => Ok(parser.dump),
    }
}

type Refusal = (usize, Problem);

struct Parser<'a> {
    dump: Dump<'a>,
    open: Option<Table<'a>>,
    /// Chain of the rule before: iptables-save prints the rules of a chain together.
    last_chain: u32,
    line: usize,
}

impl<'a> Parser<'a> {
    fn number(&self) -> u32 {
        u32::try_from(self.line).unwrap_or(u32::MAX)
    }

    fn read(&mut self, line: &'a [u8]) -> Result<(), Refusal> {
        match line.first() {
            Some(b'-' | b'[') => self.rule(line),
            Some(b':') => self.chain(line),
            None | Some(b'#') => {
                self.dump.comments.push((self.number(), line));
                Ok(())
            }
            Some(b'*') => self.table(line),
            Some(b'C') if line == b"COMMIT" => {
                let mut table = self.open.take().ok_or((0, Problem::OutsideTable))?;
                table.commit = self.number();
                table.index();
                self.dump.tables.push(table);
                Ok(())
            }
            Some(_) => Err((0, Problem::UnknownLine)),
        }
    }

    fn table(&mut self, line: &'a [u8]) -> Result<(), Refusal> {
        if self.open.is_some() {
            return Err((0, Problem::NestedTable));
        }
        let name = &line[1..];
        if let Some(odd) = name.iter().position(u8::is_ascii_whitespace) {
            return Err((odd + 1, Problem::TableName));
        }
        if name.is_empty() {
            return Err((1, Problem::TableName));
        }
        self.open = Some(Table {
            name,
            line: self.number(),
            commit: 0,
            chains: Vec::new(),
            rules: Vec::new(),
            by_name: Map::default(),
            order: Vec::new(),
            starts: Vec::new(),
        });
        self.last_chain = u32::MAX;
        Ok(())
    }

    fn chain(&mut self, line: &'a [u8]) -> Result<(), Refusal> {
        let number = self.number();
        let table = self.open.as_mut().ok_or((0, Problem::OutsideTable))?;
        let (name, after) = word(line, 1);
        if name.is_empty() {
            return Err((1, Problem::ChainName));
        }
        let (policy_word, after_policy) = word(line, after);
        let policy = match policy_word {
            b"-" => ChainPolicy::Return,
            b"ACCEPT" => ChainPolicy::Accept,
            b"DROP" => ChainPolicy::Drop,
            _ => return Err((after, Problem::ChainPolicy)),
        };
        let counters = match line.get(after_policy..) {
            None => None,
            Some(rest) => match read_counters(rest) {
                Some((counters, length)) if length == rest.len() => Some(counters),
                _ => return Err((after_policy, Problem::Counters)),
            },
        };
        let index = u32::try_from(table.chains.len()).expect("chains are counted in u32");
        if table.by_name.insert(name, index).is_some() {
            return Err((1, Problem::RepeatedChain));
        }
        table.chains.push(Chain { name, policy, counters, line: number });
        Ok(())
    }

    fn rule(&mut self, line: &'a [u8]) -> Result<(), Refusal> {
        let number = self.number();
        let table = self.open.as_mut().ok_or((0, Problem::OutsideTable))?;
        let (counters, start) = match line[0] {
            b'[' => match read_counters(line) {
                Some((counters, length)) if line.get(length) == Some(&b' ') => (Some(counters), length + 1),
                _ => return Err((0, Problem::Counters)),
            },
            _ => (None, 0),
        };
        if !line[start..].starts_with(b"-A ") {
            return Err((start, Problem::Command));
        }
        let (name, after) = word(line, start + 3);
        if name.is_empty() {
            return Err((start + 3, Problem::ChainName));
        }
        // iptables-save prints rules chain by chain, in the order of the declarations.
        let near = [self.last_chain, self.last_chain.wrapping_add(1)];
        let is_near = |i: &u32| table.chains.get(*i as usize).is_some_and(|c| c.name == name);
        let chain = match near.into_iter().find(is_near) {
            Some(near) => near,
            None => *table.by_name.get(name).ok_or((start + 3, Problem::UndeclaredChain))?,
        };
        self.last_chain = chain;
        let tail = &line[after - 1..];
        if let Some(open) = unclosed_quote(tail) {
            return Err((after - 1 + open, Problem::OpenQuote));
        }
        table.rules.push(Rule { tail, counters, line: number, chain });
        Ok(())
    }
}

/// The word at `start`, and the offset after the space behind it.
fn word(line: &[u8], start: usize) -> (&[u8], usize) {
    let rest = line.get(start..).unwrap_or_default();
    let length = memchr(b' ', rest).unwrap_or(rest.len());
    (&rest[..length], start + length + 1)
}

/// Counters at the start of `text`, and their length.
fn read_counters(text: &[u8]) -> Option<(Counters, usize)> {
    if text.first() != Some(&b'[') {
        return None;
    }
    let (packets, colon) = read_number(text, 1)?;
    if text.get(colon) != Some(&b':') {
        return None;
    }
    let (bytes, bracket) = read_number(text, colon + 1)?;
    (text.get(bracket) == Some(&b']')).then_some((Counters { packets, bytes }, bracket + 1))
}

fn read_number(text: &[u8], start: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    let mut at = start;
    while let Some(digit @ b'0'..=b'9') = text.get(at) {
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        at += 1;
    }
    (at > start).then_some((value, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "*nat\n:A - [0:0]\n";

    #[test]
    fn malformed_lines_are_named_by_line_and_column() {
        let in_table = |line: &str| format!("{TABLE}{line}\nCOMMIT\n");
        let cases = [
            ("nonsense\n".to_owned(), 1, 1, Problem::UnknownLine),
            (" *nat\n".to_owned(), 1, 1, Problem::UnknownLine),
            ("*\n".to_owned(), 1, 2, Problem::TableName),
            ("*nat filter\n".to_owned(), 1, 5, Problem::TableName),
            ("*nat\n*filter\n".to_owned(), 2, 1, Problem::NestedTable),
            (":A - [0:0]\n".to_owned(), 1, 1, Problem::OutsideTable),
            ("-A A -j ACCEPT\n".to_owned(), 1, 1, Problem::OutsideTable),
            ("# comment\n\nCOMMIT\n".to_owned(), 3, 1, Problem::OutsideTable),
            ("COMMIT \n".to_owned(), 1, 1, Problem::UnknownLine),
            ("*nat\n: - [0:0]\n".to_owned(), 2, 2, Problem::ChainName),
            ("*nat\n:A\n".to_owned(), 2, 4, Problem::ChainPolicy),
            ("*nat\n:A QUEUE [0:0]\n".to_owned(), 2, 4, Problem::ChainPolicy),
            ("*nat\n:A - [0:0\n".to_owned(), 2, 6, Problem::Counters),
            ("*nat\n:A - \n".to_owned(), 2, 6, Problem::Counters),
            ("*nat\n:A - [0:0] x\n".to_owned(), 2, 6, Problem::Counters),
            ("*nat\n:A - [99999999999999999999:0]\n".to_owned(), 2, 6, Problem::Counters),
            ("*nat\n:A - [0:0]\n:A - [0:0]\n".to_owned(), 3, 2, Problem::RepeatedChain),
            (in_table("[0:0]-A A"), 3, 1, Problem::Counters),
            (in_table("[0] -A A"), 3, 1, Problem::Counters),
            (in_table("[a:b] -A A"), 3, 1, Problem::Counters),
            (in_table("-I A -j ACCEPT"), 3, 1, Problem::Command),
            (in_table("[1:60] -D A -j ACCEPT"), 3, 8, Problem::Command),
            (in_table("-A"), 3, 1, Problem::Command),
            (in_table("-A "), 3, 4, Problem::ChainName),
            (in_table("-A B -j ACCEPT"), 3, 4, Problem::UndeclaredChain),
            (in_table("[1:60] -A B -j ACCEPT"), 3, 11, Problem::UndeclaredChain),
            (in_table("-A A -m comment --comment \"open"), 3, 27, Problem::OpenQuote),
            (in_table("-A A --comment \"a\" --comment \"b\\\""), 3, 30, Problem::OpenQuote),
            (TABLE.to_owned(), 3, 1, Problem::MissingCommit),
            (format!("{TABLE}-A A -j ACC"), 4, 1, Problem::MissingCommit),
        ];
        for (text, line, column, problem) in cases {
            let error = parse(text.as_bytes()).expect_err(&text);
            assert_eq!((error.line, error.column, error.problem), (line, column, problem), "{text:?}");
        }
    }

    #[test]
    fn the_message_names_place_and_problem() {
        let error = parse(b"*nat\n:A - [0:0]\n-A B -j ACCEPT\nCOMMIT\n").expect_err("B is not declared");
        assert_eq!(error.to_string(), "line 3, column 4: the chain is not declared in this table");
    }

    /// What iptables-save prints seldom, and what its older versions printed.
    #[test]
    fn odd_texts_print_back() {
        for text in [
            "",
            "\n",
            "# only a comment",
            "*nat\nCOMMIT",
            "*nat\n:A - [1:2]\n-A A\n[3:4] -A A \n-A A -j ACCEPT \nCOMMIT\n",
            "*nat\n:A -\n# between\n\n-A A -j \"a b\"\n:B DROP [0:0]\n-A A\n-A B\nCOMMIT\n# after\n",
            "*nat\n:A - [0:0]\nCOMMIT\n*nat\n:A - [0:0]\n-A A -j RETURN\nCOMMIT\n",
            "*nat\n:A - [0:0]\n-A A -s ! 10.0.0.0/8 -m comment --comment \"x\\\"y\\\\z\\'\" -j RETURN\nCOMMIT\n",
        ] {
            let dump = parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text:?}: {e}"));
            assert_eq!(dump.to_string(), text);
        }
    }

    #[test]
    fn bytes_that_are_no_text_survive() {
        let text = b"*nat\n:A\xff - [0:0]\n-A A\xff --comment \"\xfe \\\"\" -j ACCEPT\nCOMMIT\n";
        assert_eq!(parse(text).expect("any byte may stand in a name or comment").to_bytes(), text);
    }

    #[test]
    fn rules_are_found_by_chain_in_order_wherever_they_stand() {
        let text = b"*nat\n:A - [0:0]\n:B - [0:0]\n-A B -j X\n-A A -j Y\n-A B -g Z\nCOMMIT\n";
        let dump = parse(text).expect("parses");
        let nat = dump.table("nat").expect("nat");
        let targets = |name: &[u8]| -> Vec<String> {
            let chain = nat.chain(name).expect("declared");
            nat.rules_of(chain).map(ToString::to_string).collect()
        };
        assert_eq!(targets(b"A"), ["-j Y"]);
        assert_eq!(targets(b"B"), ["-j X", "-g Z"]);
        assert_eq!(nat.chain(b"C"), None);
        assert_eq!(nat.rules_of(7).len(), 0);
    }
}
