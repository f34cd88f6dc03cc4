//! Which devices the packet path is on.

use std::collections::BTreeSet;

use aya::programs::{SchedClassifier, TcAttachType};
use kpx::dataplane::{Dataplane, Mode};
use kpx_abi::Exposure;

use super::peers::tcp;
use super::services::{capacity, exposed, serve, servers};
use super::world::{CLUSTER_IP, NEIGHBOUR, World, at};

/// The names of the programs on a device, as the kernel tells them.
fn programs(device: &str) -> Vec<String> {
    let of = |attach| SchedClassifier::query_tcx(device, attach).expect("the kernel tells").1;
    let programs = [TcAttachType::Ingress, TcAttachType::Egress].into_iter().flat_map(of);
    programs.filter_map(|program| program.name_as_str().map(str::to_owned)).collect()
}

#[test]
fn devices_come_and_go() {
    World::with(|world| {
        let _servers = servers(world);
        let (mut dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        serve(&mut tables, 1, CLUSTER_IP, 80, exposed(Exposure::ClusterIp), &[NEIGHBOUR]);
        let names = |dataplane: &mut Dataplane| -> BTreeSet<String> {
            dataplane.devices().unwrap().into_iter().map(|device| device.name).collect()
        };
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let both = ["kpx_ingress", "kpx_egress"];
        world.inside("node", || {
            assert_eq!(names(&mut dataplane), set(&["eth0", "br0", "pod", "neighbour"]));
            for device in ["eth0", "br0", "pod", "neighbour"] {
                assert_eq!(programs(device), both, "{device}");
            }
            assert!(programs("lo").is_empty());
        });
        // A device that appears gets them too; those that have them keep the ones they have.
        world.ip("node", &["link add late type veth peer name late-peer"]);
        world.inside("node", || {
            dataplane.attach_devices(|device| device.name != "late-peer", |_| false).unwrap();
            assert_eq!(programs("late"), both);
            assert_eq!(programs("pod"), both);
            assert!(programs("late-peer").is_empty());
        });
        // One that is gone is forgotten, and another kpx finds what this one has left.
        world.ip("node", &["link del late"]);
        world.inside("node", || {
            let mut next = Dataplane::expect(&world.paths).unwrap();
            next.attach_devices(|device| device.name != "late-peer", |_| false).unwrap();
            assert_eq!(names(&mut next), set(&["eth0", "br0", "pod", "neighbour"]));
            assert_eq!(programs("pod"), both);
        });
        let answer = world.inside("pod", || tcp(&at(CLUSTER_IP[0], 80))).unwrap();
        assert!(answer.starts_with("neighbour "), "{answer}");
        world.inside("node", || {
            dataplane.detach_devices().unwrap();
            dataplane.detach_devices().unwrap();
            assert!(names(&mut dataplane).is_empty());
            for device in ["eth0", "br0", "pod", "neighbour"] {
                assert!(programs(device).is_empty(), "{device}");
            }
        });
    });
}
