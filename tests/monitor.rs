//! `kpx monitor`: each kind of event once, by real traffic; what is not asked for is not told; what is lost is counted.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use aya::sys::BpfHelper;
use kpx::capture::command;
use kpx::dataplane::{
    Capacity, Cause, Dataplane, DataplaneError, Event, EventKind, Filter, FlowId, FlowState, Listener, Mode, Paths,
    Reason, Why,
};
use kpx::model::{NoBackends, Policy, Protocol};
use kpx_abi::packet::proto::TCP;
use kpx_abi::{Exposure, Flags};
use serde_json::Value;

use crate::agent::api::{service, slice};
use crate::agent::rig::Rig;
use crate::cli::schema::conforms;
use crate::dataplane::agent::Agent;
use crate::dataplane::features::has_helper;
use crate::dataplane::ground::{Ground, cluster_ip, table};
use crate::dataplane::packets::peers::{Talk, exchange, tcp, udp};
use crate::dataplane::packets::services::{capacity, exposed, serve, servers};
use crate::dataplane::packets::world::{CLIENT, NEIGHBOUR, POD, VIP, World, at};
use crate::dataplane::server::Server;

fn listen(paths: &Paths, filter: Filter) -> Listener {
    Listener::start(paths, filter).expect("nobody else listens")
}

/// All events so far.
fn told(listener: &mut Listener) -> Vec<Event> {
    let events = std::iter::from_fn(|| listener.next_event()).collect();
    listener.renew().expect("it is the same dataplane");
    events
}

/// Reason, cause and what took the place of the destination.
type Seen = (Reason, Option<Cause>, Option<String>);

fn seen(events: &[Event]) -> Vec<Seen> {
    events.iter().map(|event| (event.reason, event.cause, event.to.map(|to| to.to_string()))).collect()
}

fn went(reason: Reason, to: &str) -> Seen {
    (reason, None, Some(to.to_owned()))
}

#[test]
fn what_sockets_meet_is_told_once() {
    Ground::with(|ground| {
        let _servers = [Server::start("four", "127.0.0.1:8080"), Server::start("six", "[fd00::1]:8080")];
        let mut sticky = cluster_ip("10.96.0.11:80", Protocol::Tcp, &["127.0.0.1:8080"]);
        sticky.affinity = Some(600);
        let mut local = cluster_ip("10.96.0.12:80", Protocol::Tcp, &[]);
        (local.internal_policy, local.no_backends) = (Policy::Local, Some(NoBackends::Drop));
        let frontends = table([
            cluster_ip("10.96.0.10:80", Protocol::Tcp, &["127.0.0.1:8080"]),
            cluster_ip("[fd00:96::10]:80", Protocol::Tcp, &["[fd00::1]:8080"]),
            cluster_ip("10.96.0.10:53", Protocol::Udp, &["127.0.0.1:8080"]),
            cluster_ip("10.96.0.13:80", Protocol::Tcp, &[]),
            sticky,
            local,
        ]);
        let mut dataplane = ground.dataplane(&frontends, Mode::Active);
        let mut client = ground.agent();
        let mut listener = listen(&ground.paths, Filter::default());
        let mut ask = |commands: &[&str]| {
            for command in commands {
                client.ask(command);
            }
            told(&mut listener)
        };
        let connected = ask(&["tcp 10.96.0.10:80"]);
        assert_eq!(seen(&connected), [went(Reason::TcpConnect, "127.0.0.1:8080")]);
        assert_eq!((connected[0].protocol, connected[0].destination.to_string()), (TCP, "10.96.0.10:80".to_owned()));
        let cgroup = fs_err::metadata(&ground.paths.cgroup).expect("it is there").ino();
        assert_eq!(connected[0].cgroup, Some(cgroup));
        assert!(connected[0].age < Duration::from_secs(5) && connected[0].service.is_some());
        assert_eq!(seen(&ask(&["tcp [fd00:96::10]:80"])), [went(Reason::TcpConnect, "[fd00::1]:8080")]);
        let both = [went(Reason::TcpConnect, "127.0.0.1:8080"), went(Reason::Affinity, "127.0.0.1:8080")];
        assert_eq!(seen(&ask(&["tcp 10.96.0.11:80"])), both);
        let datagrams = ask(&["udp s 0.0.0.0:0", "send s 10.96.0.10:53", "send s 10.96.0.10:53"]);
        assert_eq!(seen(&datagrams), [went(Reason::UdpFirst, "127.0.0.1:8080")], "the first one only");
        assert!(datagrams[0].client_port.is_some());
        let datagrams = ask(&["udp c 0.0.0.0:0", "connect c 10.96.0.10:53", "exchange c"]);
        assert_eq!(seen(&datagrams), [went(Reason::UdpConnect, "127.0.0.1:8080")]);
        let refused = if has_helper(BpfHelper::BPF_FUNC_set_retval) { Reason::Refused } else { Reason::RefusalPassed };
        assert_eq!(seen(&ask(&["tcp 10.96.0.13:80"])), [(refused, Some(Cause::NoBackend), None)]);
        assert_eq!(seen(&ask(&["tcp 10.96.0.12:80"])), [(Reason::DropPassed, Some(Cause::NoLocalBackend), None)]);
        assert_eq!(seen(&ask(&["tcp 127.0.0.1:8080", "tcp 10.96.0.99:80"])), [], "no Service's");
        for (mode, reason) in [(Mode::Shadow, Reason::Shadow), (Mode::Drain, Reason::DrainPassed)] {
            dataplane.set_mode(mode).unwrap();
            assert_eq!(seen(&ask(&["tcp 10.96.0.10:80"])), [(reason, None, None)]);
        }
        assert_eq!(listener.lost().unwrap(), 0);
    });
}

#[test]
fn what_packets_meet_is_told_once() {
    World::with(|world| {
        let _servers = servers(world);
        let (mut dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let masqueraded = exposed(Exposure::LoadBalancer).with(Flags::MASQUERADE_ALWAYS, true);
        serve(&mut tables, 1, VIP, 80, masqueraded, &[POD]);
        serve(&mut tables, 11, VIP, 81, exposed(Exposure::LoadBalancer), &[]);
        serve(&mut tables, 21, VIP, 82, exposed(Exposure::LoadBalancer).with(Flags::EMPTY_DROPS, true), &[]);
        serve(&mut tables, 31, VIP, 83, exposed(Exposure::LoadBalancer), &[NEIGHBOUR]);
        tables.affinity(31, 600);
        let mut listener = listen(&world.paths, Filter::default());
        for family in [0, 1] {
            let to = |port| at(VIP[family], port);
            let pod = at(POD[family], 8080);
            let (talk, _) = world.inside("client", || Talk::to(&to(80))).expect("it answers");
            let events = told(&mut listener);
            let reasons: Vec<_> = events.iter().map(|event| event.reason).collect();
            assert_eq!(reasons, [Reason::FlowOpened, Reason::Masqueraded]);
            assert_eq!(events[0].to.map(|to| to.to_string()), Some(pod.clone()));
            assert_eq!(events[0].destination.to_string(), to(80));
            assert_eq!(events[0].client.map(|ip| ip.to_string()).as_deref(), Some(CLIENT[family]));
            assert_eq!(events[0].client_port, Some(talk.local().port()));
            assert!(
                events
                    .iter()
                    .all(|e| e.device.is_some() && e.pid.is_none() && e.service == Some(1 + 2 * family as u32))
            );
            // The flow is given back to the kernel, which has no rules: what matters is its next packet.
            let id = FlowId { protocol: TCP, client: talk.local(), frontend: to(80).parse().unwrap() };
            assert_eq!(dataplane.set_flow_state(&[id], FlowState::Frozen).unwrap(), 1);
            drop(talk);
            std::thread::sleep(Duration::from_millis(50));
            let frozen = told(&mut listener);
            assert!(!frozen.is_empty() && frozen.iter().all(|event| event.reason == Reason::FrozenFlow), "{frozen:?}");
            assert_eq!(dataplane.set_flow_state(&[id], FlowState::Pass).unwrap(), 1);
            std::thread::sleep(Duration::from_millis(1200));
            assert_eq!(seen(&told(&mut listener)), [went(Reason::GivenBack, &pod)], "its repeated FIN");

            assert!(world.inside("client", || tcp(&to(81))).is_err());
            // A client that is busy with its socket as the refusal comes sends its SYN again.
            let mut refused = seen(&told(&mut listener));
            refused.dedup();
            assert_eq!(refused, [(Reason::PacketRefused, Some(Cause::NoBackend), None)]);
            let socket = world.inside("client", || udp(family));
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            assert!(world.inside("client", || exchange(&socket, &to(82), 10)).is_err());
            assert_eq!(seen(&told(&mut listener)), [(Reason::PacketDropped, Some(Cause::NoLocalBackend), None)]);
            if family == 0 {
                world.inside("client", || tcp(&to(83))).expect("it answers");
                let neighbour = at(NEIGHBOUR[0], 8080);
                let both = [went(Reason::FlowOpened, &neighbour), went(Reason::Affinity, &neighbour)];
                assert_eq!(seen(&told(&mut listener)), both);
            }
        }
        assert_eq!(listener.lost().unwrap(), 0);
    });
}

/// Two Services, each with a backend of its own, and clients in two cgroups.
fn two(ground: &Ground, capacity: &Capacity) -> (Vec<Server>, Dataplane) {
    let servers = vec![Server::start("a", "127.0.0.1:8001"), Server::start("b", "127.0.0.2:8002")];
    let frontends = table([
        cluster_ip("10.96.0.10:80", Protocol::Tcp, &["127.0.0.1:8001"]),
        cluster_ip("10.96.0.11:81", Protocol::Tcp, &["127.0.0.2:8002"]),
        cluster_ip("10.96.0.12:82", Protocol::Tcp, &[]),
    ]);
    let mut dataplane = Dataplane::install(&ground.paths, capacity).expect("it can be installed");
    dataplane.fill(&frontends).expect("it can be filled");
    dataplane.attach().expect("it can be attached");
    dataplane.set_mode(Mode::Active).expect("its mode can be set");
    (servers, dataplane)
}

#[test]
fn only_what_is_asked_for_is_told() {
    Ground::with(|ground| {
        let (_servers, dataplane) = two(ground, &Capacity::default());
        let cgroup = ground.paths.cgroup.join("pod");
        fs_err::create_dir(&cgroup).expect("root can make a cgroup");
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (mut outside, mut inside) = (ground.agent(), Agent::start(&cgroup));
            let mut destinations = |filter: Filter| -> Vec<String> {
                let mut listener = listen(&ground.paths, filter);
                for client in [&mut outside, &mut inside] {
                    for to in ["10.96.0.10:80", "10.96.0.11:81", "10.96.0.12:82"] {
                        client.ask(format!("tcp {to}"));
                    }
                }
                told(&mut listener).into_iter().map(|event| event.destination.to_string()).collect()
            };
            let twice = |to: &str| vec![to.to_owned(); 2];
            let all = ["10.96.0.10:80", "10.96.0.11:81", "10.96.0.12:82"].map(str::to_owned);
            assert_eq!(destinations(Filter::default()), [all.clone(), all.clone()].concat());
            let frontends = dataplane.frontends().unwrap();
            let second = frontends.iter().find(|(_, keys)| keys[0].port == 81).map(|(id, _)| *id);
            let services = Some(BTreeSet::from([second.unwrap()]));
            let filter = |change: fn(&mut Filter)| {
                let mut filter = Filter::default();
                change(&mut filter);
                filter
            };
            assert_eq!(destinations(Filter { services, ..Filter::default() }), twice("10.96.0.11:81"));
            // Those of the listener before are forgotten.
            assert_eq!(destinations(Filter { services: Some(BTreeSet::new()), ..Filter::default() }), [""; 0]);
            for (select, expected) in [
                (filter(|f| f.address = "10.96.0.10".parse().ok()), "10.96.0.10:80"),
                (filter(|f| f.address = "127.0.0.2".parse().ok()), "10.96.0.11:81"),
                (filter(|f| f.port = Some(8002)), "10.96.0.11:81"),
                (filter(|f| (f.address, f.port) = ("10.96.0.10".parse().ok(), Some(80))), "10.96.0.10:80"),
                (filter(|f| f.reasons = BTreeSet::from([Why::Cause(Cause::NoBackend)])), "10.96.0.12:82"),
            ] {
                assert_eq!(destinations(select), twice(expected));
            }
            let neither = filter(|f| (f.address, f.port) = ("10.96.0.10".parse().ok(), Some(81)));
            assert_eq!(destinations(neither), [""; 0], "an address and a port of different endpoints");
            let translated = filter(|f| f.kinds = BTreeSet::from([EventKind::Translated]));
            let expected = [&all[..2], &all[..2]].concat();
            assert_eq!(destinations(translated), expected);
            let id = |path: &std::path::Path| fs_err::metadata(path).expect("it is there").ino();
            let of = |id| Filter { cgroup: Some(id), ..Filter::default() };
            assert_eq!(destinations(of(id(&cgroup))), all);
            assert_eq!(destinations(of(id(&ground.paths.cgroup))), [all.clone(), all.clone()].concat());
            assert_eq!(destinations(of(u64::MAX)), [""; 0]);
            let mut listener = listen(&ground.paths, Filter { sample: 4, ..Filter::default() });
            outside.ask("tcp-many 10.96.0.10:80 400");
            let sampled = told(&mut listener).len();
            // Six standard deviations from a quarter.
            assert!(sampled.abs_diff(100) < 52, "{sampled}");
        }));
        for _ in 0..100 {
            if fs_err::remove_dir(&cgroup).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn what_has_no_room_is_counted_and_one_listens_at_a_time() {
    Ground::with(|ground| {
        let capacity = Capacity { events: 1, ..Capacity::default() };
        let (_servers, dataplane) = two(ground, &capacity);
        let mut client = ground.agent();
        let mut listener = listen(&ground.paths, Filter::default());
        let error = Listener::start(&ground.paths, Filter::default()).err().expect("somebody listens");
        assert!(matches!(error, DataplaneError::Listening { pid } if pid == std::process::id()), "{error}");
        client.ask("tcp-many 10.96.0.10:80 100");
        let lost = listener.lost().unwrap();
        let read = told(&mut listener).len() as u64;
        assert!(lost > 0 && read > 0 && lost + read == 100, "{lost} lost, {read} read");
        client.ask("tcp 10.96.0.10:80");
        assert_eq!((told(&mut listener).len(), listener.lost().unwrap()), (1, lost), "there is room again");
        drop(listener);
        // Nobody listens: what would have no room is not even lost.
        let count = || dataplane.counters().unwrap().of(Reason::EventLost);
        client.ask("tcp-many 10.96.0.10:80 100");
        assert_eq!(count(), lost);
        assert_eq!(seen(&told(&mut listen(&ground.paths, Filter::default()))), []);
    });
}

/// Words of `kpx monitor`, on a node that a rig's agent serves.
fn words(rig: &Rig<'_>, paths: &Paths, words: &str) -> Vec<String> {
    let (pins, cgroup, kubeconfig) = (paths.pins.display(), paths.cgroup.display(), rig.state("kubeconfig"));
    let node = format!("--kubeconfig {} --node-name node-a", kubeconfig.display());
    let line = format!("--bpffs {pins} --cgroup {cgroup} {node} monitor {words}");
    line.split_whitespace().map(str::to_owned).collect()
}

/// Waits until the programs tell somebody, or nobody.
fn until_listened(rig: &Rig<'_>, listened: bool) {
    let until = || rig.dump("kpx_listener")[0]["formatted"]["value"].clone();
    let now = || fs_err::read_to_string("/proc/uptime").expect("there is one");
    rig.until("the listener's lease", || {
        let seconds: f64 = now().split(' ').next().and_then(|text| text.parse().ok()).expect("a number");
        let value = until();
        let until_ns = value["until_ns"].as_u64().unwrap_or_else(|| panic!("{value}"));
        ((until_ns as f64) > seconds * 1e9) == listened
    });
}

#[test]
fn the_command_prints_names_and_ends_with_what_it_saw() {
    Ground::with(|ground| {
        let _server = Server::start("a", "127.0.0.1:8080");
        let rig = Rig::new(ground);
        for (name, ip) in [("web", "10.96.0.10"), ("empty", "10.96.0.12")] {
            rig.api.put(service(name, ip, 80, "TCP"));
            let endpoints: &[&str] = if name == "empty" { &[] } else { &["127.0.0.1"] };
            rig.api.put(slice(name, &format!("{name}-1"), 8080, "TCP", endpoints));
        }
        let _agent = rig.start();
        rig.until_healthy();
        let mut client = ground.agent();
        let kpx = env!("CARGO_BIN_EXE_kpx");
        let json = words(&rig, &ground.paths, "-o json --service ns/web --count 1");
        let mut monitor = command::start(kpx, json).expect("it starts");
        until_listened(&rig, true);
        client.ask("tcp 10.96.0.12:80");
        client.ask("tcp 10.96.0.10:80");
        let mut line = String::new();
        BufReader::new(monitor.stdout.take().expect("piped")).read_line(&mut line).expect("text");
        assert!(monitor.wait().expect("it ends").success());
        let event: Value = serde_json::from_str(&line).expect("JSON");
        conforms(&event);
        let of = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            (of("event"), of("service"), of("to")),
            ("translated".into(), "ns/web".into(), "127.0.0.1:8080".into())
        );
        assert_eq!(event["pid"], client.pid());

        let log = rig.state("said").display().to_string();
        let line = format!("exec {kpx} {} 2>{log}", words(&rig, &ground.paths, "").join(" "));
        let mut monitor = command::start("sh", ["-c", &line]).expect("it starts");
        until_listened(&rig, true);
        let other = command::output(kpx, words(&rig, &ground.paths, "--count 1"), None).expect_err("one at a time");
        assert!(other.to_string().contains(&format!("kill {}", monitor.id())), "{other}");
        client.ask("tcp 10.96.0.10:80");
        client.ask("tcp 10.96.0.12:80");
        let mut lines = BufReader::new(monitor.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
        let shown: Vec<String> = lines.by_ref().take(3).collect();
        assert_eq!(shown[0], "TIME      EVENT        SERVICE               TO                    CLIENT");
        assert!(shown.iter().all(|line| line.len() <= 80), "{shown:#?}");
        let refused = if has_helper(BpfHelper::BPF_FUNC_set_retval) { "refused" } else { "left" };
        let expected = [["translated", "ns/web:p", "127.0.0.1:8080"], [refused, "ns/empty:p", "no_backend"]];
        for (line, words) in shown[1..].iter().zip(expected) {
            assert_eq!(line.split_whitespace().skip(1).take(3).collect::<Vec<_>>(), words, "{line}");
        }
        let pid = rustix::process::Pid::from_child(&monitor);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        assert!(monitor.wait().expect("it ends").success());
        let said = fs_err::read_to_string(log).expect("text");
        assert!(said.contains("2 events, none lost, in "), "{said}");

        // One that is killed says nothing, and costs nothing for long.
        let mut monitor = command::start(kpx, words(&rig, &ground.paths, "")).expect("it starts");
        until_listened(&rig, true);
        monitor.kill().expect("it runs");
        monitor.wait().expect("it ends");
        until_listened(&rig, false);
        client.ask("tcp 10.96.0.10:80");
        let there: SocketAddr = "10.96.0.10:80".parse().unwrap();
        let mut listener = listen(&ground.paths, Filter { port: Some(there.port()), ..Filter::default() });
        assert_eq!(seen(&told(&mut listener)), []);
    });
}
