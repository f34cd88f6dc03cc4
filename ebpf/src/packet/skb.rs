//! A packet in the kernel, as tc programs see it.

use core::ptr::addr_of_mut;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail,
    bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use kpx_abi::packet::Bytes;

/// Flags of the checksum helpers, `enum` of Linux's `bpf.h`.
mod flag {
    /// The bytes stored are not made up for elsewhere in the packet.
    pub(super) const RECOMPUTE_CSUM: u64 = 1;
    /// What changed is part of the pseudo header.
    pub(super) const PSEUDO_HDR: u64 = 1 << 4;
    /// Zero says that there is no checksum.
    pub(super) const MARK_MANGLED_0: u64 = 1 << 5;
    /// The header is put between the link and the network layer.
    pub(super) const ADJ_ROOM_MAC: u32 = 1;
    /// What is put there is an IPv4 header, or one of IPv6: devices are to know.
    pub(super) const ENCAP_L3_IPV4: u64 = 1 << 1;
    pub(super) const ENCAP_L3_IPV6: u64 = 1 << 2;
}

/// A checksum and what it is over.
#[derive(Clone, Copy)]
pub struct Checksum {
    /// Offset, bytes.
    pub at: u32,
    /// Zero says that there is none (UDP).
    pub optional: bool,
}

/// A packet.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Skb(*mut __sk_buff);

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $field:ident;)+) => {
        $(
            $(#[$doc])*
            #[inline(always)]
            pub fn $name(&self) -> u32 {
                // SAFETY: the context is valid for as long as the program runs.
                unsafe { addr_of_mut!((*self.0).$field).read_volatile() }
            }
        )+
    };
}

impl Skb {
    #[inline(always)]
    pub const fn new(skb: *mut __sk_buff) -> Self {
        Self(skb)
    }

    #[inline(always)]
    pub const fn raw(&self) -> *mut __sk_buff {
        self.0
    }

    fields! {
        /// The device whose hook this is.
        device: ifindex;
        /// The device that it came in by; 0 of what the node itself sends.
        came_by: ingress_ifindex;
        /// Payload of each of the segments that the device is to cut it into, bytes; 0 of a packet that stays whole.
        segment: gso_size;
        /// The mark.
        marks: mark;
        /// Whether a VLAN tag waits beside the packet: the VLAN's device will see it without.
        tagged: vlan_present;
    }

    /// The EtherType, host byte order.
    #[inline(always)]
    pub fn ether_type(&self) -> u16 {
        // SAFETY: as above. The field is in network byte order, in the low half.
        u16::from_be(unsafe { addr_of_mut!((*self.0).protocol).read_volatile() } as u16)
    }

    /// Sets bits of the mark.
    #[inline(always)]
    pub fn mark(&self, bits: u32) {
        // SAFETY: as above.
        unsafe {
            let mark = addr_of_mut!((*self.0).mark);
            mark.write_volatile(mark.read_volatile() | bits);
        }
    }

    /// Writes bytes whose change a checksum beside them makes up for, as that of IPv4's header does.
    #[inline(always)]
    pub fn store<const N: usize>(&self, at: u32, bytes: *const [u8; N]) -> bool {
        // SAFETY: as above; the pointer is to N readable bytes.
        unsafe { bpf_skb_store_bytes(self.0, at, bytes.cast(), N as u32, 0) == 0 }
    }

    /// Writes bytes whose change no header's own checksum makes up for: IPv6 addresses. (Where the device has summed up
    /// the packet, the kernel takes the change of a transport checksum for one of the sum, so the change of
    /// the addresses has to be told as well.)
    #[inline(always)]
    pub fn store_summed<const N: usize>(&self, at: u32, bytes: *const [u8; N]) -> bool {
        // SAFETY: as above.
        unsafe { bpf_skb_store_bytes(self.0, at, bytes.cast(), N as u32, flag::RECOMPUTE_CSUM) == 0 }
    }

    /// Brings the checksum of an IPv4 header up to date.
    #[inline(always)]
    pub fn fix_header(&self, at: u32, diff: u64) -> bool {
        // SAFETY: as above.
        unsafe { bpf_l3_csum_replace(self.0, at, 0, diff, 0) == 0 }
    }

    /// Brings a transport checksum up to date with a change of the pseudo header.
    #[inline(always)]
    pub fn fix_pseudo(&self, checksum: Checksum, diff: u64) -> bool {
        let optional = if checksum.optional { flag::MARK_MANGLED_0 } else { 0 };
        // SAFETY: as above.
        unsafe { bpf_l4_csum_replace(self.0, checksum.at, 0, diff, flag::PSEUDO_HDR | optional) == 0 }
    }

    /// Brings a transport checksum up to date with a change of what it covers itself.
    #[inline(always)]
    pub fn fix_body(&self, checksum: Checksum, diff: u64) -> bool {
        let optional = if checksum.optional { flag::MARK_MANGLED_0 } else { 0 };
        // SAFETY: as above.
        unsafe { bpf_l4_csum_replace(self.0, checksum.at, 0, diff, optional) == 0 }
    }

    /// Cuts the packet to this length, bytes from the link header on.
    #[inline(always)]
    pub fn cut(&self, length: u32) -> bool {
        // SAFETY: as above.
        unsafe { bpf_skb_change_tail(self.0, length, 0) == 0 }
    }

    /// Makes room for this many bytes between the link and the network header.
    #[inline(always)]
    pub fn insert(&self, length: i32) -> bool {
        // SAFETY: as above.
        unsafe { bpf_skb_adjust_room(self.0, length, flag::ADJ_ROOM_MAC, 0) == 0 }
    }

    /// Makes room for an IP header in front of the one there is.
    #[inline(always)]
    pub fn encapsulate(&self, length: i32, ipv6: bool) -> bool {
        let flags = if ipv6 { flag::ENCAP_L3_IPV6 } else { flag::ENCAP_L3_IPV4 };
        // SAFETY: as above.
        unsafe { bpf_skb_adjust_room(self.0, length, flag::ADJ_ROOM_MAC, flags) == 0 }
    }

    /// Takes that header away.
    #[inline(always)]
    pub fn decapsulate(&self, length: i32) -> bool {
        // SAFETY: as above.
        unsafe { bpf_skb_adjust_room(self.0, -length, flag::ADJ_ROOM_MAC, 0) == 0 }
    }
}

impl Bytes for Skb {
    #[inline(always)]
    fn read<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: the context is valid for as long as the program runs; the kernel writes N bytes, or none.
        let status = unsafe { bpf_skb_load_bytes(self.0.cast(), at, (&raw mut bytes).cast(), N as u32) };
        (status == 0).then_some(bytes)
    }
}

/// What a checksum has to be told when `N` bytes become others; `N` is a multiple of four.
#[inline(always)]
pub fn diff<const N: usize>(from: *const [u8; N], to: *const [u8; N]) -> u64 {
    u64::from(difference(from, to, 0))
}

/// The same on top of a sum.
#[inline(always)]
pub fn difference<const N: usize>(from: *const [u8; N], to: *const [u8; N], before: u32) -> u32 {
    // SAFETY: both are N readable bytes; the helper writes neither.
    (unsafe { bpf_csum_diff(from.cast_mut().cast(), N as u32, to.cast_mut().cast(), N as u32, before) }) as u32
}

/// The sum of `N` bytes and what was summed up before; `N` is a multiple of four.
#[inline(always)]
pub fn sum<const N: usize>(bytes: *const [u8; N], before: u32) -> u32 {
    // SAFETY: as above.
    (unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, bytes.cast_mut().cast(), N as u32, before) }) as u32
}

/// The checksum of a sum, in the byte order in which it is stored.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum >> 16) + (sum & 0xffff);
    !((once >> 16) + (once & 0xffff)) as u16
}
