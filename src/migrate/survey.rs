//! Everything a plan is made from, typed and read once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::driver::{self, Choice, Found};
use super::marks;
use super::plan::{BlockerId, NodeId};
use super::planner::{digest, hash_table};
use super::proxy::ProxyHealth;
use crate::capture::{self, CaptureError, Captured, Item, Node, Variant};
use crate::dataplane::{ForeignHook, Paths, foreign_hooks};
use crate::error::{Hinted, with_causes};
use crate::inspect::proxy_rules::{self, ProxyRules, RulesError, RulesMode};
use crate::inspect::{conntrack, iptables, ipvs, kube};
use crate::model::{Difference, Family, ServiceTable, diff};

/// The state of one node, as a plan needs it.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Which node.
    pub node: NodeId,
    /// What the API objects mean for it; `Err` says why there are none.
    pub api: Result<Lifted, String>,
    /// What its rules mean; `Err` says why there are none.
    pub rules: Result<Rules, String>,
    /// Bits of the mark that rules use.
    pub used_marks: u32,
    /// Whether a table of nftables has a chain at hook forward that drops by its policy.
    pub forward_drops_in_nftables: bool,
    /// Hashes of raw inputs, by what they are of.
    pub hashes: BTreeMap<String, String>,
    /// kube-proxy, as far as it answers.
    pub proxy: ProxyHealth,
    /// Who runs it, and whether it can be stopped here alone.
    pub run_by: Found,
    /// The host; `None` for a snapshot.
    pub host: Option<Host>,
    /// cgroup whose sockets are to be served.
    pub cgroup: PathBuf,
    /// Directory of the pins.
    pub pins: PathBuf,
    /// The migration that is under way or in force.
    pub open_migration: Option<OpenMigration>,
}

/// A table with what its reader had to say.
#[derive(Clone, Debug, Default)]
pub struct Lifted {
    /// The table.
    pub table: ServiceTable,
    /// Remarks of the reader.
    pub notices: Vec<String>,
}

/// kube-proxy's rules.
#[derive(Clone, Debug)]
pub struct Rules {
    /// In which mode they were written.
    pub mode: RulesMode,
    /// What they mean.
    pub table: ServiceTable,
    /// Rules of kube-proxy by family.
    pub counts: BTreeMap<Family, usize>,
    /// Remarks of the reader that stand in the way.
    pub blocking: Vec<(BlockerId, String)>,
    /// Its other remarks.
    pub notices: Vec<String>,
}

/// What the host allows and holds.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Capabilities that are needed and missing.
    pub missing_capabilities: Vec<String>,
    /// Why the cgroup cannot be used.
    pub cgroup_problem: Option<String>,
    /// Why the directory of the pins cannot be used.
    pub bpffs_problem: Option<String>,
    /// Programs of others on the hooks that kpx needs.
    pub foreign_hooks: Vec<ForeignHook>,
}

/// The migration that stands in the way of a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenMigration {
    /// Its id.
    pub id: String,
    /// Whether all its phases are done.
    pub complete: bool,
}

/// Why the node could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Raw state.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// API objects.
    #[error(transparent)]
    Kube(#[from] kube::KubeError),
    /// Rules.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// Connection tracking.
    #[error(transparent)]
    Conntrack(#[from] conntrack::ConntrackError),
}

impl Hinted for ReadError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Capture(source) => source.hints(),
            Self::Kube(source) => source.hints(),
            Self::Rules(source) => source.hints(),
            Self::Conntrack(source) => source.hints(),
        }
    }
}

/// The two tables that must be equal.
#[derive(Clone, Debug)]
pub struct Tables {
    /// From the API objects.
    pub api: ServiceTable,
    /// From the rules.
    pub rules: ServiceTable,
    /// The mode of the rules; none where there are none.
    pub mode: Option<RulesMode>,
    /// Addresses of the node.
    pub addresses: BTreeSet<IpAddr>,
}

impl Tables {
    /// Reads both afresh; the API first, since rules follow it. kube-proxy's answers are as `kept` where it gives none.
    pub fn read(node: &Node, kept: Option<&Node>) -> Result<Self, ReadError> {
        let (api, addresses) = api(node, kept)?;
        let rules = proxy_rules::read_node(node)?.rules.into_iter().next();
        let mode = rules.as_ref().map(ProxyRules::mode);
        Ok(Self { api, rules: rules.map(ProxyRules::into_table).unwrap_or_default(), mode, addresses })
    }

    /// Where the rules are not what kube-proxy makes of what the API asks for.
    pub fn differences(&self) -> Vec<Difference> {
        self.mode.map_or_else(|| diff(&self.api, &self.rules), |mode| mode.differences(&self.api, &self.rules))
    }
}

/// The table that the API objects make, and the addresses of the node.
pub(super) fn api(node: &Node, kept: Option<&Node>) -> Result<(ServiceTable, BTreeSet<IpAddr>), ReadError> {
    let state = kube::read_node_as(node, kept)?;
    Ok((state.table, state.local_addresses))
}

/// Which node this is.
pub(super) fn node_id(node: &Node) -> Result<NodeId, ReadError> {
    let host = match node.read(Item::Host)? {
        Captured::Present { bytes, .. } => serde_json::from_slice::<capture::Host>(&bytes).ok(),
        Captured::Absent { .. } => None,
    };
    let netns = node.is_live().then(|| fs_err::metadata("/proc/self/ns/net").ok()).flatten();
    Ok(NodeId { name: node.node_name().to_owned(), boot_id: host.map(|h| h.boot_id), netns: netns.map(|m| m.ino()) })
}

/// Reads everything a plan is made from, each thing once: hashes and tables speak of the same bytes. kube-proxy's configuration
/// is as `kept` where it does not answer.
pub(super) fn read(
    node: &Node,
    kept: Option<&Node>,
    cgroup: &Result<PathBuf, String>,
    pins: &Path,
    driver: &Choice,
) -> Result<Survey, ReadError> {
    node.at_one_moment(|node| read_all(node, kept, cgroup, pins, driver))
}

fn read_all(
    node: &Node,
    kept: Option<&Node>,
    cgroup: &Result<PathBuf, String>,
    pins: &Path,
    driver: &Choice,
) -> Result<Survey, ReadError> {
    let bytes = |item| -> Result<Option<Vec<u8>>, ReadError> {
        Ok(match node.read(item)? {
            Captured::Present { bytes, .. } => Some(bytes),
            Captured::Absent { .. } => None,
        })
    };
    let mut hashes = BTreeMap::new();
    let nftables = bytes(Item::NftOthers)?.unwrap_or_default();
    let routing = bytes(Item::RouteRules)?.unwrap_or_default();
    let mut used_marks = marks::of_nftables(&nftables) | marks::of_routing(&routing);
    for family in Family::BOTH {
        for variant in Variant::BOTH {
            if let Some(text) = bytes(Item::IptablesSave(family, variant))? {
                used_marks |= marks::of_iptables(&text);
                hashes.insert(format!("rules iptables-{variant} {family}"), digest(&without_counters(&text)));
            }
        }
    }
    let (mode, healthz, metrics) = (bytes(Item::ProxyMode)?, bytes(Item::Healthz)?, bytes(Item::Metrics)?);
    // What the agent answers in kube-proxy's place says nothing of kube-proxy.
    let mut proxy = match mode.as_deref().map(<[u8]>::trim_ascii) {
        Some(mode) if mode == kube::AGENTS_MODE.as_bytes() => ProxyHealth::default(),
        _ => ProxyHealth::parse(mode.as_deref(), healthz.as_deref(), metrics.as_deref()),
    };
    let rules = proxy_rules::read_node(node)?;
    if let Some(rules) = rules.rules.first() {
        used_marks |= rules.masquerade_marks();
        hashes.insert(format!("what the rules of {} mode mean", rules.mode().word()), hash_table(rules.table()));
    }
    let api = match kube::read_node_as(node, kept) {
        Ok(state) => {
            hashes.insert("kube-proxy's configuration".to_owned(), digest(format!("{:?}", state.config).as_bytes()));
            proxy.mode.get_or_insert_with(|| state.config.mode.value.to_string());
            Ok(Lifted { table: state.table, notices: state.notices.iter().map(ToString::to_string).collect() })
        }
        Err(error) => Err(with_causes(&error)),
    };
    let cgroup_path = cgroup.clone().unwrap_or_else(|_| PathBuf::from("/sys/fs/cgroup"));
    Ok(Survey {
        node: node_id(node)?,
        api,
        rules: meant(rules),
        used_marks,
        forward_drops_in_nftables: marks::forward_drops(&nftables),
        hashes,
        proxy,
        run_by: driver::find(node, driver),
        host: node.is_live().then(|| host(cgroup, pins)),
        cgroup: cgroup_path,
        pins: pins.to_owned(),
        open_migration: None,
    })
}

/// kube-proxy's rules, or why there are none.
fn meant(found: proxy_rules::Found) -> Result<Rules, String> {
    let mut rules = found.rules.into_iter();
    let Some(own) = rules.next() else {
        let none = "neither iptables nor nftables nor IPVS holds any".to_owned();
        return Err(if found.remarks.is_empty() { none } else { found.remarks.join("; ") });
    };
    let (mode, counts) = (own.mode(), own.counts());
    let (mut blocking, mut notices) = (Vec::new(), Vec::new());
    match &own {
        ProxyRules::Iptables(_, state) => {
            for notice in &state.notices {
                if notice.blocks_migration() && !is_agents(notice) {
                    blocking.push((blocker(notice), notice.to_string()));
                } else {
                    notices.push(notice.to_string());
                }
            }
        }
        ProxyRules::Nftables(state) => {
            for notice in &state.notices {
                if notice.blocks_migration() {
                    blocking.push((BlockerId::UnknownRules, notice.to_string()));
                } else {
                    notices.push(notice.to_string());
                }
            }
        }
        ProxyRules::Ipvs(state) => {
            for notice in &state.notices {
                if notice.blocks_migration() {
                    blocking.push((BlockerId::UnknownRules, notice.to_string()));
                } else {
                    notices.push(notice.to_string());
                }
            }
            notices.extend(schedulers(&state.state));
        }
    }
    for other in rules {
        let (mode, number) = (other.mode(), other.counts().values().sum::<usize>());
        blocking.push((BlockerId::OtherVariant, format!("{number} rules of {mode} mode stand as well")));
    }
    Ok(Rules { mode, table: own.into_table(), counts, blocking, notices })
}

/// How IPVS chooses servers, where that is not in turn, which by and by is what choosing at random comes to.
fn schedulers(state: &ipvs::State) -> Option<String> {
    let named: BTreeSet<&str> = state.own().map(|service| service.scheduler.as_str()).filter(|s| *s != "rr").collect();
    let names = named.into_iter().collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| {
        format!("IPVS chooses servers by {names}; eBPF chooses at random, or by Maglev where a Service asks for it")
    })
}

/// Whether a notice only says that the agent answers in kube-proxy's place.
fn is_agents(notice: &iptables::Notice) -> bool {
    matches!(notice, iptables::Notice::OtherMode { mode } if mode == kube::AGENTS_MODE)
}

const fn blocker(notice: &iptables::Notice) -> BlockerId {
    use iptables::Notice;
    match notice {
        Notice::IpvsMode { .. } | Notice::UserspaceMode { .. } | Notice::OtherMode { .. } => BlockerId::Mode,
        Notice::StaleBackend { .. } => BlockerId::OtherVariant,
        Notice::Conflict { .. } => BlockerId::ConflictingAddresses,
        _ => BlockerId::UnknownRules,
    }
}

/// What the host allows and holds.
fn host(cgroup: &Result<PathBuf, String>, pins: &Path) -> Host {
    let mut host = Host { missing_capabilities: missing_capabilities(), ..Host::default() };
    match cgroup {
        Err(problem) => host.cgroup_problem = Some(problem.clone()),
        Ok(path) => match capture::cgroup::check(path) {
            Err(error) => host.cgroup_problem = Some(with_causes(&error)),
            // Without the capabilities the hooks cannot be listed either, and that is no second trouble.
            Ok(()) if !host.missing_capabilities.is_empty() => {}
            Ok(()) => match foreign_hooks(&Paths { pins: pins.to_owned(), cgroup: path.clone() }) {
                Ok(hooks) => host.foreign_hooks = hooks,
                Err(error) => host.cgroup_problem = Some(with_causes(&error)),
            },
        },
    }
    host.bpffs_problem = bpffs_problem(pins);
    host
}

/// CAP_SYS_ADMIN stands for both of the others on every kernel.
fn missing_capabilities() -> Vec<String> {
    use caps::{CapSet, Capability};
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    if has(Capability::CAP_SYS_ADMIN) {
        return if has(Capability::CAP_NET_ADMIN) { Vec::new() } else { vec![Capability::CAP_NET_ADMIN.to_string()] };
    }
    [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON]
        .into_iter()
        .filter(|c| !has(*c))
        .map(|c| c.to_string())
        .collect()
}

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: rustix::fs::FsWord = 0xcafe_4a11;

/// Why pins cannot be made in a directory, which need not exist yet.
fn bpffs_problem(pins: &Path) -> Option<String> {
    let existing = pins.ancestors().find(|p| p.exists())?;
    match rustix::fs::statfs(existing) {
        Err(e) => Some(format!("cannot look at {}: {e}", existing.display())),
        Ok(stat) if stat.f_type == BPF_FS_MAGIC => None,
        Ok(_) => Some(format!("{} is not on a bpf file system", pins.display())),
    }
}

/// The text of iptables-save without what changes while nothing does: counters and the comments with the time.
fn without_counters(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for line in text.split(|b| *b == b'\n') {
        let kept = match line.first() {
            Some(b'#') => continue,
            // `[12:3456] -A CHAIN …`
            Some(b'[') => memchr::memchr(b']', line).map_or(line, |end| &line[end + 1..]),
            // `:CHAIN POLICY [12:3456]`
            Some(b':') => memchr::memchr(b'[', line).map_or(line, |start| &line[..start]),
            _ => line,
        };
        out.extend_from_slice(kept.trim_ascii());
        out.push(b'\n');
    }
    out
}
