//! Port unreachable, as the REJECT of kube-proxy's rules says it; and what size fits, of packets that the stack never sees.

use aya_ebpf::helpers::generated::{bpf_redirect, bpf_skb_load_bytes};
use kpx_abi::packet::{Bytes as _, Packet, proto};
use kpx_abi::{Device, Reason};

use super::DROP;
use super::flows::Scratch;
use super::skb::{Skb, fold, sum};
use crate::maps::count;

/// How much of the packet is quoted, bytes: its IP header and as much of a TCP header as has its checksum, or of a
/// datagram what there must be.
const QUOTE4: (usize, usize) = (40, 28);
const QUOTE6: (usize, usize) = (60, 48);

/// Answers the packet and swallows it. The answer goes out by the device that the packet came by, to whoever sent it
/// there; it comes from the address that the packet was sent to.
#[inline(always)]
pub fn refuse(skb: Skb, scratch: &mut Scratch) -> i32 {
    count(Reason::PacketRefused);
    // Destination unreachable, port unreachable (RFC 792, RFC 4443).
    let head = if scratch.packet.ipv6 { [1, 4, 0, 0, 0, 0, 0, 0] } else { [3, 3, 0, 0, 0, 0, 0, 0] };
    answer(skb, scratch, u64::from_ne_bytes(head))
}

/// Answers that packets have to fit into `scratch.fits`, and swallows the packet.
#[inline(always)]
pub fn too_big(skb: Skb, scratch: &mut Scratch) -> i32 {
    count(Reason::DsrTooBig);
    let [a, b, c, d] = scratch.fits.to_be_bytes();
    // Packet too big (RFC 4443); fragmentation needed (RFC 1191).
    let head = if scratch.packet.ipv6 { [2, 0, 0, 0, a, b, c, d] } else { [3, 4, 0, 0, 0, 0, c, d] };
    answer(skb, scratch, u64::from_ne_bytes(head))
}

/// Answers with an ICMP message that begins with these bytes.
#[inline(never)]
fn answer(skb: Skb, scratch: &mut Scratch, head: u64) -> i32 {
    let length = scratch.packet.length;
    let built = match (scratch.packet.ipv6, length) {
        (false, l) if l >= QUOTE4.0 as u32 => v4::<{ QUOTE4.0 }, { QUOTE4.0 + 8 }>(skb, scratch, head),
        (false, l) if l >= QUOTE4.1 as u32 => v4::<{ QUOTE4.1 }, { QUOTE4.1 + 8 }>(skb, scratch, head),
        (true, l) if l >= QUOTE6.0 as u32 => v6::<{ QUOTE6.0 }, { QUOTE6.0 + 8 }>(skb, scratch, head),
        (true, l) if l >= QUOTE6.1 as u32 => v6::<{ QUOTE6.1 }, { QUOTE6.1 + 8 }>(skb, scratch, head),
        _ => false,
    };
    if !built || scratch.device.has(Device::ETHERNET) && !turn_round(skb) {
        return DROP;
    }
    // SAFETY: a helper without conditions.
    (unsafe { bpf_redirect(skb.device(), 0) }) as i32
}

/// Swaps the Ethernet addresses.
#[inline(always)]
fn turn_round(skb: Skb) -> bool {
    let Some([a, b, c, d, e, f, g, h, i, j, k, l]) = skb.read::<12>(0) else { return false };
    skb.store(0, &[g, h, i, j, k, l, a, b, c, d, e, f])
}

/// Where an ICMP message is built: its header of eight bytes and the quotation.
#[inline(always)]
fn message<const Q: usize, const M: usize>(skb: Skb, scratch: &mut Scratch, head: u64) -> Option<*mut [u8; M]> {
    let bytes: *mut [u8; M] = (&raw mut scratch.bytes).cast();
    scratch.bytes[0] = head;
    // SAFETY: the room is larger than any message, and no reference to it is alive.
    unsafe {
        let quotation = (&raw mut (*bytes)[8]).cast();
        let status = bpf_skb_load_bytes(skb.raw().cast(), scratch.packet.network, quotation, Q as u32);
        (status == 0).then_some(bytes)
    }
}

/// Cuts the packet and makes room for the message: its first `Q` bytes stay, to be overwritten with the rest.
#[inline(always)]
fn make_room<const Q: usize>(skb: Skb, packet: &Packet, header: i32) -> bool {
    skb.cut(packet.network + Q as u32) && skb.insert(header)
}

#[inline(always)]
fn v4<const Q: usize, const M: usize>(skb: Skb, scratch: &mut Scratch, head: u64) -> bool {
    let Some(message) = message::<Q, M>(skb, scratch, head) else { return false };
    let packet = &scratch.packet;
    // A quotation with options may end before the ports.
    if packet.transport - packet.network + 8 > Q as u32 {
        return false;
    }
    // SAFETY: the message is in the scratch element; see `message`.
    unsafe { (&raw mut (*message)[2]).cast::<u16>().write_unaligned(fold(sum(message, 0))) };
    let (src, dst) = (&packet.tuple.dst, &packet.tuple.src);
    let [high, low] = ((20 + M) as u16).to_be_bytes();
    let mut header = [
        0x45,
        0xc0,
        high,
        low,
        0,
        0,
        0x40,
        0,
        64,
        proto::ICMP,
        0,
        0,
        src[12],
        src[13],
        src[14],
        src[15],
        dst[12],
        dst[13],
        dst[14],
        dst[15],
    ];
    let checksum = fold(sum(&raw const header, 0)).to_ne_bytes();
    header[10] = checksum[0];
    header[11] = checksum[1];
    let network = packet.network;
    make_room::<Q>(skb, packet, 28) && skb.store(network, &header) && skb.store(network + 20, message)
}

#[inline(always)]
fn v6<const Q: usize, const M: usize>(skb: Skb, scratch: &mut Scratch, head: u64) -> bool {
    let Some(message) = message::<Q, M>(skb, scratch, head) else { return false };
    scratch.to = scratch.packet.tuple.reversed();
    let packet = &scratch.packet;
    if packet.transport - packet.network + 8 > Q as u32 {
        return false;
    }
    let addresses: *const [u8; 32] = (&raw const scratch.to).cast();
    let pseudo = [0, 0, (M as u16).to_be_bytes()[0], (M as u16).to_be_bytes()[1], 0, 0, 0, proto::ICMPV6];
    let before = sum(&raw const pseudo, sum(addresses, 0));
    // SAFETY: as in `v4`.
    unsafe { (&raw mut (*message)[2]).cast::<u16>().write_unaligned(fold(sum(message, before))) };
    let head = [0x60, 0, 0, 0, pseudo[2], pseudo[3], proto::ICMPV6, 64];
    let network = packet.network;
    make_room::<Q>(skb, packet, 48)
        && skb.store(network, &head)
        && skb.store(network + 8, addresses)
        && skb.store(network + 40, message)
}
