//! bind(): a port of the node that is a NodePort is taken.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_set_retval};
use aya_ebpf::programs::SockContext;
use kpx_abi::{Addr, AddressFlags, FrontendKey, Maps as _, Mode, Options, Reason, owner, unspecified};

use crate::address::{BoundFamily, bound_port, bound_protocol};
use crate::client::node_netns;
use crate::event::of_bind;
use crate::hooks::{PROCEED, REFUSE};
use crate::maps::{Kernel, count, have_set_retval, settings};

const EADDRINUSE: i32 = 98;

/// Refuses with EADDRINUSE (before Linux 5.18: EPERM) what would never get a packet: the dataplane takes those of NodePorts
/// first.
///
/// While kube-proxy's rules stand, nothing is refused: so it is with rules, and kube-proxies of old bind NodePorts themselves.
#[inline(always)]
pub fn run<F: BoundFamily>(ctx: &SockContext) -> i32 {
    let settings = settings();
    if settings.mode != Mode::Active || !settings.options.has(Options::RULES_GONE) {
        return PROCEED;
    }
    // SAFETY: the context is valid for as long as the program runs.
    if unsafe { bpf_get_netns_cookie(ctx.as_ptr()) } != node_netns(&settings) {
        return PROCEED;
    }
    let addr = F::read(ctx.sock);
    let (port, proto) = (bound_port(ctx), bound_protocol(ctx));
    let wildcard = unspecified(&addr);
    let any = kpx_abi::same(&addr, &wildcard);
    if !any && !Kernel.address(&owner(&addr)).has(AddressFlags::NODEPORT) {
        return PROCEED;
    }
    let taken = |family: Addr| Kernel.entry(&FrontendKey::new(family, port, proto)).is_some();
    // A socket bound to any IPv6 address has the port of IPv4 too, unless it said otherwise, which cannot be seen here.
    if taken(wildcard) || any && taken(V4_ANY) {
        if have_set_retval() {
            // SAFETY: a helper without conditions.
            unsafe { bpf_set_retval(-EADDRINUSE) };
        }
        count(Reason::BindRefused);
        of_bind::<F>(ctx.sock);
        return REFUSE;
    }
    PROCEED
}

/// Any IPv4 address.
const V4_ANY: Addr = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];
