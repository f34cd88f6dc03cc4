//! Writing other addresses and ports into a packet, and bringing its checksums up to date.

use kpx_abi::Tuple;
use kpx_abi::packet::{Bytes as _, Kind, proto};
use kpx_abi::sctp::checksum_change;

use super::flows::Scratch;
use super::skb::{Checksum, Skb, diff};

/// The two addresses of a tuple.
#[inline(always)]
pub fn addresses(tuple: &Tuple) -> *const [u8; 32] {
    (&raw const *tuple).cast()
}

/// The two ports of a tuple.
#[inline(always)]
pub fn ports(tuple: &Tuple) -> *const [u8; 4] {
    (&raw const tuple.sport).cast()
}

/// The four bytes of an IPv4 address.
#[inline(always)]
pub fn v4(addr: &[u8; 16]) -> *const [u8; 4] {
    (&raw const addr[12]).cast()
}

/// The change of the addresses, for checksums. That of an IPv4 address is that of its v4-mapped form.
#[inline(always)]
pub fn address_diff(from: &Tuple, to: &Tuple) -> u64 {
    diff(addresses(from), addresses(to))
}

/// The change of the ports, for checksums.
#[inline(always)]
pub fn port_diff(from: &Tuple, to: &Tuple) -> u64 {
    diff(ports(from), ports(to))
}

/// Writes the addresses of `to` into the IP header at `network`, whose addresses are those that `diff` leads away from.
#[inline(always)]
pub fn write_addresses(skb: Skb, network: u32, ipv6: bool, to: &Tuple, diff: u64) -> bool {
    if ipv6 {
        skb.store_summed(network + 8, addresses(to))
    } else {
        skb.store(network + 12, v4(&to.src))
            && skb.store(network + 16, v4(&to.dst))
            && skb.fix_header(network + 10, diff)
    }
}

/// Writes the ports of `to` at the beginning of a transport header.
#[inline(always)]
pub fn write_ports(skb: Skb, transport: u32, to: &Tuple) -> bool {
    skb.store(transport, ports(to))
}

/// Makes the packet one with the addresses and ports of `scratch.to`. False if it could not be written to: it may be
/// changed in part, and must not go on.
#[inline(never)]
pub fn rewrite(skb: Skb, scratch: &Scratch) -> bool {
    let (packet, to) = (&scratch.packet, &scratch.to);
    let from = &packet.tuple;
    let address_diff = address_diff(from, to);
    if !write_addresses(skb, packet.network, packet.ipv6, to, address_diff) {
        return false;
    }
    if packet.kind as u8 == Kind::LaterFragment as u8 {
        return true;
    }
    let same_ports = from.sport == to.sport && from.dport == to.dport;
    let checksum = match from.proto {
        proto::TCP => Checksum { at: packet.transport + 16, optional: false },
        proto::UDP => Checksum { at: packet.transport + 6, optional: true },
        // SCTP's checksum does not cover addresses.
        _ => return same_ports || write_sctp_ports(skb, scratch),
    };
    if !skb.fix_pseudo(checksum, address_diff) {
        return false;
    }
    same_ports || skb.fix_body(checksum, port_diff(from, to)) && write_ports(skb, packet.transport, to)
}

/// A fragment is too little to compute the checksum of the whole from.
#[inline(never)]
fn write_sctp_ports(skb: Skb, scratch: &Scratch) -> bool {
    let (packet, to) = (&scratch.packet, &scratch.to);
    let Some(old) = skb.read::<4>(packet.transport + 8) else { return false };
    let old = u32::from_le_bytes(old);
    // Zero is what the sender writes where the device is to compute it.
    if old != 0 {
        let behind = (packet.network + packet.length).wrapping_sub(packet.transport + 4) as u16;
        let [a, b] = packet.tuple.sport.to_ne_bytes();
        let [c, d] = packet.tuple.dport.to_ne_bytes();
        let [e, f] = to.sport.to_ne_bytes();
        let [g, h] = to.dport.to_ne_bytes();
        let new = (old ^ checksum_change([a, b, c, d], [e, f, g, h], behind)).to_le_bytes();
        if packet.kind as u8 != Kind::Whole as u8 || !skb.store(packet.transport + 8, &raw const new) {
            return false;
        }
    }
    write_ports(skb, packet.transport, to)
}
