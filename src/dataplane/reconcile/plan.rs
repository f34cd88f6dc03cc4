//! The writes that lead from what the maps hold to what is wanted.
//!
//! Order: everything that nobody can reach yet (backends, slots, source ranges, entries), then the index, which makes it
//! reachable with one atomic write a frontend, then deletions from the index, and last what nobody may use any more: flags
//! of backends, backends that no list names, source ranges. After each single write every frontend in the index leads to
//! where it led before or to where it shall lead. What an earlier process left half-done is met as backends, ranges and
//! entries that nothing names: taken away, or simply written anew.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use kpx_abi::{Backend, BackendState, Flags, Frontend, FrontendKey, List, SourceKey, map_name};

use super::alloc::Ranges;
use super::draft::{Changes, Draft, Full, Op};
use super::image::Image;
use super::wanted::{CLUSTER, Endpoint, LOCAL, Wanted};

/// Plans changes and keeps the numbers.
#[derive(Clone, Debug)]
pub(in crate::dataplane) struct Planner {
    entries: Ranges,
    services: Ranges,
    backends: Ranges,
    slots: Ranges,
    /// Backends and source ranges in the maps that nothing names, left by a process that ended half-way.
    orphans: (Vec<u32>, Vec<SourceKey>),
}

/// What one change is about.
struct Change<'a> {
    image: &'a Image,
    now: Duration,
    /// All frontends that it puts or removes.
    keys: HashSet<FrontendKey>,
    /// Service ids that are given to a Service port.
    given: BTreeSet<u32>,
    /// Service ids that frontends leave.
    left: BTreeSet<u32>,
    /// Frontends and source ranges that the maps have after it.
    frontends: usize,
    sources: usize,
    draft: Draft,
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
            orphans: (Vec::new(), Vec::new()),
        };
        let mut named_entries = BTreeSet::new();
        let mut named_lists = BTreeSet::new();
        for key in image.index.keys() {
            let Some((entry, frontend)) = image.current(key) else { continue };
            named_entries.insert(entry);
            planner.entries.claim(entry, 1);
            named_lists.extend([frontend.cluster, frontend.local].map(|list| (list.base, list.count)));
        }
        for service in image.services() {
            planner.services.claim(service, 1);
        }
        let mut named_backends = BTreeSet::new();
        for (base, count) in named_lists {
            planner.slots.claim(base, count);
            named_backends.extend(image.ids(List { base, count }));
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
                    planner.orphans.0.push(id);
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
        let members: BTreeSet<u32> = image.services().collect();
        for (service, keys) in image.sources.iter().filter(|(service, _)| !members.contains(service)) {
            if planner.services.claim(*service, 1) {
                planner.services.rest(now, *service, 1);
            }
            planner.orphans.1.extend(keys);
        }
        planner
    }

    /// The writes that make the maps serve exactly `wanted`.
    pub(in crate::dataplane) fn plan(
        &mut self,
        image: &Image,
        wanted: &[Wanted],
        now: Duration,
    ) -> Result<(Vec<Op>, Changes), Full> {
        let keys: HashSet<&FrontendKey> = wanted.iter().flat_map(|w| w.faces.keys()).collect();
        let removed: Vec<FrontendKey> = image.index.keys().filter(|key| !keys.contains(key)).copied().collect();
        self.change(image, wanted, &removed, now)
    }

    const fn ranges(&mut self) -> [&mut Ranges; 4] {
        [&mut self.entries, &mut self.services, &mut self.backends, &mut self.slots]
    }

    /// Whether anything is free after a while.
    fn rests(&self) -> bool {
        [&self.entries, &self.services, &self.backends, &self.slots].iter().any(|ranges| ranges.resting())
    }

    /// The writes that make the maps serve these Service ports and no longer those frontends, whatever else they serve.
    pub(in crate::dataplane) fn change(
        &mut self,
        image: &Image,
        wanted: &[Wanted],
        removed: &[FrontendKey],
        now: Duration,
    ) -> Result<(Vec<Op>, Changes), Full> {
        for ranges in self.ranges() {
            ranges.wake(now);
            ranges.begin();
        }
        let mut change = Change {
            image,
            now,
            keys: wanted.iter().flat_map(|w| w.faces.keys()).chain(removed).copied().collect(),
            given: BTreeSet::new(),
            left: BTreeSet::new(),
            frontends: image.index.len(),
            sources: image.source_count,
            draft: Draft::default(),
        };
        for wanted in wanted {
            if let Err(full) = self.put(&mut change, wanted) {
                self.ranges().into_iter().for_each(Ranges::undo);
                // What this very plan was to give back will not be free if one waits for it.
                return Err(Full { resting: full.resting && self.rests(), ..full });
            }
        }
        for key in removed {
            self.remove(&mut change, *key);
        }
        for service in std::mem::take(&mut change.left).difference(&change.given.clone()) {
            self.release(&mut change, *service);
        }
        let (backends, sources) = std::mem::take(&mut self.orphans);
        for id in backends {
            self.retire(&mut change, id);
        }
        for key in sources {
            change.draft.push(Op::DeleteSource { key });
        }
        Ok(change.draft.finish())
    }

    fn put(&mut self, change: &mut Change<'_>, wanted: &Wanted) -> Result<(), Full> {
        let image = change.image;
        let service = self.service(change, wanted)?;
        change.given.insert(service);
        let old_lists: BTreeSet<(u32, u32)> = lists(image.members(service)).collect();
        let mut ids: HashMap<Endpoint, u32> = HashMap::new();
        for (base, count) in &old_lists {
            for id in image.ids(List { base: *base, count: *count }) {
                if let Some(backend) = image.serving(*id, service) {
                    ids.insert((backend.addr, backend.port), *id);
                }
            }
        }
        let old_ids: BTreeSet<u32> = ids.values().copied().collect();
        self.backends(change, wanted, service, &mut ids)?;
        let lists = self.lists(change, wanted, &old_lists, &ids)?;
        put_sources(change, wanted, service)?;
        for (key, face) in &wanted.faces {
            let list = |number: usize| if face.uses[number] { lists[number] } else { List::default() };
            let frontend = Frontend {
                key: *key,
                service,
                cluster: list(CLUSTER),
                local: list(LOCAL),
                flags: face.flags,
                affinity: face.affinity,
            };
            self.frontend(change, frontend)?;
        }
        for (base, count) in old_lists {
            if !lists.contains(&List { base, count }) {
                self.slots.rest(change.now, base, count);
            }
        }
        let kept: BTreeSet<u32> = wanted.backends.keys().filter_map(|endpoint| ids.get(endpoint)).copied().collect();
        for id in old_ids.difference(&kept) {
            self.retire(change, *id);
        }
        Ok(())
    }

    /// The service id of a Service port: that of its frontends, unless others have it too that this change leaves alone.
    fn service(&mut self, change: &mut Change<'_>, wanted: &Wanted) -> Result<u32, Full> {
        let image = change.image;
        let held = wanted.faces.keys().filter_map(|key| Some(image.current(key)?.1.service));
        let free = held.into_iter().find(|service| {
            !change.given.contains(service) && image.members(*service).all(|member| change.keys.contains(&member.key))
        });
        if let Some(service) = free {
            return Ok(service);
        }
        let service = take(&mut self.services, map_name::STATS, image.sizes.services)?;
        change.draft.push(Op::ResetStats { service });
        Ok(service)
    }

    fn backends(
        &mut self,
        change: &mut Change<'_>,
        wanted: &Wanted,
        service: u32,
        ids: &mut HashMap<Endpoint, u32>,
    ) -> Result<(), Full> {
        let proto = wanted.faces.keys().next().map_or(0, |key| key.proto);
        for (endpoint, flags) in &wanted.backends {
            let Some(&id) = ids.get(endpoint) else {
                let id = take(&mut self.backends, map_name::BACKENDS, change.image.sizes.backends)?;
                let (addr, port) = *endpoint;
                let state = BackendState::Active as u8;
                let backend = Backend { addr, port, proto, state, service, flags: *flags };
                change.draft.push(Op::PutBackend { id, backend });
                change.draft.changes.backends_added += 1;
                ids.insert(*endpoint, id);
                continue;
            };
            let old = change.image.backends[id as usize];
            let wide = flags.with(old.flags.memberships(), true);
            if wide != old.flags {
                change.draft.push(Op::PutBackend { id, backend: Backend { flags: wide, ..old } });
            }
            if wide != *flags {
                change.draft.push(Op::TrimBackend { id, backend: Backend { flags: *flags, ..old } });
            }
        }
        Ok(())
    }

    fn lists(
        &mut self,
        change: &mut Change<'_>,
        wanted: &Wanted,
        old: &BTreeSet<(u32, u32)>,
        ids: &HashMap<Endpoint, u32>,
    ) -> Result<[List; 2], Full> {
        let image = change.image;
        let mut lists = [List::default(); 2];
        for number in CLUSTER..=LOCAL {
            let slots: Vec<u32> =
                wanted.lists[number].iter().filter_map(|endpoint| ids.get(endpoint)).copied().collect();
            if slots.is_empty() {
                continue;
            }
            if number == LOCAL && wanted.lists[LOCAL] == wanted.lists[CLUSTER] {
                lists[LOCAL] = lists[CLUSTER];
                continue;
            }
            let same = old.iter().map(|(base, count)| List { base: *base, count: *count });
            if let Some(found) = same.into_iter().find(|list| image.ids(*list) == slots) {
                lists[number] = found;
                continue;
            }
            let full = Full { map: map_name::SLOTS, size: image.sizes.slots, resting: self.slots.resting() };
            let count = u32::try_from(slots.len()).map_err(|_| full)?;
            let base = self.slots.take(count).ok_or(full)?;
            change.draft.push(Op::PutSlots { base, ids: slots });
            lists[number] = List { base, count };
        }
        Ok(lists)
    }

    fn frontend(&mut self, change: &mut Change<'_>, frontend: Frontend) -> Result<(), Full> {
        let (image, key) = (change.image, frontend.key);
        let current = image.current(&key);
        if current.is_some_and(|(_, found)| *found == frontend) {
            return Ok(());
        }
        if !image.index.contains_key(&key) {
            change.frontends += 1;
            if change.frontends > image.sizes.frontends as usize {
                return Err(Full { map: map_name::INDEX, size: image.sizes.frontends, resting: false });
            }
        }
        let entry = take(&mut self.entries, map_name::FRONTENDS, image.sizes.entries)?;
        change.draft.push(Op::PutFrontend { entry, frontend });
        change.draft.push(Op::PutIndex { key, entry });
        match current {
            Some((old_entry, found)) => {
                change.draft.changes.frontends_changed += 1;
                self.entries.rest(change.now, old_entry, 1);
                change.left.insert(found.service);
            }
            None => change.draft.changes.frontends_added += 1,
        }
        Ok(())
    }

    fn remove(&mut self, change: &mut Change<'_>, key: FrontendKey) {
        if !change.image.index.contains_key(&key) {
            return;
        }
        change.draft.push(Op::DeleteIndex { key });
        change.draft.changes.frontends_removed += 1;
        let Some((entry, frontend)) = change.image.current(&key) else { return };
        self.entries.rest(change.now, entry, 1);
        change.left.insert(frontend.service);
    }

    /// Gives back what a service has that its frontends, as far as they stay, do not use.
    fn release(&mut self, change: &mut Change<'_>, service: u32) {
        let image = change.image;
        let staying: Vec<&Frontend> = image.members(service).filter(|f| !change.keys.contains(&f.key)).collect();
        let kept: BTreeSet<(u32, u32)> = lists(staying.iter().copied()).collect();
        let ids = |lists: &BTreeSet<(u32, u32)>| -> BTreeSet<u32> {
            lists.iter().flat_map(|(base, count)| image.ids(List { base: *base, count: *count })).copied().collect()
        };
        let all: BTreeSet<(u32, u32)> = lists(image.members(service)).collect();
        for (base, count) in all.difference(&kept) {
            self.slots.rest(change.now, *base, *count);
        }
        for id in ids(&all).difference(&ids(&kept)) {
            if image.serving(*id, service).is_some() {
                self.retire(change, *id);
            }
        }
        if !has_ranges(staying.iter().copied()) {
            for key in image.sources(service) {
                change.draft.push(Op::DeleteSource { key: *key });
            }
        }
        if staying.is_empty() {
            self.services.rest(change.now, service, 1);
        }
    }

    fn retire(&mut self, change: &mut Change<'_>, id: u32) {
        let backend = Backend { state: BackendState::Gone as u8, ..change.image.backends[id as usize] };
        change.draft.push(Op::TrimBackend { id, backend });
        change.draft.changes.backends_removed += 1;
        self.backends.rest(change.now, id, 1);
    }
}

fn put_sources(change: &mut Change<'_>, wanted: &Wanted, service: u32) -> Result<(), Full> {
    let image = change.image;
    let after: BTreeSet<SourceKey> = wanted
        .sources
        .iter()
        .map(|(prefix_len, addr)| SourceKey { prefix_len: 32 + prefix_len, service, addr: *addr })
        .collect();
    let before: BTreeSet<SourceKey> = image.sources(service).copied().collect();
    for key in after.difference(&before) {
        change.sources += 1;
        if change.sources > image.sizes.sources as usize {
            return Err(Full { map: map_name::SOURCES, size: image.sizes.sources, resting: false });
        }
        change.draft.push(Op::PutSource { key: *key });
    }
    for key in before.difference(&after) {
        change.draft.push(Op::DeleteSource { key: *key });
    }
    Ok(())
}

/// The lists that frontends name, as base and count.
fn lists<'a>(frontends: impl Iterator<Item = &'a Frontend>) -> impl Iterator<Item = (u32, u32)> {
    let both = frontends.flat_map(|frontend| [frontend.cluster, frontend.local]);
    both.filter(|list| list.count != 0).map(|list| (list.base, list.count))
}

fn has_ranges<'a>(mut frontends: impl Iterator<Item = &'a Frontend>) -> bool {
    frontends.any(|frontend| frontend.flags.has(Flags::SOURCE_RANGES))
}

fn take(ranges: &mut Ranges, map: &'static str, size: u32) -> Result<u32, Full> {
    ranges.take(1).ok_or(Full { map, size, resting: ranges.resting() })
}

#[cfg(test)]
mod tests;
