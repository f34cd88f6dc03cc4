//! The hooks, and the order in which they are attached.

use std::path::Path;

use aya::programs::links::FdLink;
use aya::programs::{
    CgroupAttachMode, CgroupSock, CgroupSockAddr, CgroupSockAddrAttachType as OnCall, CgroupSockAttachType as OnSocket,
    Program, ProgramError,
};

use super::error::DataplaneError;

/// One program and its hook.
#[derive(Debug)]
pub(super) struct Hook {
    /// Name of the program, and of its pins.
    pub(super) program: &'static str,
    /// Its hook, for aya.
    attach: Attach,
    /// `enum bpf_attach_type`.
    pub(super) number: u32,
    /// What to call the hook.
    pub(super) feature: &'static str,
    /// The first Linux with it.
    pub(super) since: &'static str,
}

/// A hook, by the kind of program that it takes.
#[derive(Clone, Copy, Debug)]
enum Attach {
    /// It sees the address of a call.
    Call(OnCall),
    /// It sees the socket.
    Socket(OnSocket),
}

use Attach::{Call, Socket};

const fn hook(program: &'static str, attach: Attach, number: u32, feature: &'static str, since: &'static str) -> Hook {
    Hook { program, attach, number, feature, since }
}

/// In the order of attaching: what restores an address first, what translates last, so that at no moment an address is
/// translated that would not be restored. Detaching goes backwards.
pub(super) const HOOKS: [Hook; 10] = [
    hook("kpx_recvmsg4", Call(OnCall::UDPRecvMsg4), 19, "the recvmsg4 hook", "5.2"),
    hook("kpx_recvmsg6", Call(OnCall::UDPRecvMsg6), 20, "the recvmsg6 hook", "5.2"),
    hook("kpx_getpeer4", Call(OnCall::GetPeerName4), 29, "the getpeername4 hook", "5.8"),
    hook("kpx_getpeer6", Call(OnCall::GetPeerName6), 30, "the getpeername6 hook", "5.8"),
    hook("kpx_sendmsg4", Call(OnCall::UDPSendMsg4), 14, "the sendmsg4 hook", "4.18"),
    hook("kpx_sendmsg6", Call(OnCall::UDPSendMsg6), 15, "the sendmsg6 hook", "4.18"),
    hook("kpx_connect4", Call(OnCall::Connect4), 10, "the connect4 hook", "4.17"),
    hook("kpx_connect6", Call(OnCall::Connect6), 11, "the connect6 hook", "4.17"),
    hook("kpx_bind4", Socket(OnSocket::PostBind4), 12, "the post_bind4 hook", "4.17"),
    hook("kpx_bind6", Socket(OnSocket::PostBind6), 13, "the post_bind6 hook", "4.17"),
];

impl Hook {
    /// Loads its program and pins it.
    pub(super) fn load(&self, program: &mut Program, path: &Path) -> Result<(), DataplaneError> {
        let failed = |error| DataplaneError::of_program(self, error);
        let pin = |result: Result<(), _>| {
            result.map_err(|source| DataplaneError::Pin { path: path.to_owned(), source: Box::new(source) })
        };
        match self.attach {
            Call(_) => {
                let program: &mut CgroupSockAddr = program.try_into().map_err(failed)?;
                program.load().map_err(failed)?;
                pin(program.pin(path))
            }
            Socket(_) => {
                let program: &mut CgroupSock = program.try_into().map_err(failed)?;
                program.load().map_err(failed)?;
                pin(program.pin(path))
            }
        }
    }

    /// Loads its program only.
    pub(super) fn verify(&self, program: &mut Program) -> Result<(), DataplaneError> {
        let failed = |error| DataplaneError::of_program(self, error);
        match self.attach {
            Call(_) => <&mut CgroupSockAddr>::try_from(program).and_then(CgroupSockAddr::load),
            Socket(_) => <&mut CgroupSock>::try_from(program).and_then(CgroupSock::load),
        }
        .map_err(failed)
    }

    /// Attaches its pinned program to a cgroup.
    ///
    /// Before Linux 5.7 there are no links; what was attached instead goes away with the descriptor.
    pub(super) fn attach(&self, path: &Path, cgroup: fs_err::File) -> Result<FdLink, DataplaneError> {
        let opened =
            |source| DataplaneError::Program { action: "open", program: self.program, source: Box::new(source) };
        let failed = |error: ProgramError| DataplaneError::of_attach(self, error);
        let no_links = |_| DataplaneError::no_links(std::io::ErrorKind::Unsupported.into());
        match self.attach {
            Call(attach) => {
                let mut program = CgroupSockAddr::from_pin(path, attach).map_err(opened)?;
                let id = program.attach(cgroup, CgroupAttachMode::Single).map_err(failed)?;
                FdLink::try_from(program.take_link(id).map_err(failed)?).map_err(no_links)
            }
            Socket(attach) => {
                let mut program = CgroupSock::from_pin(path, attach).map_err(opened)?;
                let id = program.attach(cgroup, CgroupAttachMode::Single).map_err(failed)?;
                FdLink::try_from(program.take_link(id).map_err(failed)?).map_err(no_links)
            }
        }
    }
}
