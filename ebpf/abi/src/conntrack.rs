//! The flows of the packet path: what is remembered of each, how one is opened, when it is over.
//!
//! Addresses are translated where the kernel's own NAT does it, destinations before routing and sources after it, so
//! routing, filters, path MTU and the kernel's conntrack see one consistent flow from the client to the backend:
//!
//! ```text
//! client → frontend  ──ingress──►  client → backend  ──egress──►  node → backend      (the last if masqueraded)
//! client ← frontend  ◄──egress───  client ← backend  ◄──ingress──  node ← backend
//! ```
//!
//! Each arrow is an entry: [`Role::Forward`], [`Role::Masquerade`], [`Role::Unmasquerade`], [`Role::Reply`].
//!
//! The third column's key says that it is halfway ([`Tuple::halfway`]): another node that masquerades may send a packet
//! with these very addresses and ports straight to the backend, and that one is to stay as it is.

use crate::packet::{proto, signal};
use crate::{Addr, is_v4, same};

/// Key of `kpx_conntrack`: the addresses of a packet as it comes to a hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(4))]
pub struct Tuple {
    /// Source address, network byte order; IPv4 as `::ffff:a.b.c.d`.
    pub src: Addr,
    /// Destination address, network byte order.
    pub dst: Addr,
    /// Source port, network byte order.
    pub sport: u16,
    /// Destination port, network byte order.
    pub dport: u16,
    /// IANA protocol number.
    pub proto: u8,
    /// 1 of a packet that has been translated before routing and will be once more after it; 0 of any other, and of all
    /// before layout 4.
    pub halfway: u8,
    /// Zero.
    pub pad: [u8; 2],
}

impl Tuple {
    /// The same, of a packet between its two translations.
    #[inline(always)]
    #[must_use]
    pub const fn halfway(self) -> Self {
        Self { halfway: 1, ..self }
    }

    /// The same, of a packet as it comes.
    #[inline(always)]
    #[must_use]
    pub const fn plain(self) -> Self {
        Self { halfway: 0, ..self }
    }

    /// The tuple of a packet that answers. An answer is never halfway: its second translation finds it as it comes.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        let Self { src, dst, sport, dport, proto, .. } = *self;
        Self { src: dst, dst: src, sport: dport, dport: sport, proto, halfway: 0, pad: [0; 2] }
    }

    /// Whether it is of IPv4.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        is_v4(&self.src)
    }

    /// Whether both are the same; without a function call.
    #[inline(always)]
    pub const fn same(&self, other: &Self) -> bool {
        same(&self.src, &other.src)
            && same(&self.dst, &other.dst)
            && self.sport == other.sport
            && self.dport == other.dport
            && self.proto == other.proto
    }
}

/// What an entry of `kpx_conntrack` is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Role {
    /// A client's packet to a frontend becomes one to a backend.
    Forward = 1,
    /// A client's packet to a backend gets an address of the node as its source.
    Masquerade = 2,
    /// A backend's answer to that address becomes one to the client.
    Unmasquerade = 3,
    /// A backend's answer to a client comes from the frontend.
    Reply = 4,
    /// The kernel's rules have this flow: it is left to them.
    Left = 5,
    /// A client's packet that comes as the backend is to see it, since the node before has translated it ([`dsr`](crate::dsr)).
    /// It names the client's packet to the frontend, and nothing becomes of it.
    Plain = 6,
}

/// Where an entry applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Ingress,
    /// After routing.
    Egress,
}

/// Value of `kpx_conntrack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// What the packet becomes, and so the key of its second translation if there is one. Of [`Role::Masquerade`]: all
    /// zero until the first packet leaves by a device.
    pub to: Tuple,
    /// `CLOCK_MONOTONIC` nanoseconds of a packet within the last second of use ([`TOUCH_NS`]).
    pub last_ns: u64,
    /// Service id.
    pub service: u32,
    /// Backend id.
    pub backend: u32,
    /// A flow of the node's own sockets: the device (ifindex) that its packets were routed to; 0 of any other.
    pub device: u32,
    /// A [`Role`].
    pub role: u8,
    /// Bits of [`signal`] that packets of this direction have shown.
    pub seen: u8,
    /// A [`FlowState`].
    pub state: u8,
    /// Bits.
    pub options: u8,
}

/// What is done with the packets of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FlowState {
    /// They are translated.
    Translate = 0,
    /// They are somebody else's: untouched.
    Pass = 1,
    /// They are dropped until the flow is thawed: for flows that change hands and cannot be kept from the kernel's
    /// conntrack meanwhile.
    Frozen = 2,
}

impl FlowState {
    /// The state with this number; an unknown one harms nobody.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Translate,
            2 => Self::Frozen,
            _ => Self::Pass,
        }
    }
}

/// How stale [`Flow::last_ns`] may be, so that not every packet writes to memory that all processors read.
pub const TOUCH_NS: u64 = 1_000_000_000;

impl Flow {
    /// Its packets get the mark of [`Config::unseen`](crate::Config::unseen), in both directions.
    pub const UNSEEN: u8 = 1;
    /// Its backend sees an address of the node.
    pub const MASQUERADED: u8 = 1 << 1;
    /// Of [`Role::Reply`]: the backend has a flow of this client and port already that goes without a Service, so its
    /// packets are no answers to ours.
    pub const TAKEN: u8 = 1 << 2;
    /// The backend's node answers the client itself: the answers are not seen here.
    pub const DSR: u8 = 1 << 3;
    /// Another node has received the flow, and announced it to this one, which answers.
    pub const ANNOUNCED: u8 = 1 << 4;
    /// Of [`Role::Forward`]: it has changed hands, and none of its packets has been seen since.
    pub const CHANGED_HANDS: u8 = 1 << 5;

    /// Whether an option is set.
    #[inline(always)]
    pub const fn has(&self, option: u8) -> bool {
        self.options & option != 0
    }

    /// Whether a packet with these signals cannot belong to it: TCP's first answer is one to the SYN, or a reset. What else
    /// comes from there is of a flow that goes without a Service.
    #[inline(always)]
    pub const fn is_strange(&self, protocol: u8, signals: u8) -> bool {
        self.role == REPLY
            && protocol == proto::TCP
            && (self.has(Self::TAKEN) || self.seen == 0 && signals & (signal::ANSWERS | signal::RESETS) == 0)
    }

    /// Where it applies. The node's own packets are first met after routing, and their answers have to be what the
    /// socket expects before they are delivered: they go the other way round.
    #[inline(always)]
    pub const fn hook(&self) -> Option<Hook> {
        let own = self.device != 0;
        match (self.role, own) {
            (FORWARD, false) | (UNMASQUERADE, _) | (REPLY, true) => Some(Hook::Ingress),
            (FORWARD, true) | (MASQUERADE, _) | (REPLY, false) => Some(Hook::Egress),
            _ => None,
        }
    }

    /// Whether a source is still to be chosen.
    #[inline(always)]
    pub const fn undecided(&self) -> bool {
        self.role == MASQUERADE && self.to.proto == 0
    }
}

const FORWARD: u8 = Role::Forward as u8;
const MASQUERADE: u8 = Role::Masquerade as u8;
const UNMASQUERADE: u8 = Role::Unmasquerade as u8;
const REPLY: u8 = Role::Reply as u8;
#[cfg(any(test, feature = "user"))]
const PLAIN: u8 = Role::Plain as u8;

/// How flows are remembered; the kernel's hash, or an ordinary collection.
pub trait Flows {
    /// A flow.
    fn get(&self, key: &Tuple) -> Option<&Flow>;
    /// Adds one, whatever there is.
    fn put(&mut self, key: &Tuple, flow: &Flow) -> Result<(), Full>;
    /// Adds one where none is; false if there is one.
    fn add(&mut self, key: &Tuple, flow: &Flow) -> Result<bool, Full>;
    /// Forgets one.
    fn forget(&mut self, key: &Tuple);
    /// A number, evenly distributed.
    fn random(&mut self) -> u32;
}

/// There is no room for another flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Why a flow could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No room.
    Full,
    /// Every source port tried is in use.
    NoPort,
}

impl From<Full> for Failure {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

/// Source ports to choose from, first and last, host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// First.
    pub first: u16,
    /// Last.
    pub last: u16,
}

impl PortRange {
    /// The port for a random number, network byte order.
    #[inline(always)]
    pub const fn pick(&self, random: u32) -> u16 {
        let size = (self.last as u64 + 1).saturating_sub(self.first as u64);
        let offset = ((random as u64 * size) >> 32) as u16;
        (self.first + offset).to_be()
    }

    /// The port after this one, both in network byte order; after the last comes the first.
    #[inline(always)]
    const fn after(self, port: u16) -> u16 {
        let port = u16::from_be(port);
        if port < self.first || port >= self.last { self.first.to_be() } else { (port + 1).to_be() }
    }

    /// The port for the n-th try, after this one: at random first, then one after the other, so that of few ports none
    /// is missed.
    #[inline(always)]
    fn next<F: Flows>(self, flows: &mut F, n: u32, port: u16) -> u16 {
        if n < TRIES / 2 { self.pick(flows.random()) } else { self.after(port) }
    }
}

/// How many source ports are tried before a flow is given up: even with nine ports of ten in use, one of six flows fails.
pub const TRIES: u32 = 16;

/// What a new flow is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Opening {
    /// The client's packet: from the client to the frontend.
    pub request: Tuple,
    /// Address of the backend, network byte order.
    pub backend_addr: Addr,
    /// Port of the backend, network byte order.
    pub backend_port: u16,
    /// Whether the backend shall see an address of the node.
    pub masquerade: bool,
    /// Whether the client may use its port for a flow straight to the backend, so that this one needs another.
    pub apart: bool,
    /// Service id.
    pub service: u32,
    /// Backend id.
    pub backend: u32,
    /// The device of a flow of the node's own; 0 of any other.
    pub device: u32,
    /// What else its entries are: [`Flow::DSR`] or [`Flow::ANNOUNCED`].
    pub options: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// Room to build entries in: the kernel's stack is too small for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Room {
    /// A key.
    pub key: Tuple,
    /// An entry.
    pub flow: Flow,
}

/// Opens a flow; `to` becomes what its packets are.
///
/// The answer's entry is there before the request's, so no packet goes whose answer would not be understood. Two flows
/// of one client with one port to one backend (by way of two frontends, or of none) would have the same answers: the second
/// gets another source port. A flow to be masqueraded gets one of the node's anyway: what it is between the two hooks
/// would be a flow straight to the backend otherwise.
#[inline(always)]
pub fn open<F: Flows>(
    flows: &mut F,
    opening: &Opening,
    ports: PortRange,
    now_ns: u64,
    room: &mut Room,
    to: &mut Tuple,
) -> Result<(), Failure> {
    *to = opening.request;
    to.dst = opening.backend_addr;
    to.dport = opening.backend_port;
    room.flow.to = opening.request.reversed();
    room.flow.last_ns = now_ns;
    room.flow.service = opening.service;
    room.flow.backend = opening.backend;
    room.flow.device = opening.device;
    room.flow.role = REPLY;
    room.flow.seen = 0;
    room.flow.state = FlowState::Translate as u8;
    let masquerade = opening.masquerade && opening.device == 0;
    room.flow.options = opening.options | if masquerade { Flow::MASQUERADED } else { 0 };
    if masquerade || opening.apart {
        to.sport = ports.pick(flows.random());
    }
    let mut found = false;
    for n in 0..TRIES {
        room.key = to.reversed();
        if flows.add(&room.key, &room.flow)? {
            found = true;
            break;
        }
        if flows.get(&room.key).is_none_or(|other| free(other, &room.flow.to)) {
            flows.put(&room.key, &room.flow)?;
            found = true;
            break;
        }
        to.sport = ports.next(flows, n, to.sport);
    }
    if !found {
        return Err(Failure::NoPort);
    }
    room.key = *to;
    room.key.halfway = 1;
    if masquerade {
        room.flow.to = Tuple { src: [0; 16], dst: [0; 16], sport: 0, dport: 0, proto: 0, halfway: 0, pad: [0; 2] };
        room.flow.role = MASQUERADE;
        flows.put(&room.key, &room.flow)?;
    } else if flows.get(&room.key).is_some() {
        // What a former flow with these addresses left.
        flows.forget(&room.key);
    }
    room.flow.to = *to;
    room.flow.to.halfway = u8::from(masquerade);
    room.flow.role = FORWARD;
    room.flow.seen = signal::OPENS;
    flows.put(&opening.request, &room.flow)?;
    Ok(())
}

/// Whether an entry makes room for the answers of a flow that become these: it is a former flow of this very client and
/// frontend, or one that is over.
#[inline(always)]
pub(crate) const fn free(other: &Flow, answer: &Tuple) -> bool {
    other.role == REPLY && !other.has(Flow::TAKEN) && (other.to.same(answer) || other.seen & ENDS != 0)
}

/// Chooses the source of a flow whose first packet leaves by a device with this address; `to` becomes what its packets
/// are. `key` is that of the packet's entry.
#[inline(always)]
pub fn masquerade<F: Flows>(
    flows: &mut F,
    key: &Tuple,
    addr: &Addr,
    ports: PortRange,
    now_ns: u64,
    room: &mut Room,
    to: &mut Tuple,
) -> Result<(), Failure> {
    let Some(flow) = flows.get(key) else { return Err(Failure::Full) };
    room.flow = *flow;
    room.flow.to = key.reversed();
    room.flow.last_ns = now_ns;
    room.flow.role = UNMASQUERADE;
    room.flow.seen = 0;
    *to = *key;
    to.halfway = 0;
    to.src = *addr;
    to.sport = ports.pick(flows.random());
    let mut found = false;
    for n in 0..TRIES {
        room.key = to.reversed();
        if flows.add(&room.key, &room.flow)? {
            found = true;
            break;
        }
        to.sport = ports.next(flows, n, to.sport);
    }
    if !found {
        return Err(Failure::NoPort);
    }
    room.flow.to = *to;
    room.flow.role = MASQUERADE;
    flows.put(key, &room.flow)?;
    Ok(())
}

/// Signals after which a direction carries nothing new.
const ENDS: u8 = signal::FINISHES | signal::RESETS;

/// Whether a packet that opens a flow may take the place of one with the same addresses.
///
/// A client uses a port again only when it has nothing left of the flow before, and a frontend's flow that
/// ended on either side is over for it.
#[inline(always)]
pub const fn replaceable(request_seen: u8, reply_seen: u8) -> bool {
    (request_seen | reply_seen) & ENDS != 0
}

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not answered yet.
    Opening,
    /// Answered.
    Established,
    /// One side has finished, and the other may go on for as long as it likes.
    HalfClosed,
    /// Both sides have finished.
    Closing,
    /// Reset.
    Closed,
}

/// The stage, from what both directions have shown.
#[inline(always)]
pub const fn stage(request_seen: u8, reply_seen: u8) -> Stage {
    let both = request_seen | reply_seen;
    if both & signal::RESETS != 0 {
        Stage::Closed
    } else if request_seen & reply_seen & signal::FINISHES != 0 {
        Stage::Closing
    } else if both & signal::FINISHES != 0 {
        Stage::HalfClosed
    } else if reply_seen != 0 || request_seen & signal::CARRIES != 0 {
        Stage::Established
    } else {
        Stage::Opening
    }
}

/// How long flows are kept after their last packet, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP and SCTP before an answer.
    pub opening: u64,
    /// TCP, answered.
    pub tcp: u64,
    /// TCP whose answers are not seen: nor is a reset among them.
    pub direct_tcp: u64,
    /// SCTP, answered: heartbeats come every 30 s.
    pub sctp: u64,
    /// TCP once one side has finished: the kernel's CLOSE_WAIT, or FIN_WAIT where that is longer. What tells the two apart is
    /// the acknowledgement, which nobody here looks at.
    pub half_closed: u64,
    /// TCP once both sides have finished, SCTP once one has.
    pub closing: u64,
    /// After a reset.
    pub closed: u64,
    /// Datagrams before an answer.
    pub udp: u64,
    /// Datagrams, answered.
    pub udp_answered: u64,
}

impl Default for Timeouts {
    /// Those of the kernel's conntrack (Linux 6.18, `net.netfilter.nf_conntrack_*`), so no flow ends earlier than under
    /// kube-proxy; but for TCP whose answers are not seen.
    fn default() -> Self {
        Self {
            opening: 60,
            tcp: 432_000,
            direct_tcp: 21_600,
            sctp: 210,
            half_closed: 120,
            closing: 120,
            closed: 10,
            udp: 30,
            udp_answered: 120,
        }
    }
}

impl Timeouts {
    /// How long a flow of this protocol is kept at this stage, nanoseconds.
    pub const fn limit_ns(&self, protocol: u8, stage: Stage) -> u64 {
        let seconds = match (protocol, stage) {
            (proto::UDP, Stage::Opening) => self.udp,
            (proto::UDP, _) => self.udp_answered,
            (_, Stage::Opening) => self.opening,
            (proto::SCTP, Stage::Established) => self.sctp,
            (_, Stage::Established) => self.tcp,
            (proto::TCP, Stage::HalfClosed) => self.half_closed,
            (_, Stage::HalfClosed | Stage::Closing) => self.closing,
            (_, Stage::Closed) => self.closed,
        };
        seconds.saturating_mul(1_000_000_000).saturating_add(TOUCH_NS)
    }

    /// The same, given the entry's options: where answers are not seen, no answer does not mean that there was none.
    pub const fn limit_of(&self, protocol: u8, options: u8, stage: Stage) -> u64 {
        let unseen = options & Flow::DSR != 0;
        match (protocol, stage) {
            (proto::UDP, Stage::Opening) if unseen => self.limit_ns(protocol, Stage::Established),
            (proto::TCP, Stage::Established) if unseen => {
                self.direct_tcp.saturating_mul(1_000_000_000).saturating_add(TOUCH_NS)
            }
            _ => self.limit_ns(protocol, stage),
        }
    }
}

/// The entry that masquerades what has such answers, and its key.
#[cfg(any(test, feature = "user"))]
pub fn masquerade_of<F>(answer: &Tuple, mut get: impl FnMut(&Tuple) -> Option<F>) -> Option<(Tuple, F)> {
    // Layout 3 did not tell halves of the way apart.
    [answer.reversed().halfway(), answer.reversed()].into_iter().find_map(|key| Some((key, get(&key)?)))
}

/// The entries whose flow is over by this time.
///
/// A flow's age is that of its younger direction. Entries that a flow's end or a race has left alone are over
/// as soon as an unanswered flow would be.
#[cfg(any(test, feature = "user"))]
pub fn expired<S: std::hash::BuildHasher>(
    entries: &std::collections::HashMap<Tuple, Flow, S>,
    timeouts: &Timeouts,
    now_ns: u64,
) -> std::vec::Vec<Tuple> {
    let idle = |last_ns: u64| now_ns.saturating_sub(last_ns);
    // The two entries that every packet of a flow touches: the request's and the answer's.
    let pair_is_over = |request: (&Tuple, &Flow), reply: (&Tuple, &Flow)| {
        let limit = timeouts.limit_of(request.0.proto, request.1.options, stage(request.1.seen, reply.1.seen));
        idle(request.1.last_ns.max(reply.1.last_ns)) > limit
    };
    let alone = |key: &Tuple, flow: &Flow| idle(flow.last_ns) > timeouts.limit_ns(key.proto, Stage::Opening);
    let answer_is_over = |key: &Tuple, flow: &Flow| {
        let request = flow.to.reversed();
        match entries.get(&request) {
            Some(other) if other.role == FORWARD && other.to.reversed() == *key => {
                pair_is_over((&request, other), (key, flow))
            }
            _ => alone(key, flow),
        }
    };
    let over = |key: &Tuple, flow: &Flow| match flow.role {
        FORWARD => {
            let reply = flow.to.reversed();
            match entries.get(&reply) {
                Some(other) if other.to.reversed() == *key => pair_is_over((key, flow), (&reply, other)),
                _ => alone(key, flow),
            }
        }
        REPLY => answer_is_over(key, flow),
        MASQUERADE | UNMASQUERADE | PLAIN => {
            let reply = if flow.role == UNMASQUERADE { flow.to } else { key.reversed() };
            // One of several sources that a race has chosen: the others are never used again.
            let forgotten = flow.role == UNMASQUERADE
                && masquerade_of(&flow.to, |key| entries.get(key))
                    .is_none_or(|(_, chosen)| chosen.to.reversed() != *key);
            match entries.get(&reply) {
                Some(other) if other.role == REPLY && !forgotten => answer_is_over(&reply, other),
                _ => alone(key, flow),
            }
        }
        _ => idle(flow.last_ns) > timeouts.limit_ns(key.proto, Stage::Established),
    };
    entries.iter().filter(|(key, flow)| over(key, flow)).map(|(key, _)| *key).collect()
}
