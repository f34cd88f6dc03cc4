//! One program for each attach type.

use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};

use crate::address::{V4, V6};
use crate::{bind, connect, datagram, restore};

/// Return value of a hook: go on.
pub const PROCEED: i32 = 1;
/// Return value of a hook: fail the call, with EPERM unless `bpf_set_retval` says otherwise.
pub const REFUSE: i32 = 0;

macro_rules! hooks {
    ($($name:ident: $attach:ident => $run:expr;)+) => {
        $(
            #[cgroup_sock_addr($attach)]
            pub fn $name(ctx: SockAddrContext) -> i32 {
                $run(&ctx)
            }
        )+
    };
}

hooks! {
    kpx_connect4: connect4 => connect::run::<V4>;
    kpx_connect6: connect6 => connect::run::<V6>;
    kpx_sendmsg4: sendmsg4 => datagram::run::<V4>;
    kpx_sendmsg6: sendmsg6 => datagram::run::<V6>;
    kpx_recvmsg4: recvmsg4 => restore::source::<V4>;
    kpx_recvmsg6: recvmsg6 => restore::source::<V6>;
    kpx_getpeer4: getpeername4 => restore::peer::<V4>;
    kpx_getpeer6: getpeername6 => restore::peer::<V6>;
}

#[cgroup_sock(post_bind4)]
pub fn kpx_bind4(ctx: SockContext) -> i32 {
    bind::run::<V4>(&ctx)
}

#[cgroup_sock(post_bind6)]
pub fn kpx_bind6(ctx: SockContext) -> i32 {
    bind::run::<V6>(&ctx)
}
