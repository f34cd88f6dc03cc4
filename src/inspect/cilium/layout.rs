//! Bytes of Cilium's maps → typed keys and values. Pure; bytes of another size are `None`.
//!
//! Layouts are those of Cilium 1.16 to 1.19, `bpf/lib/common.h` and `pkg/maps`. Integers are in the machine's byte order unless
//! a comment says otherwise. Service ids are in network byte order everywhere in the maps, and in host byte order here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::inspect::entry::Client;
use crate::model::Family;

/// Reads fields one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    fn be16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn address(&mut self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.take::<4>().map(|b| Ipv4Addr::from(b).into()),
            Family::V6 => self.take::<16>().map(|b| Ipv6Addr::from(b).into()),
        }
    }
}

/// Checks the size for both families, v4 first.
fn sized(bytes: &[u8], family: Family, sizes: [usize; 2]) -> Option<Fields<'_>> {
    let size = match family {
        Family::V4 => sizes[0],
        Family::V6 => sizes[1],
    };
    (bytes.len() == size).then_some(Fields(bytes))
}

/// Key of `cilium_lb4_services_v2` and `cilium_lb6_services_v2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Address of the frontend.
    pub address: IpAddr,
    /// Port of the frontend.
    pub port: u16,
    /// IANA protocol number; 0, any, up to Cilium 1.16.
    pub protocol: u8,
    /// 0 for traffic from outside, and for all where there is one scope; 1 for traffic from inside.
    pub scope: u8,
    /// 0 for the frontend itself, else the number of a backend's slot.
    pub slot: u16,
}

impl ServiceKey {
    /// Reads a key.
    pub fn read(bytes: &[u8], family: Family) -> Option<Self> {
        let mut fields = sized(bytes, family, [12, 24])?;
        let (address, port, slot) = (fields.address(family)?, fields.be16()?, fields.u16()?);
        Some(Self { address, port, slot, protocol: fields.u8()?, scope: fields.u8()? })
    }
}

/// Value of the same maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceValue {
    /// Of a slot: the backend's id. Of a frontend: affinity seconds in the low 24 bits.
    pub union: u32,
    /// Of a frontend: slots in use, from 1.
    pub count: u16,
    /// Service id (`rev_nat_index`).
    pub id: u16,
    /// [`flag`]s, `flags` in the low and `flags2` in the high byte.
    pub flags: u16,
    /// Of a frontend: slots after `count`, of backends that are quarantined or terminating.
    pub quarantined: u16,
}

/// Bits of [`ServiceValue::flags`].
pub mod flag {
    /// `spec.externalIPs`.
    pub const EXTERNAL_IP: u16 = 0x01;
    /// A NodePort.
    pub const NODE_PORT: u16 = 0x02;
    /// `externalTrafficPolicy: Local`.
    pub const EXTERNAL_LOCAL: u16 = 0x04;
    /// A port that a pod has on its node.
    pub const HOST_PORT: u16 = 0x08;
    /// Session affinity.
    pub const AFFINITY: u16 = 0x10;
    /// An address of a load balancer.
    pub const LOAD_BALANCER: u16 = 0x20;
    /// `loadBalancerSourceRanges` are checked.
    pub const SOURCE_RANGES: u16 = 0x80;
    /// A local redirect policy chose the backends.
    pub const LOCAL_REDIRECT: u16 = 0x0100;
    /// Goes to the L7 proxy.
    pub const L7: u16 = 0x0400;
    /// `internalTrafficPolicy: Local`.
    pub const INTERNAL_LOCAL: u16 = 0x1000;
    /// Traffic from inside has a frontend of its own.
    pub const TWO_SCOPES: u16 = 0x2000;
    /// Of a slot: its backend is quarantined. Of a frontend: source ranges are kept out, not let in.
    pub const QUARANTINED_OR_DENY: u16 = 0x4000;
    /// Replies go to clients directly (Cilium 1.18).
    pub const DSR: u16 = 0x8000;
}

impl ServiceValue {
    /// Reads a value.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut fields = (bytes.len() == 12).then_some(Fields(bytes))?;
        let (union, count, id) = (fields.u32()?, fields.u16()?, fields.be16()?);
        let [low, high] = fields.take()?;
        Some(Self { union, count, id, flags: u16::from_le_bytes([low, high]), quarantined: fields.u16()? })
    }

    /// Whether a bit is set.
    pub const fn has(&self, bit: u16) -> bool {
        self.flags & bit != 0
    }

    /// Affinity seconds of a frontend that has affinity.
    pub fn affinity(&self) -> Option<u32> {
        self.has(flag::AFFINITY).then_some(self.union & 0x00ff_ffff)
    }
}

/// Value of `cilium_lb4_backends_v3` and `cilium_lb6_backends_v3`; the key is an id, a `u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Address and port.
    pub addr: SocketAddr,
    /// IANA protocol number; 0 where it was not recorded.
    pub protocol: u8,
    /// What may be done with it.
    pub state: BackendState,
}

/// State of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendState {
    /// Takes connections.
    Active,
    /// Is going away.
    Terminating,
    /// Failed health checks.
    Quarantined,
    /// Was taken out of service.
    Maintenance,
    /// A number that is not known.
    Unknown(u8),
}

impl Backend {
    /// Reads a value.
    pub fn read(bytes: &[u8], family: Family) -> Option<Self> {
        let mut fields = sized(bytes, family, [12, 24])?;
        let addr = SocketAddr::new(fields.address(family)?, fields.be16()?);
        let (protocol, state) = (fields.u8()?, fields.u8()?);
        let state = match state {
            0 => BackendState::Active,
            1 => BackendState::Terminating,
            2 => BackendState::Quarantined,
            3 => BackendState::Maintenance,
            other => BackendState::Unknown(other),
        };
        Some(Self { addr, protocol, state })
    }
}

/// Key and value of `cilium_lb4_affinity` and `cilium_lb6_affinity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// The client.
    pub client: Client,
    /// Service id.
    pub service: u16,
    /// The backend's id.
    pub backend: u32,
    /// When it was last used, seconds of Cilium's clock.
    pub last_used: u64,
}

impl Affinity {
    /// Reads an entry.
    pub fn read(key: &[u8], value: &[u8], family: Family) -> Option<Self> {
        // The client takes 8 bytes for IPv4, so that a cookie has room.
        let mut fields = sized(key, family, [16, 24])?;
        let (low, high) = (fields.take::<8>()?, if family == Family::V6 { fields.take::<8>()? } else { [0; 8] });
        let service = fields.be16()?;
        let bits = fields.u8()?;
        // A bit field of one: the first bit, which is the lowest on little-endian machines.
        let cookie = bits & if cfg!(target_endian = "big") { 0x80 } else { 1 } != 0;
        let client = match (cookie, family) {
            (true, _) => Client::Netns(u64::from_ne_bytes(low)),
            (false, Family::V4) => Client::Address(Ipv4Addr::from([low[0], low[1], low[2], low[3]]).into()),
            (false, Family::V6) => Client::Address(Ipv6Addr::from(both(low, high)).into()),
        };
        let mut fields = (value.len() == 16).then_some(Fields(value))?;
        Some(Self { client, service, last_used: fields.u64()?, backend: fields.u32()? })
    }
}

fn both(low: [u8; 8], high: [u8; 8]) -> [u8; 16] {
    (u128::from(u64::from_be_bytes(low)) << 64 | u128::from(u64::from_be_bytes(high))).to_be_bytes()
}

/// Key of `cilium_lb4_source_range` and `cilium_lb6_source_range`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRange {
    /// Service id.
    pub service: u16,
    /// Network address.
    pub address: IpAddr,
    /// Length of the network's prefix, bits.
    pub prefix: u8,
}

impl SourceRange {
    /// Reads a key: the prefix length of the trie counts the service id and its padding, 32 bits.
    pub fn read(bytes: &[u8], family: Family) -> Option<Self> {
        let mut fields = sized(bytes, family, [12, 24])?;
        let prefix = u8::try_from(fields.u32()?.checked_sub(32)?).ok()?;
        let service = fields.be16()?;
        fields.u16()?;
        Some(Self { service, address: fields.address(family)?, prefix })
    }
}

/// Key of the conntrack and NAT maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// IANA protocol number.
    pub protocol: u8,
    /// What the entry is for.
    pub kind: TupleKind,
    /// Where packets come from.
    pub source: SocketAddr,
    /// Where they go to.
    pub destination: SocketAddr,
}

/// What a tuple's entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TupleKind {
    /// A flow that leaves an endpoint.
    Out,
    /// A flow that comes to an endpoint.
    In,
    /// An ICMP error about a flow that leaves.
    RelatedOut,
    /// An ICMP error about a flow that comes.
    RelatedIn,
    /// A flow to a frontend, and its backend.
    Service,
}

impl TupleKind {
    /// `in`, `out` and so on.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
            Self::RelatedOut => "related-out",
            Self::RelatedIn => "related-in",
            Self::Service => "service",
        }
    }

    const fn of(flags: u8) -> Self {
        match flags & 7 {
            0 => Self::Out,
            1 => Self::In,
            2 => Self::RelatedOut,
            3 => Self::RelatedIn,
            _ => Self::Service,
        }
    }
}

/// The four fields of a tuple as they are stored.
struct Stored {
    daddr: IpAddr,
    saddr: IpAddr,
    dport: u16,
    sport: u16,
    protocol: u8,
    kind: TupleKind,
}

impl Stored {
    fn read(bytes: &[u8], family: Family) -> Option<Self> {
        let mut fields = sized(bytes, family, [14, 38])?;
        let (daddr, saddr) = (fields.address(family)?, fields.address(family)?);
        let (dport, sport, protocol) = (fields.be16()?, fields.be16()?, fields.u8()?);
        Some(Self { daddr, saddr, dport, sport, protocol, kind: TupleKind::of(fields.u8()?) })
    }
}

impl Tuple {
    /// Reads a key of a conntrack map.
    ///
    /// The addresses of a flow's key are stored the wrong way round, its ports not (cilium#5848); in an entry for a
    /// frontend it is the ports.
    pub fn of_conntrack(bytes: &[u8], family: Family) -> Option<Self> {
        let Stored { daddr, saddr, dport, sport, protocol, kind } = Stored::read(bytes, family)?;
        let (source, destination) = match kind {
            TupleKind::Service => (SocketAddr::new(saddr, dport), SocketAddr::new(daddr, sport)),
            _ => (SocketAddr::new(daddr, sport), SocketAddr::new(saddr, dport)),
        };
        Some(Self { protocol, kind, source, destination })
    }

    /// Reads a key of a NAT map, which has everything in its place.
    pub fn of_nat(bytes: &[u8], family: Family) -> Option<Self> {
        let Stored { daddr, saddr, dport, sport, protocol, kind } = Stored::read(bytes, family)?;
        let (source, destination) = (SocketAddr::new(saddr, sport), SocketAddr::new(daddr, dport));
        Some(Self { protocol, kind, source, destination })
    }
}

/// Value of the conntrack maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtEntry {
    /// The backend's id, in an entry for a frontend.
    pub backend: u32,
    /// Packets so far.
    pub packets: u64,
    /// Bytes so far.
    pub bytes: u64,
    /// When it expires, seconds of Cilium's clock.
    pub lifetime: u32,
    /// Bits, named by [`Self::flag_names`].
    pub flags: u16,
    /// Service id; 0 for none.
    pub service: u16,
}

/// Names of the bits of [`CtEntry::flags`], by their number.
const CT_FLAGS: [(u32, &str); 9] = [
    (0, "rx-closing"),
    (1, "tx-closing"),
    (3, "loopback"),
    (4, "seen-non-syn"),
    (5, "node-port"),
    (6, "proxy-redirect"),
    (7, "dsr"),
    (8, "from-l7-lb"),
    (10, "from-tunnel"),
];

impl CtEntry {
    /// Reads a value.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut fields = (bytes.len() == 56).then_some(Fields(bytes))?;
        fields.u64()?;
        let (backend, packets, bytes) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (lifetime, flags, service) = (fields.u32()?, fields.u16()?, fields.be16()?);
        // Ids have 32 bits; a larger number was written by a version that counted packets here.
        Some(Self { backend: u32::try_from(backend).unwrap_or(0), packets, bytes, lifetime, flags, service })
    }

    /// Names of the bits that are set.
    pub fn flag_names(&self) -> Vec<&'static str> {
        CT_FLAGS.iter().filter(|(bit, _)| self.flags >> bit & 1 != 0).map(|(_, name)| *name).collect()
    }
}

/// Value of the NAT maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatEntry {
    /// When it was made, nanoseconds of Cilium's clock.
    pub created: u64,
    /// What the address becomes.
    pub becomes: SocketAddr,
}

impl NatEntry {
    /// Reads a value: 40 bytes, 56 for IPv6; without the last padding 38 and 50.
    pub fn read(bytes: &[u8], family: Family) -> Option<Self> {
        let sizes = match family {
            Family::V4 => [38, 40],
            Family::V6 => [50, 56],
        };
        let mut fields = sizes.contains(&bytes.len()).then_some(Fields(bytes))?;
        let created = fields.u64()?;
        fields.take::<24>()?;
        Some(Self { created, becomes: SocketAddr::new(fields.address(family)?, fields.be16()?) })
    }
}
