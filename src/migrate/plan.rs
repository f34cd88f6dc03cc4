//! The plan: a plain value that says what a migration of one node would do, and whether it may.
//!
//! It is made from a [`Survey`](super::Survey) without touching the node, printed, saved, compared and applied. Two plans
//! of a node that did not change are equal: nothing in it depends on the time or on counters.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::driver::{Choice, ProxyDriver};
use super::marks::Marks;
use super::phase::PhaseName;
use super::store::{StoreError, write_durably};
use crate::inspect::proxy_rules::RulesMode;
use crate::model::{Exposure, Protocol};

/// Version of the plan's format; raised when an older kpx could misread a newer plan.
const VERSION: u32 = 2;
const API_VERSION: &str = "kpx.dev/v1";
const KIND: &str = "MigrationPlan";

/// What a migration would do to one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Plan {
    /// `kpx.dev/v1`.
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// `MigrationPlan`.
    pub kind: String,
    /// Version of the format.
    pub version: u32,
    /// The node.
    pub node: NodeId,
    /// Hashes of what the plan was made from.
    pub inputs: Inputs,
    /// What serves now.
    pub source: Source,
    /// What will serve.
    pub target: Target,
    /// The phases in order.
    pub phases: Vec<PlannedPhase>,
    /// The counts line, in numbers.
    pub counts: Counts,
    /// Why it may not be applied; empty: it may.
    pub blockers: Vec<Blocker>,
    /// What to know before.
    pub warnings: Vec<Warning>,
    /// What holds while the rules stay.
    pub coexistence: Vec<String>,
    /// The bits of the mark that are set aside; none where none are free.
    #[serde(default)]
    pub marks: Option<Marks>,
    /// How kube-proxy is stopped and started.
    #[serde(default)]
    pub driver: ProxyDriver,
    /// What shows that it is that one.
    #[serde(default)]
    pub driver_evidence: Vec<String>,
    /// What is accepted by name.
    #[serde(default)]
    pub accept: Vec<Accept>,
    /// Each frontend and who serves it.
    #[serde(rename = "items")]
    pub frontends: Vec<PlannedFrontend>,
}

/// What may be accepted though it is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Accept {
    /// No agent follows the API once kube-proxy is gone: endpoints that change reach nobody
    NoAgent,
    /// Who manages kube-proxy's DaemonSet may take kpx's change back: kube-proxy would write rules again
    ManagedDaemonset,
    /// eBPF follows Local policies as the API asks for, which kube-proxy in ipvs mode does not: frontends that the plan names get
    /// other endpoints for new connections, or none
    IpvsPolicies,
    /// Connections through IPVS that nobody else can carry are cut if they have not ended after --drain-timeout
    CutConnections,
}

/// What an operator decides about a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// How it is chosen how kube-proxy is stopped and started.
    pub driver: Choice,
    /// What is accepted.
    pub accept: Vec<Accept>,
}

/// Which node a plan is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeId {
    /// Name of the Node object.
    pub name: String,
    /// Boot id; `None` where a snapshot does not say.
    pub boot_id: Option<String>,
    /// Inode of the network namespace; `None` for a snapshot.
    pub netns: Option<u64>,
}

/// Hashes of what a plan was made from, by what they are of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Inputs(pub BTreeMap<String, String>);

/// What serves now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// `kube-proxy iptables (nft)` and the like.
    pub dataplane: String,
    /// The mode of the rules; none where there are none.
    #[serde(default)]
    pub mode: Option<RulesMode>,
    /// Rules of kube-proxy by family, as they stand now.
    pub rules: BTreeMap<String, usize>,
    /// What is known of the kube-proxy process.
    pub kube_proxy: String,
}

/// What will serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `eBPF sockets`.
    pub dataplane: String,
    /// cgroup whose sockets are served.
    pub cgroup: String,
    /// Directory of the pins.
    pub pins: String,
}

/// One phase of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPhase {
    /// Its name.
    pub phase: PhaseName,
    /// What it is for.
    pub summary: String,
    /// Its steps in order.
    pub steps: Vec<PlannedStep>,
    /// What must hold behind it.
    pub gate: Option<String>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Its id.
    pub step: String,
    /// What it will do.
    pub text: String,
}

/// Who serves a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Server {
    /// kube-proxy's rules.
    Rules,
    /// The socket hooks for new connections of this node's sockets; the rules for all other traffic.
    Ebpf,
    /// eBPF for everything new: the socket hooks, and the packet path for what they do not see.
    #[serde(rename = "ebpf-all")]
    EbpfAll,
}

/// One frontend of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedFrontend {
    /// `namespace/name`.
    pub service: Option<String>,
    /// Name of the Service port.
    pub port_name: Option<String>,
    /// How the Service is exposed.
    #[serde(rename = "kind")]
    pub exposure: Exposure,
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Who serves it after each phase.
    pub served_by: BTreeMap<PhaseName, Server>,
    /// Why it stays with the rules; `None` when it does not.
    pub reason: Option<String>,
    /// Hash of how its packets are treated.
    pub hash: String,
}

/// The counts line, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Frontends that the socket hooks will serve.
    pub to_ebpf: usize,
    /// Frontends that they will not.
    pub stay: usize,
    /// Programs to attach to sockets.
    pub programs: usize,
    /// Rules to delete.
    pub rules_to_delete: usize,
}

/// Why a plan may not be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// Which.
    pub id: BlockerId,
    /// What is wrong, a clause.
    pub reason: String,
    /// Each thing that is wrong: the first few, and a count of the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// What to do about it.
    pub remedy: String,
}

/// The reasons a plan can be blocked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockerId {
    /// There are no API objects to compare with.
    NoApi,
    /// kube-proxy runs in another mode.
    Mode,
    /// There are no rules of kube-proxy.
    NoRules,
    /// The other iptables variant holds rules of kube-proxy too.
    OtherVariant,
    /// Rules that kpx does not understand are in kube-proxy's chains.
    UnknownRules,
    /// kube-proxy is behind, or says that it is not healthy.
    ProxyStale,
    /// API and rules treat some packet differently.
    TablesDiffer,
    /// kube-proxy does something else than the API asks for, and eBPF would not.
    IpvsPolicies,
    /// Two Services claim an address that the hooks would serve.
    ConflictingAddresses,
    /// Another owner's program would translate before ours.
    ForeignHook,
    /// This process may not do what is needed.
    Capabilities,
    /// There is no usable cgroup2 directory.
    Cgroup,
    /// There is no bpf file system for the pins.
    Bpffs,
    /// No bits of the mark are free.
    Marks,
    /// kube-proxy cannot be stopped on this node alone, or would come back.
    KubeProxy,
    /// A migration is unfinished or in force.
    MigrationOpen,
}

impl BlockerId {
    /// Whether it is about kube-proxy or its rules.
    pub const fn is_about_rules(self) -> bool {
        matches!(
            self,
            Self::Mode
                | Self::NoRules
                | Self::OtherVariant
                | Self::UnknownRules
                | Self::ProxyStale
                | Self::TablesDiffer
                | Self::IpvsPolicies
                | Self::Marks
                | Self::KubeProxy
        )
    }
}

/// What to know before a plan is applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// The text.
    pub text: String,
    /// Each thing it is about: the first few, and a count of the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

impl Plan {
    /// What a plan of this kpx calls itself, for messages.
    pub fn describe_version() -> String {
        format!("{API_VERSION} {KIND} version {VERSION}")
    }

    /// What the operator decided about it.
    pub fn wishes(&self) -> Wishes {
        Wishes { driver: Choice::Given(self.driver.clone()), accept: self.accept.clone() }
    }

    /// Whether it may not be applied.
    pub fn is_blocked(&self) -> bool {
        !self.blockers.is_empty()
    }

    /// The counts line.
    pub fn counts_line(&self) -> String {
        let Counts { to_ebpf, stay, programs, rules_to_delete } = self.counts;
        format!(
            "Plan: {to_ebpf} frontends to eBPF sockets and {stay} to the packet path alone, {programs} programs to \
             attach to sockets, {rules_to_delete} rules to delete"
        )
    }

    /// The JSON of a plan file.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a plan has string keys and no failing serialiser");
        text.push('\n');
        text
    }

    /// Reads a plan file.
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        #[derive(Deserialize)]
        struct Header {
            #[serde(rename = "apiVersion", default)]
            api_version: String,
            #[serde(default)]
            kind: String,
            #[serde(default)]
            version: u32,
        }
        let text =
            fs::read(path).map_err(|source| StoreError::Io { action: "read plan", path: path.to_owned(), source })?;
        let bad = |source| StoreError::Plan { path: path.to_owned(), source };
        let header: Header = serde_json::from_slice(&text).map_err(bad)?;
        // A plan of version 1 has fewer phases' words, and what it lacks is as it was then.
        let known = (1..=VERSION).contains(&header.version);
        if (header.api_version.as_str(), header.kind.as_str()) != (API_VERSION, KIND) || !known {
            let found = format!("{} {} version {}", header.api_version, header.kind, header.version);
            return Err(StoreError::PlanVersion { path: path.to_owned(), found });
        }
        serde_json::from_slice(&text).map_err(bad)
    }

    /// Writes a plan file.
    pub fn write(&self, path: &Path) -> Result<(), StoreError> {
        write_durably(path, self.to_json().as_bytes())
    }

    /// What changed on the node between this plan and `now`, a plan made of it later; empty: nothing.
    pub fn changes(&self, now: &Self) -> Vec<String> {
        let mut out = Vec::new();
        let word = |v: Option<String>| v.unwrap_or_else(|| "unknown".to_owned());
        let facts = [
            ("node", Some(self.node.name.clone()), Some(now.node.name.clone())),
            ("boot", self.node.boot_id.clone(), now.node.boot_id.clone()),
            ("network namespace", self.node.netns.map(|n| n.to_string()), now.node.netns.map(|n| n.to_string())),
            ("source", Some(self.source.dataplane.clone()), Some(now.source.dataplane.clone())),
            ("cgroup", Some(self.target.cgroup.clone()), Some(now.target.cgroup.clone())),
            ("directory of the pins", Some(self.target.pins.clone()), Some(now.target.pins.clone())),
        ];
        for (what, then, now) in facts {
            if then != now {
                out.push(format!("{what}: {} then, {} now", word(then), word(now)));
            }
        }
        let keys: std::collections::BTreeSet<_> = self.inputs.0.keys().chain(now.inputs.0.keys()).collect();
        for key in keys {
            match (self.inputs.0.get(key), now.inputs.0.get(key)) {
                (Some(a), Some(b)) if a == b => {}
                (Some(_), Some(_)) => out.push(format!("{key}: changed")),
                (Some(_), None) => out.push(format!("{key}: gone")),
                (None, _) => out.push(format!("{key}: new")),
            }
        }
        out.extend(first_few(self.frontend_changes(now), "frontends"));
        out
    }

    fn frontend_changes(&self, now: &Self) -> Vec<String> {
        let index = |plan: &Self| -> BTreeMap<String, String> {
            plan.frontends.iter().map(|f| (f.describe(), format!("{} {:?}", f.hash, f.reason))).collect()
        };
        let (then, now) = (index(self), index(now));
        let gone = then.keys().filter(|k| !now.contains_key(*k)).map(|k| format!("{k}: gone"));
        let others = now.iter().filter_map(|(k, v)| match then.get(k) {
            None => Some(format!("{k}: new")),
            Some(old) if old != v => Some(format!("{k}: changed")),
            Some(_) => None,
        });
        gone.chain(others).collect()
    }
}

impl PlannedFrontend {
    /// `ns/name:port ClusterIP 10.96.0.10:53/UDP`.
    pub fn describe(&self) -> String {
        let name = self.service.as_deref().unwrap_or("<unknown>");
        let port = self.port_name.as_deref().filter(|p| !p.is_empty()).map(|p| format!(":{p}")).unwrap_or_default();
        let address = std::net::SocketAddr::new(self.ip, self.port);
        format!("{name}{port} {} {address}/{}", self.exposure, self.protocol)
    }

    /// Whether the hooks serve it in the end.
    pub const fn to_ebpf(&self) -> bool {
        self.reason.is_none()
    }
}

/// The first five lines and a count of the rest.
pub(super) fn first_few(mut lines: Vec<String>, noun: &str) -> Vec<String> {
    const SHOWN: usize = 5;
    if lines.len() > SHOWN + 1 {
        let rest = lines.len() - SHOWN;
        lines.truncate(SHOWN);
        lines.push(format!("and {rest} more {noun}"));
    }
    lines
}
