//! sendmsg(): datagrams of unconnected UDP sockets.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_spin_lock as lock, bpf_spin_unlock as unlock};
use aya_ebpf::programs::SockAddrContext;
use kpx_abi::{
    Backend, Cause, Datagram, Entry, EntryState, FrontendKey, Known, Mode, Origin, Reason, Request, Socket, Verdict,
    YieldKey, datagram, keeps, lookup,
};

use crate::address::{self, Family};
use crate::client::request;
use crate::connect::left;
use crate::event::{Outcome, of_socket};
use crate::hooks::{PROCEED, REFUSE};
use crate::maps::{Counter, Kernel, SOCKETS, Settings, count, settings, stick, tally, yields_until};

const UDP: u8 = 17;

#[inline(always)]
pub fn run<F: Family>(ctx: &SockAddrContext) -> i32 {
    let settings = settings();
    let mode = settings.mode;
    if mode == Mode::Off {
        return PROCEED;
    }
    let key = FrontendKey::new(F::read(ctx.sock_addr), address::port(ctx), UDP);
    // The cookie instead of a random number: should the socket's memory of this frontend make room for another, the same
    // backend is chosen again.
    // SAFETY: the context is valid for as long as the program runs.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let request = request(ctx, &settings, key, spread(cookie, &key));
    match lookup(&Kernel, &request, || count(Reason::Retried)) {
        Verdict::Backend { service, id, backend, sticky, .. } => {
            serve::<F>(ctx, &settings, &request, &Chosen { service, id, backend, sticky })
        }
        Verdict::Reject { service } => {
            let (answer, reason) = refuse(&settings, &request, service);
            of_socket::<F>(ctx, request.now_ns, Outcome::left(reason, Cause::NoBackend, service));
            answer
        }
        Verdict::Drop { service, why } => {
            let reason = left(Reason::DropPassed, service);
            of_socket::<F>(ctx, request.now_ns, Outcome::left(reason, why.into(), service));
            PROCEED
        }
        Verdict::Defer { service } => {
            let reason = left(Reason::Deferred, service);
            of_socket::<F>(ctx, request.now_ns, Outcome::left(reason, Cause::NoAddress, service));
            PROCEED
        }
        Verdict::NotService | Verdict::UndefinedPort | Verdict::Unallocated => {
            count(Reason::NotService);
            forget(ctx, &key);
            PROCEED
        }
        Verdict::Missed => {
            count(Reason::Missed);
            of_socket::<F>(ctx, request.now_ns, Outcome::left(Reason::Missed, Cause::None, 0));
            PROCEED
        }
    }
}

/// A number for this socket and frontend, evenly distributed over sockets.
#[inline(always)]
fn spread(cookie: u64, key: &FrontendKey) -> u32 {
    let tail = u32::from_ne_bytes([key.addr[12], key.addr[13], key.addr[14], key.addr[15]]);
    let mixed = (cookie ^ (u64::from(tail) << 16) ^ u64::from(key.port)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32
}

/// What the lookup chose for a new flow.
struct Chosen<'m> {
    service: u32,
    id: u32,
    backend: &'m Backend,
    sticky: bool,
}

#[inline(always)]
fn serve<F: Family>(ctx: &SockAddrContext, settings: &Settings, request: &Request, chosen: &Chosen<'_>) -> i32 {
    let (key, service, now_ns) = (&request.key, chosen.service, request.now_ns);
    // SAFETY: the context's socket is valid for as long as the program runs.
    let socket = unsafe { SOCKETS.get_or_insert_ptr_mut(ctx, None) };
    if socket.is_null() {
        // Without storage neither replies could be restored nor the flow be kept: the rules can do both.
        let reason = left(Reason::NoStorage, service);
        of_socket::<F>(ctx, now_ns, Outcome::left(reason, Cause::None, service));
        return PROCEED;
    }
    let entry = recall(socket, key);
    let kept = if entry.state == EntryState::Ours as u32 {
        keeps(&Kernel, service, entry.backend_id, &entry.backend, entry.backend_port)
    } else {
        None
    };
    let known = if entry.state == EntryState::Ours as u32 {
        Known::Ours { serving: kept.is_some() }
    } else if entry.state == EntryState::Kernel as u32 {
        Known::Kernel { last_ns: entry.last_ns }
    } else if settings.mode == Mode::Active {
        let flow = YieldKey { addr: key.addr, port: key.port, source_port: address::source_port(ctx) };
        yields_until(&flow).map_or(Known::New, |until_ns| Known::KernelUntil { until_ns })
    } else {
        Known::New
    };
    let decision = datagram(settings.mode, known, now_ns, settings.yield_ns);
    let (id, backend) = match decision {
        Datagram::Keep => (entry.backend_id, kept.unwrap_or(chosen.backend)),
        Datagram::Choose | Datagram::Kernel => (chosen.id, chosen.backend),
    };
    if decision == Datagram::Choose && chosen.sticky {
        stick(&request.affinity_key(service), id, now_ns);
    }
    let state = if decision == Datagram::Kernel { EntryState::Kernel } else { EntryState::Ours };
    remember(socket, key, state, id, backend, now_ns);
    match decision {
        Datagram::Kernel => {
            let (reason, counter) = match settings.mode {
                Mode::Active => (Reason::Yielded, Counter::Passed),
                Mode::Drain => (Reason::DrainPassed, Counter::Passed),
                Mode::Off | Mode::Shadow => (Reason::Shadow, Counter::Shadow),
            };
            count(reason);
            tally(service, counter);
            if entry.state != EntryState::Kernel as u32 {
                of_socket::<F>(ctx, now_ns, Outcome::left(reason, Cause::None, service));
            }
        }
        Datagram::Keep | Datagram::Choose => {
            if decision == Datagram::Choose {
                of_socket::<F>(ctx, now_ns, Outcome::translated(Reason::UdpFirst, service, id, chosen.sticky));
            }
            F::write(ctx.sock_addr, &backend.addr);
            address::set_port(ctx, backend.port);
            count(if decision == Datagram::Keep { Reason::UdpKept } else { Reason::UdpFirst });
            tally(service, Counter::Datagrams);
        }
    }
    PROCEED
}

/// A copy of what the socket remembers of the frontend; a free entry if nothing.
#[inline(always)]
fn recall(socket: *mut Socket, key: &FrontendKey) -> Entry {
    // SAFETY: storage of this socket. No function is called between lock and unlock, as the verifier demands.
    unsafe {
        lock((&raw mut (*socket).lock).cast());
        let entry = match (*socket).find(&key.addr, key.port) {
            Some(i) => (*socket).entries[i],
            None => Entry::default(),
        };
        unlock((&raw mut (*socket).lock).cast());
        entry
    }
}

#[inline(always)]
fn remember(socket: *mut Socket, key: &FrontendKey, state: EntryState, id: u32, backend: &Backend, now_ns: u64) {
    let entry = Entry {
        last_ns: now_ns,
        frontend: key.addr,
        backend: backend.addr,
        frontend_port: key.port,
        backend_port: backend.port,
        state: state as u32,
        backend_id: id,
        pad: 0,
    };
    // SAFETY: as in `recall`.
    unsafe {
        lock((&raw mut (*socket).lock).cast());
        let i = match (*socket).find(&key.addr, key.port) {
            Some(i) => i,
            None => (*socket).place(),
        };
        (*socket).entries[i] = entry;
        unlock((&raw mut (*socket).lock).cast());
    }
}

/// The socket speaks to this address directly now: replies from there are no longer a frontend's.
#[inline(always)]
fn forget(ctx: &SockAddrContext, key: &FrontendKey) {
    // SAFETY: as in `serve`.
    let socket = unsafe { SOCKETS.get_ptr_mut(ctx) };
    if socket.is_null() {
        return;
    }
    // SAFETY: as in `recall`.
    unsafe {
        lock((&raw mut (*socket).lock).cast());
        (*socket).forget_backend(&key.addr, key.port);
        unlock((&raw mut (*socket).lock).cast());
    }
}

/// What kube-proxy's REJECT (ICMP port unreachable) looks like to an application, as measured with iptables 1.8.9 on Linux
/// 6.18: a datagram of the node's own is dropped in OUTPUT, so that sendto() fails with EPERM, each time anew. From a pod
/// the datagram leaves the pod's namespace before it is rejected: sendto() succeeds, and as the socket is not connected,
/// nobody is told of the ICMP error. So datagrams of other namespaces go to the rules, or to whoever sees the packets.
#[inline(always)]
fn refuse(settings: &Settings, request: &Request, service: u32) -> (i32, Reason) {
    if settings.mode == Mode::Shadow {
        count(Reason::Shadow);
        tally(service, Counter::Shadow);
        return (PROCEED, Reason::Shadow);
    }
    if settings.mode == Mode::Active && request.origin == Origin::Node {
        count(Reason::Refused);
        tally(service, Counter::Refused);
        return (REFUSE, Reason::Refused);
    }
    (PROCEED, left(Reason::RefusalPassed, service))
}
