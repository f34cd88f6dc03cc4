//! The manifests in `deploy/` are what Kubernetes takes, and give the agent the rights it uses and no others.

use std::collections::BTreeSet;
use std::path::Path;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::rig::Rig;
use crate::dataplane::ground::Ground;

fn deploy(name: &str) -> String {
    fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)).expect("it is there")
}

/// The documents of a manifest, by kind.
fn document(kind: &str) -> Value {
    let text = deploy("kpx-agent.yaml");
    let documents = text.split("\n---\n").map(|part| serde_saphyr::from_str::<Value>(part).expect("YAML"));
    documents.into_iter().find(|document| document["kind"] == kind).expect("a document of that kind")
}

/// A field that the API does not have would be missing after the way there and back.
fn typed<T: DeserializeOwned + Serialize>(kind: &str) -> T {
    let document = document(kind);
    let typed: T = serde_json::from_value(document.clone()).expect("the fields have their types");
    assert_eq!(serde_json::to_value(&typed).expect("it serialises"), document);
    typed
}

#[test]
fn the_role_allows_what_the_agent_asks_for_and_nothing_else() {
    let role: ClusterRole = typed("ClusterRole");
    let mut allowed = BTreeSet::new();
    for rule in role.rules.expect("rules") {
        assert!(rule.resource_names.is_none() && rule.non_resource_urls.is_none());
        for group in rule.api_groups.expect("groups") {
            for resource in rule.resources.as_ref().expect("resources") {
                let path = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}/v1") };
                allowed.extend(rule.verbs.iter().map(|verb| format!("{verb} {path}/{resource}")));
            }
        }
    }
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        let _agent = rig.start();
        rig.until_healthy();
        let asked = || -> BTreeSet<String> {
            rig.api.requests().into_iter().map(|(verb, path)| format!("{verb} {path}")).collect()
        };
        rig.until("all is asked for", || asked().len() >= allowed.len());
        assert_eq!(asked(), allowed);
        assert_eq!(rig.api.strangers(), [] as [String; 0]);
    });
}

#[test]
fn the_daemon_set_is_one_and_mounts_what_the_agent_looks_for() {
    typed::<ServiceAccount>("ServiceAccount");
    typed::<ClusterRoleBinding>("ClusterRoleBinding");
    let set: DaemonSet = typed("DaemonSet");
    let spec = set.spec.template.spec.expect("a pod");
    let container = &spec.containers[0];
    let mounts: BTreeSet<&str> = container.volume_mounts.iter().flatten().map(|mount| mount.name.as_str()).collect();
    let volumes: BTreeSet<&str> = spec.volumes.iter().flatten().map(|volume| volume.name.as_str()).collect();
    assert_eq!(mounts, volumes);
    let arguments = std::iter::once("kpx".to_owned()).chain(container.args.clone().expect("arguments"));
    kpx::cmd::parse(arguments.map(Into::into)).expect("a command line of kpx");
}

#[test]
fn the_unit_and_the_daemon_set_give_the_same_capabilities() {
    let unit = deploy("kpx-agent.service");
    let bounding = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).expect("a bounding set");
    let of_unit: BTreeSet<&str> = bounding.split(' ').map(|capability| &capability["CAP_".len()..]).collect();
    let set = document("DaemonSet");
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let added = container["securityContext"]["capabilities"]["add"].as_array().expect("a list");
    assert_eq!(of_unit, added.iter().filter_map(Value::as_str).collect());
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).expect("a command");
    kpx::cmd::parse(start.split(' ').map(Into::into)).expect("a command line of kpx");
}
