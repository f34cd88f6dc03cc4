//! The first packet of a flow.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use kpx_abi::packet::{Kind, proto, signal};
use kpx_abi::{
    AddressFlags, Cause, Device, Flow, Flows as _, FrontendKey, Maps as _, Mode, NetworkFlags, Opening, Origin, Reason,
    Request, Role, Tuple, Verdict, flow_hash, lookup, open,
};

use super::flows::{Conntrack, Scratch, is_direct, note_direct};
use super::refuse::{refuse, too_big};
use super::skb::Skb;
use super::tell::{not_opened, opened, tell};
use super::{CHOSEN, DROP, NEXT, dsr, mark, number, send};
use crate::maps::{Counter, Kernel, count, stick, tally};

/// What is to happen to a packet.
mod decision {
    /// The flow in `scratch.opening` is to be opened.
    pub(super) const OPEN: u32 = 0;
    /// The sender is to be told that nobody is there.
    pub(super) const REFUSE: u32 = 1;
    /// Nothing is to be said.
    pub(super) const DROP: u32 = 2;
    /// It is not for us.
    pub(super) const PASS: u32 = 3;
    /// It would be for us in another mode.
    pub(super) const OBSERVED: u32 = 4;
}

/// Decides about a packet that belongs to no flow of ours.
#[inline(always)]
pub fn first(skb: Skb, known: Option<*mut Flow>, scratch: &mut Scratch, egress: bool) -> i32 {
    // After routing, only what the node itself sends is new: everything else has been seen before routing.
    if scratch.egress && skb.came_by() != 0 {
        return NEXT;
    }
    // In the middle of a flow: it is the kernel's, or nobody's.
    if scratch.packet.signals & signal::OPENS == 0 {
        return NEXT;
    }
    // Of datagrams, those that the rules begin are noted, for when the programs serve again.
    if scratch.mode == Mode::Drain && scratch.packet.tuple.proto != proto::UDP {
        return pass(skb, known, scratch);
    }
    if scratch.packet.tuple.proto == proto::UDP && scratch.mode == Mode::Active && left_to_kernel(scratch, known) {
        count(Reason::Yielded);
        return NEXT;
    }
    match decide(skb, scratch) {
        decision::OPEN => {}
        decision::REFUSE => {
            tell(scratch, Reason::PacketRefused);
            return turn_away(skb, scratch);
        }
        decision::DROP => {
            count(Reason::PacketDropped);
            tell(scratch, Reason::PacketDropped);
            return DROP;
        }
        decision::OBSERVED => {
            tell(scratch, observed(scratch.mode));
            return pass(skb, known, scratch);
        }
        _ => return pass(skb, known, scratch),
    }
    let direct = !egress
        && scratch.opening.options & Flow::DSR != 0
        && match dsr::prepare(skb, scratch) {
            dsr::READY => true,
            dsr::TOO_BIG => return too_big(skb, scratch),
            _ => {
                scratch.opening.options = 0;
                scratch.opening.masquerade = true;
                false
            }
        };
    let outcome = begin(scratch);
    if outcome != CHOSEN {
        return not_opened(scratch, outcome);
    }
    count(Reason::FlowOpened);
    opened(scratch);
    tally(scratch.opening.service, Counter::Connects);
    if direct {
        return dsr::announce(skb, scratch);
    }
    // A request's mark is its entry's to say.
    if let Some(flow) = Conntrack.find(&scratch.packet.tuple) {
        mark(skb, flow, scratch);
    }
    let own = scratch.opening.device;
    send(skb, Role::Forward as u8, own, scratch)
}

/// Lets a packet go that goes without a Service, but sees to it that its flow is not taken for one that does.
#[inline(always)]
fn pass(skb: Skb, known: Option<*mut Flow>, scratch: &mut Scratch) -> i32 {
    if scratch.device.has(Device::PARTLY) || known.is_some() || !collides(skb.device(), scratch) {
        return NEXT;
    }
    let outcome = begin(scratch);
    if outcome != CHOSEN {
        return not_opened(scratch, outcome);
    }
    count(Reason::SetApart);
    send(skb, Role::Forward as u8, 0, scratch)
}

/// Whether the answers to a flow that goes without a Service would be taken for those of one that does; what sets it apart
/// is left in `scratch.opening`. Remembers the flow for Services' flows to come.
#[inline(never)]
fn collides(device: u32, scratch: &mut Scratch) -> bool {
    let request = scratch.packet.tuple;
    if scratch.egress {
        if !is_a_masquerade(scratch) {
            return false;
        }
    } else if !looks_like_an_answer(scratch) {
        return false;
    }
    scratch.opening = Opening {
        request,
        backend_addr: request.dst,
        backend_port: request.dport,
        masquerade: false,
        apart: true,
        service: 0,
        backend: 0,
        device: if scratch.egress { device } else { 0 },
        options: 0,
        pad: [0; 3],
    };
    true
}

/// The same, of what comes.
#[inline(always)]
fn looks_like_an_answer(scratch: &mut Scratch) -> bool {
    let request = scratch.packet.tuple;
    if !note_direct(&request, scratch.now_ns) && request.proto == proto::UDP {
        return false;
    }
    scratch.room.key = request.reversed();
    let Some(other) = Conntrack.get(&scratch.room.key) else {
        // What a flow that is over has left would translate this one's packets after routing.
        scratch.room.key = request.halfway();
        if Conntrack.find(&scratch.room.key).is_some() {
            Conntrack.forget(&scratch.room.key);
        }
        return false;
    };
    other.role == Role::Reply as u8 && other.device == 0 && !other.has(Flow::TAKEN)
}

/// Whether a socket of the node has the address and port that a masqueraded flow to the same backend has: it can only be one
/// that was taken over from the kernel, whose ports are those that sockets choose from, or a socket that was bound to its
/// port.
#[inline(always)]
fn is_a_masquerade(scratch: &mut Scratch) -> bool {
    // The port behind sees the packet, too, and its answers.
    if scratch.device.has(Device::MASTER) {
        return false;
    }
    scratch.room.key = scratch.packet.tuple.reversed();
    Conntrack.get(&scratch.room.key).is_some_and(|other| other.role == Role::Unmasquerade as u8)
}

/// Asks the lookup; what it finds is left in `scratch.opening`.
#[inline(never)]
fn decide(skb: Skb, scratch: &mut Scratch) -> u32 {
    scratch.request = request(scratch);
    let verdict = lookup(&Kernel, &scratch.request, || count(Reason::Retried));
    if scratch.mode != Mode::Active {
        return observe(scratch, &verdict);
    }
    match verdict {
        Verdict::Backend { service, id, backend, masquerade, direct, sticky } => {
            scratch.opening = Opening {
                request: scratch.packet.tuple,
                backend_addr: backend.addr,
                backend_port: backend.port,
                masquerade: masquerade && !direct,
                apart: false,
                service,
                backend: id,
                device: if scratch.egress { skb.device() } else { 0 },
                options: if direct { Flow::DSR } else { 0 },
                pad: [0; 3],
            };
            scratch.to = scratch.packet.tuple;
            scratch.to.dst = backend.addr;
            scratch.to.dport = backend.port;
            scratch.opening.apart = is_direct(&scratch.to, scratch.now_ns);
            scratch.cause = Cause::None;
            scratch.sticky = sticky;
            if sticky {
                stick(&scratch.request.affinity_key(service), id, scratch.now_ns);
            }
            decision::OPEN
        }
        Verdict::Reject { service } => {
            tally(service, Counter::Refused);
            no_flow(scratch, service, Cause::NoBackend);
            decision::REFUSE
        }
        Verdict::UndefinedPort => {
            no_flow(scratch, 0, Cause::UndefinedPort);
            decision::REFUSE
        }
        Verdict::Drop { service, why } => {
            no_flow(scratch, service, why.into());
            decision::DROP
        }
        Verdict::Unallocated => {
            no_flow(scratch, 0, Cause::Unallocated);
            decision::DROP
        }
        Verdict::NotService => {
            count(Reason::NotService);
            decision::PASS
        }
        Verdict::Defer { .. } | Verdict::Missed => {
            count(Reason::Missed);
            decision::PASS
        }
    }
}

/// Leaves in `scratch` what there is to be told of a packet that no flow is opened for.
#[inline(always)]
fn no_flow(scratch: &mut Scratch, service: u32, cause: Cause) {
    scratch.cause = cause;
    scratch.opening.service = service;
    scratch.opening.backend = 0;
    scratch.opening.backend_addr = [0; 16];
    scratch.opening.backend_port = 0;
}

/// What is counted in shadow and drain mode.
#[inline(always)]
fn observed(mode: Mode) -> Reason {
    if matches!(mode, Mode::Drain) { Reason::DrainPassed } else { Reason::Shadow }
}

/// Shadow and drain mode: counts, and remembers which flows of datagrams the rules have.
#[inline(always)]
fn observe(scratch: &mut Scratch, verdict: &Verdict<'_>) -> u32 {
    let (service, cause, is_first) = match *verdict {
        Verdict::Backend { service, .. } => {
            (service, Cause::None, scratch.packet.tuple.proto != proto::UDP || note_left(scratch, service))
        }
        Verdict::Reject { service } => (service, Cause::NoBackend, true),
        Verdict::Drop { service, why } => (service, why.into(), true),
        _ => {
            count(Reason::NotService);
            return decision::PASS;
        }
    };
    count(observed(scratch.mode));
    tally(service, if scratch.mode == Mode::Drain { Counter::Passed } else { Counter::Shadow });
    no_flow(scratch, service, cause);
    if is_first { decision::OBSERVED } else { decision::PASS }
}

/// Notes that the rules have this flow, and takes no entry's place: it may be changing hands at this moment. False if
/// the flow is known.
#[inline(always)]
fn note_left(scratch: &mut Scratch, service: u32) -> bool {
    if let Some(known) = Conntrack.find(&scratch.packet.tuple) {
        // SAFETY: an element of the map; its last word of use is written without order.
        unsafe {
            if (*known).role == Role::Left as u8 {
                (*known).last_ns = scratch.now_ns;
            }
        }
        return false;
    }
    scratch.room.flow = Flow { service, last_ns: scratch.now_ns, role: Role::Left as u8, ..Flow::default() };
    // Without room the flow counts as new after the switch, as if it had been silent.
    let _ = Conntrack.add(&scratch.packet.tuple, &scratch.room.flow);
    true
}

/// The question that a packet asks.
#[inline(always)]
fn request(scratch: &Scratch) -> Request {
    let Tuple { src, dst, sport, dport, proto, .. } = scratch.packet.tuple;
    let origin = if scratch.egress || Kernel.address(&src).has(AddressFlags::LOCAL) {
        Origin::Node
    } else if scratch.device.has(Device::POD) || Kernel.network(&src).has(NetworkFlags::POD) {
        Origin::Pod
    } else {
        Origin::Outside
    };
    Request {
        key: FrontendKey::new(dst, dport, proto),
        origin,
        client: src,
        // SAFETY: a helper without conditions.
        random: unsafe { bpf_get_prandom_u32() },
        hash: flow_hash(&src, sport, &dst, dport, proto),
        now_ns: scratch.now_ns,
    }
}

/// Opens the flow of `scratch.opening`; what its packets become is left in `scratch.to`.
#[inline(never)]
fn begin(scratch: &mut Scratch) -> u32 {
    let Scratch { opening, ports, now_ns, room, to, .. } = scratch;
    number(open(&mut Conntrack, opening, *ports, *now_ns, room, to))
}

/// Refuses a packet. To the node's own sockets a drop on the way out says as much.
#[inline(always)]
fn turn_away(skb: Skb, scratch: &mut Scratch) -> i32 {
    if scratch.egress || scratch.packet.kind as u8 != Kind::Whole as u8 {
        count(Reason::PacketRefused);
        return DROP;
    }
    refuse(skb, scratch)
}

/// Whether the rules translate this flow of datagrams still. They do for as long as their conntrack remembers it, and two
/// must not translate one flow: the second answer would clash with the first.
#[inline(always)]
fn left_to_kernel(scratch: &Scratch, known: Option<*mut Flow>) -> bool {
    let Some(flow) = known else { return false };
    // SAFETY: an element of the map; its last word of use is written without order.
    unsafe {
        let left =
            (*flow).role == Role::Left as u8 && scratch.now_ns.saturating_sub((*flow).last_ns) < scratch.yield_ns;
        if left {
            (*flow).last_ns = scratch.now_ns;
        }
        left
    }
}
