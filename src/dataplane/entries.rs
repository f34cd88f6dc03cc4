//! What the maps hold besides Services: affinity, Maglev tables, flows.

use std::net::SocketAddr;

use kpx_abi::{Affinity as AbiAffinity, AffinityKey, Flags, is_stand_in, map_name};

use super::error::DataplaneError;
use super::maps::{self, failed};
use super::reconcile;
use super::{Dataplane, now};
use crate::inspect::bpf::sys::Table;
use crate::inspect::entry::{Affinity, Client, Frontends, Maglev, MapEntry};
use crate::model::FrontendKey;

impl Dataplane {
    /// The frontends of each service id.
    pub fn frontends(&self) -> Result<Frontends, DataplaneError> {
        let mut found = Frontends::new();
        for (key, service) in reconcile::services(&self.maps.image()?) {
            found.entry(service).or_default().push(key);
        }
        Ok(found)
    }

    /// The entries of the maps that make up these frontends, in the order of a lookup.
    pub fn entries_of(&self, keys: &[FrontendKey]) -> Result<Vec<MapEntry>, DataplaneError> {
        let image = self.maps.image()?;
        let mut found = Vec::new();
        for key in keys {
            let Some((entry, frontend)) = image.current(&reconcile::key_of(key)) else { continue };
            let mut add = |map, key: String, value: String| found.push(MapEntry { map, key, value });
            add(map_name::INDEX, key.to_string(), format!("entry {entry}"));
            let affinity =
                if frontend.affinity == 0 { String::new() } else { format!(", affinity {}s", frontend.affinity) };
            let lists =
                [("Cluster", frontend.cluster), ("Local", frontend.local)].map(|(name, list)| match list.count {
                    0 => format!("{name} none"),
                    count => format!("{name} slots {} to {}", list.base, list.base + count - 1),
                });
            let value = format!("service {}, {}{affinity}", frontend.service, lists.join(", "));
            add(map_name::FRONTENDS, entry.to_string(), value);
            for list in [frontend.cluster, frontend.local] {
                for (slot, id) in (list.base..).zip(image.ids(list)) {
                    let backend = image.address_of(*id, frontend.service);
                    let backend = backend.map_or_else(|| "which is not there".to_owned(), |addr| addr.to_string());
                    add(map_name::SLOTS, slot.to_string(), format!("backend {id}, {backend}"));
                }
            }
        }
        Ok(found)
    }

    /// Clients that stay with their backends.
    pub fn affinity(&self) -> Result<Vec<Affinity>, DataplaneError> {
        let image = self.maps.image()?;
        let table: Table<AffinityKey, AbiAffinity> = maps::open(&self.paths.maps(), map_name::AFFINITY)?;
        let entries = table.dump().map_err(failed("read", map_name::AFFINITY))?;
        let now = u64::try_from(now().as_nanos()).unwrap_or(u64::MAX);
        let entry = |(key, value): (AffinityKey, AbiAffinity)| Affinity {
            client: if is_stand_in(&key.client) {
                // A stand-in ends in the cookie.
                Client::Netns(u128::from_be_bytes(key.client) as u64)
            } else {
                Client::Address(reconcile::ip(key.client))
            },
            service: key.service,
            backend_id: value.backend,
            backend: image.address_of(value.backend, key.service),
            idle_seconds: Some(now.saturating_sub(value.last_ns) / 1_000_000_000),
        };
        Ok(entries.into_iter().map(entry).collect())
    }

    /// The Maglev tables: lists of frontends that ask for it.
    pub fn maglev(&self) -> Result<Vec<Maglev>, DataplaneError> {
        let image = self.maps.image()?;
        let mut found: Vec<Maglev> = Vec::new();
        for frontend in image.entries().filter(|frontend| frontend.flags.has(Flags::MAGLEV)) {
            for (name, list) in [("Cluster", frontend.cluster), ("Local", frontend.local)] {
                if list.count == 0 || found.iter().any(|t| (t.service, t.list) == (frontend.service, name)) {
                    continue;
                }
                let backend = |id| -> Option<SocketAddr> { image.address_of(id, frontend.service) };
                found.push(Maglev::of(frontend.service, name, image.ids(list).iter().copied(), backend));
            }
        }
        Ok(found)
    }
}
