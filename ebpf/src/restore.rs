//! recvmsg() and getpeername(): the application sees the frontend it asked for.

use aya_ebpf::helpers::generated::{bpf_spin_lock as lock, bpf_spin_unlock as unlock};
use aya_ebpf::programs::SockAddrContext;
use kpx_abi::{Peer, Reason, Socket};

use crate::address::{self, Family};
use crate::hooks::PROCEED;
use crate::maps::{PEERS, SOCKETS, count};

/// The source of a received datagram.
#[inline(always)]
pub fn source<F: Family>(ctx: &SockAddrContext) -> i32 {
    let addr = F::read(ctx.sock_addr);
    let port = address::port(ctx);
    let frontend = connected(ctx, &addr, port).or_else(|| unconnected(ctx, &addr, port));
    if let Some((addr, port)) = frontend {
        F::write(ctx.sock_addr, &addr);
        address::set_port(ctx, port);
        count(Reason::ReplyRestored);
    }
    PROCEED
}

/// The peer of a connected socket.
#[inline(always)]
pub fn peer<F: Family>(ctx: &SockAddrContext) -> i32 {
    let addr = F::read(ctx.sock_addr);
    if let Some((addr, port)) = connected(ctx, &addr, address::port(ctx)) {
        F::write(ctx.sock_addr, &addr);
        address::set_port(ctx, port);
        count(Reason::PeerRestored);
    }
    PROCEED
}

#[inline(always)]
fn connected(ctx: &SockAddrContext, addr: &[u8; 16], port: u16) -> Option<([u8; 16], u16)> {
    // SAFETY: the context's socket is valid for as long as the program runs.
    let peer: *mut Peer = unsafe { PEERS.get_ptr_mut(ctx) };
    // SAFETY: storage of this socket.
    let peer = unsafe { peer.as_ref() }?;
    (port != 0 && peer.backend_port == port && peer.backend == *addr).then_some((peer.frontend, peer.frontend_port))
}

#[inline(always)]
fn unconnected(ctx: &SockAddrContext, addr: &[u8; 16], port: u16) -> Option<([u8; 16], u16)> {
    // SAFETY: as above.
    let socket: *mut Socket = unsafe { SOCKETS.get_ptr_mut(ctx) };
    if socket.is_null() {
        return None;
    }
    // SAFETY: as above. No function is called between lock and unlock, as the verifier demands.
    unsafe {
        lock((&raw mut (*socket).lock).cast());
        let found = match (*socket).find_backend(addr, port) {
            Some(i) => Some(((*socket).entries[i].frontend, (*socket).entries[i].frontend_port)),
            None => None,
        };
        unlock((&raw mut (*socket).lock).cast());
        found
    }
}
