//! Modes, and standing back from flows that the kernel carries.

use std::time::Duration;

use kpx::dataplane::{KernelFlow, Mode, Reason};
use kpx::model::{Protocol, ServiceTable};

use super::ground::{Ground, cluster_ip, table};
use super::server::Server;

/// What not being translated looks like here, where no route leads to a frontend.
const UNREACHABLE: &str = "err 101";

fn services() -> ServiceTable {
    table([
        cluster_ip("10.96.0.10:80", Protocol::Tcp, &["127.0.0.1:8080"]),
        cluster_ip("10.96.0.10:53", Protocol::Udp, &["127.0.0.1:8080"]),
        cluster_ip("10.96.0.11:80", Protocol::Tcp, &[]),
        cluster_ip("10.96.0.11:53", Protocol::Udp, &[]),
    ])
}

#[test]
fn shadow_counts_and_changes_nothing() {
    Ground::with(|ground| {
        let _server = Server::start("a", "127.0.0.1:8080");
        let mut client = ground.agent();
        let dataplane = ground.dataplane(&services(), Mode::Shadow);
        client.ask("udp s 0.0.0.0:0");
        for command in [
            "tcp 10.96.0.10:80",
            "tcp 10.96.0.11:80",
            "send s 10.96.0.10:53",
            "send s 10.96.0.11:53",
            "connect s 10.96.0.10:53",
        ] {
            assert_eq!(client.ask(command), UNREACHABLE, "{command}");
        }
        let counters = dataplane.counters().unwrap();
        assert_eq!(counters.of(Reason::Shadow), 5);
        assert!(
            counters.reasons.iter().all(|(reason, count)| *reason == Reason::Shadow || *count == 0),
            "{counters:?}"
        );
        assert_eq!(counters.services.iter().map(|s| s.stats.shadow).sum::<u64>(), 5);
    });
}

#[test]
fn a_switch_of_mode_is_seen_at_once() {
    Ground::with(|ground| {
        let _server = Server::start("a", "127.0.0.1:8080");
        let mut client = ground.agent();
        let mut dataplane = ground.dataplane(&services(), Mode::Off);
        let served = |answer: &str| answer.starts_with("ok peer=10.96.0.10:80 a ");
        for mode in [Mode::Off, Mode::Active, Mode::Shadow, Mode::Active, Mode::Drain, Mode::Active] {
            dataplane.set_mode(mode).unwrap();
            assert_eq!(dataplane.mode().unwrap(), mode);
            let answer = client.ask("tcp 10.96.0.10:80");
            assert_eq!(served(&answer), mode == Mode::Active, "{mode:?}: {answer}");
            assert!(served(&answer) || answer == UNREACHABLE, "{answer}");
        }
    });
}

#[test]
fn drain_serves_flows_that_are_ours_and_takes_no_new_ones() {
    Ground::with(|ground| {
        let _server = Server::start("a", "127.0.0.1:8080");
        let mut client = ground.agent();
        let mut dataplane = ground.dataplane(&services(), Mode::Active);
        for socket in ["old", "connected", "new"] {
            client.ask(format!("udp {socket} 0.0.0.0:0"));
        }
        let before = client.ask("send old 10.96.0.10:53");
        assert!(before.starts_with("ok from=10.96.0.10:53 a "), "{before}");
        assert_eq!(client.ask("connect connected 10.96.0.10:53"), "ok");
        dataplane.set_mode(Mode::Drain).unwrap();
        let datagrams = dataplane.counters().unwrap().datagrams();
        assert_eq!(client.ask("send old 10.96.0.10:53"), before);
        let answer = client.ask("exchange connected");
        assert!(answer.starts_with("ok from=10.96.0.10:53 a "), "{answer}");
        assert_eq!(client.ask("send new 10.96.0.10:53"), UNREACHABLE);
        assert_eq!(client.ask("connect new 10.96.0.10:53"), UNREACHABLE);
        assert_eq!(dataplane.counters().unwrap().datagrams(), datagrams + 1, "the one flow that is still ours");
        // Back again: the socket that was left to the rules stays with them.
        dataplane.set_yield_time(Duration::from_mins(1)).unwrap();
        dataplane.set_mode(Mode::Active).unwrap();
        assert_eq!(client.ask("send new 10.96.0.10:53"), UNREACHABLE);
        assert_eq!(client.ask("send old 10.96.0.10:53"), before);
    });
}

#[test]
fn a_udp_flow_seen_in_shadow_mode_stays_with_the_kernel_until_it_was_idle() {
    Ground::with(|ground| {
        let _server = Server::start("a", "127.0.0.1:8080");
        let mut client = ground.agent();
        let mut dataplane = ground.dataplane(&services(), Mode::Shadow);
        client.ask("udp old 0.0.0.0:0");
        client.ask("udp new 0.0.0.0:0");
        assert_eq!(client.ask("send old 10.96.0.10:53"), UNREACHABLE);
        dataplane.set_yield_time(Duration::from_millis(500)).unwrap();
        dataplane.set_mode(Mode::Active).unwrap();
        assert!(client.ask("send new 10.96.0.10:53").starts_with("ok from=10.96.0.10:53 a "));
        // Each datagram begins the wait anew, just as it does in the kernel.
        for _ in 0..4 {
            assert_eq!(client.ask("send old 10.96.0.10:53"), UNREACHABLE);
            std::thread::sleep(Duration::from_millis(500));
        }
        assert_eq!(dataplane.counters().unwrap().of(Reason::Yielded), 4);
        std::thread::sleep(Duration::from_millis(1700));
        assert!(client.ask("send old 10.96.0.10:53").starts_with("ok from=10.96.0.10:53 a "));
    });
}

#[test]
fn a_udp_flow_older_than_the_programs_is_known_by_its_port() {
    Ground::with(|ground| {
        let _server = Server::start("a", "127.0.0.1:8080");
        let mut client = ground.agent();
        let mut dataplane = ground.dataplane(&services(), Mode::Off);
        client.ask("udp old 0.0.0.0:4444");
        client.ask("udp short 0.0.0.0:4445");
        client.ask("udp new 0.0.0.0:4446");
        let flow = |source_port, expires_in| KernelFlow {
            frontend: "10.96.0.10:53".parse().unwrap(),
            source_port,
            expires_in: Duration::from_secs(expires_in),
        };
        dataplane.yield_to(&[flow(4444, 100), flow(4445, 0)]).unwrap();
        dataplane.set_yield_time(Duration::from_secs(100)).unwrap();
        std::thread::sleep(Duration::from_millis(1100));
        dataplane.set_mode(Mode::Active).unwrap();
        assert_eq!(client.ask("send old 10.96.0.10:53"), UNREACHABLE);
        assert!(client.ask("send short 10.96.0.10:53").starts_with("ok from=10.96.0.10:53 a "));
        assert!(client.ask("send new 10.96.0.10:53").starts_with("ok from=10.96.0.10:53 a "));
        // The socket remembers from now on.
        dataplane.forget_yields().unwrap();
        assert_eq!(client.ask("send old 10.96.0.10:53"), UNREACHABLE);
    });
}
