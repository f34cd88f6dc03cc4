//! The recorded node with one thing changed, for behaviours of which there is no recording of their own.

use kpx::model::Family;
use serde_json::{Value, json};

use super::names;
use super::state::{World, items_mut};

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Edit {
    /// Nothing: behaviours of node-b, where no kube-proxy was recorded.
    Nothing,
    /// `shop/session-short` forgets after one second instead of 120, in the objects and in the rules.
    ShortAffinity,
    /// `edge/np` becomes an ExternalName.
    NodePortToExternalName,
    /// `data/external-name-with-port` becomes a NodePort Service.
    ExternalNameToNodePort,
    /// `data/draining` has internalTrafficPolicy Local and externalTrafficPolicy Cluster.
    DrainingTheOtherWay,
    /// `kube-system/kube-dns` has one endpoint.
    DnsAt(&'static str),
    /// `kube-system/kube-dns` has ClientIP affinity.
    DnsAffinity,
}

impl Edit {
    /// The edited world; without rules where no recorded kube-proxy ever had such objects.
    pub(super) fn of(self, world: &World) -> World {
        let mut world = world.clone();
        match self {
            Self::Nothing => {}
            Self::ShortAffinity => {
                world.spec("shop/session-short")["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 1}});
                for text in world.rules.iter_mut().flatten() {
                    *text = String::from_utf8_lossy(text).replace("--seconds 120 ", "--seconds 1 ").into_bytes();
                }
                return world;
            }
            Self::NodePortToExternalName => {
                *world.spec("edge/np") = json!({"type": "ExternalName", "externalName": "db.example.com"});
            }
            Self::ExternalNameToNodePort => {
                *world.spec("data/external-name-with-port") = json!({
                    "type": "NodePort",
                    "clusterIP": "10.96.77.1",
                    "clusterIPs": ["10.96.77.1", "fd00:10:96::7701"],
                    "ports": [{"name": "pg", "port": 5432, "protocol": "TCP", "nodePort": 30777}],
                });
                let slices = Family::BOTH.map(|family| slice("data", "external-name-with-port", family));
                items_mut(&mut world.slices).extend(slices);
            }
            Self::DrainingTheOtherWay => {
                let spec = world.spec("data/draining");
                spec["internalTrafficPolicy"] = json!("Local");
                spec["externalTrafficPolicy"] = json!("Cluster");
            }
            Self::DnsAt(name) => {
                let kept = Family::BOTH.map(|family| names::endpoint(name, family).0.to_string());
                for slice in items_mut(&mut world.slices) {
                    if slice["metadata"]["labels"]["kubernetes.io/service-name"] == "kube-dns" {
                        let endpoints = slice["endpoints"].as_array_mut().expect("endpoints");
                        endpoints.retain(|e| kept.iter().any(|kept| e["addresses"][0] == kept.as_str()));
                    }
                }
            }
            Self::DnsAffinity => {
                let spec = world.spec("kube-system/kube-dns");
                spec["sessionAffinity"] = json!("ClientIP");
                spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 600}});
            }
        }
        world.rules = None;
        world
    }
}

/// A slice of a Service with the pod `b33` and port `pg`.
fn slice(namespace: &str, service: &str, family: Family) -> Value {
    let (ip, _) = names::endpoint("b33", family);
    json!({
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "namespace": namespace,
            "name": format!("{service}-{family}"),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": if ip.is_ipv4() { "IPv4" } else { "IPv6" },
        "ports": [{"name": "pg", "port": 5432, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip.to_string()], "nodeName": "node-b"}],
    })
}
