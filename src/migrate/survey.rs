//! Everything a plan is made from, typed and read once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::plan::NodeId;
use super::proxy::ProxyHealth;
use crate::capture::Variant;
use crate::model::{Family, ServiceTable};

/// The state of one node, as a plan needs it.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Which node.
    pub node: NodeId,
    /// What the API objects mean for it; `Err` says why there are none.
    pub api: Result<Lifted, String>,
    /// What its rules mean; `Err` says why there are none.
    pub rules: Result<Rules, String>,
    /// Hashes of raw inputs, by what they are of.
    pub hashes: BTreeMap<String, String>,
    /// kube-proxy, as far as it answers.
    pub proxy: ProxyHealth,
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
    /// Backend that holds them.
    pub variant: Variant,
    /// What they mean.
    pub table: ServiceTable,
    /// Rules of kube-proxy by family.
    pub counts: BTreeMap<Family, usize>,
    /// Rules that must be understood and are not.
    pub unknown: Vec<String>,
    /// Other remarks of the reader.
    pub notices: Vec<String>,
    /// Rules of kube-proxy in the other variant.
    pub other_variant: usize,
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

/// Another owner's program on a hook that kpx needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignHook {
    /// Attach type, such as `cgroup_inet4_connect`.
    pub hook: String,
    /// cgroup it is attached to.
    pub cgroup: PathBuf,
    /// Name of the program.
    pub program: String,
    /// Id of the program.
    pub id: u32,
    /// Whether it runs before a program that is attached to our cgroup next.
    pub runs_first: bool,
}

/// The migration that stands in the way of a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenMigration {
    /// Its id.
    pub id: String,
    /// Whether all its phases are done.
    pub complete: bool,
}
