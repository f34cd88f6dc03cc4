//! The maps of the packet path, and how flows are opened in them.

use aya_ebpf::bindings::{BPF_ANY, BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::btf_maps::{HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::macros::btf_map;
use kpx_abi::packet::{FragmentKey, Packet, Ports, proto};
use kpx_abi::{Addr, Cause, Device, Flow, Flows, Full, Mode, Opening, PortRange, Request, Room, TOUCH_NS, Tuple};

/// Entries of a map before the loader sets what it needs.
const DEFAULT: usize = 1024;

const EEXIST: i32 = 17;

#[btf_map(name = "kpx_conntrack")]
static CONNTRACK: HashMap<Tuple, Flow, DEFAULT, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();
#[btf_map(name = "kpx_fragments")]
static FRAGMENTS: LruHashMap<FragmentKey, Ports, DEFAULT> = LruHashMap::new();
#[btf_map(name = "kpx_direct")]
static DIRECT: LruHashMap<Tuple, u64, DEFAULT> = LruHashMap::new();
#[btf_map(name = "kpx_devices")]
static DEVICES: HashMap<u32, Device, DEFAULT> = HashMap::new();
#[btf_map(name = "kpx_scratch")]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// What the stack has no room for, and the functions of a program share. It belongs to one program at a time: tc programs
/// run with softirqs off, and what one redirects is sent after it has ended.
#[repr(C)]
pub struct Scratch {
    /// Monotonic nanoseconds.
    pub now_ns: u64,
    /// How long the kernel's conntrack keeps a flow of datagrams, nanoseconds.
    pub yield_ns: u64,
    /// A [`Mode`](kpx_abi::Mode).
    pub mode: Mode,
    /// Bits for the mark of packets before routing, so that filters know them.
    pub mark: u32,
    /// Bits for the mark of those that the kernel's conntrack is not to see.
    pub unseen: u32,
    /// Source ports to choose from.
    pub ports: PortRange,
    /// Whether this is the hook after routing.
    pub egress: bool,
    /// The device whose hook this is.
    pub device: Device,
    /// Its number.
    pub ifindex: u32,
    /// The packet.
    pub packet: Packet,
    /// The packet that an ICMP error quotes.
    pub quoted: Packet,
    /// What the packet becomes.
    pub to: Tuple,
    /// What the quoted packet becomes.
    pub quoted_to: Tuple,
    /// A flow to open.
    pub opening: Opening,
    /// Room to build entries in.
    pub room: Room,
    /// What is known of the flow.
    pub request: Request,
    /// Why the lookup found no backend.
    pub cause: Cause,
    /// Whether the client is remembered with the backend.
    pub sticky: bool,
    /// The device that a packet leaves by without the stack.
    pub out: u32,
    /// The largest packet that fits there, bytes.
    pub fits: u32,
    /// The address of this node that other nodes know.
    pub from: Addr,
    /// A header to be written, or a question to the kernel.
    pub bytes: [u64; 16],
}

#[inline(always)]
pub fn scratch() -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(0)
}

/// What is known of a device.
#[inline(always)]
pub fn device(index: u32) -> Option<&'static Device> {
    // SAFETY: elements are replaced when a device's address changes; a reader that meets that in the act sends one packet
    // by one of the two.
    unsafe { DEVICES.get(index) }
}

/// Remembers the ports of a fragmented datagram.
#[inline(always)]
pub fn remember_fragment(packet: &Packet) {
    let ports = Ports { src: packet.tuple.sport, dst: packet.tuple.dport };
    // Without room the later fragments are left alone, and counted there.
    let _ = FRAGMENTS.insert(packet.fragment_key(), ports, u64::from(BPF_ANY));
}

/// The ports of the datagram that this is a later fragment of.
#[inline(always)]
pub fn fragment_ports(packet: &Packet) -> Option<Ports> {
    // SAFETY: a copy of one aligned word.
    unsafe { FRAGMENTS.get(packet.fragment_key()).copied() }
}

/// How long a flow of datagrams that goes straight to its destination counts as in use, nanoseconds: longer than the
/// kernel's conntrack keeps one.
const DIRECT_NS: u64 = 180_000_000_000;

/// Notes that a flow goes straight to its destination; false if that is known.
#[inline(always)]
pub fn note_direct(tuple: &Tuple, now_ns: u64) -> bool {
    match DIRECT.get_ptr_mut(tuple) {
        // SAFETY: one aligned word of the map, written without order.
        Some(last) => unsafe {
            if now_ns.saturating_sub(last.read_volatile()) > TOUCH_NS {
                last.write_volatile(now_ns);
            }
            false
        },
        None => {
            // Without room the flow is not told apart from one by way of a Service that begins later.
            let _ = DIRECT.insert(tuple, now_ns, u64::from(BPF_ANY));
            true
        }
    }
}

/// Whether a client has a flow straight to a backend with these addresses and ports.
#[inline(always)]
pub fn is_direct(tuple: &Tuple, now_ns: u64) -> bool {
    // SAFETY: one aligned word, read at once.
    let last = unsafe { DIRECT.get(tuple).map(|last| core::ptr::addr_of!(*last).read_volatile()) };
    match last {
        Some(last) if tuple.proto == proto::UDP && now_ns.saturating_sub(last) > DIRECT_NS => {
            // Should it go on, its next datagram is its first again.
            let _ = DIRECT.remove(tuple);
            false
        }
        known => known.is_some(),
    }
}

/// The kernel's table of flows.
pub struct Conntrack;

impl Conntrack {
    /// A flow.
    #[inline(always)]
    pub fn find(&self, key: &Tuple) -> Option<*mut Flow> {
        CONNTRACK.get_ptr_mut(key)
    }
}

/// Notes that the flow is in use, and what its packets have shown. Writes only what is news.
#[inline(always)]
pub fn touch(flow: *mut Flow, signals: u8, now_ns: u64) {
    // SAFETY: an element of the map; words that all processors write without order, each a fact of its own.
    unsafe {
        if (*flow).seen | signals != (*flow).seen {
            (*flow).seen |= signals;
        }
        if now_ns.saturating_sub((*flow).last_ns) > TOUCH_NS {
            (*flow).last_ns = now_ns;
        }
    }
}

impl Flows for Conntrack {
    #[inline(always)]
    fn get(&self, key: &Tuple) -> Option<&Flow> {
        // SAFETY: elements go only when their flow has been idle for long.
        unsafe { CONNTRACK.get(key) }
    }

    #[inline(always)]
    fn put(&mut self, key: &Tuple, flow: &Flow) -> Result<(), Full> {
        CONNTRACK.insert(key, flow, u64::from(BPF_ANY)).map_err(|_| Full)
    }

    #[inline(always)]
    fn add(&mut self, key: &Tuple, flow: &Flow) -> Result<bool, Full> {
        match CONNTRACK.insert(key, flow, u64::from(BPF_NOEXIST)) {
            Ok(()) => Ok(true),
            Err(error) if error == -EEXIST => Ok(false),
            Err(_) => Err(Full),
        }
    }

    #[inline(always)]
    fn forget(&mut self, key: &Tuple) {
        // That it is gone is what was wanted.
        let _ = CONNTRACK.remove(key);
    }

    #[inline(always)]
    fn random(&mut self) -> u32 {
        // SAFETY: a helper without conditions.
        unsafe { bpf_get_prandom_u32() }
    }
}
