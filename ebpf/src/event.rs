//! Telling whoever listens what happened: once for a connection, a flow or a refusal, and nothing unless it is asked for.
//!
//! The programs' stacks have little room left, so what tells are functions of their own with small frames: of words, since
//! the verifier of older kernels follows no pointer to the stack into a function, and addresses are written straight into the
//! record.

use core::ptr::addr_of;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, bpf_sock, bpf_sock_addr};
use aya_ebpf::btf_maps::{Array, HashMap, RingBuf};
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_netns_cookie,
    bpf_ktime_get_ns,
};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::{SockAddrContext, SockContext};
use kpx_abi::{Addr, Cause, Event, Listener, Maps as _, Reason, stand_in};

use crate::address::{self, BoundFamily, Family};
use crate::maps::{Kernel, count, known_client};

/// Services that one listener can ask for.
const LISTENED_SERVICES: usize = 4096;
/// How far below the root a cgroup can be that is asked for; those of pods are four levels down, and six where a node is a
/// container.
const DEEPEST: i32 = 16;
/// Bytes, before the loader sets what was asked for.
const EVENTS_BYTES: usize = 1 << 19;

#[btf_map(name = "kpx_listener")]
static LISTENER: Array<Listener, 1> = Array::new();
#[btf_map(name = "kpx_listened")]
static LISTENED: HashMap<u32, u8, LISTENED_SERVICES, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();
#[btf_map(name = "kpx_events")]
static EVENTS: RingBuf<Event, EVENTS_BYTES> = RingBuf::new();

/// Whoever listens now.
#[inline(always)]
pub fn listener(now_ns: u64) -> Option<&'static Listener> {
    let listener = LISTENER.get_ptr(0)?;
    // SAFETY: the map's one element. Should its words change one by one while they are read, one event too many is told,
    // or one too few.
    unsafe { (addr_of!((*listener).until_ns).read_volatile() > now_ns).then(|| &*listener) }
}

/// Whether the listener asks for this Service, and it is this event's turn.
#[inline(always)]
pub fn takes(listener: &Listener, service: u32) -> bool {
    // SAFETY: nothing of the element is read.
    if listener.services != 0 && unsafe { LISTENED.get(&service) }.is_none() {
        return false;
    }
    // SAFETY: a helper without conditions.
    listener.sample <= 1 || unsafe { bpf_get_prandom_u32() } % listener.sample == 0
}

/// Hands the room for an event to whoever fills it, all of it, and then the event to the listener.
#[inline(always)]
pub fn record(fill: impl FnOnce(*mut Event)) {
    match EVENTS.reserve(0) {
        Some(mut record) => {
            fill(record.as_mut_ptr());
            record.submit(0);
        }
        None => count(Reason::EventLost),
    }
}

/// What became of a socket's call.
#[derive(Clone, Copy)]
pub struct Outcome {
    reason: Reason,
    cause: Cause,
    service: u32,
    backend: u32,
    sticky: bool,
}

impl Outcome {
    /// It goes to a backend, which is `sticky` where the client is remembered with it.
    #[inline(always)]
    pub const fn translated(reason: Reason, service: u32, backend: u32, sticky: bool) -> Self {
        Self { reason, cause: Cause::None, service, backend, sticky }
    }

    /// It does not.
    #[inline(always)]
    pub const fn left(reason: Reason, cause: Cause, service: u32) -> Self {
        Self { reason, cause, service, backend: 0, sticky: false }
    }
}

/// Tells what becomes of a call that has the frontend's address still.
#[inline(always)]
pub fn of_socket<F: Family>(ctx: &SockAddrContext, now_ns: u64, outcome: Outcome) {
    if listener(now_ns).is_some() {
        let Outcome { reason, cause, service, backend, sticky } = outcome;
        tell::<F>(ctx, reason as u32 | (cause as u32) << 8, service, backend);
        if sticky {
            tell::<F>(ctx, Reason::Affinity as u32, service, backend);
        }
    }
}

#[inline(always)]
fn tell<F: Family>(ctx: &SockAddrContext, what: u32, service: u32, backend: u32) {
    if is_wanted::<F>(ctx.sock_addr, what, service, backend) {
        write::<F>(ctx.sock_addr, what, service, backend);
    }
}

/// An address in memory whose alignment is a word's.
#[inline(always)]
const fn words(addr: *const Addr) -> *const [u32; 4] {
    addr.cast()
}

#[inline(always)]
fn meets(listener: &Listener, addr: [u32; 4], port: u16) -> bool {
    // SAFETY: the listener's fields are aligned to more than a word.
    let [a, b, c, d] = unsafe { *words(&raw const listener.addr) };
    (a | b | c | d == 0 || a == addr[0] && b == addr[1] && c == addr[2] && d == addr[3])
        && (listener.port == 0 || listener.port == port)
}

/// By which address a namespace's sockets are known.
#[inline(always)]
fn source<F: Family>(netns: u64) -> Option<[u32; 4]> {
    let client = known_client(netns)?;
    let addr = if F::IS_V4 { &raw const client.v4 } else { &raw const client.v6 };
    // SAFETY: an element of the map; a client is two addresses, and elements are aligned to more than a word.
    let addr = unsafe { *words(addr) };
    (addr[0] | addr[1] | addr[2] | addr[3] != 0).then_some(addr)
}

/// Whether the listener asks for what the process that runs does.
#[inline(never)]
fn is_wanted<F: Family>(ctx: *mut bpf_sock_addr, what: u32, service: u32, backend: u32) -> bool {
    let Some(listener) = listener(0) else { return false };
    if !listener.wants(what & 0xff, what >> 8) || !is_below(listener) {
        return false;
    }
    let ctx = SockAddrContext::new(ctx);
    let meets_backend = || match Kernel.backend(backend) {
        // SAFETY: an element of the map, whose first field is the address.
        Some(found) => backend != 0 && meets(listener, unsafe { *words(&raw const found.addr) }, found.port),
        None => false,
    };
    // SAFETY: the context is valid for as long as the program runs.
    let meets_client = || match source::<F>(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }) {
        Some(addr) => meets(listener, addr, address::source_port(&ctx)),
        None => false,
    };
    (meets(listener, F::words(ctx.sock_addr), address::port(&ctx)) || meets_backend() || meets_client())
        && takes(listener, service)
}

/// Whether the process that runs is in the cgroup that the listener asks for, or below.
#[inline(always)]
fn is_below(listener: &Listener) -> bool {
    if listener.cgroup == 0 {
        return true;
    }
    for level in 0..DEEPEST {
        // SAFETY: a helper without conditions.
        if unsafe { bpf_get_current_ancestor_cgroup_id(level) } == listener.cgroup {
            return true;
        }
    }
    false
}

#[inline(never)]
fn write<F: Family>(ctx: *mut bpf_sock_addr, what: u32, service: u32, backend: u32) {
    let ctx = SockAddrContext::new(ctx);
    record(|event| {
        // SAFETY: room for one event, aligned to eight bytes, as its addresses are; the context is valid for as long as the
        // program runs.
        unsafe {
            let netns = bpf_get_netns_cookie(ctx.as_ptr());
            match source::<F>(netns) {
                Some(addr) => (&raw mut (*event).client).cast::<[u32; 4]>().write(addr),
                None => (*event).client = stand_in(netns),
            }
            (*event).client_port = address::source_port(&ctx);
            (&raw mut (*event).destination).cast::<[u32; 4]>().write(F::words(ctx.sock_addr));
            (*event).destination_port = address::port(&ctx);
            match Kernel.backend(backend) {
                Some(found) if backend != 0 => {
                    (&raw mut (*event).to).cast::<[u32; 4]>().write(*words(&raw const found.addr));
                    (*event).to_port = found.port;
                }
                _ => {
                    (&raw mut (*event).to).cast::<[u32; 4]>().write([0; 4]);
                    (*event).to_port = 0;
                }
            }
            (*event).service = service;
            (*event).backend = backend;
            (*event).proto = address::protocol(&ctx);
            of_process(event, what);
        }
    });
}

/// Tells of a socket that is refused its port.
#[inline(never)]
pub fn of_bind<F: BoundFamily>(ctx: *mut bpf_sock) {
    let ctx = SockContext::new(ctx);
    // SAFETY: a helper without conditions.
    let Some(listener) = listener(unsafe { bpf_ktime_get_ns() }) else { return };
    let port = address::bound_port(&ctx);
    let wanted = listener.wants(Reason::BindRefused as u32, Cause::None as u32)
        && is_below(listener)
        && meets(listener, F::words(ctx.sock), port)
        && takes(listener, 0);
    if !wanted {
        return;
    }
    record(|event| {
        // SAFETY: as in `write`.
        unsafe {
            (&raw mut (*event).client).cast::<[u32; 4]>().write([0; 4]);
            (&raw mut (*event).destination).cast::<[u32; 4]>().write(F::words(ctx.sock));
            (&raw mut (*event).to).cast::<[u32; 4]>().write([0; 4]);
            (*event).client_port = 0;
            (*event).destination_port = port;
            (*event).to_port = 0;
            (*event).service = 0;
            (*event).backend = 0;
            (*event).proto = address::bound_protocol(&ctx);
            of_process(event, Reason::BindRefused as u32);
        }
    });
}

/// Fills in what is known of the process that runs, and what it met.
///
/// # Safety
///
/// There is room for an event.
#[inline(always)]
unsafe fn of_process(event: *mut Event, what: u32) {
    // SAFETY: the caller's promise; helpers without conditions.
    unsafe {
        (*event).at_ns = bpf_ktime_get_ns();
        (*event).cgroup = bpf_get_current_cgroup_id();
        (*event).pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*event).device = 0;
        (*event).reason = what as u8;
        (*event).cause = (what >> 8) as u8;
        (*event).pad = [0; 7];
    }
}
