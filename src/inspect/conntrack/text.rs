//! The text forms: `/proc/net/nf_conntrack`, and `conntrack -L`, with or without `-o extended`.
//!
//! `ipv4 2 tcp 6 86398 ESTABLISHED src=… dst=… sport=… dport=… [UNREPLIED] src=… dst=… sport=… dport=… [ASSURED] mark=0
//! zone=0 use=2`; counters follow the ports of each direction.

use std::net::{IpAddr, SocketAddr};

use super::entry::{Counters, Entry, Status, Tuple, states};

/// The entries of a text; broken lines, headings and a last line without its end are passed over.
pub fn parse(text: &[u8], mut each: impl FnMut(&Entry)) {
    let lines = text.split_inclusive(|b| *b == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    for entry in lines.filter_map(|line| parse_line(std::str::from_utf8(line).ok()?)) {
        each(&entry);
    }
}

/// One direction, as far as it was read.
#[derive(Clone, Copy, Default)]
struct Direction {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    sport: u16,
    dport: u16,
    counters: Option<Counters>,
}

impl Direction {
    fn tuple(self) -> Option<Tuple> {
        Some(Tuple {
            source: SocketAddr::new(self.source?, self.sport),
            destination: SocketAddr::new(self.destination?, self.dport),
        })
    }
}

/// One line, without its end.
pub fn parse_line(line: &str) -> Option<Entry> {
    let mut words = line.split_ascii_whitespace().peekable();
    if words.next_if(|word| matches!(*word, "ipv4" | "ipv6")).is_some() {
        words.next()?;
    }
    let name = words.next()?;
    let protocol = words.next()?.parse().ok()?;
    if name.contains('=') {
        return None;
    }
    let timeout = words.next_if(|w| w.bytes().all(|b| b.is_ascii_digit())).map(str::parse).transpose().ok()?;
    let known = states(protocol);
    let state = words.next_if(|w| known.contains(w)).and_then(|w| known.iter().find(|s| **s == w).copied());
    let mut directions = [Direction::default(); 2];
    let mut bits = Status::SEEN_REPLY;
    let (mut mark, mut zone) = (0, 0);
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            match word {
                "[UNREPLIED]" => bits &= !Status::SEEN_REPLY,
                "[ASSURED]" => bits |= Status::ASSURED,
                "[OFFLOAD]" | "[HW_OFFLOAD]" => bits |= Status::OFFLOAD,
                _ => {}
            }
            continue;
        };
        let second =
            usize::from(directions[0].destination.is_some() && (key == "src" || directions[1].source.is_some()));
        let direction = &mut directions[second];
        match key {
            "src" => direction.source = Some(address(value)?),
            "dst" => direction.destination = Some(address(value)?),
            "sport" => direction.sport = value.parse().ok()?,
            "dport" => direction.dport = value.parse().ok()?,
            "packets" => direction.counters.get_or_insert_default().packets = value.parse().ok()?,
            "bytes" => direction.counters.get_or_insert_default().bytes = value.parse().ok()?,
            "mark" => mark = value.parse().ok()?,
            "zone" => zone = value.parse().ok()?,
            _ => {}
        }
    }
    let [original, reply] = directions;
    let counters = match (original.counters, reply.counters) {
        (None, None) => None,
        (a, b) => Some([a.unwrap_or_default(), b.unwrap_or_default()]),
    };
    Some(Entry {
        protocol,
        original: original.tuple()?,
        reply: reply.tuple()?,
        status: Status::some(bits, Status::SEEN_REPLY | Status::ASSURED | Status::OFFLOAD),
        state,
        timeout,
        counters,
        mark,
        zone,
        id: None,
    })
}

/// The kernel prints IPv6 addresses with all their noughts; an IPv4-mapped one is an IPv4 address.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}
