//! The one door to raw state: a live node, or a snapshot of one on disk.
//!
//! Everything raw (the bytes of `iptables-save`, netlink dumps, /proc files, API lists) is an [`Item`] and comes through
//! [`Node::read`]; nothing else touches the host for reading. A snapshot is that door recorded.

mod api;
mod archive;
mod bpf;
pub mod cgroup;
pub mod command;
mod conntrack;
mod error;
mod host;
mod http;
mod iptables;
mod ipvs;
mod item;
mod kernel;
mod kernel_config;
mod listeners;
mod listing;
mod live;
mod locks;
mod manifest;
pub mod netlink;
pub mod netns;
mod nfacct;
mod nft;
mod objects;
mod processes;
mod proxy;
mod recent;
mod recorded;
mod setup;
mod snapshot;
mod store;
mod sysctl;
mod xtables;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

pub use api::{ApiError, connect};
pub use bpf::{BpfLink, BpfMap, BpfObjects, BpfProgram};
pub use error::{CaptureError, Damage, NotASnapshot};
pub use host::Host;
pub use http::HttpError;
pub use iptables::XtablesTool;
pub use ipvs::ipvs_connections;
pub use item::{Item, Variant};
pub use listeners::Listener;
pub use listing::nft_table;
pub use live::Live;
pub use locks::{LockHolder, XtablesLock};
pub use manifest::{Entry, Manifest};
pub use nfacct::{counters, delete_counters, make_counters};
pub use nft::nft_table_has_reader;
pub use processes::Process;
pub use recorded::Recorded;
pub use setup::{Line, Setup};
pub use snapshot::{SnapshotError, take};
pub use xtables::legacy_table;

use objects::Objects;

/// Raw state, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Captured {
    /// The bytes, and where they come from (a path or a command line).
    Present {
        /// The bytes, unpacked.
        bytes: Vec<u8>,
        /// A path or a command line, for messages.
        place: String,
    },
    /// Nothing, with the reason.
    Absent {
        /// The reason, a clause that completes "not captured: ".
        reason: String,
    },
}

/// Where a node is read from and acted upon: the global options of the command line.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// A snapshot to read instead of the live node.
    pub from: Option<PathBuf>,
    /// The network namespace that the process has entered, for the label.
    pub netns: Option<String>,
    /// API objects from a file or folder.
    pub services_from: Option<PathBuf>,
    /// Name of the Node object.
    pub node_name: Option<String>,
    /// kubeconfig and context for the API.
    pub kubeconfig: Option<PathBuf>,
    /// Context inside the kubeconfig.
    pub context: Option<String>,
    /// Flags of kube-proxy, name and value, for what the node itself does not tell.
    pub proxy_flags: Vec<(String, String)>,
}

/// A node to read from.
#[derive(Debug)]
pub struct Node {
    source: Source,
    objects: Option<Objects>,
    given_name: Option<String>,
    name: OnceLock<String>,
    proxy_flags: Vec<(String, String)>,
    /// What was read during [`Node::at_one_moment`].
    moment: Mutex<Option<BTreeMap<Item, Captured>>>,
}

/// Live or recorded.
#[derive(Debug)]
enum Source {
    Live(Live),
    Recorded(Recorded),
}

impl Node {
    /// Opens the node that the options name. A snapshot is opened and checked; the live node is not touched yet.
    pub fn open(options: &NodeOptions) -> Result<Self, CaptureError> {
        let source = match &options.from {
            Some(path) => Source::Recorded(Recorded::open(path)?),
            None => Source::Live(Live::new(options)),
        };
        let objects = options.services_from.as_deref().map(Objects::open).transpose()?;
        let given_name = options.node_name.as_ref().map(|name| name.to_lowercase());
        let name = given_name.clone().map_or_else(OnceLock::new, OnceLock::from);
        Ok(Self {
            source,
            objects,
            given_name,
            name,
            proxy_flags: options.proxy_flags.clone(),
            moment: Mutex::default(),
        })
    }

    /// Reads one kind of raw state: afresh each time on the live node, but for [`Self::at_one_moment`].
    ///
    /// What is not there is [`Captured::Absent`]; an error means that it may be there but could not be read.
    pub fn read(&self, item: Item) -> Result<Captured, CaptureError> {
        let known = self.moment.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|m| m.get(&item).cloned());
        match known {
            None => self.read_now(item),
            Some(Some(captured)) => Ok(captured),
            Some(None) => {
                let captured = self.read_now(item)?;
                if let Some(moment) = self.moment.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                    moment.insert(item, captured.clone());
                }
                Ok(captured)
            }
        }
    }

    /// Runs `work` with each kind of raw state read once, so that all it concludes rests on the same bytes; the rules of
    /// 10 000 Services also take their tools many seconds to print.
    pub fn at_one_moment<R>(&self, work: impl FnOnce(&Self) -> R) -> R {
        let set = |moment| *self.moment.lock().unwrap_or_else(PoisonError::into_inner) = moment;
        set(Some(BTreeMap::new()));
        let result = work(self);
        set(None);
        result
    }

    fn read_now(&self, item: Item) -> Result<Captured, CaptureError> {
        if let (Some(objects), Some(kind)) = (&self.objects, item.api_kind()) {
            return objects.read(item, kind);
        }
        match &self.source {
            Source::Live(live) => live.read(item),
            Source::Recorded(recorded) => recorded.read(item),
        }
    }

    /// A client for the API server of the live node's cluster, and the server's URL. Nothing is asked yet.
    pub async fn connect(&self) -> Result<(kube::Client, String), ApiError> {
        match &self.source {
            Source::Live(live) => live.connect().await,
            Source::Recorded(_) => Err(ApiError::NoCluster),
        }
    }

    /// Whether this is the node that kpx runs on.
    pub const fn is_live(&self) -> bool {
        matches!(self.source, Source::Live(_))
    }

    /// The snapshot, if this is one.
    pub const fn recorded(&self) -> Option<&Recorded> {
        match &self.source {
            Source::Live(_) => None,
            Source::Recorded(recorded) => Some(recorded),
        }
    }

    /// What is read, for messages: `this node`, or the path of the snapshot.
    pub fn label(&self) -> String {
        match &self.source {
            Source::Live(live) => live.label(),
            Source::Recorded(recorded) => recorded.path().display().to_string(),
        }
    }

    /// Flags of kube-proxy as the options give them, name and value.
    pub fn proxy_flags(&self) -> &[(String, String)] {
        &self.proxy_flags
    }

    /// Name of the Node object as the options give it, in lower case.
    pub fn given_name(&self) -> Option<&str> {
        self.given_name.as_deref()
    }

    /// Name of the Node object: as given, else as the snapshot or the running kube-proxy knows it, else the host name;
    /// in lower case, as kube-proxy compares it.
    pub fn node_name(&self) -> &str {
        self.name.get_or_init(|| match &self.source {
            Source::Live(_) => Live::node_name(),
            Source::Recorded(recorded) => recorded.node_name().unwrap_or_else(host::node_name),
        })
    }
}
