//! The hooks, and the order in which they are attached.

use aya::programs::CgroupSockAddrAttachType as Attach;

/// One program and its hook.
#[derive(Debug)]
pub(super) struct Hook {
    /// Name of the program, and of its pins.
    pub(super) program: &'static str,
    /// Its hook, for aya.
    pub(super) attach: Attach,
    /// `enum bpf_attach_type`.
    pub(super) number: u32,
    /// What to call the hook.
    pub(super) feature: &'static str,
    /// The first Linux with it.
    pub(super) since: &'static str,
}

const fn hook(program: &'static str, attach: Attach, number: u32, feature: &'static str, since: &'static str) -> Hook {
    Hook { program, attach, number, feature, since }
}

/// In the order of attaching: what restores an address first, what translates last, so that at no moment an address is
/// translated that would not be restored. Detaching goes backwards.
pub(super) const HOOKS: [Hook; 8] = [
    hook("kpx_recvmsg4", Attach::UDPRecvMsg4, 19, "the recvmsg4 hook", "5.2"),
    hook("kpx_recvmsg6", Attach::UDPRecvMsg6, 20, "the recvmsg6 hook", "5.2"),
    hook("kpx_getpeer4", Attach::GetPeerName4, 29, "the getpeername4 hook", "5.8"),
    hook("kpx_getpeer6", Attach::GetPeerName6, 30, "the getpeername6 hook", "5.8"),
    hook("kpx_sendmsg4", Attach::UDPSendMsg4, 14, "the sendmsg4 hook", "4.18"),
    hook("kpx_sendmsg6", Attach::UDPSendMsg6, 15, "the sendmsg6 hook", "4.18"),
    hook("kpx_connect4", Attach::Connect4, 10, "the connect4 hook", "4.17"),
    hook("kpx_connect6", Attach::Connect6, 11, "the connect6 hook", "4.17"),
];
