//! Fills the maps of the lookup, field by field: what a frontend looks like to the packet path is the test's to say.

use std::net::{IpAddr, SocketAddr};

use aya::Pod;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData};
use kpx::dataplane::Paths;
use kpx_abi::{
    Addr, AddressFlags, Backend, BackendFlags, BackendState, Config, Device, Flags, Frontend, FrontendKey, FrontendRef,
    List, NetworkFlags, Tuple, map_name,
};

const READS: &str = "the map can be read";
const TAKES: &str = "the map takes it";

/// A frontend to be.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Address and port; a NodePort has the unspecified address.
    pub(super) at: SocketAddr,
    /// IANA protocol number.
    pub(super) protocol: u8,
    /// Its flags, exposure included.
    pub(super) flags: Flags,
    /// Backends; the second says whether it is on the node.
    pub(super) backends: Vec<(SocketAddr, bool)>,
}

/// The maps.
pub(crate) struct Tables {
    config: Array<MapData, Config>,
    index: HashMap<MapData, FrontendKey, FrontendRef>,
    frontends: Array<MapData, Frontend>,
    slots: Array<MapData, u32>,
    backends: Array<MapData, Backend>,
    addresses: HashMap<MapData, Addr, AddressFlags>,
    networks: LpmTrie<MapData, Addr, NetworkFlags>,
    devices: HashMap<MapData, u32, Device>,
    direct: Option<HashMap<MapData, Tuple, u64>>,
}

fn open<T: TryFrom<Map>>(paths: &Paths, name: &str, kind: fn(MapData) -> Map) -> T
where
    T::Error: std::fmt::Debug,
{
    let data = MapData::from_pin(paths.pins.join("maps").join(name)).expect("the map is pinned");
    T::try_from(kind(data)).expect("the map is of this kind")
}

fn ip(text: &str) -> Addr {
    addr(text.parse().expect("an address"))
}

/// An address as the maps have it.
pub(super) fn addr(ip: IpAddr) -> Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

impl Tables {
    pub(super) fn open(paths: &Paths) -> Self {
        Self {
            config: open(paths, map_name::CONFIG, Map::Array),
            index: open(paths, map_name::INDEX, Map::HashMap),
            frontends: open(paths, map_name::FRONTENDS, Map::Array),
            slots: open(paths, map_name::SLOTS, Map::Array),
            backends: open(paths, map_name::BACKENDS, Map::Array),
            addresses: open(paths, map_name::ADDRESSES, Map::HashMap),
            networks: open(paths, map_name::NETWORKS, Map::LpmTrie),
            devices: open(paths, map_name::DEVICES, Map::HashMap),
            // Layouts before the third have none.
            direct: paths
                .pins
                .join("maps")
                .join(map_name::DIRECT)
                .exists()
                .then(|| open(paths, map_name::DIRECT, Map::LruHashMap)),
        }
    }

    /// The node's addresses, NodePorts on all of them, and its pods' networks.
    pub(super) fn node(&mut self, addresses: &[&str], pods: &[&str]) {
        let own = AddressFlags::LOCAL.with(AddressFlags::NODEPORT, true);
        for address in addresses {
            self.addresses.insert(ip(address), own, 0).expect(TAKES);
        }
        for network in pods {
            let (prefix, length) = network.split_once('/').expect("a network");
            let length: u32 = length.parse().expect("a length");
            let length = if prefix.contains(':') { length } else { 96 + length };
            self.networks.insert(&Key::new(length, ip(prefix)), NetworkFlags::POD, 0).expect(TAKES);
        }
    }

    /// Marks a network.
    pub(super) fn network(&mut self, length: u32, prefix: &str, flags: NetworkFlags) {
        self.networks.insert(&Key::new(length, ip(prefix)), flags, 0).expect(TAKES);
    }

    /// Gives a described device of this namespace addresses to masquerade with.
    pub(super) fn masquerade_address(&mut self, device: &str, [v4, v6]: [&str; 2]) {
        let index = u32::try_from(super::super::old::index(device)).expect("small");
        let known = self.devices.get(&index, 0).expect(READS);
        self.devices.insert(index, Device { v4: ip(v4), v6: ip(v6), ..known }, 0).expect(TAKES);
    }

    /// Describes an Ethernet device.
    pub(super) fn ethernet_device(&mut self, index: u32) {
        let device = Device { flags: Device::ETHERNET, ..Device::default() };
        self.devices.insert(index, device, 0).expect(TAKES);
    }

    /// Marks an address.
    pub(super) fn mark(&mut self, address: &str, flags: AddressFlags) {
        self.addresses.insert(ip(address), flags, 0).expect(TAKES);
    }

    /// Writes the service of this number: its frontends and backends, all anew.
    pub(super) fn put(&mut self, service: u32, wanted: &Wanted) {
        let base = service * 16;
        for (n, (at, on_node)) in (0..).zip(&wanted.backends) {
            let backend = Backend {
                addr: addr(at.ip()),
                port: at.port().to_be(),
                proto: wanted.protocol,
                state: BackendState::Active as u8,
                service,
                flags: BackendFlags::IN_CLUSTER
                    .with(BackendFlags::IN_LOCAL, *on_node)
                    .with(BackendFlags::ON_NODE, *on_node),
            };
            set(&mut self.backends, base + n, backend);
            set(&mut self.slots, base + n, base + n);
        }
        // The local list is the part of the other that is on the node; backends on the node come first.
        let count = |list: &[(SocketAddr, bool)]| u32::try_from(list.len()).expect("a few");
        let local: Vec<_> = wanted.backends.iter().copied().take_while(|(_, on_node)| *on_node).collect();
        let key = FrontendKey::new(addr(wanted.at.ip()), wanted.at.port().to_be(), wanted.protocol);
        let frontend = Frontend {
            key,
            service,
            cluster: List { base, count: count(&wanted.backends) },
            local: List { base, count: count(&local) },
            flags: wanted.flags,
            affinity: 0,
        };
        set(&mut self.frontends, service, frontend);
        self.index.insert(key, FrontendRef { entry: service }, 0).expect(TAKES);
    }

    /// Gives the frontend of a service affinity, in seconds.
    pub(crate) fn affinity(&mut self, service: u32, seconds: u32) {
        let frontend = self.frontends.get(&service, 0).expect(READS);
        set(&mut self.frontends, service, Frontend { affinity: seconds, ..frontend });
    }

    /// Sets the source ports that masqueraded flows get.
    pub(super) fn source_ports(&mut self, first: u16, last: u16) {
        let config = self.config.get(&0, 0).expect(READS);
        set(&mut self.config, 0, Config { snat_first: first, snat_last: last, ..config });
    }

    /// Forgets which flows go straight to their destination, as where many others were used later.
    pub(super) fn forget_direct(&mut self) {
        let direct = self.direct.as_mut().expect("the layout has it");
        let known: Vec<Tuple> = direct.keys().collect::<Result<_, _>>().expect(READS);
        for key in known {
            direct.remove(&key).expect(TAKES);
        }
    }

    /// Takes the backends of a service away, all of them.
    pub(super) fn retire(&mut self, service: u32) {
        for n in 0..16 {
            let mut backend = self.backends.get(&(service * 16 + n), 0).expect(READS);
            backend.state = BackendState::Gone as u8;
            set(&mut self.backends, service * 16 + n, backend);
        }
    }
}

fn set<V: Pod>(array: &mut Array<MapData, V>, index: u32, value: V) {
    array.set(index, value, 0).expect(TAKES);
}
