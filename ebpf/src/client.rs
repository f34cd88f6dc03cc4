//! Who sends: the other half of a request, as far as a socket can say it.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_ktime_get_ns};
use aya_ebpf::programs::SockAddrContext;
use kpx_abi::{FrontendKey, Options, Origin, Request, is_v4, stand_in};

use crate::maps::{Settings, client};

/// The request of a socket. Sockets have no port yet that a hash could be made of: the random number serves for it.
#[inline(always)]
pub fn request(ctx: &SockAddrContext, settings: &Settings, key: FrontendKey, random: u32) -> Request {
    // SAFETY: the context is valid for as long as the program runs.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let v4 = is_v4(&key.addr);
    let pods = if v4 { Options::PODS_V4 } else { Options::PODS_V6 };
    let origin = if netns == node_netns(settings) {
        Origin::Node
    } else if settings.options.has(pods) {
        Origin::Pod
    } else {
        Origin::Outside
    };
    let client = client(netns, v4).unwrap_or(stand_in(netns));
    // SAFETY: a helper without conditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    Request { key, origin, client, random, hash: random, now_ns }
}

/// The cookie of the node's network namespace: where user space could not tell it (before Linux 5.14), that of the
/// initial one.
#[inline(always)]
pub fn node_netns(settings: &Settings) -> u64 {
    if settings.node_netns != 0 {
        return settings.node_netns;
    }
    // SAFETY: no context is what asks for the initial namespace.
    unsafe { bpf_get_netns_cookie(core::ptr::null_mut()) }
}
