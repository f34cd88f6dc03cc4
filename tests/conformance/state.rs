//! The objects of a cluster at one moment, and the rules that a real kube-proxy made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use fs_err as fs;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kpx::inspect::kube::{ConfigSources, LiftedService, ProxyConfig, Raw, Text, lift_service, place, read};
use kpx::model::{Family, Protocol, ServiceTable};
use serde_json::Value;

use super::behaviour::{Behaviour, Node, Step, To};
use super::edit::Edit;
use super::twins;
use crate::support::recordings;

/// Which objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// The node recorded in `tests/data/lab/node`.
    Node,
    /// The run in which objects changed, after so many changes.
    Replay(usize),
    /// The recorded node with one thing changed.
    Edited(Edit),
}

/// The objects, and the rules where there are any.
#[derive(Clone)]
pub(super) struct World {
    pub(super) services: Value,
    pub(super) slices: Value,
    pub(super) nodes: Value,
    /// IPv4 and IPv6.
    pub(super) rules: Option<[Vec<u8>; 2]>,
}

/// The worlds that there are recordings of.
#[derive(Clone)]
pub(super) struct Worlds {
    node: Arc<World>,
    replay: Vec<Arc<World>>,
}

impl Worlds {
    /// Reads them; without recordings beside the project, only the one that it carries.
    pub(super) fn read() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lab/node");
        let node = World {
            services: json(&folder.join("services.json")),
            slices: json(&folder.join("endpointslices.json.gz")),
            nodes: json(&folder.join("nodes.json")),
            rules: Some(["iptables-save.txt", "ip6tables-save.txt"].map(|name| bytes(&folder.join(name)))),
        };
        let replay = recordings().map(|root| replay(&root.join("small/replay"))).unwrap_or_default();
        Self { node: Arc::new(node), replay: replay.into_iter().map(Arc::new).collect() }
    }

    /// The same, with an IPv6 twin of every Service that has no IPv6: no recorded kube-proxy had these.
    pub(super) fn with_twins(mut self) -> Self {
        for world in std::iter::once(&mut self.node).chain(&mut self.replay) {
            twins::add(Arc::make_mut(world));
        }
        self
    }

    /// The world in this state; `None` where its recording is not there.
    pub(super) fn get(&self, state: State) -> Option<Arc<World>> {
        match state {
            State::Node => Some(self.node.clone()),
            State::Replay(changes) => self.replay.get(changes).cloned(),
            State::Edited(edit) => Some(Arc::new(edit.of(&self.node))),
        }
    }

    /// Whether all that a behaviour needs was recorded; for the rules that is a kube-proxy in each of its states.
    pub(super) fn have(&self, behaviour: &Behaviour, rules: bool) -> bool {
        behaviour.states().all(|state| self.get(state).is_some_and(|world| !rules || world.rules.is_some()))
    }

    /// The families in which every Service that a behaviour speaks to has addresses, when it is spoken to.
    pub(super) fn families(&self, behaviour: &Behaviour) -> Vec<Family> {
        let has = |family: &Family| {
            let mut now = self.node.clone();
            let mut before = now.clone();
            behaviour.steps.iter().all(|step| match step {
                Step::Become(state) => {
                    let next = self.get(*state).expect("callers know that it is there");
                    before = std::mem::replace(&mut now, next);
                    true
                }
                Step::Probe(probe) | Step::Open(_, probe) | Step::Forgets(probe) => {
                    if probe.before { &before } else { &now }.resolve(probe.to, *family).is_some()
                }
                Step::Programmed(to) => now.resolve(*to, *family).is_some(),
                Step::Again(..) | Step::Restart => true,
            })
        };
        Family::BOTH.into_iter().filter(|f| behaviour.only.is_none_or(|only| only == *f)).filter(has).collect()
    }

    /// All that was recorded.
    pub(super) fn all(&self) -> impl Iterator<Item = &World> {
        std::iter::once(&self.node).chain(&self.replay).map(Arc::as_ref)
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).expect("a recording can be read");
    if path.extension().is_none_or(|e| e != "gz") {
        return bytes;
    }
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut out).expect("gzip");
    out
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&bytes(path)).expect("a recording is JSON")
}

/// The run in which objects changed: the lists before, and events up to each change.
fn replay(folder: &Path) -> Vec<World> {
    let events = |name: &str| -> Vec<Value> {
        let text = String::from_utf8(bytes(&folder.join(name))).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
    };
    let mut kinds = [
        (json(&folder.join("list-services.json")), events("watch-services.ndjson")),
        (json(&folder.join("list-endpointslices.json")), events("watch-endpointslices.ndjson.gz")),
        (json(&folder.join("list-nodes.json")), events("watch-node.ndjson")),
    ];
    let version = |value: &Value| value.as_str().and_then(|v| v.parse::<u64>().ok()).expect("a resource version");
    let mut rules = rules(&folder.join("snapshots.tar.gz"));
    let steps = fs::read_to_string(folder.join("steps.ndjson")).expect("the changes");
    let steps = steps.lines().map(|line| serde_json::from_str::<Value>(line).expect("a change"));
    // A state is the one before the next change.
    let states = steps.enumerate().map(|(changes, next)| {
        let until = version(&next["resourceVersionBefore"]);
        for (list, events) in &mut kinds {
            let due = |event: &mut Value| version(&event["object"]["metadata"]["resourceVersion"]) <= until;
            for event in events.extract_if(.., due).filter(|event| event["type"] != "BOOKMARK") {
                let object = &event["object"];
                items_mut(list).retain(|item| item["metadata"]["uid"] != object["metadata"]["uid"]);
                items_mut(list).extend((event["type"] != "DELETED").then(|| object.clone()));
            }
        }
        let [services, slices, nodes] = kinds.each_ref().map(|(list, _)| list.clone());
        World { services, slices, nodes, rules: rules.remove(&changes) }
    });
    states.collect()
}

fn rules(archive: &Path) -> BTreeMap<usize, [Vec<u8>; 2]> {
    let packed = fs::read(archive).expect("the recording");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&packed[..]));
    let mut rules: BTreeMap<usize, [Vec<u8>; 2]> = BTreeMap::new();
    for entry in archive.entries().expect("a tar archive") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").into_owned();
        let named = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.split_once('-'));
        let Some((number, name)) = named.and_then(|(n, name)| Some((n.parse().ok()?, name))) else { continue };
        let text: &mut [Vec<u8>; 2] = rules.entry(number).or_default();
        entry.read_to_end(&mut text[usize::from(name.starts_with("ip6"))]).expect("readable");
    }
    rules
}

impl World {
    /// The table that the API gives a node, which has these addresses (`ip -j addr`).
    pub(super) fn table(&self, node: &str, addresses: &[u8]) -> ServiceTable {
        let flags = [("cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"), ("version", "v1.36.2")];
        let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let objects = [&self.services, &self.slices, &self.nodes].map(|list| list.to_string().into_bytes());
        let state = read(&Raw {
            objects: objects.iter().map(|bytes| Text { bytes, place: "list" }).collect(),
            config: ConfigSources { flags: &flags, ..ConfigSources::default() },
            addresses: Some(Text { bytes: addresses, place: "addresses" }),
            node_name: Some(node),
            host_name: None,
        });
        state.expect("recorded objects").table
    }

    /// The Services of a node, which has these addresses, each with all its endpoints.
    pub(super) fn lifted(&self, node: &str, local: &BTreeSet<IpAddr>) -> Vec<LiftedService> {
        let objects = |list: &Value| items(list).cloned().collect::<Vec<_>>();
        let slices: Vec<EndpointSlice> = typed(objects(&self.slices));
        let config = ConfigSources::default();
        let (config, _) = ProxyConfig::read(&config).expect("nothing to misread");
        let place = place(node.to_owned(), None, Some(local), &config, &mut Vec::new());
        let services: Vec<Service> = typed(objects(&self.services));
        let of = |service: &Service| {
            let (namespace, name) = (&service.metadata.namespace, &service.metadata.name);
            let own = slices.iter().filter(|slice| {
                let labels = slice.metadata.labels.as_ref();
                slice.metadata.namespace == *namespace
                    && labels.and_then(|labels| labels.get("kubernetes.io/service-name")) == name.as_ref()
            });
            lift_service(service, own, &place, &mut Vec::new()).expect("a recorded Service")
        };
        services.iter().filter_map(of).collect()
    }

    /// All addresses and ports that endpoints have, ready or not.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = (SocketAddr, Protocol)> {
        items(&self.slices).filter(|slice| slice["addressType"] != "FQDN").flat_map(|slice| {
            let ports = list(&slice["ports"]).filter_map(|port| {
                let protocol = match port["protocol"].as_str()? {
                    "TCP" => Protocol::Tcp,
                    "UDP" => Protocol::Udp,
                    _ => return None,
                };
                Some((number(&port["port"])?, protocol))
            });
            let ports: Vec<_> = ports.collect();
            let addresses = list(&slice["endpoints"]).filter_map(|e| e["addresses"][0].as_str()?.parse().ok());
            addresses.flat_map(move |ip: IpAddr| {
                let each = ports.iter().map(move |(port, protocol)| (SocketAddr::new(ip, *port), *protocol));
                each.collect::<Vec<_>>()
            })
        })
    }

    /// The address of a target; `None` if the Service has none in the family.
    pub(super) fn resolve(&self, to: To, family: Family) -> Option<SocketAddr> {
        let v6 = family == Family::V6;
        if let To::Pod(name) = to {
            let (ip, port) = super::names::endpoint(name, family);
            return Some(SocketAddr::new(ip, port));
        }
        let (To::ClusterIp(name)
        | To::NodePort(name, _)
        | To::Loopback(name)
        | To::LoadBalancer(name)
        | To::External(name)) = to
        else {
            return None;
        };
        let (service, port) = self.port(name)?;
        let of_family = |values: &Value| -> Option<IpAddr> {
            let all = list(values).filter_map(|v| v.as_str().or_else(|| v["ip"].as_str())?.parse::<IpAddr>().ok());
            all.into_iter().find(|ip| ip.is_ipv6() == v6)
        };
        let cluster_ip = of_family(&service["spec"]["clusterIPs"])?;
        let at = |ip: IpAddr, field: &str| Some(SocketAddr::new(ip, number(&port[field])?));
        match to {
            To::ClusterIp(_) => at(cluster_ip, "port"),
            To::NodePort(_, node) => {
                at(super::names::node(if node == Node::A { 'a' } else { 'b' }, family), "nodePort")
            }
            To::Loopback(_) => at(if v6 { "::1" } else { "127.0.0.1" }.parse().ok()?, "nodePort"),
            To::LoadBalancer(_) => at(of_family(&service["status"]["loadBalancer"]["ingress"])?, "port"),
            To::External(_) => at(of_family(&service["spec"]["externalIPs"])?, "port"),
            To::Pod(_) => None,
        }
    }

    fn port(&self, name: &str) -> Option<(&Value, &Value)> {
        let (service, port) = name.rsplit_once(':').expect("namespace/name:port");
        let service = self.service(service)?;
        Some((service, list(&service["spec"]["ports"]).find(|p| p["name"].as_str().unwrap_or("") == port)?))
    }

    fn service(&self, name: &str) -> Option<&Value> {
        items(&self.services).find(|s| is_named(s, name))
    }

    /// The spec of a Service, to be changed.
    pub(super) fn spec(&mut self, name: &str) -> &mut Value {
        let service = items_mut(&mut self.services).iter_mut().find(|s| is_named(s, name));
        &mut service.expect("a recorded Service")["spec"]
    }
}

fn is_named(object: &Value, name: &str) -> bool {
    let metadata = &object["metadata"];
    name.split_once('/').is_some_and(|(namespace, name)| metadata["namespace"] == namespace && metadata["name"] == name)
}

fn typed<T: serde::de::DeserializeOwned>(objects: Vec<Value>) -> Vec<T> {
    let object = |object| serde_json::from_value(object).expect("a recorded object");
    objects.into_iter().map(object).collect()
}

fn items(of: &Value) -> impl Iterator<Item = &Value> {
    list(&of["items"])
}

/// The objects of a list, to be changed.
pub(super) fn items_mut(of: &mut Value) -> &mut Vec<Value> {
    of["items"].as_array_mut().expect("items")
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|n| n.try_into().ok()).filter(|n| *n != 0)
}
