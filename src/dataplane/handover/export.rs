//! What a flow of the packet path is to the kernel.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

use kpx_abi::packet::proto;
use kpx_abi::{Flow, FlowState, Role, Stage, Timeouts, Tuple, stage};

use super::super::FlowId;
use super::super::reconcile;
use crate::inspect::conntrack::Tuple as Ends;

/// Why a flow stays with the packet path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kept {
    /// It is of a socket of the node itself, whose packets meet the kernel's NAT before any program.
    OwnSocket,
    /// No packet of it has left yet.
    NotBegun,
    /// It has ended.
    Ended,
    /// Its answers go straight to the client from another node, or have come so: the kernel would see one direction only.
    OneDirection,
    /// SCTP's verification tags, which the kernel asks for, are not known.
    Tags,
    /// The kernel refused it, with this error number.
    Refused(i32),
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnSocket => f.pad("of a socket of the node"),
            Self::NotBegun => f.pad("no packet of it has left yet"),
            Self::Ended => f.pad("ended"),
            Self::OneDirection => f.pad("answered by the backend's node"),
            Self::Tags => f.pad("its SCTP verification tags are not known"),
            Self::Refused(number) => write!(f, "refused: {}", std::io::Error::from_raw_os_error(*number)),
        }
    }
}

/// A flow to be the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Export {
    pub(super) id: FlowId,
    /// What its packets are to the stack now.
    pub(super) translated: Ends,
    /// The backend.
    pub(super) backend: SocketAddr,
    /// What the backend sees, where that is not the client's address and port.
    pub(super) source: Option<SocketAddr>,
    /// How far it has come.
    pub(super) stage: Stage,
    /// Seconds until it is forgotten if nothing more comes.
    pub(super) timeout: u32,
}

impl Export {
    /// Whether packets have come since it was `earlier`.
    pub(super) fn has_moved_on(&self, earlier: &Self) -> bool {
        self.id == earlier.id && (self.stage != earlier.stage || self.timeout > earlier.timeout)
    }
}

fn at(addr: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(reconcile::ip(addr), u16::from_be(port))
}

/// The flows of Services that `wanted` picks, and those of them that stay.
pub(super) fn export(
    flows: &HashMap<Tuple, Flow>,
    now_ns: u64,
    wanted: impl Fn(&FlowId, FlowState) -> bool,
) -> (Vec<Export>, Vec<(FlowId, Kept)>) {
    let (mut given, mut kept) = (Vec::new(), Vec::new());
    for (request, flow) in flows {
        let ours = flow.role == Role::Forward as u8 && flow.service != 0;
        let id = FlowId {
            protocol: request.proto,
            client: at(request.src, request.sport),
            frontend: at(request.dst, request.dport),
        };
        if !ours || !wanted(&id, FlowState::from_number(flow.state)) {
            continue;
        }
        match one(flows, id, request, flow, now_ns) {
            Ok(flow) => given.push(flow),
            Err(reason) => kept.push((id, reason)),
        }
    }
    (given, kept)
}

fn one(flows: &HashMap<Tuple, Flow>, id: FlowId, request: &Tuple, flow: &Flow, now_ns: u64) -> Result<Export, Kept> {
    if flow.device != 0 {
        return Err(Kept::OwnSocket);
    }
    if request.proto == proto::SCTP {
        return Err(Kept::Tags);
    }
    if flow.has(Flow::DSR) || flow.has(Flow::ANNOUNCED) {
        return Err(Kept::OneDirection);
    }
    let between = flow.to;
    let arrives = match flows.get(&between) {
        Some(masquerade) if masquerade.undecided() => return Err(Kept::NotBegun),
        Some(masquerade) if masquerade.role == Role::Masquerade as u8 => masquerade.to,
        _ => between,
    };
    let reply = flows.get(&between.reversed());
    let stage = stage(flow.seen, reply.map_or(0, |reply| reply.seen));
    if stage == Stage::Closed {
        return Err(Kept::Ended);
    }
    let last = reply.map_or(0, |reply| reply.last_ns).max(flow.last_ns);
    let remains = Timeouts::default().limit_ns(request.proto, stage).saturating_sub(now_ns.saturating_sub(last));
    let source = at(arrives.src, arrives.sport);
    Ok(Export {
        id,
        translated: Ends { source: at(between.src, between.sport), destination: at(between.dst, between.dport) },
        backend: at(arrives.dst, arrives.dport),
        source: (source != id.client).then_some(source),
        stage,
        timeout: u32::try_from(remains / 1_000_000_000).unwrap_or(u32::MAX).max(1),
    })
}
