//! The writes that lead from what the maps hold to what is wanted.
//!
//! Order: everything that nobody can reach yet (backends, slots, entries), then the index, which makes it reachable with
//! one atomic write a frontend, then deletions from the index, and last the retirement of backends that no list names any
//! more. After each single write every frontend in the index leads to backends that serve it. What an earlier process
//! left half-done is met as backends and entries that nothing names: retired, or simply written anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use kpx_abi::{Backend, BackendState, Frontend, FrontendKey, List};
use serde::Serialize;
use thiserror::Error;

use super::alloc::Ranges;
use super::image::Image;
use super::wanted::{Endpoint, Wanted};

/// One write to the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum Op {
    /// Zeroes the counters of a service id about to be used.
    ResetStats { service: u32 },
    /// Writes a backend that no slot names yet.
    PutBackend { id: u32, backend: Backend },
    /// Writes slots that no entry names yet.
    PutSlots { base: u32, ids: Vec<u32> },
    /// Writes an entry that the index does not name yet.
    PutFrontend { entry: u32, frontend: Frontend },
    /// Makes a frontend lead to an entry.
    PutIndex { key: FrontendKey, entry: u32 },
    /// Takes a frontend out of service.
    DeleteIndex { key: FrontendKey },
    /// Marks a backend that no list names any more.
    RetireBackend { id: u32, backend: Backend },
}

/// What a reconcile did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Frontends that were not served before.
    pub frontends_added: usize,
    /// Frontends that are served otherwise than before.
    pub frontends_changed: usize,
    /// Frontends no longer served.
    pub frontends_removed: usize,
    /// Backends written.
    pub backends_added: usize,
    /// Backends retired.
    pub backends_removed: usize,
    /// Writes in all.
    pub writes: usize,
}

impl Changes {
    /// Whether nothing had to be done.
    pub const fn is_empty(&self) -> bool {
        self.writes == 0
    }

    /// Both together.
    pub(in crate::dataplane) const fn plus(&self, other: &Self) -> Self {
        Self {
            frontends_added: self.frontends_added + other.frontends_added,
            frontends_changed: self.frontends_changed + other.frontends_changed,
            frontends_removed: self.frontends_removed + other.frontends_removed,
            backends_added: self.backends_added + other.backends_added,
            backends_removed: self.backends_removed + other.backends_removed,
            writes: self.writes + other.writes,
        }
    }
}

/// A map has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("map {map} is full: {size} entries")]
pub struct Full {
    /// The map.
    pub map: &'static str,
    /// How many entries it has.
    pub size: u32,
    /// Whether some of them are free soon: they rest, lest a running program meet them in a new role.
    pub resting: bool,
}

/// Plans changes and keeps the numbers.
#[derive(Clone, Debug)]
pub(in crate::dataplane) struct Planner {
    entries: Ranges,
    services: Ranges,
    backends: Ranges,
    slots: Ranges,
    /// Backends in the maps that nothing names, left by a process that ended half-way.
    orphans: Vec<u32>,
}

impl Planner {
    /// Takes up what the maps hold. Numbers that nothing names may have been named a moment ago, so they rest first.
    pub(in crate::dataplane) fn adopt(image: &Image, now: Duration) -> Self {
        let sizes = image.sizes;
        let mut planner = Self {
            entries: Ranges::new(sizes.entries),
            services: Ranges::new(sizes.services),
            backends: Ranges::new(sizes.backends),
            slots: Ranges::new(sizes.slots),
            orphans: Vec::new(),
        };
        let mut named_entries = BTreeSet::new();
        let mut named_backends = BTreeSet::new();
        for key in image.index.keys() {
            let Some((entry, frontend)) = image.current(key) else { continue };
            named_entries.insert(entry);
            planner.entries.claim(entry, 1);
            planner.services.claim(frontend.service, 1);
            for list in [frontend.cluster, frontend.local] {
                planner.slots.claim(list.base, list.count);
                named_backends.extend(image.ids(list));
            }
        }
        for &id in &named_backends {
            planner.backends.claim(id, 1);
        }
        for (id, backend) in (0_u32..).zip(&image.backends) {
            if backend.state != BackendState::Free as u8
                && !named_backends.contains(&id)
                && planner.backends.claim(id, 1)
            {
                if backend.state == BackendState::Active as u8 {
                    planner.orphans.push(id);
                } else {
                    planner.backends.rest(now, id, 1);
                }
            }
        }
        for (slot, id) in (0_u32..).zip(&image.slots) {
            if *id != 0 && planner.slots.claim(slot, 1) {
                planner.slots.rest(now, slot, 1);
            }
        }
        for (entry, frontend) in (0_u32..).zip(&image.frontends) {
            if *frontend != Frontend::default() && !named_entries.contains(&entry) && planner.entries.claim(entry, 1) {
                planner.entries.rest(now, entry, 1);
            }
        }
        planner
    }

    /// The writes that make the maps serve exactly `wanted`.
    pub(in crate::dataplane) fn plan(
        &mut self,
        image: &Image,
        wanted: &BTreeMap<FrontendKey, Wanted>,
        now: Duration,
    ) -> Result<(Vec<Op>, Changes), Full> {
        let removed: Vec<FrontendKey> = image.index.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        self.change(image, wanted.iter(), removed.iter(), now)
    }

    /// The writes that make the maps serve these frontends and no longer those, whatever else they serve.
    pub(in crate::dataplane) fn change<'a>(
        &mut self,
        image: &Image,
        wanted: impl Iterator<Item = (&'a FrontendKey, &'a Wanted)>,
        removed: impl Iterator<Item = &'a FrontendKey>,
        now: Duration,
    ) -> Result<(Vec<Op>, Changes), Full> {
        for ranges in [&mut self.entries, &mut self.services, &mut self.backends, &mut self.slots] {
            ranges.wake(now);
        }
        let mut draft = Draft::default();
        let before = self.clone();
        for (key, wanted) in wanted {
            if let Err(full) = self.put(image, *key, wanted, now, &mut draft) {
                *self = before;
                return Err(full);
            }
        }
        for key in removed {
            self.remove(image, *key, now, &mut draft);
        }
        for id in std::mem::take(&mut self.orphans) {
            self.retire(image, id, now, &mut draft);
        }
        Ok(draft.finish())
    }

    fn put(
        &mut self,
        image: &Image,
        key: FrontendKey,
        wanted: &Wanted,
        now: Duration,
        draft: &mut Draft,
    ) -> Result<(), Full> {
        let current = image.current(&key);
        let service = if let Some((_, frontend)) = current {
            frontend.service
        } else {
            let service = self.number(Pool::Services, image)?;
            draft.unreachable.push(Op::ResetStats { service });
            service
        };
        let keep =
            |list: List, endpoints: &[Endpoint]| image.endpoints(list, service).is_some_and(|found| found == endpoints);
        if let Some((_, frontend)) = current
            && frontend.flags == wanted.flags
            && frontend.affinity == wanted.affinity
            && keep(frontend.cluster, &wanted.cluster)
            && keep(frontend.local, &wanted.local)
        {
            return Ok(());
        }
        let old = current.map(|(_, frontend)| [frontend.cluster, frontend.local]).unwrap_or_default();
        let mut ids: HashMap<Endpoint, u32> = HashMap::new();
        for id in old.iter().flat_map(|list| image.ids(*list)) {
            if let Some(backend) = image.backends.get(*id as usize).filter(|b| b.serves(service)) {
                ids.insert((backend.addr, backend.port), *id);
            }
        }
        let before: BTreeSet<u32> = ids.values().copied().collect();
        let mut after = BTreeSet::new();
        let mut lists = [List::default(); 2];
        for (i, endpoints) in [&wanted.cluster, &wanted.local].into_iter().enumerate() {
            let mut slots = Vec::with_capacity(endpoints.len());
            for endpoint in endpoints {
                let id = if let Some(id) = ids.get(endpoint) {
                    *id
                } else {
                    let id = self.number(Pool::Backends, image)?;
                    let (addr, port) = *endpoint;
                    let state = BackendState::Active as u8;
                    let flags = kpx_abi::BackendFlags::default();
                    let backend = Backend { addr, port, proto: key.proto, state, service, flags };
                    draft.unreachable.push(Op::PutBackend { id, backend });
                    draft.changes.backends_added += 1;
                    ids.insert(*endpoint, id);
                    id
                };
                after.insert(id);
                slots.push(id);
            }
            let reusable = current.is_some() && keep(old[i], endpoints);
            lists[i] = if reusable { old[i] } else { self.list(slots, image, draft)? };
        }
        let entry = self.number(Pool::Entries, image)?;
        let frontend = Frontend {
            key,
            service,
            cluster: lists[0],
            local: lists[1],
            flags: wanted.flags,
            affinity: wanted.affinity,
        };
        draft.unreachable.push(Op::PutFrontend { entry, frontend });
        draft.index.push(Op::PutIndex { key, entry });
        match current {
            Some((old_entry, _)) => {
                draft.changes.frontends_changed += 1;
                self.entries.rest(now, old_entry, 1);
            }
            None => draft.changes.frontends_added += 1,
        }
        for (i, list) in old.into_iter().enumerate() {
            if list != lists[i] {
                self.slots.rest(now, list.base, list.count);
            }
        }
        for id in before.difference(&after) {
            self.retire(image, *id, now, draft);
        }
        Ok(())
    }

    fn remove(&mut self, image: &Image, key: FrontendKey, now: Duration, draft: &mut Draft) {
        if !image.index.contains_key(&key) {
            return;
        }
        draft.deletions.push(Op::DeleteIndex { key });
        draft.changes.frontends_removed += 1;
        let Some((entry, frontend)) = image.current(&key) else { return };
        self.entries.rest(now, entry, 1);
        self.services.rest(now, frontend.service, 1);
        let lists = [frontend.cluster, frontend.local];
        let ids: BTreeSet<u32> = lists.iter().flat_map(|list| image.ids(*list)).copied().collect();
        for list in lists {
            self.slots.rest(now, list.base, list.count);
        }
        for id in ids {
            if image.backends.get(id as usize).is_some_and(|b| b.serves(frontend.service)) {
                self.retire(image, id, now, draft);
            }
        }
    }

    fn retire(&mut self, image: &Image, id: u32, now: Duration, draft: &mut Draft) {
        let backend = Backend { state: BackendState::Gone as u8, ..image.backends[id as usize] };
        draft.retirements.push(Op::RetireBackend { id, backend });
        draft.changes.backends_removed += 1;
        self.backends.rest(now, id, 1);
    }

    fn list(&mut self, ids: Vec<u32>, image: &Image, draft: &mut Draft) -> Result<List, Full> {
        if ids.is_empty() {
            return Ok(List::default());
        }
        let full = Full { map: kpx_abi::map_name::SLOTS, size: image.sizes.slots, resting: self.slots.resting() };
        let count = u32::try_from(ids.len()).map_err(|_| full)?;
        let base = self.slots.take(count).ok_or(full)?;
        draft.unreachable.push(Op::PutSlots { base, ids });
        Ok(List { base, count })
    }

    fn number(&mut self, pool: Pool, image: &Image) -> Result<u32, Full> {
        let (ranges, map, size) = match pool {
            Pool::Entries => (&mut self.entries, kpx_abi::map_name::FRONTENDS, image.sizes.entries),
            Pool::Services => (&mut self.services, kpx_abi::map_name::STATS, image.sizes.services),
            Pool::Backends => (&mut self.backends, kpx_abi::map_name::BACKENDS, image.sizes.backends),
        };
        ranges.take(1).ok_or(Full { map, size, resting: ranges.resting() })
    }
}

#[derive(Clone, Copy)]
enum Pool {
    Entries,
    Services,
    Backends,
}

/// A plan in the making, by phase.
#[derive(Default)]
struct Draft {
    unreachable: Vec<Op>,
    index: Vec<Op>,
    deletions: Vec<Op>,
    retirements: Vec<Op>,
    changes: Changes,
}

impl Draft {
    fn finish(self) -> (Vec<Op>, Changes) {
        let mut ops = self.unreachable;
        // Alike next to alike, so that each kind is one batch; among those nobody can reach, the order is free.
        ops.sort_by_key(|op| match op {
            Op::ResetStats { .. } => 0,
            Op::PutBackend { .. } => 1,
            Op::PutSlots { .. } => 2,
            _ => 3,
        });
        ops.extend(self.index);
        ops.extend(self.deletions);
        ops.extend(self.retirements);
        let changes = Changes { writes: ops.len(), ..self.changes };
        (ops, changes)
    }
}

#[cfg(test)]
mod tests;
