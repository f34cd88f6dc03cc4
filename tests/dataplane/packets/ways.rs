//! Every way from a client to a backend: who answers, whom the backend sees, and that the answer comes back.

use std::io::ErrorKind;
use std::net::TcpStream;

use kpx::dataplane::{Mode, Reason};
use kpx_abi::{Exposure, Flags};

use super::peers::{SILENCE, exchange, seen, tcp, udp};
use super::services::{capacity, exposed, serve, servers};
use super::world::{BRIDGE, CLIENT, CLUSTER_IP, NEIGHBOUR, NODE, POD, REMOTE, VIP, World, at, socket};

/// What a backend answers to a client in this namespace, by TCP and by UDP, in both families.
pub(super) fn answers(world: &World, space: &str, addr: [&str; 2], port: u16) -> Vec<String> {
    let ask = |family: usize| {
        let to = at(addr[family], port);
        let first = tcp(&to).unwrap_or_else(|error| panic!("{space} to {to} by TCP: {error}"));
        let second = exchange(&udp(family), &to, 100).unwrap_or_else(|error| panic!("{space} to {to} by UDP: {error}"));
        [first, second]
    };
    world.inside(space, || [ask(0), ask(1)].concat())
}

/// Checks that this backend answers and sees this client, in both families and by both protocols.
pub(super) fn reaches(world: &World, from: &str, to: [&str; 2], port: u16, backend: &str, sees: [&str; 2]) {
    let answers = answers(world, from, to, port);
    for (answer, sees) in answers.iter().zip([sees[0], sees[0], sees[1], sees[1]]) {
        assert!(answer.starts_with(&format!("{backend} ")), "{from} to {to:?}: {answer}");
        assert_eq!(seen(answer), sees, "{from} to {to:?}: {answer}");
    }
}

#[test]
fn outside_clients_reach_node_ports() {
    World::with(|world| {
        let _servers = servers(world);
        let (dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let any = ["0.0.0.0", "::"];
        let cluster = exposed(Exposure::NodePort).with(Flags::MASQUERADE_ALWAYS, true);
        let local = exposed(Exposure::NodePort).with(Flags::EXTERNAL_LOCAL, true);
        serve(&mut tables, 1, any, 30001, cluster, &[POD]);
        serve(&mut tables, 11, any, 30002, cluster, &[REMOTE]);
        serve(&mut tables, 21, any, 30003, local, &[POD, REMOTE]);
        serve(&mut tables, 31, any, 30004, cluster, &[NODE]);
        reaches(world, "client", NODE, 30001, "pod", BRIDGE);
        reaches(world, "client", NODE, 30002, "remote", NODE);
        reaches(world, "client", NODE, 30003, "pod", CLIENT);
        // A server of the node itself: nothing is forwarded, so nothing is masqueraded.
        reaches(world, "client", NODE, 30004, "node", CLIENT);
        let counters = dataplane.counters().unwrap();
        assert_eq!(counters.of(Reason::FlowOpened), 16, "{counters:?}");
    });
}

#[test]
fn outside_clients_reach_addresses_routed_to_the_node() {
    World::with(|world| {
        let _servers = servers(world);
        let (_dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let cluster = exposed(Exposure::LoadBalancer).with(Flags::MASQUERADE_ALWAYS, true);
        let local = exposed(Exposure::ExternalIp).with(Flags::EXTERNAL_LOCAL, true);
        serve(&mut tables, 1, VIP, 80, cluster, &[REMOTE]);
        serve(&mut tables, 11, VIP, 81, local, &[NEIGHBOUR, REMOTE]);
        let off_cluster = exposed(Exposure::ClusterIp).with(Flags::MASQUERADE_OFF_CLUSTER, true);
        serve(&mut tables, 21, CLUSTER_IP, 80, off_cluster, &[POD]);
        reaches(world, "client", VIP, 80, "remote", NODE);
        reaches(world, "client", VIP, 81, "neighbour", CLIENT);
        reaches(world, "client", CLUSTER_IP, 80, "pod", BRIDGE);
    });
}

#[test]
fn pods_reach_cluster_ips() {
    World::with(|world| {
        let _servers = servers(world);
        let (_dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let flags = exposed(Exposure::ClusterIp).with(Flags::MASQUERADE_OFF_CLUSTER, true);
        serve(&mut tables, 1, CLUSTER_IP, 80, flags, &[NEIGHBOUR]);
        serve(&mut tables, 11, CLUSTER_IP, 81, flags, &[REMOTE]);
        serve(&mut tables, 21, CLUSTER_IP, 82, flags, &[POD]);
        serve(&mut tables, 31, CLUSTER_IP, 83, flags, &[NODE]);
        reaches(world, "pod", CLUSTER_IP, 80, "neighbour", POD);
        reaches(world, "pod", CLUSTER_IP, 81, "remote", POD);
        // Itself: were it to see its own address, it would answer itself.
        reaches(world, "pod", CLUSTER_IP, 82, "pod", BRIDGE);
        reaches(world, "pod", CLUSTER_IP, 83, "node", POD);
    });
}

#[test]
fn sockets_of_the_node_without_hooks_reach_cluster_ips() {
    World::with(|world| {
        let _servers = servers(world);
        let (_dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let flags = exposed(Exposure::ClusterIp).with(Flags::MASQUERADE_OFF_CLUSTER, true);
        serve(&mut tables, 1, CLUSTER_IP, 80, flags, &[POD]);
        serve(&mut tables, 11, CLUSTER_IP, 81, flags, &[REMOTE]);
        reaches(world, "node", CLUSTER_IP, 80, "pod", NODE);
        reaches(world, "node", CLUSTER_IP, 81, "remote", NODE);
    });
}

/// What only the hooks of sockets can serve: a packet of the node to a backend with an address of the node is left alone and
/// counted; one to a NodePort at an address of the node never meets a device with programs, and nobody listens there.
#[test]
fn sockets_of_the_node_without_hooks_do_not_reach_what_is_on_the_node() {
    World::with(|world| {
        let _servers = servers(world);
        let (dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let node_port = exposed(Exposure::NodePort).with(Flags::MASQUERADE_ALWAYS, true);
        serve(&mut tables, 1, CLUSTER_IP, 80, exposed(Exposure::ClusterIp), &[NODE]);
        serve(&mut tables, 11, ["0.0.0.0", "::"], 30001, node_port, &[POD]);
        for (family, counted) in [(0, 2), (1, 4)] {
            world.inside("node", || {
                let begun = TcpStream::connect_timeout(&socket(CLUSTER_IP[family], 80), SILENCE);
                assert!(begun.is_err());
                let quick = udp(family);
                quick.set_read_timeout(Some(SILENCE)).expect("a time-out can be set");
                assert!(exchange(&quick, &at(CLUSTER_IP[family], 80), 10).is_err());
                let refused = tcp(&at(NODE[family], 30001)).expect_err("nobody listens");
                assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
                let asks = udp(family);
                asks.connect(socket(NODE[family], 30001)).expect("a route leads there");
                let refused = asks.send(b"?").and_then(|_| asks.recv(&mut [0; 9])).expect_err("nobody listens");
                assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            });
            assert!(dataplane.counters().unwrap().of(Reason::NoRoute) >= counted, "{family}");
        }
        // From outside both are reached.
        reaches(world, "client", NODE, 30001, "pod", BRIDGE);
        reaches(world, "client", CLUSTER_IP, 80, "node", CLIENT);
    });
}
