//! What is around the kernel: kube-proxy, Services, the API server, the CNI, routes. Read as the audit reads.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::answer::Finding;
use crate::capture::{BpfObjects, Captured, Item, Node, Process, Setup};
use crate::inspect::bpf::Owner;

/// What was read of a cluster.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    /// Answers by names of features.
    pub(super) findings: BTreeMap<&'static str, Finding>,
    /// Services that have a ClusterIP, if they were read.
    pub(super) services: Option<usize>,
    /// Nodes with Windows.
    pub(super) windows: Option<usize>,
}

/// Reads all of it.
pub(super) fn look(node: &Node) -> Cluster {
    let services = list(node, Item::Services);
    let nodes = list(node, Item::Nodes);
    let windows = nodes.as_ref().map(|nodes| nodes.iter().filter(|n| is_windows(n)).map(name).collect::<Vec<_>>());
    let served = services.as_ref().map(|all| all.iter().filter(|service| cluster_ip(service).is_some()).count());
    let findings = BTreeMap::from([
        ("linux-nodes", linux(windows.as_deref().map_err(|reason| *reason))),
        ("proxy-mode", proxy(node)),
        ("service-count", count(node, served.as_ref().map_err(|reason| reason.as_str()))),
        ("api-server", api_server(node, services.as_deref())),
        ("cni", cni(node)),
        ("direct-routing", routing(node)),
        ("mtu", mtu(node)),
        ("dsr-mtu", room(node)),
        ("dsr-network", lets_through(nodes.as_deref())),
    ]);
    Cluster { findings, services: served.ok(), windows: windows.ok().map(|names| names.len()) }
}

fn text(node: &Node, item: Item) -> Result<String, String> {
    match node.read(item) {
        Ok(Captured::Present { bytes, .. }) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Ok(Captured::Absent { reason }) => Err(format!("{item} not captured: {reason}")),
        Err(error) => Err(crate::error::with_causes(&error)),
    }
}

fn json<T: serde::de::DeserializeOwned>(node: &Node, item: Item) -> Result<T, String> {
    serde_json::from_str(&text(node, item)?).map_err(|e| format!("{item}: {e}"))
}

/// The objects of an item's kind: a list of one kind has no kind at its objects, one of several has.
fn list(node: &Node, item: Item) -> Result<Vec<Value>, String> {
    let kind = match item {
        Item::Services => "Service",
        Item::Nodes => "Node",
        _ => "EndpointSlice",
    };
    let mut document: Value = json(node, item)?;
    let Value::Array(items) = document["items"].take() else { return Err(format!("{item} has no items")) };
    let of_kind = |object: &Value| object.get("kind").is_none_or(|value| value == kind);
    Ok(items.into_iter().filter(of_kind).collect())
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or("?").to_owned()
}

fn is_windows(node: &Value) -> bool {
    let label = &node["metadata"]["labels"]["kubernetes.io/os"];
    label == "windows" || node["status"]["nodeInfo"]["operatingSystem"] == "windows"
}

fn cluster_ip(service: &Value) -> Option<&str> {
    service["spec"]["clusterIP"].as_str().filter(|ip| !matches!(*ip, "None" | ""))
}

fn linux(windows: Result<&[String], &String>) -> Finding {
    match windows {
        Ok([]) => Finding::known(true, "no node has Windows"),
        Ok(names) => Finding::known(false, format!("Windows on {}", names.join(", "))),
        Err(reason) => Finding::unknown(reason.clone()),
    }
}

fn proxy(node: &Node) -> Finding {
    let processes: Vec<Process> = json(node, Item::Processes).unwrap_or_default();
    let runs = |name: &str| processes.iter().find(|process| process.name.starts_with(name));
    let setup: Setup = json(node, Item::Setup).unwrap_or_default();
    let how = match (setup.manifests.first(), runs("kube-proxy")) {
        _ if runs("k3s").is_some() => Some("inside k3s: off by --disable-kube-proxy".to_owned()),
        _ if runs("kubelite").is_some() => Some("inside kubelite (MicroK8s)".to_owned()),
        (Some(line), _) => Some(format!("by the manifest {}", line.file)),
        (None, _) if text(node, Item::ProxyConfigMap).is_ok() => {
            Some("by a DaemonSet with the ConfigMap kube-proxy".to_owned())
        }
        (None, Some(process)) => Some(format!("as process {}, by a DaemonSet or a unit", process.pid)),
        (None, None) => None,
    };
    match (text(node, Item::ProxyMode), how) {
        (Ok(mode), how) => {
            let how = how.unwrap_or_else(|| "how it is run does not show".to_owned());
            Finding::known(true, format!("{}; {how}", mode.trim()))
        }
        (Err(reason), Some(how)) => Finding::unknown(format!("{how}; {reason}")),
        (Err(reason), None) => Finding::unknown(reason),
    }
}

fn count(node: &Node, services: Result<&usize, &str>) -> Finding {
    let services = match services {
        Ok(services) => *services,
        Err(reason) => return Finding::unknown(reason),
    };
    let endpoints = list(node, Item::EndpointSlices)
        .map(|slices| slices.iter().filter_map(|slice| slice["endpoints"].as_array()).map(Vec::len).sum::<usize>());
    let services = crate::ui::count(services, "Service");
    match endpoints {
        Ok(endpoints) => {
            Finding::known(true, format!("{services} with a ClusterIP, {}", crate::ui::count(endpoints, "endpoint")))
        }
        Err(_) => Finding::known(true, format!("{services} with a ClusterIP")),
    }
}

fn api_server(node: &Node, services: Result<&[Value], &String>) -> Finding {
    let setup: Setup = match json(node, Item::Setup) {
        Ok(setup) => setup,
        Err(reason) => return Finding::unknown(reason),
    };
    let servers: BTreeSet<&str> =
        setup.api_servers.iter().filter_map(|line| line.text.split_once(':')).map(|(_, url)| url.trim()).collect();
    if servers.is_empty() {
        return Finding::unknown("no kubeconfig of kubelet or kube-proxy was found");
    }
    let shown = servers.iter().copied().collect::<Vec<_>>().join(", ");
    let Ok(services) = services else {
        return Finding::unknown(format!("{shown}; whether that is a ClusterIP is not known without the Services"));
    };
    let ips: BTreeSet<&str> = services.iter().filter_map(cluster_ip).collect();
    let by_service = |url: &str| {
        let host = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = host
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next())
            .unwrap_or_else(|| host.split(':').next().unwrap_or(""));
        ips.contains(host) || host.starts_with("kubernetes.default")
    };
    match servers.iter().find(|url| by_service(url)) {
        Some(url) => Finding::known(false, format!("{url} is a Service")),
        None => Finding::known(true, shown),
    }
}

/// Programs of CNIs, by the start of their processes' names.
const CNIS: [&str; 8] =
    ["cilium-agent", "calico-node", "flanneld", "antrea-agent", "kube-router", "ovnkube", "aws-k8s-agent", "weaver"];

fn cni(node: &Node) -> Finding {
    let objects: BpfObjects = match json(node, Item::BpfObjects) {
        Ok(objects) => objects,
        Err(reason) => return Finding::unknown(reason),
    };
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    for program in &objects.programs {
        let owner = Owner::of(&program.name, &[], false);
        if matches!(owner, Owner::Cilium | Owner::Calico) {
            *owners.entry(owner.to_string()).or_default() += 1;
        }
    }
    let processes: Vec<Process> = json(node, Item::Processes).unwrap_or_default();
    let running: BTreeSet<&str> =
        CNIS.into_iter().filter(|cni| processes.iter().any(|process| cni.starts_with(&process.name))).collect();
    let running = running.into_iter().collect::<Vec<_>>().join(", ");
    let running = if running.is_empty() { String::new() } else { format!("; {running} runs") };
    if owners.is_empty() {
        return Finding::known(
            true,
            format!("no programs of Cilium or Calico among {}{running}", objects.programs.len()),
        );
    }
    let shown: Vec<String> = owners.into_iter().map(|(owner, count)| format!("{count} of {owner}")).collect();
    Finding::known(false, format!("BPF programs: {}{running}", shown.join(", ")))
}

/// Bytes that a tunnel adds, by the kind of its device.
const TUNNELS: [(&str, u64); 5] = [("vxlan", 50), ("geneve", 50), ("ipip", 20), ("wireguard", 60), ("gre", 24)];

struct Device {
    name: String,
    mtu: u64,
    overhead: Option<(String, u64)>,
    loopback: bool,
    virtual_: bool,
}

fn devices_of(node: &Node) -> Result<Vec<Device>, String> {
    let list: Vec<Value> = json(node, Item::Addresses)?;
    Ok(list
        .iter()
        .map(|device| {
            let kind = device["linkinfo"]["info_kind"].as_str();
            let overhead = kind.and_then(|kind| TUNNELS.iter().find(|(name, _)| *name == kind));
            Device {
                name: device["ifname"].as_str().unwrap_or("?").to_owned(),
                mtu: device["mtu"].as_u64().unwrap_or(0),
                overhead: overhead.map(|(name, bytes)| ((*name).to_owned(), *bytes)),
                loopback: device["link_type"] == "loopback",
                virtual_: kind.is_some(),
            }
        })
        .collect())
}

fn routing(node: &Node) -> Finding {
    let (devices, routes) = match (devices_of(node), json::<Vec<Value>>(node, Item::Routes)) {
        (Ok(devices), Ok(routes)) => (devices, routes),
        (Err(reason), _) | (_, Err(reason)) => return Finding::unknown(reason),
    };
    let tunnels: BTreeSet<&str> = devices.iter().filter(|d| d.overhead.is_some()).map(|d| d.name.as_str()).collect();
    let through = routes.iter().filter(|route| {
        route["dev"].as_str().is_some_and(|dev| tunnels.contains(dev)) && route.get("gateway").is_some()
    });
    let direct = routes.iter().filter(|route| {
        route.get("gateway").is_some()
            && route["dst"] != "default"
            && route["dev"].as_str().is_some_and(|dev| !tunnels.contains(dev))
    });
    let (through, direct) = (through.count(), direct.count());
    match (through, direct) {
        (0, 0) => Finding::unknown("no route to pods of other nodes shows"),
        (0, _) => Finding::known(
            true,
            format!("{} by way of other nodes, none through a tunnel", crate::ui::count(direct, "route")),
        ),
        _ => Finding::known(
            false,
            format!(
                "{} through {}",
                crate::ui::count(through, "route"),
                tunnels.into_iter().collect::<Vec<_>>().join(", ")
            ),
        ),
    }
}

const NO_CARRIER: &str = "no network device of the node itself shows";

/// The smallest MTU of the node's own devices.
fn carrier(devices: &[Device]) -> Option<u64> {
    devices.iter().filter(|d| !d.loopback && !d.virtual_).map(|d| d.mtu).min()
}

/// What an IP header takes that is put in front of another: IPv4 and IPv6.
const HEADERS: [u64; 2] = [20, 40];

fn room(node: &Node) -> Finding {
    let carrier = match devices_of(node).map(|devices| carrier(&devices)) {
        Ok(Some(carrier)) => carrier,
        Ok(None) => return Finding::unknown(NO_CARRIER),
        Err(reason) => return Finding::unknown(reason),
    };
    let [v4, v6] = HEADERS.map(|header| carrier.saturating_sub(header));
    if v6 >= 1500 {
        Finding::known(
            true,
            format!("{carrier} on the network: what clients send in 1500 bytes fits with one more header"),
        )
    } else {
        Finding::known(
            false,
            format!("{carrier} on the network: no datagram of more than {v4} bytes fits (IPv6: {v6})"),
        )
    }
}

/// Clouds that check the sources of packets unless told otherwise, by the start of a Node's `spec.providerID`.
const CHECKERS: [(&str, &str); 3] = [("aws", "AWS"), ("gce", "Google"), ("openstack", "OpenStack")];

/// What a network does no node can try alone; some clouds are known for it.
fn lets_through(nodes: Result<&[Value], &String>) -> Finding {
    let nodes = match nodes {
        Ok(nodes) => nodes,
        Err(reason) => return Finding::unknown(format!("a node alone cannot try it; {reason}")),
    };
    let provider = nodes.iter().find_map(|node| node["spec"]["providerID"].as_str()?.split_once(':'));
    let provider = provider.map_or("", |(provider, _)| provider);
    if provider == "azure" {
        return Finding::known(false, "Azure's virtual networks drop IP in IP");
    }
    match CHECKERS.iter().find(|(start, _)| *start == provider) {
        Some((_, name)) => Finding::unknown(format!("{name} drops such answers unless its check of sources is off")),
        None => Finding::unknown("a node alone cannot try it"),
    }
}

fn mtu(node: &Node) -> Finding {
    let devices = match devices_of(node) {
        Ok(devices) => devices,
        Err(reason) => return Finding::unknown(reason),
    };
    let Some(carrier) = carrier(&devices) else { return Finding::unknown(NO_CARRIER) };
    let wrong: Vec<String> = devices
        .iter()
        .filter_map(|device| {
            let (kind, bytes) = device.overhead.as_ref()?;
            (device.mtu + bytes > carrier).then(|| {
                format!("{} ({kind}) has {}, and {bytes} more do not fit into {carrier}", device.name, device.mtu)
            })
        })
        .collect();
    if wrong.is_empty() {
        Finding::known(true, format!("{carrier} on the network, and tunnels fit into it"))
    } else {
        Finding::known(false, wrong.join("; "))
    }
}
