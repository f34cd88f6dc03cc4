//! An image as the programs read maps.

use kpx_abi::{Addr, AddressFlags, Affinity, AffinityKey, Backend, Frontend, FrontendKey, Maps, NetworkFlags};

use super::image::Image;
use super::wanted::Network;

/// What a client had last.
type Memory<'a> = dyn Fn(&AffinityKey) -> Option<Affinity> + 'a;

/// The image, and what else a lookup asks.
pub(in crate::dataplane) struct Reader<'a> {
    pub(in crate::dataplane) image: &'a Image,
    /// What a client had last.
    pub(in crate::dataplane) affinity: Box<Memory<'a>>,
    pub(in crate::dataplane) address: Box<dyn Fn(&Addr) -> AddressFlags + 'a>,
    pub(in crate::dataplane) network: Box<dyn Fn(&Addr) -> NetworkFlags + 'a>,
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

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        (self.affinity)(key)
    }
}

/// Whether a network holds an address.
pub(in crate::dataplane) fn inside((prefix_len, network): &Network, addr: &Addr) -> bool {
    let bits = |addr: &Addr| u128::from_be_bytes(*addr).checked_shr(128 - prefix_len).unwrap_or(0);
    bits(network) == bits(addr)
}

/// The memory of a dataplane all of whose clients had this backend last.
#[cfg(test)]
pub(super) fn all_had(backend: u32) -> Box<Memory<'static>> {
    Box::new(move |_| Some(Affinity { last_ns: 0, backend, pad: 0 }))
}
