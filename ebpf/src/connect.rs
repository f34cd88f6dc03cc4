//! connect(): TCP, and UDP sockets that connect.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_ebpf::programs::SockAddrContext;
use kpx_abi::{Backend, Cause, FrontendKey, Mode, Options, Peer, Reason, Verdict, lookup};

use crate::address::{self, Family};
use crate::client::request;
use crate::event::{Outcome, of_socket};
use crate::hooks::{PROCEED, REFUSE};
use crate::maps::{Counter, Kernel, PEERS, Settings, count, have_set_retval, settings, stick, tally};

const TCP: u8 = 6;
const ECONNREFUSED: i32 = 111;

#[inline(always)]
pub fn run<F: Family>(ctx: &SockAddrContext) -> i32 {
    let settings = settings();
    let mode = settings.mode;
    if mode == Mode::Off {
        return PROCEED;
    }
    let key = FrontendKey::new(F::read(ctx.sock_addr), address::port(ctx), address::protocol(ctx));
    // SAFETY: a helper without conditions.
    let random = unsafe { bpf_get_prandom_u32() };
    let request = request(ctx, &settings, key, random);
    match lookup(&Kernel, &request, || count(Reason::Retried)) {
        Verdict::Backend { service, id, backend, sticky, .. } if mode == Mode::Active => {
            if sticky {
                stick(&request.affinity_key(service), id, request.now_ns);
            }
            let reason = if key.proto == TCP { Reason::TcpConnect } else { Reason::UdpConnect };
            of_socket::<F>(ctx, request.now_ns, Outcome::translated(reason, service, id, sticky));
            translate::<F>(ctx, &key, backend);
            count(reason);
            tally(service, Counter::Connects);
            return PROCEED;
        }
        Verdict::Reject { service } if mode == Mode::Active => {
            let (answer, reason) = refuse(&settings, &key, service);
            of_socket::<F>(ctx, request.now_ns, Outcome::left(reason, Cause::NoBackend, service));
            if answer == REFUSE {
                return REFUSE;
            }
        }
        Verdict::Backend { service, .. } => {
            let reason = pass(mode, service);
            of_socket::<F>(ctx, request.now_ns, Outcome::left(reason, Cause::None, service));
        }
        Verdict::Reject { service } => {
            let reason = pass(mode, service);
            of_socket::<F>(ctx, request.now_ns, Outcome::left(reason, Cause::NoBackend, service));
        }
        Verdict::Drop { service, why } => {
            let reason = left(Reason::DropPassed, service);
            of_socket::<F>(ctx, request.now_ns, Outcome::left(reason, why.into(), service));
        }
        Verdict::Defer { service } => {
            let reason = left(Reason::Deferred, service);
            of_socket::<F>(ctx, request.now_ns, Outcome::left(reason, Cause::NoAddress, service));
        }
        Verdict::NotService | Verdict::UndefinedPort | Verdict::Unallocated => count(Reason::NotService),
        Verdict::Missed => {
            count(Reason::Missed);
            of_socket::<F>(ctx, request.now_ns, Outcome::left(Reason::Missed, Cause::None, 0));
        }
    }
    forget(ctx);
    PROCEED
}

/// Counts what is left to the rules, and says why again.
#[inline(always)]
pub fn left(reason: Reason, service: u32) -> Reason {
    count(reason);
    tally(service, Counter::Passed);
    reason
}

#[inline(always)]
fn pass(mode: Mode, service: u32) -> Reason {
    if mode != Mode::Shadow {
        return left(Reason::DrainPassed, service);
    }
    count(Reason::Shadow);
    tally(service, Counter::Shadow);
    Reason::Shadow
}

#[inline(always)]
fn translate<F: Family>(ctx: &SockAddrContext, key: &FrontendKey, backend: &Backend) {
    // Remembered first: from the moment the address is another, getpeername has to know.
    // SAFETY: the context's socket is valid for as long as the program runs.
    let peer = unsafe { PEERS.get_or_insert_ptr_mut(ctx, None) };
    if peer.is_null() {
        count(Reason::NoStorage);
    } else {
        // SAFETY: storage of this socket, which is locked by the caller of connect.
        unsafe {
            *peer =
                Peer { frontend: key.addr, backend: backend.addr, frontend_port: key.port, backend_port: backend.port };
        }
    }
    F::write(ctx.sock_addr, &backend.addr);
    address::set_port(ctx, backend.port);
}

/// What kube-proxy's REJECT (ICMP port unreachable) looks like to an application, as measured with iptables 1.8.9 on Linux
/// 6.18.
///
/// TCP: connect() fails with ECONNREFUSED, from the host as from a pod. UDP: connect() succeeds, since nothing is sent; it
/// is the datagrams that are refused (send() fails with EPERM and ECONNREFUSED by turns, from a pod every other time with
/// the latter), and those of a connected socket meet no hook. So the socket keeps the frontend's
/// address: the rules refuse its datagrams for as long as there is no backend, and translate them once there is one.
/// Once the rules are gone there is nobody to refuse such datagrams at the socket, so connect() itself fails.
///
/// Where the kernel cannot say ECONNREFUSED (before Linux 5.18), whoever sees the packets says it.
#[inline(always)]
fn refuse(settings: &Settings, key: &FrontendKey, service: u32) -> (i32, Reason) {
    if (key.proto == TCP || settings.options.has(Options::RULES_GONE)) && have_set_retval() {
        // SAFETY: a helper without conditions.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
        count(Reason::Refused);
        tally(service, Counter::Refused);
        return (REFUSE, Reason::Refused);
    }
    (PROCEED, left(Reason::RefusalPassed, service))
}

/// The socket connects elsewhere: what it was translated to before is no longer its peer.
#[inline(always)]
fn forget(ctx: &SockAddrContext) {
    // SAFETY: as in `translate`.
    let peer = unsafe { PEERS.get_ptr_mut(ctx) };
    if !peer.is_null() {
        // SAFETY: as in `translate`.
        unsafe { (*peer).backend_port = 0 };
    }
}
