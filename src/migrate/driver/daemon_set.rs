//! A kube-proxy of a DaemonSet: the node gets a label, and the DaemonSet an affinity that leaves out nodes which have it.
//!
//! The label is a node's own, the affinity is everybody's: whoever comes first adds it, and an annotation of the DaemonSet says
//! that it was added; whoever goes last takes it away. An affinity that the operator's own manifest has stays.

use kube::core::params::ListParams;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::cluster::{Cluster, ClusterError, meta};

/// The label of a node whose Services eBPF serves.
pub(super) const LABEL: &str = "kpx.dev/dataplane";
/// Its value.
const EBPF: &str = "ebpf";
/// The annotation of a DaemonSet whose affinity kpx has added to.
const ADDED: &str = "kpx.dev/affinity-added";

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/pods";

/// A DaemonSet that runs kube-proxy, and the node that is to be left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonSet {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name of the Node object.
    pub node: String,
    /// The patch that makes it leave out labelled nodes, as JSON; `None` where it does already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// How its pods on the other nodes follow a patch, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<String>,
}

/// What was there before anything was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Before {
    /// The node's label, if it had one.
    label: Option<String>,
}

impl DaemonSet {
    fn path(&self) -> String {
        collection(&self.namespace)
    }

    /// `kube-system/kube-proxy`.
    pub(super) fn display(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// How it looks now: with the patch that it needs, and who would take that back.
    pub(super) fn look(
        cluster: &Cluster,
        namespace: &str,
        name: &str,
        node: &str,
    ) -> Result<Option<(Self, Option<String>)>, ClusterError> {
        let Some(object) = cluster.get(&collection(namespace), name)? else { return Ok(None) };
        let patch = leaving_out(&object);
        let others = patch.as_ref().map(|_| followers(&object));
        let found = Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node: node.to_owned(),
            patch: patch.map(|patch| patch.to_string()),
            others,
        };
        Ok(Some((found, manager(&object))))
    }

    pub(super) fn before(&self, cluster: &Cluster) -> Result<Before, ClusterError> {
        let node = cluster.get(NODES, &self.node)?.unwrap_or_default();
        Ok(Before { label: label(&node).map(str::to_owned) })
    }

    /// Leaves the node out. The label first: alone it changes nothing.
    pub(super) fn stop(&self, cluster: &Cluster) -> Result<(), ClusterError> {
        cluster
            .patch(NODES, &self.node, |node| (label(node) != Some(EBPF)).then(|| meta("labels", LABEL, Some(EBPF))))?;
        cluster.patch(&self.path(), &self.name, leaving_out)?;
        Ok(())
    }

    /// Takes the node in again. The affinity goes first where no other node needs it, so that the DaemonSet's new pods are the
    /// only ones that this node gets.
    pub(super) fn start(&self, cluster: &Cluster, before: &Before) -> Result<(), ClusterError> {
        let labelled = cluster.list(NODES, &ListParams::default().labels(&format!("{LABEL}={EBPF}")))?;
        if labelled.iter().all(|node| node["metadata"]["name"] == self.node.as_str()) {
            cluster.patch(&self.path(), &self.name, taking_in)?;
        }
        let was = before.label.as_deref();
        cluster.patch(NODES, &self.node, |node| (label(node) != was).then(|| meta("labels", LABEL, was)))?;
        Ok(())
    }

    /// Why the node would get a pod of it; `None`: it would not.
    pub(super) fn wants_node(&self, cluster: &Cluster) -> Result<Option<String>, ClusterError> {
        let Some(object) = cluster.get(&self.path(), &self.name)? else { return Ok(None) };
        let node = cluster.get(NODES, &self.node)?.unwrap_or_default();
        if label(&node) != Some(EBPF) {
            return Ok(Some(format!("Node {} has not the label {LABEL}={EBPF}", self.node)));
        }
        if leaving_out(&object).is_some() {
            return Ok(Some(format!("DaemonSet {} does not leave out nodes with the label {LABEL}", self.display())));
        }
        let here = ListParams::default().fields(&format!("spec.nodeName={}", self.node));
        let pods = cluster.list(PODS, &here)?;
        let uid = &object["metadata"]["uid"];
        let ours = pods.iter().find(|pod| owners(pod).any(|owner| &owner["uid"] == uid));
        Ok(ours.map(|pod| format!("pod {}/{} is on the node", text(pod, "namespace"), text(pod, "name"))))
    }
}

fn collection(namespace: &str) -> String {
    format!("/apis/apps/v1/namespaces/{namespace}/daemonsets")
}

fn text<'v>(object: &'v Value, key: &str) -> &'v str {
    object["metadata"][key].as_str().unwrap_or("?")
}

fn label(node: &Value) -> Option<&str> {
    node["metadata"]["labels"][LABEL].as_str()
}

fn owners(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["metadata"]["ownerReferences"].as_array().into_iter().flatten()
}

/// Whose a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A DaemonSet's.
    DaemonSet {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Something else's, or nobody's; its own name.
    Other(String),
}

/// Whose the pod of a node with this uid is; `None`: there is no such pod.
pub(super) fn owner_of_pod(cluster: &Cluster, node: &str, uid: &str) -> Result<Option<Owner>, ClusterError> {
    let pods = cluster.list(PODS, &ListParams::default().fields(&format!("spec.nodeName={node}")))?;
    let Some(pod) = pods.iter().find(|pod| text(pod, "uid") == uid) else { return Ok(None) };
    let namespace = text(pod, "namespace").to_owned();
    let owner = owners(pod).find(|owner| owner["kind"] == "DaemonSet").and_then(|owner| owner["name"].as_str());
    Ok(Some(match owner {
        Some(name) => Owner::DaemonSet { namespace, name: name.to_owned() },
        None => Owner::Other(format!("{namespace}/{}", text(pod, "name"))),
    }))
}

/// Who would take a change of the DaemonSet back.
fn manager(object: &Value) -> Option<String> {
    let meta = &object["metadata"];
    let (labels, annotations) = (&meta["labels"], &meta["annotations"]);
    match labels["addonmanager.kubernetes.io/mode"].as_str() {
        Some("Reconcile") => {
            return Some("the add-on manager (label addonmanager.kubernetes.io/mode: Reconcile)".to_owned());
        }
        None if labels["kubernetes.io/cluster-service"] == "true" => {
            return Some("the add-on manager (label kubernetes.io/cluster-service: true)".to_owned());
        }
        _ => {}
    }
    for (kind, set, key) in [
        ("label", labels, "resources.gardener.cloud/managed-by"),
        ("label", labels, "k0s.k0sproject.io/stack"),
        ("label", labels, "kustomize.toolkit.fluxcd.io/name"),
        ("label", labels, "helm.toolkit.fluxcd.io/name"),
        ("label", labels, "argocd.argoproj.io/instance"),
        ("annotation", annotations, "argocd.argoproj.io/tracking-id"),
    ] {
        if let Some(value) = set[key].as_str() {
            return Some(format!("its manager ({kind} {key}: {value})"));
        }
    }
    let fields = meta["managedFields"].as_array().into_iter().flatten();
    let eks = fields.filter_map(|field| field["manager"].as_str()).find(|name| *name == "eks");
    eks.map(|_| "the EKS add-on kube-proxy (field manager eks)".to_owned())
}

/// What a patch of the template does to the pods on other nodes.
fn followers(object: &Value) -> String {
    let strategy = &object["spec"]["updateStrategy"];
    if strategy["type"] == "OnDelete" {
        return "its pods on other nodes stay as they are".to_owned();
    }
    let most = &strategy["rollingUpdate"]["maxUnavailable"];
    let most = most.as_str().map_or_else(|| most.as_u64().unwrap_or(1).to_string(), str::to_owned);
    format!("its pods on the other nodes are replaced, {most} at a time, once; their rules stay")
}

const REQUIRED: &str = "/spec/template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";

/// The terms one of which a node has to meet.
fn terms(object: &Value) -> Vec<Value> {
    let required = object.pointer(REQUIRED);
    required.and_then(|required| required["nodeSelectorTerms"].as_array()).cloned().unwrap_or_default()
}

fn expressions(term: &Value) -> &[Value] {
    term["matchExpressions"].as_array().map_or(&[], Vec::as_slice)
}

/// A term without conditions is met by no node.
fn is_empty(term: &Value) -> bool {
    expressions(term).is_empty() && term["matchFields"].as_array().is_none_or(Vec::is_empty)
}

fn exclusion() -> Value {
    json!({ "key": LABEL, "operator": "DoesNotExist" })
}

/// Whether an expression is not met by a labelled node.
fn excludes(expression: &Value) -> bool {
    let values = || expression["values"].as_array().into_iter().flatten();
    expression["key"] == LABEL
        && match expression["operator"].as_str() {
            Some("DoesNotExist") => true,
            Some("NotIn") => values().any(|value| value == EBPF),
            Some("In") => values().all(|value| value != EBPF),
            _ => false,
        }
}

/// The patch that makes a DaemonSet leave out labelled nodes; `None`: it does.
fn leaving_out(object: &Value) -> Option<Value> {
    let mut terms = terms(object);
    if !terms.is_empty() && terms.iter().all(|term| is_empty(term) || expressions(term).iter().any(excludes)) {
        return None;
    }
    if terms.is_empty() {
        terms.push(json!({}));
        terms[0]["matchExpressions"] = json!([exclusion()]);
    } else {
        for term in terms.iter_mut().filter(|term| !is_empty(term)) {
            let mut all = expressions(term).to_vec();
            if !all.iter().any(excludes) {
                all.push(exclusion());
            }
            term["matchExpressions"] = all.into();
        }
    }
    let mut patch = meta("annotations", ADDED, Some("true"));
    patch["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] =
        terms.into();
    Some(patch)
}

/// The patch that undoes [`leaving_out`]; `None`: kpx has added nothing.
fn taking_in(object: &Value) -> Option<Value> {
    object["metadata"]["annotations"][ADDED].as_str()?;
    let mut patch = meta("annotations", ADDED, None);
    let exclusion = exclusion();
    let mut kept = Vec::new();
    for mut term in terms(object) {
        let mut all = expressions(&term).to_vec();
        let before = all.len();
        all.retain(|expression| *expression != exclusion);
        if all.len() < before {
            if let (true, Some(term)) = (all.is_empty(), term.as_object_mut()) {
                term.remove("matchExpressions");
            } else {
                term["matchExpressions"] = all.into();
            }
            if is_empty(&term) {
                continue;
            }
        }
        kept.push(term);
    }
    // What has nothing else in it was made by the patch.
    let affinity = &object["spec"]["template"]["spec"]["affinity"];
    let only =
        |of: &Value, key: &str| of.as_object().is_some_and(|map: &Map<String, Value>| map.keys().all(|k| k == key));
    let node_affinity = &affinity["nodeAffinity"];
    let spec = &mut patch["spec"]["template"]["spec"];
    if !kept.is_empty() {
        spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] =
            kept.into();
    } else if !only(node_affinity, "requiredDuringSchedulingIgnoredDuringExecution") {
        spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = Value::Null;
    } else if !only(affinity, "nodeAffinity") {
        spec["affinity"]["nodeAffinity"] = Value::Null;
    } else {
        spec["affinity"] = Value::Null;
    }
    Some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A DaemonSet with this affinity; `null`: with none.
    fn set(affinity: &Value) -> Value {
        let mut set = json!({ "metadata": { "name": "kube-proxy" }, "spec": { "template": { "spec": { "hostNetwork": true } } } });
        if !affinity.is_null() {
            set["spec"]["template"]["spec"]["affinity"] = affinity.clone();
        }
        set
    }

    fn required(terms: &Value) -> Value {
        json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } })
    }

    #[test]
    fn what_is_added_to_an_affinity_goes_again_and_nothing_else() {
        let linux = json!({ "key": "kubernetes.io/os", "operator": "In", "values": ["linux"] });
        let preferred = json!([{ "weight": 1, "preference": { "matchExpressions": [linux] } }]);
        let mut beside = required(&json!([{ "matchExpressions": [linux] }]));
        beside["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = preferred.clone();
        beside["podAntiAffinity"] = json!({});
        for affinity in [
            Value::Null,
            json!({ "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [] } }),
            json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": preferred } }),
            required(&json!([{ "matchExpressions": [linux] }, { "matchFields": [{ "key": "metadata.name" }] }])),
            beside,
        ] {
            let before = set(&affinity);
            let mut now = before.clone();
            let patch = leaving_out(&now).expect("labelled nodes are not left out");
            json_patch::merge(&mut now, &patch);
            assert_eq!(leaving_out(&now), None, "once is enough: {now}");
            assert!(terms(&now).iter().all(|term| expressions(term).iter().any(excludes)), "every term: {now}");
            let back = taking_in(&now).expect("something was added");
            json_patch::merge(&mut now, &back);
            now["metadata"].as_object_mut().unwrap().remove("annotations");
            assert_eq!(now, before);
            assert_eq!(taking_in(&now), None);
        }
    }

    #[test]
    fn an_affinity_of_the_operators_own_stays() {
        let own = set(&required(&json!([{ "matchExpressions": [exclusion()] }])));
        assert_eq!((leaving_out(&own), taking_in(&own)), (None, None));
        let not_in = json!({ "key": LABEL, "operator": "NotIn", "values": ["ebpf", "none"] });
        assert_eq!(leaving_out(&set(&required(&json!([{ "matchExpressions": [not_in] }])))), None);
    }

    #[test]
    fn a_term_that_no_node_meets_is_not_widened() {
        let empty = set(&required(&json!([{}, { "matchExpressions": [{ "key": "a", "operator": "Exists" }] }])));
        let patch = leaving_out(&empty).expect("the second term has to");
        let terms = patch.pointer(REQUIRED).unwrap()["nodeSelectorTerms"].clone();
        assert_eq!(terms[0], json!({}));
        assert_eq!(terms[1]["matchExpressions"][1], exclusion());
    }

    #[test]
    fn whoever_would_take_a_change_back_is_named() {
        let with = |kind: &str, key: &str, value: &str| {
            let mut set = set(&Value::Null);
            set["metadata"][kind][key] = value.into();
            manager(&set)
        };
        assert!(with("labels", "addonmanager.kubernetes.io/mode", "Reconcile").unwrap().contains("Reconcile"));
        assert_eq!(with("labels", "addonmanager.kubernetes.io/mode", "EnsureExists"), None);
        assert!(with("annotations", "argocd.argoproj.io/tracking-id", "net").unwrap().contains("argocd"));
        let mut eks = set(&Value::Null);
        eks["metadata"]["managedFields"] = json!([{ "manager": "eks", "operation": "Apply" }]);
        assert!(manager(&eks).unwrap().contains("EKS"));
        assert_eq!(manager(&set(&Value::Null)), None);
    }
}
