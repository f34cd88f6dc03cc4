//! Off, shadow, active, drain.

use std::io::ErrorKind;

use kpx::dataplane::{Mode, Reason};
use kpx_abi::Exposure;

use super::peers::{SILENCE, Talk, exchange, tcp, udp};
use super::services::{capacity, exposed, serve, servers};
use super::world::{CLUSTER_IP, NEIGHBOUR, World, at};

#[test]
fn modes_do_what_they_say() {
    World::with(|world| {
        let _servers = servers(world);
        let (mut dataplane, mut tables) = world.dataplane(&capacity(), Mode::Off);
        serve(&mut tables, 1, CLUSTER_IP, 80, exposed(Exposure::ClusterIp), &[NEIGHBOUR]);
        let to = at(CLUSTER_IP[0], 80);
        let silent = || {
            let begun = world.inside("pod", || std::net::TcpStream::connect_timeout(&to.parse().unwrap(), SILENCE));
            // Nobody translates, and the way to the frontend ends at a router.
            assert!(begun.is_err());
        };
        silent();
        assert_eq!(dataplane.counters().unwrap().of(Reason::Shadow), 0);
        dataplane.set_mode(Mode::Shadow).unwrap();
        silent();
        let quick = world.inside("pod", || udp(0));
        quick.set_read_timeout(Some(SILENCE)).unwrap();
        assert!(exchange(&quick, &to, 10).is_err());
        assert!(dataplane.counters().unwrap().of(Reason::Shadow) >= 2);
        dataplane.set_yield_time(std::time::Duration::from_mins(1)).unwrap();
        dataplane.set_mode(Mode::Active).unwrap();
        let (mut talk, answer) = world.inside("pod", || Talk::to(&to)).unwrap();
        assert!(answer.starts_with("neighbour "), "{answer}");
        // The flow that the rules would have is theirs still; a new one is ours.
        assert!(exchange(&quick, &to, 10).is_err());
        assert_eq!(dataplane.counters().unwrap().of(Reason::Yielded), 1);
        let socket = world.inside("pod", || udp(0));
        exchange(&socket, &to, 10).unwrap();
        dataplane.set_mode(Mode::Drain).unwrap();
        talk.echo(100_000);
        exchange(&socket, &to, 10).unwrap();
        let fresh = world.inside("pod", || tcp(&to));
        assert!(fresh.is_err_and(|error| error.kind() != ErrorKind::ConnectionRefused));
        // What the rules begin meanwhile is theirs, also when the programs serve again.
        let theirs = world.inside("pod", || udp(0));
        theirs.set_read_timeout(Some(SILENCE)).unwrap();
        assert!(exchange(&theirs, &to, 10).is_err());
        dataplane.set_mode(Mode::Active).unwrap();
        assert!(exchange(&theirs, &to, 10).is_err());
        assert_eq!(dataplane.counters().unwrap().of(Reason::Yielded), 2);
        exchange(&socket, &to, 10).unwrap();
    });
}
