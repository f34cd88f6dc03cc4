//! The manifests in `deploy/` are what Kubernetes takes, and give the agent the rights it uses and no others.

use std::collections::BTreeSet;
use std::path::Path;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kpx::capture::command;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::api::{service, slice};
use super::rig::{Rig, health};
use crate::dataplane::ground::Ground;
use crate::dataplane::server::Server;

const WEB: &str = "10.96.0.10:80";

fn deploy(name: &str) -> String {
    fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)).expect("it is there")
}

/// The documents of a manifest, by kind.
fn document(kind: &str) -> Value {
    let text = deploy("kpx-agent.yaml");
    let documents = text.split("\n---\n").map(|part| serde_saphyr::from_str::<Value>(part).expect("YAML"));
    documents.into_iter().find(|document| document["kind"] == kind).expect("a document of that kind")
}

/// What the container of the DaemonSet may.
fn security() -> Value {
    document("DaemonSet")["spec"]["template"]["spec"]["containers"][0]["securityContext"].clone()
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
    let security = security();
    let added = security["capabilities"]["add"].as_array().expect("a list");
    assert_eq!(of_unit, added.iter().filter_map(Value::as_str).collect());
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).expect("a command");
    kpx::cmd::parse(start.split(' ').map(Into::into)).expect("a command line of kpx");
}

#[test]
fn the_agent_serves_with_the_rights_of_its_container_and_no_others() {
    Ground::with(|ground| {
        let _a = Server::start("a", "127.0.0.1:8080");
        let rig = Rig::new(ground);
        rig.api.put(service("web", "10.96.0.10", 80, "TCP"));
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]));
        let security = security();
        assert_eq!(
            (&security["readOnlyRootFilesystem"], &security["allowPrivilegeEscalation"]),
            (&json!(true), &json!(false))
        );
        let names: Vec<String> = serde_json::from_value(security["capabilities"]["add"].clone()).expect("names");
        let (rig, agent) = rig.start_confined(&names);
        rig.until_healthy();
        // The kernel says what it may, and what it may not.
        let status = fs_err::read_to_string(format!("/proc/{}/status", agent.pid())).expect("it runs");
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).expect("a line");
        let bit = |name: &String| format!("CAP_{name}").parse::<caps::Capability>().expect("a capability").bitmask();
        let wanted = names.iter().map(bit).fold(0, |all, bit| all | bit);
        assert_eq!(u64::from_str_radix(effective, 16), Ok(wanted));
        let inside = format!("--target={}", agent.pid());
        for path in ["/kpx", "/proc/sys/net/core/somaxconn"] {
            let touched = command::output("nsenter", [&inside, "--mount", "touch", path], None);
            let refused = touched.expect_err("it is read-only").to_string();
            assert!(refused.contains("Read-only"), "{path}: {refused}");
        }
        assert!(ground.agent().ask(format!("tcp {WEB}")).contains(" a "));
        assert_eq!(health("/healthz").map(|(_, body)| body["conditions"].clone()), Some(json!({})), "{}", rig.log());
    });
}
