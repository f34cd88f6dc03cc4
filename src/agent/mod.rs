//! The agent: keeps a node's maps true to the API's objects for as long as it runs, and does what kube-proxy did besides.
//!
//! Asynchronous tasks watch the API server and answer HTTP; one thread, the [worker](work), owns the kernel side. Events go
//! from the first to the second through a channel, and nothing else does. Whatever the agent has written or attached is
//! pinned: it serves while the agent is away, however it went.

mod addresses;
mod cleaner;
mod cluster;
mod conntrack;
mod devices;
mod duties;
mod flows;
mod http;
mod metrics;
mod mirror;
mod namespaces;
mod node;
mod notify;
mod peers;
mod ports;
mod servers;
mod sockets;
mod status;
mod sysctl;
mod table;
mod wake;
mod watch;
mod watched;
mod work;
mod writer;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::capture::{self, ApiError};
use crate::dataplane::{Dsr, Paths};
use crate::error::Hinted;
use crate::inspect::kube::ProxyConfig;
use crate::migrate::Store;
use servers::HealthChecks;
use status::Shared;
use work::{Task, Worker};
use writer::Stance;

pub use cleaner::end_stale;
pub use devices::Devices;
pub use writer::{Attach, Defaults, MapSize, NoSize, Xdp};

/// What an agent is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the dataplane is pinned and attached.
    pub paths: Paths,
    /// Directory of journals and of the lock.
    pub state_dir: PathBuf,
    /// Name of this node's Node.
    pub node_name: String,
    /// kube-proxy's configuration, as far as it decides what is served.
    pub config: ProxyConfig,
    /// Sizes of maps, where the computed ones are not wanted; they count when maps are made.
    pub sizes: Vec<MapSize>,
    /// What to attach.
    pub attach: Attach,
    /// How Services are served that do not say.
    pub defaults: Defaults,
    /// Where the sysctls are: `/proc/sys`, unless that cannot be written.
    pub proc_sys: PathBuf,
    /// How often to look after what is attached.
    pub interval: Duration,
    /// Where to answer `/healthz` and `/livez`.
    pub health: SocketAddr,
    /// Where to answer `/metrics` and `/proxyMode`.
    pub metrics: SocketAddr,
    /// kubeconfig, if not the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    pub context: Option<String>,
}

/// Why an agent ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The API server cannot even be named.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A runtime, a thread or a signal handler is refused.
    #[error("cannot start")]
    Start(#[from] std::io::Error),
    /// The worker is gone, which is a bug.
    #[error("the worker ended early")]
    Worker,
}

impl Hinted for AgentError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Api(error) => error.hints(),
            Self::Start(_) | Self::Worker => Vec::new(),
        }
    }
}

/// Runs until SIGTERM or SIGINT. Everything stays pinned and serving then.
pub fn run(options: Options) -> Result<(), AgentError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(options))
}

async fn serve(options: Options) -> Result<(), AgentError> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let (client, server) = capture::connect(options.kubeconfig.as_deref(), options.context.as_deref()).await?;
    tracing::info!(%server, node = options.node_name, "watching");
    let shared = Arc::new(Shared::new());
    let (tasks, todo) = mpsc::channel();
    let (checks, wanted_checks) = tokio::sync::watch::channel(HealthChecks::default());
    let (ended, end_of_worker) = tokio::sync::oneshot::channel::<()>();
    let watched = cleaner::start(options.paths.pins.clone(), Arc::clone(&shared))?;
    flows::start(options.paths.clone(), options.proc_sys.clone(), Arc::clone(&shared))?;
    wake::start(tasks.clone())?;
    let all_nodes = options.defaults.dsr != Dsr::Off;
    let (stance, decides) = tokio::sync::watch::channel(Stance::Migrating);
    let (to_be_ours, ours) = tokio::sync::watch::channel(false);
    let worker = Worker::new(options.clone(), Arc::clone(&shared), checks, watched, stance);
    let thread = std::thread::Builder::new().name("worker".to_owned()).spawn(move || {
        let _ended = ended;
        worker.run(&todo);
    })?;
    let result = tokio::select! {
        _ = terminated.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
        _ = end_of_worker => Err(AgentError::Worker),
        () = watch::watch(client, &options.node_name, all_nodes, tasks.clone(), Arc::clone(&shared)) => Err(AgentError::Worker),
        () = duties::follow(Store::new(&options.state_dir), decides, to_be_ours) => Err(AgentError::Worker),
        () = duties::while_ours(ours.clone(), options.health, &shared, || servers::health(options.health, Arc::clone(&shared))) => Ok(()),
        () = duties::while_ours(ours.clone(), options.metrics, &shared, || servers::metrics(options.metrics, Arc::clone(&shared))) => Ok(()),
        () = servers::health_checks(wanted_checks, ours, Arc::clone(&shared)) => Err(AgentError::Worker),
    };
    notify::say("STOPPING=1");
    // It ends the write under way.
    let _ = tasks.send(Task::Stop);
    let joined = thread.join();
    result.and(joined.map_err(|_| AgentError::Worker))
}
