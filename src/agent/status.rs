//! What the agent knows of itself, shared between the worker, which finds out, and the servers, which tell.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::metrics::{Metrics, label};
use crate::model::ServiceName;

/// How long a change may wait before the agent counts as unhealthy: twice kube-proxy's default `syncPeriod`, as its own
/// health check has it.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long a failed request to the API server counts as news. A watch that fails is tried again within half of that.
const TROUBLE: Duration = Duration::from_mins(1);

/// Something that is wrong and does not mend itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Condition {
    /// A map has no room for what is to be served.
    MapFull,
    /// The maps cannot be written.
    MapWrite,
    /// The programs cannot be attached, or what is attached is not ours.
    Attach,
    /// Network devices that the packet path cannot be attached to.
    Devices,
    /// Whether kube-proxy's rules stand is not known: they count as standing.
    Rules,
    /// Flows that are over cannot be forgotten.
    Flows,
    /// Objects cannot be read, or have values that cannot be or that mean nothing.
    Objects,
    /// Another kpx is changing the node.
    Locked,
    /// The programs do not know all of the node that they should.
    Node,
    /// The programs do not know whose sockets are whose.
    Clients,
    /// Direct server return is not as its label or its option says.
    Dsr,
    /// Stale flows or sockets cannot be found or ended.
    Cleanup,
    /// The programs that serve are another kpx's, and are not replaced.
    Upgrade,
}

impl Condition {
    /// The name, as metrics and `/healthz` have it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::MapFull => "MapFull",
            Self::MapWrite => "MapWrite",
            Self::Attach => "Attach",
            Self::Devices => "Devices",
            Self::Rules => "Rules",
            Self::Flows => "Flows",
            Self::Objects => "Objects",
            Self::Locked => "Locked",
            Self::Node => "Node",
            Self::Clients => "Clients",
            Self::Dsr => "Dsr",
            Self::Cleanup => "Cleanup",
            Self::Upgrade => "Upgrade",
        }
    }
}

/// One Service that a `healthCheckNodePort` answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HealthCheck {
    pub(super) service: ServiceName,
    /// Its ready endpoints on this node, by distinct address, in the family with more of them.
    pub(super) local_endpoints: usize,
}

/// What is known now.
#[derive(Debug, Default)]
struct Status {
    serving: bool,
    synced: Option<jiff::Timestamp>,
    pending_since: Option<Instant>,
    node_leaves: bool,
    conditions: BTreeMap<Condition, String>,
    troubles: BTreeMap<String, (Instant, String)>,
    deaf: BTreeMap<SocketAddr, String>,
}

/// What is shared.
#[derive(Debug)]
pub(super) struct Shared {
    status: Mutex<Status>,
    pub(super) metrics: Metrics,
}

/// What `/healthz` and `/livez` are made of.
#[derive(Clone, Debug)]
pub(super) struct Health {
    /// Whether every change was written in time.
    pub(super) healthy: bool,
    /// Whether Services are served at all: not before the first list of objects, unless an earlier agent's work serves on.
    pub(super) serving: bool,
    /// Whether the Node stays.
    pub(super) node_eligible: bool,
    /// When all changes were last written.
    pub(super) synced: Option<jiff::Timestamp>,
    /// What is wrong.
    pub(super) conditions: BTreeMap<&'static str, String>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self { status: Mutex::default(), metrics: Metrics::new() }
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        // No invariant spans two fields.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Services are served.
    pub(super) fn serving(&self) {
        self.status().serving = true;
    }

    /// A change waits to be written.
    pub(super) fn pending(&self) {
        self.status().pending_since.get_or_insert_with(Instant::now);
    }

    /// Every change is written.
    pub(super) fn synced(&self) {
        let mut status = self.status();
        status.synced = Some(jiff::Timestamp::now());
        status.pending_since = None;
    }

    /// Whether the Node is about to go.
    pub(super) fn node_leaves(&self, leaves: bool) {
        self.status().node_leaves = leaves;
    }

    /// Sets or clears a condition, and logs if it is otherwise than before.
    pub(super) fn condition(&self, condition: Condition, text: Option<String>) {
        let mut status = self.status();
        let before = status.conditions.get(&condition);
        if before == text.as_ref() {
            return;
        }
        let gauge = self.metrics.conditions.get_or_create(&label("condition", condition.name()));
        gauge.set(i64::from(text.is_some()));
        let name = condition.name();
        // Every step of a migration takes the lock: that is no news to whoever looks for what is wrong.
        match (&text, condition) {
            (Some(text), Condition::Locked) => tracing::info!("{name}: {text}"),
            (Some(text), _) => tracing::error!("{name}: {text}"),
            (None, Condition::Locked) => tracing::info!("{name}: over"),
            (None, _) => tracing::warn!("{name}: over"),
        }
        match text {
            Some(text) => status.conditions.insert(condition, text),
            None => status.conditions.remove(&condition),
        };
    }

    /// A request to the API server failed, or the server answers again.
    pub(super) fn trouble(&self, kind: &str, error: Option<String>) {
        let mut status = self.status();
        match error {
            Some(error) => {
                tracing::warn!("cannot watch {kind}s: {error}");
                status.troubles.insert(kind.to_owned(), (Instant::now(), error));
            }
            None => drop(status.troubles.remove(kind)),
        }
    }

    /// An address cannot be listened on, or can be.
    pub(super) fn listening(&self, at: SocketAddr, error: Option<String>) {
        let mut status = self.status();
        match error {
            Some(error) if status.deaf.get(&at) == Some(&error) => {}
            Some(error) => {
                tracing::error!("cannot listen on {at}: {error}");
                status.deaf.insert(at, error);
            }
            None => drop(status.deaf.remove(&at)),
        }
    }

    /// How the agent is.
    pub(super) fn health(&self) -> Health {
        let status = self.status();
        let mut conditions: BTreeMap<_, _> =
            status.conditions.iter().map(|(condition, text)| (condition.name(), text.clone())).collect();
        let fresh = status.troubles.iter().filter(|(_, (when, _))| when.elapsed() < TROUBLE);
        let troubles: Vec<String> = fresh.map(|(kind, (_, text))| format!("{kind}s: {text}")).collect();
        if !troubles.is_empty() {
            conditions.insert("ApiServer", troubles.join("; "));
        }
        if !status.deaf.is_empty() {
            let deaf: Vec<String> = status.deaf.iter().map(|(at, text)| format!("{at}: {text}")).collect();
            conditions.insert("Listen", deaf.join("; "));
        }
        Health {
            healthy: status.pending_since.is_none_or(|since| since.elapsed() < PATIENCE),
            serving: status.serving,
            node_eligible: !status.node_leaves,
            synced: status.synced,
            conditions,
        }
    }
}
