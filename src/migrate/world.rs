//! The real node, as steps and gates act upon it.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fs_err as fs;

use super::driver::{ProxyDriver, Site};
use super::journal::{Mark, sync_dir};
use super::marks::Marks;
use super::phase::{Found, World};
use super::probe::{self, ProbeError, Probed, Request};
use super::removal::RemovalError;
use super::steps::Facts;
use super::store::{Migration, StoreError, write_durably};
use super::survey::{self, ReadError, Tables};
use super::switch::{ForwardError, ProxyError, SERVE_PACKETS};
use crate::capture::command::CommandError;
use crate::capture::{self, Captured, Item, Node};
use crate::dataplane::handover::{HandoverError, Unfit};
use crate::dataplane::{
    AddressFlags, Attachment, Counters, Dataplane, DataplaneError, KernelFlow, Mode, Paths, Reason, Served, Timeouts,
    node_addresses, timeouts,
};
use crate::error::Hinted;
use crate::inspect::conntrack::{self, ConntrackError, Entry, Limits, Translator};
use crate::inspect::ipvs;
use crate::inspect::standing::StandingError;
use crate::model::{Difference, Family, Protocol, ServiceTable, diff};

/// How patient a run is, and how bold.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// How long a probe waits for an answer.
    pub probe_timeout: Duration,
    /// How long a rollback waits for UDP sockets, and the way there for connections that only IPVS can carry.
    pub drain_timeout: Duration,
    /// Do not wait for UDP sockets at all.
    pub force: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { probe_timeout: Duration::from_secs(1), drain_timeout: Duration::from_secs(30), force: false }
    }
}

/// One node under migration.
pub struct NodeWorld<'a> {
    /// Where it is read.
    pub node: &'a Node,
    /// Where the hooks are pinned and attached.
    pub paths: Paths,
    /// What the hooks serve, by the API objects as last read.
    pub served: ServiceTable,
    /// What the node's addresses are, likewise.
    pub addresses: BTreeMap<IpAddr, AddressFlags>,
    /// The migration's record.
    pub migration: &'a Migration,
    /// What the words of steps depend on.
    pub facts: Facts,
    /// How patient, and how bold.
    pub options: RunOptions,
    /// Set by a signal.
    pub stop: &'a AtomicBool,
    /// The bits of the mark that are set aside.
    pub marks: Marks,
    /// How kube-proxy is stopped and started.
    pub driver: ProxyDriver,
    /// Whether it is accepted that no agent follows the API.
    pub no_agent: bool,
    /// Whether it is accepted that connections through IPVS are cut that do not end.
    pub cut: bool,
    /// Frontends that eBPF does not serve as the rules do, with the reason, by the API objects as last read.
    pub unserved: Vec<String>,
    /// What the step at hand has found out.
    pub found: Found,
    /// The node as recorded before anything was changed, once it was asked for.
    pub recorded: OnceCell<Node>,
}

/// Flows to Services that the kernel's NAT carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFlows {
    /// Those that the packet path could take over.
    pub fit: usize,
    /// Those that it cannot.
    pub unfit: usize,
    /// Those of them that IPVS carries, by the reason.
    pub of_ipvs: BTreeMap<Unfit, usize>,
}

/// What can go wrong in a step.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The hooks.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// Reading the node.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The probes.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The state directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The snapshot.
    #[error(transparent)]
    Snapshot(#[from] capture::SnapshotError),
    /// A tool that changes rules.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The FORWARD chains.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// kube-proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// Flows that change hands.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// Whether rules stand.
    #[error(transparent)]
    Standing(#[from] StandingError),
    /// Rules that go or come back.
    #[error(transparent)]
    Removal(#[from] RemovalError),
    /// Flows go on that the kernel's NAT cannot take.
    #[error(
        "{flows} flows go on under eBPF that the kernel's NAT cannot take: {why}; new ones are served by the rules"
    )]
    FlowsLeft {
        /// How many.
        flows: usize,
        /// Why.
        why: String,
    },
    /// UDP sockets go on using translations.
    #[error("after {} s UDP sockets still use translations; their flows go on, new ones are served by the rules", waited.as_secs())]
    NotDrained {
        /// How long was waited.
        waited: Duration,
    },
    /// A signal.
    #[error("interrupted while waiting for UDP sockets; their flows go on, new ones are served by the rules")]
    Interrupted,
}

impl StepError {
    /// Whether nothing is wrong and waiting longer, or force, is all it takes.
    pub const fn is_waiting(&self) -> bool {
        matches!(self, Self::NotDrained { .. } | Self::FlowsLeft { .. } | Self::Interrupted)
    }
}

impl Hinted for StepError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Dataplane(source) => source.hints(),
            Self::Read(source) => source.hints(),
            Self::Probe(source) => source.hints(),
            Self::Store(source) => source.hints(),
            Self::Snapshot(source) => source.hints(),
            Self::Command(source) | Self::Forward(ForwardError::Write(source)) => source.hints(),
            Self::Forward(ForwardError::Read(source)) => source.hints(),
            Self::Proxy(source) => source.hints(),
            Self::Handover(source) => source.hints(),
            Self::Standing(source) => source.hints(),
            Self::Removal(source) => source.hints(),
            Self::NotDrained { .. } | Self::FlowsLeft { .. } | Self::Interrupted => Vec::new(),
        }
    }
}

impl World for NodeWorld<'_> {
    type Error = StepError;
    type Facts = Facts;

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn take_found(&mut self) -> Found {
        std::mem::take(&mut self.found)
    }
}

impl NodeWorld<'_> {
    /// Records the node as a snapshot: aside first, so that it is there as a whole or not at all.
    pub fn backup(&self) -> Result<(), StepError> {
        let (target, aside) = (self.migration.backup(), self.migration.dir.join(".backup"));
        let failed = |path: &PathBuf| {
            let path = path.clone();
            move |source| StoreError::Io { action: "write", path, source }
        };
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(failed(&aside))?;
        }
        capture::take(self.node, &aside, self.stop, |_| {})?;
        if target.exists() {
            fs::remove_dir_all(&target).map_err(failed(&target))?;
        }
        fs::rename(&aside, &target).map_err(failed(&target))?;
        sync_dir(&self.migration.dir).map_err(failed(&self.migration.dir))?;
        Ok(())
    }

    /// The node as recorded before anything was changed; `None` before that.
    fn recorded(&self) -> Result<Option<&Node>, StepError> {
        if self.recorded.get().is_none()
            && let Some(recorded) = self.migration.recorded().map_err(ReadError::from)?
        {
            let _ = self.recorded.set(recorded);
        }
        Ok(self.recorded.get())
    }

    /// Reads the API objects afresh, and keeps what the hooks are to serve.
    pub fn read_api(&mut self) -> Result<(), StepError> {
        let (api, local) = survey::api(self.node, self.recorded()?)?;
        self.serve(&api, &local);
        Ok(())
    }

    /// Reads API objects and rules afresh, and keeps what the hooks are to serve.
    pub fn tables(&mut self) -> Result<Tables, StepError> {
        let tables = Tables::read(self.node, self.recorded()?)?;
        self.serve(&tables.api, &tables.addresses);
        Ok(tables)
    }

    fn serve(&mut self, api: &ServiceTable, local: &BTreeSet<IpAddr>) {
        let divided = Served::of(api);
        self.served = divided.table;
        self.unserved =
            divided.others.iter().map(|(f, why)| format!("{} {}: {why}", f.display_name(), f.key)).collect();
        self.addresses = node_addresses(api, local);
    }

    /// How many addresses the hooks know otherwise than the node has them.
    pub fn address_differences(&self) -> Result<usize, StepError> {
        let held = self.dataplane()?.map(|d| d.addresses()).transpose()?.unwrap_or_default();
        let missing = self.addresses.iter().filter(|(ip, flags)| held.get(ip) != Some(flags)).count();
        Ok(missing + held.keys().filter(|ip| !self.addresses.contains_key(ip)).count())
    }

    /// The hooks, if they are installed.
    ///
    /// Damaged ones, and those of a kpx with another layout, count as absent: they cannot be worked with, an installation
    /// says so, and a rollback removes them all the same.
    pub fn dataplane(&self) -> Result<Option<Dataplane>, StepError> {
        match Dataplane::adopt(&self.paths) {
            Err(
                DataplaneError::Damaged { .. }
                | DataplaneError::Layout { .. }
                | DataplaneError::Newer { .. }
                | DataplaneError::Unfinished { .. },
            ) => Ok(None),
            other => Ok(other?),
        }
    }

    /// The hooks; an error if they are not installed.
    pub fn installed(&self) -> Result<Dataplane, StepError> {
        Ok(Dataplane::expect(&self.paths)?)
    }

    /// The mode; `None` where nothing is installed.
    pub fn mode(&self) -> Result<Option<Mode>, StepError> {
        Ok(self.dataplane()?.map(|d| d.mode()).transpose()?)
    }

    /// Which hooks are attached.
    pub fn attachment(&self) -> Result<Attachment, StepError> {
        match self.dataplane()? {
            // A cgroup that is gone took the links with it.
            Some(_) if !self.paths.cgroup.exists() => Ok(Attachment::Detached),
            Some(dataplane) => Ok(dataplane.attachment()?),
            None => Ok(Attachment::Detached),
        }
    }

    /// What the hooks counted; nothing where none are installed.
    pub fn counters(&self) -> Result<Counters, StepError> {
        Ok(self.dataplane()?.map(|d| d.counters()).transpose()?.unwrap_or_default())
    }

    /// What differs between what the hooks are to serve and what the maps hold.
    pub fn map_differences(&self) -> Result<Vec<Difference>, StepError> {
        let held = self.dataplane()?.map(|d| d.table()).transpose()?.unwrap_or_default();
        Ok(diff(&self.served, &held))
    }

    /// UDP flows to served frontends that the kernel's rules translate now.
    pub fn kernel_flows(&self) -> Result<Vec<KernelFlow>, StepError> {
        let served: BTreeSet<_> = self
            .served
            .frontends()
            .iter()
            .filter(|f| f.key.protocol == Protocol::Udp)
            .map(|f| SocketAddr::new(f.key.ip, f.key.port))
            .collect();
        // A NodePort is served at whatever address of the node.
        let node_port = |to: SocketAddr| SocketAddr::new(Family::of(to.ip()).unspecified(), to.port());
        let mut flows = Vec::new();
        let read = conntrack::read_node(self.node, |entry| {
            let frontend = entry.original.destination;
            let translated = entry.service_protocol() == Some(Protocol::Udp) && entry.is_to_backend();
            if translated && (served.contains(&frontend) || served.contains(&node_port(frontend))) {
                flows.push(KernelFlow {
                    frontend,
                    source_port: entry.original.source.port(),
                    expires_in: Duration::from_secs(entry.timeout.unwrap_or(0).into()),
                });
            }
        });
        match read {
            Ok(_) | Err(ConntrackError::NotCaptured { .. }) => Ok(flows),
            Err(error) => Err(ReadError::from(error).into()),
        }
    }

    /// What the kernel's conntrack knows now.
    pub fn entries(&self) -> Result<Vec<Entry>, StepError> {
        let mut entries = Vec::new();
        match conntrack::read_node(self.node, |entry| entries.push(*entry)) {
            Ok(_) | Err(ConntrackError::NotCaptured { .. }) => Ok(entries),
            Err(error) => Err(ReadError::from(error).into()),
        }
    }

    /// IPVS's connections now.
    pub fn ipvs_connections(&self) -> Result<Vec<ipvs::Connection>, StepError> {
        Ok(match self.node.read(Item::IpvsConnections).map_err(ReadError::from)? {
            Captured::Present { bytes, .. } => ipvs::parse_connections(&bytes),
            Captured::Absent { .. } => Vec::new(),
        })
    }

    /// The flows to Services that the kernel's NAT carries now; those that have ended are none.
    pub fn kernel_flows_left(&self) -> Result<KernelFlows, StepError> {
        let found = self.installed()?.importable(&self.entries()?, &self.ipvs_connections()?)?;
        let is_over = |why: Unfit| matches!(why, Unfit::Ended | Unfit::NoService);
        let mut flows = KernelFlows { fit: found.flows.len(), ..KernelFlows::default() };
        for (entry, why) in found.left.iter().filter(|(_, why)| !is_over(*why)) {
            flows.unfit += 1;
            if entry.translator() != Some(Translator::Netfilter) {
                *flows.of_ipvs.entry(*why).or_default() += 1;
            }
        }
        Ok(flows)
    }

    /// The limits of conntrack, by the sysctls of the node's namespace.
    fn limits(&self) -> Result<Limits, StepError> {
        let text = match self.node.read(Item::Sysctl).map_err(ReadError::from)? {
            Captured::Present { bytes, .. } => bytes,
            Captured::Absent { .. } => Vec::new(),
        };
        Ok(Limits::parse(&text))
    }

    /// How long after its last datagram conntrack keeps a UDP flow.
    pub fn conntrack_udp_time(&self) -> Result<Duration, StepError> {
        Ok(self.limits()?.udp_time())
    }

    /// How long flows of the packet path are kept.
    pub fn flow_timeouts(&self) -> Result<Timeouts, StepError> {
        Ok(timeouts(&self.limits()?))
    }

    /// The bits that the programs mark packets with; `None` where nothing is installed.
    pub fn programmed_marks(&self) -> Result<Option<Marks>, StepError> {
        let marks = self.dataplane()?.map(|dataplane| dataplane.marks()).transpose()?;
        Ok(marks.map(|(unseen, accept)| Marks { accept, unseen }))
    }

    /// What the journal says of a step.
    pub fn mark(&self, step: &str) -> Result<Mark, StepError> {
        Ok(self.migration.progress()?.mark(step))
    }

    /// Whether the rules serve anything new: packets that no socket hook sees, until the packet path does.
    pub fn rules_serve(&self) -> Result<bool, StepError> {
        Ok(self.mark(SERVE_PACKETS)? != Mark::Done)
    }

    /// Where a driver of kube-proxy works.
    pub(super) fn site(&self) -> Site<'_> {
        Site { node: self.node, dir: &self.migration.dir }
    }

    /// Keeps what the step at hand has found out.
    pub fn note(&mut self, found: String) {
        self.found.note = Some(found);
    }

    /// Keeps how much the step at hand has moved or removed.
    pub fn count(&mut self, what: &str, number: usize) {
        *self.found.counts.entry(what.to_owned()).or_default() += number as u64;
    }

    /// Connects to the first frontends of each class, from inside the cgroup. Those that kube-proxy's mode serves otherwise than the
    /// API asks for end otherwise, as the operator knows.
    pub fn probe(&self) -> Result<Vec<Probed>, StepError> {
        let otherwise = self.facts.mode.map(|mode| mode.otherwise(&self.served)).unwrap_or_default();
        let alike = self.served.frontends().iter().filter(|f| !otherwise.contains(&f.key.address())).cloned().collect();
        let alike = ServiceTable::new(alike, self.served.v4.clone(), self.served.v6.clone());
        let targets = probe::targets(&alike, &self.addresses);
        Ok(probe::run(&Request { cgroup: self.paths.cgroup.clone(), timeout: self.options.probe_timeout, targets })?)
    }

    /// The probes made while the rules served alone; empty where there are none.
    pub fn probes_before(&self) -> Result<Vec<Probed>, StepError> {
        match fs::read(self.probes_file()) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(StoreError::Io { action: "read", path: self.probes_file(), source }.into()),
        }
    }

    /// Keeps the probes made while the rules served alone, to compare with later.
    pub fn keep_probes(&self, probes: &[Probed]) -> Result<(), StepError> {
        let bytes = serde_json::to_vec(probes).map_err(ProbeError::from)?;
        Ok(write_durably(&self.probes_file(), &bytes)?)
    }

    fn probes_file(&self) -> PathBuf {
        self.migration.dir.join("probes-before.json")
    }
}

/// Connects and datagrams to frontends, whatever became of them.
pub(super) fn seen(counters: &Counters) -> u64 {
    Reason::ALL
        .into_iter()
        .filter(|reason| {
            !matches!(
                reason,
                Reason::NotService
                    | Reason::ReplyRestored
                    | Reason::PeerRestored
                    | Reason::Retried
                    | Reason::Missed
                    | Reason::NoStorage
                    | Reason::Affinity
                    | Reason::Masqueraded
                    | Reason::EventLost
            )
        })
        .map(|reason| counters.of(reason))
        .sum()
}

/// Lookups that met changes at every attempt, and sockets without room for their storage.
pub(super) fn errors(counters: &Counters) -> u64 {
    counters.of(Reason::Missed) + counters.of(Reason::NoStorage)
}
