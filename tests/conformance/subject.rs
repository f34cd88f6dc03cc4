//! Who serves the Services of a cluster: the recorded rules, or kpx.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use kpx::capture::Variant;
use kpx::dataplane::{Capacity, Dataplane, DataplaneError, Mode, NetworkFlags, Paths, node_addresses};
use kpx::lab::{Rules, load_rules};
use kpx::model::{Detector, Family, ServiceTable};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde::Deserialize;

use super::cluster::{Cluster, NodeNet};
use super::netns::Netns;
use super::state::World;

/// Who serves.
pub(super) enum Subject {
    /// iptables, with what a real kube-proxy wrote on node-a. node-b ran none; it gets the same rules, which are right
    /// there for Services without a Local policy and without topology hints.
    Rules(Vec<Rules>),
    /// kpx on both nodes.
    Kpx(Kpx),
}

/// A dataplane for each node, pinned on a filesystem of its own.
pub(super) struct Kpx {
    mount: tempfile::TempDir,
    dataplanes: Vec<(Arc<Netns>, Dataplane)>,
}

impl Subject {
    /// kpx, with nothing to serve yet.
    pub(super) fn kpx(cluster: &Cluster, largest: &ServiceTable) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        mount("bpf", directory.path(), "bpf", MountFlags::empty(), None).expect("root can mount a BPF filesystem");
        let mut kpx = Kpx { mount: directory, dataplanes: Vec::new() };
        for node in &cluster.nodes {
            let paths = Paths { pins: kpx.mount.path().join(node.name), cgroup: node.cgroup.0.clone() };
            let dataplane = node.netns.inside(|| {
                let mut dataplane = Dataplane::install(&paths, &Capacity::for_table(largest)).expect("it installs");
                dataplane.set_rules_gone(true).expect("it can be told");
                dataplane.attach().expect("it attaches to the cgroup");
                dataplane.attach_devices(|_| true, |_| false).expect("it attaches to the devices");
                dataplane.set_mode(Mode::Active).expect("its mode can be set");
                dataplane
            });
            kpx.dataplanes.push((node.netns.clone(), dataplane));
        }
        Self::Kpx(kpx)
    }

    /// Lets the cluster be in this state.
    pub(super) fn become_(&mut self, cluster: &Cluster, world: &World) {
        match self {
            Self::Rules(loaded) => {
                let Some(texts) = &world.rules else { panic!("no recorded kube-proxy was in this state") };
                let rules = Family::BOTH.into_iter().zip(texts);
                let rules: Vec<_> =
                    rules.map(|(family, text)| Rules { family, variant: Variant::Nft, text: text.clone() }).collect();
                let new: Vec<_> = rules.iter().filter(|rules| !loaded.contains(rules)).cloned().collect();
                std::thread::scope(|scope| {
                    for node in &cluster.nodes {
                        scope.spawn(|| {
                            // As kube-proxy does where loopback NodePorts are on, which is the default.
                            node.netns.sysctl(&[("ipv4/conf/all/route_localnet", "1")]);
                            node.netns.inside(|| load_rules(&new)).expect("recorded rules load");
                        });
                    }
                });
                *loaded = rules;
            }
            Self::Kpx(kpx) => {
                for (node, (_, dataplane)) in cluster.nodes.iter().zip(&mut kpx.dataplanes) {
                    node.netns.inside(|| serve(dataplane, node, world)).expect("it takes the table");
                }
            }
        }
    }

    /// What kpx's maps hold, node by node.
    pub(super) fn tables(&self) -> Option<Vec<ServiceTable>> {
        let Self::Kpx(kpx) = self else { return None };
        Some(kpx.dataplanes.iter().map(|(_, dataplane)| dataplane.table().expect("maps can be read")).collect())
    }

    /// kpx ends and another takes up what it left; rules have nothing that could end.
    pub(super) fn restart(&mut self) {
        let Self::Kpx(kpx) = self else { return };
        for (netns, dataplane) in &mut kpx.dataplanes {
            let paths = dataplane.paths().clone();
            *dataplane = netns.inside(|| Dataplane::expect(&paths)).expect("what is pinned is taken up");
        }
    }
}

/// What a process that stays on the node does at each change.
fn serve(dataplane: &mut Dataplane, node: &NodeNet, world: &World) -> Result<(), DataplaneError> {
    let addresses = node.addresses();
    let table = world.table(node.name, &addresses);
    let links: Vec<Link> = serde_json::from_slice(&addresses).expect("ip prints JSON");
    let local = links.iter().flat_map(|link| &link.addr_info).map(|address| address.local).collect::<BTreeSet<_>>();
    let pods = Family::BOTH.map(|family| table.facts(family).detector.clone());
    let pods = pods.into_iter().filter_map(|detector| match detector {
        Detector::Cidr(net) => Some((net, NetworkFlags::POD)),
        _ => None,
    });
    dataplane.set_addresses(&node_addresses(&table, &local))?;
    dataplane.set_networks(&pods.collect())?;
    dataplane.set_clients(&node.clients())?;
    dataplane.fill(&table)?;
    let ended = kpx::agent::end_stale(&dataplane.paths().pins, &world.lifted(node.name, &local));
    assert_eq!(ended, [] as [String; 0], "what leads to endpoints that have gone is ended");
    Ok(())
}

/// What is read of `ip -j addr`.
#[derive(Deserialize)]
struct Link {
    addr_info: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    local: IpAddr,
}

/// The table of one node.
pub(super) fn table(node: &NodeNet, world: &World) -> ServiceTable {
    world.table(node.name, &node.addresses())
}

impl Drop for Kpx {
    fn drop(&mut self) {
        for (netns, dataplane) in self.dataplanes.drain(..) {
            let paths = dataplane.paths().clone();
            let _ = netns.inside(|| Dataplane::remove(&paths));
        }
        let _ = unmount(self.mount.path(), UnmountFlags::DETACH);
    }
}
