//! What others do to packets on their way: tables in front of the rules and behind the hooks, sources that are replaced, and addresses and
//! pods that are out of reach.

use std::net::SocketAddr;

use kpx::capture::{Node, NodeOptions, Variant, command};
use kpx::dataplane::{Capacity, Dataplane, Mode, Paths};
use kpx::inspect::kube;
use kpx::migrate::removal::{Form, render, restore};
use kpx::model::Protocol;
use serde_json::json;

use super::{Elsewhere, Visit, WEB, web};
use crate::agent::api::{service, slice};
use crate::agent::serving;
use crate::dataplane::agent::Agent;
use crate::dataplane::ground::{Ground, cluster_ip, table};
use crate::dataplane::packets::peers::{seen, tcp};
use crate::dataplane::packets::services::{PORT, servers};
use crate::dataplane::packets::world::{BRIDGE, CLIENT, CLUSTER_IP, NEIGHBOUR, NODE, POD, VIP, World, at};
use crate::dataplane::server::Server;

fn nft(commands: &str) {
    command::output("nft", [commands], None).expect("tables can be changed");
}

#[test]
fn a_table_in_front_of_kube_proxys_rules_is_named() {
    Ground::with(|ground| {
        let _servers = [Server::start("a", "127.0.0.1:8080"), Server::start("b", "127.0.0.2:8080")];
        let _servers = [Server::start("a", "[fd00::1]:8080"), Server::start("b", "[fd00::2]:8080")];
        let rig = web(ground);
        let mut both = service("web", "10.96.0.10", 80, "TCP");
        both["spec"]["clusterIPs"] = json!(["10.96.0.10", "fd00:96::10"]);
        both["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
        rig.api.put(both);
        let mut slice = slice("web", "web-2", 8080, "TCP", &["fd00::1"]);
        slice["addressType"] = json!("IPv6");
        rig.api.put(slice);
        let options = NodeOptions {
            kubeconfig: Some(rig.state("kubeconfig")),
            node_name: Some("node-a".to_owned()),
            ..NodeOptions::default()
        };
        let node = Node::open(&options).expect("it opens");
        let table = kube::read_node(&node).expect("the API answers").table;
        restore(&node, &render(&table, Variant::Nft, Form::default())).expect("rules load");
        let mut client = ground.agent();
        let visit = |pid: u32, to: &str| Visit::of(&rig, &ground.paths, pid, to);
        let cases = [("ip", WEB, "127.0.0.2"), ("ip6", "[fd00:96::10]:80", "fd00::2")];
        for (family, to, elsewhere) in cases {
            assert!(client.ask(format!("tcp {to}")).contains(" a "), "{to}");
            assert_eq!(visit(client.pid(), to).result("first"), "passed");
            let (ip, port) = to.rsplit_once(':').expect("a port");
            let ip = ip.trim_matches(['[', ']']);
            let rule = |priority: &str, to: &str| {
                nft(&format!(
                    "table inet theirs {{ chain out {{ type nat hook output priority {priority}; \
                     {family} daddr {ip} tcp dport {port} counter {to}; }}; }}"
                ));
            };
            let elsewhere = SocketAddr::new(elsewhere.parse().expect("an address"), 8080);
            rule("-150", &format!("dnat {family} to {elsewhere}"));
            assert!(client.ask(format!("tcp {to}")).contains(" b "), "{to}");
            let named = visit(client.pid(), to);
            named.is("first", "somebody-in-front");
            assert!(named.check("first")["evidence"].to_string().contains("inet theirs out 1"));
            let next = named.report["cause"]["next"].as_str().expect("a command");
            assert_eq!(next, "nft list table inet theirs");
            nft("delete table inet theirs");
            // In a form that kube-proxy does not use.
            rule("-150", "redirect to :8080");
            visit(client.pid(), to).is("first", "somebody-in-front");
            nft("delete table inet theirs");
            // Behind kube-proxy's it has nothing left to say.
            rule("-50", &format!("dnat {family} to {elsewhere}"));
            assert!(client.ask(format!("tcp {to}")).contains(" a "), "{to}");
            assert_eq!(visit(client.pid(), to).result("first"), "passed");
            nft("delete table inet theirs");
        }
    });
}

#[test]
fn who_translates_first_is_told_by_what_kpx_did_not_count() {
    Ground::with(|ground| {
        let (_a, _b) = (Server::start("a", "127.0.0.1:8080"), Server::start("b", "127.0.0.2:8080"));
        let rig = web(ground);
        let first = Paths { pins: ground.paths.pins.with_file_name("first"), ..ground.paths.clone() };
        let of_others = table([cluster_ip(WEB, Protocol::Tcp, &["127.0.0.2:8080"])]);
        let mut others = Dataplane::install(&first, &Capacity::for_table(&of_others)).expect("installed");
        others.fill(&of_others).expect("filled");
        others.attach().expect("attached");
        rig.start_and_kill();
        let mut client = ground.agent();
        let visit = |pid| Visit::of(&rig, &ground.paths, pid, "ns/web");
        // They look on.
        assert!(client.ask(format!("tcp {WEB}")).contains(" a "));
        let beside = visit(client.pid());
        beside.is_well();
        assert_eq!((beside.result("first"), &beside.check("first")["cause"]), ("remark", &json!("somebody-in-front")));
        others.set_mode(Mode::Active).expect("switched");
        assert!(client.ask(format!("tcp {WEB}")).contains(" b "), "kpx's backend is another");
        visit(client.pid()).is("first", "somebody-in-front");
        Dataplane::remove(&first).expect("removed");
        visit(client.pid()).is_well();
    });
}

/// Whether a client outside gets an answer, and whom the server saw.
fn from_outside(world: &World, to: &str) -> Option<String> {
    world.inside("client", || tcp(to).ok()).map(|answer| seen(&answer))
}

#[test]
fn a_node_port_out_of_reach_is_explained() {
    World::with(|world| {
        let _servers = servers(world);
        world.inside("node", || {
            let pid = std::process::id();
            let node_port = format!("{}:30080/TCP --from-ip {}", NODE[0], CLIENT[0]);
            let rig =
                serving::rig(world).with("--kube-proxy-flag cluster-cidr=10.244.0.0/16,fd44::/16 --devices !eth0");
            let visit = |words: &str| Visit::of(&rig, &world.paths, pid, &format!("--no-connect {words}"));
            let agent = rig.start();
            rig.until_healthy();
            assert_eq!(from_outside(world, &at(NODE[0], 30_080)), None);
            let bare = visit(&node_port);
            assert_eq!(bare.check("devices")["cause"], "devices-not-attached", "{:#}", bare.report);
            assert!(bare.check("devices")["finding"].as_str().is_some_and(|text| text.starts_with("eth0")));
            drop(agent);
            let rig = rig.with(serving::FLAGS);
            let visit = |words: &str| Visit::of(&rig, &world.paths, pid, &format!("--no-connect {words}"));
            let _agent = rig.start();
            rig.until("it answers", || from_outside(world, &at(NODE[0], 30_080)).is_some());
            assert_eq!(visit(&node_port).result("devices"), "passed");
            // Rules of others, as a container engine sets them.
            let iptables = |line: &str| {
                command::output("iptables", line.split(' '), None).expect("rules can be changed");
            };
            iptables("-P FORWARD DROP");
            rig.until("it is dropped", || from_outside(world, &at(NODE[0], 30_080)).is_none());
            let filtered = visit(&node_port);
            assert_eq!(filtered.check("way")["cause"], "filtered", "{:#}", filtered.report);
            assert!(filtered.check("way")["evidence"].to_string().contains("FORWARD"));
            iptables("-P FORWARD ACCEPT");
            rig.until("it answers", || from_outside(world, &at(NODE[0], 30_080)).is_some());
            assert_eq!(visit(&node_port).result("way"), "passed");
            // externalTrafficPolicy Local, and the backend is on another node.
            let mut there = rig.api.get("Service", "ns/there");
            there["spec"]["externalTrafficPolicy"] = json!("Local");
            rig.api.put(there);
            rig.until("it is dropped", || from_outside(world, &at(NODE[0], 30_081)).is_none());
            let dropped = visit(&format!("{}:30081/TCP --from-ip {}", NODE[0], CLIENT[0]));
            assert_eq!(dropped.check("way")["cause"], "no-local-endpoint", "{:#}", dropped.report);
            // Source ranges that leave the client out.
            let mut here = rig.api.get("Service", "ns/here");
            here["spec"]["loadBalancerSourceRanges"] = json!(["198.51.100.0/24"]);
            rig.api.put(here);
            rig.until("it is dropped", || from_outside(world, &at(VIP[0], 80)).is_none());
            let left_out = visit(&format!("{}:80/TCP --from-ip {}", VIP[0], CLIENT[0]));
            assert_eq!(left_out.check("way")["cause"], "source-ranges", "{:#}", left_out.report);
            assert!(visit(&format!("{}:80/TCP --from-ip 198.51.100.7", VIP[0])).result("way") == "passed");
        });
    });
}

#[test]
fn what_others_do_behind_the_hooks_and_node_port_addresses_are_explained_in_both_families() {
    World::with(|world| {
        let _servers = servers(world);
        world.inside("node", || {
            let rig = serving::rig(world).with(
                "--kube-proxy-flag cluster-cidr=10.244.0.0/16,fd44::/16 \
                 --kube-proxy-flag nodeport-addresses=192.168.77.0/24,fd77::/64",
            );
            let _agent = rig.start();
            rig.until_healthy();
            for family in [0, 1] {
                let visit = |to: &str| {
                    let words = format!("--no-connect {}/TCP --from-ip {}", at(to, 30_080), CLIENT[family]);
                    Visit::of(&rig, &world.paths, std::process::id(), &words)
                };
                let answers = |name: &str| {
                    let answer = world.inside("client", || tcp(&at(NODE[family], 30_080)).ok());
                    answer.is_some_and(|answer| answer.starts_with(&format!("{name} ")))
                };
                assert!(answers("pod"));
                let word = ["ip", "ip6"][family];
                let rule = |chain: &str, to: &str| {
                    nft(&format!(
                        "table inet theirs {{ chain first {{ {chain}; {word} daddr {} {to}; }}; }}",
                        POD[family]
                    ));
                };
                rule(
                    "type nat hook prerouting priority -100",
                    &format!("tcp dport {PORT} counter dnat {word} to {}", at(NEIGHBOUR[family], PORT)),
                );
                assert!(answers("neighbour"));
                let sent_on = visit(NODE[family]);
                assert_eq!(sent_on.check("way")["cause"], "wrong-way", "{:#}", sent_on.report);
                assert!(sent_on.check("way")["evidence"].to_string().contains("inet theirs first 1"));
                assert_eq!(sent_on.check("way")["next"], "nft list table inet theirs");
                nft("delete table inet theirs");
                // Of IPv4 these are tried with rules of iptables.
                if family == 0 {
                    continue;
                }
                assert_eq!(visit(NODE[family]).result("way"), "passed");
                rule("type filter hook forward priority 0", "drop");
                assert_eq!(from_outside(world, &at(NODE[family], 30_080)), None);
                let filtered = visit(NODE[family]);
                assert_eq!(filtered.check("way")["cause"], "filtered", "{:#}", filtered.report);
                nft("delete table inet theirs");
                // An address of the node that nodePortAddresses leave out.
                assert_eq!(from_outside(world, &at(BRIDGE[family], 30_080)), None);
                let left_out = visit(BRIDGE[family]);
                assert_eq!(left_out.check("way")["cause"], "node-port-address", "{:#}", left_out.report);
            }
        });
    });
}

#[test]
fn a_pod_that_is_not_seen_at_sockets_and_one_that_gets_no_answer_are_told_apart() {
    World::with(|world| {
        let _servers = servers(world);
        world.inside("node", || {
            let rig = serving::rig(world);
            let _agent = rig.start();
            rig.until_healthy();
            let elsewhere = Elsewhere::new("unseen");
            let unseen = world.inside("neighbour", || Agent::start(&elsewhere.0));
            let mut seen = world.inside("neighbour", || Agent::start(&world.paths.cgroup));
            for family in [0, 1] {
                let to = at(CLUSTER_IP[family], 80);
                let visit = |pid| Visit::of(&rig, &world.paths, pid, &format!("{to}/TCP"));
                // Devices serve it, as they serve this process.
                let answers = || world.inside("neighbour", || tcp(&to).is_ok_and(|answer| answer.starts_with("pod ")));
                assert!(answers());
                let served = visit(unseen.pid());
                let sockets = served.check("sockets");
                assert_eq!((&sockets["result"], &sockets["cause"]), (&json!("remark"), &json!("other-cgroup")));
                assert!(sockets["evidence"].to_string().contains("kpx-unseen"), "{sockets:#}");
                assert_eq!(served.result("pod"), "passed", "{:#}", served.report);
                // A network policy in the pod's own namespace, say.
                world.ip("neighbour", &[&format!("route add unreachable {}", POD[family])]);
                assert_eq!(
                    seen.ask(format!("tcp {to}")),
                    format!("err {}", rustix::io::Errno::HOSTUNREACH.raw_os_error())
                );
                let unanswered = visit(seen.pid());
                for check in ["sockets", "host"] {
                    assert_eq!(unanswered.result(check), "passed", "{:#}", unanswered.report);
                }
                assert_eq!(unanswered.check("pod")["cause"], "no-answer", "{:#}", unanswered.report);
            }
            drop((seen, unseen));
        });
    });
}

#[test]
fn a_source_that_is_replaced_is_explained() {
    World::with(|world| {
        let _servers = servers(world);
        world.inside("node", || {
            let rig = serving::rig(world);
            let _agent = rig.start();
            rig.until_healthy();
            let words = format!("--no-connect {}:30080/TCP --from-ip {}", NODE[0], CLIENT[0]);
            let visit = || Visit::of(&rig, &world.paths, std::process::id(), &words);
            assert_eq!(from_outside(world, &at(NODE[0], 30_080)).as_deref(), Some(BRIDGE[0]));
            let replaced = visit();
            let source = replaced.check("source");
            assert_eq!(
                (&source["result"], &source["cause"]),
                (&json!("remark"), &json!("source-replaced")),
                "{source:#}"
            );
            assert!(source["finding"].as_str().is_some_and(|text| text.contains("externalTrafficPolicy is Cluster")));
            let mut here = rig.api.get("Service", "ns/here");
            here["spec"]["externalTrafficPolicy"] = json!("Local");
            rig.api.put(here);
            rig.until("its own", || from_outside(world, &at(NODE[0], 30_080)).as_deref() == Some(CLIENT[0]));
            assert_eq!(visit().result("source"), "passed");
            // Somebody else replaces it.
            let rule = "-t nat -A POSTROUTING -d 10.244.0.0/16 -j MASQUERADE";
            command::output("iptables", rule.split(' '), None).expect("a rule can be made");
            rig.until("the node's", || from_outside(world, &at(NODE[0], 30_080)).as_deref() == Some(BRIDGE[0]));
            let by_others = visit();
            let source = by_others.check("source");
            assert_eq!(
                (&source["result"], &source["cause"]),
                (&json!("failed"), &json!("source-replaced")),
                "{source:#}"
            );
            assert!(source["evidence"].to_string().contains("nat POSTROUTING 1"), "{source:#}");
        });
    });
}
