//! Large packets: fragments, segments that the device is to cut, paths that take less than others.

use kpx::capture::command;
use kpx::dataplane::{Mode, Reason};
use kpx_abi::{Exposure, Flags};

use super::peers::{Talk, exchange, udp};
use super::services::{capacity, exposed, serve, servers};
use super::world::{CLUSTER_IP, NEIGHBOUR, POD, REMOTE, VIP, World, at};

const SPACES: [&str; 6] = ["client", "node", "other", "pod", "neighbour", "remote"];

fn large(world: &World) {
    let (dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
    let masqueraded = exposed(Exposure::LoadBalancer).with(Flags::MASQUERADE_ALWAYS, true);
    serve(&mut tables, 1, VIP, 80, masqueraded, &[REMOTE]);
    serve(&mut tables, 11, VIP, 81, masqueraded, &[POD]);
    serve(&mut tables, 21, CLUSTER_IP, 80, exposed(Exposure::ClusterIp), &[NEIGHBOUR]);
    serve(&mut tables, 31, CLUSTER_IP, 81, exposed(Exposure::ClusterIp), &[POD]);
    for (space, addr, port) in
        [("client", VIP, 80), ("client", VIP, 81), ("pod", CLUSTER_IP, 80), ("node", CLUSTER_IP, 81)]
    {
        world.inside(space, || {
            for (family, addr) in addr.iter().enumerate() {
                let to = at(addr, port);
                let (mut talk, _) = Talk::to(&to).unwrap_or_else(|error| panic!("{space} to {to}: {error}"));
                talk.echo(3_000_000);
                let socket = udp(family);
                for size in [1473, 4000, 20_000] {
                    exchange(&socket, &to, size).unwrap_or_else(|error| panic!("{space} to {to}, {size}: {error}"));
                }
            }
        });
    }
    let counters = dataplane.counters().expect("the counters can be read");
    assert_eq!(counters.of(Reason::Unparsed), 0, "{counters:?}");
}

/// Devices leave checksums to each other: what the programs change is the sum of the pseudo header.
#[test]
fn large_packets_pass_with_offloads() {
    World::with(|world| {
        let _servers = servers(world);
        large(world);
    });
}

/// Checksums are computed by senders and verified by receivers.
#[test]
fn large_packets_pass_without_offloads() {
    World::with(|world| {
        if command::run("ethtool", ["--version"], None).is_err() {
            println!("skipped: no ethtool");
            return;
        }
        let _servers = servers(world);
        for space in SPACES {
            world.inside(space, || {
                let listed = command::output("ip", ["-o", "link", "show", "type", "veth"], None).unwrap();
                for line in String::from_utf8(listed).unwrap().lines() {
                    let name = line.split([':', '@']).nth(1).expect("a name").trim().to_owned();
                    let features = ["tx", "rx", "tso", "gso", "gro"].map(|feature| [feature, "off"]).concat();
                    let words = [&["-K", name.as_str()][..], &features].concat();
                    command::output("ethtool", words, None).expect("offloads can be switched off");
                }
            });
        }
        large(world);
    });
}

/// The last hop takes less than the others: its router tells the client, which has to understand.
#[test]
fn clients_learn_of_a_narrow_path() {
    World::with(|world| {
        let _servers = servers(world);
        let (dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let masqueraded = exposed(Exposure::LoadBalancer).with(Flags::MASQUERADE_ALWAYS, true);
        serve(&mut tables, 1, VIP, 80, masqueraded, &[REMOTE]);
        serve(&mut tables, 11, CLUSTER_IP, 80, exposed(Exposure::ClusterIp), &[REMOTE]);
        world.ip("other", &[&format!("route add {} dev br0 mtu lock 1400", REMOTE[0])]);
        world.ip("other", &[&format!("route add {} dev br0 mtu lock 1400", REMOTE[1])]);
        for (space, addr) in [("client", VIP), ("pod", CLUSTER_IP)] {
            world.inside(space, || {
                for addr in addr {
                    let (mut talk, _) = Talk::to(&at(addr, 80)).expect("it connects");
                    talk.echo(1_000_000);
                    let route = command::output("ip", ["route", "get", addr], None).unwrap();
                    let route = String::from_utf8(route).unwrap();
                    assert!(route.contains("mtu 1400"), "{space}: {route}");
                }
            });
        }
        assert!(dataplane.counters().unwrap().of(Reason::ErrorTranslated) >= 4);
    });
}
