//! What takes minutes and hours, on a machine whose clock jumps over idle time.

use std::thread::sleep;
use std::time::Duration;

use kpx::dataplane::{Mode, Reason};
use kpx::model::{Frontend, Protocol};

use super::agent::Agent;
use super::ground::{Ground, cluster_ip, table};
use super::server::Server;

/// kube-proxy's default for `service.spec.sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY: Duration = Duration::from_hours(3);
/// How much less or more than the time in question is surely on its one side, whatever a test's own steps take.
const MARGIN: Duration = Duration::from_secs(10);

/// Runs a test of hours where they pass in seconds, or prints why not.
fn with_hours(test: impl FnOnce(&Ground) + Send) {
    if std::env::var_os("KPX_VIRTUAL_TIME").is_none() {
        println!("skipped: takes hours; a machine that jumps over idle time: cargo xtask test --kernels");
        return;
    }
    Ground::with(test);
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
