//! Reading a packet's headers: as far as a translator of addresses and ports has to know them.

use crate::{Addr, Tuple};

/// IANA protocol numbers.
pub mod proto {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// IPv4 inside of another packet.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 inside of another packet.
    pub const IPV6: u8 = 41;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// What a packet's transport header says about the life of its flow.
pub mod signal {
    /// Begins a flow: SYN without ACK, INIT; any datagram may.
    pub const OPENS: u8 = 1;
    /// Its sender has no more to send: FIN, SHUTDOWN.
    pub const FINISHES: u8 = 2;
    /// Ends the flow at once: RST, ABORT.
    pub const RESETS: u8 = 4;
    /// None of these: data, acknowledgements.
    pub const CARRIES: u8 = 8;
    /// Answers what begins a flow: TCP's SYN with ACK.
    pub const ANSWERS: u8 = 16;
}

/// How many extension headers of IPv6 are skipped before a packet counts as not understood.
const EXTENSIONS: u32 = 6;

/// Where bytes are read from: a packet in the kernel, or a slice.
pub trait Bytes {
    /// The bytes at this offset; `None` past the end.
    fn read<const N: usize>(&self, at: u32) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    fn read<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.get(at as usize..)?.first_chunk().copied()
    }
}

/// What a packet is to a translator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// TCP, UDP or SCTP, whole.
    Whole = 0,
    /// The first fragment of such a packet: the only one with ports.
    FirstFragment = 1,
    /// A later fragment: the ports of its tuple are zero.
    LaterFragment = 2,
    /// An ICMP error, which quotes the packet it is about eight bytes after [`Packet::transport`].
    Error = 3,
    /// Anything else.
    Other = 4,
}

/// A packet's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Packet {
    /// Addresses, ports and protocol.
    pub tuple: Tuple,
    /// Offset of the IP header, bytes.
    pub network: u32,
    /// Offset of the transport header, bytes.
    pub transport: u32,
    /// Identification of a fragmented datagram, as it stands in the packet; 0 of a whole one.
    pub fragment: u32,
    /// Length of the packet from its IP header on, bytes.
    pub length: u32,
    /// What it is.
    pub kind: Kind,
    /// Whether it is IPv6.
    pub ipv6: bool,
    /// Bits of [`signal`].
    pub signals: u8,
    /// Zero.
    pub pad: u8,
}

/// Key of `kpx_fragments`: one fragmented datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(4))]
pub struct FragmentKey {
    /// Source address, network byte order.
    pub src: Addr,
    /// Destination address, network byte order.
    pub dst: Addr,
    /// Identification, as it stands in the packet.
    pub id: u32,
    /// IANA protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// Value of `kpx_fragments`: what only the first fragment says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Ports {
    /// Source port, network byte order.
    pub src: u16,
    /// Destination port, network byte order.
    pub dst: u16,
}

impl Packet {
    /// The datagram that this is a fragment of.
    #[inline(always)]
    pub const fn fragment_key(&self) -> FragmentKey {
        let Tuple { src, dst, proto, .. } = self.tuple;
        FragmentKey { src, dst, id: self.fragment, proto, pad: [0; 3] }
    }
}

/// How much of a packet there is to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Full,
    /// An ICMP error's quotation: eight bytes of the transport header are certain (RFC 792).
    Quoted,
}

/// Reads the packet whose IP header is at `network`; `None` if it cannot be understood.
#[inline(always)]
pub fn parse<B: Bytes + ?Sized>(bytes: &B, network: u32, ipv6: bool, extent: Extent) -> Option<Packet> {
    let mut packet = if ipv6 { network6(bytes, network)? } else { network4(bytes, network)? };
    if packet.kind != Kind::LaterFragment {
        transport(bytes, &mut packet, extent)?;
    } else if !carries_ports(packet.tuple.proto) {
        packet.kind = Kind::Other;
    }
    Some(packet)
}

#[inline(always)]
const fn carries_ports(protocol: u8) -> bool {
    matches!(protocol, proto::TCP | proto::UDP | proto::SCTP)
}

#[inline(always)]
const fn packet(network: u32, length: u32, ipv6: bool) -> Packet {
    Packet {
        tuple: Tuple { src: [0; 16], dst: [0; 16], sport: 0, dport: 0, proto: 0, halfway: 0, pad: [0; 2] },
        network,
        transport: 0,
        fragment: 0,
        length,
        kind: Kind::Whole,
        ipv6,
        signals: 0,
        pad: 0,
    }
}

/// An IPv4 address as v4-mapped.
#[inline(always)]
pub const fn mapped(addr: [u8; 4]) -> Addr {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, addr[0], addr[1], addr[2], addr[3]]
}

#[inline(always)]
fn network4<B: Bytes + ?Sized>(bytes: &B, at: u32) -> Option<Packet> {
    let header: [u8; 20] = bytes.read(at)?;
    let length = u32::from(header[0] & 0xf) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return None;
    }
    let mut found = packet(at, u32::from(u16::from_be_bytes([header[2], header[3]])), false);
    found.tuple.src = mapped([header[12], header[13], header[14], header[15]]);
    found.tuple.dst = mapped([header[16], header[17], header[18], header[19]]);
    found.tuple.proto = header[9];
    found.transport = at + length;
    let place = u16::from_be_bytes([header[6], header[7]]);
    let (offset, more) = (place & 0x1fff, place & 0x2000 != 0);
    if offset != 0 || more {
        found.kind = if offset == 0 { Kind::FirstFragment } else { Kind::LaterFragment };
        found.fragment = u32::from(u16::from_ne_bytes([header[4], header[5]]));
    }
    Some(found)
}

#[inline(always)]
fn network6<B: Bytes + ?Sized>(bytes: &B, at: u32) -> Option<Packet> {
    let header: [u8; 8] = bytes.read(at)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let mut found = packet(at, 40 + u32::from(u16::from_be_bytes([header[4], header[5]])), true);
    found.tuple.src = bytes.read(at + 8)?;
    found.tuple.dst = bytes.read(at + 24)?;
    let (mut next, mut here) = (header[6], at + 40);
    for _ in 0..EXTENSIONS {
        let head: [u8; 8] = match next {
            // Hop-by-hop options, routing, fragment, authentication, destination options.
            0 | 43 | 44 | 51 | 60 => bytes.read(here)?,
            _ => break,
        };
        if next == 44 {
            let place = u16::from_be_bytes([head[2], head[3]]);
            let (offset, more) = (place & 0xfff8, place & 1 != 0);
            // A datagram in one fragment (RFC 6946) is a whole one.
            if offset != 0 || more {
                found.kind = if offset == 0 { Kind::FirstFragment } else { Kind::LaterFragment };
                found.fragment = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
            }
        }
        here += match next {
            44 => 8,
            51 => (u32::from(head[1]) + 2) * 4,
            _ => (u32::from(head[1]) + 1) * 8,
        };
        next = head[0];
        if found.kind as u8 == Kind::LaterFragment as u8 {
            break;
        }
    }
    found.tuple.proto = next;
    found.transport = here;
    Some(found)
}

/// Fills in what the transport header says.
#[inline(always)]
fn transport<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet, extent: Extent) -> Option<()> {
    let at = packet.transport;
    match packet.tuple.proto {
        proto::TCP | proto::UDP | proto::SCTP => {
            let ports: [u8; 4] = bytes.read(at)?;
            packet.tuple.sport = u16::from_ne_bytes([ports[0], ports[1]]);
            packet.tuple.dport = u16::from_ne_bytes([ports[2], ports[3]]);
            if extent == Extent::Full {
                packet.signals = match packet.tuple.proto {
                    proto::TCP => tcp_signals(bytes.read::<1>(at + 13)?[0]),
                    proto::SCTP => sctp_signals(bytes.read::<1>(at + 12)?[0]),
                    _ => signal::OPENS,
                };
            }
        }
        proto::ICMP if !packet.ipv6 && packet.kind as u8 == Kind::Whole as u8 => {
            // Unreachable, source quench, time exceeded, parameter problem. A redirect speaks of a route, not of a flow.
            let kind = bytes.read::<1>(at)?[0];
            packet.kind = if matches!(kind, 3 | 4 | 11 | 12) { Kind::Error } else { Kind::Other };
        }
        proto::ICMPV6 if packet.ipv6 && packet.kind as u8 == Kind::Whole as u8 => {
            // Unreachable, too big, time exceeded, parameter problem.
            let kind = bytes.read::<1>(at)?[0];
            packet.kind = if matches!(kind, 1..=4) { Kind::Error } else { Kind::Other };
        }
        _ => packet.kind = Kind::Other,
    }
    Some(())
}

#[inline(always)]
const fn tcp_signals(flags: u8) -> u8 {
    let (fin, syn, rst, ack) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 16 != 0);
    if rst {
        signal::RESETS
    } else if syn {
        if ack { signal::ANSWERS } else { signal::OPENS }
    } else if fin {
        signal::FINISHES
    } else {
        signal::CARRIES
    }
}

/// The first chunk of a packet decides: those that begin or end an association stand first.
#[inline(always)]
const fn sctp_signals(chunk: u8) -> u8 {
    match chunk {
        1 => signal::OPENS,
        6 => signal::RESETS,
        // SHUTDOWN, its acknowledgement, its completion.
        7 | 8 | 14 => signal::FINISHES,
        _ => signal::CARRIES,
    }
}
