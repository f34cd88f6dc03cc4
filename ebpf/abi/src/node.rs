//! The keys and values of the maps of the node and of clients.

use crate::Addr;

/// What an address is, as bits of a value of `kpx_addresses`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct AddressFlags(pub u32);
bits!(AddressFlags);

impl AddressFlags {
    /// NodePorts answer on this address of the node; `127.0.0.1` speaks for all of `127.0.0.0/8`.
    pub const NODEPORT: Self = Self(1);
    /// An address of this node.
    pub const LOCAL: Self = Self(1 << 1);
    /// A Service's ClusterIP: what no frontend serves there is a port that the Service does not have.
    pub const CLUSTER_IP: Self = Self(1 << 2);
    /// The nodes of the cluster, this one included, know a node by it: flows announced from it are believed.
    pub const NODE: Self = Self(1 << 3);
}

/// Key of `kpx_networks`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct NetworkKey {
    /// Leading bits that count, of all 128: those of an IPv4 network and 96 more.
    pub prefix_len: u32,
    /// Address.
    pub addr: Addr,
}

/// What a network is, as bits of a value of `kpx_networks`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct NetworkFlags(pub u32);
bits!(NetworkFlags);

impl NetworkFlags {
    /// Clients in it are pods.
    pub const POD: Self = Self(1);
    /// ClusterIPs are allocated from it.
    pub const SERVICE: Self = Self(1 << 1);
    /// Backends in it are on nodes that answer announced flows directly.
    pub const DIRECT: Self = Self(1 << 2);
}

/// Key of `kpx_sources`: a network that may use a service with
/// [`SOURCE_RANGES`](crate::Flags::SOURCE_RANGES).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct SourceKey {
    /// Leading bits of what follows that count: 32 for the service, and those of the network's 128.
    pub prefix_len: u32,
    /// Service id.
    pub service: u32,
    /// Address.
    pub addr: Addr,
}

/// Value of `kpx_clients`: by which addresses the sockets of a network namespace are known to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Client {
    /// IPv4 address; all zero where it has none.
    pub v4: Addr,
    /// IPv6 address; all zero where it has none.
    pub v6: Addr,
}

/// Key of `kpx_affinity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct AffinityKey {
    /// The client's address, or a [`stand_in`](crate::stand_in).
    pub client: Addr,
    /// Service id.
    pub service: u32,
}

/// Value of `kpx_affinity`: the backend that a client got last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Affinity {
    /// When its last connection began, monotonic nanoseconds.
    pub last_ns: u64,
    /// Backend id.
    pub backend: u32,
    /// Zero.
    pub pad: u32,
}
