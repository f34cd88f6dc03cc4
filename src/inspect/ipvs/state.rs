//! IPVS as the kernel tells it: virtual services, their servers, what was counted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::Serialize;

use crate::model::{Family, Protocol};

/// All of IPVS in one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ipvs {
    /// Version, such as 1.2.1; `None` where the kernel has no IPVS.
    pub version: Option<Version>,
    /// Buckets of the connection table.
    pub table_size: Option<u32>,
    /// Seconds an idle connection is kept: established TCP, TCP after a FIN, UDP.
    pub timeouts: Option<[u32; 3]>,
    /// Virtual services, in the kernel's order.
    pub services: Vec<VirtualService>,
}

/// Version of IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0 >> 16 & 0xff, self.0 >> 8 & 0xff, self.0 & 0xff)
    }
}

/// What packets a virtual service takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Virtual {
    /// Those to an address, port and protocol.
    Address(SocketAddr, Protocol),
    /// Those with a mark.
    Mark(Family, u32),
}

impl fmt::Display for Virtual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address, protocol) => write!(f, "{address}/{protocol}"),
            Self::Mark(family, mark) => write!(f, "mark {mark} {family}"),
        }
    }
}

/// Flags of a virtual service (`IP_VS_SVC_F_*` in linux/ip_vs.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    /// A client goes to the server that it had before.
    pub const PERSISTENT: u32 = 0x1;
    /// UDP: each datagram is a connection of its own.
    pub const ONE_PACKET: u32 = 0x4;
    /// What the scheduler takes three bits for.
    const SCHEDULER: [u32; 3] = [0x8, 0x10, 0x20];

    /// Whether all of `bits` are set.
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }
}

/// What IPVS counts. Sums are updated about every two seconds; rates are per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Connections.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets from servers.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes from servers.
    pub out_bytes: u64,
    /// Connections a second.
    pub connection_rate: u64,
    /// Packets a second from clients.
    pub in_packet_rate: u64,
    /// Packets a second from servers.
    pub out_packet_rate: u64,
    /// Bytes a second from clients.
    pub in_byte_rate: u64,
    /// Bytes a second from servers.
    pub out_byte_rate: u64,
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualService {
    /// What it takes.
    pub key: Virtual,
    /// Scheduler, such as `rr`.
    pub scheduler: String,
    /// Flags.
    pub flags: Flags,
    /// How long a client keeps its server after its last connection, seconds; only with [`Flags::PERSISTENT`].
    pub persistence: u32,
    /// Clients that count as one: prefix length of IPv6, network mask of IPv4 in network byte order.
    pub netmask: u32,
    /// Counters.
    pub stats: Stats,
    /// Servers, in the kernel's order.
    pub servers: Vec<RealServer>,
}

impl VirtualService {
    /// Seconds of persistence; `None` without.
    pub const fn affinity(&self) -> Option<u32> {
        if self.flags.has(Flags::PERSISTENT) { Some(self.persistence) } else { None }
    }

    /// What the scheduler's own flags mean, as ipvsadm calls them.
    pub fn scheduler_flags(&self) -> impl Iterator<Item = &'static str> + use<> {
        let names = match self.scheduler.as_str() {
            "sh" => ["sh-fallback", "sh-port", "flag-3"],
            "mh" => ["mh-fallback", "mh-port", "flag-3"],
            _ => ["flag-1", "flag-2", "flag-3"],
        };
        let flags = self.flags;
        Flags::SCHEDULER.into_iter().zip(names).filter(move |(bit, _)| flags.has(*bit)).map(|(_, name)| name)
    }

    /// Which clients count as one, where those are more than one address: a network mask of IPv4, a prefix length of IPv6.
    pub fn clients_mask(&self) -> Option<String> {
        self.affinity()?;
        match (self.family(), self.netmask) {
            (Family::V4, u32::MAX) | (Family::V6, 128) => None,
            (Family::V4, mask) => Some(Ipv4Addr::from(mask.to_ne_bytes()).to_string()),
            (Family::V6, length) => Some(length.to_string()),
        }
    }

    /// The family of its packets.
    pub fn family(&self) -> Family {
        match self.key {
            Virtual::Address(address, _) => Family::of(address.ip()),
            Virtual::Mark(family, _) => family,
        }
    }

    /// Address and port; `None` for a mark.
    pub const fn address(&self) -> Option<(IpAddr, u16, Protocol)> {
        match self.key {
            Virtual::Address(address, protocol) => Some((address.ip(), address.port(), protocol)),
            Virtual::Mark(..) => None,
        }
    }
}

/// How packets get to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forward {
    /// Addresses translated.
    Masquerade,
    /// The node itself.
    Local,
    /// In a tunnel.
    Tunnel,
    /// Unchanged, to the server's link-layer address.
    Route,
    /// Unchanged, to where it was sent.
    Bypass,
    /// A number that kpx does not know.
    Other(u32),
}

impl Forward {
    /// The method in `IP_VS_CONN_F_FWD_MASK`.
    pub const fn from_flags(flags: u32) -> Self {
        match flags & 0x7 {
            0 => Self::Masquerade,
            1 => Self::Local,
            2 => Self::Tunnel,
            3 => Self::Route,
            4 => Self::Bypass,
            other => Self::Other(other),
        }
    }

    /// Its number there.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Masquerade => 0,
            Self::Local => 1,
            Self::Tunnel => 2,
            Self::Route => 3,
            Self::Bypass => 4,
            Self::Other(number) => number,
        }
    }
}

impl fmt::Display for Forward {
    /// As ipvsadm calls it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masquerade => f.pad("Masq"),
            Self::Local => f.pad("Local"),
            Self::Tunnel => f.pad("Tunnel"),
            Self::Route => f.pad("Route"),
            Self::Bypass => f.pad("Bypass"),
            Self::Other(number) => write!(f, "{number}"),
        }
    }
}

/// A server of a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealServer {
    /// Address and port.
    pub address: SocketAddr,
    /// How packets get there.
    pub forward: Forward,
    /// Weight; 0 lets what is open go on and takes nothing new.
    pub weight: u32,
    /// Connections in state ESTABLISHED.
    pub active: u32,
    /// Connections in other states.
    pub inactive: u32,
    /// Clients bound to it.
    pub persistent: u32,
    /// Counters.
    pub stats: Stats,
}
