//! One client, one port, one backend, reached once by way of a Service and once without: both flows work at once, whichever
//! was first, as they do by rules.

use std::net::{SocketAddr, UdpSocket};

use kpx::capture::command;
use kpx::dataplane::{Mode, Reason};
use kpx_abi::{Exposure, Flags};

use super::peers::{PATIENCE, Talk, connect_from, exchange};
use super::services::{PORT, capacity, exposed, serve, servers};
use super::world::{BRIDGE, CLUSTER_IP, NEIGHBOUR, NODE, POD, REMOTE, World, at};

/// How a flow looks to the backend: its name, the client's address, and whether the client's port is what the client has.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    server: String,
    client: String,
    port_kept: bool,
}

fn seen(answer: &str, port: u16) -> Seen {
    let mut words = answer.split(' ');
    let server = words.next().unwrap_or_default().to_owned();
    let client: SocketAddr = words.next().and_then(|word| word.parse().ok()).expect("an address with a port");
    Seen { server, client: client.ip().to_string(), port_kept: client.port() == port }
}

/// Both flows by TCP, then both by UDP, the first one's before the second's; then both at once for a while.
fn both(world: &World, family: usize, port: u16, first: &str, second: &str) -> Vec<Seen> {
    world.inside("pod", || {
        let from = at(POD[family], port);
        let mut talks = [first, second].map(|to| {
            let (mut talk, answer) =
                Talk::over(connect_from(&from, to).unwrap_or_else(|error| panic!("{from} to {to}: {error}")))
                    .expect("it answers");
            talk.echo(10_000);
            (talk, seen(&answer, port))
        });
        for _ in 0..3 {
            for (talk, _) in &mut talks {
                talk.echo(100_000);
            }
        }
        let (socket, answer) = ask_from(&from, first);
        let ask = |to: &str| seen(&exchange(&socket, to, 100).expect("it answers"), port);
        let datagrams = [seen(&answer, port), ask(second)];
        for _ in 0..3 {
            assert_eq!([ask(first), ask(second)], datagrams, "every datagram's way is that of the first");
        }
        talks.into_iter().map(|(_, seen)| seen).chain(datagrams).collect()
    })
}

/// What kube-proxy's rules do, by the kernel's own NAT.
const RULES: &str = "
table inet rules {
    chain pre {
        type nat hook prerouting priority dstnat;
        ip daddr 10.96.0.10 meta l4proto { tcp, udp } th dport 80 dnat ip to 10.244.2.2:8080
        ip6 daddr fd96::10 meta l4proto { tcp, udp } th dport 80 dnat ip6 to [fd44:2::2]:8080
        ip daddr 10.96.0.10 meta l4proto { tcp, udp } th dport 81 meta mark set 0x4000 dnat ip to 10.244.2.2:8080
        ip6 daddr fd96::10 meta l4proto { tcp, udp } th dport 81 meta mark set 0x4000 dnat ip6 to [fd44:2::2]:8080
    }
    chain post {
        type nat hook postrouting priority srcnat;
        meta mark & 0x4000 == 0x4000 masquerade fully-random
    }
}";

/// Every order, family and kind of Service, each with a port of its own.
fn outcomes(world: &World, backend: [&str; 2]) -> Vec<Vec<Seen>> {
    let mut port = 41_000;
    let mut found = Vec::new();
    for family in [0, 1] {
        for service in [80, 81] {
            let (frontend, direct) = (at(CLUSTER_IP[family], service), at(backend[family], PORT));
            for (first, second) in [(&frontend, &direct), (&direct, &frontend)] {
                port += 1;
                found.push(both(world, family, port, first, second));
            }
        }
    }
    found
}

fn services(tables: &mut super::frontends::Tables, backend: [&str; 2]) {
    serve(tables, 1, CLUSTER_IP, 80, exposed(Exposure::ClusterIp), &[backend]);
    let masqueraded = exposed(Exposure::ClusterIp).with(Flags::MASQUERADE_ALWAYS, true);
    serve(tables, 11, CLUSTER_IP, 81, masqueraded, &[backend]);
}

#[test]
fn a_flow_by_way_of_a_service_and_one_without_work_at_once_as_by_rules() {
    let by_rules = std::cell::OnceCell::new();
    World::with(|world| {
        let _servers = servers(world);
        world.inside("node", || command::output("nft", ["-f", "-"], Some(RULES.as_bytes())).expect("rules load"));
        by_rules.set(outcomes(world, REMOTE)).expect("set once");
    });
    let Some(by_rules) = by_rules.into_inner() else { return };
    World::with(|world| {
        let _servers = servers(world);
        let (dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        services(&mut tables, REMOTE);
        assert_eq!(outcomes(world, REMOTE), by_rules);
        // A Service's flow was first for TCP and UDP in both families, once masqueraded and so in nobody's way.
        let counters = dataplane.counters().unwrap();
        assert!(counters.of(Reason::SetApart) >= 4, "{counters:?}");
        assert_eq!(counters.of(Reason::ToldApart), 0, "{counters:?}");
    });
}

/// A masqueraded flow is, between its two translations, what the client's own flow to the backend would be from that port.
/// Another node that masquerades chooses from the same ports.
#[test]
fn a_flow_without_a_service_may_look_like_another_halfway() {
    World::with(|world| {
        let _servers = servers(world);
        let (dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        services(&mut tables, REMOTE);
        let halfway = |pod: &str, protocol: u8| {
            let flows = dataplane.conntrack().unwrap();
            let wanted = ("masquerade", protocol, pod.parse().ok());
            let found = flows.iter().find(|flow| (flow.kind, flow.protocol, Some(flow.source.ip())) == wanted);
            found.expect("it is masqueraded").source.port()
        };
        for (family, pod) in POD.into_iter().enumerate() {
            let (frontend, backend) = (at(CLUSTER_IP[family], 81), at(REMOTE[family], PORT));
            let (mut served, datagrams, before) = world.inside("pod", || {
                let (served, _) = Talk::over(connect_from(&at(pod, 43_000), &frontend).unwrap()).unwrap();
                let (datagrams, before) = ask_from(&at(pod, 43_000), &frontend);
                (served, datagrams, before)
            });
            let ports = [halfway(pod, 6), halfway(pod, 17)];
            world.inside("pod", || {
                let straight = connect_from(&at(pod, ports[0]), &backend).expect("it connects");
                let (mut direct, answer) = Talk::over(straight).unwrap();
                assert_eq!(seen(&answer, ports[0]).client, pod, "{answer}");
                let (straight, answer) = ask_from(&at(pod, ports[1]), &backend);
                assert_eq!(seen(&answer, ports[1]).client, pod, "{answer}");
                for _ in 0..3 {
                    direct.echo(100_000);
                    served.echo(100_000);
                    assert_eq!(exchange(&straight, &backend, 100).unwrap(), answer);
                    assert_eq!(exchange(&datagrams, &frontend, 100).unwrap(), before);
                }
            });
        }
    });
}

/// A socket of the node has the very address and port of a masqueraded flow to the same backend, as it happens where flows
/// keep the ports that the kernel's masquerade chose for them: those are ports that sockets choose, too.
#[test]
fn a_socket_of_the_node_may_have_the_port_of_a_masqueraded_flow() {
    for (place, addresses, node) in [("remote", REMOTE, NODE), ("neighbour", NEIGHBOUR, BRIDGE)] {
        World::with(|world| {
            let _servers = servers(world);
            let (_dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
            services(&mut tables, addresses);
            for (family, pod) in POD.into_iter().enumerate() {
                let (frontend, backend) = (at(CLUSTER_IP[family], 81), at(addresses[family], PORT));
                let (mut served, answer, datagrams, before) = world.inside("pod", || {
                    let (served, answer) = Talk::over(connect_from(&at(pod, 44_000), &frontend).unwrap()).unwrap();
                    let (datagrams, before) = ask_from(&at(pod, 44_000), &frontend);
                    (served, answer, datagrams, before)
                });
                let port_of = |answer: &str| {
                    let seen = answer.split(' ').nth(1).and_then(|word| word.parse::<SocketAddr>().ok());
                    let seen = seen.expect("an address with a port");
                    assert_eq!(seen.ip().to_string(), node[family], "it is masqueraded");
                    seen.port()
                };
                let own = |port: u16| at(node[family], port);
                let (mut direct, socket, told) = world.inside("node", || {
                    let from = own(port_of(&answer));
                    let (direct, answer) = Talk::over(connect_from(&from, &backend).expect("it connects")).unwrap();
                    assert!(answer.starts_with(place), "{answer}");
                    let (socket, told) = ask_from(&own(port_of(&before)), &backend);
                    (direct, socket, told)
                });
                for _ in 0..3 {
                    served.echo(100_000);
                    direct.echo(100_000);
                    assert_eq!(exchange(&datagrams, &frontend, 100).unwrap(), before);
                    assert_eq!(exchange(&socket, &backend, 100).unwrap(), told);
                }
            }
        });
    }
}

/// A socket and the answer to its first datagram.
fn ask_from(from: &str, to: &str) -> (UdpSocket, String) {
    let socket = UdpSocket::bind(from).expect("the port is free");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    let answer = exchange(&socket, to, 100).unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
    (socket, answer)
}

/// Pods of one bridge, whose answers no rule would ever see.
#[test]
fn the_same_between_neighbours() {
    World::with(|world| {
        let _servers = servers(world);
        let (_dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        services(&mut tables, NEIGHBOUR);
        for flows in outcomes(world, NEIGHBOUR) {
            assert!(flows.iter().all(|seen| seen.server == "neighbour"), "{flows:?}");
        }
    });
}

/// A connection without a Service that nobody remembers: its backend's answer to the SYN of another gives it away.
#[test]
fn a_connection_that_is_not_remembered_is_told_by_its_backend() {
    World::with(|world| {
        let _servers = servers(world);
        let (dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        services(&mut tables, REMOTE);
        for family in [0, 1] {
            world.inside("pod", || {
                let from = at(POD[family], 42_000);
                let (mut direct, answer) = Talk::over(connect_from(&from, &at(REMOTE[family], PORT)).unwrap()).unwrap();
                direct.echo(1000);
                assert!(seen(&answer, 42_000).port_kept);
                tables.forget_direct();
                let (mut served, answer) =
                    Talk::over(connect_from(&from, &at(CLUSTER_IP[family], 80)).unwrap()).unwrap();
                assert!(!seen(&answer, 42_000).port_kept, "{answer}");
                for _ in 0..3 {
                    direct.echo(100_000);
                    served.echo(100_000);
                }
            });
        }
        assert!(dataplane.counters().unwrap().of(Reason::ToldApart) >= 2);
    });
}
