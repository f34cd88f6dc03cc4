//! Sockets that connect to what is no ClusterIP; affinity, source ranges, and ports that are taken.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kpx::capture::command;
use kpx::dataplane::{ClientAddresses, Dataplane, Mode, Reason, node_addresses};
use kpx::model::{
    Backend, Detector, Exposure, Frontend, NodeFacts, NodePortScope, Policy, Protocol, ServiceName, ServiceTable,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::agent::Agent;
use super::ground::{Ground, cluster_ip, table};
use super::server::Server;

const EADDRINUSE: &str = "err 98";
const ECONNREFUSED: &str = "err 111";

fn exposed(exposure: Exposure, at: &str, protocol: Protocol, endpoints: &[&str]) -> Frontend {
    let mut frontend = cluster_ip(at, protocol, endpoints);
    frontend.key.exposure = exposure;
    frontend.service = Some(ServiceName { namespace: "shop".into(), name: "web".into() });
    frontend
}

/// NodePorts answer on these addresses; the node has the others too.
fn answer_on(dataplane: &mut Dataplane, answering: &[&str], others: &[&str]) {
    let set = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<BTreeSet<_>>();
    let facts = NodeFacts { node_ports: NodePortScope::Addresses(set(answering)), ..NodeFacts::default() };
    let table = ServiceTable::new(Vec::new(), facts.clone(), facts);
    let local = set(&[answering, others].concat());
    dataplane.set_addresses(&node_addresses(&table, &local)).expect("the addresses are written");
}

/// Runs a closure in a network namespace of its own, as a pod's, with its loopback device up.
fn in_a_pod<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let start = || {
            // SAFETY: not one flag that concerns memory or descriptors: only this thread's network namespace changes.
            #[expect(unsafe_code, reason = "unshare is unsafe for flags that are not used here")]
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("root can make a network namespace");
            command::output("ip", ["link", "set", "lo", "up"], None).expect("the loopback device can be set up");
            body()
        };
        scope.spawn(start).join().expect("the pod starts")
    })
}

#[test]
fn node_ports_answer_at_the_nodes_addresses_and_at_no_other() {
    Ground::with(|ground| {
        let _servers = [Server::start("four", "127.0.0.1:8080"), Server::start("six", "[fd00::1]:8080")];
        let mut node = ground.agent();
        let frontends = [Protocol::Tcp, Protocol::Udp].into_iter().flat_map(|protocol| {
            [
                exposed(Exposure::NodePort, "0.0.0.0:30080", protocol, &["127.0.0.1:8080"]),
                exposed(Exposure::NodePort, "[::]:30080", protocol, &["[fd00::1]:8080"]),
            ]
        });
        let mut dataplane = ground.dataplane(&table(frontends), Mode::Active);
        answer_on(&mut dataplane, &["127.0.0.1", "fd00::1"], &["fd00::2"]);
        for at in ["127.0.0.1:30080", "127.9.9.9:30080"] {
            assert!(node.ask(format!("tcp {at}")).starts_with(&format!("ok peer={at} four ")), "{at}");
        }
        assert!(node.ask("tcp [fd00::1]:30080").starts_with("ok peer=[fd00::1]:30080 six "));
        assert_eq!(node.ask("tcp [fd00::2]:30080"), ECONNREFUSED, "no NodePort answers there");
        node.ask("udp four 0.0.0.0:0");
        node.ask("udp six [::]:0");
        for (socket, at) in [("four", "127.0.0.1:30080"), ("six", "[fd00::1]:30080")] {
            let answer = node.ask(format!("send {socket} {at}"));
            assert!(answer.starts_with(&format!("ok from={at} {socket} ")), "{answer}");
        }
        let mut pod = in_a_pod(|| Agent::start(&ground.paths.cgroup));
        assert_eq!(pod.ask("tcp 127.0.0.1:30080"), ECONNREFUSED, "a pod's loopback address is its own");
    });
}

#[test]
fn addresses_that_no_node_has_are_reached() {
    Ground::with(|ground| {
        let _server = Server::start("four", "127.0.0.1:8080");
        let mut node = ground.agent();
        let frontends = [
            exposed(Exposure::LoadBalancer, "192.0.2.10:80", Protocol::Tcp, &["127.0.0.1:8080"]),
            exposed(Exposure::ExternalIp, "198.51.100.7:80", Protocol::Tcp, &["127.0.0.1:8080"]),
        ];
        ground.dataplane(&table(frontends), Mode::Active);
        for at in ["192.0.2.10:80", "198.51.100.7:80"] {
            assert!(node.ask(format!("tcp {at}")).starts_with(&format!("ok peer={at} four ")), "{at}");
        }
    });
}

/// The node and pods take every endpoint, also under a Local policy; pods that are not recognised count as outside.
#[test]
fn a_local_policy_is_for_clients_from_outside() {
    Ground::with(|ground| {
        let mut frontend = exposed(Exposure::LoadBalancer, "192.0.2.10:80", Protocol::Tcp, &["127.0.0.1:8080"]);
        frontend.external_policy = Policy::Local;
        frontend.local = vec![Backend { port: 8081, local: Some(true), ..frontend.cluster[0] }];
        let mut dataplane = ground.dataplane(&table([frontend.clone()]), Mode::Active);
        let servers = || [Server::start("all", "127.0.0.1:8080"), Server::start("here", "127.0.0.1:8081")];
        let mut pod = in_a_pod(|| {
            // They are told to end by a connection, which cannot be made from here: they end with the process.
            std::mem::forget(servers());
            Agent::start(&ground.paths.cgroup)
        });
        let (mut node, _on_node) = (ground.agent(), servers());
        let mut reached = || [&mut node, &mut pod].map(|client| client.ask("tcp 192.0.2.10:80"));
        for answer in reached() {
            assert!(answer.starts_with("ok peer=192.0.2.10:80 all "), "{answer}");
        }
        let blind = NodeFacts { detector: Detector::None, ..NodeFacts::default() };
        dataplane.fill(&ServiceTable::new(vec![frontend], blind.clone(), blind)).unwrap();
        let [node, pod] = reached();
        assert!(node.starts_with("ok peer=192.0.2.10:80 all "), "{node}");
        assert!(pod.starts_with("ok peer=192.0.2.10:80 here "), "{pod}");
    });
}

#[test]
fn affinity_holds_for_its_time_over_all_frontends_of_a_port() {
    Ground::with(|ground| {
        let names = ["a", "b", "c", "d"];
        let places = ["127.0.0.1:8080", "127.0.0.2:8080", "127.0.0.3:8080", "127.0.0.4:8080"];
        let _servers: Vec<_> = names.into_iter().zip(places).map(|(name, at)| Server::start(name, at)).collect();
        let services = |seconds| {
            [(Exposure::ClusterIp, "10.96.0.10:80"), (Exposure::LoadBalancer, "192.0.2.10:80")].map(|(exposure, at)| {
                Frontend { affinity: Some(seconds), ..exposed(exposure, at, Protocol::Tcp, &places) }
            })
        };
        let mut node = ground.agent();
        let mut dataplane = ground.dataplane(&table(services(3600)), Mode::Active);
        let first = node.ask("tcp-many 10.96.0.10:80 20");
        assert!(names.iter().any(|name| first == format!("ok {name}=20")), "{first}");
        assert_eq!(node.ask("tcp-many 192.0.2.10:80 20"), first);
        dataplane.fill(&table(services(1))).unwrap();
        let forgotten = (0..40).any(|_| {
            std::thread::sleep(Duration::from_millis(1100));
            node.ask("tcp-many 10.96.0.10:80 1").replace("=1", "") != first.replace("=20", "")
        });
        assert!(forgotten, "another backend is chosen some time after the affinity is over");
    });
}

/// Cookie of the ground's namespace, as the dataplane found it out.
fn node_netns(ground: &Ground) -> u64 {
    let config = ground.paths.pins.join("maps/kpx_config");
    let words = ["-j", "map", "dump", "pinned", config.to_str().expect("UTF-8")];
    let json: serde_json::Value =
        serde_json::from_slice(&command::output("bpftool", words, None).expect("bpftool dumps it")).expect("JSON");
    json[0]["formatted"]["value"]["node_netns"].as_u64().expect("the configuration says it")
}

#[test]
fn source_ranges_are_left_to_others_until_the_client_is_known() {
    Ground::with(|ground| {
        let _server = Server::start("four", "127.0.0.1:8080");
        let mut node = ground.agent();
        let mut frontend = exposed(Exposure::LoadBalancer, "192.0.2.10:80", Protocol::Tcp, &["127.0.0.1:8080"]);
        frontend.sources = vec!["10.1.0.0/16".parse().unwrap()];
        let mut dataplane = ground.dataplane(&table([frontend]), Mode::Active);
        assert!(node.ask("tcp 192.0.2.10:80").starts_with("err "), "nobody has this address");
        assert_eq!(dataplane.counters().unwrap().of(Reason::Deferred), 1);
        let netns = node_netns(ground);
        let mut known_as = |ip: &str| {
            let client = ClientAddresses { v4: Some(ip.parse().unwrap()), v6: None };
            dataplane.set_clients(&BTreeMap::from([(netns, client)])).unwrap();
            node.ask("tcp 192.0.2.10:80")
        };
        assert!(known_as("10.2.0.1").starts_with("err "), "not in the range");
        assert!(known_as("10.1.0.1").starts_with("ok peer=192.0.2.10:80 four "));
        let counters = dataplane.counters().unwrap();
        assert_eq!((counters.of(Reason::Deferred), counters.of(Reason::DropPassed)), (1, 1));
    });
}

#[test]
fn a_port_that_is_a_node_port_is_taken_once_the_rules_are_gone() {
    Ground::with(|ground| {
        ground.route_frontends();
        let mut node = ground.agent();
        let services = table([exposed(Exposure::NodePort, "0.0.0.0:30080", Protocol::Tcp, &["127.0.0.1:8080"])]);
        let mut dataplane = ground.dataplane(&services, Mode::Active);
        answer_on(&mut dataplane, &["127.0.0.1"], &["10.2.0.1"]);
        assert_eq!(node.ask("listen 0.0.0.0:30080"), "ok", "the rules do not mind");
        dataplane.set_rules_gone(true).unwrap();
        for taken in ["0.0.0.0:30080", "127.0.0.1:30080", "[::]:30080"] {
            assert_eq!(node.ask(format!("listen {taken}")), EADDRINUSE, "{taken}");
        }
        for free in ["0.0.0.0:30081", "10.2.0.1:30080", "[fd00::1]:30080"] {
            assert_eq!(node.ask(format!("listen {free}")), "ok", "{free}");
        }
        assert!(node.ask("udp s 0.0.0.0:30080").starts_with("ok "), "another protocol");
        let mut pod = in_a_pod(|| Agent::start(&ground.paths.cgroup));
        assert_eq!(pod.ask("listen 0.0.0.0:30080"), "ok", "another namespace");
        dataplane.set_mode(Mode::Shadow).unwrap();
        assert_eq!(node.ask("listen 0.0.0.0:30080"), "ok", "another mode");
        assert_eq!(dataplane.counters().unwrap().of(Reason::BindRefused), 3);
    });
}

/// With rules it is their datagrams that are refused (`sockets`, `a_reject_rule_shows_just_that`).
#[test]
fn udp_without_backends_cannot_connect_once_the_rules_are_gone() {
    Ground::with(|ground| {
        ground.route_frontends();
        let mut node = ground.agent();
        let mut dataplane = ground.dataplane(&table([cluster_ip("10.96.0.10:53", Protocol::Udp, &[])]), Mode::Active);
        node.ask("udp s 0.0.0.0:0");
        assert_eq!(node.ask("connect s 10.96.0.10:53"), "ok");
        dataplane.set_rules_gone(true).unwrap();
        assert_eq!(node.ask("connect s 10.96.0.10:53"), ECONNREFUSED);
    });
}
