//! What iptables rules ask besides the matches that have types: sets, bridges and IPVS.

use std::net::{IpAddr, SocketAddr};

use super::Packet;
use super::trail::Trail;
use crate::inspect::ipset::{Part, Set};
use crate::inspect::iptables::{Rule, Word};
use crate::model::{Family, Protocol};

/// A condition of a rule.
pub(super) enum Asked {
    /// `-m set --match-set NAME SIDE,SIDE…`
    Set { name: String, sides: Vec<Side>, not: bool },
    /// `-m physdev --physdev-is-in`
    Bridged { not: bool },
    /// `-m ipvs` with one of its options: what the packet was sent to before IPVS gave it a server.
    Served { by: Virtual, not: bool },
}

/// A property of a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Virtual {
    /// `--vproto NUMBER`
    Protocol(u8),
    /// `--vaddr ADDRESS`
    Address(IpAddr),
    /// `--vport PORT`
    Port(u16),
}

impl Virtual {
    fn read(option: &[u8], value: &[u8]) -> Option<Self> {
        let value = std::str::from_utf8(value).ok()?;
        match option {
            b"--vproto" => value.parse().ok().map(Self::Protocol),
            b"--vaddr" => value.parse().ok().map(Self::Address),
            b"--vport" => value.parse().ok().map(Self::Port),
            _ => None,
        }
    }

    /// Whether a packet has a server of such a service.
    pub(super) fn has(self, packet: &Packet, trail: &Trail) -> bool {
        trail.served
            && match self {
                Self::Protocol(number) => packet.protocol.number() == number,
                Self::Address(ip) => packet.destination.ip() == ip,
                Self::Port(port) => packet.destination.port() == port,
            }
    }
}

/// Whether a set is asked for the packet's source, or for its destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

/// Takes these conditions out of a rule: what is left of its text, and the conditions.
pub(super) fn apart(rule: &Rule<'_>) -> (Vec<u8>, Vec<Asked>) {
    let words: Vec<&[u8]> = rule.words().map(Word::raw).filter(|word| !word.is_empty()).collect();
    let (mut left, mut rest, mut asked) = (words.as_slice(), Vec::new(), Vec::new());
    loop {
        let (not, option) = match left {
            [b"!", option @ ..] => (true, option),
            option => (false, option),
        };
        let found = match option {
            [b"--match-set", name, sides, after @ ..] => sides_of(sides).map(|sides| {
                let name = String::from_utf8_lossy(name).into_owned();
                (Asked::Set { name, sides, not }, after)
            }),
            [b"--physdev-is-in", after @ ..] => Some((Asked::Bridged { not }, after)),
            [option, value, after @ ..] => Virtual::read(option, value).map(|by| (Asked::Served { by, not }, after)),
            _ => None,
        };
        left = match (found, left) {
            (Some((condition, after)), _) => {
                asked.push(condition);
                after
            }
            // A comment may be any word.
            (
                None,
                [b"-m", b"set" | b"physdev" | b"ipvs", after @ ..] | [b"-m", b"comment", b"--comment", _, after @ ..],
            ) => after,
            (None, [word, after @ ..]) => {
                rest.push(*word);
                after
            }
            (None, []) => return (rest.join(&b' '), asked),
        };
    }
}

fn sides_of(text: &[u8]) -> Option<Vec<Side>> {
    let side = |word: &[u8]| match word {
        b"src" => Some(Side::Source),
        b"dst" => Some(Side::Destination),
        _ => None,
    };
    text.split(|byte| *byte == b',').map(side).collect()
}

/// Whether a set has what a packet shows of these sides; `None` where that is not known.
pub(super) fn has(set: &Set, sides: &[Side], packet: &Packet, destination: SocketAddr) -> Option<bool> {
    let dimensions: Vec<&str> = set.kind.split_once(':').map_or("", |(_, parts)| parts).split(',').collect();
    let family = match set.options.get("family").map(String::as_str) {
        Some("inet6") => Some(Family::V6),
        Some(_) => Some(Family::V4),
        None => None,
    };
    if family.is_some_and(|family| family != packet.family()) {
        return Some(false);
    }
    if dimensions.len() > sides.len() {
        return None;
    }
    let any_ip = |ip: std::net::IpAddr| {
        move |part: &Part| match part {
            Part::Ip(own) => Some(*own == ip),
            Part::Net(net) => Some(net.contains(&ip)),
            Part::Port(..) | Part::Other(_) => None,
        }
    };
    let mut known = true;
    let found = set.entries.iter().any(|entry| {
        let holds =
            dimensions.iter().zip(sides).zip(&entry.0).map(|((dimension, side), part)| match (*dimension, side) {
                ("ip" | "net", Side::Destination) => any_ip(destination.ip())(part),
                ("ip" | "net", Side::Source) => any_ip(packet.source?)(part),
                ("port", Side::Destination) => match part {
                    Part::Port(protocol, port) => {
                        // A set of bare ports is one of TCP and UDP.
                        let same = protocol.map_or(packet.protocol != Protocol::Sctp, |own| own == packet.protocol);
                        Some(same && *port == destination.port())
                    }
                    Part::Ip(_) | Part::Net(_) | Part::Other(_) => None,
                },
                _ => None,
            });
        let (mut excluded, mut open) = (false, false);
        for one in holds {
            excluded |= one == Some(false);
            open |= one.is_none();
        }
        // What is known not to be decides, whatever else is not known.
        known &= excluded || !open;
        !excluded && !open
    });
    (found || known).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::ipset;
    use crate::inspect::iptables::parse;
    use crate::model::TrafficSource;

    fn packet(source: Option<&str>, to: &str, protocol: Protocol) -> Packet {
        Packet {
            origin: TrafficSource::Outside,
            source: source.map(|ip| ip.parse().expect("an address")),
            destination: to.parse().expect("an address"),
            protocol,
            interface: None,
        }
    }

    #[test]
    fn sets_are_asked_by_the_sides_of_a_packet() {
        let text = b"create A hash:ip,port family inet\nadd A 10.96.0.10,udp:53\n\
                     create B hash:ip,port,net family inet\nadd B 203.0.113.12,tcp:443,192.0.2.0/24\n\
                     create C bitmap:port range 0-65535\nadd C 30080\ncreate D hash:ip family inet6\nadd D fd00::1\n";
        let sets = ipset::parse(text).expect("it parses");
        let ask = |name: &str, sides: &str, packet: &Packet| {
            has(&sets[name], &sides_of(sides.as_bytes()).expect("sides"), packet, packet.destination)
        };
        let dns = packet(None, "10.96.0.10:53", Protocol::Udp);
        assert_eq!(ask("A", "dst,dst", &dns), Some(true));
        assert_eq!(ask("A", "dst,dst", &packet(None, "10.96.0.10:53", Protocol::Tcp)), Some(false));
        // By a source that nobody told; but no entry has this port.
        assert_eq!(ask("A", "src,dst", &dns), None);
        assert_eq!(ask("A", "src,dst", &packet(None, "10.96.0.10:54", Protocol::Udp)), Some(false));
        assert_eq!(ask("A", "dst", &dns), None);
        let web = |source| packet(Some(source), "203.0.113.12:443", Protocol::Tcp);
        assert_eq!(ask("B", "dst,dst,src", &web("192.0.2.7")), Some(true));
        assert_eq!(ask("B", "dst,dst,src", &web("192.0.3.7")), Some(false));
        assert_eq!(ask("C", "dst", &packet(None, "192.0.2.1:30080", Protocol::Tcp)), Some(true));
        assert_eq!(ask("C", "dst", &packet(None, "192.0.2.1:30080", Protocol::Sctp)), Some(false));
        assert_eq!(ask("D", "dst", &dns), Some(false));
    }

    #[test]
    fn conditions_without_types_are_taken_out_of_a_rule() {
        let text = b"*nat\n:X - [0:0]\n-A X -p tcp -m comment --comment \"-m set --match-set Z dst\" -m set ! --match-set A src,dst \
                     -m physdev ! --physdev-is-in -m ipvs --vport 443 -m quota --quota 5 -j ACCEPT\nCOMMIT\n";
        let dump = parse(text).expect("it parses");
        let rule = dump.tables()[0].rule(0, 1).expect("a rule");
        let (rest, asked) = apart(rule);
        assert_eq!(String::from_utf8_lossy(&rest), "-p tcp -m quota --quota 5 -j ACCEPT");
        let [Asked::Set { name, sides, not: true }, Asked::Bridged { not: true }, Asked::Served { by, not: false }] =
            asked.as_slice()
        else {
            panic!("{} conditions", asked.len())
        };
        assert_eq!(*by, Virtual::Port(443));
        assert!(name == "A" && *sides == [Side::Source, Side::Destination]);
    }
}
