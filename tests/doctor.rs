//! `kpx doctor`: each usual complaint provoked for real, seen by a client, and named.

use std::net::{SocketAddr, UdpSocket};

use kpx::capture::{Node, NodeOptions, Variant, cgroup, command};
use kpx::dataplane::{Capacity, Dataplane, Mode, Paths};
use kpx::inspect::kube;
use kpx::migrate::removal::{Form, render, restore};
use kpx::model::Protocol;
use serde_json::{Value, json};

use crate::agent::api::{service, slice};
use crate::agent::rig::Rig;
use crate::agent::serving;
use crate::cli::schema::conforms;
use crate::dataplane::agent::Agent;
use crate::dataplane::ground::{Ground, cluster_ip, table};
use crate::dataplane::packets::peers::{seen, tcp};
use crate::dataplane::packets::services::{PORT, servers};
use crate::dataplane::packets::world::{BRIDGE, CLIENT, CLUSTER_IP, NEIGHBOUR, NODE, POD, VIP, World, at};
use crate::dataplane::server::Server;

const WEB: &str = "10.96.0.10:80";

/// What doctor said.
struct Visit {
    code: i32,
    report: Value,
}

impl Visit {
    /// Asks in the network namespace of this thread, on behalf of a pod that is this process.
    fn of(rig: &Rig<'_>, paths: &Paths, pod: u32, words: &str) -> Self {
        let (pins, cgroup) = (paths.pins.display(), paths.cgroup.display());
        let kubeconfig = rig.state("kubeconfig");
        let line = format!(
            "--bpffs {pins} --cgroup {cgroup} --kubeconfig {} --node-name node-a -o json doctor --pod-process {pod} \
             --listen 10ms {words}",
            kubeconfig.display()
        );
        let output = command::run(env!("CARGO_BIN_EXE_kpx"), line.split_whitespace(), None).expect("it runs");
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
        conforms(&report);
        Self { code: output.status.code().expect("it ends by itself"), report }
    }

    fn check(&self, name: &str) -> &Value {
        let items = self.report["items"].as_array().expect("a list");
        items.iter().find(|item| item["check"] == name).expect("a check of that name")
    }

    fn result(&self, name: &str) -> &str {
        self.check(name)["result"].as_str().expect("a word")
    }

    /// The first failure: check and cause.
    #[track_caller]
    fn is(&self, check: &str, cause: &str) {
        let found = &self.report["cause"];
        assert_eq!((&found["check"], &found["cause"]), (&json!(check), &json!(cause)), "{:#}", self.report);
        assert_eq!(self.code, 2);
        assert!(found["next"].as_str().is_some_and(|next| !next.is_empty()));
    }

    #[track_caller]
    fn is_well(&self) {
        assert_eq!((self.code, &self.report["cause"]), (0, &Value::Null), "{:#}", self.report);
    }
}

/// A Service with a backend at 127.0.0.1:8080.
fn web(ground: &Ground) -> Rig<'_> {
    let rig = Rig::new(ground);
    rig.api.put(service("web", "10.96.0.10", 80, "TCP"));
    rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]));
    rig
}

#[test]
fn a_service_that_works_has_no_cause_and_one_missing_after_the_migration_has() {
    Ground::with(|ground| {
        let server = Server::start("a", "127.0.0.1:8080");
        let rig = web(ground);
        let agent = rig.start();
        rig.until_healthy();
        let mut client = ground.agent();
        let visit = |words: &str| Visit::of(&rig, &ground.paths, client.pid(), words);
        for target in ["ns/web", WEB, "10.96.0.10", ""] {
            visit(target).is_well();
        }
        let well = visit("ns/web");
        for check in ["api", "endpoints", "serves", "programmed", "sockets", "devices", "first", "way", "host", "pod"] {
            assert_eq!(well.result(check), "passed", "{:#}", well.report);
        }
        assert!(well.check("first")["finding"].as_str().is_some_and(|text| text.contains("counted")));
        // What is nowhere, what is no Service's, what nobody translates.
        visit("ns/wep").is("api", "no-such-service");
        visit("10.96.0.11").is("api", "no-such-address");
        visit("10.96.0.10:81").is("api", "no-such-address");
        assert_eq!(visit("10.96.0.10:81").result("sockets"), "passed");
        visit("127.0.0.1:8080").is("api", "no-such-address");
        let mut headless = service("headless", "None", 80, "TCP");
        headless["spec"]["clusterIPs"] = json!(["None"]);
        rig.api.put(headless);
        visit("ns/headless").is("api", "not-translated");
        // Without an agent, a Service is in the API alone.
        agent.kill();
        rig.api.put(service("late", "10.96.0.20", 80, "TCP"));
        rig.api.put(slice("late", "late-1", 8080, "TCP", &["127.0.0.1"]));
        assert!(client.ask("tcp 10.96.0.20:80").starts_with("err"));
        let visit = |words: &str| Visit::of(&rig, &ground.paths, client.pid(), words);
        let missing = visit("ns/late");
        missing.is("programmed", "not-programmed");
        assert_eq!(missing.check("way")["cause"], "wrong-way");
        assert!(missing.check("programmed")["evidence"].to_string().contains("no agent follows the API here"));
        assert_eq!(missing.result("host"), "failed");
        visit("").is("programmed", "not-programmed");
        visit("ns/web").is_well();
        // Endpoints that changed meanwhile.
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.9"]));
        visit("ns/web").is("programmed", "outdated");
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]));
        // The Service is all right, and its backend is not.
        drop(server);
        let dead = visit("ns/web");
        dead.is("host", "backend-down");
        assert!(dead.check("host")["evidence"].to_string().contains("127.0.0.1:8080/TCP"));
    });
}

#[test]
fn a_service_without_endpoints_moves_a_counter() {
    Ground::with(|ground| {
        let rig = web(ground);
        let mut unready = slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]);
        unready["endpoints"][0]["conditions"] = json!({ "ready": false, "serving": false, "terminating": false });
        rig.api.put(unready);
        let _agent = rig.start();
        rig.until_healthy();
        let client = ground.agent();
        let visit = Visit::of(&rig, &ground.paths, client.pid(), "ns/web");
        visit.is("endpoints", "no-endpoints");
        assert!(visit.check("endpoints")["evidence"].to_string().contains("1 endpoint, 1 not ready"));
        let drops = visit.check("drops");
        assert_eq!(drops["cause"], "drops-move", "{drops:#}");
        assert!(drops["evidence"].to_string().contains("refused"));
    });
}

/// A cgroup beside the ground's; gone with this value.
struct Elsewhere(std::path::PathBuf);

impl Elsewhere {
    fn new(name: &str) -> Self {
        let root = cgroup::root().expect("a cgroup2 hierarchy");
        let elsewhere = Self(root.join(format!("kpx-{name}-{}", std::process::id())));
        fs_err::create_dir(&elsewhere.0).expect("a cgroup can be made");
        elsewhere
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        for _ in 0..100 {
            if fs_err::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[test]
fn load_balancing_at_sockets_that_does_not_work_is_explained() {
    Ground::with(|ground| {
        let _server = Server::start("a", "127.0.0.1:8080");
        let rig = web(ground);
        rig.start_and_kill();
        let mut client = ground.agent();
        let visit = |words: &str| Visit::of(&rig, &ground.paths, client.pid(), words);
        visit("ns/web").is_well();
        // A pod that is not below the cgroup.
        let elsewhere = Elsewhere::new("elsewhere");
        let mut pod = Agent::start(&elsewhere.0);
        assert!(pod.ask(format!("tcp {WEB}")).starts_with("err"));
        let outside = Visit::of(&rig, &ground.paths, pod.pid(), "ns/web");
        outside.is("sockets", "other-cgroup");
        assert_eq!((outside.result("host"), outside.result("pod")), ("passed", "failed"));
        drop(pod);
        drop(elsewhere);
        // Programs that look and leave alone.
        let mut dataplane = Dataplane::expect(&ground.paths).expect("it is there");
        dataplane.set_mode(Mode::Shadow).expect("switched");
        assert!(client.ask(format!("tcp {WEB}")).starts_with("err"));
        Visit::of(&rig, &ground.paths, client.pid(), "ns/web").is("serves", "not-active");
        dataplane.set_mode(Mode::Active).expect("switched");
        // None.
        dataplane.detach().expect("detached");
        assert!(client.ask(format!("tcp {WEB}")).starts_with("err"));
        let detached = Visit::of(&rig, &ground.paths, client.pid(), "ns/web");
        detached.is("sockets", "sockets-not-attached");
        assert_eq!((detached.result("host"), detached.result("pod")), ("failed", "failed"));
        assert_eq!(detached.check("host")["cause"], "no-answer", "its backend does");
    });
}

#[test]
fn a_service_of_ipv6_is_examined_like_one_of_ipv4() {
    Ground::with(|ground| {
        let server = Server::start("a", "[fd00::1]:8080");
        let rig = Rig::new(ground);
        let six = |mut object: Value| {
            object["spec"]["ipFamilies"] = json!(["IPv6"]);
            object
        };
        let endpoint = |address: &str, port: u16, protocol: &str, service: &str| {
            let mut slice = slice(service, &format!("{service}-1"), port, protocol, &[address]);
            slice["addressType"] = json!("IPv6");
            slice
        };
        rig.api.put(six(service("web", "fd00:96::10", 80, "TCP")));
        rig.api.put(endpoint("fd00::1", 8080, "TCP", "web"));
        rig.api.put(six(service("dns", "fd00:96::53", 53, "UDP")));
        rig.api.put(endpoint("fd00::1", 53, "UDP", "dns"));
        let nobody = Visit::of(&rig, &ground.paths, std::process::id(), "ns/web");
        nobody.is("serves", "nobody-serves");
        rig.start_and_kill();
        let mut client = ground.agent();
        assert!(client.ask("tcp [fd00:96::10]:80").starts_with("ok"));
        let visit = |words: &str| Visit::of(&rig, &ground.paths, client.pid(), words);
        let well = visit("[fd00:96::10]:80/TCP");
        well.is_well();
        for check in ["api", "endpoints", "serves", "programmed", "sockets", "devices", "first", "way", "host", "pod"] {
            assert_eq!(well.result(check), "passed", "{:#}", well.report);
        }
        let flow = |backend: &str, port: u16| {
            let line = format!(
                "-I -p udp -t 60 -s fd00:2::9 -d fd00:96::53 --sport {port} --dport 53 --reply-src {backend} \
                 --reply-dst fd00:2::9 --reply-port-src 53 --reply-port-dst {port}"
            );
            command::output("conntrack", line.split_whitespace(), None).expect("an entry can be made");
        };
        flow("fd00::1", 1000);
        flow("fd00::9", 1001);
        let stale = visit("fd00:96::53");
        stale.is("udp", "stale-udp");
        let next = stale.report["cause"]["next"].as_str().expect("a command");
        command::output("sh", ["-c", next], None).expect("the next command works");
        visit("ns/dns").is_well();
        drop(server);
        visit("ns/web").is("host", "backend-down");
    });
}

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

#[test]
fn datagrams_that_go_on_to_a_backend_that_has_gone_are_found_and_the_next_command_ends_them() {
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        command::output("ip", "route add 10.244.0.0/16 via 10.2.0.2".split(' '), None).expect("a route can be made");
        rig.api.put(service("dns", "10.96.0.10", 53, "UDP"));
        rig.api.put(slice("dns", "dns-1", 53, "UDP", &["10.244.0.1"]));
        rig.start_and_kill();
        let client = ground.agent();
        let visit = || Visit::of(&rig, &ground.paths, client.pid(), "ns/dns");
        let flow = |backend: &str, port: u16| {
            let line = format!(
                "-I -p udp -t 60 -s 10.2.0.9 -d 10.96.0.10 --sport {port} --dport 53 --reply-src {backend} \
                 --reply-dst 10.2.0.9 --reply-port-src 53 --reply-port-dst {port}"
            );
            command::output("conntrack", line.split_whitespace(), None).expect("an entry can be made");
        };
        flow("10.244.0.1", 1000);
        assert_eq!(visit().result("udp"), "passed", "{:#}", visit().report);
        flow("10.244.0.9", 1001);
        let stale = visit();
        stale.is("udp", "stale-udp");
        assert!(stale.check("udp")["evidence"].to_string().contains("10.2.0.9:1001 to 10.244.0.9:53"));
        let next = stale.report["cause"]["next"].as_str().expect("a command");
        command::output("sh", ["-c", next], None).expect("the next command works");
        assert_eq!(visit().result("udp"), "passed");
    });
}

/// The same Service with session affinity.
fn sticky(mut service: Value) -> Value {
    service["spec"]["sessionAffinity"] = json!("ClientIP");
    service["spec"]["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": 600 } });
    service
}

#[test]
fn sessions_that_do_not_stick_are_explained() {
    Ground::with(|ground| {
        let (_a, _b) = (Server::start("a", "127.0.0.1:8080"), Server::start("b", "127.0.0.2:8080"));
        let rig = web(ground);
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1", "127.0.0.2"]));
        rig.start_and_kill();
        let mut client = ground.agent();
        // The API asks for it, and nobody has told the maps.
        rig.api.put(sticky(service("web", "10.96.0.10", 80, "TCP")));
        let both = client.ask(format!("tcp-many {WEB} 40"));
        assert!(both.contains("a=") && both.contains("b="), "{both}");
        let visit = |pid| Visit::of(&rig, &ground.paths, pid, "ns/web");
        visit(client.pid()).is("programmed", "affinity-not-kept");
        assert_eq!(visit(client.pid()).check("affinity")["cause"], "affinity-not-kept");
        let _agent = rig.start();
        rig.until("it sticks", || visit(client.pid()).result("programmed") == "passed");
        let one = client.ask(format!("tcp-many {WEB} 40"));
        assert!(one.contains("a=40") || one.contains("b=40"), "{one}");
        visit(client.pid()).is_well();
        // The backend that it sticks to goes.
        let left = if one.contains("a=") { "127.0.0.2" } else { "127.0.0.1" };
        rig.api.put(slice("web", "web-1", 8080, "TCP", &[left]));
        rig.until("it is followed", || rig.backends().len() == 1);
        let gone = Visit::of(&rig, &ground.paths, client.pid(), "--no-connect ns/web");
        gone.is_well();
        let affinity = gone.check("affinity");
        assert_eq!((&affinity["result"], &affinity["cause"]), (&json!("remark"), &json!("affinity-backend-gone")));
    });
}

#[test]
fn more_clients_than_can_be_remembered_are_explained() {
    World::with(|world| {
        let _servers = servers(world);
        world.inside("node", || {
            let rig = serving::rig(world)
                .with("--kube-proxy-flag cluster-cidr=10.244.0.0/16,fd44::/16 --map-size affinity=64");
            let here = rig.api.get("Service", "ns/here");
            rig.api.put(sticky(here));
            let _agent = rig.start();
            rig.until_healthy();
            let visit = || Visit::of(&rig, &world.paths, std::process::id(), "--no-connect ns/here");
            assert_eq!(visit().result("affinity"), "passed");
            let to: SocketAddr = at(NODE[0], 30_080).parse().expect("an address");
            let clients: Vec<String> = (120..250).map(|last| format!("192.168.77.{last}")).collect();
            let lines: Vec<String> = clients.iter().map(|ip| format!("addr add {ip}/24 dev wire")).collect();
            world.ip("client", &lines.iter().map(String::as_str).collect::<Vec<_>>());
            world.inside("client", || {
                for ip in &clients {
                    let socket = UdpSocket::bind((ip.as_str(), 0)).expect("the address is there");
                    socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("set");
                    socket.send_to(&[0; 64], to).expect("sent");
                    socket.recv_from(&mut [0; 256]).expect("answered");
                }
            });
            let full = visit();
            assert_eq!(full.check("affinity")["cause"], "affinity-full", "{:#}", full.report);
        });
    });
}

/// Without a cluster, and on a snapshot: what cannot be told says why.
#[test]
fn what_cannot_be_told_says_why() {
    let node = crate::cli::environment::project("tests/data/lab/node").display().to_string();
    let run = crate::cli::environment::run(&["doctor", "shop/session", "--from", &node, "-o", "json"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let visit = Visit { code: run.code, report: serde_json::from_str(&run.out).expect("JSON") };
    conforms(&visit.report);
    visit.is_well();
    assert_eq!((visit.result("programmed"), visit.result("sockets")), ("passed", "cannot-tell"));
    let run = crate::cli::environment::run(&["doctor", "shop/nothing", "--from", &node]);
    assert_eq!(run.code, 2);
    assert!(run.out.contains("cause: the API has no Service shop/nothing (no-such-service)"), "{}", run.out);
    let run = crate::cli::environment::run(&["doctor", "cart"]);
    assert_eq!(run.code, 64);
    assert!(run.err.contains("expected NAMESPACE/SERVICE or an address"), "{}", run.err);
}
