//! The maps' names, the version of their layout, and the configuration.

/// Version of the layout of all maps; a change to any type of this crate raises it.
pub const LAYOUT_VERSION: u32 = 5;

/// Names of the maps: at most 15 characters, the kernel's limit.
pub mod map_name {
    /// [`Config`](super::Config), one entry.
    pub const CONFIG: &str = "kpx_config";
    /// [`FrontendKey`](crate::FrontendKey) → [`FrontendRef`](crate::FrontendRef).
    pub const INDEX: &str = "kpx_index";
    /// [`Frontend`](crate::Frontend) by entry number.
    pub const FRONTENDS: &str = "kpx_frontends";
    /// Backend ids; a list is a contiguous range.
    pub const SLOTS: &str = "kpx_slots";
    /// [`Backend`](crate::Backend) by id.
    pub const BACKENDS: &str = "kpx_backends";
    /// [`Stats`](crate::Stats) by service id.
    pub const STATS: &str = "kpx_stats";
    /// Counters by [`Reason`](crate::Reason), per CPU.
    pub const REASONS: &str = "kpx_reasons";
    /// [`Peer`](crate::Peer) by socket: connected sockets.
    pub const PEERS: &str = "kpx_peers";
    /// [`Socket`](crate::Socket) by socket: unconnected UDP.
    pub const SOCKETS: &str = "kpx_sockets";
    /// [`YieldKey`](crate::YieldKey) → [`YieldUntil`](crate::YieldUntil).
    pub const YIELD: &str = "kpx_yield";
    /// [`AddressFlags`](crate::AddressFlags) by address.
    pub const ADDRESSES: &str = "kpx_addresses";
    /// [`NetworkKey`](crate::NetworkKey) → [`NetworkFlags`](crate::NetworkFlags), longest prefix first.
    pub const NETWORKS: &str = "kpx_networks";
    /// [`SourceKey`](crate::SourceKey) → 1, longest prefix first.
    pub const SOURCES: &str = "kpx_sources";
    /// [`Client`](crate::Client) by cookie of a network namespace.
    pub const CLIENTS: &str = "kpx_clients";
    /// [`AffinityKey`](crate::AffinityKey) → [`Affinity`](crate::Affinity), the one used longest ago evicted.
    pub const AFFINITY: &str = "kpx_affinity";

    /// [`Flow`](crate::Flow) by [`Tuple`](crate::Tuple): flows of the packet path.
    pub const CONNTRACK: &str = "kpx_conntrack";
    /// [`FragmentKey`](crate::packet::FragmentKey) → [`Ports`](crate::packet::Ports), the one used longest ago evicted.
    pub const FRAGMENTS: &str = "kpx_fragments";
    /// When a client began a flow that goes straight to its destination, monotonic nanoseconds, by
    /// [`Tuple`](crate::Tuple); the one used longest ago evicted.
    pub const DIRECT: &str = "kpx_direct";
    /// [`Device`](crate::Device) by ifindex.
    pub const DEVICES: &str = "kpx_devices";
    /// [`Listener`](crate::Listener), one entry.
    pub const LISTENER: &str = "kpx_listener";
    /// Services that the listener asks for: service id → 1.
    pub const LISTENED: &str = "kpx_listened";
    /// [`Event`](crate::Event) records, a ring buffer.
    pub const EVENTS: &str = "kpx_events";
    /// Where a program lays out what its stack has no room for, one element for each processor.
    pub const SCRATCH: &str = "kpx_scratch";

    /// All of them, in the order in which they are created.
    pub const ALL: [&str; 23] = [
        CONFIG, INDEX, FRONTENDS, SLOTS, BACKENDS, STATS, REASONS, PEERS, SOCKETS, YIELD, ADDRESSES, NETWORKS, SOURCES,
        CLIENTS, AFFINITY, CONNTRACK, FRAGMENTS, DIRECT, DEVICES, LISTENER, LISTENED, EVENTS, SCRATCH,
    ];
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
    /// What the programs may take for granted.
    pub options: Options,
    /// First port, machine byte order, that a masqueraded flow may get; 0: none.
    pub snat_first: u16,
    /// Last port, machine byte order, that a masqueraded flow may get.
    pub snat_last: u16,
    /// Bits set before routing in the mark of packets of the packet path's flows, but for those that kube-proxy's rules
    /// would leave to others: so that a rule of the filter can let them through where these did; 0: none.
    pub mark: u32,
    /// Bits set before routing in the mark of all packets of flows with [`Flow::UNSEEN`](crate::Flow::UNSEEN), so that a
    /// `notrack` rule can keep them from the kernel's conntrack; 0: none.
    pub unseen: u32,
}

/// What the programs may take for granted, as bits of [`Config::options`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Options(pub u32);
bits!(Options);

impl Options {
    /// The kernel has no rules of kube-proxy: whatever is left to them is not done by anybody.
    pub const RULES_GONE: Self = Self(1);
    /// IPv4 sockets outside of the node's own network namespace count as pods; without it, as outside.
    pub const PODS_V4: Self = Self(1 << 1);
    /// The same for IPv6.
    pub const PODS_V6: Self = Self(1 << 2);
    /// Flows that other nodes announce are answered directly.
    pub const DSR: Self = Self(1 << 3);
    /// Of this node's frontends only those that ask for it are answered directly; without it, all but those that ask for the
    /// other way. For user space, which writes [`Flags::DSR`](crate::Flags::DSR).
    pub const DSR_ASKED: Self = Self(1 << 4);
    /// Frontends that do not say have Maglev tables. For user space, as are the next ones.
    pub const MAGLEV: Self = Self(1 << 5);
    /// Four bits: which size Maglev tables have.
    const MAGLEV_SIZE: u32 = 8;

    /// Which size Maglev tables have: a number below 16; 0 is the usual one.
    #[inline(always)]
    pub const fn maglev_size(self) -> u32 {
        self.0 >> Self::MAGLEV_SIZE & 0xf
    }

    /// The same with this size.
    #[inline(always)]
    #[must_use]
    pub const fn with_maglev_size(self, number: u32) -> Self {
        Self(self.0 & !(0xf << Self::MAGLEV_SIZE) | (number & 0xf) << Self::MAGLEV_SIZE)
    }
}
