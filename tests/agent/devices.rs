//! The packet path is on the devices that there are, and comes back to those that lose it.

use std::collections::BTreeSet;

use aya::programs::{SchedClassifier, TcAttachType};
use kpx::capture::command;
use rustix::net::netdevice::name_to_index;
use serde_json::json;

use super::api::{service, slice};
use super::rig::{Rig, health, metrics};
use crate::dataplane::ground::Ground;
use crate::dataplane::server::Server;

/// The names of our programs on a device, as the kernel tells them.
pub(super) fn programs(device: &str) -> BTreeSet<String> {
    let of = |attach| SchedClassifier::query_tcx(device, attach).map(|found| found.1).unwrap_or_default();
    let programs = [TcAttachType::Ingress, TcAttachType::Egress].into_iter().flat_map(of);
    programs.filter_map(|program| program.name_as_str().map(str::to_owned)).collect()
}

fn both() -> BTreeSet<String> {
    ["kpx_ingress", "kpx_egress"].map(str::to_owned).into()
}

pub(super) fn ip(line: &str) {
    command::output("ip", line.split(' '), None).expect("the network can be changed");
}

fn index(device: &str) -> u32 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    name_to_index(&socket, device).expect("the device is there")
}

fn ready(ground: &Ground) -> Rig<'_> {
    let rig = Rig::new(ground);
    let mut web = service("web", "10.96.0.10", 80, "TCP");
    web["spec"]["type"] = json!("NodePort");
    web["spec"]["ports"][0]["nodePort"] = json!(30_080);
    rig.api.put(web);
    rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]));
    rig
}

#[test]
fn what_is_taken_off_a_device_comes_back() {
    Ground::with(|ground| {
        let rig = ready(ground);
        let _agent = rig.start();
        rig.until_healthy();
        for device in ["kpx0", "kpx1"] {
            rig.until(device, || programs(device) == both());
        }
        assert_eq!(programs("lo"), BTreeSet::new());
        let pin = |program: &str| ground.paths.pins.join(format!("links/{program}-{}", index("kpx0")));
        let link = pin("kpx_ingress");
        command::output("bpftool", ["link", "detach", "pinned", &link.to_string_lossy()], None).expect("detached");
        rig.until("it is told", || rig.log().contains("kpx_ingress had been detached from kpx0"));
        assert_eq!(programs("kpx0"), both());
        // A link whose pin goes takes its program along.
        fs_err::remove_file(pin("kpx_egress")).expect("removed");
        rig.until("it is told", || rig.log().contains("kpx_egress had been detached from kpx0"));
        assert_eq!(programs("kpx0"), both());
        rig.until("it is counted", || metrics().contains("kpx_repairs_total{kind=\"device\"} 2"));
        // All at once, with the maps: what the programs of one device know is what those of the others know.
        fs_err::remove_dir_all(&ground.paths.pins).expect("removed");
        rig.until("all is back", || {
            ["kpx0", "kpx1"].iter().all(|device| programs(device) == both()) && pin("kpx_egress").exists()
        });
        // What was begun in the moment without pins may have failed and said so; what is attached and written is whole.
        let fine =
            |condition: &str| health("/healthz").is_some_and(|(_, body)| body["conditions"][condition].is_null());
        rig.until("nothing is wrong", || ["Attach", "Devices", "MapWrite", "Flows", "Node"].iter().all(|c| fine(c)));
        rig.until("the devices are counted", || metrics().contains("kpx_devices 2"));
    });
}

/// The agent would look by itself only after an hour: it is told of devices and addresses.
#[test]
fn devices_and_addresses_that_come_are_noticed_at_once() {
    Ground::with(|ground| {
        let _a = Server::start("a", "127.0.0.1:8080");
        let rig = ready(ground).looking_every("1h");
        let _agent = rig.start();
        rig.until_healthy();
        rig.until("the first devices", || programs("kpx0") == both());
        ip("link add late type veth peer name later");
        rig.until("the new device", || programs("late") == both() && programs("later") == both());
        // Another one of the same name is another one.
        let before = index("late");
        ip("link del late");
        ip("link add late type veth peer name later");
        assert_ne!(index("late"), before);
        rig.until("the one in its place", || programs("late") == both());
        let gone = ground.paths.pins.join(format!("links/kpx_ingress-{before}"));
        rig.until("the old one is forgotten", || !gone.exists());
        let mut client = ground.agent();
        assert!(client.ask("tcp 10.2.0.77:30080").starts_with("err"));
        ip("addr add 10.2.0.77/24 dev kpx0");
        rig.until("the new address", || client.ask("tcp 10.2.0.77:30080").contains(" a "));
        assert!(!rig.log().contains("had been detached"), "{}", rig.log());
    });
}

#[test]
fn devices_that_are_not_meant_are_left_alone() {
    Ground::with(|ground| {
        let rig = ready(ground).with("--devices !kpx1");
        let agent = rig.start();
        rig.until_healthy();
        rig.until("the device that is meant", || programs("kpx0") == both());
        assert_eq!(programs("kpx1"), BTreeSet::new());
        agent.kill();
        // The packet path is wanted, and is nowhere.
        let rig = rig.with("--devices nothing0");
        let agent = rig.start();
        rig.until("it is told", || {
            let told =
                health("/healthz").and_then(|(_, body)| body["conditions"]["Devices"].as_str().map(str::to_owned));
            told.is_some_and(|told| told.contains("on no device"))
        });
        agent.kill();
        // Sockets alone: what is on devices goes, and what is on the cgroup stays.
        let rig = rig.with("--paths sockets");
        let _agent = rig.start();
        rig.until("no device", || programs("kpx0").is_empty());
        rig.until_healthy();
    });
}
