//! The keys and values of the maps of Services and of sockets.

use crate::Addr;

/// Key of `kpx_index`: where a packet is sent to.
///
/// A NodePort has the unspecified address of its family (IPv4: `::ffff:0.0.0.0`); it answers on every address that
/// `kpx_addresses` marks as [`NODEPORT`](crate::AddressFlags::NODEPORT).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(4))]
pub struct FrontendKey {
    /// Address.
    pub addr: Addr,
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
    pub const fn new(addr: Addr, port: u16, proto: u8) -> Self {
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
bits!(Flags);

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
    /// Every client is masqueraded.
    pub const MASQUERADE_ALWAYS: Self = Self(1 << 6);
    /// Only clients of the service's ranges in `kpx_sources` are let in.
    pub const SOURCE_RANGES: Self = Self(1 << 7);
    /// The lists are Maglev tables: a hash of the flow picks the slot, so that every node picks the same backend.
    pub const MAGLEV: Self = Self(1 << 8);
    /// Backends on other nodes answer the client directly.
    pub const DSR: Self = Self(1 << 9);

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
    /// Service id: one Service port, whatever frontends it has. It numbers the counters in `kpx_stats` and owns backends,
    /// affinity and source ranges; the same for the frontend's whole life; 0 is none.
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

/// What is known of a backend, as bits of [`Backend::flags`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct BackendFlags(pub u32);
bits!(BackendFlags);

impl BackendFlags {
    /// The service's list for the Cluster policy names it.
    pub const IN_CLUSTER: Self = Self(1);
    /// The service's list for the Local policy names it.
    pub const IN_LOCAL: Self = Self(1 << 1);
    /// It runs on this node.
    pub const ON_NODE: Self = Self(1 << 2);
    /// Where the weight begins.
    const WEIGHT: u32 = 16;

    /// Those that say which lists name it.
    #[must_use]
    pub const fn memberships(self) -> Self {
        Self(self.0 & (Self::IN_CLUSTER.0 | Self::IN_LOCAL.0))
    }

    /// These flags with the weight that a Maglev table gives the backend; the programs do not look at it.
    #[must_use]
    pub const fn with_weight(self, weight: u16) -> Self {
        Self(self.0 & ((1 << Self::WEIGHT) - 1) | (weight as u32) << Self::WEIGHT)
    }

    /// The weight; 0 unless it is in a Maglev table.
    pub const fn weight(self) -> u16 {
        (self.0 >> Self::WEIGHT) as u16
    }
}

/// Value of `kpx_backends`: an endpoint of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Backend {
    /// Address.
    pub addr: Addr,
    /// Port, network byte order.
    pub port: u16,
    /// IANA protocol number.
    pub proto: u8,
    /// A [`BackendState`].
    pub state: u8,
    /// Service id that it belongs to, to check a slot by.
    pub service: u32,
    /// What is known of it.
    pub flags: BackendFlags,
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
