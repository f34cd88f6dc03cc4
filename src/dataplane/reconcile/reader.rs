//! An image as the programs read maps, for tests.

use kpx_abi::{Addr, AddressFlags, Affinity, AffinityKey, Backend, Frontend, FrontendKey, Maps, NetworkFlags};

use super::image::Image;
use super::wanted::Network;

/// The image, and what else a lookup asks.
pub(super) struct Reader<'a> {
    pub(super) image: &'a Image,
    /// The backend that every client had last.
    pub(super) affinity: u32,
    pub(super) address: Box<dyn Fn(&Addr) -> AddressFlags + 'a>,
    pub(super) network: Box<dyn Fn(&Addr) -> NetworkFlags + 'a>,
}

impl Maps for Reader<'_> {
    fn entry(&self, key: &FrontendKey) -> Option<u32> {
        self.image.index.get(key).copied()
    }

    fn frontend(&self, entry: u32) -> Option<&Frontend> {
        self.image.frontends.get(entry as usize)
    }

    fn slot(&self, index: u32) -> u32 {
        self.image.slots.get(index as usize).copied().unwrap_or(0)
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        self.image.backends.get(id as usize)
    }

    fn address(&self, addr: &Addr) -> AddressFlags {
        (self.address)(addr)
    }

    fn network(&self, addr: &Addr) -> NetworkFlags {
        (self.network)(addr)
    }

    fn source(&self, service: u32, addr: &Addr) -> bool {
        self.image.sources(service).any(|key| inside(&(key.prefix_len - 32, key.addr), addr))
    }

    fn affinity(&self, _: &AffinityKey) -> Option<Affinity> {
        Some(Affinity { last_ns: 0, backend: self.affinity, pad: 0 })
    }
}

/// Whether a network holds an address.
pub(super) fn inside((prefix_len, network): &Network, addr: &Addr) -> bool {
    let bits = |addr: &Addr| u128::from_be_bytes(*addr).checked_shr(128 - prefix_len).unwrap_or(0);
    bits(network) == bits(addr)
}
