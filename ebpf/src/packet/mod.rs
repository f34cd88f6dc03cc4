//! The packet path: what happens to packets that no socket hook has translated.
//!
//! One program before routing, one after it, on every device. Destinations are rewritten by the first and sources by
//! the second, as the kernel's own NAT does it, so in between the stack routes, filters, fragments and complains
//! about packets of one consistent flow (see `kpx_abi`'s `conntrack`).
//!
//! The stack of a program is small, and what is inlined into it adds up: the functions that need much of it are
//! functions of their own, and share a [`Scratch`].

mod dsr;
mod flows;
mod new;
mod own;
mod quote;
mod refuse;
mod rewrite;
mod skb;
mod tell;
mod xdp;

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use kpx_abi::packet::{Extent, Kind, Packet, parse, proto, signal};
use kpx_abi::{
    Device, Failure, Flow, FlowState, Hook, Maps as _, Mode, Options, PortRange, Reason, Role, Tuple, masquerade,
    replaceable,
};

use crate::maps::{Kernel, count, settings};
use flows::{Conntrack, Scratch, device, fragment_ports, remember_fragment, scratch, touch};
use rewrite::rewrite;
use skb::Skb;

/// Go on: whatever other programs there are, then the stack.
const NEXT: i32 = -1;
/// Drop the packet.
const DROP: i32 = 2;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ETHERNET_HEADER: u32 = 14;

#[classifier]
pub fn kpx_ingress(ctx: TcContext) -> i32 {
    run(Skb::new(ctx.skb.skb), false)
}

#[classifier]
pub fn kpx_egress(ctx: TcContext) -> i32 {
    run(Skb::new(ctx.skb.skb), true)
}

#[inline(always)]
fn run(skb: Skb, egress: bool) -> i32 {
    let settings = settings();
    if settings.mode == Mode::Off || skb.tagged() != 0 {
        return NEXT;
    }
    let Some(device) = device(skb.device()) else { return NEXT };
    if !egress && device.has(Device::MASTER) {
        return NEXT;
    }
    let Some(scratch) = scratch() else { return NEXT };
    // SAFETY: this processor's own element, which belongs to one program at a time.
    let scratch = unsafe { &mut *scratch };
    scratch.mode = settings.mode;
    scratch.yield_ns = settings.yield_ns;
    scratch.mark = settings.mark;
    scratch.unseen = settings.unseen;
    scratch.ports = PortRange { first: settings.snat_first, last: settings.snat_last };
    scratch.egress = egress;
    scratch.device = *device;
    scratch.ifindex = skb.device();
    // SAFETY: a helper without conditions.
    scratch.now_ns = unsafe { bpf_ktime_get_ns() };
    if !read(skb, scratch) {
        return NEXT;
    }
    match scratch.packet.kind {
        Kind::Other if !egress && settings.options.has(Options::DSR) && dsr::encapsulated(&scratch.packet) => {
            return dsr::receive(skb, scratch);
        }
        Kind::Other => return NEXT,
        Kind::Error => {
            let outcome = quote::translate(skb, scratch);
            // The stack's conntrack knows nothing of the flow that this is about.
            return if outcome != quote::ONWARD {
                outcome
            } else if egress {
                NEXT
            } else {
                dsr::forward_error(skb, scratch)
            };
        }
        Kind::LaterFragment => match fragment_ports(&scratch.packet) {
            Some(ports) => {
                scratch.packet.tuple.sport = ports.src;
                scratch.packet.tuple.dport = ports.dst;
            }
            None => {
                count(Reason::FragmentUnknown);
                return NEXT;
            }
        },
        Kind::Whole | Kind::FirstFragment => {}
    }
    // What the node itself sends is masqueraded by nobody here.
    let flow = find(&mut scratch.packet.tuple, egress, egress && skb.came_by() != 0);
    if let Some(flow) = flow {
        // SAFETY: an element of the map, whose words change one by one at most.
        if unsafe { (*flow).has(Flow::CHANGED_HANDS) } {
            tell::changed_hands(flow, scratch);
        }
        // SAFETY: an element of the map; its role and device never change.
        let (state, here, role, direct, answered_there) = unsafe {
            let flow = &*flow;
            let direct = flow.service == 0;
            (FlowState::from_number(flow.state), here(flow, egress), flow.role, direct, flow.has(Flow::DSR))
        };
        let forward = role == Role::Forward as u8;
        match state {
            FlowState::Translate => {}
            // Under way between the hooks as the flow was given back: the kernel does not know it.
            FlowState::Pass if egress && skb.marks() & scratch.unseen != 0 => {}
            FlowState::Pass => {
                touch(flow, scratch.packet.signals, scratch.now_ns);
                count(Reason::PassedFlow);
                return NEXT;
            }
            FlowState::Frozen => {
                tell::frozen(flow, scratch);
                return DROP;
            }
        }
        // What comes straight from a backend would look like a Service's answer to the hook of the port behind.
        if direct && egress && scratch.device.has(Device::MASTER | Device::PARTLY) {
            return NEXT;
        }
        // A masqueraded packet that has left its bridge looks like that of the socket that was set apart from it.
        if direct && egress && forward && skb.came_by() != 0 {
            return NEXT;
        }
        if here && !(forward && begins_anew(flow, &scratch.packet)) {
            if !egress && forward && answered_there {
                return dsr::forward(skb, flow, scratch);
            }
            return follow(skb, flow, scratch);
        }
        if !here {
            mark(skb, flow, scratch);
        }
        if role == Role::Plain as u8 && !egress {
            dsr::pass(flow, scratch);
            return NEXT;
        }
    }
    if scratch.packet.kind as u8 == Kind::LaterFragment as u8 {
        return NEXT;
    }
    new::first(skb, flow, scratch, egress)
}

/// Reads the headers into `scratch.packet`; false if they are of no interest, or not understood.
#[inline(never)]
fn read(skb: Skb, scratch: &mut Scratch) -> bool {
    let ipv6 = match skb.ether_type() {
        IPV4 => false,
        IPV6 => true,
        _ => return false,
    };
    let network = if scratch.device.has(Device::ETHERNET) { ETHERNET_HEADER } else { 0 };
    match parse(&skb, network, ipv6, Extent::Full) {
        Some(packet) => {
            scratch.packet = packet;
            true
        }
        None => {
            count(Reason::Unparsed);
            false
        }
    }
}

/// What is known of a packet with this key, which afterwards is the entry's. After routing, what has been translated
/// before it (`again`) may be halfway.
#[inline(always)]
fn find(key: &mut Tuple, egress: bool, again: bool) -> Option<*mut Flow> {
    let known = Conntrack.find(key);
    // SAFETY: an element of the map; its role and device never change.
    if !again || known.is_some_and(|flow| here(unsafe { &*flow }, egress)) {
        return known;
    }
    key.halfway = 1;
    let second = Conntrack.find(key);
    if second.is_none() {
        key.halfway = 0;
        return known;
    }
    second
}

/// Whether an entry applies at this hook.
#[inline(always)]
fn here(flow: &Flow, egress: bool) -> bool {
    match flow.hook() {
        Some(Hook::Ingress) => !egress,
        Some(Hook::Egress) => egress,
        None => false,
    }
}

/// Whether a packet with the addresses of a flow is not of that flow: a port that is used again, or a datagram whose
/// backend is gone. (TCP keeps its backend to the end, as with kube-proxy.)
#[inline(always)]
fn begins_anew(flow: *mut Flow, packet: &Packet) -> bool {
    // SAFETY: an element of the map.
    let flow = unsafe { &*flow };
    // A flow that goes without a Service keeps what tells it apart.
    if flow.service == 0 {
        return false;
    }
    if packet.tuple.proto == proto::UDP {
        return packet.kind as u8 != Kind::LaterFragment as u8 && unserved(flow);
    }
    if packet.signals & signal::OPENS == 0 {
        return false;
    }
    let (answered, taken) = Conntrack.find(&flow.to.reversed()).map_or((0, false), |reply| {
        // SAFETY: as above.
        unsafe { ((*reply).seen, (*reply).has(Flow::TAKEN)) }
    });
    taken || replaceable(flow.seen, answered) || answered == 0 && unserved(flow)
}

/// Whether the backend of a flow is gone.
#[inline(always)]
fn unserved(flow: &Flow) -> bool {
    flow.service != 0 && !Kernel.backend(flow.backend).is_some_and(|backend| backend.serves(flow.service))
}

/// Marks a packet before routing, so that filters and the kernel's conntrack know whose it is.
///
/// Requests that are not masqueraded and may be the first of their flow get no mark for filters: kube-proxy's rules left
/// those to the rules of others.
#[inline(always)]
fn mark(skb: Skb, flow: *mut Flow, scratch: &Scratch) {
    if scratch.egress || scratch.mark | scratch.unseen == 0 {
        return;
    }
    // SAFETY: an element of the map, whose words change one by one at most.
    let flow = unsafe { &*flow };
    let request = flow.role == Role::Forward as u8;
    let begins = scratch.packet.signals & signal::OPENS != 0;
    let accepted = flow.service != 0 && (!request || flow.has(Flow::MASQUERADED) || !begins);
    let unseen = if flow.has(Flow::UNSEEN) { scratch.unseen } else { 0 };
    let bits = unseen | if accepted { scratch.mark } else { 0 };
    if bits != 0 {
        skb.mark(bits);
    }
}

/// Translates a packet of a known flow.
#[inline(always)]
fn follow(skb: Skb, flow: *mut Flow, scratch: &mut Scratch) -> i32 {
    // SAFETY: an element of the map, whose words change one by one at most.
    unsafe {
        if (*flow).is_strange(scratch.packet.tuple.proto, scratch.packet.signals) {
            (*flow).options |= Flow::TAKEN;
            count(Reason::ToldApart);
            return NEXT;
        }
    }
    touch(flow, scratch.packet.signals, scratch.now_ns);
    mark(skb, flow, scratch);
    // SAFETY: as above.
    let (role, undecided) = unsafe { ((*flow).role, (*flow).undecided()) };
    // A flow that goes without a Service keeps its way.
    // SAFETY: as above.
    let own = unsafe { if (*flow).service == 0 { 0 } else { (*flow).device } };
    if undecided {
        let outcome = choose_source(scratch);
        if outcome != CHOSEN {
            return tell::not_opened(scratch, outcome);
        }
        tell::masqueraded(flow, scratch);
    } else {
        // SAFETY: as above; an element that is replaced stays readable while the program runs.
        scratch.to = unsafe { (*flow).to };
    }
    let request = role == Role::Forward as u8 || role == Role::Masquerade as u8;
    count(if request { Reason::Forwarded } else { Reason::Replied });
    send(skb, role, own, scratch)
}

/// Rewrites the packet into `scratch.to` and sends it on its way.
#[inline(always)]
fn send(skb: Skb, role: u8, own: u32, scratch: &mut Scratch) -> i32 {
    if scratch.packet.kind as u8 == Kind::FirstFragment as u8 {
        remember_fragment(&scratch.packet);
    }
    let way = if own == 0 {
        own::Way::Stack
    } else if role == Role::Forward as u8 {
        match own::route(skb, scratch) {
            Some(way) => way,
            None => {
                count(Reason::NoRoute);
                return NEXT;
            }
        }
    } else {
        own::deliver(skb, scratch, own)
    };
    if !rewrite(skb, scratch) {
        return DROP;
    }
    way.go(skb)
}

const CHOSEN: u32 = 0;
const FULL: u32 = 1;
const NO_PORT: u32 = 2;
const NO_SOURCE: u32 = 3;

/// What is counted for a failure to open a flow.
#[inline(always)]
fn failed(outcome: u32) -> Reason {
    match outcome {
        FULL => Reason::ConntrackFull,
        NO_SOURCE => Reason::NoSource,
        _ => Reason::NoPort,
    }
}

/// The outcome as a number: a function of its own returns nothing larger.
#[inline(always)]
const fn number(outcome: Result<(), Failure>) -> u32 {
    match outcome {
        Ok(()) => CHOSEN,
        Err(Failure::Full) => FULL,
        Err(Failure::NoPort) => NO_PORT,
    }
}

/// Chooses the address of the node that the backend sees: one of the device that the first packet leaves by.
#[inline(never)]
fn choose_source(scratch: &mut Scratch) -> u32 {
    let Scratch { packet, device, ports, now_ns, room, to, .. } = scratch;
    let Some(addr) = device.source(packet.tuple.is_v4()) else { return NO_SOURCE };
    number(masquerade(&mut Conntrack, &packet.tuple, addr, *ports, *now_ns, room, to))
}
