//! Who runs kube-proxy on this node, by what shows it: its process and cgroup, the kubelet's manifests, the API.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use fs_err as fs;

use super::cluster::Cluster;
use super::daemon_set::{self, DaemonSet, Owner};
use super::manifest::{self, StaticPod};
use super::process::Bare;
use super::unit::{self, Unit};
use super::{DriverError, ProxyDriver};
use crate::capture::{Captured, Item, Listener, Node, NodeOptions, Process};
use crate::error::with_causes;

/// How a driver is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// By what is found on the node.
    #[default]
    Evidence,
    /// By its name on the command line.
    Named(Named),
    /// It is known already.
    Given(ProxyDriver),
}

/// A driver by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// `operator`
    Operator,
    /// `daemonset`, or `daemonset=NAMESPACE/NAME`
    DaemonSet(String, String),
    /// `static-pod`, or `static-pod=FILE`
    StaticPod(Option<PathBuf>),
    /// `systemd`, or `systemd=UNIT`
    Systemd(String),
    /// `process`
    Process,
}

/// The name is no driver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give one of daemonset[=NAMESPACE/NAME], static-pod[=FILE], systemd[=UNIT], process, operator")]
pub struct NoDriver;

impl FromStr for Named {
    type Err = NoDriver;

    fn from_str(text: &str) -> Result<Self, NoDriver> {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        Ok(match (name, value) {
            ("operator", None) => Self::Operator,
            ("process", None) => Self::Process,
            ("daemonset", value) => {
                let (namespace, name) = value.unwrap_or("kube-system/kube-proxy").split_once('/').ok_or(NoDriver)?;
                Self::DaemonSet(namespace.to_owned(), name.to_owned())
            }
            ("static-pod", value) => Self::StaticPod(value.map(PathBuf::from)),
            ("systemd", value) => Self::Systemd(value.unwrap_or("kube-proxy.service").to_owned()),
            _ => return Err(NoDriver),
        })
    }
}

/// Who runs kube-proxy, as far as it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What stops it.
    pub driver: ProxyDriver,
    /// What shows that.
    pub evidence: Vec<String>,
    /// Whether kpx can do it.
    pub verdict: Verdict,
}

/// Whether kpx can stop kube-proxy on this node alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it.
    #[default]
    Fine,
    /// It is not known how.
    Unknown {
        /// Why.
        why: String,
        /// What to do about it.
        remedy: String,
    },
    /// It cannot be done by anybody on this node alone, or would not last.
    Refused {
        /// Why.
        why: String,
        /// What to do about it.
        remedy: String,
    },
    /// Somebody would undo it.
    Reverted {
        /// Who.
        by: String,
    },
}

/// Looks who runs kube-proxy.
pub(in crate::migrate) fn find(node: &Node, choice: &Choice) -> Found {
    let named = match choice {
        Choice::Given(driver) => return Found { driver: driver.clone(), ..Found::default() },
        Choice::Evidence => return by_evidence(node),
        Choice::Named(named) => named,
    };
    let evidence = vec!["named on the command line".to_owned()];
    let pid = || processes(node).into_iter().find(is_it).map(|process| process.pid);
    let found = match named {
        Named::Operator => Ok(Found::default()),
        Named::DaemonSet(namespace, name) => look(node, namespace, name),
        Named::StaticPod(Some(manifest)) => {
            Ok(Found::of(ProxyDriver::StaticPod(StaticPod { manifest: manifest.clone() })))
        }
        Named::StaticPod(None) => static_pod(node),
        Named::Systemd(unit) => Unit::named(unit).map(|found| match found {
            Ok(unit) => Found::of(ProxyDriver::Systemd(unit)),
            Err(why) => Found::refused(format!("{unit}: {why}"), COMMANDS),
        }),
        Named::Process => Ok(match pid().map(Bare::of) {
            Some(Ok(bare)) => Found::of(ProxyDriver::Process(bare)),
            Some(Err(why)) => Found::refused(why, COMMANDS),
            None => Found::refused("no process called kube-proxy is in this network namespace", COMMANDS),
        }),
    };
    let found = found.unwrap_or_else(|error| {
        let remedy = if matches!(error, DriverError::Cluster(_)) { API } else { COMMANDS };
        Found::refused(with_causes(&error), remedy)
    });
    Found { evidence: [evidence, found.evidence].concat(), ..found }
}

const COMMANDS: &str =
    "say how it is stopped and started: --stop-command CMD --start-command CMD; or stop it yourself: --driver operator";
const API: &str =
    "give a kubeconfig that may read and patch it (--kubeconfig FILE), or stop it yourself: --driver operator";
const HOLD: &str = "; or leave it running and go no further than phase hold: --driver operator, --until hold";

impl Found {
    fn of(driver: ProxyDriver) -> Self {
        Self { driver, ..Self::default() }
    }

    fn refused(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Refused { why: why.into(), remedy: remedy.into() }, ..Self::default() }
    }

    fn unknown(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Unknown { why: why.into(), remedy: remedy.into() }, ..Self::default() }
    }
}

fn is_it(process: &Process) -> bool {
    process.name == "kube-proxy"
}

/// Processes of the kind that have to do with Services: of this network namespace, or the recorded ones.
pub(in crate::migrate) fn processes(node: &Node) -> Vec<Process> {
    let all: Vec<Process> = read(node, Item::Processes).unwrap_or_default();
    if node.is_live() { all.into_iter().filter(|process| is_here(process.pid)).collect() } else { all }
}

/// Whether a process called kube-proxy is in this thread's network namespace.
pub fn kube_proxy_runs() -> bool {
    Node::open(&NodeOptions::default()).is_ok_and(|node| processes(&node).iter().any(is_it))
}

fn read<T: serde::de::DeserializeOwned>(node: &Node, item: Item) -> Option<T> {
    match node.read(item) {
        Ok(Captured::Present { bytes, .. }) => serde_json::from_slice(&bytes).ok(),
        _ => None,
    }
}

/// Whether a process is in this thread's network namespace.
pub(in crate::migrate) fn is_here(pid: u32) -> bool {
    let of = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let here = of(Path::new("/proc/thread-self/ns/net"));
    here.is_some() && of(Path::new(&format!("/proc/{pid}/ns/net"))) == here
}

fn by_evidence(node: &Node) -> Found {
    let processes = processes(node);
    if let Some(process) = processes.iter().find(|process| is_it(process)) {
        let shown = match &process.cgroup {
            Some(cgroup) => format!("process {} is called kube-proxy, in cgroup {cgroup}", process.pid),
            None => format!("process {} is called kube-proxy", process.pid),
        };
        let found =
            of_process(node, process, &processes).unwrap_or_else(|error| Found::unknown(with_causes(&error), API));
        return Found { evidence: [vec![shown], found.evidence].concat(), ..found };
    }
    let listeners: Vec<Listener> = read(node, Item::Listeners).unwrap_or_default();
    let on_its_ports = listeners.iter().filter(|listener| matches!(listener.port, 10249 | 10256));
    for listener in on_its_ports {
        let program = listener.program.as_deref().unwrap_or_default();
        let shown =
            format!("{program} (process {}) listens on port {}", listener.pid.unwrap_or_default(), listener.port);
        let found = if program.starts_with("k3s") {
            inside(
                "k3s",
                "give disable-kube-proxy: true to k3s on every server (/etc/rancher/k3s/config.yaml, or --disable-kube-proxy) \
                           and start k3s again on servers and agents",
            )
        } else if program.starts_with("kubelite") {
            inside(
                "MicroK8s",
                "no option of kubelite is known to leave it out (it reads /var/snap/microk8s/current/args/kube-proxy)",
            )
        } else if program.starts_with("rke2") || program.starts_with("hyperkube") {
            inside(program, "see its documentation for an option that leaves kube-proxy out")
        } else {
            continue;
        };
        return Found { evidence: vec![shown], ..found };
    }
    if matches!(node.read(Item::ProxyMode), Ok(Captured::Present { .. })) {
        let shown = "port 10249 answers, and no process called kube-proxy is seen".to_owned();
        return Found { evidence: vec![shown], ..Found::default() };
    }
    Found { evidence: vec!["no kube-proxy is seen".to_owned()], ..Found::default() }
}

/// kube-proxy is a part of another program.
fn inside(program: &str, remedy: &str) -> Found {
    Found::refused(
        format!("kube-proxy is a part of {program} here and cannot be stopped alone"),
        format!("{remedy}{HOLD}"),
    )
}

fn of_process(node: &Node, process: &Process, beside: &[Process]) -> Result<Found, DriverError> {
    let runs = |name: &str| beside.iter().any(|process| process.name == name);
    let cgroup = process.cgroup.as_deref().unwrap_or_default();
    match pod_of(cgroup) {
        Some(_) if runs("rke2") => {
            return Ok(Found::refused(
                "RKE2 writes kube-proxy's manifest anew whenever it starts",
                format!(
                    "give disable-kube-proxy: true to RKE2 on every server (/etc/rancher/rke2/config.yaml) and start it again{HOLD}"
                ),
            ));
        }
        Some(_) if runs("k0s") => {
            return Ok(Found::refused(
                "k0s applies kube-proxy's DaemonSet anew",
                format!("set spec.network.kubeProxy.disabled: true in k0s's configuration{HOLD}"),
            ));
        }
        Some(pod) if !node.is_live() => {
            let kind = if pod.is_static { "a static pod" } else { "a pod of the API's" };
            return Ok(Found::unknown(
                format!("it is {kind}, and which one is looked up on the node itself"),
                "plan on the node",
            ));
        }
        Some(Pod { is_static: true, .. }) => return static_pod(node),
        Some(Pod { uid, .. }) => return of_pod(node, &uid),
        None if !node.is_live() => {
            return Ok(Found::unknown("who runs it is looked up on the node itself", "plan on the node"));
        }
        None => {}
    }
    if let Some(unit) = unit::in_cgroup(cgroup) {
        match Unit::of_process(unit, process.pid)? {
            Some(Ok(unit)) => {
                let evidence = vec![format!("systemd names it the main process of {}", unit.unit)];
                return Ok(Found { evidence, ..Found::of(ProxyDriver::Systemd(unit)) });
            }
            Some(Err(why)) => return Ok(Found::unknown(format!("{unit}: {why}"), COMMANDS)),
            None => {}
        }
    }
    Ok(match Bare::of(process.pid) {
        Ok(bare) => {
            let evidence = vec!["its cgroup is no pod's and no unit's".to_owned()];
            Found { evidence, ..Found::of(ProxyDriver::Process(bare)) }
        }
        Err(why) => Found::unknown(why, COMMANDS),
    })
}

fn static_pod(node: &Node) -> Result<Found, DriverError> {
    let kubelet = processes(node).into_iter().find(|process| process.name == "kubelet");
    let (folder, by) = match kubelet.as_ref().and_then(|kubelet| manifest::folder(&kubelet.flags)) {
        Some(folder) => (folder, "the kubelet reads"),
        None => (PathBuf::from("/etc/kubernetes/manifests"), "the kubelet usually reads"),
    };
    Ok(match manifest::find_in(&folder)? {
        Some(manifest) => {
            let evidence = vec![format!("{} runs it, in a folder that {by}", manifest.display())];
            Found { evidence, ..Found::of(ProxyDriver::StaticPod(StaticPod { manifest })) }
        }
        None => Found::unknown(
            format!("it is a static pod, and no manifest in {} runs it", folder.display()),
            "name the manifest: --driver static-pod=FILE; or stop it yourself: --driver operator",
        ),
    })
}

fn of_pod(node: &Node, uid: &str) -> Result<Found, DriverError> {
    let cluster = Cluster::of(node)?;
    match daemon_set::owner_of_pod(&cluster, node.node_name(), uid)? {
        Some(Owner::DaemonSet { namespace, name }) => {
            let found = look(node, &namespace, &name)?;
            let shown = format!("pod {uid} belongs to DaemonSet {namespace}/{name}");
            Ok(Found { evidence: [vec![shown], found.evidence].concat(), ..found })
        }
        Some(Owner::Other(pod)) => Ok(Found::unknown(format!("pod {pod} belongs to no DaemonSet"), COMMANDS)),
        None => Ok(Found::unknown(
            format!("the API has no pod {uid} on Node {}", node.node_name()),
            "name the node (--node-name NAME), or the DaemonSet (--driver daemonset=NAMESPACE/NAME)",
        )),
    }
}

fn look(node: &Node, namespace: &str, name: &str) -> Result<Found, DriverError> {
    let cluster = Cluster::of(node)?;
    let Some((set, manager)) = DaemonSet::look(&cluster, namespace, name, node.node_name())? else {
        return Ok(Found::refused(format!("the API has no DaemonSet {namespace}/{name}"), COMMANDS));
    };
    // Who has the affinity in the manifest is not in anybody's way.
    let verdict = match manager.filter(|_| set.patch.is_some()) {
        Some(by) => Verdict::Reverted { by },
        None => Verdict::Fine,
    };
    Ok(Found { verdict, ..Found::of(ProxyDriver::DaemonSet(set)) })
}

/// A pod by its cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pod {
    /// As the API writes it.
    uid: String,
    /// Whether the kubelet made it of a manifest: such a uid is a hash without dashes.
    is_static: bool,
}

/// The pod that a cgroup is of: `…/pod<uid>/…` by cgroupfs, `…-pod<uid with _>.slice/…` by systemd.
fn pod_of(cgroup: &str) -> Option<Pod> {
    cgroup.split('/').find_map(|part| {
        let part = part.strip_suffix(".slice").unwrap_or(part);
        let uid = part.rsplit_once("-pod").map(|(_, uid)| uid).or_else(|| part.strip_prefix("pod"))?;
        let uid = uid.replace('_', "-");
        let hex = uid.bytes().filter(u8::is_ascii_hexdigit).count();
        let dashes = uid.bytes().filter(|b| *b == b'-').count();
        let whole = hex == 32 && hex + dashes == uid.len() && matches!(dashes, 0 | 4);
        whole.then_some(Pod { uid, is_static: dashes == 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_known_by_its_cgroup() {
        let uid = "6f1c2b3a-0d4e-4f5a-8b6c-7d8e9f0a1b2c";
        let systemd = format!(
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{}.slice/cri-containerd-00.scope",
            uid.replace('-', "_")
        );
        let pod = Some(Pod { uid: uid.to_owned(), is_static: false });
        assert_eq!(pod_of(&systemd), pod);
        assert_eq!(pod_of(&format!("/kubepods/burstable/pod{uid}/0123")), pod);
        // Seen from a cgroup namespace of its own.
        assert_eq!(pod_of(&format!("/../../pod{uid}/0123")), pod);
        let hash = "0123456789abcdef0123456789abcdef";
        let made = Some(Pod { uid: hash.to_owned(), is_static: true });
        assert_eq!(pod_of(&format!("/kubepods.slice/kubepods-pod{hash}.slice/crio-1.scope")), made);
        for other in ["/", "/system.slice/podman.service", "/machine.slice/libpod-0123.scope", "/kubepods/podx"] {
            assert_eq!(pod_of(other), None, "{other}");
        }
    }

    #[test]
    fn drivers_have_names() {
        let named = |text: &str| text.parse::<Named>();
        assert_eq!(named("daemonset"), Ok(Named::DaemonSet("kube-system".into(), "kube-proxy".into())));
        assert_eq!(named("daemonset=net/proxy"), Ok(Named::DaemonSet("net".into(), "proxy".into())));
        assert_eq!(named("static-pod=/a/b"), Ok(Named::StaticPod(Some("/a/b".into()))));
        assert_eq!(named("systemd=proxy.service"), Ok(Named::Systemd("proxy.service".into())));
        assert!(named("daemonset=proxy").is_err() && named("process=1").is_err() && named("").is_err());
    }
}
