//! Why a program did what it did.

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
    /// Source ranges, and the client's address is not known: left to whoever sees the packet.
    Deferred = 16,
    /// Binding a NodePort refused.
    BindRefused = 17,
    /// Packet path: a new flow translated.
    FlowOpened = 18,
    /// Packet path: a packet of a known flow translated on its way to the backend.
    Forwarded = 19,
    /// Packet path: a packet of a known flow translated on its way to the client.
    Replied = 20,
    /// Packet path: an ICMP error about a translated packet translated.
    ErrorTranslated = 21,
    /// Packet path: a later fragment of a datagram that is not translated here, or whose first fragment is missing.
    FragmentUnknown = 22,
    /// Packet path: answered with port unreachable.
    PacketRefused = 23,
    /// Packet path: dropped, as the Service demands.
    PacketDropped = 24,
    /// Packet path: dropped, since there is no room for another flow.
    ConntrackFull = 25,
    /// Packet path: dropped, since all source ports tried are in use.
    NoPort = 26,
    /// Packet path: dropped, since the device has no address to masquerade with.
    NoSource = 27,
    /// Packet path: a packet of the node's own with no route to the backend, left alone.
    NoRoute = 28,
    /// Packet path: headers that are not understood, left alone.
    Unparsed = 29,
    /// Packet path: translated in the driver, and sent back by the device it came by.
    ShortCut = 30,
    /// Packet path: a flow straight to a backend got another port, since one by way of a Service has its own.
    SetApart = 31,
    /// Packet path: a packet of a flow straight to a backend told from the answer to a Service's that began later.
    ToldApart = 32,
    /// Packet path: left alone, since its flow is somebody else's.
    PassedFlow = 33,
    /// Packet path: dropped, since its flow is frozen.
    FrozenFlow = 34,
    /// Packet path: announced to the backend's node, which answers directly.
    DsrAnnounced = 35,
    /// Packet path: announced by another node, and taken.
    DsrTaken = 36,
    /// Packet path: looks like an announcement, but comes from no node or is for no frontend; left alone.
    DsrIgnored = 37,
    /// Packet path: too big to be announced; the client was told what fits.
    DsrTooBig = 38,
    /// A Service remembers the backend that a client got.
    Affinity = 39,
    /// Packet path: the source that the backend sees chosen for a new flow.
    Masqueraded = 40,
    /// Packet path: first packet of a flow that was taken over from the kernel.
    TakenOver = 41,
    /// Packet path: first packet of a flow that was given back to the kernel.
    GivenBack = 42,
    /// An event that was listened for, and had no room.
    EventLost = 43,
}

impl Reason {
    /// Number of reasons, size of `kpx_reasons`.
    pub const COUNT: usize = 44;

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
        Self::Deferred,
        Self::BindRefused,
        Self::FlowOpened,
        Self::Forwarded,
        Self::Replied,
        Self::ErrorTranslated,
        Self::FragmentUnknown,
        Self::PacketRefused,
        Self::PacketDropped,
        Self::ConntrackFull,
        Self::NoPort,
        Self::NoSource,
        Self::NoRoute,
        Self::Unparsed,
        Self::ShortCut,
        Self::SetApart,
        Self::ToldApart,
        Self::PassedFlow,
        Self::FrozenFlow,
        Self::DsrAnnounced,
        Self::DsrTaken,
        Self::DsrIgnored,
        Self::DsrTooBig,
        Self::Affinity,
        Self::Masqueraded,
        Self::TakenOver,
        Self::GivenBack,
        Self::EventLost,
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
            Self::Deferred => "deferred",
            Self::BindRefused => "bind_refused",
            Self::FlowOpened => "flow_opened",
            Self::Forwarded => "forwarded",
            Self::Replied => "replied",
            Self::ErrorTranslated => "error_translated",
            Self::FragmentUnknown => "fragment_unknown",
            Self::PacketRefused => "packet_refused",
            Self::PacketDropped => "packet_dropped",
            Self::ConntrackFull => "conntrack_full",
            Self::NoPort => "no_port",
            Self::NoSource => "no_source",
            Self::NoRoute => "no_route",
            Self::Unparsed => "unparsed",
            Self::ShortCut => "short_cut",
            Self::SetApart => "set_apart",
            Self::ToldApart => "told_apart",
            Self::PassedFlow => "passed_flow",
            Self::FrozenFlow => "frozen_flow",
            Self::DsrAnnounced => "dsr_announced",
            Self::DsrTaken => "dsr_taken",
            Self::DsrIgnored => "dsr_ignored",
            Self::DsrTooBig => "dsr_too_big",
            Self::Affinity => "affinity",
            Self::Masqueraded => "masqueraded",
            Self::TakenOver => "taken_over",
            Self::GivenBack => "given_back",
            Self::EventLost => "event_lost",
        }
    }
}
