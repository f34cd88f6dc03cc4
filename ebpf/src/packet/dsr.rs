//! Direct server return: packets that go to the backend's node without passing this node's stack, and those that other
//! nodes have sent so. What they look like is in `kpx_abi`'s `dsr`.
//!
//! The stack is passed by, since it sees one direction only: its conntrack calls the second packet of such a TCP
//! connection invalid, and kube-proxy's rules drop what is. What the stack has to say about a packet (too big, time
//! exceeded, no route) it is asked to say all the same: then the packet goes through it.

use aya_ebpf::bindings::bpf_fib_lookup as Question;
use aya_ebpf::helpers::generated::bpf_redirect_neigh;
use kpx_abi::dsr::{accept, announced, clashes, header4, header6, known, overhead};
use kpx_abi::packet::{Bytes as _, Extent, Kind, Packet, parse, proto, signal};
use kpx_abi::{
    Addr, AddressFlags, Device, Flow, FrontendKey, Maps as _, NetworkFlags, Opening, Reason, Role, Tuple, replaceable,
    unspecified,
};

use super::flows::{Conntrack, Scratch, device, is_direct, remember_fragment, touch};
use super::own::{SUCCESS, ask};
use super::refuse::too_big;
use super::rewrite::rewrite;
use super::skb::{Skb, diff};
use super::{CHOSEN, DROP, NEXT, failed, mark, number};
use crate::maps::{Counter, Kernel, count, tally};

/// A route, and a neighbour that is to be asked for.
const NO_NEIGHBOUR: i64 = 7;
/// A route that does not take packets of this size.
const FRAGMENTATION_NEEDED: i64 = 8;

/// The packet can go; its way out is in `scratch.out`.
pub const READY: u32 = 0;
/// It cannot.
pub const NO_WAY: u32 = 1;
/// It is larger than what is left in `scratch.fits`.
pub const TOO_BIG: u32 = 2;

/// IPv6 hosts take no smaller size for an answer.
const LEAST6: u32 = 1280;

/// Whether the flow in `scratch.opening` can be announced to its backend's node.
#[inline(never)]
pub fn prepare(skb: Skb, scratch: &mut Scratch) -> u32 {
    let Tuple { src, proto, .. } = scratch.packet.tuple;
    let able = matches!(proto, proto::TCP | proto::UDP)
        && !scratch.opening.apart
        && skb.segment() == 0
        && Kernel.network(&scratch.opening.backend_addr).has(NetworkFlags::DIRECT)
        // That node would not take a packet from itself, and other nodes are few.
        && !Kernel.address(&src).has(AddressFlags::NODE);
    if !able || clashes(&Conntrack, &scratch.opening, &mut scratch.room) {
        return NO_WAY;
    }
    scratch.to = scratch.opening.request;
    scratch.to.dst = scratch.opening.backend_addr;
    scratch.to.dport = scratch.opening.backend_port;
    match way(skb, scratch, scratch.packet.length + overhead(scratch.packet.ipv6)) {
        READY if source(scratch) => READY,
        TOO_BIG if proto == proto::UDP => answerable(scratch),
        _ => NO_WAY,
    }
}

/// Whether the sender of a packet that is too big can be told so.
#[inline(always)]
fn answerable(scratch: &Scratch) -> u32 {
    if scratch.packet.ipv6 && scratch.fits < LEAST6 { NO_WAY } else { TOO_BIG }
}

/// Finds the way of a packet like `scratch.to` of this size; what fits is without the announcement's header.
#[inline(always)]
fn way(skb: Skb, scratch: &mut Scratch, length: u32) -> u32 {
    let length = if length > 0xffff { 0xffff } else { length };
    let answer = ask(skb.raw().cast(), skb.device(), length as u16, scratch);
    let question: *const Question = (&raw const scratch.bytes).cast();
    // SAFETY: `ask` has left question and answer there; the largest size takes the place of the length.
    let (out, fits) = unsafe { ((*question).ifindex, (*question).__bindgen_anon_1.tot_len) };
    scratch.out = out;
    match answer {
        SUCCESS | NO_NEIGHBOUR => READY,
        FRAGMENTATION_NEEDED => {
            scratch.fits = u32::from(fits).saturating_sub(overhead(scratch.packet.ipv6));
            TOO_BIG
        }
        _ => NO_WAY,
    }
}

/// Chooses the address that announcements come from: one that other nodes know this node by.
#[inline(always)]
fn source(scratch: &mut Scratch) -> bool {
    let ipv4 = !scratch.packet.ipv6;
    let known = |addr: &Addr| Kernel.address(addr).has(AddressFlags::NODE);
    if let Some(addr) = scratch.device.source(ipv4)
        && known(addr)
    {
        scratch.from = *addr;
        return true;
    }
    if let Some(out) = device(scratch.out)
        && let Some(addr) = out.source(ipv4)
        && known(addr)
    {
        scratch.from = *addr;
        return true;
    }
    false
}

/// Sends the packet to the backend's node as it is, in an announcement. `scratch.to` is what it is to become there.
#[inline(never)]
pub fn announce(skb: Skb, scratch: &mut Scratch) -> i32 {
    if scratch.packet.kind as u8 == Kind::FirstFragment as u8 {
        remember_fragment(&scratch.packet);
    }
    let Scratch { packet, to, from, .. } = &*scratch;
    let (at, length) = (packet.network, packet.length as u16);
    let written = if packet.ipv6 {
        skb.encapsulate(overhead(true) as i32, true)
            && skb.store_summed(at, &header6(to.dport, length))
            && skb.store_summed(at + 8, &raw const *from)
            && skb.store_summed(at + 24, &raw const to.dst)
    } else {
        skb.encapsulate(overhead(false) as i32, false) && skb.store(at, &header4(from, &to.dst, to.dport, length))
    };
    if !written {
        return DROP;
    }
    count(Reason::DsrAnnounced);
    leave(scratch.out)
}

#[inline(always)]
fn leave(out: u32) -> i32 {
    // SAFETY: a helper without conditions; no parameters is what lets it look up the neighbour.
    (unsafe { bpf_redirect_neigh(out, core::ptr::null_mut(), 0, 0) }) as i32
}

/// Sends on a packet of a flow whose backend's node answers.
#[inline(never)]
pub fn forward(skb: Skb, flow: *mut Flow, scratch: &mut Scratch) -> i32 {
    touch(flow, scratch.packet.signals, scratch.now_ns);
    // SAFETY: an element of the map; one that is replaced stays readable while the program runs.
    scratch.to = unsafe { (*flow).to };
    count(Reason::Forwarded);
    let datagram = scratch.packet.tuple.proto == proto::UDP;
    let announces = scratch.packet.kind as u8 != Kind::LaterFragment as u8
        && skb.segment() == 0
        && (datagram || scratch.packet.signals & signal::OPENS != 0);
    if announces {
        match way(skb, scratch, scratch.packet.length + overhead(scratch.packet.ipv6)) {
            READY if source(scratch) => return announce(skb, scratch),
            TOO_BIG if datagram && answerable(scratch) == TOO_BIG => return too_big(skb, scratch),
            _ => {}
        }
    }
    let length = length(skb, &scratch.packet);
    let ready = way(skb, scratch, length) == READY && hop(skb, &scratch.packet);
    if !rewrite(skb, scratch) {
        return DROP;
    }
    if ready { leave(scratch.out) } else { NEXT }
}

/// Sends on an ICMP error that has become one to a backend on another node.
#[inline(never)]
pub fn forward_error(skb: Skb, scratch: &mut Scratch) -> i32 {
    let ready = way(skb, scratch, scratch.packet.length) == READY && hop(skb, &scratch.packet);
    if ready { leave(scratch.out) } else { NEXT }
}

/// Length on the wire, bytes from the IP header on: of a row of segments, that of one.
#[inline(always)]
fn length(skb: Skb, packet: &Packet) -> u32 {
    let segment = skb.segment();
    if segment == 0 {
        return packet.length;
    }
    let transport = match skb.read::<1>(packet.transport + 12) {
        Some([offset]) if packet.tuple.proto == proto::TCP => u32::from(offset >> 4) * 4,
        _ => 8,
    };
    packet.transport - packet.network + transport + segment
}

/// Takes one hop off; false if none is left, or it cannot be written.
#[inline(always)]
fn hop(skb: Skb, packet: &Packet) -> bool {
    if packet.ipv6 {
        let at = packet.network + 6;
        return match skb.read::<2>(at) {
            Some([next, hops]) if hops > 1 => skb.store_summed(at, &[next, hops - 1]),
            _ => false,
        };
    }
    let at = packet.network + 8;
    match skb.read::<4>(at) {
        Some([hops, protocol, ..]) if hops > 1 => {
            let (old, new) = ([hops, protocol, 0, 0], [hops - 1, protocol, 0, 0]);
            skb.store(at, &[hops - 1]) && skb.fix_header(packet.network + 10, diff(&raw const old, &raw const new))
        }
        _ => false,
    }
}

/// Whether a packet is one inside of another of the same family.
#[inline(always)]
pub const fn encapsulated(packet: &Packet) -> bool {
    packet.tuple.proto == if packet.ipv6 { proto::IPV6 } else { proto::IPV4 }
}

/// Takes up a flow that another node announces. What only looks like that is left alone.
#[inline(always)]
pub fn receive(skb: Skb, scratch: &mut Scratch) -> i32 {
    let port = believed(skb, scratch);
    if port == NO_PORT {
        return NEXT;
    }
    if !read_inner(skb, scratch) || !addressed(scratch, port) {
        count(Reason::DsrIgnored);
        return NEXT;
    }
    let outcome = take(scratch);
    if outcome != CHOSEN {
        count(failed(outcome));
        return DROP;
    }
    unwrap(skb, scratch)
}

/// No port number.
const NO_PORT: u32 = 1 << 16;

/// The backend's port, network byte order, if the packet is the announcement of another node.
#[inline(never)]
fn believed(skb: Skb, scratch: &mut Scratch) -> u32 {
    let Some(port) = announced(&skb, &scratch.packet) else { return NO_PORT };
    if scratch.device.has(Device::POD) || !Kernel.address(&scratch.packet.tuple.src).has(AddressFlags::NODE) {
        count(Reason::DsrIgnored);
        return NO_PORT;
    }
    u32::from(port)
}

/// Makes `scratch.opening` of an announcement; false if it is for none of the frontends.
#[inline(never)]
fn addressed(scratch: &mut Scratch, port: u32) -> bool {
    let Some(service) = frontend(&scratch.quoted.tuple) else { return false };
    scratch.opening = Opening {
        request: scratch.quoted.tuple,
        backend_addr: scratch.packet.tuple.dst,
        backend_port: port as u16,
        masquerade: false,
        apart: false,
        service,
        backend: 0,
        device: 0,
        options: Flow::ANNOUNCED,
        pad: [0; 3],
    };
    scratch.to = scratch.quoted.tuple;
    scratch.to.dst = scratch.opening.backend_addr;
    scratch.to.dport = scratch.opening.backend_port;
    scratch.opening.apart = is_direct(&scratch.to, scratch.now_ns);
    true
}

/// Makes the announced packet what it becomes.
#[inline(always)]
fn unwrap(skb: Skb, scratch: &mut Scratch) -> i32 {
    let header = overhead(scratch.packet.ipv6);
    scratch.packet = scratch.quoted;
    scratch.packet.network -= header;
    scratch.packet.transport -= header;
    if !skb.decapsulate(header as i32) || !rewrite(skb, scratch) {
        return DROP;
    }
    count(Reason::DsrTaken);
    if let Some(flow) = Conntrack.find(&scratch.packet.tuple) {
        mark(skb, flow, scratch);
    }
    NEXT
}

/// Reads the announced packet into `scratch.quoted`; false if it is none that can be announced.
#[inline(never)]
fn read_inner(skb: Skb, scratch: &mut Scratch) -> bool {
    let at = scratch.packet.network + overhead(scratch.packet.ipv6);
    let Some(inner) = parse(&skb, at, scratch.packet.ipv6, Extent::Full) else { return false };
    scratch.quoted = inner;
    let protocol = scratch.quoted.tuple.proto;
    matches!(scratch.quoted.kind, Kind::Whole | Kind::FirstFragment) && matches!(protocol, proto::TCP | proto::UDP)
}

/// The service whose frontend this packet was sent to. (A tunnel between nodes may use the same protocol: what it carries is
/// for no frontend.) Whether it is to be answered directly says the node that announces: it may know of that earlier.
#[inline(always)]
fn frontend(packet: &Tuple) -> Option<u32> {
    let mut key = FrontendKey::new(packet.dst, packet.dport, packet.proto);
    let mut entry = Kernel.entry(&key);
    if entry.is_none() {
        // A NodePort answers on addresses of the other node that are not known here.
        key.addr = unspecified(&key.addr);
        entry = Kernel.entry(&key);
    }
    Kernel.frontend(entry?).map(|frontend| frontend.service)
}

/// Finds or opens the flow of `scratch.opening`; what its packet becomes is left in `scratch.to`.
#[inline(never)]
fn take(scratch: &mut Scratch) -> u32 {
    let Scratch { opening, quoted, ports, now_ns, room, to, .. } = scratch;
    if let Some(flow) = Conntrack.find(&opening.request)
        // SAFETY: an element of the map, whose words change one by one at most.
        && known(unsafe { &*flow }, opening)
        && !ended(flow, quoted)
    {
        // SAFETY: as above.
        *to = unsafe { (*flow).to };
        touch(flow, quoted.signals, *now_ns);
        return CHOSEN;
    }
    let outcome = number(accept(&mut Conntrack, opening, *ports, *now_ns, room, to));
    if outcome == CHOSEN {
        count(Reason::FlowOpened);
        tally(opening.service, Counter::Connects);
    }
    outcome
}

/// Whether a packet begins a connection under the addresses of a former one.
#[inline(always)]
fn ended(flow: *mut Flow, packet: &Packet) -> bool {
    if packet.tuple.proto == proto::UDP || packet.signals & signal::OPENS == 0 {
        return false;
    }
    // SAFETY: elements of the map, whose words change one by one at most.
    unsafe {
        let answered = Conntrack.find(&(*flow).to.reversed()).map_or(signal::RESETS, |reply| (*reply).seen);
        replaceable((*flow).seen, answered)
    }
}

/// Notes a packet of an announced flow that needs nothing done.
#[inline(always)]
pub fn pass(flow: *mut Flow, scratch: &Scratch) {
    let (signals, now_ns) = (scratch.packet.signals, scratch.now_ns);
    touch(flow, signals, now_ns);
    // SAFETY: elements of the map; see above.
    if let Some(forward) = Conntrack.find(unsafe { &(*flow).to })
        && unsafe { (*forward).role } == Role::Forward as u8
    {
        touch(forward, signals, now_ns);
    }
}
