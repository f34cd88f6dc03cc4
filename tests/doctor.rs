//! `kpx doctor`: each usual complaint provoked for real, seen by a client, and named.

mod others;

use std::net::{SocketAddr, UdpSocket};

use kpx::capture::{cgroup, command};
use kpx::dataplane::{Dataplane, Mode, Paths};
use serde_json::{Value, json};

use crate::agent::api::{service, slice};
use crate::agent::rig::Rig;
use crate::agent::serving;
use crate::cli::schema::conforms;
use crate::dataplane::agent::Agent;
use crate::dataplane::ground::Ground;
use crate::dataplane::packets::services::servers;
use crate::dataplane::packets::world::{NODE, World, at};
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
