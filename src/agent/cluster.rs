//! The API objects that concern one node, indexed so that a change names the Services it touches and no others.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::mirror::{Change, Mirror, Name};
use super::peers::Peer;
use crate::model::ServiceName;

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// One thing that a watch tells.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Of the Services.
    Service(Change<Service>),
    /// Of the EndpointSlices.
    Slice(Change<EndpointSlice>),
    /// Of this node's Node, and of the others where they matter.
    Node(Change<Node>),
    /// Of the ServiceCIDRs.
    Cidr(Change<ServiceCIDR>),
}

/// The objects, and what has changed since the last look.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    /// Name of this node's Node.
    own: String,
    services: Mirror<Service>,
    slices: Mirror<EndpointSlice>,
    nodes: Mirror<Node>,
    cidrs: Mirror<ServiceCIDR>,
    /// Names of the EndpointSlices of each Service; both are in one namespace.
    of_service: HashMap<ServiceName, BTreeSet<String>>,
    touched: BTreeSet<ServiceName>,
    node_touched: bool,
    peers_touched: bool,
}

/// What has changed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// Services of which something is otherwise: the Service itself or one of its EndpointSlices.
    pub(super) services: BTreeSet<ServiceName>,
    /// Whether the Node is otherwise.
    pub(super) node: bool,
    /// Whether what the nodes have to know of each other is otherwise.
    pub(super) peers: bool,
}

fn service_name((namespace, name): &Name) -> ServiceName {
    ServiceName { namespace: namespace.clone(), name: name.clone() }
}

fn owner(meta: &ObjectMeta) -> Option<ServiceName> {
    let name = meta.labels.as_ref()?.get(SERVICE_NAME).filter(|name| !name.is_empty())?;
    Some(ServiceName { namespace: meta.namespace.clone()?, name: name.clone() })
}

impl Cluster {
    /// No objects yet; those of the node with this name.
    pub(super) fn of(own: String) -> Self {
        Self { own, ..Self::default() }
    }

    /// Takes one event in.
    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::Service(change) => {
                let touched = &mut self.touched;
                self.services.apply(change, |service| touched.extend([service_name(&service.name)]));
            }
            Event::Slice(change) => {
                let mut slices = Vec::new();
                self.slices
                    .apply(change, |slice| slices.push((slice.before.and_then(|s| owner(&s.metadata)), slice.name)));
                for (before, name) in slices {
                    self.reindex(before, &name);
                }
            }
            Event::Node(change) => {
                let mut nodes = Vec::new();
                self.nodes.apply(change, |node| nodes.push((node.name, node.before.as_ref().map(Peer::of))));
                for (name, before) in nodes {
                    self.node_touched |= name.1 == self.own;
                    // Nodes tell how they are every few minutes, and most of that matters to nobody else.
                    self.peers_touched |= self.nodes.get(&name).map(Peer::of) != before;
                }
            }
            Event::Cidr(change) => self.cidrs.apply(change, |_| self.node_touched = true),
        }
    }

    fn reindex(&mut self, before: Option<ServiceName>, slice: &Name) {
        let now = self.slices.get(slice).and_then(|slice| owner(&slice.metadata));
        if before != now
            && let Some(service) = &before
            && let Some(names) = self.of_service.get_mut(service)
        {
            names.remove(&slice.1);
            if names.is_empty() {
                self.of_service.remove(service);
            }
        }
        if let Some(service) = &now {
            self.of_service.entry(service.clone()).or_default().insert(slice.1.clone());
        }
        self.touched.extend([before, now].into_iter().flatten());
    }

    /// Whether every object of every kind was seen at least once.
    pub(super) const fn is_complete(&self) -> bool {
        self.services.is_complete() && self.slices.is_complete() && self.nodes.is_complete() && self.cidrs.is_complete()
    }

    /// What has changed since the last look, which ends with this.
    pub(super) fn take_touched(&mut self) -> Touched {
        Touched {
            services: std::mem::take(&mut self.touched),
            node: std::mem::take(&mut self.node_touched),
            peers: std::mem::take(&mut self.peers_touched),
        }
    }

    /// Names of all Services that are known in a readable state.
    pub(super) fn services(&self) -> impl Iterator<Item = ServiceName> {
        self.services.iter().map(|(name, _)| service_name(name))
    }

    /// A Service, in its last readable state.
    pub(super) fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(&(name.namespace.clone(), name.name.clone()))
    }

    /// The EndpointSlices of a Service, in their last readable states.
    pub(super) fn slices(&self, service: &ServiceName) -> impl Iterator<Item = &EndpointSlice> {
        let names = self.of_service.get(service).into_iter().flatten();
        names.filter_map(|name| self.slices.get(&(service.namespace.clone(), name.clone())))
    }

    /// This node's Node.
    pub(super) fn node(&self) -> Option<&Node> {
        self.nodes.get(&(String::new(), self.own.clone()))
    }

    /// The nodes whose Nodes are known, by name, this one among them.
    pub(super) fn peers(&self) -> BTreeMap<String, Peer> {
        self.nodes.iter().map(|((_, name), node)| (name.clone(), Peer::of(node))).collect()
    }

    /// Name of this node's Node.
    pub(super) fn own(&self) -> &str {
        &self.own
    }

    /// The networks that ClusterIPs are allocated from, as written.
    pub(super) fn service_cidrs(&self) -> BTreeSet<&str> {
        let specs = self.cidrs.iter().filter_map(|(_, cidr)| cidr.spec.as_ref());
        specs.flat_map(|spec| spec.cidrs.iter().flatten()).map(String::as_str).collect()
    }

    /// How many Services and EndpointSlices there are.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.services.len(), self.slices.len())
    }

    /// The objects that cannot be read, by kind and name, with the reason.
    pub(super) fn unreadable(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut add = |kind: &str, (namespace, name): &Name, reason: &str| {
            let slash = if namespace.is_empty() { "" } else { "/" };
            all.insert(format!("{kind} {namespace}{slash}{name}"), reason.to_owned());
        };
        self.services.unreadable().for_each(|(name, why)| add("Service", name, &why.reason));
        self.slices.unreadable().for_each(|(name, why)| add("EndpointSlice", name, &why.reason));
        self.nodes.unreadable().for_each(|(name, why)| add("Node", name, &why.reason));
        self.cidrs.unreadable().for_each(|(name, why)| add("ServiceCIDR", name, &why.reason));
        all
    }

    /// Whether there is a Service of which nothing readable was ever seen: which frontends are its, nobody knows.
    pub(super) fn has_unknown_services(&self) -> bool {
        self.services.unreadable().any(|(name, _)| self.services.is_unknown(name))
    }

    /// The Services that have an EndpointSlice of which nothing readable was ever seen: their endpoints are not known.
    pub(super) fn without_endpoints_known(&self) -> BTreeSet<ServiceName> {
        let unknown = self.slices.unreadable().filter(|(name, _)| self.slices.is_unknown(name));
        unknown.filter_map(|(_, why)| owner(&why.metadata)).collect()
    }
}

#[cfg(test)]
mod tests {
    use kube::core::DeserializeGuard;
    use serde_json::json;

    use super::*;

    fn slice(name: &str, service: &str, version: u64) -> Box<DeserializeGuard<EndpointSlice>> {
        let object = json!({
            "metadata": {
                "namespace": "ns", "name": name, "resourceVersion": version.to_string(),
                "labels": { SERVICE_NAME: service },
            },
            "addressType": "IPv4",
            "endpoints": [],
        });
        Box::new(serde_json::from_value(object).expect("a slice"))
    }

    fn touched(cluster: &mut Cluster, change: Change<EndpointSlice>) -> Vec<String> {
        cluster.apply(Event::Slice(change));
        cluster.take_touched().services.into_iter().map(|service| service.name).collect()
    }

    #[test]
    fn a_slice_names_the_services_it_touches() {
        let mut cluster = Cluster::default();
        let of = |cluster: &Cluster, service: &str| {
            cluster.slices(&ServiceName { namespace: "ns".into(), name: service.into() }).count()
        };
        assert_eq!(touched(&mut cluster, Change::Applied(slice("s1", "a", 1))), ["a"]);
        assert_eq!(touched(&mut cluster, Change::Applied(slice("s2", "a", 2))), ["a"]);
        assert_eq!(of(&cluster, "a"), 2);
        assert_eq!(touched(&mut cluster, Change::Applied(slice("s2", "b", 3))), ["a", "b"]);
        assert_eq!((of(&cluster, "a"), of(&cluster, "b")), (1, 1));
        assert_eq!(touched(&mut cluster, Change::Deleted(slice("s1", "a", 4))), ["a"]);
        assert_eq!((of(&cluster, "a"), cluster.of_service.len()), (0, 1));
    }

    #[test]
    fn the_service_of_a_slice_that_cannot_be_read_is_known_by_its_label() {
        let mut cluster = Cluster::default();
        let broken = json!({
            "metadata": { "namespace": "ns", "name": "s1", "labels": { SERVICE_NAME: "a" } },
            "addressType": "IPv4",
            "endpoints": "none",
        });
        let broken = Box::new(serde_json::from_value(broken).expect("metadata"));
        assert!(touched(&mut cluster, Change::Applied(broken)).is_empty());
        let unknown = cluster.without_endpoints_known();
        assert_eq!(unknown.into_iter().map(|s| s.to_string()).collect::<Vec<_>>(), ["ns/a"]);
        assert!(cluster.unreadable().contains_key("EndpointSlice ns/s1"));
    }
}
