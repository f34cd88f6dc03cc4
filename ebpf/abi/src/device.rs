//! What the packet path has to know of a network device.

use crate::{Addr, same};

/// Value of `kpx_devices`, by ifindex.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Device {
    /// The IPv4 address that masqueraded packets leave by it with, v4-mapped; all zero: none.
    pub v4: Addr,
    /// The IPv6 address; all zero: none.
    pub v6: Addr,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Bits.
    pub flags: u16,
}

impl Device {
    /// Its packets have an Ethernet header.
    pub const ETHERNET: u16 = 1;
    /// Pods are behind it.
    pub const POD: u16 = 2;
    /// All its ports have the programs: what comes in by it has been seen before.
    pub const MASTER: u16 = 4;
    /// Some of its ports have the programs: part of what comes in by it has been seen before.
    pub const PARTLY: u16 = 8;

    /// Whether a flag is set.
    #[inline(always)]
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// The address to masquerade packets of this family with.
    #[inline(always)]
    pub const fn source(&self, ipv4: bool) -> Option<&Addr> {
        let addr = if ipv4 { &self.v4 } else { &self.v6 };
        if same(addr, &[0; 16]) { None } else { Some(addr) }
    }
}
