//! What the programs know of the node and of its clients: addresses, networks, network namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::Pod;
use ipnet::IpNet;
use kpx_abi::{Client, NetworkKey, map_name};

pub use kpx_abi::{AddressFlags, NetworkFlags};

use super::error::DataplaneError;
use super::maps::failed;
use super::reconcile::{self, Full};
use super::{Changes, Dataplane};
use crate::failpoint;
use crate::inspect::bpf::sys::Table;
use crate::model::{Detector, Exposure, Family, NodePortScope, ServiceTable};

/// By which addresses the sockets of a network namespace are known to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientAddresses {
    /// IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

/// What the addresses of a node are: `local` are those of its interfaces, NodePorts answer on those that the facts of the
/// table name, and each ClusterIP of the table is one.
///
/// NodePorts never answer on link-local IPv6 addresses: whose they are depends on the interface. On an address that is a
/// ClusterIP (ipvs mode binds them to an interface) they do not answer either.
pub fn node_addresses(table: &ServiceTable, local: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, AddressFlags> {
    let mut flags: BTreeMap<IpAddr, AddressFlags> = BTreeMap::new();
    for ip in local {
        let answers = match &table.facts(Family::of(*ip)).node_ports {
            NodePortScope::Unknown => false,
            NodePortScope::All { loopback } => *loopback || !ip.is_loopback(),
            NodePortScope::Addresses(listed) => listed.contains(ip),
        };
        let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        flags.insert(*ip, AddressFlags::LOCAL.with(AddressFlags::NODEPORT, answers && !link_local));
    }
    for frontend in table.frontends().iter().filter(|f| f.key.exposure == Exposure::ClusterIp) {
        let known = flags.entry(frontend.key.ip).or_default();
        *known = known.with(AddressFlags::NODEPORT, false).with(AddressFlags::CLUSTER_IP, true);
    }
    flags
}

/// Where the pods of a table are, as far as addresses tell.
pub fn pod_networks(table: &ServiceTable) -> BTreeMap<IpNet, NetworkFlags> {
    let nets = Family::BOTH.iter().filter_map(|family| match table.facts(*family).detector {
        Detector::Cidr(net) => Some(net.trunc()),
        _ => None,
    });
    nets.map(|net| (net, NetworkFlags::POD)).collect()
}

impl Dataplane {
    /// Makes the programs know these addresses and no others.
    pub fn set_addresses(&mut self, addresses: &BTreeMap<IpAddr, AddressFlags>) -> Result<Changes, DataplaneError> {
        let wanted = addresses.iter().map(|(ip, flags)| (reconcile::addr(*ip), *flags)).collect();
        set(&self.maps.addresses, map_name::ADDRESSES, &wanted)
    }

    /// What the programs know of addresses.
    pub fn addresses(&self) -> Result<BTreeMap<IpAddr, AddressFlags>, DataplaneError> {
        let held = self.maps.addresses.dump().map_err(failed("read", map_name::ADDRESSES))?;
        Ok(held.into_iter().map(|(addr, flags)| (Ipv6Addr::from(addr).to_canonical(), flags)).collect())
    }

    /// Makes the programs know these networks and no others.
    pub fn set_networks(&mut self, networks: &BTreeMap<IpNet, NetworkFlags>) -> Result<Changes, DataplaneError> {
        let key = |net| {
            let (prefix_len, addr) = reconcile::network(net);
            NetworkKey { prefix_len, addr }
        };
        let wanted = networks.iter().map(|(net, flags)| (key(net), *flags)).collect();
        set(&self.maps.networks, map_name::NETWORKS, &wanted)
    }

    /// Makes the programs know the sockets of these network namespaces, by cookie, and of no others.
    pub fn set_clients(&mut self, clients: &BTreeMap<u64, ClientAddresses>) -> Result<Changes, DataplaneError> {
        let value = |client: &ClientAddresses| Client {
            v4: client.v4.map_or([0; 16], |ip| reconcile::addr(ip.into())),
            v6: client.v6.map_or([0; 16], |ip| reconcile::addr(ip.into())),
        };
        let wanted = clients.iter().map(|(cookie, client)| (*cookie, value(client))).collect();
        set(&self.maps.clients, map_name::CLIENTS, &wanted)
    }
}

/// Makes a map hold exactly this: what is new before what goes, unless there is no room for both.
fn set<K, V>(table: &Table<K, V>, name: &'static str, wanted: &BTreeMap<K, V>) -> Result<Changes, DataplaneError>
where
    K: Pod + Default + Ord,
    V: Pod + Default + PartialEq,
{
    let size = table.max_entries();
    if wanted.len() > size as usize {
        return Err(Full { map: name, size, resting: false }.into());
    }
    let held: BTreeMap<K, V> = table.dump().map_err(failed("read", name))?.into_iter().collect();
    let new: Vec<_> = wanted.iter().filter(|(key, value)| held.get(key) != Some(value)).collect();
    let gone: Vec<_> = held.keys().filter(|key| !wanted.contains_key(key)).collect();
    let put = || new.iter().try_for_each(|(key, value)| table.put(key, value)).map_err(failed("write", name));
    let delete = || gone.iter().try_for_each(|key| table.delete(key).map(drop)).map_err(failed("delete from", name));
    if held.len() + new.len() <= size as usize {
        put()?;
        delete()?;
    } else {
        delete()?;
        put()?;
    }
    failpoint::changed();
    Ok(Changes { writes: new.len() + gone.len(), ..Changes::default() })
}
