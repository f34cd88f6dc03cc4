//! Associations of SCTP by real sockets, on kernels that have it.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use kpx::capture::command;
use kpx::dataplane::{Mode, Reason};
use kpx_abi::packet::proto::SCTP;
use kpx_abi::{Exposure, Flags};
use rustix::net::{AddressFamily, SocketType, bind, connect, ipproto, listen, socket, sockopt};

use super::frontends::Wanted;
use super::peers::{PATIENCE, Server, Talk, seen};
use super::services::{PORT, capacity, exposed};
use super::world::{self, BRIDGE, CLUSTER_IP, NODE, POD, REMOTE, VIP, World};

/// A socket of the style that is used like TCP's, and of one family: one of both would name addresses of both to its peer.
fn one_to_one(of: SocketAddr) -> io::Result<rustix::fd::OwnedFd> {
    let family = if of.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let made = socket(family, SocketType::STREAM, Some(ipproto::SCTP))?;
    if of.is_ipv6() {
        sockopt::set_ipv6_v6only(&made, true)?;
    }
    Ok(made)
}

fn serve(name: &'static str, at: SocketAddr) -> io::Result<Server> {
    let made = one_to_one(at)?;
    bind(&made, &at)?;
    listen(&made, 4)?;
    Ok(Server::of(name, TcpListener::from(made)))
}

fn dial(at: SocketAddr) -> io::Result<TcpStream> {
    let made = one_to_one(at)?;
    sockopt::set_socket_timeout(&made, sockopt::Timeout::Send, Some(PATIENCE))?;
    connect(&made, &at)?;
    Ok(TcpStream::from(made))
}

#[test]
fn associations_reach_backends_and_their_answers_come_back() {
    World::with(|world| {
        if let Err(error) = one_to_one(world::socket(NODE[0], 0)) {
            println!("skipped: this kernel has no SCTP (CONFIG_IP_SCTP): {error}");
            return;
        }
        let (dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let masqueraded = exposed(Exposure::LoadBalancer).with(Flags::MASQUERADE_ALWAYS, true);
        let kept = exposed(Exposure::ClusterIp);
        let mut servers = Vec::new();
        for family in [0, 1] {
            for (space, addr) in [("pod", POD), ("remote", REMOTE)] {
                let at = world::socket(addr[family], PORT);
                servers.push(world.inside(space, || serve(space, at).expect("it listens")));
            }
            for (number, addr, flags, backend) in
                [(1, CLUSTER_IP, kept, REMOTE), (3, VIP, masqueraded, REMOTE), (5, NODE, masqueraded, POD)]
            {
                let wanted = Wanted {
                    at: world::socket(addr[family], 80),
                    protocol: SCTP,
                    flags,
                    backends: vec![(world::socket(backend[family], PORT), backend == POD)],
                };
                tables.put(number + u32::try_from(family).expect("small"), &wanted);
            }
        }
        // Devices make the checksum themselves, or leave it to the kernel: then every packet has one.
        for offload in ["on", "off"] {
            for (space, device) in [("client", "wire"), ("client", "to-node"), ("pod", "eth0"), ("remote", "eth0")] {
                world.inside(space, || {
                    // Without ethtool the devices stay as they are.
                    command::output("ethtool", ["-K", device, "tx", offload], None).ok();
                });
            }
            for family in [0, 1] {
                for (space, to, name, source) in [
                    ("pod", CLUSTER_IP, "remote", POD),
                    ("client", VIP, "remote", NODE),
                    ("client", NODE, "pod", BRIDGE),
                ] {
                    let to = world::socket(to[family], 80);
                    let (mut talk, line) = world
                        .inside(space, || dial(to).and_then(Talk::over))
                        .unwrap_or_else(|error| panic!("{space} → {to}, offloads {offload}: {error}"));
                    assert!(line.starts_with(name), "{to}: {line}");
                    assert_eq!(seen(&line), source[family], "{to}");
                    talk.echo(100_000);
                }
            }
        }
        assert!(dataplane.counters().unwrap().of(Reason::FlowOpened) >= 12);
    });
}
