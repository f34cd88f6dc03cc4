//! What an eBPF dataplane keeps besides Services, in one form whoever keeps it: affinity, flows, source translations,
//! Maglev tables.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::model::FrontendKey;

/// The frontends of each service id: how an id gets a name.
pub type Frontends = BTreeMap<u32, Vec<FrontendKey>>;

/// An entry of a map, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapEntry {
    /// The map.
    pub map: &'static str,
    /// Its key.
    pub key: String,
    /// What it says.
    pub value: String,
}

/// A client that stays with its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// The client.
    pub client: Client,
    /// The service's id in this dataplane.
    pub service: u32,
    /// The backend's id in this dataplane.
    pub backend_id: u32,
    /// The backend; `None` if there is none with this id.
    pub backend: Option<SocketAddr>,
    /// Seconds since it was last used; `None` where the dataplane's clock is not known.
    pub idle_seconds: Option<u64>,
}

/// Who a connection comes from, for affinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// An address.
    Address(IpAddr),
    /// All sockets of a network namespace, by its cookie.
    Netns(u64),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => write!(f, "{ip}"),
            Self::Netns(cookie) => write!(f, "netns:{cookie}"),
        }
    }
}

/// A flow that the packet path knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// IANA protocol number.
    pub protocol: u8,
    /// What the entry is for: `in`, `out`, `service`, and what else a dataplane tells apart.
    pub kind: &'static str,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it was sent to.
    pub destination: SocketAddr,
    /// The service's id; `None` where no service has a part in it.
    pub service: Option<u32>,
    /// The backend that has it.
    pub backend: Option<SocketAddr>,
    /// Packets so far; `None` where they are not counted.
    pub packets: Option<u64>,
    /// Bytes so far; `None` where they are not counted.
    pub bytes: Option<u64>,
    /// Seconds until it is forgotten if nothing more comes; negative if that is overdue; `None` where the dataplane's
    /// clock is not known.
    pub expires_seconds: Option<i64>,
    /// Names of its flags.
    pub flags: Vec<&'static str>,
}

/// A translation of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nat {
    /// IANA protocol number.
    pub protocol: u8,
    /// Which address is replaced.
    pub kind: Translation,
    /// Where a packet comes from.
    pub source: SocketAddr,
    /// Where it goes to.
    pub destination: SocketAddr,
    /// What the source, or the destination, becomes.
    pub becomes: SocketAddr,
    /// The service's id; `None` where it is not recorded.
    pub service: Option<u32>,
    /// Seconds since it was made; `None` where the dataplane's clock is not known.
    pub age_seconds: Option<u64>,
}

/// Which address of a packet is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Translation {
    /// The source.
    Source,
    /// The destination: the way back.
    Destination,
}

impl fmt::Display for Translation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Source => "source",
            Self::Destination => "destination",
        })
    }
}

/// The Maglev table of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maglev {
    /// The service's id in this dataplane.
    pub service: u32,
    /// Which list the table is: of a dataplane that has several for a service.
    pub list: &'static str,
    /// Slots of the table: M.
    pub slots: usize,
    /// Backends with the slots they have, by id.
    pub shares: Vec<Share>,
}

/// The share of a backend in a Maglev table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The backend's id.
    pub backend_id: u32,
    /// The backend; `None` if there is none with this id.
    pub backend: Option<SocketAddr>,
    /// Its slots.
    pub slots: usize,
}

impl Maglev {
    /// Counts the slots of a table of backend ids.
    pub fn of(
        service: u32,
        list: &'static str,
        table: impl Iterator<Item = u32>,
        backend: impl Fn(u32) -> Option<SocketAddr>,
    ) -> Self {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for id in table {
            *counts.entry(id).or_default() += 1;
        }
        let share = |(id, slots)| Share { backend_id: id, backend: backend(id), slots };
        Self { service, list, slots: counts.values().sum(), shares: counts.into_iter().map(share).collect() }
    }
}

/// What all entries have: a service, and the endpoints that take part.
pub trait Entry {
    /// The service's id; `None` where no service has a part in it.
    fn service(&self) -> Option<u32>;
    /// Addresses, with ports where they have one.
    fn endpoints(&self) -> Vec<(IpAddr, Option<u16>)>;
}

fn whole(addr: SocketAddr) -> (IpAddr, Option<u16>) {
    (addr.ip(), Some(addr.port()))
}

impl Entry for Affinity {
    fn service(&self) -> Option<u32> {
        Some(self.service)
    }

    fn endpoints(&self) -> Vec<(IpAddr, Option<u16>)> {
        let client = match self.client {
            Client::Address(ip) => Some((ip, None)),
            Client::Netns(_) => None,
        };
        self.backend.map(whole).into_iter().chain(client).collect()
    }
}

impl Entry for Flow {
    fn service(&self) -> Option<u32> {
        self.service
    }

    fn endpoints(&self) -> Vec<(IpAddr, Option<u16>)> {
        [Some(self.source), Some(self.destination), self.backend].into_iter().flatten().map(whole).collect()
    }
}

impl Entry for Nat {
    fn service(&self) -> Option<u32> {
        self.service
    }

    fn endpoints(&self) -> Vec<(IpAddr, Option<u16>)> {
        [self.source, self.destination, self.becomes].into_iter().map(whole).collect()
    }
}

impl Entry for Maglev {
    fn service(&self) -> Option<u32> {
        Some(self.service)
    }

    fn endpoints(&self) -> Vec<(IpAddr, Option<u16>)> {
        self.shares.iter().filter_map(|share| share.backend).map(whole).collect()
    }
}
