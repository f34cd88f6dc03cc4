//! The way through kube-proxy's nftables table, as nf_tables evaluates it for the first packet of a flow.

use std::net::IpAddr;

use super::trail::{Hook, Trail};
use super::ways::{self, Ways};
use super::{Around, End, Packet, Path};
use crate::inspect::nftables::{
    Addresses, Balance, Chain, Key, Match, OtherTable, Rule, Ruleset, Side, Statement, Table, Verdict,
};
use crate::model::TrafficSource;

/// Follows a packet through the table of its family; `None` without one.
pub fn walk(ruleset: &Ruleset, packet: &Packet, around: &Around) -> Option<Path> {
    ruleset.table(packet.family()).map(|table| through(table, packet, around))
}

/// Follows a packet through a table of somebody else; `None` where packets of its family do not meet it.
pub fn walk_others(other: &OtherTable, packet: &Packet, around: &Around) -> Option<Path> {
    let mut path = through(other.meets.get(&packet.family())?, packet, around);
    for step in path.ways.iter_mut().flat_map(|way| &mut way.steps) {
        step.at = format!("{} {} {}", other.family, other.name, step.at);
    }
    Some(path)
}

fn through(table: &Table, packet: &Packet, around: &Around) -> Path {
    let mut walk = Walk { table, packet, around, ways: Ways::of(packet, At::default()) };
    while let Some(mut place) = walk.ways.next() {
        let verdict = walk.follow(&mut place);
        walk.ways.end(place.trail, packet, verdict);
    }
    walk.ways.path()
}

type Place<'t> = ways::Place<At<'t>>;

/// Where in the rules a packet stands.
#[derive(Clone, Default)]
struct At<'t> {
    /// Priority and name of the base chain of this hook that it has come to.
    done: Option<(i32, &'t str)>,
    /// Chains it is in, each with the number of the next rule and of the statement in there, from 0.
    stack: Vec<(&'t str, &'t Chain, usize)>,
}

struct Walk<'t> {
    table: &'t Table,
    packet: &'t Packet,
    around: &'t Around,
    ways: Ways<At<'t>>,
}

/// What follows of a statement, or of a rule.
enum Next<'t> {
    /// The next statement of the rule.
    Statement,
    /// The rule does not match: the next one.
    NoMatch,
    /// A verdict.
    Verdict(&'t Verdict),
    /// The packet has a new destination, or source: this base chain is done.
    Done,
    End(End),
}

impl<'t> Walk<'t> {
    fn follow(&mut self, place: &mut Place<'t>) -> Option<End> {
        loop {
            if place.at.stack.is_empty() {
                while let Some((priority, name, chain)) = self.next_base(place) {
                    place.at.done = Some((priority, name));
                    place.at.stack.push((name, chain, 0));
                    if let Some(end) = self.chain(place) {
                        return Some(end);
                    }
                }
                place.at.done = None;
                if !place.trail.go_on(self.around) {
                    return None;
                }
            } else if let Some(end) = self.chain(place) {
                return Some(end);
            }
        }
    }

    /// The next base chain of this hook.
    fn next_base(&self, place: &Place<'t>) -> Option<(i32, &'t str, &'t Chain)> {
        let of_hook = self.table.chains.iter().filter_map(|(name, chain)| {
            let hook = chain.hook.as_ref()?;
            // The mapping of a packet that comes back by `lo` is made.
            let made = place.trail.looped && &*hook.kind == "nat";
            (&*hook.hook == place.trail.hook.name() && !made).then_some((hook.priority, &**name, chain))
        });
        of_hook
            .filter(|(priority, name, _)| place.at.done.is_none_or(|done| (*priority, *name) > done))
            .min_by_key(|c| (c.0, c.1))
    }

    /// Follows a packet through the base chain that it is in.
    fn chain(&mut self, place: &mut Place<'t>) -> Option<End> {
        while let Some(&(name, chain, number)) = place.at.stack.last() {
            let Some(rule) = chain.rules.get(number) else {
                place.at.stack.pop();
                if place.at.stack.is_empty()
                    && let Some(hook) = &chain.hook
                    && !hook.accepts
                {
                    place.trail.step(format!("{name} policy"), "drop", "policy drop".to_owned());
                    return Some(End::Dropped);
                }
                continue;
            };
            if let Some(top) = place.at.stack.last_mut() {
                top.2 += 1;
            }
            if !self.ways.compare(&mut place.trail) {
                return Some(End::Untouched);
            }
            let at = format!("{name} {}", number + 1);
            match self.rule(rule, &at, place) {
                Next::Statement | Next::NoMatch => {}
                Next::Done => break,
                Next::End(end) => return Some(end),
                Next::Verdict(verdict) => {
                    if let Some(end) = self.verdict(verdict, place) {
                        return Some(end);
                    }
                }
            }
        }
        place.at.stack.clear();
        None
    }

    /// Does what a verdict says.
    fn verdict(&mut self, verdict: &'t Verdict, place: &mut Place<'t>) -> Option<End> {
        match verdict {
            Verdict::Accept => place.at.stack.clear(),
            Verdict::Drop => return Some(End::Dropped),
            Verdict::Continue => {}
            Verdict::Return => {
                if place.at.stack.len() > 1 {
                    place.at.stack.pop();
                } else if let Some(top) = place.at.stack.last_mut() {
                    // Out of a base chain it is the policy that decides.
                    top.2 = usize::MAX;
                }
            }
            Verdict::Jump(chain) | Verdict::Goto(chain) => {
                let Some((name, to)) = self.table.chains.get_key_value(chain) else {
                    self.ways.note(format!("there is no chain {chain}: the packet was taken to go on"));
                    return None;
                };
                if matches!(verdict, Verdict::Goto(_)) {
                    // A base chain that is left so still has its policy; kube-proxy's accept.
                    place.at.stack.pop();
                }
                // nf_tables allows 16.
                if place.at.stack.len() < 16 {
                    place.at.stack.push((name, to, 0));
                }
            }
        }
        None
    }

    /// What a rule does with a packet.
    fn rule(&mut self, rule: &'t Rule, at: &str, place: &mut Place<'t>) -> Next<'t> {
        let text = rule.text(self.packet.family()).to_string();
        let mut noted = false;
        for statement in &rule.statements {
            match self.statement(statement, at, &text, place) {
                Next::Statement => noted |= !matches!(statement, Statement::Match(_)),
                next => return next,
            }
        }
        if !noted {
            place.trail.step(at.to_owned(), "nothing", text);
        }
        Next::Statement
    }

    fn statement(&mut self, statement: &'t Statement, at: &str, text: &str, place: &mut Place<'t>) -> Next<'t> {
        let trail = &mut place.trail;
        let (ip, port, protocol) = (trail.destination.ip(), trail.destination.port(), self.packet.protocol);
        let step = |trail: &mut Trail, does: String| trail.step(at.to_owned(), does, text.to_owned());
        match statement {
            Statement::Match(condition) => {
                return if self.holds(condition, trail, text) { Next::Statement } else { Next::NoMatch };
            }
            Statement::MarkOr(bits) => {
                trail.mark |= bits;
                step(trail, format!("mark {bits:#x}"));
            }
            Statement::MarkXor(bits) => {
                trail.mark ^= bits;
                step(trail, format!("mark {:#x}", trail.mark));
            }
            Statement::ServiceMap(map) => return self.looked_up(map, &Key::Service(ip, protocol, port), at, place),
            Statement::NodePortMap(map) => return self.looked_up(map, &Key::NodePort(protocol, port), at, place),
            Statement::Spread(balance) => {
                return match self.draw(balance, place) {
                    Some(verdict) => {
                        let does = name_of(verdict);
                        place.trail.step(at.to_owned(), does, text.to_owned());
                        Next::Verdict(verdict)
                    }
                    None => Next::NoMatch,
                };
            }
            Statement::DnatSpread(balance) => {
                let Some(&(ip, port)) = self.draw(balance, place) else { return Next::NoMatch };
                return translate(at, text, ip, port, &mut place.trail);
            }
            Statement::Dnat(ip, port) => return translate(at, text, *ip, *port, trail),
            Statement::Elsewhere(_) => {
                step(trail, "to another destination".to_owned());
                trail.translated = true;
                return Next::Done;
            }
            Statement::Remember(set) => step(trail, format!("remembers the client in {set}")),
            Statement::Masquerade { .. } => {
                step(trail, super::MASQUERADES.to_owned());
                trail.masqueraded = true;
                return Next::Done;
            }
            Statement::Reject => {
                step(trail, "refuse".to_owned());
                return Next::End(End::Refused);
            }
            Statement::Verdict(verdict) => {
                step(trail, name_of(verdict));
                return Next::Verdict(verdict);
            }
            Statement::Other(other) => {
                self.ways.note(format!("not understood, and passed over: {other}"));
                return Next::NoMatch;
            }
        }
        Next::Statement
    }

    /// The verdict that a map has for a key.
    fn looked_up(&mut self, name: &str, key: &Key, at: &str, place: &mut Place<'t>) -> Next<'t> {
        let elements = self.table.sets.get(name).map_or(&[][..], |set| &set.elements[..]);
        let Ok(found) = elements.binary_search_by(|element| element.key.cmp(key)) else { return Next::NoMatch };
        let Some(verdict) = &elements[found].verdict else { return Next::NoMatch };
        place.trail.step(format!("{at}, map {name}"), name_of(verdict), key.to_string());
        Next::Verdict(verdict)
    }

    /// Draws lots: follows this packet to the first choice and leaves the others for later.
    fn draw<T: PartialEq>(&mut self, balance: &'t Balance<T>, place: &mut Place<'t>) -> Option<&'t T> {
        let share = 1.0 / f64::from(balance.modulus.max(1));
        let chosen = place.trail.clone();
        let number = place.trail.lot.take();
        if let Some(number) = number {
            return balance.choices.get(number).map(|(_, choice)| choice);
        }
        let left_over = 1.0 - share * balance.choices.len() as f64;
        if left_over > share / 2.0 {
            self.later(place, &chosen, left_over, usize::MAX);
        }
        for number in (1..balance.choices.len()).rev() {
            self.later(place, &chosen, share, number);
        }
        place.trail.probability *= share;
        balance.choices.first().map(|(_, choice)| choice)
    }

    /// Leaves the part of the packets that has drawn this number for later: it comes to the same rule again.
    fn later(&mut self, place: &Place<'t>, trail: &Trail, share: f64, number: usize) {
        let mut other = place.clone();
        other.trail = trail.clone();
        other.trail.probability *= share;
        other.trail.compared -= 1;
        other.trail.lot = Some(number);
        if let Some(top) = other.at.stack.last_mut() {
            top.2 -= 1;
        }
        self.ways.later(other);
    }

    /// Whether a condition holds. What is not known is taken not to, and noted.
    fn holds(&mut self, condition: &Match, trail: &Trail, text: &str) -> bool {
        let (packet, destination) = (self.packet, trail.destination);
        let mut unknown = |what: &str| {
            self.ways.note(format!("not known: {what}; so no match was taken for {text}"));
            false
        };
        let address = |side: Side| match side {
            Side::Destination => Some(destination.ip()),
            Side::Source => packet.source,
        };
        match condition {
            Match::Address { side, not, among } => {
                let Some(ip) = address(*side) else {
                    // A client that nobody named is none that is named in a set.
                    return match among {
                        Addresses::Nets(nets) if nets.iter().any(|net| net.prefix_len() == 0) => !not,
                        Addresses::Set(_) => *not,
                        Addresses::Nets(_) => unknown("the client's address (--from-ip tells)"),
                    };
                };
                let inside = match among {
                    Addresses::Nets(nets) => nets.iter().any(|net| net.contains(&ip)),
                    Addresses::Set(name) => self.has(name, &Key::Address(ip)),
                };
                inside != *not
            }
            Match::Local(Side::Source) if packet.origin == TrafficSource::Node => true,
            Match::Local(side) => match address(*side).and_then(|ip| self.around.is_local(ip)) {
                Some(local) => local,
                None => unknown("whether the address is one of the node's"),
            },
            Match::Protocol(protocol) => *protocol == packet.protocol,
            Match::Port(protocol, port) => (*protocol, *port) == (packet.protocol, destination.port()),
            Match::Interface { not, name, .. } => match (trail.incoming(packet), trail.hook) {
                (None, Hook::Output | Hook::Postrouting) => *not,
                (None, _) => unknown("the interface it comes in by (--in-interface tells)"),
                (Some(own), _) => {
                    let same = name.strip_suffix('*').map_or(own == &**name, |prefix| own.starts_with(prefix));
                    same != *not
                }
            },
            Match::Marked { bits, set } => (trail.mark & bits != 0) == *set,
            Match::New => true,
            Match::Translated => trail.translated,
            Match::Hairpin(set) => packet.source.is_some_and(|source| {
                self.has(set, &Key::Hairpin(source, destination.ip(), packet.protocol, destination.port()))
            }),
        }
    }

    /// Whether a set has this element.
    fn has(&self, set: &str, key: &Key) -> bool {
        let elements = self.table.sets.get(set).map_or(&[][..], |set| &set.elements[..]);
        elements.binary_search_by(|element| element.key.cmp(key)).is_ok()
    }
}

fn translate<'t>(at: &str, text: &str, ip: IpAddr, port: u16, trail: &mut Trail) -> Next<'t> {
    trail.destination = std::net::SocketAddr::new(ip, port);
    trail.step(at.to_owned(), format!("to {}", trail.destination), text.to_owned());
    trail.translated = true;
    Next::Done
}

fn name_of(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Continue => "continue".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Jump(chain) | Verdict::Goto(chain) => format!("-> {chain}"),
    }
}
