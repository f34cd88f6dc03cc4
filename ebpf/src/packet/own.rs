//! Packets of the node's own sockets that come out untranslated: raw sockets, protocols and sockets without hooks,
//! and UDP sockets that were connected before the hooks were there.
//!
//! They are first met after routing, on the way to the frontend: a route to the backend has to be found anew. Their
//! answers have to look like the frontend's before they are delivered, and come in by the device that leads to it: a
//! strict reverse path filter would drop them elsewhere.

use core::ffi::c_void;

use aya_ebpf::bindings::bpf_fib_lookup as Question;
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_redirect, bpf_redirect_neigh};
use kpx_abi::Device;

use super::NEXT;
use super::flows::{Scratch, device};
use super::skb::Skb;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// A route, and a neighbour.
pub const SUCCESS: i64 = 0;
/// A route, and a neighbour that is to be asked for.
const NO_NEIGHBOUR: i64 = 7;
/// Redirect to a device as if it had received the packet.
const RECEIVE: u64 = 1;

/// How a packet goes on.
pub enum Way {
    /// Through the stack.
    Stack,
    /// Out by this device.
    Out(u32),
    /// In by this Ethernet device, whose address is given.
    In(u32, [u8; 6]),
}

impl Way {
    /// Sends the packet.
    #[inline(always)]
    pub fn go(self, skb: Skb) -> i32 {
        match self {
            Self::Stack => NEXT,
            // SAFETY: a helper without conditions; no parameters is what lets it look up the neighbour.
            Self::Out(device) => (unsafe { bpf_redirect_neigh(device, core::ptr::null_mut(), 0, 0) }) as i32,
            Self::In(device, mac) => {
                if !skb.store(0, &raw const mac) {
                    return super::DROP;
                }
                // SAFETY: a helper without conditions.
                (unsafe { bpf_redirect(device, RECEIVE) }) as i32
            }
        }
    }
}

/// The way from here to the backend in `scratch.to`; none if it is on this very node, whose stack takes no packet with a
/// source of its own.
#[inline(always)]
pub fn route(skb: Skb, scratch: &mut Scratch) -> Option<Way> {
    let answer = ask(skb.raw().cast(), skb.device(), 0, scratch);
    let question: *const Question = (&raw const scratch.bytes).cast();
    // SAFETY: `ask` has left question and answer there.
    matches!(answer, SUCCESS | NO_NEIGHBOUR).then(|| Way::Out(unsafe { (*question).ifindex }))
}

/// Asks the kernel for the route that a packet like `scratch.to` takes that comes in by a device; question and answer are
/// in `scratch.bytes`. A length other than zero has to fit.
#[inline(always)]
pub fn ask(ctx: *mut c_void, device: u32, length: u16, scratch: &mut Scratch) -> i64 {
    let question: *mut Question = (&raw mut scratch.bytes).cast();
    let to = &scratch.to;
    // SAFETY: the context is valid for as long as the program runs; the room is larger than the question and aligned, and
    // all its fields are integers.
    unsafe {
        core::ptr::write_bytes(question.cast::<u64>(), 0, size_of::<Question>() / 8);
        (*question).l4_protocol = to.proto;
        (*question).__bindgen_anon_1.tot_len = length;
        (*question).ifindex = device;
        if to.is_v4() {
            (*question).family = AF_INET;
            (&raw mut (*question).__bindgen_anon_3).cast::<[u8; 4]>().write(tail(&to.src));
            (&raw mut (*question).__bindgen_anon_4).cast::<[u8; 4]>().write(tail(&to.dst));
        } else {
            (*question).family = AF_INET6;
            (&raw mut (*question).__bindgen_anon_3).cast::<[u8; 16]>().write(to.src);
            (&raw mut (*question).__bindgen_anon_4).cast::<[u8; 16]>().write(to.dst);
        }
        bpf_fib_lookup(ctx, question, size_of::<Question>() as i32, 0)
    }
}

#[inline(always)]
const fn tail(addr: &[u8; 16]) -> [u8; 4] {
    [addr[12], addr[13], addr[14], addr[15]]
}

/// The way of an answer to a socket: in by the device that the question was to go out by.
#[inline(always)]
pub fn deliver(skb: Skb, scratch: &Scratch, out: u32) -> Way {
    if out == skb.device() || !scratch.device.has(Device::ETHERNET) {
        return Way::Stack;
    }
    match device(out) {
        Some(device) if device.has(Device::ETHERNET) => Way::In(out, device.mac),
        _ => Way::Stack,
    }
}
