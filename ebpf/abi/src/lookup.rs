//! The Service lookup: from a destination to a backend, or to what happens instead.

use crate::{Backend, Flags, Frontend, FrontendKey, List};

/// How often a lookup is tried when it meets a change half-way.
///
/// A change is a handful of writes, each atomic for a reader; one repetition finds the new state unless changes to one
/// frontend follow each other within nanoseconds.
pub const ATTEMPTS: u32 = 4;

/// How the maps are read; the only part of the lookup that differs between the kernel and the host.
pub trait Maps {
    /// The entry of `kpx_frontends` that the index names for this key.
    fn entry(&self, key: &FrontendKey) -> Option<u32>;
    /// An entry of `kpx_frontends`.
    fn frontend(&self, entry: u32) -> Option<&Frontend>;
    /// The backend id in a slot; 0 outside of the map.
    fn slot(&self, index: u32) -> u32;
    /// A backend by id.
    fn backend(&self, id: u32) -> Option<&Backend>;
}

/// What a lookup finds.
#[derive(Debug)]
pub enum Verdict<'m> {
    /// No frontend at this address.
    NotService,
    /// A backend.
    Backend {
        /// Service id.
        service: u32,
        /// Backend id.
        id: u32,
        /// The backend.
        backend: &'m Backend,
    },
    /// No usable endpoint: to be refused.
    Reject {
        /// Service id.
        service: u32,
    },
    /// No endpoint on this node under a Local policy: silence.
    Drop {
        /// Service id.
        service: u32,
    },
    /// Every attempt met a change half-way.
    Missed,
}

/// The list that a connection from inside of the cluster uses, and whether it is empty by short circuit.
///
/// kube-proxy, Kubernetes 1.36: a ClusterIP follows internalTrafficPolicy; every other frontend gives traffic of pods and
/// of the node the Cluster list even where externalTrafficPolicy is Local.
#[inline(always)]
pub const fn list(frontend: &Frontend) -> (List, bool) {
    let external = !matches!(frontend.flags.exposure(), crate::Exposure::ClusterIp);
    if external {
        (frontend.cluster, frontend.flags.has(Flags::EXTERNAL_LOCAL))
    } else if frontend.flags.has(Flags::INTERNAL_LOCAL) {
        (frontend.local, false)
    } else {
        (frontend.cluster, false)
    }
}

/// Looks up where a new flow from inside of the cluster goes.
///
/// `random` chooses the backend: any number, evenly distributed. Calls `retried` each time an attempt met a change.
#[inline(always)]
pub fn lookup<'m, M: Maps>(maps: &'m M, key: &FrontendKey, random: u32, mut retried: impl FnMut()) -> Verdict<'m> {
    for _ in 0..ATTEMPTS {
        match attempt(maps, key, random) {
            Some(verdict) => return verdict,
            None => retried(),
        }
    }
    Verdict::Missed
}

#[inline(always)]
fn attempt<'m, M: Maps>(maps: &'m M, key: &FrontendKey, random: u32) -> Option<Verdict<'m>> {
    let Some(entry) = maps.entry(key) else { return Some(Verdict::NotService) };
    let frontend = maps.frontend(entry)?;
    if frontend.key != *key {
        return None;
    }
    let service = frontend.service;
    let (list, short_circuit) = list(frontend);
    if list.count == 0 {
        let drops = !short_circuit && frontend.flags.has(Flags::EMPTY_DROPS);
        return Some(if drops { Verdict::Drop { service } } else { Verdict::Reject { service } });
    }
    // The high half of the product spreads `random` evenly over the list, without a division.
    let offset = ((u64::from(random) * u64::from(list.count)) >> 32) as u32;
    let id = maps.slot(list.base.wrapping_add(offset));
    let backend = maps.backend(id)?;
    backend.serves(service).then_some(Verdict::Backend { service, id, backend })
}

/// Whether a flow of `key` that has backend `id` at this address may keep it: the frontend stands and the backend serves it.
#[inline(always)]
pub fn keeps<'m, M: Maps>(maps: &'m M, service: u32, id: u32, addr: &[u8; 16], port: u16) -> Option<&'m Backend> {
    let backend = maps.backend(id)?;
    (backend.serves(service) && backend.port == port && backend.addr == *addr).then_some(backend)
}
