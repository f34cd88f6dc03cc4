//! kube-proxy's tables from the running kernel, by nf_tables' own messages.
//!
//! `nft` reads every table, and lists each anonymous set by a dump, for which the kernel searches the table's sets twice by
//! name. Here only kube-proxy's tables are read, and the few elements of an anonymous map are asked for by their keys, which
//! the rule tells: one search, and as many threads as there are processors.

mod element;
mod expression;

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZero;
use std::thread;
use std::time::Duration;

use self::expression::{Gap, Need, RuleReader};
use super::ruleset::{Addresses, Balance, Chain, Hook, Match, Rule, Ruleset, Set, Statement, TABLE, Table};
use crate::capture::netlink::{Netlink, NetlinkError, Request, attribute, attributes};
use crate::error::Hinted;
use crate::model::Family;

// linux/netfilter/nf_tables.h
const SUBSYSTEM: u8 = 10;
const GET_CHAIN: u8 = 4;
const GET_RULE: u8 = 7;
const GET_SET: u8 = 10;
const GET_ELEMENTS: u8 = 13;
const GET_GENERATION: u8 = 16;
const GET_OBJECT: u8 = 19;
const GET_FLOW_TABLE: u8 = 23;
const GET_TABLE: u8 = 1;

const NESTED: u16 = 0x8000;

/// How often a table that changes while it is read is read again.
const ATTEMPTS: u32 = 8;

/// Elements asked for at once: their answers must fit the socket's buffer.
const BATCH: usize = 128;

/// Above so many elements a dump is the quicker way.
const MANY: u32 = 64;

/// Why the tables could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The kernel did not tell.
    #[error("cannot read table {} {TABLE}", super::text::word(*.family))]
    Kernel {
        /// Family of the table.
        family: Family,
        /// Why.
        source: NetlinkError,
    },
    /// It never stood still.
    #[error("table {} {TABLE} changed {ATTEMPTS} times while it was read", super::text::word(*.0))]
    Restless(Family),
}

impl Hinted for LiveError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Kernel { source: NetlinkError::Refused(e) | NetlinkError::Socket(e), .. }
                if e.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                vec!["run kpx as root (CAP_NET_ADMIN)".to_owned()]
            }
            Self::Kernel { .. } => vec!["compare with: nft list table ip kube-proxy".to_owned()],
            Self::Restless(_) => vec!["try again when kube-proxy has less to change".to_owned()],
        }
    }
}

/// Reads kube-proxy's tables of the network namespace that the calling thread is in.
pub fn read() -> Result<Ruleset, LiveError> {
    let mut ruleset = Ruleset::default();
    for family in Family::BOTH {
        *ruleset.slot(family) = read_table(family)?;
    }
    Ok(ruleset)
}

/// Reads one table as it was at one moment.
fn read_table(family: Family) -> Result<Option<Table>, LiveError> {
    let failed = |source| LiveError::Kernel { family, source };
    for attempt in 0..ATTEMPTS {
        thread::sleep(Duration::from_millis(50) * attempt);
        let Some(netlink) = Netlink::nf_tables().map_err(failed)? else { return Ok(None) };
        let mut reader = Reader { family, netlink };
        let before = reader.generation().map_err(failed)?;
        let table = match reader.table() {
            Ok(table) => table,
            // Something that was listed is gone, or the list moved.
            Err(NetlinkError::Changed) => continue,
            Err(NetlinkError::Refused(e)) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(failed(source)),
        };
        if reader.generation().map_err(failed)? == before {
            return Ok(table);
        }
    }
    Err(LiveError::Restless(family))
}

/// Number of a family in netfilter's messages (`NFPROTO_IPV4`, `NFPROTO_IPV6`).
const fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

fn request(family: Family, message: u8) -> Request {
    Request::netfilter(SUBSYSTEM, message, number(family))
}

/// A string of a request.
fn name(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// A string of an answer.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A number of an answer, big-endian as nf_tables has them.
pub(super) fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|b| u32::from_be_bytes(*b))
}

pub(super) fn be64(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|b| u64::from_be_bytes(*b))
}

/// The attributes behind `nfgenmsg`.
fn body(message: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(message.get(4..).unwrap_or_default())
}

/// A named set or map, before its elements.
struct Named {
    name: String,
    key_type: u32,
    set: Set,
}

struct Reader {
    family: Family,
    netlink: Netlink,
}

impl Reader {
    /// Number of changes to the namespace's rules so far.
    fn generation(&mut self) -> Result<u32, NetlinkError> {
        let mut generation = 0;
        self.netlink.ask(&[request(self.family, GET_GENERATION)], |_, message| {
            generation = body(message).find(|(kind, _)| *kind == 1).and_then(|(_, value)| be32(value)).unwrap_or(0);
        })?;
        Ok(generation)
    }

    fn table(&mut self) -> Result<Option<Table>, NetlinkError> {
        let ask = request(self.family, GET_TABLE).with(1, &name(TABLE));
        match self.netlink.ask(&[ask], |_, _| ()) {
            Ok(()) => {}
            Err(NetlinkError::Refused(e)) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        }
        let mut table = Table::default();
        self.chains(&mut table)?;
        let gaps = self.rules(&mut table)?;
        for Named { name, key_type, mut set } in self.sets()? {
            self.dump_elements(&name, |bytes, family| {
                set.elements.extend(element::element(bytes, key_type, set.is_map, family));
            })?;
            set.elements.sort_by(|a, b| a.key.cmp(&b.key));
            table.sets.insert(name.into(), set);
        }
        fill(self.family, &mut table, gaps)?;
        self.others(&mut table)?;
        Ok(Some(table))
    }

    /// All objects of a kind in this table.
    fn list(&mut self, message: u8, mut each: impl FnMut(&[u8])) -> Result<(), NetlinkError> {
        // The kernel filters by table for some kinds and versions only.
        let ask = request(self.family, message).with(1, &name(TABLE));
        let family = number(self.family);
        self.netlink.dump(&ask, |_, message| {
            let table = body(message).find(|(kind, _)| *kind == 1).map(|(_, value)| text(value));
            if message.first() == Some(&family) && table.as_deref() == Some(TABLE) {
                each(message);
            }
        })
    }

    fn chains(&mut self, table: &mut Table) -> Result<(), NetlinkError> {
        self.list(GET_CHAIN, |message| {
            let (mut name, mut kind, mut place, mut accepts) = (None, None, None, false);
            for (attribute, value) in body(message) {
                match attribute {
                    3 => name = Some(text(value)),
                    4 => place = hook(value),
                    5 => accepts = be32(value) == Some(1),
                    7 => kind = Some(text(value)),
                    _ => {}
                }
            }
            let hook = kind.zip(place).map(|(kind, (hook, priority))| Hook {
                kind: kind.into(),
                hook: hook.into(),
                priority,
                accepts,
            });
            if let Some(name) = name {
                table.chains.insert(name.into(), Chain { hook, rules: Vec::new() });
            }
        })
    }

    /// Reads the rules; what their anonymous sets hold comes later.
    fn rules(&mut self, table: &mut Table) -> Result<Vec<Gap>, NetlinkError> {
        let mut gaps = Vec::new();
        let mut interfaces = HashMap::new();
        let family = self.family;
        let mut unknown = false;
        self.list(GET_RULE, |message| {
            let (mut chain, mut handle, mut comment) = (None, 0, None);
            let mut reader = RuleReader::new(family);
            for (attribute, value) in body(message) {
                match attribute {
                    2 => chain = Some(text(value)),
                    3 => handle = be64(value).unwrap_or(0),
                    4 => reader.read(value),
                    7 => comment = element::comment(value),
                    _ => {}
                }
            }
            let Some((name, chain)) = chain.and_then(|name| Some((name.clone(), table.chains.get_mut(&*name)?))) else {
                unknown = true;
                return;
            };
            let (statements, needs) = reader.finish();
            for need in needs {
                if let Need::Interface { index, .. } = need.1 {
                    interfaces.insert(index, None);
                }
                gaps.push(Gap { chain: name.clone().into(), rule: chain.rules.len(), statement: need.0, need: need.1 });
            }
            chain.rules.push(Rule { handle, comment, statements });
        })?;
        if unknown {
            // A rule of a chain that was not there when the chains were listed.
            return Err(NetlinkError::Changed);
        }
        for (index, name) in &mut interfaces {
            *name = self.netlink.interface(*index);
        }
        gaps.retain(|gap| match &gap.need {
            Need::Interface { index, not } => {
                let name = interfaces[index].clone().unwrap_or_else(|| index.to_string()).into();
                if let Some(slot) = statement(table, gap) {
                    *slot = Statement::Match(Match::Interface { not: *not, by_index: true, name });
                }
                false
            }
            _ => true,
        });
        Ok(gaps)
    }

    /// The named sets and maps, still empty.
    fn sets(&mut self) -> Result<Vec<Named>, NetlinkError> {
        const ANONYMOUS: u32 = 1;
        const MAP: u32 = 8;
        let mut sets = Vec::new();
        self.list(GET_SET, |message| {
            let (mut name, mut flags, mut key_type, mut timeout) = (None, 0, 0, None);
            for (attribute, value) in body(message) {
                match attribute {
                    2 => name = Some(text(value)),
                    3 => flags = be32(value).unwrap_or(0),
                    4 => key_type = be32(value).unwrap_or(0),
                    11 => timeout = be64(value).map(|milliseconds| milliseconds / 1000),
                    _ => {}
                }
            }
            if let (Some(name), 0) = (name, flags & ANONYMOUS) {
                let set = Set { is_map: flags & MAP != 0, timeout, elements: Vec::new() };
                sets.push(Named { name, key_type, set });
            }
        })?;
        Ok(sets)
    }

    fn dump_elements(&mut self, set: &str, each: impl FnMut(&[u8], Family)) -> Result<(), NetlinkError> {
        dump_elements(&mut self.netlink, self.family, set, each)
    }

    /// Stateful objects and flow tables: kube-proxy has none.
    fn others(&mut self, table: &mut Table) -> Result<(), NetlinkError> {
        for (message, kind) in [(GET_OBJECT, "object"), (GET_FLOW_TABLE, "flowtable")] {
            let listed = self.list(message, |message| {
                let name = body(message).find(|(attribute, _)| *attribute == 2).map(|(_, value)| text(value));
                table.others.push(format!("{kind} {}", name.unwrap_or_default()));
            });
            match listed {
                // A kernel without this kind of object.
                Err(NetlinkError::Refused(e)) if e.kind() == std::io::ErrorKind::Unsupported => {}
                listed => listed?,
            }
        }
        Ok(())
    }
}

fn hook(value: &[u8]) -> Option<(&'static str, i32)> {
    let (mut place, mut priority) = (None, None);
    for (attribute, value) in attributes(value) {
        match attribute {
            1 => place = be32(value),
            2 => priority = value.first_chunk().map(|b| i32::from_be_bytes(*b)),
            _ => {}
        }
    }
    let places = ["prerouting", "input", "forward", "output", "postrouting", "ingress"];
    Some((places.get(usize::try_from(place?).ok()?)?, priority?))
}

fn dump_elements(
    netlink: &mut Netlink,
    family: Family,
    set: &str,
    mut each: impl FnMut(&[u8], Family),
) -> Result<(), NetlinkError> {
    let ask = request(family, GET_ELEMENTS).with(1, &name(TABLE)).with(2, &name(set));
    netlink.dump(&ask, |_, message| {
        for element in body(message).filter(|(kind, _)| *kind == 3).flat_map(|(_, list)| attributes(list)) {
            each(element.1, family);
        }
    })
}

fn statement<'t>(table: &'t mut Table, gap: &Gap) -> Option<&'t mut Statement> {
    table.chains.get_mut(&*gap.chain)?.rules.get_mut(gap.rule)?.statements.get_mut(gap.statement)
}

/// Reads the anonymous sets and puts what they hold into the rules.
fn fill(family: Family, table: &mut Table, gaps: Vec<Gap>) -> Result<(), NetlinkError> {
    // Chains that come late in the table take longer: all threads get some of each.
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(8).min(gaps.len() / 64 + 1);
    let mut shares: Vec<Vec<Gap>> = (0..threads).map(|_| Vec::new()).collect();
    for (i, gap) in gaps.into_iter().enumerate() {
        shares[i % threads].push(gap);
    }
    let results = thread::scope(|scope| {
        let running: Vec<_> = shares.into_iter().map(|share| scope.spawn(move || held(family, share))).collect();
        running.into_iter().map(|thread| thread.join().expect("reading does not panic")).collect::<Vec<_>>()
    });
    for result in results {
        for (gap, held) in result? {
            if let Some(slot) = statement(table, &gap) {
                *slot = held;
            }
        }
    }
    Ok(())
}

/// What the anonymous sets of one thread's share hold.
fn held(family: Family, gaps: Vec<Gap>) -> Result<Vec<(Gap, Statement)>, NetlinkError> {
    let Some(mut netlink) = Netlink::nf_tables()? else { return Err(NetlinkError::Changed) };
    let mut batch: Vec<Request> = Vec::new();
    let mut waiting = 0;
    let mut elements: HashMap<String, Vec<(u32, Vec<u8>)>> = HashMap::new();
    for gap in &gaps {
        let Need::Choices { set, modulus, .. } = &gap.need else { continue };
        if *modulus > MANY {
            let found = elements.entry(set.clone()).or_default();
            dump_elements(&mut netlink, family, set, |bytes, _| found.extend(element::choice(bytes)))?;
            continue;
        }
        let mut keys = Vec::new();
        for number in 0..*modulus {
            // NFTA_LIST_ELEM { NFTA_SET_ELEM_KEY { NFTA_DATA_VALUE } }
            let (mut key, mut element) = (Vec::new(), Vec::new());
            attribute(&mut key, 1, &number.to_ne_bytes());
            attribute(&mut element, NESTED | 1, &key);
            attribute(&mut keys, NESTED | 1, &element);
        }
        let ask = request(family, GET_ELEMENTS).with(1, &name(TABLE)).with(2, &name(set));
        batch.push(ask.with(NESTED | 3, &keys));
        waiting += *modulus as usize;
        if waiting >= BATCH {
            ask_choices(&mut netlink, &batch, &mut elements)?;
            (waiting, batch) = (0, Vec::new());
        }
    }
    ask_choices(&mut netlink, &batch, &mut elements)?;
    let mut filled = Vec::with_capacity(gaps.len());
    for gap in gaps {
        let statement = match &gap.need {
            Need::Choices { set, modulus, dnat } => {
                let mut found = elements.remove(set).unwrap_or_default();
                found.sort();
                choices(*modulus, *dnat, family, &found)
            }
            Need::Addresses { set, side, not } => {
                let mut found = Vec::new();
                dump_elements(&mut netlink, family, set, |bytes, _| found.extend(element::bound(bytes, family)))?;
                element::nets(found).map(|nets| {
                    let among = Addresses::Nets(nets);
                    Statement::Match(Match::Address { side: *side, not: *not, among })
                })
            }
            Need::Interface { .. } => None,
        };
        let unknown = || Statement::Other("a set of a kind that kube-proxy does not use".into());
        filled.push((gap, statement.unwrap_or_else(unknown)));
    }
    Ok(filled)
}

fn ask_choices(
    netlink: &mut Netlink,
    batch: &[Request],
    elements: &mut HashMap<String, Vec<(u32, Vec<u8>)>>,
) -> Result<(), NetlinkError> {
    let answer = |_, message: &[u8]| {
        let mut set = String::new();
        for (kind, value) in body(message) {
            match kind {
                2 => set = text(value),
                3 => {
                    let found = attributes(value).filter_map(|(_, bytes)| element::choice(bytes));
                    elements.entry(set.clone()).or_default().extend(found);
                }
                _ => {}
            }
        }
    };
    match netlink.ask(batch, answer) {
        // A number that chooses nothing: the rule shows it by what is missing from its choices.
        Err(NetlinkError::Refused(e)) if e.kind() == std::io::ErrorKind::NotFound => {
            retry_one_by_one(netlink, batch, elements)
        }
        result => result,
    }
}

/// Lists the sets of a batch in which a number was missing.
fn retry_one_by_one(
    netlink: &mut Netlink,
    batch: &[Request],
    elements: &mut HashMap<String, Vec<(u32, Vec<u8>)>>,
) -> Result<(), NetlinkError> {
    for request in batch {
        let set = body(&request.body).find(|(kind, _)| *kind == 2).map(|(_, value)| text(value)).unwrap_or_default();
        let mut found = Vec::new();
        let ask = Request { kind: request.kind, body: request.body[..4].to_vec() };
        let ask = ask.with(1, &name(TABLE)).with(2, &name(&set));
        netlink.dump(&ask, |_, message| {
            let lists = body(message).filter(|(kind, _)| *kind == 3);
            found.extend(lists.flat_map(|(_, list)| attributes(list)).filter_map(|(_, bytes)| element::choice(bytes)));
        })?;
        elements.insert(set, found);
    }
    Ok(())
}

fn choices(modulus: u32, dnat: bool, family: Family, found: &[(u32, Vec<u8>)]) -> Option<Statement> {
    if dnat {
        let choice = |(number, data): &(u32, Vec<u8>)| Some((*number, endpoint(data, family)?));
        let choices = found.iter().map(choice).collect::<Option<_>>()?;
        return Some(Statement::DnatSpread(Balance { modulus, choices }));
    }
    let choice = |(number, data): &(u32, Vec<u8>)| Some((*number, element::verdict(data)?));
    let choices = found.iter().map(choice).collect::<Option<_>>()?;
    Some(Statement::Spread(Balance { modulus, choices }))
}

/// Address and port in the data of a map: `NFTA_DATA_VALUE`, each in registers of four bytes.
fn endpoint(data: &[u8], family: Family) -> Option<(IpAddr, u16)> {
    let value = attributes(data).find(|(kind, _)| *kind == 1)?.1;
    let (ip, rest) = element::address(value, family)?;
    Some((ip, u16::from_be_bytes(*rest.first_chunk()?)))
}
