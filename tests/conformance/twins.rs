//! IPv6 twins: Services of which only IPv4 was recorded, with the same endpoints in both families.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::state::{World, items_mut, list};

/// Adds them to the objects. Rules have none.
pub(super) fn add(world: &mut World) {
    let is_v4 = |slice: &&Value| slice["addressType"] == "IPv4";
    let of = |slice: &Value| {
        let metadata = &slice["metadata"];
        (metadata["namespace"].to_string(), metadata["labels"]["kubernetes.io/service-name"].to_string())
    };
    let slices = items_mut(&mut world.slices);
    let dual: BTreeSet<_> = slices.iter().filter(|slice| slice["addressType"] == "IPv6").map(of).collect();
    let single = slices.iter().filter(is_v4).filter(|slice| !dual.contains(&of(slice)));
    let twins: Vec<Value> = single.map(slice).collect();
    slices.extend(twins);
    for service in items_mut(&mut world.services) {
        let spec = &mut service["spec"];
        let first = spec["clusterIPs"][0].as_str().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
        let (Some(first), 1) = (first, list(&spec["clusterIPs"]).count()) else { continue };
        let [.., high, low] = first.octets();
        append(&mut spec["clusterIPs"], json!(format!("fd00:10:96::{high:02x}{low:02x}")));
        for text in texts(&spec["externalIPs"]) {
            append(&mut spec["externalIPs"], json!(v6(&text)));
        }
        let ingress = &mut service["status"]["loadBalancer"]["ingress"];
        for entry in list(&ingress.clone()) {
            if let Some(ip) = entry["ip"].as_str() {
                let mut twin = entry.clone();
                twin["ip"] = json!(v6(ip));
                append(ingress, twin);
            }
        }
    }
}

fn append(to: &mut Value, value: Value) {
    to.as_array_mut().expect("a list").push(value);
}

fn texts(values: &Value) -> Vec<String> {
    list(values).filter_map(Value::as_str).map(str::to_owned).collect()
}

fn slice(of: &Value) -> Value {
    let mut twin = of.clone();
    twin["addressType"] = json!("IPv6");
    for field in ["name", "uid"] {
        let own = twin["metadata"][field].as_str().map(|text| format!("{text}-v6"));
        twin["metadata"][field] = json!(own);
    }
    for endpoint in twin["endpoints"].as_array_mut().into_iter().flatten() {
        let addresses: Vec<String> = texts(&endpoint["addresses"]).iter().map(|text| v6(text)).collect();
        endpoint["addresses"] = json!(addresses);
    }
    twin
}

/// The IPv6 address that goes with an IPv4 one: as recorded for pods, nodes and load balancers.
fn v6(text: &str) -> String {
    let octets: Vec<&str> = text.split('.').collect();
    match octets[..] {
        ["10", "244", node, pod] => format!("fd00:10:244:{node}::{pod}"),
        ["192", "168", "50", node] => format!("fd00:50::{node}"),
        ["203", "0", "113", end] => format!("fd00:203::{end}"),
        ["198", "51", "100", end] => format!("fd00:198::{end}"),
        [.., end] => format!("2001:db8:2::{end}"),
        [] => text.to_owned(),
    }
}
