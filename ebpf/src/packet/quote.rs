//! ICMP errors about translated packets: whoever sent the packet is to recognise it.

use kpx_abi::packet::{Extent, Kind, parse};
use kpx_abi::{Flow, FlowState, Reason, Role, same};

use super::flows::Scratch;
use super::rewrite::{address_diff, port_diff, write_addresses, write_ports};
use super::skb::{Checksum, Skb};
use super::{DROP, NEXT, find, here, mark};
use crate::maps::count;

/// The error is about an answer that was not seen here, and is for a backend on another node.
pub const ONWARD: i32 = 100;

/// Translates an error, if it is about a packet that was translated here, or whose answers are.
///
/// The quoted packet has travelled the other way, so what its answer would become tells what it was before. The
/// checksum of the quoted transport header stays as it is: it is seldom quoted, and nobody can verify it.
#[inline(never)]
pub fn translate(skb: Skb, scratch: &mut Scratch) -> i32 {
    let at = scratch.packet.transport;
    let Some(quoted) = parse(&skb, at + 8, scratch.packet.ipv6, Extent::Quoted) else { return NEXT };
    if !matches!(quoted.kind, Kind::Whole | Kind::FirstFragment) {
        return NEXT;
    }
    scratch.quoted = quoted;
    let quoted = &scratch.quoted;
    scratch.room.key = quoted.tuple.reversed();
    let egress = scratch.egress;
    let Some(flow) = find(&mut scratch.room.key, egress, egress) else { return NEXT };
    // SAFETY: an element of the map, whose words change one by one at most.
    unsafe {
        if (*flow).state != FlowState::Translate as u8 || (*flow).has(Flow::TAKEN) {
            return NEXT;
        }
        // The kernel's conntrack would not know what an error about an unseen flow is about.
        mark(skb, flow, scratch);
        if (*flow).undecided() || !here(&*flow, scratch.egress) {
            return NEXT;
        }
        scratch.quoted_to = (*flow).to.reversed();
    }
    // SAFETY: as above.
    let onward = unsafe { (*flow).role == Role::Forward as u8 && (*flow).has(Flow::DSR) };
    let quoted = &scratch.quoted;
    let packet = &scratch.packet;
    scratch.to = packet.tuple;
    if same(&packet.tuple.dst, &quoted.tuple.src) {
        scratch.to.dst = scratch.quoted_to.src;
    }
    // A router's error keeps the router's address.
    if same(&packet.tuple.src, &quoted.tuple.dst) {
        scratch.to.src = scratch.quoted_to.dst;
    }
    let (to, quoted_to) = (&scratch.to, &scratch.quoted_to);
    let checksum = Checksum { at: at + 2, optional: false };
    let outer = address_diff(&packet.tuple, to);
    let inner = address_diff(&quoted.tuple, quoted_to);
    let ports = port_diff(&quoted.tuple, quoted_to);
    // The checksum of a quoted IPv4 header makes up for its addresses; IPv6 has none, but ICMPv6 has a pseudo header.
    let summed = !packet.ipv6 || skb.fix_pseudo(checksum, outer) && skb.fix_body(checksum, inner);
    let written = summed
        && skb.fix_body(checksum, ports)
        && write_ports(skb, quoted.transport, quoted_to)
        && write_quoted_addresses(skb, scratch, inner)
        && write_addresses(skb, packet.network, packet.ipv6, to, outer);
    count(Reason::ErrorTranslated);
    match (written, onward) {
        (true, true) => ONWARD,
        (true, false) => NEXT,
        (false, _) => DROP,
    }
}

/// As in an outer header, but that the ICMP checksum has been told of all of it.
#[inline(always)]
fn write_quoted_addresses(skb: Skb, scratch: &Scratch, diff: u64) -> bool {
    let (at, to) = (scratch.quoted.network, &scratch.quoted_to);
    if scratch.packet.ipv6 {
        skb.store::<32>(at + 8, (&raw const *to).cast())
    } else {
        write_addresses(skb, at, false, to, diff)
    }
}
