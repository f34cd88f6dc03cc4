//! `inspect` and `diff` on a dataplane that is really pinned: its maps are the third source of the table.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use kpx::capture::{Node, NodeOptions, cgroup};
use kpx::dataplane::{Capacity, Dataplane, Paths, Served};
use kpx::inspect::kube;
use kpx::model::ServiceTable;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

use super::environment::{Run, finish, kpx, project};
use super::schema;
use crate::support;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A dataplane on a BPF filesystem and in a cgroup of its own; all gone with this value.
struct Pinned {
    paths: Paths,
    mount: tempfile::TempDir,
}

impl Pinned {
    fn with(table: &ServiceTable) -> Option<Self> {
        if !support::privileged() {
            return None;
        }
        let root = match cgroup::root() {
            Ok(root) => root,
            Err(error) => {
                println!("skipped: {error}");
                return None;
            }
        };
        let place = tempfile::tempdir().expect("a folder");
        mount("bpf", place.path(), "bpf", MountFlags::empty(), None).expect("root can mount a BPF filesystem");
        let cgroup = root.join(format!("kpx-cli-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs_err::create_dir(&cgroup).expect("root can make a cgroup");
        let pinned = Self { paths: Paths { pins: place.path().join("kpx"), cgroup }, mount: place };
        let capacity = Capacity::for_table(table);
        let mut dataplane = Dataplane::install(&pinned.paths, &capacity).expect("the dataplane installs");
        dataplane.fill(table).expect("it takes the table");
        dataplane.attach().expect("it attaches");
        Some(pinned)
    }

    fn run(&self, args: &[&str]) -> Run {
        let mut command = kpx();
        command.args(args).args(["--node-name", "node-a", "--services-from"]).arg(project(OBJECTS));
        command.arg("--bpffs").arg(&self.paths.pins).arg("--cgroup").arg(&self.paths.cgroup);
        finish(&mut command)
    }
}

impl Pinned {
    /// Writes an entry by bpftool; false, with the reason printed, without it.
    fn write(&self, map: &str, key: &[u8], value: &[u8]) -> bool {
        let map = self.paths.pins.join("maps").join(map).display().to_string();
        let words = ["map", "update", "pinned", &map, "key", "hex"].map(str::to_owned);
        let words = words.into_iter().chain(hex(key)).chain(["value".to_owned(), "hex".to_owned()]).chain(hex(value));
        let done = kpx::capture::command::output("bpftool", words, None);
        if let Err(error) = &done {
            println!("skipped: no bpftool ({error})");
        }
        done.is_ok()
    }
}

/// An IPv4 address as the maps have it.
fn mapped(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv4Addr>().expect("an address").to_ipv6_mapped().octets()
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = Dataplane::remove(&self.paths);
        let _ = unmount(self.mount.path(), UnmountFlags::DETACH);
        let _ = fs_err::remove_dir(&self.paths.cgroup);
    }
}

const OBJECTS: &str = "tests/data/lab/node";

/// The table of the recorded objects, for a live node called node-a.
fn table() -> ServiceTable {
    let options = NodeOptions {
        services_from: Some(project(OBJECTS)),
        node_name: Some("node-a".to_owned()),
        ..NodeOptions::default()
    };
    let node = Node::open(&options).expect("the objects are there");
    kube::read_node(&node).expect("they can be read").table
}

fn items(run: &Run) -> Vec<Value> {
    assert_eq!(run.code, 0, "{}", run.err);
    let document: Value = serde_json::from_str(&run.out).expect("JSON");
    schema::conforms(&document);
    document["items"].as_array().expect("items").clone()
}

#[test]
fn maps_are_shown_with_names_and_equal_the_api() {
    let table = table();
    let Some(pinned) = Pinned::with(&table) else { return };
    let served = Served::of(&table).table.frontends().len();
    assert!(served > 30, "{served}");

    let services = items(&pinned.run(&["inspect", "services", "--via", "ebpf", "-o", "json"]));
    assert_eq!(services.len(), served);
    assert!(services.iter().all(|item| item["service"].is_string()), "every frontend has a name");

    let equal = pinned.run(&["diff", "api", "ebpf"]);
    assert_eq!(equal.code, 0, "{}{}", equal.out, equal.err);
    assert_eq!(served, table.frontends().len());
    assert_eq!(equal.out, format!("0 differences in {served} frontends\n"));

    let backends = pinned.run(&["inspect", "backends", "--via", "ebpf", "--service", "shop/frontend", "-o", "name"]);
    assert_eq!(backends.out, "10.244.1.11:8080/TCP\n10.244.2.11:8080/TCP\n10.244.3.11:8080/TCP\n");
}

/// Bytes as bpftool takes them.
fn hex(bytes: &[u8]) -> Vec<String> {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_service_is_shown_with_its_map_entries_and_its_affinity() {
    let table = table();
    let Some(pinned) = Pinned::with(&table) else { return };
    let report = items(&pinned.run(&["inspect", "service", "shop/frontend", "-o", "json"]));
    let sources: Vec<&Value> = report[0]["sources"].as_array().expect("a list").iter().map(|s| &s["source"]).collect();
    assert!(sources.contains(&&"api".into()) && sources.contains(&&"ebpf".into()), "{sources:?}");
    assert_eq!(report[0]["counters"]["connects"], 0);
    let entries = report[0]["map_entries"].as_array().expect("a list");
    let of = |map: &str| entries.iter().filter(|entry| entry["map"] == map).collect::<Vec<_>>();
    assert_eq!((of("kpx_index").len(), of("kpx_slots").len()), (1, 3), "{entries:#?}");
    let words = of("kpx_slots")[0]["value"].as_str().expect("text");
    let backend: u32 = words.split([' ', ',']).nth(1).and_then(|id| id.parse().ok()).expect("backend N, address");
    let words = of("kpx_frontends")[0]["value"].as_str().expect("text");
    let service: u32 = words.split([' ', ',']).nth(1).and_then(|id| id.parse().ok()).expect("service N, lists");

    let shown = items(&pinned.run(&["inspect", "map", "kpx_index", "-o", "json"]));
    assert_eq!(shown.len(), Served::of(&table).table.frontends().len(), "this dataplane's map, not another one's");
    assert!(shown.iter().any(|item| item["key"]["addr"] == "10.108.140.169" && item["key"]["port"] == 80), "{shown:?}");

    // A client as the programs would remember it.
    let key = [&mapped("192.0.2.17")[..], &service.to_ne_bytes()].concat();
    let value = [&1_u64.to_ne_bytes()[..], &backend.to_ne_bytes(), &[0; 4]].concat();
    if !pinned.write("kpx_affinity", &key, &value) {
        return;
    }
    let affinity =
        items(&pinned.run(&["inspect", "affinity", "--via", "ebpf", "--service", "shop/frontend", "-o", "json"]));
    assert_eq!(affinity.len(), 1);
    assert_eq!((&affinity[0]["client"], &affinity[0]["service"]), (&"192.0.2.17".into(), &"shop/frontend".into()));
    assert_eq!(affinity[0]["backend"]["port"], 8080);
    assert!(items(&pinned.run(&["inspect", "affinity", "-n", "nowhere", "-o", "json"])).is_empty());

    // A flow from outside, masqueraded: request and its source, as the packet path would remember them.
    let tuple = |src: &str, sport: u16, dst: &str, dport: u16| {
        [&mapped(src)[..], &mapped(dst), &sport.to_be_bytes(), &dport.to_be_bytes(), &[6, 0, 0, 0]].concat()
    };
    let flow = |to: &[u8], role: u8| {
        [to, &u64::MAX.to_ne_bytes(), &service.to_ne_bytes(), &backend.to_ne_bytes(), &[0; 4], &[role, 1, 0, 0]]
            .concat()
    };
    let request = tuple("192.0.2.17", 43210, "10.108.140.169", 80);
    let inside = tuple("192.0.2.17", 43210, "10.244.1.11", 8080);
    let leaving = tuple("192.168.50.11", 40000, "10.244.1.11", 8080);
    pinned.write("kpx_conntrack", &request, &flow(&inside, 1));
    pinned.write("kpx_conntrack", &inside, &flow(&leaving, 2));
    let flows =
        items(&pinned.run(&["inspect", "conntrack", "--via", "ebpf", "--service", "shop/frontend", "-o", "json"]));
    let kinds: Vec<&Value> = flows.iter().map(|flow| &flow["kind"]).collect();
    assert!(kinds.contains(&&"forward".into()) && kinds.contains(&&"masquerade".into()), "{kinds:?}");
    let to_frontend =
        items(&pinned.run(&["inspect", "conntrack", "--via", "ebpf", "--address", "10.108.140.169", "-o", "json"]));
    assert_eq!((to_frontend.len(), &to_frontend[0]["flags"]), (1, &serde_json::json!(["opened"])));
    assert_eq!(to_frontend[0]["expires_seconds"], 61, "a connection without an answer is kept for a minute and a bit");
    let nat = items(&pinned.run(&["inspect", "nat", "-o", "json"]));
    assert_eq!((nat.len(), &nat[0]["replaces"], &nat[0]["service"]), (1, &"source".into(), &"shop/frontend".into()));
    assert_eq!(nat[0]["by"], serde_json::json!({ "ip": "192.168.50.11", "port": 40000 }));
    let report = items(&pinned.run(&["inspect", "service", "shop/frontend", "-o", "json"]));
    let connection = &report[0]["connections"][0];
    assert_eq!((&connection["seen"], &connection["client"]), (&"ebpf".into(), &"192.0.2.17:43210".into()));
}

#[test]
fn objects_are_listed_with_their_places() {
    let Some(pinned) = Pinned::with(&ServiceTable::default()) else { return };
    let list = |what: &str| items(&pinned.run(&["inspect", what, "--ours", "-o", "json"]));
    let below = |item: &Value, folder: &str| {
        item["pinned"][0].as_str().is_some_and(|pin| Path::new(pin).starts_with(pinned.paths.pins.join(folder)))
    };
    let programs = list("programs");
    assert_eq!(programs.len(), 13);
    assert!(programs.iter().all(|p| p["name"].as_str().is_some_and(|name| name.starts_with("kpx_"))), "{programs:?}");
    let maps = list("maps");
    assert!(maps.len() > 5 && maps.iter().all(|map| below(map, "maps")), "{maps:?}");
    let links = list("links");
    assert_eq!(links.len(), 10);
    let cgroup = pinned.paths.cgroup.to_str().expect("UTF-8");
    assert!(links.iter().all(|link| below(link, "links") && link["place"]["cgroup"] == cgroup), "{links:?}");
    let table = pinned.run(&["inspect", "links", "--ours"]).out;
    assert!(table.contains(" connect4 ") && table.contains("10 links of kpx, read from this node"), "{table}");
}

#[test]
fn without_a_dataplane_there_is_an_error_that_says_so() {
    let nowhere = tempfile::tempdir().expect("a folder");
    let none = finish(kpx().args(["inspect", "services", "--via", "ebpf", "--bpffs"]).arg(nowhere.path()));
    assert_eq!((none.out.as_str(), none.code), ("", 1));
    assert!(none.err.starts_with("error: no dataplane is installed in "), "{}", none.err);
    let recorded = finish(kpx().args(["inspect", "services", "--via", "ebpf", "--from"]).arg(project(OBJECTS)));
    assert_eq!((recorded.out.as_str(), recorded.code), ("", 1));
    assert!(recorded.err.contains("hint: "), "{}", recorded.err);
}
