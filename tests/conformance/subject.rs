//! Who serves the Services of a cluster: the recorded rules, or kpx.

use kpx::capture::{Variant, command};
use kpx::dataplane::{Capacity, Dataplane, Mode, Paths};
use kpx::lab::{Rules, load_rules};
use kpx::model::{Family, ServiceTable};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::cluster::{Cluster, NodeNet};
use super::state::World;

/// Who serves.
pub(super) enum Subject {
    /// iptables, with what a real kube-proxy wrote on node-a. node-b ran none; it gets the same rules, which are right
    /// there for Services without a Local policy and without topology hints.
    Rules,
    /// kpx on both nodes.
    Kpx(Kpx),
}

/// A dataplane for each node, pinned on a filesystem of its own.
pub(super) struct Kpx {
    mount: tempfile::TempDir,
    dataplanes: Vec<Dataplane>,
}

impl Subject {
    /// kpx, with nothing to serve yet.
    pub(super) fn kpx(cluster: &Cluster, largest: &ServiceTable) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        mount("bpf", directory.path(), "bpf", MountFlags::empty(), None).expect("root can mount a BPF filesystem");
        let mut kpx = Kpx { mount: directory, dataplanes: Vec::new() };
        for node in &cluster.nodes {
            let paths = Paths { pins: kpx.mount.path().join(node.name), cgroup: node.cgroup.0.clone() };
            kpx.dataplanes.push(node.netns.inside(|| {
                let mut dataplane = Dataplane::install(&paths, &Capacity::for_table(largest)).expect("it installs");
                dataplane.attach().expect("it attaches");
                dataplane.set_mode(Mode::Active).expect("its mode can be set");
                dataplane
            }));
        }
        Self::Kpx(kpx)
    }

    /// Lets the cluster be in this state.
    pub(super) fn become_(&mut self, cluster: &Cluster, world: &World) {
        match self {
            Self::Rules => {
                let Some(texts) = &world.rules else { panic!("no recorded kube-proxy was in this state") };
                let rules = Family::BOTH.into_iter().zip(texts);
                let rules: Vec<_> =
                    rules.map(|(family, text)| Rules { family, variant: Variant::Nft, text: text.clone() }).collect();
                for node in &cluster.nodes {
                    // As kube-proxy does where loopback NodePorts are on, which is the default.
                    node.netns.sysctl(&[("ipv4/conf/all/route_localnet", "1")]);
                    node.netns.inside(|| load_rules(&rules)).expect("recorded rules load");
                }
            }
            Self::Kpx(kpx) => {
                for (node, dataplane) in cluster.nodes.iter().zip(&mut kpx.dataplanes) {
                    let table = table(node, world);
                    node.netns.inside(|| dataplane.fill(&table)).expect("it fills");
                }
            }
        }
    }

    /// What kpx's maps hold, node by node.
    pub(super) fn tables(&self) -> Option<Vec<ServiceTable>> {
        let Self::Kpx(kpx) = self else { return None };
        Some(kpx.dataplanes.iter().map(|dataplane| dataplane.table().expect("maps can be read")).collect())
    }

    /// kpx ends and another takes up what it left; rules have nothing that could end.
    pub(super) fn restart(&mut self, cluster: &Cluster) {
        let Self::Kpx(kpx) = self else { return };
        for (node, dataplane) in cluster.nodes.iter().zip(&mut kpx.dataplanes) {
            let paths = dataplane.paths().clone();
            *dataplane = node.netns.inside(|| Dataplane::expect(&paths)).expect("what is pinned is taken up");
        }
    }
}

/// The table of one node.
pub(super) fn table(node: &NodeNet, world: &World) -> ServiceTable {
    let addresses = node.netns.inside(|| command::output("ip", ["-j", "-d", "addr"], None)).expect("ip runs");
    world.table(node.name, &addresses)
}

impl Drop for Kpx {
    fn drop(&mut self) {
        for dataplane in self.dataplanes.drain(..) {
            let _ = Dataplane::remove(dataplane.paths());
        }
        let _ = unmount(self.mount.path(), UnmountFlags::DETACH);
    }
}
