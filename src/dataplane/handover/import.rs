//! What an entry of the kernel's conntrack becomes in the packet path's table.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;

use kpx_abi::packet::{proto, signal};
use kpx_abi::{
    Addr, AddressFlags, Config, Flow, FlowState, FrontendKey, PortRange, Role, TOUCH_NS, Timeouts, Tuple, stage,
    unspecified,
};

use super::super::FlowId;
use super::super::reconcile::{Endpoint, Image};
use crate::inspect::conntrack::{Entry, Status, Translator};
use crate::inspect::ipvs::Connection;

/// Why a flow to a Service stays with the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unfit {
    /// Neither TCP nor UDP nor SCTP.
    Protocol,
    /// No frontend of the maps has this destination.
    NoService,
    /// Neither nf_nat nor IPVS translates it.
    OtherTranslator,
    /// It is in a zone of conntrack, whose tuples are others'.
    Zone,
    /// A helper reads along and changes what is said (FTP, SIP), or it was begun by such a flow.
    Helper,
    /// Its packets bypass the stack by a flowtable.
    Offloaded,
    /// Its ends have other addresses too (SCTP's multihoming).
    Multihomed,
    /// It is of a socket of the node itself, whose packets meet the kernel's NAT before any program.
    OwnSocket,
    /// Its backend is a socket of the node itself, whose answers meet the kernel's conntrack before any program.
    OwnBackend,
    /// It has ended.
    Ended,
    /// No port is free for it between the two hooks.
    NoPort,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Protocol => "neither TCP nor UDP nor SCTP",
            Self::NoService => "no Service has its destination",
            Self::OtherTranslator => "translated neither by nf_nat nor by IPVS",
            Self::Zone => "in a conntrack zone",
            Self::Helper => "a conntrack helper takes part",
            Self::Offloaded => "offloaded to a flowtable",
            Self::Multihomed => "an SCTP path of an association with several",
            Self::OwnSocket => "from sockets of the node itself",
            Self::OwnBackend => "to backends on the node itself",
            Self::Ended => "ended",
            Self::NoPort => "no port is free for it",
        })
    }
}

/// Status bits of flows that helpers have a part in, linux/netfilter/nf_conntrack_common.h.
const HELPED: [u32; 3] = [1, 1 << 6, 1 << 13];

/// How many ports are tried.
const TRIES: u16 = 64;

/// What the maps hold, as far as an import asks.
#[derive(Debug)]
pub(in crate::dataplane) struct Known {
    services: HashMap<FrontendKey, u32>,
    backends: HashMap<(u32, Endpoint), u32>,
    addresses: HashMap<Addr, AddressFlags>,
    ports: PortRange,
}

impl Known {
    pub(in crate::dataplane) fn new(image: &Image, addresses: HashMap<Addr, AddressFlags>, config: Config) -> Self {
        Self {
            services: image.entries().map(|frontend| (frontend.key, frontend.service)).collect(),
            backends: image.active().map(|(id, b)| ((b.service, (b.addr, b.port)), id)).collect(),
            addresses,
            ports: PortRange { first: config.snat_first, last: config.snat_last },
        }
    }

    fn has(&self, addr: &Addr, flag: AddressFlags) -> bool {
        self.addresses.get(addr).is_some_and(|flags| flags.has(flag))
    }

    /// The service that a packet to here is for.
    fn service(&self, (addr, port): Endpoint, protocol: u8) -> Option<u32> {
        let node_port = || {
            self.has(&addr, AddressFlags::NODEPORT)
                .then(|| self.services.get(&FrontendKey::new(unspecified(&addr), port, protocol)))
                .flatten()
        };
        self.services.get(&FrontendKey::new(addr, port, protocol)).or_else(node_port).copied()
    }
}

/// The flow of an entry, by its client.
pub(super) const fn id(entry: &Entry) -> FlowId {
    FlowId { protocol: entry.protocol, client: entry.original.source, frontend: entry.original.destination }
}

fn tuple(from: SocketAddr, to: SocketAddr, protocol: u8) -> Tuple {
    FlowId { protocol, client: from, frontend: to }.key()
}

/// Whether the kernel has seen packets of a flow between two looks at its entry.
pub(super) fn has_moved_on(then: &Entry, now: &Entry) -> bool {
    let same = (then.id, then.zone) == (now.id, now.zone);
    same && ((then.status, then.state) != (now.status, now.state) || now.timeout > then.timeout)
}

/// What both directions have shown, by the kernel's state.
pub(super) fn seen(entry: &Entry) -> Result<[u8; 2], Unfit> {
    use signal::{ANSWERS, CARRIES, FINISHES, OPENS};
    let answered = entry.status.has(Status::SEEN_REPLY) == Some(true);
    Ok(match (entry.protocol, entry.state) {
        (proto::UDP, _) => [OPENS, if answered { OPENS } else { 0 }],
        (_, Some("HEARTBEAT_SENT" | "HEARTBEAT_ACKED")) => return Err(Unfit::Multihomed),
        (_, Some("TIME_WAIT" | "CLOSE" | "CLOSED" | "SHUTDOWN_ACK_SENT")) => return Err(Unfit::Ended),
        (_, Some("SYN_SENT" | "SYN_SENT2" | "COOKIE_WAIT")) => [OPENS, 0],
        (_, Some("SYN_RECV" | "COOKIE_ECHOED")) => [OPENS, ANSWERS],
        (_, Some("LAST_ACK")) => [OPENS | CARRIES | FINISHES, ANSWERS | CARRIES | FINISHES],
        (_, Some("FIN_WAIT" | "CLOSE_WAIT" | "SHUTDOWN_SENT" | "SHUTDOWN_RECD")) => {
            [OPENS | CARRIES | FINISHES, ANSWERS | CARRIES]
        }
        _ => [OPENS | CARRIES, ANSWERS | CARRIES],
    })
}

/// Entries of one flow, in the order in which they are to be written: what packets of the kernel's translation never meet
/// comes first.
pub(super) type Part = Vec<(Tuple, Flow)>;

/// Flows with their entries, and what stays with the kernel.
pub(super) type Imported = (Vec<(FlowId, Part)>, Vec<(Entry, Unfit)>);

/// A connection of IPVS: protocol, client, what it asked for, and the server.
pub(super) type Carried = (u8, SocketAddr, SocketAddr, SocketAddr);

/// What IPVS translates.
pub(super) fn carried(ipvs: &[Connection]) -> HashSet<Carried> {
    let own = ipvs.iter().filter(|connection| !connection.is_template());
    own.map(|c| (c.protocol.number(), c.client, c.virtual_address, c.server)).collect()
}

/// Flows as entries of the packet path's table: the same backend, the same source towards it, both directions, unseen by
/// the kernel's conntrack; and the flows to Services that it has to keep. Entries without another destination are looked
/// at only for the ports that they have; `mine` is what the table holds, `ipvs` what IPVS translates.
pub(super) fn import(
    entries: &[Entry],
    ipvs: &[Connection],
    known: &Known,
    mine: &HashMap<Tuple, Flow>,
    now_ns: u64,
) -> Imported {
    let carried = carried(ipvs);
    // What is between the two hooks already, there and back.
    let direct = entries.iter().filter(|e| !e.is_to_backend());
    let mut used: HashSet<Tuple> =
        direct.map(|e| tuple(e.original.source, e.original.destination, e.protocol).reversed()).collect();
    used.extend(mine.iter().filter(|(_, flow)| flow.role == Role::Reply as u8).map(|(key, _)| *key));
    // What needs no port of its own takes none from what has to keep its.
    let (kept, free): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().filter(|e| e.is_to_backend()).partition(|e| e.original.source.ip() == e.reply.destination.ip());
    let (mut flows, mut left) = (Vec::new(), Vec::new());
    for entry in kept.into_iter().chain(free) {
        match one(entry, &carried, known, mine, &mut used, now_ns) {
            Ok(part) => flows.push((id(entry), part)),
            Err(reason) => left.push((*entry, reason)),
        }
    }
    (flows, left)
}

/// Whether it is known who translates, and where to: nf_nat, or IPVS, whose table has the server that conntrack's entry has.
/// The entry alone does not tell that somebody does.
fn is_translated(entry: &Entry, carried: &HashSet<Carried>) -> bool {
    let flow = (entry.protocol, entry.original.source, entry.original.destination, entry.reply.source);
    entry.translator() == Some(Translator::Netfilter) || carried.contains(&flow)
}

fn one(
    entry: &Entry,
    carried: &HashSet<Carried>,
    known: &Known,
    mine: &HashMap<Tuple, Flow>,
    used: &mut HashSet<Tuple>,
    now_ns: u64,
) -> Result<Part, Unfit> {
    let refuse = |when: bool, reason| if when { Err(reason) } else { Ok(()) };
    refuse(entry.service_protocol().is_none(), Unfit::Protocol)?;
    refuse(!is_translated(entry, carried), Unfit::OtherTranslator)?;
    refuse(entry.zone != 0, Unfit::Zone)?;
    refuse(HELPED.iter().any(|bit| entry.status.has(*bit) == Some(true)), Unfit::Helper)?;
    refuse(entry.status.has(Status::OFFLOAD) == Some(true), Unfit::Offloaded)?;
    let request = id(entry).key();
    let service = known.service((request.dst, request.dport), request.proto).ok_or(Unfit::NoService)?;
    let arrives = tuple(entry.reply.destination, entry.reply.source, entry.protocol);
    // A socket of the node that connects to an address of ipvs mode's device has that very address.
    let own = known.has(&request.src, AddressFlags::LOCAL) || request.src == request.dst;
    refuse(own, Unfit::OwnSocket)?;
    refuse(known.has(&arrives.dst, AddressFlags::LOCAL), Unfit::OwnBackend)?;
    let seen = seen(entry)?;
    // An earlier import of the same flow has left its entries.
    let earlier = mine.get(&request).filter(|flow| flow.role == Role::Forward as u8).map(|flow| flow.to.plain());
    let masqueraded = arrives.src != request.src;
    let between = if masqueraded {
        between(&request, &arrives, earlier, known.ports, used).ok_or(Unfit::NoPort)?
    } else {
        arrives
    };
    used.insert(between.reversed());
    // A backend that serves no more is none: TCP keeps to it, datagrams choose again.
    let backend = known.backends.get(&(service, (arrives.dst, arrives.dport))).copied().unwrap_or(0);
    let limit = Timeouts::default().limit_ns(request.proto, stage(seen[0], seen[1]));
    let remains = entry.timeout.map_or(limit, |seconds| u64::from(seconds) * 1_000_000_000);
    let flow = |role: Role, to: Tuple, seen: u8| Flow {
        to,
        last_ns: now_ns.saturating_sub(limit.saturating_sub(remains)),
        service,
        backend,
        device: 0,
        role: role as u8,
        seen,
        state: FlowState::Translate as u8,
        options: Flow::UNSEEN | if masqueraded { Flow::MASQUERADED } else { 0 },
    };
    let mut part = Vec::new();
    part.push((between.reversed(), flow(Role::Reply, request.reversed(), seen[1])));
    if masqueraded {
        part.push((between.halfway(), flow(Role::Masquerade, arrives, seen[0])));
        part.push((arrives.reversed(), flow(Role::Unmasquerade, between.reversed(), seen[1])));
    }
    let to = if masqueraded { between.halfway() } else { between };
    let forward = flow(Role::Forward, to, seen[0]);
    part.push((request, Flow { options: forward.options | Flow::CHANGED_HANDS, ..forward }));
    Ok(part)
}

/// An entry with what its flow has shown since it was made, by a later look at the kernel's; `None` if that is nothing new.
pub(super) fn renewed(known: &Flow, latest: &Flow) -> Option<Flow> {
    let renewed = Flow { seen: known.seen | latest.seen, last_ns: known.last_ns.max(latest.last_ns), ..*known };
    let newer = renewed.seen != known.seen || renewed.last_ns > known.last_ns.saturating_add(TOUCH_NS);
    (newer && known.role == latest.role).then_some(renewed)
}

/// What a packet of a masqueraded flow is between the two hooks: what the kernel has it be, unless another has that.
fn between(
    request: &Tuple,
    arrives: &Tuple,
    earlier: Option<Tuple>,
    ports: PortRange,
    used: &HashSet<Tuple>,
) -> Option<Tuple> {
    let with = |sport: u16| Tuple { sport, dst: arrives.dst, dport: arrives.dport, ..*request };
    if let Some(earlier) = earlier.filter(|to| to.dst == arrives.dst && to.dport == arrives.dport) {
        return Some(earlier);
    }
    let spread = u32::from(u16::from_be(request.sport)).wrapping_mul(0x9e37_79b9);
    let further = (0..TRIES).map(|n| with(ports.pick(spread.wrapping_add(u32::from(n).wrapping_mul(0x0400_0001)))));
    std::iter::once(with(request.sport)).chain(further).find(|candidate| !used.contains(&candidate.reversed()))
}
