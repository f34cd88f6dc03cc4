//! Direct server return: the backend's node answers the client itself, from the frontend's address.
//!
//! The node that receives a client's packet has to tell the backend's node which frontend it was sent to. It *announces*
//! the flow: the first packet (of datagrams: each) travels untouched inside of another IP header (protocol 4 or 41). All
//! others travel as the backend is to see them:
//!
//! ```text
//! client → frontend  ──►  [ node → backend | client → frontend ]  ──►  client → backend      announced
//! client → frontend  ──►  client → backend                                                   everything later
//! client ← frontend  ◄────────────────────────────────────────────────  client ← backend
//! ```
//!
//! The backend's port is in the identification of the outer IPv4 header (which is of no use where nothing may be
//! fragmented, RFC 6864), or in the lower 16 bits of the flow label of an IPv6 header.

use crate::conntrack::free;
use crate::packet::{Bytes, Packet, proto};
use crate::{Addr, Failure, Flow, Flows, Opening, PortRange, Role, Room, Tuple, open, same};

/// Hops that an announcement may take.
const HOPS: u8 = 64;

/// What an announcement adds to a packet, bytes.
#[inline(always)]
pub const fn overhead(ipv6: bool) -> u32 {
    if ipv6 { 40 } else { 20 }
}

/// The outer IPv4 header of an announcement; `port` is the backend's in network byte order, `length` the packet's.
#[inline(always)]
pub const fn header4(from: &Addr, backend: &Addr, port: u16, length: u16) -> [u8; 20] {
    let [high, low] = length.wrapping_add(20).to_be_bytes();
    let [p, q] = port.to_ne_bytes();
    let (f, b) = (from, backend);
    let mut header = [
        0x45,
        0,
        high,
        low,
        p,
        q,
        0x40,
        0,
        HOPS,
        proto::IPV4,
        0,
        0,
        f[12],
        f[13],
        f[14],
        f[15],
        b[12],
        b[13],
        b[14],
        b[15],
    ];
    let mut sum = 0_u32;
    let mut at = 0;
    while at < 20 {
        sum += u16::from_be_bytes([header[at], header[at + 1]]) as u32;
        at += 2;
    }
    sum = (sum >> 16) + (sum & 0xffff);
    let [high, low] = (!((sum >> 16) + (sum & 0xffff)) as u16).to_be_bytes();
    header[10] = high;
    header[11] = low;
    header
}

/// The first eight bytes of the outer IPv6 header of an announcement; the addresses follow.
#[inline(always)]
pub const fn header6(port: u16, length: u16) -> [u8; 8] {
    let [high, low] = length.to_be_bytes();
    let [p, q] = port.to_ne_bytes();
    [0x60, 0, p, q, high, low, proto::IPV6, HOPS]
}

/// The backend's port, network byte order, if the outer header of this packet is that of an announcement.
#[inline(always)]
pub fn announced<B: Bytes + ?Sized>(bytes: &B, outer: &Packet) -> Option<u16> {
    let (at, protocol) = (outer.network, outer.tuple.proto);
    // Options and extension headers are never there.
    if outer.transport != at + overhead(outer.ipv6) {
        return None;
    }
    if outer.ipv6 {
        let head: [u8; 4] = bytes.read(at)?;
        (protocol == proto::IPV6).then_some(u16::from_ne_bytes([head[2], head[3]]))
    } else {
        let head: [u8; 8] = bytes.read(at)?;
        let whole = head[6] == 0x40 && head[7] == 0;
        (protocol == proto::IPV4 && whole).then_some(u16::from_ne_bytes([head[4], head[5]]))
    }
}

/// Whether the backend would take this flow for another one that it has from the same client, by way of another frontend.
/// The source port would tell them apart, but the client knows no other than its own.
#[inline(always)]
pub fn clashes<F: Flows>(flows: &F, opening: &Opening, room: &mut Room) -> bool {
    room.key = opening.request;
    room.key.dst = opening.backend_addr;
    room.key.dport = opening.backend_port;
    room.key = room.key.reversed();
    room.flow.to = opening.request.reversed();
    flows.get(&room.key).is_some_and(|other| !free(other, &room.flow.to))
}

/// Opens a flow that another node has announced, or takes up one that is known; `to` becomes what its packets are.
///
/// Its entries are those of any flow to that frontend, and one more for the packets that come without announcement.
#[inline(always)]
pub fn accept<F: Flows>(
    flows: &mut F,
    opening: &Opening,
    ports: PortRange,
    now_ns: u64,
    room: &mut Room,
    to: &mut Tuple,
) -> Result<(), Failure> {
    let datagrams = opening.request.proto == proto::UDP;
    if !datagrams && (opening.apart || clashes(flows, opening, room)) {
        return Err(Failure::NoPort);
    }
    open(flows, opening, ports, now_ns, room, to)?;
    // Only datagrams can have another source port: all of them are announced.
    if to.sport != opening.request.sport {
        return Ok(());
    }
    room.key = *to;
    room.flow.to = opening.request;
    room.flow.role = Role::Plain as u8;
    room.flow.seen = 0;
    flows.put(&room.key, &room.flow)?;
    Ok(())
}

/// Whether an announced packet of this flow changes nothing: it goes to the backend that the flow has.
#[inline(always)]
pub const fn known(flow: &Flow, opening: &Opening) -> bool {
    flow.role == Role::Forward as u8
        && flow.has(Flow::ANNOUNCED)
        && flow.to.dport == opening.backend_port
        && same(&flow.to.dst, &opening.backend_addr)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;
    use std::vec::Vec;

    use super::*;
    use crate::packet::{Extent, Kind, mapped, parse};

    const PORT: u16 = 8080_u16.to_be();

    #[test]
    fn what_is_announced_is_understood() {
        let (from, backend) = (mapped([192, 0, 2, 1]), mapped([10, 244, 2, 2]));
        let header = header4(&from, &backend, PORT, 60);
        let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the checksum is right");
        let outer = parse(&header[..], 0, false, Extent::Full).unwrap();
        assert_eq!((outer.kind, outer.tuple.src, outer.tuple.dst), (Kind::Other, from, backend));
        assert_eq!(outer.length, 80);
        assert_eq!(announced(&header[..], &outer), Some(PORT));

        let from: Addr = "fd00::1".parse::<Ipv6Addr>().unwrap().octets();
        let backend: Addr = "fd44:2::2".parse::<Ipv6Addr>().unwrap().octets();
        let header: Vec<u8> = [&header6(PORT, 60)[..], &from, &backend].concat();
        let outer = parse(&header[..], 0, true, Extent::Full).unwrap();
        assert_eq!((outer.kind, outer.tuple.src, outer.tuple.dst), (Kind::Other, from, backend));
        assert_eq!(outer.length, 100);
        assert_eq!(announced(&header[..], &outer), Some(PORT));
    }

    #[test]
    fn fragments_options_and_other_protocols_are_no_announcements() {
        let (from, backend) = (mapped([192, 0, 2, 1]), mapped([10, 244, 2, 2]));
        let header = header4(&from, &backend, PORT, 60);
        let read = |header: &[u8]| parse(header, 0, false, Extent::Full).and_then(|outer| announced(header, &outer));
        let with = |at: usize, byte: u8| {
            let mut changed = header;
            changed[at] = byte;
            read(&changed)
        };
        assert_eq!(read(&header), Some(PORT));
        assert_eq!(with(6, 0x20), None, "a first fragment");
        assert_eq!(with(6, 0), None, "one that may become fragments");
        assert_eq!(with(7, 1), None, "a later fragment");
        assert_eq!(with(0, 0x46), None, "options");
        assert_eq!(with(9, proto::IPV6), None, "another protocol");
    }
}
