//! kube-proxy on this node: whether one runs, and how it is stopped and started again.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::capture::command::{self, CommandError};
use crate::capture::{Captured, Item, Node, Process};
use crate::error::{Hinted, with_causes};
use crate::inspect::kube::AGENTS_MODE;
use crate::migrate::proxy::ProxyHealth;

/// Who stops kube-proxy on this node, and starts it again on the way back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum ProxyDriver {
    /// Whoever carries the node over, in good time.
    #[default]
    Operator,
    /// kpx, by commands of the operator's that `sh` runs.
    Commands {
        /// Stops it, so that nothing starts it again by itself.
        stop: String,
        /// Starts it; `None`: the operator does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<String>,
    },
}

impl ProxyDriver {
    /// What stops it, in words.
    pub(super) fn describe_stop(&self) -> String {
        match self {
            Self::Operator => "see that no kube-proxy runs in this network namespace".to_owned(),
            Self::Commands { stop, .. } => format!("stop kube-proxy by `{stop}`, and see that none runs any more"),
        }
    }

    /// What starts it, in words.
    pub(super) fn describe_start(&self) -> String {
        match self.start() {
            Some(start) => format!("start kube-proxy by `{start}`, and see that it is healthy"),
            None => "leave it to the operator to start kube-proxy".to_owned(),
        }
    }

    /// The command that starts it, if there is one.
    pub(super) fn start(&self) -> Option<&str> {
        match self {
            Self::Operator => None,
            Self::Commands { start, .. } => start.as_deref(),
        }
    }
}

/// How long kube-proxy may take to go, to come, and to bring the rules in step.
const PATIENCE: Duration = Duration::from_mins(1);
const GLANCE: Duration = Duration::from_millis(200);

/// Why kube-proxy is not as it has to be.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// One runs, and nobody said how to stop it.
    #[error("kube-proxy runs on this node: {}", .seen.join("; "))]
    Runs {
        /// What shows it.
        seen: Vec<String>,
    },
    /// It still runs after the command to stop it.
    #[error("kube-proxy still runs {} s after `{command}`: {}", PATIENCE.as_secs(), .seen.join("; "))]
    Stays {
        /// The command.
        command: String,
        /// What shows it.
        seen: Vec<String>,
    },
    /// It is not healthy after the command to start it.
    #[error("kube-proxy is not healthy {} s after `{command}`: it {is}", PATIENCE.as_secs())]
    NotHealthy {
        /// The command.
        command: String,
        /// What it is.
        is: String,
    },
    /// A command failed.
    #[error("`{command}` failed ({status}){}", match said.as_str() { "" => String::new(), said => format!(": {said}") })]
    Command {
        /// The command.
        command: String,
        /// How it ended.
        status: String,
        /// The last that it said.
        said: String,
    },
    /// A command could not be run.
    #[error(transparent)]
    Run(#[from] CommandError),
    /// No agent would follow the API once kube-proxy is gone.
    #[error("no agent of kpx runs on this node: endpoints that change once kube-proxy is gone would reach nobody")]
    NoAgent,
    /// The rules are behind, and nobody brings them in step.
    #[error("kube-proxy does not run, and its rules are behind the API in {differences} places")]
    RulesBehind {
        /// In how many.
        differences: usize,
    },
}

impl Hinted for ProxyError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Runs { .. } => vec![
                "take kube-proxy off this node (for a DaemonSet: kubectl -n kube-system patch daemonset kube-proxy \
                 with a nodeSelector or affinity that leaves this node out), then go on with kpx migrate apply"
                    .to_owned(),
                "or let kpx do it: kpx migrate apply --stop-command CMD --start-command CMD".to_owned(),
            ],
            Self::Stays { .. } => {
                vec!["see what starts it again: a static pod, a DaemonSet or a service of systemd".to_owned()]
            }
            Self::NoAgent => vec![
                "start it (deploy/, or kpx agent), and go on with kpx migrate apply".to_owned(),
                "or accept that nobody follows the API: kpx migrate apply --accept no-agent".to_owned(),
            ],
            Self::RulesBehind { .. } => vec![
                "start kube-proxy on this node, and go on with kpx migrate rollback".to_owned(),
                "or go back to the rules as they are: kpx migrate rollback --force".to_owned(),
            ],
            Self::Run(source) => source.hints(),
            Self::NotHealthy { .. } | Self::Command { .. } => Vec::new(),
        }
    }
}

fn answer(node: &Node, item: Item) -> Result<Option<Vec<u8>>, String> {
    match node.read(item) {
        Ok(Captured::Present { bytes, .. }) => Ok(Some(bytes)),
        Ok(Captured::Absent { .. }) => Ok(None),
        Err(error) => Err(with_causes(&error)),
    }
}

fn mode(node: &Node) -> Result<Option<String>, String> {
    let mode = answer(node, Item::ProxyMode)?.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    Ok(mode.filter(|mode| !mode.is_empty()))
}

/// Whether kpx's agent answers.
pub(super) fn agent_answers(node: &Node) -> bool {
    mode(node).is_ok_and(|mode| mode.as_deref() == Some(AGENTS_MODE))
}

/// Whether a process of kpx's agent runs in this network namespace; it cannot answer while kube-proxy has its ports.
pub(super) fn agent_runs() -> bool {
    pids().any(|pid| {
        let line = fs_err::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|b| *b == 0);
        let kpx = words.next().is_some_and(|program| program.rsplit(|b| *b == b'/').next() == Some(b"kpx"));
        kpx && words.any(|word| word == b"agent") && is_here(pid)
    })
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs_err::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether a process is in this thread's network namespace.
fn is_here(pid: u32) -> bool {
    let of = |path: &Path| fs_err::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let here = of(Path::new("/proc/thread-self/ns/net"));
    here.is_some() && of(Path::new(&format!("/proc/{pid}/ns/net"))) == here
}

/// What shows that a kube-proxy runs in this network namespace; empty: none does.
pub(super) fn seen(node: &Node) -> Vec<String> {
    let mut seen = Vec::new();
    match answer(node, Item::Processes).map(|bytes| bytes.map(|b| serde_json::from_slice::<Vec<Process>>(&b))) {
        Ok(Some(Ok(processes))) => {
            let here = processes.iter().filter(|p| p.name == "kube-proxy" && is_here(p.pid));
            seen.extend(here.map(|p| format!("process {} is called kube-proxy", p.pid)));
        }
        Ok(_) => {}
        Err(why) => seen.push(format!("processes cannot be listed: {why}")),
    }
    match mode(node) {
        Ok(Some(mode)) if mode != AGENTS_MODE => seen.push(format!("port 10249 answers as kube-proxy in {mode} mode")),
        Ok(_) => {}
        Err(why) => seen.push(format!("port 10249: {why}")),
    }
    match answer(node, Item::Healthz) {
        // The agent's answer has what kube-proxy's has not.
        Ok(Some(bytes)) if memchr::memmem::find(&bytes, b"\"conditions\"").is_none() => {
            seen.push("port 10256 answers as kube-proxy".to_owned());
        }
        Ok(_) => {}
        Err(why) => seen.push(format!("port 10256: {why}")),
    }
    seen
}

/// Runs a command of the operator's. What it says goes to a file, since what it leaves running may hold on to its output.
fn run(command: &str, log: &Path) -> Result<(), ProxyError> {
    let log_text = log.to_string_lossy();
    let args = ["-c", "exec >\"$1\" 2>&1 </dev/null; eval \"$2\"", "sh", &log_text, command];
    let output = command::run("sh", args, None)?;
    if output.status.success() {
        return Ok(());
    }
    let said = fs_err::read_to_string(log).unwrap_or_default();
    let said = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
    Err(ProxyError::Command { command: command.to_owned(), status: output.status.to_string(), said })
}

/// Stops kube-proxy, and proves it.
pub(super) fn stop(node: &Node, driver: &ProxyDriver, log: &Path) -> Result<(), ProxyError> {
    let now = seen(node);
    if now.is_empty() {
        return Ok(());
    }
    let ProxyDriver::Commands { stop, .. } = driver else { return Err(ProxyError::Runs { seen: now }) };
    run(stop, log)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = seen(node);
        if seen.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(ProxyError::Stays { command: stop.clone(), seen });
        }
        std::thread::sleep(GLANCE);
    }
}

/// Starts kube-proxy where that is known how, and proves it; whether one runs.
pub(super) fn start(node: &Node, driver: &ProxyDriver, log: &Path) -> Result<bool, ProxyError> {
    if !seen(node).is_empty() {
        return Ok(true);
    }
    let Some(start) = driver.start() else { return Ok(false) };
    run(start, log)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let of = |item| answer(node, item).ok().flatten();
        let health = ProxyHealth::parse(of(Item::ProxyMode).as_deref(), of(Item::Healthz).as_deref(), None);
        let agents = health.mode.as_deref() == Some(AGENTS_MODE);
        if !agents && health.is_alive() && health.healthz.as_ref().is_none_or(|healthz| healthz.ok) {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Err(ProxyError::NotHealthy { command: start.to_owned(), is: health.describe() });
        }
        std::thread::sleep(GLANCE);
    }
}
