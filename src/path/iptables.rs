//! The way through iptables: every table and chain of one backend, as x_tables evaluates them for the first packet of a flow.

use super::trail::{Hook, Trail};
use super::{Around, End, Packet, Path};
use crate::inspect::iptables::{Action, ChainPolicy, Dump, Parts, Rule, Spec, Table};
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

/// Most packets followed at once: more ways than any Service has endpoints.
const MOST_WAYS: usize = 20_000;

/// Follows a packet through the tables of its family.
pub fn walk(dump: &Dump<'_>, packet: &Packet, around: &Around) -> Path {
    let mut walk = Walk { dump, packet, around, path: Path::default(), open: Vec::new() };
    walk.open.push(Place { trail: Trail::new(packet), tables: 0, stack: Vec::new() });
    while let Some(mut place) = walk.open.pop() {
        let verdict = walk.follow(&mut place);
        let way = place.trail.ends(packet, verdict);
        walk.path.ways.push(way);
    }
    walk.path
}

/// A packet, and where in the rules it stands.
#[derive(Clone)]
struct Place {
    trail: Trail,
    /// Tables of this hook that it is done with.
    tables: usize,
    /// Chains it is in, each with the number of the next rule from 0; empty before the base chain.
    stack: Vec<(usize, usize)>,
}

struct Walk<'w, 'd> {
    dump: &'w Dump<'d>,
    packet: &'w Packet,
    around: &'w Around,
    path: Path,
    /// Packets yet to be followed, the last one first.
    open: Vec<Place>,
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
            for &name in tables(place.trail.hook).iter().skip(place.tables) {
                let dump = self.dump;
                if let Some(table) = dump.table(name).filter(|_| !(name == "nat" && place.trail.looped))
                    && let Some(end) = self.table(table, place)
                {
                    return Some(end);
                }
                place.tables += 1;
            }
            place.tables = 0;
            if !place.trail.go_on(self.around) {
                return None;
            }
        }
    }

    /// Follows a packet through what is left of one table for it.
    fn table(&mut self, table: &Table<'d>, place: &mut Place) -> Option<End> {
        if place.stack.is_empty() {
            let base = place.trail.hook.name().to_uppercase();
            place.stack.push((table.chain(base.as_bytes())?, 0));
        }
        while let Some(&(chain, number)) = place.stack.last() {
            let Some(rule) = table.rule(chain, number + 1) else {
                place.stack.pop();
                if !place.stack.is_empty() {
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
            if let Some(top) = place.stack.last_mut() {
                top.1 += 1;
            }
            place.trail.compared += 1;
            let spec = rule.spec();
            let name = table.chains()[chain].name;
            match self.matches(&spec, rule, (table, name), place) {
                Matches::No => continue,
                Matches::Yes => {}
                Matches::Chance(p) if p >= 1.0 => {}
                Matches::Chance(p) if self.open.len() < MOST_WAYS => {
                    // This packet is the part that the rule takes; the other part comes after it.
                    let taken = place.trail.split(p);
                    let rest = std::mem::replace(&mut place.trail, taken);
                    self.open.push(Place { trail: rest, ..place.clone() });
                }
                Matches::Chance(_) => {
                    self.path.notes.insert(format!("more than {MOST_WAYS} ways: only so many were followed"));
                }
            }
            let at = format!("{} {} {}", text(table.name()), text(name), number + 1);
            match self.apply(&spec, rule, table, at, place) {
                Next::Rule => {}
                Next::Table => break,
                Next::End(end) => return Some(end),
            }
        }
        place.stack.clear();
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
                place.stack.pop();
            }
            if place.stack.len() > 64 {
                self.path.notes.insert("chains call each other more than 64 deep: not followed further".to_owned());
                return Next::Table;
            }
            place.stack.push((chain, 0));
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
                trail.step(at, "source becomes the node's", body);
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
                if place.stack.len() > 1 {
                    place.stack.pop();
                } else if let Some(top) = place.stack.last_mut() {
                    top.1 = usize::MAX - 1;
                }
                Next::Rule
            }
            (_, name) if GOES_ON.contains(&name) => {
                trail.step(at, text(name).to_lowercase(), body.clone());
                if matches!(name, b"CT" | b"NOTRACK") {
                    self.path.notes.insert(format!("rule {body}: the packet was taken to be tracked all the same"));
                }
                Next::Rule
            }
            (_, name) => {
                self.path.notes.insert(format!("target {} is unknown: the packet was taken to go on", text(name)));
                trail.step(at, text(name), body);
                Next::Rule
            }
        }
    }

    fn matches(&mut self, spec: &Spec<'_>, rule: &Rule<'_>, of: (&Table<'_>, &[u8]), place: &Place) -> Matches {
        let other = spec.parts.has(Parts::OTHER);
        if other && of_another_protocol(rule, self.packet.protocol) {
            return Matches::No;
        }
        let mut unknown = other.then_some("what the rule asks");
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
        if let Some(what) = unknown {
            if spec.target.is_none_or(|target| !GOES_ON.contains(&target.name)) {
                let (table, chain) = (text(of.0.name()), text(of.1));
                self.path
                    .notes
                    .insert(format!("not known: {what}; so no match was taken for {table} -A {chain} {rule}"));
            }
            return Matches::No;
        }
        if let Some(recent) = spec.recent.filter(|recent| !recent.set) {
            let seconds = recent.seconds.unwrap_or(0);
            self.path.notes.insert(format!(
                "the client was taken to be new: with affinity its backend of the last {seconds} s is kept"
            ));
            return if spec.negated.has(Parts::RECENT) { Matches::Yes } else { Matches::No };
        }
        match spec.probability {
            Some(p) => Matches::Chance(if spec.negated.has(Parts::PROBABILITY) { 1.0 - p } else { p }),
            None => Matches::Yes,
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

/// The tables of a hook, in the order of their priorities.
const fn tables(hook: Hook) -> &'static [&'static str] {
    match hook {
        Hook::Prerouting => &["raw", "mangle", "nat"],
        Hook::Input => &["mangle", "filter", "security", "nat"],
        Hook::Forward => &["mangle", "filter", "security"],
        Hook::Output => &["raw", "mangle", "nat", "filter", "security"],
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
