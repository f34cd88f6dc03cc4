//! What applications and backends see.

use aya::sys::BpfHelper;
use kpx::capture::command;
use kpx::dataplane::{Mode, Reason};
use kpx::model::{NoBackends, Policy, Protocol};

use super::features;
use super::ground::{Ground, cluster_ip, table};
use super::server::Server;

const EPERM: &str = "err 1";
const ECONNREFUSED: &str = "err 111";

/// The client's address in what a server said.
fn seen(answer: &str) -> &str {
    answer.rsplit(' ').next().unwrap_or_default()
}

#[test]
fn tcp_reaches_a_backend_and_knows_the_frontend_as_its_peer() {
    Ground::with(|ground| {
        let _servers = [Server::start("four", "127.0.0.1:8080"), Server::start("six", "[fd00::1]:8080")];
        let mut client = ground.agent();
        let dataplane = ground.dataplane(
            &table([
                cluster_ip("10.96.0.10:80", Protocol::Tcp, &["127.0.0.1:8080"]),
                cluster_ip("[fd00:96::10]:80", Protocol::Tcp, &["[fd00::1]:8080"]),
            ]),
            Mode::Active,
        );
        let four = client.ask("tcp 10.96.0.10:80");
        assert!(four.starts_with("ok peer=10.96.0.10:80 four 127.0.0.1:"), "{four}");
        let six = client.ask("tcp [fd00:96::10]:80");
        assert!(six.starts_with("ok peer=[fd00:96::10]:80 six [fd00::"), "{six}");
        let mapped = client.ask("tcp [::ffff:10.96.0.10]:80");
        assert!(mapped.starts_with("ok peer=[::ffff:10.96.0.10]:80 four 127.0.0.1:"), "{mapped}");
        let direct = client.ask("tcp 127.0.0.1:8080");
        assert!(direct.starts_with("ok peer=127.0.0.1:8080 four 127.0.0.1:"), "{direct}");
        let counters = dataplane.counters().unwrap();
        assert_eq!(counters.of(Reason::TcpConnect), 3);
        assert_eq!(counters.of(Reason::PeerRestored), 3);
        assert_eq!(counters.of(Reason::NotService), 1);
        let connects: Vec<u64> = counters.services.iter().map(|s| s.stats.connects).collect();
        assert_eq!(connects, [2, 1], "IPv4 as such and mapped, and IPv6");
    });
}

#[test]
fn tcp_is_spread_evenly() {
    Ground::with(|ground| {
        let _servers = [Server::start("a", "127.0.0.1:8001"), Server::start("b", "127.0.0.1:8002")];
        let mut client = ground.agent();
        let endpoints = ["127.0.0.1:8001", "127.0.0.1:8002"];
        ground.dataplane(&table([cluster_ip("10.96.0.10:80", Protocol::Tcp, &endpoints)]), Mode::Active);
        let answer = client.ask("tcp-many 10.96.0.10:80 400");
        let count = |name: &str| -> usize {
            let found = answer.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.map_or(0, |n| n.parse().unwrap())
        };
        assert_eq!(count("a") + count("b"), 400, "{answer}");
        // Five standard deviations from even.
        assert!(count("a").abs_diff(200) < 50, "{answer}");
    });
}

#[test]
fn unconnected_udp_keeps_its_backend_and_sees_answers_from_the_frontend() {
    Ground::with(|ground| {
        let names = ["a", "b", "c", "d"];
        let ports = ["127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003", "127.0.0.1:8004"];
        let mut servers: Vec<_> = names.iter().zip(ports).map(|(name, at)| (at, Server::start(name, at))).collect();
        let mut client = ground.agent();
        let frontend = |ports: &[&str]| table([cluster_ip("10.96.0.10:53", Protocol::Udp, ports)]);
        let mut dataplane = ground.dataplane(&frontend(&ports), Mode::Active);
        let mut chosen = std::collections::BTreeSet::new();
        for i in 0..16 {
            let local = client.ask(format!("udp s{i} 0.0.0.0:0"));
            let first = client.ask(format!("send s{i} 10.96.0.10:53"));
            assert!(first.starts_with("ok from=10.96.0.10:53 "), "{first}");
            assert_eq!(seen(&first).rsplit(':').next(), local.rsplit(':').next(), "the server sees the socket's port");
            for _ in 0..3 {
                assert_eq!(client.ask(format!("send s{i} 10.96.0.10:53")), first);
            }
            chosen.insert(first.split(' ').nth(2).unwrap().to_owned());
        }
        assert!(chosen.len() > 1, "sixteen sockets, and all chose {chosen:?}");
        // The list changes and the backend stays in it: the flow stays where it is.
        let before = client.ask("send s0 10.96.0.10:53");
        let name = before.split(' ').nth(2).unwrap().to_owned();
        let own = ports[names.iter().position(|n| *n == name).unwrap()];
        let other = *ports.iter().find(|p| **p != own).unwrap();
        dataplane.fill(&frontend(&[own, other])).unwrap();
        assert_eq!(client.ask("send s0 10.96.0.10:53"), before);
        // The backend goes: the flow goes elsewhere, the server with it or not.
        dataplane.fill(&frontend(&[other])).unwrap();
        servers.retain(|(at, _)| *at != own);
        let after = client.ask("send s0 10.96.0.10:53");
        assert!(after.starts_with("ok from=10.96.0.10:53 "), "{after}");
        assert_ne!(after, before);
    });
}

#[test]
fn one_udp_socket_speaks_to_many_frontends_in_both_families() {
    Ground::with(|ground| {
        let _servers = [Server::start("four", "127.0.0.1:5300"), Server::start("six", "[fd00::1]:5300")];
        let mut client = ground.agent();
        let four = (1..=12).map(|n| cluster_ip(&format!("10.96.0.{n}:53"), Protocol::Udp, &["127.0.0.1:5300"]));
        let six = cluster_ip("[fd00:96::10]:53", Protocol::Udp, &["[fd00::1]:5300"]);
        ground.dataplane(&table(four.chain([six])), Mode::Active);
        client.ask("udp s [::]:0");
        // More frontends than a socket remembers, twice over.
        for n in (1..=12).chain(1..=12) {
            let answer = client.ask(format!("send s [::ffff:10.96.0.{n}]:53"));
            assert!(answer.starts_with(&format!("ok from=[::ffff:10.96.0.{n}]:53 four ")), "{answer}");
        }
        let answer = client.ask("send s [fd00:96::10]:53");
        assert!(answer.starts_with("ok from=[fd00:96::10]:53 six "), "{answer}");
        // What is spoken to directly answers as itself, though frontends led there before.
        let answer = client.ask("send s [::ffff:127.0.0.1]:5300");
        assert!(answer.starts_with("ok from=[::ffff:127.0.0.1]:5300 four "), "{answer}");
    });
}

#[test]
fn connected_udp_knows_the_frontend_as_its_peer_until_it_connects_elsewhere() {
    Ground::with(|ground| {
        let _server = Server::start("four", "127.0.0.1:5300");
        let mut client = ground.agent();
        ground.dataplane(&table([cluster_ip("10.96.0.10:53", Protocol::Udp, &["127.0.0.1:5300"])]), Mode::Active);
        client.ask("udp s 0.0.0.0:0");
        assert_eq!(client.ask("connect s 10.96.0.10:53"), "ok");
        assert_eq!(client.ask("peer s"), "ok 10.96.0.10:53");
        let answer = client.ask("exchange s");
        assert!(answer.starts_with("ok from=10.96.0.10:53 four 127.0.0.1:"), "{answer}");
        assert_eq!(client.ask("connect s 127.0.0.1:5300"), "ok");
        assert_eq!(client.ask("peer s"), "ok 127.0.0.1:5300");
        let answer = client.ask("exchange s");
        assert!(answer.starts_with("ok from=127.0.0.1:5300 four "), "{answer}");
    });
}

#[test]
fn without_backends_applications_see_what_a_reject_rule_shows() {
    Ground::with(|ground| {
        ground.route_frontends();
        // What an older kernel cannot do at the socket is left to the rules, which a node has.
        let (connects, datagrams) =
            (features::has_helper(BpfHelper::BPF_FUNC_set_retval), features::tells_netns_cookie());
        let complete = connects && datagrams;
        if !complete && !reject_rules() {
            return;
        }
        let mut client = ground.agent();
        let dataplane = ground.dataplane(
            &table([
                cluster_ip("10.96.0.10:80", Protocol::Tcp, &[]),
                cluster_ip("[fd00:96::10]:80", Protocol::Tcp, &[]),
                cluster_ip("10.96.0.10:53", Protocol::Udp, &[]),
            ]),
            Mode::Active,
        );
        assert_eq!(client.ask("tcp 10.96.0.10:80"), ECONNREFUSED);
        assert_eq!(client.ask("tcp [fd00:96::10]:80"), ECONNREFUSED);
        client.ask("udp s 0.0.0.0:0");
        assert_eq!(client.ask("send s 10.96.0.10:53"), EPERM);
        assert_eq!(client.ask("connect s 10.96.0.10:53"), "ok", "connecting sends nothing that could be refused");
        let counters = dataplane.counters().unwrap();
        let refused = 2 * u64::from(connects) + u64::from(datagrams);
        assert_eq!((counters.of(Reason::Refused), counters.of(Reason::RefusalPassed)), (refused, 4 - refused));
    });
}

/// The rules that kube-proxy writes for Services without endpoints; prints why there are none.
fn reject_rules() -> bool {
    if command::run("iptables", ["--version"], None).is_err() {
        println!("skipped: no iptables");
        return false;
    }
    for (program, vip, answer) in
        [("iptables", "10.96.0.10", "icmp-port-unreachable"), ("ip6tables", "fd00:96::10", "icmp6-port-unreachable")]
    {
        let args = ["-A", "OUTPUT", "-d", vip, "-j", "REJECT", "--reject-with", answer];
        command::output(program, args, None).expect("root can add a rule");
    }
    true
}

/// The oracle for the test above: the same calls against the rule that kube-proxy writes for a Service without endpoints.
#[test]
fn a_reject_rule_shows_just_that() {
    Ground::with(|ground| {
        ground.route_frontends();
        if !reject_rules() {
            return;
        }
        let mut client = ground.agent();
        assert_eq!(client.ask("tcp 10.96.0.10:80"), ECONNREFUSED);
        assert_eq!(client.ask("tcp [fd00:96::10]:80"), ECONNREFUSED);
        client.ask("udp s 0.0.0.0:0");
        assert_eq!(client.ask("send s 10.96.0.10:53"), EPERM);
        assert_eq!(client.ask("connect s 10.96.0.10:53"), "ok");
    });
}

#[test]
fn a_local_policy_without_local_backends_is_left_to_the_rules() {
    Ground::with(|ground| {
        let mut frontend = cluster_ip("10.96.0.10:80", Protocol::Tcp, &["127.0.0.1:8080"]);
        frontend.internal_policy = Policy::Local;
        frontend.no_backends = Some(NoBackends::Drop);
        let mut client = ground.agent();
        let dataplane = ground.dataplane(&table([frontend]), Mode::Active);
        // No route leads to the frontend here, which only what is not translated can notice.
        assert_eq!(client.ask("tcp 10.96.0.10:80"), "err 101");
        assert_eq!(dataplane.counters().unwrap().of(Reason::DropPassed), 1);
    });
}
