//! The Service lookup: from a destination to a backend, or to what happens instead.

use crate::{
    Addr, AddressFlags, Affinity, AffinityKey, Backend, BackendFlags, Exposure, Flags, Frontend, FrontendKey, List,
    NetworkFlags, is_loopback, is_stand_in, owner, same, unspecified,
};

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
    /// What this very address is.
    fn address(&self, addr: &Addr) -> AddressFlags;
    /// What the narrowest network around this address is.
    fn network(&self, addr: &Addr) -> NetworkFlags;
    /// Whether a source range of the service holds this address.
    fn source(&self, service: u32, addr: &Addr) -> bool;
    /// The backend that a client got last.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;
}

/// Where a flow comes from, as far as kube-proxy treats it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From outside of the node and of the cluster; also from pods where the node has no way to recognise them.
    Outside,
    /// From a pod.
    Pod,
    /// From a socket of the node itself.
    Node,
}

/// A new flow.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Where it is sent to.
    pub key: FrontendKey,
    /// Where it comes from.
    pub origin: Origin,
    /// The client's address, or a [`stand_in`](crate::stand_in) where it has none yet.
    pub client: Addr,
    /// Any number, evenly distributed: chooses the backend.
    pub random: u32,
    /// The same for the flow on every node, see [`flow_hash`](crate::flow_hash): chooses the backend of a
    /// [`MAGLEV`](Flags::MAGLEV) frontend.
    pub hash: u32,
    /// Monotonic nanoseconds.
    pub now_ns: u64,
}

impl Request {
    /// By what the client's affinity to a service is remembered.
    #[inline(always)]
    pub const fn affinity_key(&self, service: u32) -> AffinityKey {
        AffinityKey { client: self.client, service }
    }
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
        /// Whether the backend is to see the node's address instead of the client's.
        masquerade: bool,
        /// Whether its node may answer the client itself, instead of the masquerade: the client is outside, and the
        /// backend on another node.
        direct: bool,
        /// Whether `kpx_affinity` is to remember this for the client, once the flow is translated.
        sticky: bool,
    },
    /// No usable endpoint: to be refused.
    Reject {
        /// Service id.
        service: u32,
    },
    /// Silence.
    Drop {
        /// Service id.
        service: u32,
        /// Why.
        why: DropReason,
    },
    /// A ClusterIP, but no port that its Service has. nftables mode refuses it, iptables mode lets it pass.
    UndefinedPort,
    /// No Service has this address of the network that ClusterIPs are allocated from. nftables mode drops it, iptables
    /// mode lets it pass.
    Unallocated,
    /// What happens depends on an address that the client does not have yet.
    Defer {
        /// Service id.
        service: u32,
    },
    /// Every attempt met a change half-way.
    Missed,
}

/// Why a flow meets silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// A Local policy without an endpoint on this node.
    NoLocalEndpoint,
    /// No source range of the Service holds the client.
    Source,
}

/// The list that a flow uses, and whether it is so by short circuit.
///
/// kube-proxy, Kubernetes 1.36: a ClusterIP follows internalTrafficPolicy; every other frontend follows
/// externalTrafficPolicy for traffic from outside, and gives traffic of pods and of the node the Cluster list even where
/// that is Local.
#[inline(always)]
pub const fn list(frontend: &Frontend, origin: Origin) -> (BackendFlags, bool) {
    let external = !matches!(frontend.flags.exposure(), Exposure::ClusterIp);
    let local = frontend.flags.has(if external { Flags::EXTERNAL_LOCAL } else { Flags::INTERNAL_LOCAL });
    if !local {
        (BackendFlags::IN_CLUSTER, false)
    } else if external && !matches!(origin, Origin::Outside) {
        (BackendFlags::IN_CLUSTER, true)
    } else {
        (BackendFlags::IN_LOCAL, false)
    }
}

/// Whether the backend is to see the node's address: kube-proxy's rules, Kubernetes 1.36.
#[inline(always)]
const fn masquerade(frontend: &Frontend, request: &Request, backend: &Backend, short_circuit: bool) -> bool {
    let flags = frontend.flags;
    flags.has(Flags::MASQUERADE_ALWAYS)
        || flags.has(Flags::MASQUERADE_OFF_CLUSTER) && !matches!(request.origin, Origin::Pod)
        || short_circuit && matches!(request.origin, Origin::Node)
        // Hairpin: were the client to see itself as its peer, it would answer itself.
        || same(&request.client, &backend.addr)
}

/// Whether the backend's node may answer the client itself.
#[inline(always)]
const fn direct(frontend: &Frontend, request: &Request, backend: &Backend) -> bool {
    frontend.flags.has(Flags::DSR)
        && matches!(request.origin, Origin::Outside)
        && !backend.flags.has(BackendFlags::ON_NODE)
        && !same(&request.client, &backend.addr)
}

/// Looks up where a new flow goes.
///
/// Calls `retried` each time an attempt met a change.
#[inline(always)]
pub fn lookup<'m, M: Maps>(maps: &'m M, request: &Request, mut retried: impl FnMut()) -> Verdict<'m> {
    for _ in 0..ATTEMPTS {
        match attempt(maps, request) {
            Some(verdict) => return verdict,
            None => retried(),
        }
    }
    Verdict::Missed
}

#[inline(always)]
fn attempt<'m, M: Maps>(maps: &'m M, request: &Request) -> Option<Verdict<'m>> {
    let mut key = request.key;
    let mut entry = maps.entry(&key);
    if entry.is_none() {
        let flags = maps.address(&owner(&key.addr));
        // Another namespace's loopback address is not the node's.
        let own = matches!(request.origin, Origin::Node) || !is_loopback(&key.addr);
        if own && flags.has(AddressFlags::NODEPORT) {
            key.addr = unspecified(&key.addr);
            entry = maps.entry(&key);
        }
        if entry.is_none() {
            return Some(no_frontend(maps, &request.key.addr, flags));
        }
    }
    let entry = entry?;
    let frontend = maps.frontend(entry)?;
    if frontend.key.port != key.port || frontend.key.proto != key.proto || !same(&frontend.key.addr, &key.addr) {
        return None;
    }
    let service = frontend.service;
    if frontend.flags.has(Flags::SOURCE_RANGES) {
        if is_stand_in(&request.client) {
            return Some(Verdict::Defer { service });
        }
        if !maps.source(service, &request.client) {
            // The ranges of an entry go after it: if it is still the current one, they were all there.
            let current = maps.entry(&key)? == entry;
            return current.then_some(Verdict::Drop { service, why: DropReason::Source });
        }
    }
    let (membership, short_circuit) = list(frontend, request.origin);
    let list = if membership.has(BackendFlags::IN_CLUSTER) { frontend.cluster } else { frontend.local };
    if list.count == 0 {
        let drops = !short_circuit && frontend.flags.has(Flags::EMPTY_DROPS);
        let why = DropReason::NoLocalEndpoint;
        return Some(if drops { Verdict::Drop { service, why } } else { Verdict::Reject { service } });
    }
    let (id, backend) = match remembered(maps, frontend, request, membership) {
        Some(found) => found,
        None => choose(maps, frontend, request, list)?,
    };
    let masquerade = masquerade(frontend, request, backend, short_circuit);
    let direct = masquerade && direct(frontend, request, backend);
    Some(Verdict::Backend { service, id, backend, masquerade, direct, sticky: frontend.affinity != 0 })
}

/// Makes the compiler choose between verdicts by a jump. If it made the verdict from the flag by arithmetic, a verifier that
/// follows no more than its bits (Linux 5.10, 6.1) would see others too, also those whose backend was never set.
#[inline(always)]
fn stay_a_branch() {
    core::hint::black_box(());
}

#[inline(always)]
fn no_frontend<'m, M: Maps>(maps: &M, addr: &Addr, flags: AddressFlags) -> Verdict<'m> {
    if flags.has(AddressFlags::CLUSTER_IP) {
        stay_a_branch();
        Verdict::UndefinedPort
    } else if maps.network(addr).has(NetworkFlags::SERVICE) {
        stay_a_branch();
        Verdict::Unallocated
    } else {
        Verdict::NotService
    }
}

/// The backend that the client had last, if its affinity holds.
#[inline(always)]
fn remembered<'m, M: Maps>(
    maps: &'m M,
    frontend: &Frontend,
    request: &Request,
    membership: BackendFlags,
) -> Option<(u32, &'m Backend)> {
    if frontend.affinity == 0 {
        return None;
    }
    let found = maps.affinity(&request.affinity_key(frontend.service))?;
    // Two processors' clocks may disagree by a little, so the difference saturates.
    if request.now_ns.saturating_sub(found.last_ns) >= u64::from(frontend.affinity) * 1_000_000_000 {
        return None;
    }
    let backend = maps.backend(found.backend)?;
    (backend.serves(frontend.service) && backend.flags.has(membership)).then_some((found.backend, backend))
}

/// A backend of the list; `None` where the list is being changed.
#[inline(always)]
fn choose<'m, M: Maps>(maps: &'m M, frontend: &Frontend, request: &Request, list: List) -> Option<(u32, &'m Backend)> {
    let number = if frontend.flags.has(Flags::MAGLEV) { request.hash } else { request.random };
    // The high half of the product spreads the number evenly over the list, without a division.
    let offset = ((u64::from(number) * u64::from(list.count)) >> 32) as u32;
    let id = maps.slot(list.base.wrapping_add(offset));
    let backend = maps.backend(id)?;
    backend.serves(frontend.service).then_some((id, backend))
}

/// Whether a flow that has backend `id` at this address may keep it: the backend serves the service still.
#[inline(always)]
pub fn keeps<'m, M: Maps>(maps: &'m M, service: u32, id: u32, addr: &Addr, port: u16) -> Option<&'m Backend> {
    let backend = maps.backend(id)?;
    (backend.serves(service) && backend.port == port && same(&backend.addr, addr)).then_some(backend)
}
