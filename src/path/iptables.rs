//! The way through iptables: every table and chain of one backend, as x_tables evaluates them for the first packet of a flow.

use super::ipvs::Scheduler;
use super::sets::{self, Asked};
use super::trail::{Hook, Trail};
use super::ways::{self, Ways};
use super::{Around, End, Packet, Path};
use crate::inspect::ipset::Sets;
use crate::inspect::iptables::{Action, ChainPolicy, Dump, Parts, Rule, Spec, Table, Words};
use crate::model::{Protocol, TrafficSource};

/// Targets after which the next rule is asked, whatever they do besides.
const GOES_ON: [&[u8]; 18] = [
    b"AUDIT",
    b"CHECKSUM",
    b"CLASSIFY",
    b"CONNMARK",
    b"CONNSECMARK",
    b"CT",
    b"DSCP",
    b"ECN",
    b"HL",
    b"LOG",
    b"NFLOG",
    b"NOTRACK",
    b"SECMARK",
    b"SET",
    b"TCPMSS",
    b"TOS",
    b"TRACE",
    b"TTL",
];

/// Follows a packet through the tables of its family, and the sets that they name.
pub fn walk(dump: &Dump<'_>, sets: &Sets, packet: &Packet, around: &Around) -> Path {
    follow(dump, sets, None, packet, around)
}

/// The same, with IPVS among the tables.
pub(super) fn follow(
    dump: &Dump<'_>,
    sets: &Sets,
    ipvs: Option<Scheduler<'_>>,
    packet: &Packet,
    around: &Around,
) -> Path {
    let mut walk = Walk { dump, sets, ipvs, packet, around, ways: Ways::of(packet, At::default()) };
    while let Some(mut place) = walk.ways.next() {
        let verdict = walk.follow(&mut place);
        walk.ways.end(place.trail, packet, verdict);
    }
    walk.ways.path()
}

type Place = ways::Place<At>;

/// Where in the rules a packet stands.
#[derive(Clone, Default)]
pub(super) struct At {
    /// Tables of this hook that it is done with.
    pub(super) tables: usize,
    /// Chains it is in, each with the number of the next rule from 0; empty before the base chain.
    stack: Vec<(usize, usize)>,
}

struct Walk<'w, 'd> {
    dump: &'w Dump<'d>,
    sets: &'w Sets,
    ipvs: Option<Scheduler<'w>>,
    packet: &'w Packet,
    around: &'w Around,
    ways: Ways<At>,
}

/// What a rule says of a packet.
enum Matches {
    No,
    Yes,
    Chance(f64),
}

/// What follows of a rule.
enum Next {
    /// The next rule.
    Rule,
    /// The next table of the hook.
    Table,
    End(End),
}

impl<'d> Walk<'_, 'd> {
    /// Follows a packet to its end; the parts that lots send elsewhere are left in `open`.
    fn follow(&mut self, place: &mut Place) -> Option<End> {
        loop {
            while let Some(&name) = tables(place.trail.hook).get(place.at.tables) {
                let end = match (name, &self.ipvs) {
                    (IPVS, Some(ipvs)) => {
                        place.at.tables += 1;
                        if let Some(end) = ipvs.schedule(self.packet, self.around, place, &mut self.ways) {
                            return Some(end);
                        }
                        continue;
                    }
                    // The mapping of a packet that comes back by `lo`, or has a server, is made.
                    ("nat", _) if place.trail.looped || place.trail.served && place.trail.hook == Hook::Output => None,
                    _ => self.dump.table(name).and_then(|table| self.table(table, place)),
                };
                if end.is_some() {
                    return end;
                }
                place.at.tables += 1;
            }
            place.at.tables = 0;
            if !place.trail.go_on(self.around) {
                return None;
            }
            if let Some(ipvs) = &self.ipvs {
                ipvs.route(self.packet, place);
            }
        }
    }

    /// Follows a packet through what is left of one table for it.
    fn table(&mut self, table: &Table<'d>, place: &mut Place) -> Option<End> {
        if place.at.stack.is_empty() {
            let base = place.trail.hook.name().to_uppercase();
            place.at.stack.push((table.chain(base.as_bytes())?, 0));
        }
        while let Some(&(chain, number)) = place.at.stack.last() {
            let Some(rule) = table.rule(chain, number + 1) else {
                place.at.stack.pop();
                if !place.at.stack.is_empty() {
                    continue;
                }
                let chain = &table.chains()[chain];
                if chain.policy == ChainPolicy::Drop {
                    let at = format!("{} {} policy", text(table.name()), text(chain.name));
                    place.trail.step(at, "drop", "policy DROP".to_owned());
                    return Some(End::Dropped);
                }
                break;
            };
            if let Some(top) = place.at.stack.last_mut() {
                top.1 += 1;
            }
            if !self.ways.compare(&mut place.trail) {
                return Some(End::Untouched);
            }
            let spec = rule.spec();
            let name = table.chains()[chain].name;
            match self.matches(&spec, rule, (table, name), place) {
                Matches::No => continue,
                Matches::Yes => {}
                Matches::Chance(p) if p >= 1.0 => {}
                Matches::Chance(p) => {
                    // This packet is the part that the rule takes; the other part comes after it.
                    let taken = place.trail.split(p);
                    let rest = std::mem::replace(&mut place.trail, taken);
                    self.ways.later(Place { trail: rest, at: place.at.clone() });
                }
            }
            let at = format!("{} {} {}", text(table.name()), text(name), number + 1);
            match self.apply(&spec, rule, table, at, place) {
                Next::Rule => {}
                Next::Table => break,
                Next::End(end) => return Some(end),
            }
        }
        place.at.stack.clear();
        None
    }

    /// Does what a rule that matches says.
    fn apply(&mut self, spec: &Spec<'d>, rule: &Rule<'d>, table: &Table<'d>, at: String, place: &mut Place) -> Next {
        let trail = &mut place.trail;
        let body = rule.to_string();
        let Some(target) = spec.target else {
            trail.step(at, if spec.recent.is_some() { "remembers the client" } else { "counts" }, body);
            return Next::Rule;
        };
        if let Some(chain) = table.chain(target.name) {
            trail.step(at, format!("-> {}", text(target.name)), body);
            if target.goto {
                place.at.stack.pop();
            }
            if place.at.stack.len() > 64 {
                self.ways.note("chains call each other more than 64 deep: not followed further".to_owned());
                return Next::Table;
            }
            place.at.stack.push((chain, 0));
            return Next::Rule;
        }
        match (target.action, target.name) {
            (Action::Dnat(to), _) => {
                trail.step(at, format!("to {to}"), body);
                trail.destination = to;
                trail.translated = true;
                Next::Table
            }
            (Action::Mark { value, mask }, _) => {
                trail.step(at, format!("mark {value:#x}"), body);
                trail.mark = trail.mark & !mask ^ value;
                Next::Rule
            }
            (Action::Masquerade { .. }, _) => {
                trail.step(at, super::MASQUERADES, body);
                trail.masqueraded = true;
                Next::Table
            }
            (Action::Reject(with), _) => {
                trail.step(at, format!("refuse: {}", text(with)), body);
                Next::End(End::Refused)
            }
            (Action::Plain, b"ACCEPT") => {
                trail.step(at, "accept", body);
                Next::Table
            }
            (Action::Plain, b"DROP") => {
                trail.step(at, "drop", body);
                Next::End(End::Dropped)
            }
            (Action::Plain, b"RETURN") => {
                trail.step(at, "return", body);
                // Out of a base chain it is the policy that decides.
                if place.at.stack.len() > 1 {
                    place.at.stack.pop();
                } else if let Some(top) = place.at.stack.last_mut() {
                    top.1 = usize::MAX - 1;
                }
                Next::Rule
            }
            (_, name) if GOES_ON.contains(&name) => {
                trail.step(at, text(name).to_lowercase(), body.clone());
                if matches!(name, b"CT" | b"NOTRACK") {
                    self.ways.note(format!("rule {body}: the packet was taken to be tracked all the same"));
                }
                Next::Rule
            }
            (_, name) => {
                self.ways.note(format!("target {} is unknown: the packet was taken to go on", text(name)));
                trail.step(at, text(name), body);
                Next::Rule
            }
        }
    }

    fn matches(&mut self, spec: &Spec<'_>, rule: &Rule<'_>, of: (&Table<'_>, &[u8]), place: &Place) -> Matches {
        if spec.parts.has(Parts::OTHER) && of_another_protocol(rule, self.packet.protocol) {
            return Matches::No;
        }
        let apart = spec.parts.has(Parts::OTHER).then(|| sets::apart(rule));
        let rest = apart.as_ref().map(|(rest, _)| Spec::read(Words::new(rest)));
        let spec = rest.as_ref().unwrap_or(spec);
        let mut unknown = spec.parts.has(Parts::OTHER).then_some("what the rule asks");
        let trail = &place.trail;
        let mut holds = |part: Parts, held: Option<bool>, what: &'static str| match held {
            _ if !spec.parts.has(part) => true,
            Some(held) => held != spec.negated.has(part),
            None => {
                unknown.get_or_insert(what);
                true
            }
        };
        let packet = self.packet;
        let source = packet.source;
        let destination = trail.destination;
        let within = |net: Option<ipnet::IpNet>, ip| net.is_some_and(|net| net.contains(&ip));
        let leaves = match trail.hook {
            Hook::Forward | Hook::Output | Hook::Postrouting => Some(self.around.interface_to(destination.ip())),
            Hook::Prerouting | Hook::Input => None,
        };
        let comes = match (trail.incoming(packet), trail.hook) {
            (None, Hook::Output | Hook::Postrouting) => Some(false),
            (None, _) => None,
            (Some(name), _) => Some(named(spec.in_interface, name)),
        };
        let goes = match leaves {
            None => Some(false),
            Some(None) => None,
            Some(Some(name)) => Some(named(spec.out_interface, name)),
        };
        let is_local = |kind: Option<&[u8]>, ip: Option<std::net::IpAddr>| match kind {
            Some(b"LOCAL") => self.around.is_local(ip?),
            _ => None,
        };
        let known_source = source.map(|ip| within(spec.source, ip)).or_else(|| spec.source.and_then(everything));
        let all = holds(Parts::PROTOCOL, Some(spec.protocol == Some(packet.protocol)), "")
            && holds(Parts::DPORT, Some(spec.dport.is_some_and(|(a, b)| (a..=b).contains(&destination.port()))), "")
            && holds(Parts::DESTINATION, Some(within(spec.destination, destination.ip())), "")
            && holds(Parts::MARK, Some(spec.mark.is_some_and(|(value, mask)| trail.mark & mask == value)), "")
            && holds(Parts::CTSTATE, Some(spec.ctstate.is_some_and(|states| in_state(states, trail))), "")
            && holds(Parts::DST_TYPE, is_local(spec.dst_type, Some(destination.ip())), "the node's addresses")
            && holds(Parts::SOURCE, known_source, "the client's address (--from-ip tells)")
            && holds(
                Parts::SRC_TYPE,
                is_local(spec.src_type, self.source_for_type(source)),
                "whether the client is the node",
            )
            && holds(Parts::IN, comes, "the interface it comes in by (--in-interface tells)")
            && holds(Parts::OUT, goes, "the interface it leaves by")
            && holds(Parts::SPORT, None, "the source port");
        if !all {
            return Matches::No;
        }
        for asked in apart.iter().flat_map(|(_, asked)| asked) {
            match self.asked(asked, trail) {
                Some(false) => return Matches::No,
                Some(true) => {}
                None => unknown = unknown.or(Some("what is in the set")),
            }
        }
        if let Some(what) = unknown {
            if spec.target.is_none_or(|target| !GOES_ON.contains(&target.name)) {
                let (table, chain) = (text(of.0.name()), text(of.1));
                self.ways.note(format!("not known: {what}; so no match was taken for {table} -A {chain} {rule}"));
            }
            return Matches::No;
        }
        if let Some(recent) = spec.recent.filter(|recent| !recent.set) {
            let seconds = recent.seconds.unwrap_or(0);
            self.ways.note(format!(
                "the client was taken to be new: with affinity its backend of the last {seconds} s is kept"
            ));
            return if spec.negated.has(Parts::RECENT) { Matches::Yes } else { Matches::No };
        }
        match spec.probability {
            Some(p) => Matches::Chance(if spec.negated.has(Parts::PROBABILITY) { 1.0 - p } else { p }),
            None => Matches::Yes,
        }
    }

    /// Whether a condition that no [`Spec`] has holds; `None` where that is not known.
    fn asked(&mut self, asked: &Asked, trail: &Trail) -> Option<bool> {
        match asked {
            Asked::Set { name, sides, not } => {
                let set = self.sets.get(name.as_str())?;
                sets::has(set, sides, self.packet, trail.destination).map(|has| has != *not)
            }
            Asked::Bridged { not } => {
                self.ways.note("the packet was taken not to come in by a port of a bridge");
                Some(*not)
            }
            Asked::Served { by, not } => Some(trail.served && by.has(self.packet, trail) != *not),
        }
    }

    /// A socket of the node has one of the node's addresses, whichever it is.
    fn source_for_type(&self, source: Option<std::net::IpAddr>) -> Option<std::net::IpAddr> {
        match self.packet.origin {
            TrafficSource::Node => Some(std::net::Ipv4Addr::LOCALHOST.into()),
            TrafficSource::Outside | TrafficSource::Pod => source,
        }
    }
}

/// Where IPVS comes among the tables.
const IPVS: &str = "IPVS";

/// The tables of a hook, in the order of their priorities; IPVS has 99 at input and -98 at output.
const fn tables(hook: Hook) -> &'static [&'static str] {
    match hook {
        Hook::Prerouting => &["raw", "mangle", "nat"],
        Hook::Input => &["mangle", "filter", "security", IPVS, "nat"],
        Hook::Forward => &["mangle", "filter", "security"],
        Hook::Output => &["raw", "mangle", "nat", IPVS, "filter", "security"],
        Hook::Postrouting => &["mangle", "nat"],
    }
}

/// A network of all addresses holds any.
fn everything(net: ipnet::IpNet) -> Option<bool> {
    (net.prefix_len() == 0).then_some(true)
}

/// Whether an interface has the name, or the beginning that a `+` follows.
fn named(pattern: Option<&[u8]>, name: &str) -> bool {
    match pattern {
        Some([prefix @ .., b'+']) => name.as_bytes().starts_with(prefix),
        Some(whole) => whole == name.as_bytes(),
        None => true,
    }
}

/// Whether the first packet of a flow is in one of these states.
fn in_state(states: &[u8], trail: &Trail) -> bool {
    states.split(|b| *b == b',').any(|state| match state {
        b"NEW" => true,
        b"DNAT" => trail.translated,
        b"SNAT" => trail.masqueraded,
        _ => false,
    })
}

/// Whether a rule names a protocol that no Service has, so that it is for no such packet.
fn of_another_protocol(rule: &Rule<'_>, protocol: Protocol) -> bool {
    const OTHERS: [&[u8]; 11] =
        [b"icmp", b"icmpv6", b"ipv6-icmp", b"esp", b"ah", b"gre", b"igmp", b"ipencap", b"ipv6", b"dccp", b"udplite"];
    let mut words = rule.words();
    while let Some(word) = words.next() {
        if word.raw() == b"-p" {
            let Some(named) = words.next() else { return false };
            let number = std::str::from_utf8(named.raw()).ok().and_then(|text| text.parse::<u8>().ok());
            return OTHERS.contains(&named.raw()) || number.is_some_and(|number| number != protocol.number());
        }
    }
    false
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
