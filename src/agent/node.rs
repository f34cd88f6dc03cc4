//! What the programs have to know besides Services: the node's addresses, networks, and whose sockets are whose.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::cluster::Cluster;
use super::table::LiveTable;
use super::{addresses, namespaces};
use crate::capture::netlink::NetlinkError;
use crate::capture::netns;
use crate::dataplane::{ClientAddresses, Dataplane, DataplaneError, NetworkFlags, node_addresses};
use crate::inspect::bpf::sys;
use crate::inspect::kube::Place;
use crate::model::{Detector, Family};

/// Why the programs could not be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodeError {
    /// The node's addresses are not known.
    #[error("the node's addresses cannot be listed")]
    Addresses(#[from] NetlinkError),
    /// Processes cannot be listed.
    #[error("network namespaces cannot be found")]
    Namespaces(#[from] std::io::Error),
    /// The maps refuse.
    #[error(transparent)]
    Maps(#[from] DataplaneError),
}

/// Makes the maps of the node true.
pub(super) fn tell(
    dataplane: &mut Dataplane,
    table: &LiveTable,
    cluster: &Cluster,
    place: &Place,
) -> Result<(), NodeError> {
    dataplane.set_addresses(&node_addresses(&table.table(place), &addresses::local()?))?;
    dataplane.set_networks(&networks(cluster, place))?;
    dataplane.set_clients(&clients()?)?;
    Ok(())
}

/// Where pods are, as far as addresses tell, and where ClusterIPs come from.
fn networks(cluster: &Cluster, place: &Place) -> BTreeMap<IpNet, NetworkFlags> {
    let mut networks: BTreeMap<IpNet, NetworkFlags> = BTreeMap::new();
    let mut add = |net: IpNet, flag: NetworkFlags| {
        let flags = networks.entry(net.trunc()).or_default();
        *flags = flags.with(flag, true);
    };
    for family in Family::BOTH {
        if let Detector::Cidr(net) = place.facts.of(family).detector {
            add(net, NetworkFlags::POD);
        }
    }
    for net in cluster.service_cidrs().into_iter().filter_map(|text| text.parse().ok()) {
        add(net, NetworkFlags::SERVICE);
    }
    networks
}

/// The namespaces that can be entered, by the cookie that the programs know them by. Those of pods need `CAP_SYS_ADMIN`;
/// without it, affinity of their sockets goes by the cookie alone.
fn clients() -> std::io::Result<BTreeMap<u64, ClientAddresses>> {
    let found = namespaces::find()?;
    // A thread of its own enters them, since none comes back without leave.
    let work = || found.iter().filter_map(|path| client(path)).collect();
    std::thread::scope(|scope| scope.spawn(work).join()).map_err(|_| std::io::ErrorKind::Other.into())
}

fn client(path: &Path) -> Option<(u64, ClientAddresses)> {
    netns::enter(&path.display().to_string()).ok()?;
    let cookie = sys::netns_cookie().ok()?;
    let mut client = ClientAddresses::default();
    for ip in addresses::local().ok()?.into_iter().filter(|ip| !ip.is_loopback()) {
        match ip {
            IpAddr::V4(v4) if !v4.is_link_local() => drop(client.v4.get_or_insert(v4)),
            IpAddr::V6(v6) if !v6.is_unicast_link_local() => drop(client.v6.get_or_insert(v6)),
            _ => {}
        }
    }
    (client != ClientAddresses::default()).then_some((cookie, client))
}
