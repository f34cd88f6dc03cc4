//! The keys and values of the maps.

/// Version of the layout of all maps; a change to any type of this crate raises it.
pub const LAYOUT_VERSION: u32 = 1;

/// Names of the maps: at most 15 characters, the kernel's limit.
pub mod map_name {
    /// [`Config`](super::Config), one entry.
    pub const CONFIG: &str = "kpx_config";
    /// [`FrontendKey`](super::FrontendKey) → [`FrontendRef`](super::FrontendRef).
    pub const INDEX: &str = "kpx_index";
    /// [`Frontend`](super::Frontend) by entry number.
    pub const FRONTENDS: &str = "kpx_frontends";
    /// Backend ids; a list is a contiguous range.
    pub const SLOTS: &str = "kpx_slots";
    /// [`Backend`](super::Backend) by id.
    pub const BACKENDS: &str = "kpx_backends";
    /// [`Stats`](super::Stats) by service id.
    pub const STATS: &str = "kpx_stats";
    /// Counters by [`Reason`](super::Reason), per CPU.
    pub const REASONS: &str = "kpx_reasons";
    /// [`Peer`](super::Peer) by socket: connected sockets.
    pub const PEERS: &str = "kpx_peers";
    /// [`Socket`](crate::Socket) by socket: unconnected UDP.
    pub const SOCKETS: &str = "kpx_sockets";
    /// [`YieldKey`](super::YieldKey) → [`YieldUntil`](super::YieldUntil).
    pub const YIELD: &str = "kpx_yield";

    /// All of them, in the order in which they are created.
    pub const ALL: [&str; 10] = [CONFIG, INDEX, FRONTENDS, SLOTS, BACKENDS, STATS, REASONS, PEERS, SOCKETS, YIELD];
}

/// What the programs do with a packet of a Service that they could translate.
///
/// Stored as the `u32` [`Config::mode`]. All values fit one byte, so that a switch of mode changes one byte and no reader
/// can see anything but the old or the new mode, whatever the granularity of the kernel's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Mode {
    /// Nothing is looked up; replies of sockets translated earlier are still restored.
    Off = 0,
    /// Count what would be done, remember which UDP flows the kernel has, change nothing.
    Shadow = 1,
    /// Translate, except UDP flows that the kernel already carries.
    Active = 2,
    /// Translate only the datagrams of sockets whose flow is translated already; nothing new.
    Drain = 3,
}

impl Mode {
    /// All modes, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Off, Self::Shadow, Self::Active, Self::Drain];

    /// The mode with this number; an unknown number is [`Mode::Off`], which harms nobody.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Shadow,
            2 => Self::Active,
            3 => Self::Drain,
            _ => Self::Off,
        }
    }

    /// The lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Shadow => "shadow",
            Self::Active => "active",
            Self::Drain => "drain",
        }
    }
}

/// The one entry of `kpx_config`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// [`LAYOUT_VERSION`] of whoever made the maps.
    pub layout_version: u32,
    /// A [`Mode`].
    pub mode: u32,
    /// How long after its last datagram the kernel's conntrack keeps a UDP flow, nanoseconds (the larger of
    /// `nf_conntrack_udp_timeout` and `nf_conntrack_udp_timeout_stream`, and a margin).
    pub yield_ns: u64,
    /// Cookie of the node's own network namespace (`SO_NETNS_COOKIE`, Linux 5.14); 0 where unknown.
    pub node_netns: u64,
}

/// Key of `kpx_index`: where a packet is sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(4))]
pub struct FrontendKey {
    /// Address, network byte order; IPv4 as `::ffff:a.b.c.d`, so that one map serves both families and v4-mapped sockets.
    pub addr: [u8; 16],
    /// Port, network byte order.
    pub port: u16,
    /// IANA protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
}

impl FrontendKey {
    /// A key from a port in network byte order.
    #[inline(always)]
    pub const fn new(addr: [u8; 16], port: u16, proto: u8) -> Self {
        Self { addr, port, proto, pad: 0 }
    }
}

/// Value of `kpx_index`: the current entry of the frontend in `kpx_frontends`.
///
/// The hash holds nothing else, since the kernel may reuse the memory of a replaced hash element at once, under the eyes
/// of a reader. A reader holds a number at most, and the entry it names carries the key to check it by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FrontendRef {
    /// Entry in `kpx_frontends`; 0 is none.
    pub entry: u32,
}

/// A contiguous range of `kpx_slots`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct List {
    /// First slot.
    pub base: u32,
    /// Number of slots.
    pub count: u32,
}

/// How the Service is exposed at a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Exposure {
    /// `spec.clusterIPs`.
    ClusterIp = 0,
    /// A node port.
    NodePort = 1,
    /// A load balancer's address.
    LoadBalancer = 2,
    /// `spec.externalIPs`.
    ExternalIp = 3,
}

/// What a frontend asks for, as bits of [`Frontend::flags`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Flags(pub u32);

impl Flags {
    /// The two bits of an [`Exposure`].
    const EXPOSURE: u32 = 0b11;
    /// internalTrafficPolicy Local.
    pub const INTERNAL_LOCAL: Self = Self(1 << 2);
    /// externalTrafficPolicy Local.
    pub const EXTERNAL_LOCAL: Self = Self(1 << 3);
    /// An empty list means silence instead of a refusal.
    pub const EMPTY_DROPS: Self = Self(1 << 4);
    /// Clients that are no pods are masqueraded.
    pub const MASQUERADE_OFF_CLUSTER: Self = Self(1 << 5);

    /// These flags and the exposure.
    #[must_use]
    pub const fn with_exposure(self, exposure: Exposure) -> Self {
        Self(self.0 & !Self::EXPOSURE | exposure as u32)
    }

    /// The exposure.
    #[inline(always)]
    pub const fn exposure(self) -> Exposure {
        match self.0 & Self::EXPOSURE {
            1 => Exposure::NodePort,
            2 => Exposure::LoadBalancer,
            3 => Exposure::ExternalIp,
            _ => Exposure::ClusterIp,
        }
    }

    /// These flags and those of `other`, if `on`.
    #[must_use]
    pub const fn with(self, other: Self, on: bool) -> Self {
        if on { Self(self.0 | other.0) } else { self }
    }

    /// Whether all flags of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Value of `kpx_frontends`.
///
/// An entry never changes while the index names it, nor for a grace period afterwards: a change writes another entry and
/// then lets the index name that one, so that no reader meets a mix of two states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Frontend {
    /// The key that leads here, to check it by.
    pub key: FrontendKey,
    /// Service id: number of the counters in `kpx_stats`, the same for the frontend's whole life; 0 is none.
    pub service: u32,
    /// Backends for the Cluster policy; empty where no traffic uses it.
    pub cluster: List,
    /// Backends for the Local policy; empty where no traffic uses it.
    pub local: List,
    /// What the frontend asks for.
    pub flags: Flags,
    /// ClientIP affinity, seconds; 0: none.
    pub affinity: u32,
}

/// State of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BackendState {
    /// The id is free.
    Free = 0,
    /// Takes new flows and keeps its own.
    Active = 1,
    /// No list names it any more; flows choose again.
    Gone = 2,
}

/// Value of `kpx_backends`: an endpoint of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Backend {
    /// Address, network byte order; IPv4 as `::ffff:a.b.c.d`.
    pub addr: [u8; 16],
    /// Port, network byte order.
    pub port: u16,
    /// IANA protocol number.
    pub proto: u8,
    /// A [`BackendState`].
    pub state: u8,
    /// Service id of the frontend it belongs to, to check a slot by.
    pub service: u32,
}

impl Backend {
    /// Whether it takes flows of this service.
    #[inline(always)]
    pub const fn serves(&self, service: u32) -> bool {
        self.state == BackendState::Active as u8 && self.service == service
    }
}

/// Value of `kpx_stats`: counters of one service, added to atomically.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Stats {
    /// Connects translated (TCP and connected UDP).
    pub connects: u64,
    /// Datagrams of unconnected sockets translated.
    pub datagrams: u64,
    /// Connects and datagrams refused for want of a backend.
    pub refused: u64,
    /// Connects and datagrams that shadow mode would have translated or refused.
    pub shadow: u64,
    /// Connects and datagrams left to the kernel's rules: yielded, drained, or without a backend.
    pub passed: u64,
}

/// Value of `kpx_peers`: what a connected socket asked for and what it got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Peer {
    /// Address asked for, network byte order.
    pub frontend: [u8; 16],
    /// Address connected to, network byte order.
    pub backend: [u8; 16],
    /// Port asked for, network byte order.
    pub frontend_port: u16,
    /// Port connected to, network byte order; 0: not translated.
    pub backend_port: u16,
}

/// Key of `kpx_yield`: a UDP flow that the kernel carries, as far as a socket can be recognised by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct YieldKey {
    /// Address of the frontend, network byte order.
    pub addr: [u8; 16],
    /// Port of the frontend, network byte order.
    pub port: u16,
    /// Port of the client, network byte order.
    pub source_port: u16,
}

/// Value of `kpx_yield`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct YieldUntil {
    /// `CLOCK_MONOTONIC` nanoseconds until which the kernel keeps the flow if nothing more is sent.
    pub until_ns: u64,
}

/// Why a program did what it did; index into `kpx_reasons`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Reason {
    /// The destination is no frontend.
    NotService = 0,
    /// TCP connect translated.
    TcpConnect = 1,
    /// UDP connect translated.
    UdpConnect = 2,
    /// Datagram translated to a newly chosen backend.
    UdpFirst = 3,
    /// Datagram translated to the backend the socket had.
    UdpKept = 4,
    /// Source of a received datagram restored to the frontend.
    ReplyRestored = 5,
    /// Peer name restored to the frontend.
    PeerRestored = 6,
    /// Refused: no backend.
    Refused = 7,
    /// No backend, and the refusal left to the kernel's rules.
    RefusalPassed = 8,
    /// No local backend: the kernel's rules drop it.
    DropPassed = 9,
    /// Shadow mode: would have been translated or refused.
    Shadow = 10,
    /// Datagram of a flow that the kernel carries, left to it.
    Yielded = 11,
    /// Drain mode: new, so left to the kernel.
    DrainPassed = 12,
    /// A change was met half-way and the lookup repeated.
    Retried = 13,
    /// The lookup met changes at every attempt, and the packet was left to the kernel.
    Missed = 14,
    /// The socket's storage could not be had; replies will show the backend.
    NoStorage = 15,
}

impl Reason {
    /// Number of reasons, size of `kpx_reasons`.
    pub const COUNT: usize = 16;

    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::NotService,
        Self::TcpConnect,
        Self::UdpConnect,
        Self::UdpFirst,
        Self::UdpKept,
        Self::ReplyRestored,
        Self::PeerRestored,
        Self::Refused,
        Self::RefusalPassed,
        Self::DropPassed,
        Self::Shadow,
        Self::Yielded,
        Self::DrainPassed,
        Self::Retried,
        Self::Missed,
        Self::NoStorage,
    ];

    /// The name, lower case with underscores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotService => "not_service",
            Self::TcpConnect => "tcp_connect",
            Self::UdpConnect => "udp_connect",
            Self::UdpFirst => "udp_first",
            Self::UdpKept => "udp_kept",
            Self::ReplyRestored => "reply_restored",
            Self::PeerRestored => "peer_restored",
            Self::Refused => "refused",
            Self::RefusalPassed => "refusal_passed",
            Self::DropPassed => "drop_passed",
            Self::Shadow => "shadow",
            Self::Yielded => "yielded",
            Self::DrainPassed => "drain_passed",
            Self::Retried => "retried",
            Self::Missed => "missed",
            Self::NoStorage => "no_storage",
        }
    }
}
