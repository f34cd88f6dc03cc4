//! The short cut for flows whose backend is on another node: packets that would go through the stack and leave by the
//! device they came by are sent back by the driver.
//!
//! It knows only flows that the tc programs have opened, and does in one step what they do in two. Everything else
//! passes: first packets, fragments, errors, packets that are too big or whose time is up, other ways out.

use core::ptr::addr_of_mut;

use aya_ebpf::bindings::{bpf_fib_lookup as Question, xdp_action, xdp_md};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_xdp_load_bytes, bpf_xdp_store_bytes};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use kpx_abi::packet::{Bytes, Extent, Kind, parse, proto, signal};
use kpx_abi::{Device, Flow, FlowState, Hook, Mode, Reason, Role};

use super::flows::{Conntrack, Scratch, device, scratch, touch};
use super::own::{SUCCESS, ask};
use super::rewrite::{addresses, ports, v4};
use super::skb::{difference, fold};
use super::{ETHERNET_HEADER, IPV4, IPV6, unserved};
use crate::maps::{count, settings};

const TRANSLATE: u8 = FlowState::Translate as u8;

/// A packet in a driver.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Frame(*mut xdp_md);

impl Bytes for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: the context is valid for as long as the program runs; the kernel writes N bytes, or none.
        let status = unsafe { bpf_xdp_load_bytes(self.0, at, (&raw mut bytes).cast(), N as u32) };
        (status == 0).then_some(bytes)
    }
}

impl Frame {
    #[inline(always)]
    fn store<const N: usize>(self, at: u32, bytes: *const [u8; N]) -> bool {
        // SAFETY: as above; the pointer is to N readable bytes, which the kernel does not write.
        unsafe { bpf_xdp_store_bytes(self.0, at, bytes.cast_mut().cast(), N as u32) == 0 }
    }

    #[inline(always)]
    fn device(self) -> u32 {
        // SAFETY: as above.
        unsafe { addr_of_mut!((*self.0).ingress_ifindex).read_volatile() }
    }
}

#[xdp]
pub fn kpx_xdp(ctx: XdpContext) -> u32 {
    let frame = Frame(ctx.ctx);
    if settings().mode == Mode::Off || !device(frame.device()).is_some_and(|device| device.has(Device::ETHERNET)) {
        return xdp_action::XDP_PASS;
    }
    let Some(scratch) = scratch() else { return xdp_action::XDP_PASS };
    // SAFETY: this processor's own element; drivers run programs in the same softirq as tc does.
    let scratch = unsafe { &mut *scratch };
    if !read(frame, scratch) || !translate(scratch) || !turns_round(frame, scratch) {
        return xdp_action::XDP_PASS;
    }
    count(Reason::ShortCut);
    // What is written in part must not go on.
    if write(frame, scratch) { xdp_action::XDP_TX } else { xdp_action::XDP_DROP }
}

/// Reads the headers of a packet in the middle of a flow.
#[inline(never)]
fn read(frame: Frame, scratch: &mut Scratch) -> bool {
    let Some(kind) = frame.read::<2>(12) else { return false };
    let ipv6 = match u16::from_be_bytes(kind) {
        IPV4 => false,
        IPV6 => true,
        _ => return false,
    };
    let Some(packet) = parse(&frame, ETHERNET_HEADER, ipv6, Extent::Full) else { return false };
    scratch.packet = packet;
    let begins = packet.signals & signal::OPENS != 0 && packet.tuple.proto != proto::UDP;
    scratch.packet.kind as u8 == Kind::Whole as u8 && !begins
}

/// Finds what the packet becomes before routing and after it.
#[inline(never)]
fn translate(scratch: &mut Scratch) -> bool {
    // SAFETY: a helper without conditions.
    scratch.now_ns = unsafe { bpf_ktime_get_ns() };
    let Some(first) = Conntrack.find(&scratch.packet.tuple) else { return false };
    // SAFETY: elements of the map, whose words change one by one at most; an element that is replaced stays readable
    // while the program runs.
    unsafe {
        if !matches!((*first).hook(), Some(Hook::Ingress)) || (*first).device != 0 || (*first).state != TRANSLATE {
            return false;
        }
        // Every datagram of a flow that is answered directly is announced, which is tc's business.
        if (*first).role == Role::Forward as u8
            && scratch.packet.tuple.proto == proto::UDP
            && ((*first).has(Flow::DSR) || unserved(&*first))
        {
            return false;
        }
        // Who listens is told by tc.
        if (*first).has(Flow::CHANGED_HANDS) {
            return false;
        }
        scratch.to = (*first).to;
        let second = Conntrack.find(&scratch.to);
        match second {
            Some(second)
                if matches!((*second).hook(), Some(Hook::Egress))
                    && !(*second).undecided()
                    && (*second).state == TRANSLATE
                    && !(*second).is_strange(scratch.packet.tuple.proto, scratch.packet.signals) =>
            {
                scratch.to = (*second).to;
                touch(second, scratch.packet.signals, scratch.now_ns);
            }
            // A flow that is not masqueraded has no second step on its way to the backend.
            None if (*first).role == Role::Forward as u8 => {}
            _ => return false,
        }
        touch(first, scratch.packet.signals, scratch.now_ns);
    }
    // SCTP's checksum is left to tc.
    let (from, to) = (&scratch.packet.tuple, &scratch.to);
    from.proto != proto::SCTP || from.sport == to.sport && from.dport == to.dport
}

/// Whether the packet leaves by the device it came by, fits, and has time to live; the answer stays in `scratch.bytes`.
#[inline(never)]
fn turns_round(frame: Frame, scratch: &mut Scratch) -> bool {
    let at = scratch.packet.network + if scratch.packet.ipv6 { 7 } else { 8 };
    let lives = frame.read::<1>(at).is_some_and(|[hops]| hops > 1);
    let device = frame.device();
    let length = scratch.packet.length as u16;
    let question: *const Question = (&raw const scratch.bytes).cast();
    // SAFETY: the context is valid; the kernel's answer is in the room that was given.
    lives && ask(frame.0.cast(), device, length, scratch) == SUCCESS && unsafe { (*question).ifindex } == device
}

/// Writes the packet that goes out.
#[inline(never)]
fn write(frame: Frame, scratch: &mut Scratch) -> bool {
    let (packet, to) = (&scratch.packet, &scratch.to);
    let from = &packet.tuple;
    let network = packet.network;
    let question: *const Question = (&raw const scratch.bytes).cast();
    // SAFETY: as above: twelve bytes with the addresses of the neighbour and of the device.
    let (dmac, smac) = unsafe { ((*question).dmac, (*question).smac) };
    let mut written = frame.store(0, &raw const dmac) && frame.store(6, &raw const smac);
    if packet.ipv6 {
        let Some([hops]) = frame.read::<1>(network + 7) else { return false };
        written &= frame.store(network + 7, &[hops.wrapping_sub(1)]) && frame.store(network + 8, addresses(to));
    } else {
        let Some(old) = frame.read::<4>(network + 8) else { return false };
        let new = [old[0].wrapping_sub(1), old[1], 0, 0];
        let checksum = u16::from_ne_bytes([old[2], old[3]]);
        let before = [old[0], old[1], 0, 0];
        let hops = difference(&raw const before, &raw const new, u32::from(!checksum));
        let [a, b] = fold(difference(addresses(from), addresses(to), hops)).to_ne_bytes();
        written &= frame.store(network + 8, &[new[0], new[1], a, b])
            && frame.store(network + 12, v4(&to.src))
            && frame.store(network + 16, v4(&to.dst));
    }
    let at = match from.proto {
        proto::TCP => packet.transport + 16,
        proto::UDP => packet.transport + 6,
        _ => return written && frame.store(packet.transport, ports(to)),
    };
    let Some(old) = frame.read::<2>(at) else { return false };
    let old = u16::from_ne_bytes(old);
    if old != 0 || from.proto != proto::UDP {
        let changed = difference(addresses(from), addresses(to), u32::from(!old));
        let new = fold(difference(ports(from), ports(to), changed));
        // Zero would say that there is none.
        let new = if new == 0 && from.proto == proto::UDP { 0xffff } else { new };
        written &= frame.store(at, &new.to_ne_bytes());
    }
    written && frame.store(packet.transport, ports(to))
}
