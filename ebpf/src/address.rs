//! Reads and writes the address in a hook's context, in the one form all maps use.
//!
//! The verifier wants each context field read and written in its declared width, at a constant offset.

use core::ptr::addr_of_mut;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};

/// The family of a hook's attach type.
pub trait Family {
    /// Whether it is IPv4.
    const IS_V4: bool;
    /// The address in four words, network byte order, IPv4 as v4-mapped.
    fn words(ctx: *mut bpf_sock_addr) -> [u32; 4];
    /// The same as bytes.
    #[inline(always)]
    fn read(ctx: *mut bpf_sock_addr) -> [u8; 16] {
        bytes(Self::words(ctx))
    }
    /// Writes such an address.
    fn write(ctx: *mut bpf_sock_addr, addr: &[u8; 16]);
}

pub struct V4;
pub struct V6;

/// `0:0:ffff` in memory order: the third word of a v4-mapped address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

#[inline(always)]
fn words(addr: &[u8; 16]) -> [u32; 4] {
    let word = |i: usize| u32::from_ne_bytes([addr[i], addr[i + 1], addr[i + 2], addr[i + 3]]);
    [word(0), word(4), word(8), word(12)]
}

#[inline(always)]
fn bytes(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are sixteen bytes without padding, and any bits are a value of either.
    unsafe { core::mem::transmute(words) }
}

impl Family for V4 {
    const IS_V4: bool = true;

    #[inline(always)]
    fn words(ctx: *mut bpf_sock_addr) -> [u32; 4] {
        // SAFETY: the context is valid for as long as the program runs.
        [0, 0, MAPPED, unsafe { addr_of_mut!((*ctx).user_ip4).read_volatile() }]
    }

    #[inline(always)]
    fn write(ctx: *mut bpf_sock_addr, addr: &[u8; 16]) {
        // SAFETY: as above.
        unsafe { addr_of_mut!((*ctx).user_ip4).write_volatile(words(addr)[3]) };
    }
}

impl Family for V6 {
    const IS_V4: bool = false;

    #[inline(always)]
    fn words(ctx: *mut bpf_sock_addr) -> [u32; 4] {
        // SAFETY: as above.
        unsafe {
            [
                addr_of_mut!((*ctx).user_ip6[0]).read_volatile(),
                addr_of_mut!((*ctx).user_ip6[1]).read_volatile(),
                addr_of_mut!((*ctx).user_ip6[2]).read_volatile(),
                addr_of_mut!((*ctx).user_ip6[3]).read_volatile(),
            ]
        }
    }

    #[inline(always)]
    fn write(ctx: *mut bpf_sock_addr, addr: &[u8; 16]) {
        let words = words(addr);
        // SAFETY: as above.
        unsafe {
            addr_of_mut!((*ctx).user_ip6[0]).write_volatile(words[0]);
            addr_of_mut!((*ctx).user_ip6[1]).write_volatile(words[1]);
            addr_of_mut!((*ctx).user_ip6[2]).write_volatile(words[2]);
            addr_of_mut!((*ctx).user_ip6[3]).write_volatile(words[3]);
        }
    }
}

/// The port, network byte order: the low half of the field.
#[inline(always)]
pub fn port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: the context is valid for as long as the program runs.
    unsafe { addr_of_mut!((*ctx.sock_addr).user_port).read_volatile() as u16 }
}

/// Writes a port in network byte order.
#[inline(always)]
pub fn set_port(ctx: &SockAddrContext, port: u16) {
    // SAFETY: as above.
    unsafe { addr_of_mut!((*ctx.sock_addr).user_port).write_volatile(u32::from(port)) };
}

/// The IANA protocol number of the socket.
#[inline(always)]
pub fn protocol(ctx: &SockAddrContext) -> u8 {
    // SAFETY: as above.
    unsafe { addr_of_mut!((*ctx.sock_addr).protocol).read_volatile() as u8 }
}

/// The port the socket is bound to, network byte order.
#[inline(always)]
pub fn source_port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: as above; the hooks' sockets are full sockets, and the field is in host byte order.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        (addr_of_mut!((*sk).src_port).read_volatile() as u16).to_be()
    }
}

/// The family of a bound socket.
pub trait BoundFamily {
    /// The address it is bound to, in four words, network byte order, IPv4 as v4-mapped.
    fn words(sk: *mut bpf_sock) -> [u32; 4];
    /// The same as bytes.
    #[inline(always)]
    fn read(sk: *mut bpf_sock) -> [u8; 16] {
        bytes(Self::words(sk))
    }
}

impl BoundFamily for V4 {
    #[inline(always)]
    fn words(sk: *mut bpf_sock) -> [u32; 4] {
        // SAFETY: the context is valid for as long as the program runs.
        [0, 0, MAPPED, unsafe { addr_of_mut!((*sk).src_ip4).read_volatile() }]
    }
}

impl BoundFamily for V6 {
    #[inline(always)]
    fn words(sk: *mut bpf_sock) -> [u32; 4] {
        // SAFETY: as above.
        unsafe {
            [
                addr_of_mut!((*sk).src_ip6[0]).read_volatile(),
                addr_of_mut!((*sk).src_ip6[1]).read_volatile(),
                addr_of_mut!((*sk).src_ip6[2]).read_volatile(),
                addr_of_mut!((*sk).src_ip6[3]).read_volatile(),
            ]
        }
    }
}

/// The port that a socket is bound to, network byte order.
#[inline(always)]
pub fn bound_port(ctx: &SockContext) -> u16 {
    // SAFETY: as above; the field is in host byte order.
    unsafe { (addr_of_mut!((*ctx.sock).src_port).read_volatile() as u16).to_be() }
}

/// The IANA protocol number of a bound socket.
#[inline(always)]
pub fn bound_protocol(ctx: &SockContext) -> u8 {
    // SAFETY: as above.
    unsafe { addr_of_mut!((*ctx.sock).protocol).read_volatile() as u8 }
}
