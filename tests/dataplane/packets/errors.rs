//! What clients are told when nobody answers.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use kpx::dataplane::{Mode, Reason};
use kpx_abi::{AddressFlags, Exposure, Flags};

use super::peers::{PATIENCE, SILENCE, tcp, udp};
use super::services::{capacity, exposed, serve};
use super::world::{CLUSTER_IP, NODE, POD, REMOTE, VIP, World, at, socket};

/// What a TCP connection and a datagram of a connected socket end with, in both families.
///
/// An error that arrives while connect() still sends its SYN is lost on the kernel: it takes the next SYN to be told.
pub(super) fn endings(world: &World, space: &str, addr: [&str; 2], port: u16, patience: Duration) -> Vec<ErrorKind> {
    world.inside(space, || {
        let mut found = Vec::new();
        for (family, addr) in addr.iter().enumerate() {
            let to = socket(addr, port);
            found.push(TcpStream::connect_timeout(&to, patience).expect_err("nobody is there").kind());
            let socket = udp(family);
            socket.set_read_timeout(Some(patience)).expect("a time-out can be set");
            socket.connect(to).expect("nothing is sent yet");
            socket.send(b"?").expect("nobody has answered yet");
            found.push(socket.recv(&mut [0; 8]).expect_err("nobody is there").kind());
        }
        found
    })
}

pub(super) const REFUSED: [ErrorKind; 4] = [ErrorKind::ConnectionRefused; 4];
const SILENT: [ErrorKind; 4] = [ErrorKind::TimedOut, ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::WouldBlock];

#[test]
fn without_backends_clients_are_refused() {
    World::with(|world| {
        let (dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        serve(&mut tables, 1, CLUSTER_IP, 80, exposed(Exposure::ClusterIp), &[]);
        serve(&mut tables, 11, ["0.0.0.0", "::"], 30001, exposed(Exposure::NodePort), &[]);
        assert_eq!(endings(world, "pod", CLUSTER_IP, 80, PATIENCE), REFUSED);
        assert_eq!(endings(world, "client", CLUSTER_IP, 80, PATIENCE), REFUSED);
        assert_eq!(endings(world, "client", NODE, 30001, PATIENCE), REFUSED);
        assert!(dataplane.counters().unwrap().of(Reason::PacketRefused) >= 12);
        // A ClusterIP's port that the Service does not have.
        for addr in CLUSTER_IP {
            tables.mark(addr, AddressFlags::CLUSTER_IP);
        }
        assert_eq!(endings(world, "pod", CLUSTER_IP, 4711, PATIENCE), REFUSED);
    });
}

#[test]
fn a_local_policy_without_local_backends_is_silent_to_outside_clients_only() {
    World::with(|world| {
        let _servers = super::services::servers(world);
        let (dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let flags = exposed(Exposure::LoadBalancer).with(Flags::EXTERNAL_LOCAL, true).with(Flags::EMPTY_DROPS, true);
        serve(&mut tables, 1, VIP, 80, flags, &[REMOTE]);
        assert_eq!(endings(world, "client", VIP, 80, SILENCE), SILENT);
        assert!(dataplane.counters().unwrap().of(Reason::PacketDropped) >= 4);
        let answer = world.inside("pod", || tcp(&at(VIP[0], 80))).expect("a pod uses all backends");
        assert!(answer.starts_with("remote "), "{answer}");
    });
}

/// The backend's own refusal reaches the socket that asked, translated back on each way.
#[test]
fn icmp_errors_of_backends_reach_the_clients_socket() {
    World::with(|world| {
        let (dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let plain = exposed(Exposure::ClusterIp);
        let masqueraded = exposed(Exposure::LoadBalancer).with(Flags::MASQUERADE_ALWAYS, true);
        // No server runs anywhere.
        serve(&mut tables, 1, CLUSTER_IP, 80, plain, &[REMOTE]);
        serve(&mut tables, 11, VIP, 80, masqueraded, &[REMOTE]);
        serve(&mut tables, 21, VIP, 81, masqueraded, &[POD]);
        for (space, addr, port) in
            [("pod", CLUSTER_IP, 80), ("client", VIP, 80), ("client", VIP, 81), ("node", CLUSTER_IP, 80)]
        {
            assert_eq!(endings(world, space, addr, port, PATIENCE), REFUSED, "{space} {addr:?} {port}");
        }
        let translated = dataplane.counters().unwrap().of(Reason::ErrorTranslated);
        // Masquerade takes two steps, both of them translate.
        assert!(translated >= 2 + 4 + 4 + 2, "{translated}");
    });
}
