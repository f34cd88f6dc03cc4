//! What is remembered of flows, and for how long.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use kpx::dataplane::{Capacity, Dataplane, Mode, Reason, Timeouts};
use kpx_abi::{Exposure, Flags};

use super::peers::{Talk, exchange, tcp, udp};
use super::services::{PORT, capacity, exposed, serve, servers};
use super::world::{CLUSTER_IP, NEIGHBOUR, POD, REMOTE, VIP, World, at, socket};

/// The name that a server gave.
fn name(answer: &str) -> &str {
    answer.split(' ').next().unwrap_or_default()
}

#[test]
fn a_client_with_affinity_keeps_its_backend_whatever_socket_it_uses() {
    World::with(|world| {
        let _servers = servers(world);
        let (_dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let flags = exposed(Exposure::LoadBalancer).with(Flags::MASQUERADE_ALWAYS, true);
        let backends = [POD, NEIGHBOUR, REMOTE];
        serve(&mut tables, 1, VIP, 80, flags, &backends);
        tables.affinity(1, 3600);
        serve(&mut tables, 11, VIP, 81, flags, &backends);
        let ask = |port: u16| -> Vec<String> {
            world.inside("client", || {
                (0..24).map(|_| name(&tcp(&at(VIP[0], port)).expect("it answers")).to_owned()).collect()
            })
        };
        let mut sticky = ask(80);
        sticky.dedup();
        assert_eq!(sticky.len(), 1, "{sticky:?}");
        let mut free = ask(81);
        free.sort_unstable();
        free.dedup();
        assert_eq!(free.len(), 3, "{free:?}");
    });
}

#[test]
fn datagrams_leave_a_backend_that_is_gone_and_connections_stay() {
    World::with(|world| {
        let _servers = servers(world);
        let (_dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let flags = exposed(Exposure::ClusterIp);
        serve(&mut tables, 1, CLUSTER_IP, 80, flags, &[NEIGHBOUR]);
        let (mut talk, socket) = world.inside("pod", || {
            let socket = udp(0);
            let answer = exchange(&socket, &at(CLUSTER_IP[0], 80), 10).unwrap();
            assert_eq!(name(&answer), "neighbour");
            (Talk::to(&at(CLUSTER_IP[0], 80)).unwrap().0, socket)
        });
        for service in 1..5 {
            tables.retire(service);
        }
        serve(&mut tables, 11, CLUSTER_IP, 80, flags, &[REMOTE]);
        talk.echo(100_000);
        let answer = exchange(&socket, &at(CLUSTER_IP[0], 80), 10).unwrap();
        assert_eq!(name(&answer), "remote");
        let answer = world.inside("pod", || tcp(&at(CLUSTER_IP[0], 80))).unwrap();
        assert_eq!(name(&answer), "remote");
    });
}

/// Two frontends, one backend, one port of the client: to the backend both would be the same flow.
#[test]
fn flows_that_would_look_alike_to_a_backend_are_told_apart() {
    World::with(|world| {
        let _servers = servers(world);
        let (_dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        serve(&mut tables, 1, CLUSTER_IP, 80, exposed(Exposure::ClusterIp), &[NEIGHBOUR]);
        serve(&mut tables, 11, CLUSTER_IP, 81, exposed(Exposure::ClusterIp), &[NEIGHBOUR]);
        world.inside("pod", || {
            let socket = udp(0);
            let answers: Vec<String> =
                [80, 81, 80, 81].map(|port| exchange(&socket, &at(CLUSTER_IP[0], port), 10).unwrap()).into();
            assert_eq!(answers[0], answers[2]);
            assert_eq!(answers[1], answers[3]);
            assert_ne!(answers[0], answers[1], "the backend sees two clients");
        });
    });
}

/// Connections that stay open, until one fails.
fn hold(world: &World, to: SocketAddr, most: usize) -> Vec<TcpStream> {
    world.inside("client", || {
        (0..most).map_while(|_| TcpStream::connect_timeout(&to, Duration::from_millis(500)).ok()).collect()
    })
}

#[test]
fn a_backend_takes_as_many_masqueraded_flows_as_there_are_ports() {
    World::with(|world| {
        let _servers = servers(world);
        let (dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let flags = exposed(Exposure::LoadBalancer).with(Flags::MASQUERADE_ALWAYS, true);
        serve(&mut tables, 1, VIP, 80, flags, &[REMOTE]);
        serve(&mut tables, 11, VIP, 81, flags, &[POD]);
        tables.source_ports(4000, 4003);
        let held = hold(world, socket(VIP[0], 80), 6);
        assert_eq!(held.len(), 4);
        assert!(dataplane.counters().unwrap().of(Reason::NoPort) > 0);
        // Another backend has its own.
        assert_eq!(hold(world, socket(VIP[0], 81), 3).len(), 3);
        // What the backend sees are these very ports.
        let peer = world.inside("client", || Talk::to(&at(VIP[1], 80)).unwrap().1);
        let port = peer.rsplit(':').next().unwrap().parse::<u16>().unwrap();
        assert!((4000..=4003).contains(&port), "{peer}");
    });
}

/// Forgets flows until so many entries are gone.
fn forget_all(dataplane: &mut Dataplane, timeouts: &Timeouts, all: usize) -> usize {
    let begun = Instant::now();
    let mut forgotten = 0;
    while begun.elapsed() < Duration::from_secs(30) {
        forgotten += dataplane.forget_flows(timeouts).expect("the table can be read");
        std::thread::sleep(Duration::from_millis(100));
        if forgotten == all {
            break;
        }
    }
    forgotten
}

#[test]
fn a_full_table_takes_no_flow_until_others_are_forgotten() {
    World::with(|world| {
        let _servers = servers(world);
        let (mut dataplane, mut tables) = world.dataplane(&Capacity { conntrack: 8, ..capacity() }, Mode::Active);
        let flags = exposed(Exposure::LoadBalancer).with(Flags::MASQUERADE_ALWAYS, true);
        serve(&mut tables, 1, VIP, 80, flags, &[REMOTE]);
        let held = hold(world, socket(VIP[0], 80), 4);
        assert_eq!(held.len(), 2, "a masqueraded flow takes four entries");
        assert!(dataplane.counters().unwrap().of(Reason::ConntrackFull) > 0);
        // Established flows are nobody's to forget.
        assert_eq!(dataplane.forget_flows(&Timeouts::default()).unwrap(), 0);
        drop(held);
        let short = Timeouts { closing: 0, closed: 0, ..Timeouts::default() };
        assert_eq!(forget_all(&mut dataplane, &short, 8), 8);
        assert_eq!(hold(world, socket(VIP[0], 80), 1).len(), 1);
    });
}

/// Who has nothing more to send may be answered for as long as the other likes.
#[test]
fn half_closed_connections_are_not_taken_for_closed_ones() {
    World::with(|world| {
        let (mut dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let flags = exposed(Exposure::LoadBalancer).with(Flags::MASQUERADE_ALWAYS, true);
        serve(&mut tables, 1, VIP, 80, flags, &[REMOTE]);
        let listener = world.inside("remote", || TcpListener::bind(socket(REMOTE[0], PORT)).expect("it is free"));
        let mut client = hold(world, socket(VIP[0], 80), 1).pop().expect("it connects");
        let (mut server, _) = listener.accept().expect("a client comes");
        client.shutdown(Shutdown::Write).expect("it is open");
        assert_eq!(server.read(&mut [0; 8]).expect("it ends"), 0);
        // A flow's age is known to a second.
        std::thread::sleep(Duration::from_millis(2500));
        let short = Timeouts { closing: 0, closed: 0, ..Timeouts::default() };
        assert_eq!(dataplane.forget_flows(&short).expect("the table can be read"), 0);
        server.write_all(b"late").expect("it is open");
        let mut room = [0; 4];
        client.read_exact(&mut room).expect("the answer comes");
        assert_eq!(&room, b"late");
        drop(server);
        assert_eq!(client.read(&mut room).expect("it ends"), 0);
        assert_eq!(forget_all(&mut dataplane, &short, 4), 4);
    });
}

/// A port that is used again after its connection has ended is a new flow, and may go to another backend.
#[test]
fn a_port_used_again_begins_anew() {
    World::with(|world| {
        let _servers = servers(world);
        let (dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let flags = exposed(Exposure::LoadBalancer).with(Flags::MASQUERADE_ALWAYS, true);
        serve(&mut tables, 1, VIP, 80, flags, &[REMOTE]);
        // So few ports that TIME_WAIT does not help: each is used again and again.
        world.inside("client", || {
            super::world::set("ipv4/ip_local_port_range", "50000 50003");
            super::world::set("ipv4/tcp_tw_reuse", "1");
            for _ in 0..3 {
                for _ in 0..4 {
                    let (talk, answer) = Talk::to(&at(VIP[0], 80)).expect("it connects");
                    assert_eq!(name(&answer), "remote");
                    // Resets instead of waiting.
                    talk.abort();
                }
            }
        });
        assert_eq!(dataplane.counters().unwrap().of(Reason::FlowOpened), 12);
    });
}
