//! Telling whoever listens what became of a packet. Functions of their own, since the programs' stacks are small.

use kpx_abi::{Cause, Flow, FlowState, Reason};

use super::flows::Scratch;
use super::{DROP, failed};
use crate::event::{listener, record, takes};
use crate::maps::count;

/// Tells what became of the packet: of its flow, `scratch.opening` says the service and the backend, if it has them.
#[inline(never)]
pub fn tell(scratch: &mut Scratch, reason: Reason) {
    let Some(listener) = listener(scratch.now_ns) else { return };
    // Packets have no process.
    if listener.cgroup != 0 {
        return;
    }
    let Scratch { packet, opening, cause, now_ns, ifindex, .. } = &*scratch;
    let tuple = &packet.tuple;
    let wanted = listener.wants(reason as u32, *cause as u32)
        && (listener.meets(&tuple.dst, tuple.dport)
            || listener.meets(&tuple.src, tuple.sport)
            || listener.meets(&opening.backend_addr, opening.backend_port))
        && takes(listener, opening.service);
    if !wanted {
        return;
    }
    record(|event| {
        // SAFETY: room for one event.
        unsafe {
            (*event).at_ns = *now_ns;
            (*event).cgroup = 0;
            (*event).client = tuple.src;
            (*event).destination = tuple.dst;
            (*event).to = opening.backend_addr;
            (*event).service = opening.service;
            (*event).backend = opening.backend;
            (*event).pid = 0;
            (*event).device = *ifindex;
            (*event).client_port = tuple.sport;
            (*event).destination_port = tuple.dport;
            (*event).to_port = opening.backend_port;
            (*event).proto = tuple.proto;
            (*event).reason = reason as u8;
            (*event).cause = *cause as u8;
            (*event).pad = [0; 7];
        }
    });
}

/// Tells of a new flow.
#[inline(never)]
pub fn opened(scratch: &mut Scratch) {
    tell(scratch, Reason::FlowOpened);
    if scratch.sticky {
        tell(scratch, Reason::Affinity);
    }
}

/// Counts and tells of a flow that could not be opened. Its packet is dropped, not left to the rules: the flow's next packet may find
/// room, and two must not translate one flow.
#[inline(never)]
pub fn not_opened(scratch: &mut Scratch, outcome: u32) -> i32 {
    let reason = failed(outcome);
    count(reason);
    tell(scratch, reason);
    DROP
}

/// Tells of the source that the backend is to see, which is in `scratch.to`.
#[inline(never)]
pub fn masqueraded(flow: *mut Flow, scratch: &mut Scratch) {
    count(Reason::Masqueraded);
    describe(flow, scratch);
    scratch.opening.backend_addr = scratch.to.src;
    scratch.opening.backend_port = scratch.to.sport;
    tell(scratch, Reason::Masqueraded);
}

/// Counts and tells that the flow has changed hands, of which this is the first packet since.
#[inline(never)]
pub fn changed_hands(flow: *mut Flow, scratch: &mut Scratch) {
    // SAFETY: an element of the map. Should another processor see the bit still, the flow is told of twice.
    let state = unsafe {
        (*flow).options &= !Flow::CHANGED_HANDS;
        (*flow).state
    };
    let reason = if state == FlowState::Translate as u8 { Reason::TakenOver } else { Reason::GivenBack };
    count(reason);
    describe(flow, scratch);
    tell(scratch, reason);
}

/// Counts and tells of a packet that is dropped since its flow is frozen.
#[inline(never)]
pub fn frozen(flow: *mut Flow, scratch: &mut Scratch) {
    count(Reason::FrozenFlow);
    describe(flow, scratch);
    tell(scratch, Reason::FrozenFlow);
}

/// Makes `scratch.opening` say what is known of a flow.
#[inline(always)]
fn describe(flow: *mut Flow, scratch: &mut Scratch) {
    scratch.cause = Cause::None;
    // SAFETY: an element of the map, whose words change one by one at most.
    unsafe {
        scratch.opening.service = (*flow).service;
        scratch.opening.backend = (*flow).backend;
        scratch.opening.backend_addr = (*flow).to.dst;
        scratch.opening.backend_port = (*flow).to.dport;
    }
}
