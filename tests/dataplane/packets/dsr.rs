//! Direct server return, between two nodes that both have the dataplane: whom the server sees, who answers the client,
//! and what happens to packets that do not fit, do not belong there or cannot be answered so.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use kpx::capture::command;
use kpx::dataplane::{Dataplane, Dsr, Mode, Reason, XdpMode};
use kpx_abi::{AddressFlags, Exposure, Flags, NetworkFlags};
use rustix::net::{AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, sendto, socket_with};

use super::errors::{REFUSED, endings};
use super::frontends::Tables;
use super::peers::{PATIENCE, Talk, exchange, udp};
use super::services::{PORT, capacity, exposed, serve, servers};
use super::world::{CLIENT, NODE, OTHER, POD, REMOTE, VIP, World, at, socket};

const ANY: [&str; 2] = ["0.0.0.0", "::"];
/// The NodePort that [`watch`] watches.
pub(crate) const NODE_PORT: u16 = 30001;

/// The dataplanes of two nodes that know each other, the one under test first.
struct Pair {
    node: Dataplane,
    tables: Tables,
    other: Dataplane,
    others: Tables,
}

impl Pair {
    fn of(world: &World) -> Self {
        let (mut node, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let (mut other, mut others) = world.other_dataplane(&capacity(), Mode::Active);
        node.set_dsr(Dsr::All).expect("the option can be set");
        other.set_dsr(Dsr::All).expect("the option can be set");
        let own = AddressFlags::LOCAL.with(AddressFlags::NODEPORT, true).with(AddressFlags::NODE, true);
        for (addr, theirs) in NODE.into_iter().zip(OTHER) {
            tables.mark(addr, own);
            tables.mark(theirs, AddressFlags::NODE);
            others.mark(addr, AddressFlags::NODE);
            others.mark(theirs, own);
        }
        let mut pair = Self { node, tables, other, others };
        pair.list(true);
        pair
    }

    /// Whether the other node counts as one that answers directly.
    fn list(&mut self, listed: bool) {
        let flags = NetworkFlags::POD.with(NetworkFlags::DIRECT, listed);
        self.tables.network(96 + 24, "10.244.2.0", flags);
        self.tables.network(64, "fd44:2::", flags);
    }

    /// A service on both nodes, from this number on.
    fn serve(&mut self, service: u32, addr: [&str; 2], port: u16, exposure: Exposure, backends: &[[&str; 2]]) {
        let flags = exposed(exposure).with(Flags::MASQUERADE_ALWAYS, true).with(Flags::DSR, true);
        serve(&mut self.tables, service, addr, port, flags, backends);
        serve(&mut self.others, service, addr, port, flags, backends);
    }

    fn count(&self, reason: Reason) -> u64 {
        self.node.counters().expect("the counters can be read").of(reason)
    }

    fn other_count(&self, reason: Reason) -> u64 {
        self.other.counters().expect("the counters can be read").of(reason)
    }
}

/// Counts packets that come from a frontend to the client: by way of the node, and straight from the other one.
pub(crate) fn watch(world: &World) {
    let mut lines = vec!["table netdev seen {".to_owned()];
    for name in ["node", "other"] {
        lines.push(format!("counter {name} {{ }}"));
        lines.push(format!("chain {name} {{ type filter hook ingress device \"to-{name}\" priority 0;"));
        for client in [format!("ip daddr {}", CLIENT[0]), format!("ip6 daddr {}", CLIENT[1])] {
            for protocol in ["tcp", "udp"] {
                lines.push(format!("{client} {protocol} sport {{ 80, {NODE_PORT} }} counter name \"{name}\""));
            }
        }
        lines.push("}".to_owned());
    }
    lines.push("}\n".to_owned());
    let text = lines.join("\n");
    world.inside("client", || command::output("nft", ["-f", "-"], Some(text.as_bytes())).expect("nft takes it"));
}

/// How many the watch has seen: by way of the node, from the other one.
pub(crate) fn seen_answers(world: &World) -> [u64; 2] {
    ["node", "other"].map(|name| {
        let listed = world.inside("client", || {
            command::output("nft", ["list", "counter", "netdev", "seen", name], None).expect("nft lists")
        });
        let text = String::from_utf8(listed).expect("text");
        let number = text.split("packets ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a count");
        number.parse().expect("a number")
    })
}

/// Connects, and checks that the remote pod answers and sees this very client, port included.
fn connect(to: &str) -> Talk {
    let (talk, line) = Talk::to(to).unwrap_or_else(|error| panic!("{to}: {error}"));
    assert_eq!(line, format!("remote {}", talk.local()), "{to}");
    talk
}

/// The same by datagrams.
fn exchange_with(socket: &UdpSocket, client: &str, to: &str, size: usize) {
    let answer = exchange(socket, to, size).unwrap_or_else(|error| panic!("{to}, {size}: {error}"));
    let port = socket.local_addr().expect("it is bound").port();
    assert_eq!(answer, format!("remote {}", at(client, port)), "{to}, {size}");
}

#[test]
fn backends_of_other_nodes_answer_clients_directly() {
    World::with(|world| {
        let _servers = servers(world);
        let mut pair = Pair::of(world);
        pair.serve(1, ANY, NODE_PORT, Exposure::NodePort, &[REMOTE]);
        pair.serve(11, VIP, 80, Exposure::LoadBalancer, &[REMOTE]);
        watch(world);
        world.inside("client", || {
            for (addr, port) in [(NODE, NODE_PORT), (VIP, 80)] {
                for (family, addr) in addr.into_iter().enumerate() {
                    let to = at(addr, port);
                    let mut talk = connect(&to);
                    talk.echo(3_000_000);
                    let socket = udp(family);
                    for size in [0, 1, 100, 1400] {
                        exchange_with(&socket, CLIENT[family], &to, size);
                    }
                    talk.echo(1000);
                }
            }
        });
        let [by_node, straight] = seen_answers(world);
        assert_eq!(by_node, 0, "no answer passes the node");
        assert!(straight > 100, "{straight}");
        // One SYN and four datagrams of each.
        assert_eq!(pair.count(Reason::DsrAnnounced), 20);
        assert_eq!(pair.other_count(Reason::DsrTaken), 20);
        assert_eq!((pair.count(Reason::FlowOpened), pair.other_count(Reason::FlowOpened)), (8, 8));
        let flows = pair.node.conntrack().expect("the table can be read");
        let kinds: Vec<_> = flows.iter().filter(|flow| flow.flags.contains(&"dsr")).map(|flow| flow.kind).collect();
        assert_eq!(kinds.iter().filter(|kind| **kind == "forward").count(), 8, "{flows:#?}");
        let flows = pair.other.conntrack().expect("the table can be read");
        let taken: Vec<_> = flows.iter().filter(|flow| flow.flags.contains(&"announced")).collect();
        assert_eq!(taken.len(), 24, "{flows:#?}");
        for flow in taken {
            assert!(REMOTE.iter().any(|addr| flow.backend == Some(socket(addr, PORT))), "{flow:?}");
        }
    });
}

/// A server that pushes numbers from the moment that a client comes: none is lost, doubled or out of place.
#[test]
fn what_servers_push_arrives_whole_and_in_order() {
    const NUMBERS: u64 = 500_000;
    World::with(|world| {
        let mut pair = Pair::of(world);
        pair.serve(1, VIP, 80, Exposure::LoadBalancer, &[REMOTE]);
        let listeners = REMOTE.map(|addr| world.inside("remote", || TcpListener::bind(socket(addr, PORT)).unwrap()));
        for (listener, addr) in listeners.into_iter().zip(VIP) {
            let server = std::thread::spawn(move || {
                let (mut stream, client) = listener.accept().expect("a client comes");
                let numbers: Vec<u8> = (0..NUMBERS).flat_map(u64::to_be_bytes).collect();
                stream.write_all(&numbers).expect("the client takes everything");
                client
            });
            let client = world.inside("client", || {
                let mut stream = TcpStream::connect_timeout(&socket(addr, 80), PATIENCE).expect("it connects");
                stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
                let mut numbers = Vec::new();
                stream.read_to_end(&mut numbers).expect("the server pushes");
                let numbers: Vec<u64> =
                    numbers.chunks(8).map(|n| u64::from_be_bytes(n.try_into().expect("eight bytes"))).collect();
                assert!(numbers.into_iter().eq(0..NUMBERS));
                stream.local_addr().expect("a connection has two ends")
            });
            assert_eq!(server.join().expect("the server ends"), client);
        }
        assert_eq!(pair.other_count(Reason::DsrTaken), 2);
    });
}

/// A datagram that does not fit with the header around it is not sent: its sender learns what does, and cuts.
#[test]
fn datagrams_that_do_not_fit_are_cut_by_the_client() {
    World::with(|world| {
        let _servers = servers(world);
        let mut pair = Pair::of(world);
        pair.serve(1, VIP, 80, Exposure::LoadBalancer, &[REMOTE]);
        world.inside("client", || {
            for (family, addr) in VIP.into_iter().enumerate() {
                let to = at(addr, 80);
                let socket = udp(family);
                // The largest that fits, header and all.
                exchange_with(&socket, CLIENT[family], &to, [1452, 1412][family]);
                socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a time-out can be set");
                let first = exchange(&socket, &to, [1453, 1413][family]);
                assert!(first.is_err(), "{first:?}");
                socket.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
                for size in [1413, 1453, 1472, 4000, 20_000] {
                    exchange_with(&socket, CLIENT[family], &to, size);
                }
                let route = command::output("ip", ["route", "get", addr], None).expect("the kernel tells");
                let route = String::from_utf8(route).expect("text");
                assert!(route.contains(["mtu 1480", "mtu 1460"][family]), "{route}");
                // The size of connections is no matter: nothing is put around them.
                connect(&to).echo(1_000_000);
            }
        });
        assert_eq!(pair.count(Reason::DsrTooBig), 2);
    });
}

/// The way between the nodes takes less than the others: the client learns of it, as of any narrow path.
#[test]
fn clients_learn_of_a_narrow_path_between_nodes() {
    World::with(|world| {
        let _servers = servers(world);
        let mut pair = Pair::of(world);
        pair.serve(1, VIP, 80, Exposure::LoadBalancer, &[REMOTE]);
        world.ip(
            "node",
            &[
                &format!("route add {} via {} mtu lock 1400", REMOTE[0], OTHER[0]),
                &format!("route add {} via {} mtu lock 1400", REMOTE[1], OTHER[1]),
            ],
        );
        world.inside("client", || {
            for addr in VIP {
                connect(&at(addr, 80)).echo(1_000_000);
                let route = command::output("ip", ["route", "get", addr], None).expect("the kernel tells");
                let route = String::from_utf8(route).expect("text");
                assert!(route.contains("mtu 1400"), "{route}");
            }
        });
        assert!(pair.count(Reason::ErrorTranslated) >= 2);
    });
}

/// A packet to the frontend inside of another one, as a node would announce it; UDP, without checksum.
fn announcement(from: &str, client: &str, frontend: &str, backend: &str) -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().expect("an address").octets();
    let header = |from: &str, to: &str, id: u16, protocol: u8, length: u16| {
        let [high, low] = length.to_be_bytes();
        let [i, d] = id.to_be_bytes();
        // The kernel computes the checksum of a raw socket's header.
        let mut header = vec![0x45, 0, high, low, i, d, 0x40, 0, 64, protocol, 0, 0];
        header.extend([octets(from), octets(to)].concat());
        header
    };
    let udp = [&[0x30, 0x39, 0, 80, 0, 12, 0, 0][..], b"four"].concat();
    let mut inner = header(client, frontend, 0, 17, 32);
    let sum: u32 = inner.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("a carry or none");
    inner[10..12].copy_from_slice(&folded.to_be_bytes());
    [header(from, backend, PORT, 4, 52), inner, udp].concat()
}

#[test]
fn announcements_of_strangers_are_ignored() {
    World::with(|world| {
        let _servers = servers(world);
        let mut pair = Pair::of(world);
        pair.serve(1, VIP, 80, Exposure::LoadBalancer, &[REMOTE]);
        world.ip("client", &[&format!("route add 10.244.2.0/24 via {}", OTHER[0])]);
        let send = |packet: &[u8]| {
            world.inside("client", || {
                let raw = Protocol::from_raw(rustix::net::RawProtocol::new(255).expect("not zero"));
                let socket = socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(raw));
                let to: SocketAddr = socket_addr(REMOTE[0]);
                sendto(socket.expect("root may"), packet, SendFlags::empty(), &to).expect("it is sent");
            });
            std::thread::sleep(Duration::from_millis(200));
        };
        let genuine = announcement(CLIENT[0], CLIENT[0], VIP[0], REMOTE[0]);
        send(&genuine);
        assert_eq!((pair.other_count(Reason::DsrIgnored), pair.other_count(Reason::DsrTaken)), (1, 0));
        // For what is no frontend not even a node's is taken: a tunnel between nodes may look the same.
        pair.others.mark(CLIENT[0], AddressFlags::NODE);
        send(&announcement(CLIENT[0], CLIENT[0], "203.0.113.77", REMOTE[0]));
        assert_eq!((pair.other_count(Reason::DsrIgnored), pair.other_count(Reason::DsrTaken)), (2, 0));
        assert!(pair.other.conntrack().expect("the table can be read").is_empty());
        // The very packet that was ignored, were it a node's.
        send(&genuine);
        assert_eq!((pair.other_count(Reason::DsrIgnored), pair.other_count(Reason::DsrTaken)), (2, 1));
        // And nobody's where the node was not told to.
        pair.other.set_dsr(Dsr::Off).expect("the option can be set");
        send(&genuine);
        assert_eq!((pair.other_count(Reason::DsrIgnored), pair.other_count(Reason::DsrTaken)), (2, 1));
    });
}

fn socket_addr(addr: &str) -> SocketAddr {
    socket(addr, 0)
}

/// Where the backend's node does not answer directly, or the client is no outsider: as without.
#[test]
fn other_flows_are_masqueraded_as_ever() {
    World::with(|world| {
        let _servers = servers(world);
        let mut pair = Pair::of(world);
        pair.serve(1, VIP, 80, Exposure::LoadBalancer, &[REMOTE]);
        pair.serve(11, VIP, 81, Exposure::LoadBalancer, &[POD]);
        let sees = |pair: &Pair, from: &str, port: u16, expected: [&str; 2]| {
            let before = pair.count(Reason::DsrAnnounced);
            super::ways::reaches(world, from, VIP, port, if port == 80 { "remote" } else { "pod" }, expected);
            pair.count(Reason::DsrAnnounced) - before
        };
        assert_eq!(sees(&pair, "client", 80, CLIENT), 4);
        // On this node.
        assert_eq!(sees(&pair, "client", 81, super::world::BRIDGE), 0);
        // A pod of this node.
        assert_eq!(sees(&pair, "pod", 80, NODE), 0);
        pair.list(false);
        assert_eq!(sees(&pair, "client", 80, NODE), 0);
        pair.list(true);
        // A client that is a node, and a node that others do not know.
        for addr in CLIENT {
            pair.tables.mark(addr, AddressFlags::NODE);
        }
        assert_eq!(sees(&pair, "client", 80, NODE), 0);
        for addr in CLIENT {
            pair.tables.mark(addr, AddressFlags::default());
        }
        for addr in NODE {
            pair.tables.mark(addr, AddressFlags::LOCAL.with(AddressFlags::NODEPORT, true));
        }
        assert_eq!(sees(&pair, "client", 80, NODE), 0);
    });
}

/// One port of a client, two frontends, one backend: to the backend both would be the same connection.
#[test]
fn flows_that_would_look_alike_to_a_backend_are_masqueraded() {
    World::with(|world| {
        let _servers = servers(world);
        let mut pair = Pair::of(world);
        pair.serve(1, VIP, 80, Exposure::LoadBalancer, &[REMOTE]);
        pair.serve(11, VIP, 81, Exposure::LoadBalancer, &[REMOTE]);
        world.inside("client", || {
            for (family, addr) in VIP.into_iter().enumerate() {
                let socket = udp(family);
                let answers = [80, 81, 80, 81].map(|port| exchange(&socket, &at(addr, port), 10).expect("it answers"));
                assert_eq!(super::peers::seen(&answers[0]), CLIENT[family]);
                assert_eq!(super::peers::seen(&answers[1]), NODE[family]);
                assert_eq!((&answers[0], &answers[1]), (&answers[2], &answers[3]));
            }
        });
    });
}

#[test]
fn errors_about_direct_flows_reach_both_ends() {
    World::with(|world| {
        let mut pair = Pair::of(world);
        pair.serve(1, VIP, 80, Exposure::LoadBalancer, &[REMOTE]);
        // The backend refuses, and its node makes that the frontend's refusal.
        assert_eq!(endings(world, "client", VIP, 80, PATIENCE), REFUSED);
        for (family, addr) in VIP.into_iter().enumerate() {
            let server = world.inside("remote", || UdpSocket::bind(socket(REMOTE[family], PORT)).unwrap());
            server.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
            let client = world.inside("client", || {
                let client = udp(family);
                client.send_to(b"?", socket(addr, 80)).expect("it is sent");
                client
            });
            let (_, from) = server.recv_from(&mut [0; 8]).expect("it arrives");
            server.connect(from).expect("a socket can be connected");
            drop(client);
            // To nobody: the client says so to the frontend, whose node passes it on.
            server.send(b"!").expect("it is sent");
            let told = server.recv(&mut [0; 8]).expect_err("nobody is there");
            assert_eq!(told.kind(), ErrorKind::ConnectionRefused);
        }
        assert_eq!(pair.count(Reason::ErrorTranslated), 2);
    });
}

/// In the driver, connections go on without announcement, and datagrams are left to whom can announce them.
#[test]
fn the_short_cut_takes_connections_and_leaves_datagrams() {
    World::with(|world| {
        if command::run("ethtool", ["--version"], None).is_err() {
            println!("skipped: no ethtool");
            return;
        }
        let _servers = servers(world);
        let mut pair = Pair::of(world);
        pair.serve(1, VIP, 80, Exposure::LoadBalancer, &[REMOTE]);
        for (space, device) in [("client", "wire"), ("client", "to-node"), ("other", "eth0"), ("node", "eth0")] {
            world.inside(space, || {
                command::output("ethtool", ["-K", device, "tx", "off"], None).expect("offloads can be switched off");
            });
        }
        world.inside("node", || {
            pair.node.attach_xdp(|device| device.name == "eth0", XdpMode::Generic).expect("it can be attached");
        });
        world.inside("client", || {
            for (family, addr) in VIP.into_iter().enumerate() {
                connect(&at(addr, 80)).echo(300_000);
                let socket = udp(family);
                for _ in 0..5 {
                    exchange_with(&socket, CLIENT[family], &at(addr, 80), 700);
                }
            }
        });
        assert_eq!(pair.count(Reason::DsrAnnounced), 12);
        assert!(pair.count(Reason::ShortCut) > 40);
    });
}
