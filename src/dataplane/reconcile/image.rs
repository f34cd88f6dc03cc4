//! The contents of the maps.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use kpx_abi::{Backend, BackendState, Frontend, FrontendKey, List, SourceKey};

use super::draft::Op;
use super::wanted::{Endpoint, ip};

/// How many of each thing the maps can hold; number 0 of each array is none, and not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Sizes {
    /// Elements of `kpx_index`.
    pub(in crate::dataplane) frontends: u32,
    /// Entries of `kpx_frontends`.
    pub(in crate::dataplane) entries: u32,
    /// Entries of `kpx_stats`.
    pub(in crate::dataplane) services: u32,
    /// Entries of `kpx_backends`.
    pub(in crate::dataplane) backends: u32,
    /// Entries of `kpx_slots`.
    pub(in crate::dataplane) slots: u32,
    /// Elements of `kpx_sources`.
    pub(in crate::dataplane) sources: u32,
}

/// The contents of the maps that a lookup reads.
#[derive(Clone, Debug)]
pub(in crate::dataplane) struct Image {
    pub(in crate::dataplane) sizes: Sizes,
    /// `kpx_index`.
    pub(super) index: BTreeMap<FrontendKey, u32>,
    /// `kpx_frontends`, `kpx_slots` and `kpx_backends`, as far as they were ever written.
    pub(super) frontends: Vec<Frontend>,
    pub(super) slots: Vec<u32>,
    pub(super) backends: Vec<Backend>,
    /// `kpx_sources` by service id.
    pub(super) sources: BTreeMap<u32, BTreeSet<SourceKey>>,
    /// How many those are.
    pub(super) source_count: usize,
    /// The frontends of each service id in the index.
    members: HashMap<u32, BTreeSet<FrontendKey>>,
}

fn put<T: Copy + Default>(array: &mut Vec<T>, index: u32, value: T) {
    let index = index as usize;
    if array.len() <= index {
        array.resize(index + 1, T::default());
    }
    array[index] = value;
}

impl Image {
    /// Empty maps.
    #[cfg(test)]
    pub(in crate::dataplane) fn empty(sizes: Sizes) -> Self {
        Self::new(sizes, BTreeMap::new(), (Vec::new(), Vec::new(), Vec::new()), [])
    }

    /// The contents read from maps; arrays (of frontends, slots, backends) may end early.
    pub(in crate::dataplane) fn new(
        sizes: Sizes,
        index: BTreeMap<FrontendKey, u32>,
        (frontends, slots, backends): (Vec<Frontend>, Vec<u32>, Vec<Backend>),
        sources: impl IntoIterator<Item = SourceKey>,
    ) -> Self {
        let mut by_service: BTreeMap<u32, BTreeSet<SourceKey>> = BTreeMap::new();
        for key in sources {
            by_service.entry(key.service).or_default().insert(key);
        }
        let source_count = by_service.values().map(BTreeSet::len).sum();
        let sources = by_service;
        let mut image =
            Self { sizes, index, frontends, slots, backends, sources, source_count, members: HashMap::new() };
        let mut members: HashMap<u32, BTreeSet<FrontendKey>> = HashMap::new();
        for key in image.index.keys() {
            if let Some((_, frontend)) = image.current(key) {
                members.entry(frontend.service).or_default().insert(*key);
            }
        }
        image.members = members;
        image
    }

    /// The keys in the index.
    pub(in crate::dataplane) fn keys(&self) -> impl Iterator<Item = &FrontendKey> {
        self.index.keys()
    }

    /// The entry number and contents of a frontend that the index names rightly.
    pub(in crate::dataplane) fn current(&self, key: &FrontendKey) -> Option<(u32, &Frontend)> {
        let entry = *self.index.get(key)?;
        let frontend = self.frontends.get(entry as usize)?;
        (frontend.key == *key).then_some((entry, frontend))
    }

    /// The entries that the index names rightly.
    pub(in crate::dataplane) fn entries(&self) -> impl Iterator<Item = &Frontend> {
        self.index.keys().filter_map(|key| self.current(key)).map(|(_, frontend)| frontend)
    }

    /// How many backends serve.
    pub(in crate::dataplane) fn active_backends(&self) -> usize {
        self.backends.iter().filter(|backend| backend.state == BackendState::Active as u8).count()
    }

    /// Address and port of a backend that serves this service.
    pub(in crate::dataplane) fn address_of(&self, id: u32, service: u32) -> Option<SocketAddr> {
        let backend = self.serving(id, service)?;
        Some(SocketAddr::new(ip(backend.addr), u16::from_be(backend.port)))
    }

    /// The backends that take flows, by id.
    pub(in crate::dataplane) fn active(&self) -> impl Iterator<Item = (u32, &Backend)> {
        (0..).zip(&self.backends).filter(|(_, backend)| backend.serves(backend.service))
    }

    /// The frontends that have this service id.
    pub(super) fn members(&self, service: u32) -> impl Iterator<Item = &Frontend> {
        self.members.get(&service).into_iter().flatten().filter_map(|key| Some(self.current(key)?.1))
    }

    /// The service ids in use.
    pub(super) fn services(&self) -> impl Iterator<Item = u32> {
        self.members.keys().copied()
    }

    /// The source ranges of a service.
    pub(super) fn sources(&self, service: u32) -> impl Iterator<Item = &SourceKey> {
        self.sources.get(&service).into_iter().flatten()
    }

    /// The backend ids of a list, in the order of the slots.
    pub(in crate::dataplane) fn ids(&self, list: List) -> &[u32] {
        let range = list.base as usize..list.base.saturating_add(list.count) as usize;
        self.slots.get(range).unwrap_or(&[])
    }

    /// A backend that takes flows of this service.
    pub(super) fn serving(&self, id: u32, service: u32) -> Option<&Backend> {
        self.backends.get(id as usize).filter(|backend| backend.serves(service))
    }

    /// The endpoints of a list, slot by slot; `None` unless each slot names a backend that serves this service.
    pub(super) fn endpoints(&self, list: List, service: u32) -> Option<Vec<Endpoint>> {
        let ids = self.ids(list);
        if ids.len() != list.count as usize {
            return None;
        }
        ids.iter().map(|id| self.serving(*id, service).map(|b| (b.addr, b.port))).collect()
    }

    /// The maps after a write.
    pub(in crate::dataplane) fn apply(&mut self, op: &Op) {
        match op {
            Op::ResetStats { .. } => {}
            Op::PutBackend { id, backend } | Op::TrimBackend { id, backend } => put(&mut self.backends, *id, *backend),
            Op::PutSlots { base, ids } => {
                for (slot, id) in (*base..).zip(ids) {
                    put(&mut self.slots, slot, *id);
                }
            }
            Op::PutSource { key } => {
                let new = self.sources.entry(key.service).or_default().insert(*key);
                self.source_count += usize::from(new);
            }
            Op::DeleteSource { key } => {
                if let Some(sources) = self.sources.get_mut(&key.service) {
                    self.source_count -= usize::from(sources.remove(key));
                }
            }
            Op::PutFrontend { entry, frontend } => put(&mut self.frontends, *entry, *frontend),
            Op::PutIndex { key, entry } => {
                self.leave(key);
                self.index.insert(*key, *entry);
                if let Some(service) = self.current(key).map(|(_, frontend)| frontend.service) {
                    self.members.entry(service).or_default().insert(*key);
                }
            }
            Op::DeleteIndex { key } => {
                self.leave(key);
                self.index.remove(key);
            }
        }
    }

    /// Takes a frontend from the members of its service.
    fn leave(&mut self, key: &FrontendKey) {
        let Some(service) = self.current(key).map(|(_, frontend)| frontend.service) else { return };
        if let Some(members) = self.members.get_mut(&service) {
            members.remove(key);
            if members.is_empty() {
                self.members.remove(&service);
            }
        }
    }
}
