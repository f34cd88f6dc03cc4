//! Direct server return between two nodes with an agent each: who lists whom, what a client and a server see, and which way
//! the answers take.

use serde_json::{Value, json};

use super::api::node;
use super::rig::{Rig, health};
use super::serving::{ask, both, endpoints};
use crate::dataplane::packets::dsr::{NODE_PORT, seen_answers, watch};
use crate::dataplane::packets::peers::{Talk, exchange, udp};
use crate::dataplane::packets::services::servers;
use crate::dataplane::packets::world::{CLIENT, CLUSTER_IP, NODE, OTHER, REMOTE, VIP, World, at};

const ALL: &str = "--kube-proxy-flag cluster-cidr=10.244.0.0/16,fd44::/16 --paths packets --dsr all";
const ANNOTATED: &str = "--kube-proxy-flag cluster-cidr=10.244.0.0/16,fd44::/16 --paths packets --dsr annotated";
const OFF: &str = "--kube-proxy-flag cluster-cidr=10.244.0.0/16,fd44::/16 --paths packets";

/// A Node with its pods' networks, and the label or not.
fn one(name: &str, addresses: [&str; 2], pods: [&str; 2], answers: bool) -> Value {
    let mut one = node();
    one["metadata"]["name"] = json!(name);
    one["metadata"]["uid"] = json!(format!("uid-{name}"));
    if answers {
        one["metadata"]["labels"]["kpx.dev/dsr"] = json!("true");
    }
    one["spec"]["podCIDR"] = json!(pods[0]);
    one["spec"]["podCIDRs"] = json!(pods);
    one["status"]["addresses"] = json!(addresses.map(|address| json!({ "type": "InternalIP", "address": address })));
    one
}

fn node_b(answers: bool) -> Value {
    one("node-b", OTHER, ["10.244.2.0/24", "fd44:2::/64"], answers)
}

/// A Service whose backend is on the other node, with this annotation or none.
fn there(forwarding: Option<&str>) -> Value {
    let mut there = both("there", CLUSTER_IP, VIP, NODE_PORT);
    if let Some(mode) = forwarding {
        there["metadata"]["annotations"] = json!({ "kpx.dev/forwarding-mode": mode });
    }
    there
}

/// The rigs of two nodes.
fn rigs<'w>(world: &'w World, flags: &'static str) -> (Rig<'w>, Rig<'w>) {
    let rig = world.inside("node", || {
        let rig = Rig::at(&world.paths).with(flags);
        rig.api.put(one("node-a", NODE, ["10.244.1.0/24", "fd44:1::/64"], false));
        rig.api.put(node_b(false));
        rig.api.put(there(None));
        for slice in endpoints("there", REMOTE, "node-b") {
            rig.api.put(slice);
        }
        rig
    });
    let other = world.inside("other", || rig.of_other(&world.other, "node-b").with(flags));
    (rig, other)
}

/// Whom the backend sees, by both protocols, both families and both frontends.
fn seen_by_backend(world: &World) -> Vec<String> {
    let mut seen = Vec::new();
    for family in [0, 1] {
        for to in [at(NODE[family], NODE_PORT), at(VIP[family], 80)] {
            let answers = ask(world, "client", &to);
            assert!(answers.iter().all(|(name, _)| name == "remote"), "{answers:?}");
            seen.extend(answers.map(|(_, seen)| seen));
        }
    }
    seen
}

fn all_see(world: &World, expected: [&str; 2]) -> bool {
    seen_by_backend(world) == [[expected[0]; 4], [expected[1]; 4]].concat()
}

/// A condition of the agent in this namespace.
fn condition(world: &World, space: &str, name: &str) -> Option<String> {
    world.inside(space, || Some(health("/healthz")?.1["conditions"][name].as_str()?.to_owned()))
}

#[test]
fn labelled_nodes_answer_clients_outside_directly() {
    World::with(|world| {
        let _servers = servers(world);
        let (rig, other) = rigs(world, ALL);
        let _agents = [world.inside("node", || rig.start()), world.inside("other", || other.start())];
        world.inside("node", || rig.until_healthy());
        world.inside("other", || other.until_healthy());
        // Nobody is labelled: as without.
        assert!(all_see(world, NODE));
        rig.api.put(node_b(true));
        rig.until("the label is followed", || all_see(world, CLIENT));
        watch(world);
        world.inside("client", || {
            for family in [0, 1] {
                for to in [at(NODE[family], NODE_PORT), at(VIP[family], 80)] {
                    let (mut talk, line) = Talk::to(&to).expect("it connects");
                    // The very port, too.
                    assert_eq!(line, format!("remote {}", talk.local()), "{to}");
                    talk.echo(1_000_000);
                    let socket = udp(family);
                    for size in [1, 1000] {
                        exchange(&socket, &to, size).expect("it answers");
                    }
                }
                // A datagram that does not fit between the nodes is not sent: the client learns what does.
                let (socket, to) = (udp(family), at(VIP[family], 80));
                socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).expect("it can be set");
                let first = exchange(&socket, &to, 1465 - 20 * family);
                assert!(first.is_err(), "{first:?}");
                exchange(&udp(family), &to, 1465 - 20 * family).expect("it is cut, and answered");
            }
        });
        let [by_node, straight] = seen_answers(world);
        assert_eq!(by_node, 0, "no answer passes the node that was asked");
        assert!(straight > 100, "{straight}");
        // One Service is to be reached as ever, wherever its backends are.
        rig.api.put(there(Some("snat")));
        rig.until("the annotation is followed", || all_see(world, NODE));
        rig.api.put(there(None));
        rig.until("it is gone", || all_see(world, CLIENT));
        rig.api.put(node_b(false));
        rig.until("the label is gone", || all_see(world, NODE));
        assert_eq!(condition(world, "node", "Dsr"), None);
    });
}

#[test]
fn services_are_answered_directly_that_ask_for_it() {
    World::with(|world| {
        let _servers = servers(world);
        let (rig, other) = rigs(world, ANNOTATED);
        rig.api.put(node_b(true));
        let agent = world.inside("node", || rig.start());
        let others = world.inside("other", || other.start());
        world.inside("node", || rig.until_healthy());
        world.inside("other", || other.until_healthy());
        assert!(all_see(world, NODE));
        // The node that answers need not know yet that it is asked for.
        rig.api.put(there(Some("dsr")));
        rig.until("the annotation is followed", || all_see(world, CLIENT));
        // Another agent on the same maps keeps to it from its first moment.
        agent.kill();
        let _agent = world.inside("node", || rig.start());
        for _ in 0..20 {
            assert!(all_see(world, CLIENT));
        }
        // Whoever carries the label and does not answer is told so.
        others.kill();
        let other = other.with(OFF);
        let _others = world.inside("other", || other.start());
        let told = || condition(world, "other", "Dsr").is_some_and(|text| text.contains("kubectl label node node-b"));
        other.until("it is told", told);
    });
}
