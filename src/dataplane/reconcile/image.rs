//! The contents of the maps.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use kpx_abi::{Addr, AddressFlags, Affinity, AffinityKey, Backend, Frontend, FrontendKey, List, Maps, NetworkFlags};

use super::plan::Op;
use super::wanted::{Endpoint, ip};

/// How many of each thing the maps can hold; number 0 of each is none, and not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Sizes {
    /// Entries of `kpx_frontends`.
    pub(in crate::dataplane) entries: u32,
    /// Entries of `kpx_stats`.
    pub(in crate::dataplane) services: u32,
    /// Entries of `kpx_backends`.
    pub(in crate::dataplane) backends: u32,
    /// Entries of `kpx_slots`.
    pub(in crate::dataplane) slots: u32,
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
    pub(in crate::dataplane) const fn empty(sizes: Sizes) -> Self {
        Self { sizes, index: BTreeMap::new(), frontends: Vec::new(), slots: Vec::new(), backends: Vec::new() }
    }

    /// The contents read from maps; arrays may end early.
    pub(in crate::dataplane) fn new(
        sizes: Sizes,
        index: BTreeMap<FrontendKey, u32>,
        frontends: Vec<Frontend>,
        slots: Vec<u32>,
        backends: Vec<Backend>,
    ) -> Self {
        Self { sizes, index, frontends, slots, backends }
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

    /// Address and port of a backend that serves this service.
    pub(in crate::dataplane) fn address_of(&self, id: u32, service: u32) -> Option<SocketAddr> {
        let backend = self.backend(id).filter(|backend| backend.serves(service))?;
        Some(SocketAddr::new(ip(backend.addr), u16::from_be(backend.port)))
    }

    /// The backend ids of a list, in the order of the slots.
    pub(in crate::dataplane) fn ids(&self, list: List) -> &[u32] {
        let range = list.base as usize..list.base.saturating_add(list.count) as usize;
        self.slots.get(range).unwrap_or(&[])
    }

    /// The endpoints of a list, sorted; `None` unless each slot names a backend that serves this service.
    pub(super) fn endpoints(&self, list: List, service: u32) -> Option<Vec<Endpoint>> {
        let ids = self.ids(list);
        if ids.len() != list.count as usize {
            return None;
        }
        let serving = |id: &u32| self.backend(*id).filter(|b| b.serves(service)).map(|b| (b.addr, b.port));
        let mut endpoints = ids.iter().map(serving).collect::<Option<Vec<_>>>()?;
        endpoints.sort_unstable();
        Some(endpoints)
    }

    /// The maps after a write.
    pub(in crate::dataplane) fn apply(&mut self, op: &Op) {
        match op {
            Op::ResetStats { .. } => {}
            Op::PutBackend { id, backend } | Op::RetireBackend { id, backend } => {
                put(&mut self.backends, *id, *backend);
            }
            Op::PutSlots { base, ids } => {
                for (slot, id) in (*base..).zip(ids) {
                    put(&mut self.slots, slot, *id);
                }
            }
            Op::PutFrontend { entry, frontend } => put(&mut self.frontends, *entry, *frontend),
            Op::PutIndex { key, entry } => {
                self.index.insert(*key, *entry);
            }
            Op::DeleteIndex { key } => {
                self.index.remove(key);
            }
        }
    }
}

impl Maps for Image {
    fn entry(&self, key: &FrontendKey) -> Option<u32> {
        self.index.get(key).copied()
    }

    fn frontend(&self, entry: u32) -> Option<&Frontend> {
        self.frontends.get(entry as usize)
    }

    fn slot(&self, index: u32) -> u32 {
        self.slots.get(index as usize).copied().unwrap_or(0)
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(id as usize)
    }

    fn address(&self, _: &Addr) -> AddressFlags {
        AddressFlags::default()
    }

    fn network(&self, _: &Addr) -> NetworkFlags {
        NetworkFlags::default()
    }

    fn source(&self, _: u32, _: &Addr) -> bool {
        false
    }

    fn affinity(&self, _: &AffinityKey) -> Option<Affinity> {
        None
    }
}
