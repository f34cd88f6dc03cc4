//! The maps, how the shared lookup reads them, and counting.

use core::arch::asm;
use core::ptr::addr_of;

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, SkStorage};
use aya_ebpf::macros::btf_map;
use kpx_abi::{
    Addr, AddressFlags, Affinity, AffinityKey, Backend, Client, Config, Frontend, FrontendKey, FrontendRef, Maps, Mode,
    NetworkFlags, Options, Peer, Reason, Socket, Stats, YieldKey, YieldUntil,
};

/// Entries of a map before the loader sets what it needs.
const DEFAULT: usize = 1024;

#[btf_map(name = "kpx_config")]
static CONFIG: Array<Config, 1> = Array::new();
#[btf_map(name = "kpx_index")]
static INDEX: HashMap<FrontendKey, FrontendRef, DEFAULT> = HashMap::new();
#[btf_map(name = "kpx_frontends")]
static FRONTENDS: Array<Frontend, DEFAULT> = Array::new();
#[btf_map(name = "kpx_slots")]
static SLOTS: Array<u32, DEFAULT> = Array::new();
#[btf_map(name = "kpx_backends")]
static BACKENDS: Array<Backend, DEFAULT> = Array::new();
#[btf_map(name = "kpx_stats")]
static STATS: Array<Stats, DEFAULT> = Array::new();
#[btf_map(name = "kpx_reasons")]
static REASONS: PerCpuArray<u64, { Reason::COUNT }> = PerCpuArray::new();
#[btf_map(name = "kpx_peers")]
pub static PEERS: SkStorage<Peer> = SkStorage::new();
#[btf_map(name = "kpx_sockets")]
pub static SOCKETS: SkStorage<Socket> = SkStorage::new();
#[btf_map(name = "kpx_yield")]
static YIELD: HashMap<YieldKey, YieldUntil, DEFAULT, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

#[btf_map(name = "kpx_addresses")]
static ADDRESSES: HashMap<Addr, AddressFlags, DEFAULT> = HashMap::new();
#[btf_map(name = "kpx_networks")]
static NETWORKS: LpmTrie<Addr, NetworkFlags, DEFAULT> = LpmTrie::new();
#[btf_map(name = "kpx_sources")]
static SOURCES: LpmTrie<Source, u8, DEFAULT> = LpmTrie::new();
#[btf_map(name = "kpx_clients")]
static CLIENTS: HashMap<u64, Client, DEFAULT> = HashMap::new();
#[btf_map(name = "kpx_affinity")]
static AFFINITY: LruHashMap<AffinityKey, Affinity, DEFAULT> = LruHashMap::new();

/// What follows the prefix length in a [`kpx_abi::SourceKey`].
#[repr(C)]
struct Source {
    service: u32,
    addr: Addr,
}

/// Whether the kernel has `bpf_set_retval` (Linux 5.18); set by the loader before the verifier looks, so that the call is
/// dead code where it would be refused.
#[unsafe(no_mangle)]
static HAVE_SET_RETVAL: u32 = 0;

#[inline(always)]
pub fn have_set_retval() -> bool {
    // SAFETY: a static; volatile, since the loader changes it after the compiler has seen its value.
    unsafe { addr_of!(HAVE_SET_RETVAL).read_volatile() != 0 }
}

/// The configuration as programs see it.
pub struct Settings {
    pub mode: Mode,
    pub yield_ns: u64,
    pub node_netns: u64,
    pub options: Options,
    pub snat_first: u16,
    pub snat_last: u16,
    pub mark: u32,
    pub unseen: u32,
}

#[inline(always)]
pub fn settings() -> Settings {
    match CONFIG.get_ptr(0) {
        // SAFETY: a pointer into the map. The mode is read once: it may change at any time.
        Some(config) => unsafe {
            Settings {
                mode: Mode::from_number(addr_of!((*config).mode).read_volatile()),
                yield_ns: (*config).yield_ns,
                node_netns: (*config).node_netns,
                options: (*config).options,
                snat_first: (*config).snat_first,
                snat_last: (*config).snat_last,
                mark: (*config).mark,
                unseen: (*config).unseen,
            }
        },
        None => Settings {
            mode: Mode::Off,
            yield_ns: 0,
            node_netns: 0,
            options: Options(0),
            snat_first: 0,
            snat_last: 0,
            mark: 0,
            unseen: 0,
        },
    }
}

/// The kernel's side of the shared lookup.
pub struct Kernel;

impl Maps for Kernel {
    #[inline(always)]
    fn entry(&self, key: &FrontendKey) -> Option<u32> {
        // SAFETY: one aligned word, read at once; that the element may be another's by now is what the lookup checks.
        unsafe { INDEX.get(key).map(|found| addr_of!(found.entry).read_volatile()) }
    }

    #[inline(always)]
    fn frontend(&self, entry: u32) -> Option<&Frontend> {
        FRONTENDS.get(entry)
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> u32 {
        SLOTS.get(index).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        BACKENDS.get(id)
    }

    #[inline(always)]
    fn address(&self, addr: &Addr) -> AddressFlags {
        // SAFETY: one aligned word, read at once; an element taken for another's address in passing is no worse than a
        // reading a moment earlier or later.
        AddressFlags(unsafe { ADDRESSES.get(addr).map_or(0, |found| addr_of!(found.0).read_volatile()) })
    }

    #[inline(always)]
    fn network(&self, addr: &Addr) -> NetworkFlags {
        NETWORKS.get(&Key::new(128, *addr)).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn source(&self, service: u32, addr: &Addr) -> bool {
        SOURCES.get(&Key::new(32 + 128, Source { service, addr: *addr })).is_some()
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        // SAFETY: a copy, which the lookup checks against the backend: an element that became another client's while it
        // was read leads to a backend that serves the service at worst.
        unsafe { AFFINITY.get(key).copied() }
    }
}

/// Remembers the backend that a client got.
#[inline(always)]
pub fn stick(key: &AffinityKey, id: u32, now_ns: u64) {
    // Failing to remember costs the affinity of one client; the flow itself is none the worse.
    count(Reason::Affinity);
    let _ = AFFINITY.insert(key, Affinity { last_ns: now_ns, backend: id, pad: 0 }, 0);
}

/// By which address the sockets of a network namespace are known, in this family.
#[inline(always)]
pub fn client(netns: u64, v4: bool) -> Option<Addr> {
    let found = known_client(netns)?;
    let addr = if v4 { found.v4 } else { found.v6 };
    (!kpx_abi::same(&addr, &[0; 16])).then_some(addr)
}

/// What is known of a network namespace.
#[inline(always)]
pub fn known_client(netns: u64) -> Option<&'static Client> {
    // SAFETY: namespaces come and go seldom, and their cookies are never used again.
    unsafe { CLIENTS.get(netns) }
}

/// Until when the kernel's conntrack keeps a flow that it had before the programs were attached.
#[inline(always)]
pub fn yields_until(key: &YieldKey) -> Option<u64> {
    // SAFETY: one aligned word, read at once. Elements are only added while programs run in active mode.
    unsafe { YIELD.get(key).map(|found| addr_of!(found.until_ns).read_volatile()) }
}

/// Counts a reason.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(counter) = REASONS.get_ptr_mut(reason as u32) {
        // SAFETY: this processor's own counter.
        unsafe { *counter += 1 };
    }
}

/// A counter of a service.
#[derive(Clone, Copy)]
pub enum Counter {
    Connects,
    Datagrams,
    Refused,
    Shadow,
    Passed,
}

/// Counts for a service.
#[inline(always)]
pub fn tally(service: u32, counter: Counter) {
    if let Some(stats) = STATS.get_ptr_mut(service) {
        // SAFETY: an aligned word of the map, touched atomically by all.
        unsafe {
            let word = match counter {
                Counter::Connects => &raw mut (*stats).connects,
                Counter::Datagrams => &raw mut (*stats).datagrams,
                Counter::Refused => &raw mut (*stats).refused,
                Counter::Shadow => &raw mut (*stats).shadow,
                Counter::Passed => &raw mut (*stats).passed,
            };
            // The one atomic instruction that every kernel knows; the target has no other and so `core` no `fetch_add`.
            asm!("lock *(u64 *)({word} + 0) += {one}", word = in(reg) word, one = in(reg) 1_u64, options(nostack));
        }
    }
}
