//! `create NAME TYPE OPTION VALUE…` and `add NAME ENTRY [OPTION VALUE…]`, one a line (ipset(8)).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::Protocol;

/// One part of an entry, between commas.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// An address.
    Ip(IpAddr),
    /// A network, or a host where the set's type holds networks.
    Net(IpNet),
    /// `tcp:80`; a bare number, as in `bitmap:port`, has no protocol.
    Port(Option<Protocol>, u16),
    /// A name, a range, a mark or whatever else.
    Other(Box<str>),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Net(net) => write!(f, "{net}"),
            Self::Port(Some(protocol), port) => write!(f, "{}:{port}", protocol.lower()),
            Self::Port(None, port) => write!(f, "{port}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// An entry of a set, such as `10.96.0.10,tcp:53`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry(pub Vec<Part>);

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.0.iter().enumerate() {
            write!(f, "{}{part}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// One set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Type, such as `hash:ip,port`.
    pub kind: String,
    /// Options of its creation, such as `family` and `maxelem`.
    pub options: BTreeMap<String, String>,
    /// Entries, without their options.
    pub entries: BTreeSet<Entry>,
}

/// All sets of a node, by name.
pub type Sets = BTreeMap<String, Set>;

/// The text is not one of `ipset save`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It does not begin with `create` or `add`.
    #[error("neither create nor add")]
    Verb,
    /// Something is missing.
    #[error("the line is cut short")]
    Short,
    /// An entry for a set that was not created before.
    #[error("no set {0} was created before")]
    NoSet(String),
    /// A set is created twice.
    #[error("set {0} is created twice")]
    Twice(String),
    /// It is not text.
    #[error("not UTF-8")]
    NotText,
}

/// Reads the text of `ipset save`.
pub fn parse(text: &[u8]) -> Result<Sets, ParseError> {
    let mut sets = Sets::new();
    for (i, line) in text.split(|b| *b == b'\n').enumerate() {
        let words = std::str::from_utf8(line).map_err(|_| Problem::NotText);
        words.and_then(|line| read_line(line, &mut sets)).map_err(|problem| ParseError { line: i + 1, problem })?;
    }
    Ok(sets)
}

fn read_line(line: &str, sets: &mut Sets) -> Result<(), Problem> {
    let mut words = line.split_ascii_whitespace();
    let Some(verb) = words.next() else { return Ok(()) };
    match verb {
        "create" => {
            let (name, kind) = words.next().zip(words.next()).ok_or(Problem::Short)?;
            if sets.contains_key(name) {
                return Err(Problem::Twice(name.to_owned()));
            }
            let mut set = Set { kind: kind.to_owned(), ..Set::default() };
            while let Some(key) = words.next() {
                // Options such as `counters` have no value, and two of those in a row do no harm to the others kpx reads.
                set.options.insert(key.to_owned(), words.next().unwrap_or_default().to_owned());
            }
            sets.insert(name.to_owned(), set);
        }
        "add" => {
            let (name, entry) = words.next().zip(words.next()).ok_or(Problem::Short)?;
            let set = sets.get_mut(name).ok_or_else(|| Problem::NoSet(name.to_owned()))?;
            let kinds = set.kind.split_once(':').map_or("", |(_, parts)| parts).split(',');
            let parts = entry.split(',').zip(kinds.chain(std::iter::repeat(""))).map(|(text, kind)| part(text, kind));
            set.entries.insert(Entry(parts.collect()));
        }
        _ => return Err(Problem::Verb),
    }
    Ok(())
}

fn part(text: &str, kind: &str) -> Part {
    let read = match kind {
        "ip" => text.parse().ok().map(Part::Ip),
        "net" => text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok().map(Part::Net),
        "port" => port(text),
        _ => None,
    };
    read.unwrap_or_else(|| Part::Other(text.into()))
}

fn port(text: &str) -> Option<Part> {
    let Some((protocol, port)) = text.split_once(':') else { return text.parse().ok().map(|n| Part::Port(None, n)) };
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| p.lower() == protocol)?;
    Some(Part::Port(Some(protocol), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_by_their_types() {
        let text = b"create A hash:ip,port,net family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x7d\n\
                     create B bitmap:port range 0-65535\ncreate C hash:mac\n\
                     add A 203.0.113.12,tcp:443,192.0.2.7\nadd A 203.0.113.12,sctp:80,10.0.0.0/8 timeout 5\n\
                     add B 30080\nadd C 02:00:0a:00:00:11\n";
        let sets = parse(text).expect("it parses");
        let entries = |name: &str| sets[name].entries.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(entries("A"), ["203.0.113.12,tcp:443,192.0.2.7/32", "203.0.113.12,sctp:80,10.0.0.0/8"]);
        assert_eq!(
            (sets["B"].entries.first(), entries("C")),
            (Some(&Entry(vec![Part::Port(None, 30080)])), vec!["02:00:0a:00:00:11".to_owned()])
        );
        assert_eq!(sets["A"].options["family"], "inet");
    }

    #[test]
    fn what_is_no_save_is_refused_with_its_line() {
        let problem = |text: &[u8]| parse(text).expect_err("refused");
        assert_eq!(
            problem(b"create A hash:ip\nadd B 1.2.3.4\n"),
            ParseError { line: 2, problem: Problem::NoSet("B".to_owned()) }
        );
        assert_eq!(problem(b"create A hash:ip\ncreate A hash:ip\n").problem, Problem::Twice("A".to_owned()));
        assert_eq!(problem(b"Name: A\n").problem, Problem::Verb);
        assert_eq!(problem(b"\nadd A").problem, Problem::Short);
        assert_eq!(problem(b"\xff").problem, Problem::NotText);
    }
}
