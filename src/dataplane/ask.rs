//! What the programs would do with a packet: their own lookup, run over what the maps hold.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use kpx_abi::{
    Affinity, AffinityKey, DropReason, Frontend, Maps as _, Origin, Request, Verdict, lookup, map_name, stand_in,
};

use super::maps::{self, failed};
use super::reconcile::{self, Reader};
use super::{Dataplane, DataplaneError};
use crate::inspect::bpf::sys::{self, Table};
use crate::inspect::entry::MapEntry;
use crate::model::{Family, Protocol, TrafficSource};

/// The first packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where it is sent to.
    pub destination: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it comes from.
    pub origin: TrafficSource,
    /// Its source address; `None` for a socket that has none yet.
    pub client: Option<IpAddr>,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes to a backend.
    Backend {
        /// The backend.
        to: SocketAddr,
        /// Whether its source becomes the node's address; a socket has that anyway.
        masquerade: bool,
    },
    /// It is refused.
    Refused,
    /// It is dropped, for this reason.
    Dropped(&'static str),
    /// The maps leave it alone.
    NotService,
    /// A socket whose address is not known yet is left to whoever sees the packet.
    Deferred,
}

/// One thing that may become of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// How likely it is, from 0 to 1.
    pub probability: f64,
    /// What becomes of it.
    pub fate: Fate,
    /// The entries that say so, in the order of the lookup.
    pub entries: Vec<MapEntry>,
}

impl Dataplane {
    /// Runs the lookup once for each number that chooses a backend. Answers that are the same are one.
    pub fn ask(&self, asked: &Asked) -> Result<Vec<Answer>, DataplaneError> {
        let addresses = self.maps.addresses.dump().map_err(failed("read", map_name::ADDRESSES))?;
        let addresses: HashMap<_, _> = addresses.into_iter().collect();
        let networks = self.maps.networks.dump().map_err(failed("read", map_name::NETWORKS))?;
        let affinity: Table<AffinityKey, Affinity> = maps::open(&self.paths.maps(), map_name::AFFINITY)?;
        let affinity = affinity.dump().map_err(failed("read", map_name::AFFINITY))?;
        let affinity: HashMap<_, _> = affinity.into_iter().collect();
        let reader = Reader {
            image: &self.image,
            affinity: Box::new(|key| affinity.get(key).copied()),
            address: Box::new(|addr| addresses.get(addr).copied().unwrap_or_default()),
            network: Box::new(|addr| {
                let around = networks.iter().filter(|(key, _)| reconcile::inside(&(key.prefix_len, key.addr), addr));
                around.max_by_key(|(key, _)| key.prefix_len).map(|(_, flags)| *flags).unwrap_or_default()
            }),
        };
        Ok(answers(&reader, &self.request(asked)))
    }

    fn request(&self, asked: &Asked) -> Request {
        let (addr, port) = reconcile::endpoint(asked.destination);
        let family = Family::of(asked.destination.ip());
        let pods = self.node.pods[usize::from(family == Family::V6)];
        Request {
            key: kpx_abi::FrontendKey::new(addr, port, asked.protocol.number()),
            origin: match asked.origin {
                TrafficSource::Node => Origin::Node,
                TrafficSource::Pod if pods => Origin::Pod,
                TrafficSource::Pod | TrafficSource::Outside => Origin::Outside,
            },
            client: asked.client.map_or(stand_in(0), reconcile::addr),
            random: 0,
            hash: 0,
            now_ns: sys::monotonic_ns(),
        }
    }
}

/// All that a lookup may answer, each with its share of the numbers.
fn answers(reader: &Reader<'_>, request: &Request) -> Vec<Answer> {
    let found = frontend(reader, request);
    let count = found.map_or(1, |(_, frontend)| {
        let (membership, _) = kpx_abi::list(frontend, request.origin);
        let cluster = membership.has(kpx_abi::BackendFlags::IN_CLUSTER);
        if cluster { frontend.cluster.count } else { frontend.local.count }.max(1)
    });
    let mut shares: Vec<(u32, Answer)> = Vec::new();
    for slot in 0..count {
        // The least number that chooses this slot.
        let number = (u64::from(slot) << 32).div_ceil(u64::from(count)) as u32;
        let request = Request { random: number, hash: number, ..*request };
        let (fate, backend) = fate(reader, &request);
        if let Some((share, _)) = shares.iter_mut().find(|(_, answer)| answer.fate == fate) {
            *share += 1;
            continue;
        }
        let entries = found.map(|found| entries(found, backend, fate)).unwrap_or_default();
        shares.push((1, Answer { probability: 0.0, fate, entries }));
    }
    let share = |(share, answer)| Answer { probability: f64::from(share) / f64::from(count), ..answer };
    shares.into_iter().map(share).collect()
}

/// The entry that the lookup finds: by the destination, or by the port alone where it is an address for NodePorts.
fn frontend<'r>(reader: &'r Reader<'_>, request: &Request) -> Option<(u32, &'r Frontend)> {
    let entry = reader.entry(&request.key).or_else(|| {
        let flags = reader.address(&kpx_abi::owner(&request.key.addr));
        let any = kpx_abi::FrontendKey { addr: kpx_abi::unspecified(&request.key.addr), ..request.key };
        flags.has(kpx_abi::AddressFlags::NODEPORT).then(|| reader.entry(&any)).flatten()
    })?;
    Some((entry, reader.frontend(entry)?))
}

fn fate(reader: &Reader<'_>, request: &Request) -> (Fate, Option<u32>) {
    match lookup(reader, request, || ()) {
        Verdict::Backend { id, backend, masquerade, .. } => {
            let to = SocketAddr::new(reconcile::ip(backend.addr), u16::from_be(backend.port));
            (Fate::Backend { to, masquerade }, Some(id))
        }
        Verdict::Reject { .. } => (Fate::Refused, None),
        Verdict::Drop { why: DropReason::NoLocalEndpoint, .. } => (Fate::Dropped("no endpoint on this node"), None),
        Verdict::Drop { why: DropReason::Source, .. } => (Fate::Dropped("no source range has the client"), None),
        // Of these two the hooks of sockets leave the packet to the packet path.
        Verdict::UndefinedPort if request.origin != Origin::Node => (Fate::Refused, None),
        Verdict::Unallocated if request.origin != Origin::Node => (Fate::Dropped("no Service has the address"), None),
        Verdict::NotService | Verdict::UndefinedPort | Verdict::Unallocated | Verdict::Missed => {
            (Fate::NotService, None)
        }
        Verdict::Defer { .. } => (Fate::Deferred, None),
    }
}

fn entries((entry, frontend): (u32, &Frontend), backend: Option<u32>, fate: Fate) -> Vec<MapEntry> {
    let address = SocketAddr::new(reconcile::ip(frontend.key.addr), u16::from_be(frontend.key.port));
    let add = |map, key: String, value: String| MapEntry { map, key, value };
    let lists = format!(
        "service {}, {} in Cluster, {} in Local",
        frontend.service, frontend.cluster.count, frontend.local.count
    );
    let mut entries = vec![
        add(map_name::INDEX, address.to_string(), format!("entry {entry}")),
        add(map_name::FRONTENDS, entry.to_string(), lists),
    ];
    if let (Some(id), Fate::Backend { to, .. }) = (backend, fate) {
        entries.push(add(map_name::BACKENDS, id.to_string(), to.to_string()));
    }
    entries
}
