//! What the programs have to know besides Services: the node's addresses, networks, and whose sockets are whose.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::cluster::Cluster;
use super::peers::LABEL;
use super::table::LiveTable;
use super::{addresses, namespaces, peers};
use crate::capture::netlink::NetlinkError;
use crate::capture::netns;
use crate::dataplane::{ClientAddresses, Dataplane, DataplaneError, Dsr, NetworkFlags, node_addresses};
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

/// Makes the maps of addresses and networks true; the node's own addresses.
pub(super) fn tell(
    dataplane: &mut Dataplane,
    table: &LiveTable,
    cluster: &Cluster,
    place: &Place,
) -> Result<BTreeSet<IpAddr>, NodeError> {
    let local = addresses::local()?;
    let mut known = node_addresses(&table.table(place), &local);
    let base = networks(cluster, place);
    if dataplane.dsr() == Dsr::Off {
        dataplane.set_addresses(&known)?;
        dataplane.set_networks(&base)?;
        return Ok(local);
    }
    let peers = cluster.peers();
    peers::add_addresses(peers.values(), &mut known);
    dataplane.set_addresses(&known)?;
    let mut all = base.clone();
    let others = peers.iter().filter(|(name, _)| *name != cluster.own()).map(|(_, peer)| peer);
    peers::add_networks(others, &mut all);
    match dataplane.set_networks(&all) {
        Ok(_) => Ok(local),
        // Those of pods have to be there; the backends of other nodes are reached without direct return, too.
        Err(full @ DataplaneError::Full(_)) => {
            dataplane.set_networks(&base)?;
            Err(full.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes the map of the namespaces' addresses true.
pub(super) fn tell_clients(dataplane: &mut Dataplane) -> Result<(), NodeError> {
    dataplane.set_clients(&clients()?)?;
    Ok(())
}

/// What keeps direct server return from being what the agent's option and the Nodes' labels say.
pub(super) fn dsr_troubles(dsr: Dsr, cluster: &Cluster, local: &BTreeSet<IpAddr>, on_devices: bool) -> Vec<String> {
    let peers = cluster.peers();
    let own = peers.get(cluster.own());
    let mut troubles = Vec::new();
    if own.is_some_and(|own| own.answers) && (dsr == Dsr::Off || !on_devices) {
        let why = if on_devices { "this agent runs with --dsr off" } else { "no network device has the packet path" };
        troubles.push(format!(
            "the Node has the label {LABEL}, and {why}: flows that other nodes announce are lost; remove it: \
             kubectl label node {} {LABEL}-",
            cluster.own()
        ));
    }
    if dsr == Dsr::Off {
        return troubles;
    }
    if own.is_none_or(|own| own.addresses.is_disjoint(local)) {
        troubles.push("no InternalIP of the Node is on this node: it announces no flow".to_owned());
    }
    let without: Vec<&str> =
        peers.iter().filter(|(_, peer)| peer.answers && peer.pods.is_empty()).map(|(name, _)| name.as_str()).collect();
    if !without.is_empty() {
        troubles.push(format!(
            "Nodes with the label {LABEL} and without podCIDRs, whose backends answer by way of this node: {}",
            without.join(", ")
        ));
    }
    troubles
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
