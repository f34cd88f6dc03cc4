//! Every recorded world of iptables mode: the table from the API equals the table from the rules.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;

use fs_err as fs;
use kpx::capture::{Node, NodeOptions};
use kpx::inspect::{iptables, kube};
use kpx::model::{Difference, KubeVersion, Semantics, ServiceTable, diff};
use serde_json::{Value, json};

use crate::support::recordings;

/// A file of a recording, unpacked; `None` if it is not there.
pub(super) fn file(path: &Path) -> Option<Vec<u8>> {
    if path.is_file() {
        return Some(fs::read(path).expect("a recording can be read"));
    }
    let packed = path.with_added_extension("gz");
    packed.is_file().then(|| {
        let mut out = Vec::new();
        let packed = fs::File::open(packed).expect("a recording can be opened");
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut out).expect("gzip");
        out
    })
}

/// The table that the rules in `dir` make. `prefix` is empty or `legacy-`/`nft-` as in the names of the other variant.
fn rules(dir: &Path) -> ServiceTable {
    let text = |name: &str| file(&dir.join(name)).unwrap_or_else(|| panic!("{} has {name}", dir.display()));
    let (v4, v6) = (text("iptables-save.txt"), text("ip6tables-save.txt"));
    let dump = |text| iptables::parse(text).expect("iptables-save text");
    iptables::lift(Some(&dump(&v4)), Some(&dump(&v6))).table
}

/// The table that the API gives for the node recorded in `dir`.
pub(super) fn api(dir: &Path, objects: &Path, node_name: Option<&str>) -> kube::KubeState {
    let options = NodeOptions {
        from: Some(dir.to_owned()),
        services_from: Some(objects.to_owned()),
        node_name: node_name.map(str::to_owned),
        ..NodeOptions::default()
    };
    let node = Node::open(&options).expect("a recording is a snapshot");
    kube::read_node(&node).unwrap_or_else(|e| panic!("{}: {e:?}", dir.display()))
}

fn assert_same(dir: &Path, objects: &Path) {
    let found = diff(&api(dir, objects, None).table, &rules(dir));
    assert!(found.is_empty(), "{}: {} differences, first {:#?}", dir.display(), found.len(), found.first());
}

/// The objects that the worlds of `stale/` were made with. They are listed beside the last world only, which has a
/// namespace more.
pub(crate) fn objects_of_stale(root: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder for objects");
    let listed = root.join("stale/conflicting-addresses/api");
    for name in ["services.json", "endpointslices.json", "nodes.json"] {
        let mut list: Value = serde_json::from_slice(&file(&listed.join(name)).expect("a list")).expect("JSON");
        let items = list["items"].as_array_mut().expect("items");
        items.retain(|item| item["metadata"]["namespace"] != "conflict");
        fs::write(folder.path().join(name), list.to_string()).expect("a list can be written");
    }
    folder
}

#[test]
fn small_worlds_of_every_version() {
    let Some(root) = recordings() else { return };
    let small = root.join("small");
    for world in [
        "iptables-nft/running",
        "iptables-nft/stopped",
        "iptables-legacy/running",
        "v1.30-iptables-nft/running",
        "v1.25-iptables-legacy/running",
        "v1.23-iptables-nft/running",
    ] {
        assert_same(&small.join(world), &small.join("api"));
        assert_same(&small.join(world), &small.join("api/all.json.gz"));
    }
}

#[test]
fn nodes_with_more_on_them_than_one_kube_proxy() {
    let Some(root) = recordings() else { return };
    let objects = objects_of_stale(&root);
    for world in [
        "docker-flannel-iptables",
        "legacy-then-nft",
        "switch-iptables-to-nftables/before",
        "switch-nftables-to-iptables/after",
        "upgraded-from-v1.23",
        "upgraded-from-v1.30",
    ] {
        assert_same(&root.join("stale").join(world), objects.path());
    }
}

#[test]
fn conflicting_addresses_are_named_and_are_no_difference() {
    let Some(root) = recordings() else { return };
    let world = root.join("stale/conflicting-addresses");
    assert_same(&world.join("iptables"), &world.join("api"));

    let table = api(&world.join("iptables"), &world.join("api"), None).table;
    let conflicts: Vec<_> = table.conflicts().iter().map(ToString::to_string).collect();
    let of_rules: Vec<_> = rules(&world.join("iptables")).conflicts().iter().map(ToString::to_string).collect();
    assert_eq!(conflicts, of_rules);
    insta::assert_snapshot!(conflicts.join("\n"), @r"
    10.96.0.10:53/TCP: kube-system/kube-dns:dns-tcp (ClusterIP), conflict/lb-on-cluster-ip:dns-tcp (LoadBalancer)
    198.51.100.60:8080/TCP: conflict/lb-on-ext-ip:http (LoadBalancer), conflict/same-ip-1:http (ExternalIP), conflict/same-ip-2:http (ExternalIP)
    ");
}

#[test]
fn scale_worlds() {
    let Some(root) = recordings() else { return };
    for services in [100, 1000, 5000, 10_000] {
        let world = root.join("scale").join(services.to_string());
        let api = api(&world, &world, Some("node-a")).table;
        assert!(api.frontends().len() > services, "at least one frontend a Service");
        let found = diff(&api, &rules(&world));
        assert!(found.is_empty(), "scale/{services}: {} differences, first {:#?}", found.len(), found.first());
    }
}

#[test]
fn one_endpoint_is_named_among_a_thousand_services() {
    let Some(root) = recordings() else { return };
    let world = root.join("scale/1000");
    let recorded = api(&world, &world, Some("node-a"));
    let mut objects = recorded.objects.clone();
    let slice = objects.slices.iter_mut().find(|s| s.metadata.name.as_deref() == Some("svc-00420-eps"));
    slice.expect("a slice").endpoints.as_mut().expect("endpoints").pop();
    let place = kube::Place::new(
        recorded.node_name.clone(),
        objects.node(&recorded.node_name),
        None,
        &recorded.config,
        Semantics::new(KubeVersion::v1(36), &BTreeMap::new()),
        &mut Vec::new(),
    );
    let changed = kube::lift(&objects, &place, &mut Vec::new()).expect("recorded objects");
    let found = diff(&changed, &rules(&world));
    for difference in &found {
        let Difference::Frontend { side, fields, .. } = difference else { panic!("{difference:#?}") };
        assert!(side.service.as_deref().is_some_and(|name| name.ends_with("/svc-00420")), "{side:?}");
        assert!(matches!(fields.as_slice(), [f] if f.field == "backends" && f.a == "2 backends"), "{fields:?}");
    }
    assert!(!found.is_empty());
}

/// Objects of one kind as a watch changes them.
#[derive(Default)]
struct Watched {
    objects: BTreeMap<(String, String), Value>,
    events: VecDeque<Value>,
}

fn version(object: &Value) -> u64 {
    let version = &object["metadata"]["resourceVersion"];
    version.as_str().and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("a resourceVersion, not {version}"))
}

impl Watched {
    fn new(replay: &Path, list: &str, watch: &str) -> Self {
        let list: Value = serde_json::from_slice(&file(&replay.join(list)).expect("a list")).expect("JSON");
        let mut watched = Self::default();
        for object in list["items"].as_array().expect("items") {
            watched.put(object.clone());
        }
        let events = file(&replay.join(watch)).expect("a watch");
        watched.events = events
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).expect("JSON"))
            .collect();
        watched
    }

    fn key(object: &Value) -> (String, String) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        (text("namespace"), text("name"))
    }

    fn put(&mut self, object: Value) {
        self.objects.insert(Self::key(&object), object);
    }

    /// Applies the events up to a version of the store.
    fn advance(&mut self, until: u64) {
        while let Some(event) = self.events.pop_front_if(|event| version(&event["object"]) <= until) {
            match event["type"].as_str() {
                Some("ADDED" | "MODIFIED") => self.put(event["object"].clone()),
                Some("DELETED") => {
                    self.objects.remove(&Self::key(&event["object"]));
                }
                Some("BOOKMARK") => {}
                other => panic!("an event of type {other:?}"),
            }
        }
    }

    fn list(&self, kind: &str) -> Vec<u8> {
        let items: Vec<_> = self.objects.values().collect();
        serde_json::to_vec(&json!({ "kind": kind, "items": items })).expect("JSON")
    }
}

#[test]
fn every_step_of_the_replay() {
    let Some(root) = recordings() else { return };
    let replay = root.join("small/replay");
    let mut services = Watched::new(&replay, "list-services.json", "watch-services.ndjson");
    let mut slices = Watched::new(&replay, "list-endpointslices.json", "watch-endpointslices.ndjson");
    let mut nodes = Watched::new(&replay, "list-node.json", "watch-node.ndjson");
    let (log, metrics) = (file(&replay.join("kube-proxy.log")), file(&replay.join("metrics-after.txt")));
    let snapshots = snapshots(&replay);
    let steps: Vec<Value> = fs::read_to_string(replay.join("steps.ndjson"))
        .expect("steps")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(steps.len(), 22, "21 steps and the end");
    let (mut last, mut quiet) = (None, Vec::new());
    for (n, next) in steps.iter().enumerate() {
        let until = next["resourceVersionBefore"].as_str().and_then(|v| v.parse().ok()).expect("a version");
        for kind in [&mut services, &mut slices, &mut nodes] {
            kind.advance(until);
        }
        let lists = [services.list("ServiceList"), slices.list("EndpointSliceList"), nodes.list("NodeList")];
        let raw = kube::Raw {
            objects: lists.iter().map(|bytes| kube::Text { bytes, place: "list" }).collect(),
            config: kube::ConfigSources {
                log: log.as_deref().map(|bytes| kube::Text { bytes, place: "kube-proxy.log" }),
                metrics: metrics.as_deref().map(|bytes| kube::Text { bytes, place: "metrics" }),
                ..kube::ConfigSources::default()
            },
            ..kube::Raw::default()
        };
        let api = kube::read(&raw).expect("the rebuilt objects").table;
        let dump = |family: &str| {
            let name = format!("snapshots/{n:02}-{family}-save.txt");
            iptables::parse(&snapshots[&name]).unwrap_or_else(|e| panic!("{name}: {e:?}"))
        };
        let rules = iptables::lift(Some(&dump("iptables")), Some(&dump("ip6tables"))).table;
        let found = diff(&api, &rules);
        assert!(found.is_empty(), "after step {n}: {} differences, first {:#?}", found.len(), found.first());
        if last.replace(rules).is_some_and(|last| diff(&last, &api).is_empty()) {
            quiet.push(n);
        }
    }
    // Node node-c goes while its pods are still there.
    assert_eq!(quiet, [19], "every other step changes the table");
}

/// Files of `snapshots.tar.gz` by name.
fn snapshots(replay: &Path) -> HashMap<String, Vec<u8>> {
    let packed = fs::File::open(replay.join("snapshots.tar.gz")).expect("snapshots");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    let mut out = HashMap::new();
    for entry in archive.entries().expect("a tar archive") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a path").display().to_string();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).expect("its content");
        out.insert(name, bytes);
    }
    out
}
