//! What takes minutes and hours, on a machine whose clock jumps over idle time.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use kpx::dataplane::{Dataplane, Mode, Reason, Timeouts};
use kpx::model::{Frontend, Protocol};
use kpx_abi::Exposure;
use rustix::net::sockopt::set_socket_linger;

use super::agent::Agent;
use super::ground::{Ground, cluster_ip, table};
use super::packets::services::{PORT, capacity, exposed, serve};
use super::packets::states::{kernel_entries, nft};
use super::packets::world::{CLUSTER_IP, REMOTE, World, set, socket};
use super::server::Server;

/// kube-proxy's default for `service.spec.sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY: Duration = Duration::from_hours(3);
/// How much less or more than the time in question is surely on its one side, whatever a test's own steps take.
const MARGIN: Duration = Duration::from_secs(10);

/// Whether hours pass in seconds; prints why not.
fn hours_pass() -> bool {
    let virtual_time = std::env::var_os("KPX_VIRTUAL_TIME").is_some();
    if !virtual_time {
        println!("skipped: takes hours; a machine that jumps over idle time: cargo xtask test --kernels");
    }
    virtual_time
}

/// Runs a test of hours where they pass in seconds.
fn with_hours(test: impl FnOnce(&Ground) + Send) {
    if hours_pass() {
        Ground::with(test);
    }
}

/// The server's name in an answer.
fn server(answer: &str) -> String {
    assert!(answer.starts_with("ok "), "{answer}");
    answer.split(' ').nth(2).expect("a name").to_owned()
}

#[test]
fn a_client_keeps_its_backend_for_three_hours_after_its_last_connection_and_no_longer() {
    with_hours(|ground| {
        let ports = ["127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003", "127.0.0.1:8004"];
        let _servers: Vec<_> =
            ["a", "b", "c", "d"].iter().zip(ports).map(|(name, at)| Server::start(name, at)).collect();
        let mut client = ground.agent();
        let sticky = Frontend {
            affinity: Some(u32::try_from(AFFINITY.as_secs()).unwrap()),
            ..cluster_ip("10.96.0.10:80", Protocol::Tcp, &ports)
        };
        ground.dataplane(&table([sticky]), Mode::Active);
        let mut connect = || server(&client.ask("tcp 10.96.0.10:80"));
        let first = connect();
        for _ in 0..2 {
            sleep(AFFINITY.saturating_sub(MARGIN));
            assert_eq!(connect(), first);
        }
        // The same each time by chance: once in four to the sixteenth.
        let another = (0..16).any(|_| {
            sleep(AFFINITY + MARGIN);
            connect() != first
        });
        assert!(another, "{first} again and again after hours of silence");
    });
}

/// The first answer of a socket that has been silent for so long.
fn after(client: &mut Agent, socket: &str, silence: Duration) -> String {
    sleep(silence);
    client.ask(format!("send {socket} 10.96.0.10:53"))
}

#[test]
fn a_udp_flow_of_the_kernel_is_left_alone_for_as_long_as_conntrack_keeps_it() {
    with_hours(|ground| {
        const UNREACHABLE: &str = "err 101";
        // nf_conntrack_udp_timeout_stream, as Linux sets it.
        let timeout = Duration::from_mins(2);
        let _server = Server::start("a", "127.0.0.1:8080");
        let mut client = ground.agent();
        let services = table([cluster_ip("10.96.0.10:53", Protocol::Udp, &["127.0.0.1:8080"])]);
        let mut dataplane = ground.dataplane(&services, Mode::Shadow);
        client.ask("udp old 0.0.0.0:0");
        assert_eq!(client.ask("send old 10.96.0.10:53"), UNREACHABLE);
        dataplane.set_yield_time(timeout).unwrap();
        dataplane.set_mode(Mode::Active).unwrap();
        // Each datagram begins the wait anew.
        for _ in 0..10 {
            assert_eq!(after(&mut client, "old", timeout.saturating_sub(MARGIN)), UNREACHABLE);
        }
        assert_eq!(dataplane.counters().unwrap().of(Reason::Yielded), 10);
        assert_eq!(server(&after(&mut client, "old", timeout + MARGIN)), "a");
        // Once it is ours it stays so: a socket's memory does not run out.
        assert_eq!(server(&after(&mut client, "old", Duration::from_hours(1))), "a");
        dataplane.set_mode(Mode::Drain).unwrap();
        assert_eq!(server(&after(&mut client, "old", Duration::from_hours(1))), "a");
    });
}

/// The time-outs of the kernel's conntrack and what kube-proxy sets: a connection that says nothing is kept for a day, and
/// for an hour once one side has finished.
const TIMEOUTS: Timeouts = Timeouts {
    opening: 60,
    tcp: 86_400,
    direct_tcp: 21_600,
    sctp: 210,
    half_closed: 3600,
    closing: 120,
    closed: 10,
    udp: 30,
    udp_answered: 120,
};

/// Conntrack sees what a rule asks it about.
const TRACK: &str = "
table inet track {
    chain forward { type filter hook forward priority filter; ct state new counter; }
}";

/// How long the kernel takes two datagrams and their answers for no more than that, and keeps them as if unanswered.
const BRIEF: Duration = Duration::from_secs(3);

/// A pod's flow by way of a ClusterIP to a pod of another node, of which the node's own conntrack knows too. Nothing in here
/// wakes up by itself: that would fill hours with work.
struct Flows<'a> {
    world: &'a World,
    dataplane: Dataplane,
    listener: TcpListener,
    datagrams: UdpSocket,
}

impl Flows<'_> {
    /// Runs a test of hours with them, or prints why not.
    fn with(test: impl FnOnce(Flows<'_>)) {
        if !hours_pass() {
            return;
        }
        World::with(|world| {
            let (dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
            serve(&mut tables, 1, CLUSTER_IP, 80, exposed(Exposure::ClusterIp), &[REMOTE]);
            nft(world, TRACK);
            for (state, seconds) in [("established", TIMEOUTS.tcp), ("close_wait", TIMEOUTS.half_closed)] {
                let name = format!("netfilter/nf_conntrack_tcp_timeout_{state}");
                world.inside("node", || set(&name, &seconds.to_string()));
            }
            let at = socket(REMOTE[0], PORT);
            let (listener, datagrams) = world.inside("remote", || (TcpListener::bind(at), UdpSocket::bind(at)));
            let (listener, datagrams) = (listener.expect("the port is free"), datagrams.expect("the port is free"));
            test(Flows { world, dataplane, listener, datagrams });
        });
    }

    /// A connection: the client's end and the server's.
    fn connect(&self) -> [TcpStream; 2] {
        let client = self.world.inside("pod", || TcpStream::connect(socket(CLUSTER_IP[0], 80)).expect("it connects"));
        let (server, _) = self.listener.accept().expect("a client comes");
        let ends = [client, server];
        carry(&ends);
        ends
    }

    fn client(&self) -> UdpSocket {
        let client = self.world.inside("pod", || UdpSocket::bind("0.0.0.0:0").expect("a socket can be bound"));
        client.connect(socket(CLUSTER_IP[0], 80)).expect("there is a route");
        client
    }

    /// A datagram that arrives, and its answer if there shall be one.
    fn send(&self, client: &UdpSocket, answer: bool) {
        let mut room = [0; 16];
        client.send(b"question").expect("it is sent");
        let (_, from) = self.datagrams.recv_from(&mut room).expect("it arrives");
        if answer {
            self.datagrams.send_to(b"answer", from).expect("it is sent");
            let size = client.recv(&mut room).expect("the answer arrives");
            assert_eq!(&room[..size], b"answer");
        }
    }

    /// How many flows kpx knows, having forgotten what is over; and how many the node's conntrack.
    fn known(&mut self) -> (usize, usize) {
        self.dataplane.forget_flows(&TIMEOUTS).expect("the table can be read");
        let entries = self.dataplane.conntrack().expect("the table can be read").len();
        assert_eq!(entries % 2, 0, "each flow has two entries");
        (entries / 2, kernel_entries(self.world, PORT).len())
    }

    /// The only flow there is lasts for so many seconds without a packet, at kpx and in the kernel, and no longer.
    fn lasts(&mut self, seconds: u64) {
        let (whole, margin) = (Duration::from_secs(seconds), MARGIN.min(Duration::from_secs(seconds / 2)));
        sleep(whole.saturating_sub(margin));
        assert_eq!(self.known(), (1, 1), "shortly before {whole:?} are over");
        sleep(2 * margin);
        assert_eq!(self.known(), (0, 0), "shortly after {whole:?} are over");
    }
}

/// A word from each end to the other.
fn carry([client, server]: &[TcpStream; 2]) {
    carry_one(client, server);
    carry_one(server, client);
}

fn carry_one(mut from: &TcpStream, mut to: &TcpStream) {
    from.write_all(b"word").expect("the connection takes it");
    let mut word = [0; 4];
    to.read_exact(&mut word).expect("it arrives");
    assert_eq!(&word, b"word");
}

#[test]
fn datagrams_through_the_packet_path_are_remembered_as_long_as_by_the_kernel() {
    Flows::with(|mut flows| {
        let client = flows.client();
        flows.send(&client, false);
        flows.lasts(TIMEOUTS.udp);
        flows.send(&client, true);
        sleep(BRIEF);
        // Each datagram begins the wait anew.
        for _ in 0..5 {
            flows.send(&client, true);
            sleep(Duration::from_secs(TIMEOUTS.udp_answered).saturating_sub(MARGIN));
            assert_eq!(flows.known(), (1, 1));
        }
        flows.send(&client, true);
        flows.lasts(TIMEOUTS.udp_answered);
        assert_eq!(flows.dataplane.counters().unwrap().of(Reason::FlowOpened), 2);
    });
}

#[test]
fn connections_through_the_packet_path_are_remembered_as_long_as_by_the_kernel() {
    Flows::with(|mut flows| {
        let open = flows.connect();
        // Each packet begins the wait anew.
        for _ in 0..2 {
            sleep(Duration::from_secs(TIMEOUTS.tcp).saturating_sub(MARGIN));
            assert_eq!(flows.known(), (1, 1));
            carry(&open);
        }
        flows.lasts(TIMEOUTS.tcp);
        let half = flows.connect();
        half[0].shutdown(Shutdown::Write).expect("one side may finish");
        sleep(Duration::from_secs(TIMEOUTS.half_closed).saturating_sub(MARGIN));
        assert_eq!(flows.known(), (1, 1));
        carry_one(&half[1], &half[0]);
        flows.lasts(TIMEOUTS.half_closed);
        drop(flows.connect());
        flows.lasts(TIMEOUTS.closing);
        let reset = flows.connect();
        set_socket_linger(&reset[0], Some(Duration::ZERO)).expect("a socket can be told to reset");
        drop(reset);
        flows.lasts(TIMEOUTS.closed);
        assert_eq!(flows.dataplane.counters().unwrap().of(Reason::FlowOpened), 4);
    });
}

#[test]
fn what_the_packet_path_has_begun_it_carries_on_for_hours_of_draining() {
    Flows::with(|mut flows| {
        let (ends, client) = (flows.connect(), flows.client());
        flows.send(&client, true);
        sleep(BRIEF);
        flows.send(&client, true);
        flows.dataplane.set_mode(Mode::Drain).unwrap();
        for _ in 0..60 {
            sleep(Duration::from_secs(TIMEOUTS.udp_answered).saturating_sub(MARGIN));
            flows.send(&client, true);
            assert_eq!(flows.known(), (2, 2));
        }
        carry(&ends);
        // What is silent for too long is new, and new flows are the rules'.
        sleep(Duration::from_secs(TIMEOUTS.udp_answered) + MARGIN);
        assert_eq!(flows.known(), (1, 1));
        client.send(b"question").expect("it is sent");
        flows.datagrams.set_nonblocking(true).expect("a socket can be told not to wait");
        sleep(Duration::from_secs(1));
        let arrived = flows.datagrams.recv(&mut [0; 16]);
        assert!(arrived.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
        carry(&ends);
        assert_eq!(flows.dataplane.counters().unwrap().of(Reason::FlowOpened), 2);
    });
}
