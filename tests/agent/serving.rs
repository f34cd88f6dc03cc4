//! The agent alone on a node: clients outside, and pods whose sockets no hook sees. No rule of kube-proxy is anywhere, but
//! where the test says so.

use kpx::capture::command;
use serde_json::{Value, json};

use super::api::{node, service, slice};
use super::rig::{Rig, metrics};
use super::streams::{Pusher, Stream};
use crate::dataplane::packets::peers::{exchange, seen, tcp, udp};
use crate::dataplane::packets::services::{PORT, servers};
use crate::dataplane::packets::world::{BRIDGE, CLIENT, CLUSTER_IP, NEIGHBOUR, NODE, POD, REMOTE, VIP, World, at, set};

/// The other Service's addresses.
const OTHER_CLUSTER_IP: [&str; 2] = ["10.96.0.11", "fd96::11"];
const OTHER_VIP: [&str; 2] = ["203.0.113.11", "fd20::11"];
/// A pod that is not there at the beginning.
const LATE: [&str; 2] = ["10.244.1.4", "fd44:1::4"];
pub(crate) const FLAGS: &str = "--kube-proxy-flag cluster-cidr=10.244.0.0/16,fd44::/16";

/// A Service of both families for TCP and UDP at port 80, and at a NodePort.
pub(crate) fn both(name: &str, cluster_ip: [&str; 2], vip: [&str; 2], node_port: u16) -> Value {
    let mut service = service(name, cluster_ip[0], 80, "TCP");
    let port =
        |name: &str, protocol: &str| json!({ "name": name, "port": 80, "protocol": protocol, "nodePort": node_port });
    service["spec"]["type"] = json!("LoadBalancer");
    service["spec"]["clusterIPs"] = json!(cluster_ip);
    service["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    service["spec"]["ports"] = json!([port("t", "TCP"), port("u", "UDP")]);
    service["status"] = json!({ "loadBalancer": { "ingress": vip.map(|ip| json!({ "ip": ip })) } });
    service
}

/// Its EndpointSlices, of one endpoint.
pub(super) fn endpoints(service: &str, addresses: [&str; 2], on: &str) -> [Value; 2] {
    [("IPv4", addresses[0]), ("IPv6", addresses[1])].map(|(family, address)| {
        let mut slice = slice(service, &format!("{service}-{family}"), PORT, "TCP", &[&format!("{address}@{on}")]);
        slice["addressType"] = json!(family);
        let port = |name: &str, protocol: &str| json!({ "name": name, "port": PORT, "protocol": protocol });
        slice["ports"] = json!([port("t", "TCP"), port("u", "UDP")]);
        slice
    })
}

/// Two Services: the backend of the first is on the node, that of the second on another one.
pub(crate) fn rig(world: &World) -> Rig<'_> {
    let rig = Rig::at(&world.paths).with(FLAGS);
    let mut own = node();
    own["status"]["addresses"] = json!(NODE.map(|address| json!({ "type": "InternalIP", "address": address })));
    rig.api.put(own);
    rig.api.put(both("here", CLUSTER_IP, VIP, 30_080));
    rig.api.put(both("there", OTHER_CLUSTER_IP, OTHER_VIP, 30_081));
    for slice in endpoints("here", POD, "node-a").into_iter().chain(endpoints("there", REMOTE, "node-b")) {
        rig.api.put(slice);
    }
    rig
}

/// Asks from a namespace by both protocols: who answers, and whom that one saw.
pub(super) fn ask(world: &World, from: &str, to: &str) -> [(String, String); 2] {
    let family = usize::from(to.starts_with('['));
    let answers = world.inside(from, || {
        [tcp(to), exchange(&udp(family), to, 700)]
            .map(|answer| answer.unwrap_or_else(|error| panic!("{from} → {to}: {error}")))
    });
    answers.map(|answer| (answer.split(' ').next().unwrap_or_default().to_owned(), seen(&answer)))
}

#[test]
fn clients_outside_and_pods_outside_the_cgroup_are_served() {
    World::with(|world| {
        let _servers = servers(world);
        world.inside("node", || {
            let rig = rig(world);
            let _agent = rig.start();
            rig.until_healthy();
            for family in [0, 1] {
                // What a backend sees of a client outside is an address of the device that the packets leave by.
                for (to, name, source) in [
                    (at(NODE[family], 30_080), "pod", BRIDGE[family]),
                    (at(NODE[family], 30_081), "remote", NODE[family]),
                    (at(VIP[family], 80), "pod", BRIDGE[family]),
                    (at(OTHER_VIP[family], 80), "remote", NODE[family]),
                ] {
                    let expected = (name.to_owned(), source.to_owned());
                    assert_eq!(ask(world, "client", &to), [expected.clone(), expected], "{to}");
                }
                // Pods keep their addresses.
                for (to, name) in [(CLUSTER_IP, "pod"), (OTHER_CLUSTER_IP, "remote")] {
                    let expected = (name.to_owned(), NEIGHBOUR[family].to_owned());
                    assert_eq!(ask(world, "neighbour", &at(to[family], 80)), [expected.clone(), expected], "{to:?}");
                }
            }
            // What changes is followed: the backend moves to another pod.
            for slice in endpoints("here", NEIGHBOUR, "node-a") {
                rig.api.put(slice);
            }
            rig.until("the new backend", || {
                world.inside("client", || tcp(&at(VIP[0], 80)).is_ok_and(|answer| answer.starts_with("neighbour ")))
            });
            // A pod that comes later is served by the device that it comes with.
            world.add_late_pod(LATE);
            let answered = |to: &str| world.inside("late", || tcp(to).is_ok_and(|a| a.starts_with("remote ")));
            rig.until("the new pod is served", || answered(&at(OTHER_CLUSTER_IP[0], 80)));
            assert_eq!(ask(world, "late", &at(OTHER_CLUSTER_IP[1], 80)).map(|(_, seen)| seen), [LATE[1]; 2]);
        });
    });
}

/// Time-outs of a second: what is over is forgotten soon, and what goes on is not.
#[test]
fn flows_that_are_over_are_forgotten() {
    World::with(|world| {
        let _servers = servers(world);
        let pusher = world.inside("remote", || Pusher::start(&at(REMOTE[0], 9000)));
        world.inside("node", || {
            for name in ["udp_timeout", "udp_timeout_stream", "tcp_timeout_time_wait", "tcp_timeout_close"] {
                set(&format!("netfilter/nf_conntrack_{name}"), "1");
            }
            let rig = rig(world);
            let mut push = both("push", ["10.96.0.12", "fd96::12"], ["203.0.113.12", "fd20::12"], 30_082);
            push["spec"]["sessionAffinity"] = json!("None");
            rig.api.put(push);
            for mut slice in endpoints("push", REMOTE, "node-b") {
                for port in [0, 1] {
                    slice["ports"][port]["port"] = json!(9000);
                }
                rig.api.put(slice);
            }
            let _agent = rig.start();
            rig.until_healthy();
            let lasting = world.inside("client", || Stream::tcp("203.0.113.12:80"));
            ask(world, "client", &at(OTHER_VIP[0], 80));
            ask(world, "neighbour", &at(OTHER_CLUSTER_IP[1], 80));
            // Whoever asks for flows is shown these, and told whose they are.
            let shown = |via: &str| {
                let (pins, cgroup) = (world.paths.pins.display(), world.paths.cgroup.display());
                let line =
                    format!("{} inspect conntrack --bpffs {pins} --cgroup {cgroup} {via}", env!("CARGO_BIN_EXE_kpx"));
                let output = command::run("sh", ["-c", &line], None).expect("kpx runs");
                (
                    String::from_utf8_lossy(&output.stdout).into_owned(),
                    String::from_utf8_lossy(&output.stderr).into_owned(),
                )
            };
            let (flows, note) = shown("");
            assert!(flows.contains("203.0.113.12:80/TCP") && note.contains("these are its flows"), "{flows}{note}");
            let (counts, note) = shown("--via kernel");
            assert!(counts.contains("entries") && !note.contains("these are its flows"), "{counts}{note}");
            // Four entries of the connection that lasts.
            rig.until("the others are forgotten", || rig.dump("kpx_conntrack").len() == 4);
            rig.until("it is counted", || {
                let text = metrics();
                text.contains("kpx_map_entries{map=\"kpx_conntrack\"} 4\n")
                    && !text.contains("kpx_flows_forgotten_total 0\n")
            });
            let heard = lasting.end();
            assert_eq!((heard.missing, &heard.failure), (0, &None), "{}: {heard:?}", heard.name);
            drop(pusher);
        });
    });
}

#[test]
fn streams_outlive_the_agent() {
    World::with(|world| {
        let pushers = [
            world.inside("pod", || Pusher::start(&at(POD[0], PORT))),
            world.inside("pod", || Pusher::start(&at(POD[1], PORT))),
            world.inside("remote", || Pusher::start(&at(REMOTE[0], PORT))),
            world.inside("remote", || Pusher::start(&at(REMOTE[1], PORT))),
        ];
        world.inside("node", || {
            let rig = rig(world);
            let agent = rig.start();
            rig.until_healthy();
            let mut streams = Vec::new();
            for family in [0, 1] {
                for (from, to) in [
                    ("client", at(VIP[family], 80)),
                    ("client", at(NODE[family], 30_081)),
                    ("neighbour", at(CLUSTER_IP[family], 80)),
                    ("neighbour", at(OTHER_CLUSTER_IP[family], 80)),
                ] {
                    streams.extend(world.inside(from, || [Stream::tcp(&to), Stream::udp(&to)]));
                }
            }
            let wait = || std::thread::sleep(std::time::Duration::from_secs(1));
            wait();
            agent.kill();
            wait();
            let agent = rig.start();
            rig.until("the next agent has everything", || rig.log().matches("the maps have everything").count() == 2);
            wait();
            agent.kill();
            let _agent = rig.start();
            rig.until("the one after", || rig.log().matches("the maps have everything").count() == 3);
            wait();
            let heard: Vec<_> = streams.into_iter().map(Stream::end).collect();
            let longest = heard.iter().map(|heard| heard.gap).max().unwrap_or_default();
            println!("{} streams, longest gap {longest:?}", heard.len());
            for heard in &heard {
                assert_eq!((heard.missing, &heard.failure), (0, &None), "{}: {heard:?}", heard.name);
                assert!(heard.records > 100 && heard.gap.as_millis() < 1000, "{heard:?}");
            }
            // Two TCP and two UDP flows to each server, and as many clients seen.
            for pusher in &pushers {
                assert_eq!(pusher.seen().len(), 4, "{:?}", pusher.seen());
            }
        });
    });
}

/// The rules translate a flow of datagrams already: its server goes on seeing one client, as the rules show it.
#[test]
fn a_flow_that_the_rules_carry_stays_theirs() {
    World::with(|world| {
        let pusher = world.inside("pod", || Pusher::start(&at(POD[0], PORT)));
        world.inside("node", || {
            let nat = |line: &str| {
                command::output("iptables-nft", format!("-t nat {line}").split(' '), None).expect("a rule");
            };
            nat("-N KUBE-SERVICES");
            nat("-A PREROUTING -j KUBE-SERVICES");
            nat(&format!("-A KUBE-SERVICES -d {} -p udp --dport 80 -j DNAT --to {}", VIP[0], at(POD[0], PORT)));
            let old = world.inside("client", || Stream::udp(&at(VIP[0], 80)));
            let rig = rig(world);
            rig.until("it flows", || !pusher.seen().is_empty());
            let agent = rig.start();
            rig.until_healthy();
            let new = world.inside("client", || Stream::udp(&at(VIP[0], 80)));
            std::thread::sleep(std::time::Duration::from_secs(2));
            agent.kill();
            let _agent = rig.start();
            rig.until("the next agent", || rig.log().matches("the maps have everything").count() == 2);
            std::thread::sleep(std::time::Duration::from_secs(1));
            for heard in [old.end(), new.end()] {
                assert_eq!((heard.missing, &heard.failure), (0, &None), "{}: {heard:?}", heard.name);
            }
            // The rules of this test do not masquerade, the Service does: that tells who has which.
            let mut clients: Vec<String> = pusher.seen().iter().map(|(_, client)| client.ip().to_string()).collect();
            clients.sort();
            assert_eq!(clients, [BRIDGE[0], CLIENT[0]]);
        });
    });
}
