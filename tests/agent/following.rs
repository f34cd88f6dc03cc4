//! The maps follow the objects, whatever becomes of the API server and of the agent.

use std::collections::BTreeMap;

use kpx::capture::command;
use kpx::dataplane::Dataplane;
use kpx::model::Frontend;
use serde_json::json;

use super::api::{service, slice};
use super::rig::{Rig, health};
use crate::dataplane::ground::Ground;
use crate::dataplane::server::Server;

const WEB: &str = "10.96.0.10:80";

/// A Service with a backend at 127.0.0.1:8080.
fn with_web(rig: &Rig<'_>) {
    rig.api.put(service("web", "10.96.0.10", 80, "TCP"));
    rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]));
}

fn addresses(list: &[&str]) -> Vec<std::net::SocketAddr> {
    list.iter().map(|text| text.parse().expect("an address")).collect()
}

#[test]
fn endpoints_that_change_are_followed() {
    Ground::with(|ground| {
        let (_a, _b) = (Server::start("a", "127.0.0.1:8080"), Server::start("b", "127.0.0.2:8080"));
        let rig = Rig::new(ground);
        with_web(&rig);
        let agent = rig.start();
        rig.until_healthy();
        let mut client = ground.agent();
        assert!(client.ask(format!("tcp {WEB}")).contains(" a "));
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.2"]));
        rig.until("the other backend", || rig.backends() == addresses(&["127.0.0.2:8080"]));
        assert!(client.ask(format!("tcp {WEB}")).contains(" b "));
        // A second slice adds, a Service that goes takes its backends along.
        rig.api.put(slice("web", "web-2", 8080, "TCP", &["127.0.0.1"]));
        rig.until("both backends", || rig.backends().len() == 2);
        rig.api.delete("Service", "ns/web");
        rig.until("no backend", || rig.backends().is_empty());
        assert!(rig.dump("kpx_index").is_empty());
        // What was served stays served without an agent.
        rig.api.put(service("web", "10.96.0.10", 80, "TCP"));
        rig.until("both backends", || rig.backends().len() == 2);
        assert_eq!(agent.terminate(), Some(0));
        assert!(client.ask(format!("tcp {WEB}")).starts_with("ok peer=10.96.0.10:80"));
    });
}

#[test]
fn node_ports_answer_on_the_addresses_that_the_node_has() {
    Ground::with(|ground| {
        let _a = Server::start("a", "127.0.0.1:8080");
        let rig = Rig::new(ground);
        let mut web = service("web", "10.96.0.10", 80, "TCP");
        web["spec"]["type"] = json!("NodePort");
        web["spec"]["ports"][0]["nodePort"] = json!(30_080);
        rig.api.put(web);
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]));
        let _agent = rig.start();
        rig.until_healthy();
        let mut client = ground.agent();
        assert!(client.ask("tcp 10.2.0.1:30080").starts_with("ok peer=10.2.0.1:30080 a "));
        // An address that comes later.
        assert!(client.ask("tcp 10.2.0.77:30080").starts_with("err"));
        command::output("ip", "addr add 10.2.0.77/24 dev kpx0".split(' '), None).expect("it is added");
        rig.until("the new address", || client.ask("tcp 10.2.0.77:30080").contains(" a "));
    });
}

#[test]
fn nothing_is_written_before_every_list_is_complete() {
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        with_web(&rig);
        rig.api.refuse("EndpointSlice", 500);
        let _agent = rig.start();
        rig.until("the Services were asked for", || rig.api.requests().contains(&("watch", "/api/v1/services")));
        rig.until("the refusal is told", || {
            health("/healthz").is_some_and(|(_, body)| body["conditions"]["ApiServer"].is_string())
        });
        let (status, body) = health("/healthz").expect("an answer");
        assert_eq!((status, &body["healthy"], &body["lastUpdated"]), (503, &json!(false), &json!(null)));
        assert_eq!(health("/livez").expect("an answer").0, 200, "restarting it would not help");
        assert!(!ground.paths.pins.exists(), "nothing was pinned");
        rig.api.refuse("EndpointSlice", 0);
        rig.until_healthy();
        assert_eq!(rig.backends(), addresses(&["127.0.0.1:8080"]));
    });
}

#[test]
fn a_killed_agent_leaves_everything_and_the_next_one_takes_it_up() {
    Ground::with(|ground| {
        let _a = Server::start("a", "127.0.0.1:8080");
        let rig = Rig::new(ground);
        with_web(&rig);
        rig.api.put(service("other", "10.96.0.11", 80, "TCP"));
        rig.api.put(slice("other", "other-1", 8080, "TCP", &["127.0.0.3"]));
        let agent = rig.start();
        rig.until_healthy();
        let before = rig.dump("kpx_backends");
        agent.kill();
        let mut client = ground.agent();
        assert!(client.ask(format!("tcp {WEB}")).contains(" a "), "it serves on");
        // The API server is away: the next agent has nothing to say, so it changes nothing.
        rig.api.refuse_all(500);
        rig.api.delete("Service", "ns/other");
        let _agent = rig.start();
        rig.until("the refusals are told", || {
            health("/healthz").is_some_and(|(_, body)| body["conditions"]["ApiServer"].is_string())
        });
        // What the first agent wrote serves.
        rig.until_healthy();
        assert_eq!(rig.dump("kpx_backends"), before);
        rig.api.refuse_all(0);
        rig.until("the deletion is seen", || rig.backends() == addresses(&["127.0.0.1:8080"]));
        let kept = |dump: &[serde_json::Value]| {
            dump.iter()
                .filter(|e| e["formatted"]["value"]["state"] == 1)
                .map(|e| e["key"].to_string())
                .collect::<Vec<_>>()
        };
        let ids = kept(&rig.dump("kpx_backends"));
        assert!(ids.len() == 1 && kept(&before).contains(&ids[0]), "the backend keeps its id");
        assert!(client.ask(format!("tcp {WEB}")).contains(" a "));
    });
}

#[test]
fn watches_that_break_off_or_expire_lose_nothing() {
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        with_web(&rig);
        let _agent = rig.start();
        rig.until_healthy();
        rig.api.cut();
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.4"]));
        rig.until("the change behind a broken watch", || rig.backends() == addresses(&["127.0.0.4:8080"]));
        // 410: what was deleted meanwhile is known by its absence from the new list.
        rig.api.put(slice("web", "web-2", 8080, "TCP", &["127.0.0.5"]));
        rig.until("a second slice", || rig.backends().len() == 2);
        let lists = rig.api.lists();
        rig.api.delete_unseen("EndpointSlice", "ns/web-1");
        rig.until("the deletion behind an expired watch", || rig.backends() == addresses(&["127.0.0.5:8080"]));
        assert!(rig.api.lists() > lists);
        // Late and repeated events are no news.
        let mut late = slice("web", "web-2", 8080, "TCP", &["127.0.0.6"]);
        late["metadata"]["resourceVersion"] = json!("1");
        rig.api.tell("EndpointSlice", "MODIFIED", late);
        rig.api.tell("EndpointSlice", "MODIFIED", rig.api.get("EndpointSlice", "ns/web-2"));
        rig.api.put(service("last", "10.96.0.12", 80, "TCP"));
        rig.until("the event after them", || rig.dump("kpx_index").len() == 2);
        assert_eq!(rig.backends(), addresses(&["127.0.0.5:8080"]));
    });
}

#[test]
fn objects_that_cannot_be_read_stay_as_they_were_and_are_named() {
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        with_web(&rig);
        let agent = rig.start();
        rig.until_healthy();
        let told = |name: &str| {
            rig.until(name, || {
                let health = health("/healthz");
                health.is_some_and(|(_, body)| body["conditions"]["Objects"].as_str().is_some_and(|t| t.contains(name)))
            });
        };
        // Of a wrong type: a list of endpoints that is none.
        let mut broken = slice("web", "web-1", 8080, "TCP", &["127.0.0.7"]);
        broken["endpoints"] = json!("none");
        rig.api.put(broken);
        told("EndpointSlice ns/web-1");
        // Of the right type, with a value that cannot be.
        rig.api.put(service("bad", "10.96.0.300", 80, "TCP"));
        told("Service ns/bad");
        assert_eq!(rig.backends(), addresses(&["127.0.0.1:8080"]));
        // An agent that never saw them whole does not take out what may be theirs.
        agent.kill();
        let _agent = rig.start();
        told("EndpointSlice ns/web-1");
        rig.api.put(service("new", "10.96.0.13", 80, "TCP"));
        rig.until("the others are served", || rig.dump("kpx_index").len() == 2);
        assert_eq!(rig.backends(), addresses(&["127.0.0.1:8080"]));
        // Mended, all is as it should be.
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.8"]));
        rig.api.delete("Service", "ns/bad");
        rig.until("the mended slice", || rig.backends() == addresses(&["127.0.0.8:8080"]));
        rig.until("nothing is wrong", || health("/healthz").is_some_and(|(_, body)| body["conditions"] == json!({})));
    });
}

#[test]
fn an_annotation_that_means_nothing_is_named_and_its_service_served() {
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        with_web(&rig);
        let mut odd = service("odd", "10.96.0.14", 80, "TCP");
        odd["metadata"]["annotations"] = json!({ "kpx.dev/backend-selection": "magic" });
        rig.api.put(odd);
        rig.api.put(slice("odd", "odd-1", 8080, "TCP", &["127.0.0.4"]));
        let _agent = rig.start();
        rig.until_healthy();
        assert_eq!(rig.backends(), addresses(&["127.0.0.1:8080", "127.0.0.4:8080"]));
        let told = || health("/healthz").expect("an answer").1["conditions"]["Objects"].to_string();
        assert!(told().contains("Service ns/odd") && told().contains("magic"), "{}", told());
        assert!(rig.log().contains("kpx.dev/backend-selection"));
        rig.api.put(service("odd", "10.96.0.14", 80, "TCP"));
        rig.until("nothing is wrong", || health("/healthz").is_some_and(|(_, body)| body["conditions"] == json!({})));
    });
}

/// The frontends in the maps by their last address byte: whether a Maglev table chooses their backends, and how many slots
/// they have.
fn selections(rig: &Rig<'_>) -> BTreeMap<u64, (bool, u64)> {
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    let frontends = rig.dump("kpx_frontends");
    let values = frontends.iter().map(|entry| &entry["formatted"]["value"]);
    let used = values.filter(|value| number(&value["key"]["port"]) != 0);
    used.map(|value| {
        let flags = value["flags"].as_u64().or_else(|| value["flags"]["__0"].as_u64()).expect("flags");
        // `Flags::MAGLEV`.
        (number(&value["key"]["addr"][15]), (flags & 1 << 8 != 0, number(&value["cluster"]["count"])))
    })
    .collect()
}

#[test]
fn services_that_do_not_say_are_served_as_the_cluster_is() {
    Ground::with(|ground| {
        let rig = Rig::new(ground).with("--backend-selection maglev --maglev-size 509");
        for (name, address, annotation) in
            [("a", "10.96.0.10", None), ("b", "10.96.0.11", Some("random")), ("c", "10.96.0.12", Some("maglev"))]
        {
            let mut one = service(name, address, 80, "TCP");
            if let Some(value) = annotation {
                one["metadata"]["annotations"] = json!({ "kpx.dev/backend-selection": value });
            }
            rig.api.put(one);
            rig.api.put(slice(name, &format!("{name}-1"), 8080, "TCP", &["127.0.0.1", "127.0.0.2"]));
        }
        let agent = rig.start();
        rig.until_healthy();
        assert_eq!(selections(&rig), BTreeMap::from([(10, (true, 509)), (11, (false, 2)), (12, (true, 509))]));
        // Whoever takes the maps up without being told keeps to it.
        agent.kill();
        let mut dataplane = Dataplane::expect(&ground.paths).expect("it is there");
        let table = dataplane.table().expect("the maps can be read");
        let silent = table.frontends().iter().map(|frontend| Frontend { selection: None, ..frontend.clone() });
        dataplane.update(&silent.collect::<Vec<_>>(), &[]).expect("the maps can be written");
        assert_eq!(selections(&rig), BTreeMap::from([(10, (true, 509)), (11, (true, 509)), (12, (true, 509))]));
        let rig = rig.with("");
        let _agent = rig.start();
        let others = BTreeMap::from([(10, (false, 2)), (11, (false, 2)), (12, (true, 16_381))]);
        rig.until("the other way", || selections(&rig) == others);
    });
}
