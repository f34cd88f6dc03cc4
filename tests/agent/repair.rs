//! What somebody takes away is put back, and told.

use std::path::Path;

use kpx::capture::command;

use super::api::{service, slice};
use super::rig::Rig;
use crate::dataplane::ground::Ground;
use crate::dataplane::server::Server;

/// How many programs bpftool finds on the cgroup.
fn attached(ground: &Ground) -> usize {
    let cgroup = ground.paths.cgroup.to_string_lossy();
    let output = command::run("bpftool", ["-j", "cgroup", "show", &*cgroup], None).expect("bpftool runs");
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    list.as_array().map_or(0, Vec::len)
}

#[test]
fn programs_and_pins_that_go_come_back() {
    Ground::with(|ground| {
        let _a = Server::start("a", "127.0.0.1:8080");
        let rig = Rig::new(ground);
        rig.api.put(service("web", "10.96.0.10", 80, "TCP"));
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]));
        let _agent = rig.start();
        rig.until_healthy();
        let all = attached(ground);
        assert!(all >= 8);
        // One program is detached.
        let link = ground.paths.pins.join("links/kpx_connect4");
        command::output("bpftool", ["link", "detach", "pinned", &link.to_string_lossy()], None)
            .expect("it is detached");
        rig.until("it is noticed", || rig.log().contains("kpx_connect4 had been detached"));
        assert_eq!(attached(ground), all);
        // Everything is unpinned, which detaches all.
        let maps = rig.dump("kpx_backends");
        fs_err::remove_dir_all(&ground.paths.pins).expect("pins can be removed");
        rig.until("it is noticed", || rig.log().contains("every program had been detached"));
        assert_eq!(attached(ground), all);
        assert_eq!(rig.dump("kpx_backends"), maps, "these are the maps that were there before");
        assert!(ground.agent().ask("tcp 10.96.0.10:80").contains(" a "));
        let metrics = || super::rig::ask("127.0.0.1:10249", "/metrics").map(|answer| answer.2).unwrap_or_default();
        for kind in ["pin", "attachment"] {
            let line = format!("kpx_repairs_total{{kind=\"{kind}\"}}");
            rig.until(&line, || metrics().contains(&line));
        }
        // What was repaired goes on following the API.
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.2"]));
        rig.until("the change", || rig.backends() == ["127.0.0.2:8080".parse().expect("an address")]);
    });
}

/// The id of a pinned object, by bpftool.
fn id(kind: &str, pin: &Path) -> u64 {
    let shown = command::output("bpftool", ["-j", kind, "show", "pinned", &pin.to_string_lossy()], None);
    let shown: serde_json::Value = serde_json::from_slice(&shown.expect("it is pinned")).expect("bpftool speaks JSON");
    shown["id"].as_u64().expect("an id")
}

/// Nobody holds the objects but the links of attached programs.
#[test]
fn pins_that_went_while_no_agent_ran_are_made_again() {
    Ground::with(|ground| {
        let _a = Server::start("a", "127.0.0.1:8080");
        let rig = Rig::new(ground);
        rig.api.put(service("web", "10.96.0.10", 80, "TCP"));
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]));
        let agent = rig.start();
        rig.until_healthy();
        agent.kill();
        let pin = |name: &str| ground.paths.pins.join(name);
        let maps = ["maps/kpx_backends", "maps/kpx_conntrack", "maps/kpx_peers", "maps/kpx_config"].map(pin);
        let before = maps.each_ref().map(|map| id("map", map));
        let link = id("link", &pin("links/kpx_connect4"));
        let mut client = ground.agent();
        for path in maps.iter().chain(&[pin("programs/kpx_connect4"), pin("programs/kpx_ingress")]) {
            fs_err::remove_file(path).expect("removed");
        }
        assert!(client.ask("tcp 10.96.0.10:80").contains(" a "), "what is attached serves on");
        let agent = rig.start();
        rig.until_healthy();
        assert_eq!(maps.each_ref().map(|map| id("map", map)), before, "these are the maps that were there before");
        assert_eq!(id("link", &pin("links/kpx_connect4")), link, "nothing was detached");
        assert!(pin("programs/kpx_connect4").exists() && pin("programs/kpx_ingress").exists());
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.2"]));
        rig.until("the change", || rig.backends() == ["127.0.0.2:8080".parse().expect("an address")]);
        // Where links keep programs at devices, their going takes the programs along, and with these the map of flows; filters
        // of a qdisc stay, and keep it.
        agent.kill();
        let mut gone = vec![pin("maps/kpx_conntrack")];
        let names = |folder: &str| fs_err::read_dir(pin(folder)).expect("it is there").flatten();
        let of_packets =
            |name: &str| ["kpx_ingress", "kpx_egress", "kpx_xdp"].iter().any(|program| name.starts_with(program));
        for entry in names("links").chain(names("programs")) {
            gone.extend(of_packets(&entry.file_name().to_string_lossy()).then(|| entry.path()));
        }
        let linked = gone.iter().any(|path| path.starts_with(pin("links")));
        for path in &gone {
            fs_err::remove_file(path).expect("removed");
        }
        let agent = rig.start();
        rig.until_healthy();
        let anew = rig.log().contains("map kpx_conntrack was gone with all that used it");
        assert_eq!((anew, id("map", &maps[1]) != before[1]), (linked, linked));
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.3"]));
        rig.until("the change", || rig.backends() == ["127.0.0.3:8080".parse().expect("an address")]);
        agent.kill();
        // And so it is with all of them.
        fs_err::remove_dir_all(&ground.paths.pins).expect("removed");
        let _agent = rig.start();
        rig.until_healthy();
        assert_eq!(id("map", &maps[0]) != before[0], linked, "the backends' map");
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]));
        rig.until("the change", || rig.backends() == ["127.0.0.1:8080".parse().expect("an address")]);
        assert!(client.ask("tcp 10.96.0.10:80").contains(" a "));
    });
}

#[test]
fn maps_without_room_are_told_and_served_when_there_is_some() {
    Ground::with(|ground| {
        let rig = Rig::new(ground).with("--map-size backends=4");
        rig.api.put(service("small", "10.96.0.10", 80, "TCP"));
        rig.api.put(slice("small", "small-1", 8080, "TCP", &["127.0.0.1"]));
        let _agent = rig.start();
        rig.until_healthy();
        let many: Vec<String> = (1..20).map(|host| format!("127.0.1.{host}")).collect();
        rig.api.put(service("large", "10.96.0.11", 80, "TCP"));
        rig.api.put(slice("large", "large-1", 8080, "TCP", &many.iter().map(String::as_str).collect::<Vec<_>>()));
        let full = || {
            let health = super::rig::health("/healthz");
            health.is_some_and(|(_, body)| {
                body["conditions"]["MapFull"].as_str().is_some_and(|t| t.contains("kpx_backends"))
            })
        };
        rig.until("it is told", full);
        // Others do not wait for it.
        rig.api.put(slice("small", "small-1", 8080, "TCP", &["127.0.0.2"]));
        rig.until("the small one is served", || rig.backends() == ["127.0.0.2:8080".parse().expect("an address")]);
        assert!(full());
        rig.api.put(slice("large", "large-1", 8080, "TCP", &["127.0.1.1"]));
        rig.until("the large one is served", || rig.backends().len() == 2);
        rig.until("it is over", || !full());
    });
}
