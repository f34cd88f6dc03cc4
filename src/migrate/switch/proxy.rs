//! kube-proxy on this node: whether one runs, and how it is stopped and started again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::capture::{Captured, Item, Listener, Node};
use crate::error::{Hinted, with_causes};
use crate::inspect::kube::AGENTS_MODE;
use crate::migrate::driver::{self, DriverError, ProxyDriver, Site};
use crate::migrate::planner::digest;
use crate::migrate::proxy::ProxyHealth;
use crate::migrate::removal::{Removal, State};
use crate::migrate::store::{StoreError, write_durably};
use crate::migrate::world::{NodeWorld, StepError};

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
    /// It still runs though it was stopped.
    #[error("kube-proxy still runs {} s after it was stopped by driver {driver}: {}", waited.as_secs(), .seen.join("; "))]
    Stays {
        /// The driver.
        driver: Box<ProxyDriver>,
        /// How long was waited.
        waited: Duration,
        /// What shows it.
        seen: Vec<String>,
    },
    /// It is stopped, and something would start it.
    #[error("kube-proxy is stopped and would come back: {why}")]
    ComesBack {
        /// What starts it.
        why: String,
    },
    /// It is stopped, and its rules change.
    #[error("kube-proxy's rules have changed since it was stopped: somebody writes them")]
    Rewritten,
    /// It is not healthy though it was started.
    #[error("kube-proxy is not healthy {} s after it was started by driver {driver}: it {is}", waited.as_secs())]
    NotHealthy {
        /// The driver.
        driver: Box<ProxyDriver>,
        /// How long was waited.
        waited: Duration,
        /// What it is.
        is: String,
    },
    /// It could not be stopped or started.
    #[error(transparent)]
    Driver(#[from] DriverError),
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
                "stop it on this node yourself, and go on with kpx migrate apply".to_owned(),
                "or say how it is run here: kpx migrate apply --driver daemonset|static-pod|systemd|process".to_owned(),
                "or how it is stopped and started: kpx migrate apply --stop-command CMD --start-command CMD".to_owned(),
            ],
            Self::Stays { .. } => vec![
                "see what starts it again (a static pod, a DaemonSet, a unit), and name it: kpx migrate apply --driver NAME"
                    .to_owned(),
            ],
            Self::ComesBack { .. } => vec!["have it stopped again by kpx migrate apply, once nobody undoes that".to_owned()],
            Self::Rewritten => vec![
                "find who writes them: another kube-proxy (ps -C kube-proxy), one in another process namespace".to_owned(),
                "then go on with kpx migrate apply --until stop, which looks again".to_owned(),
            ],
            Self::NoAgent => vec![
                "start it (deploy/, or kpx agent), and go on with kpx migrate apply".to_owned(),
                "or accept that nobody follows the API: kpx migrate apply --accept no-agent".to_owned(),
            ],
            Self::RulesBehind { .. } => vec![
                "start kube-proxy on this node, and go on with kpx migrate rollback".to_owned(),
                "or go back to the rules as they are: kpx migrate rollback --force".to_owned(),
            ],
            Self::NotHealthy { .. } => vec!["read its log, and go on with kpx migrate rollback".to_owned()],
            Self::Driver(source) => source.hints(),
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
        kpx && words.any(|word| word == b"agent") && driver::is_here(pid)
    })
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs_err::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// What shows that a kube-proxy runs in this network namespace; empty: none does.
pub(super) fn seen(node: &Node) -> Vec<String> {
    let mut seen: Vec<String> = driver::processes(node)
        .iter()
        .filter(|process| process.name == "kube-proxy")
        .map(|process| format!("process {} is called kube-proxy", process.pid))
        .collect();
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

/// Who but kpx listens on kube-proxy's ports, as long as no agent answers there.
fn holders(node: &Node) -> Vec<String> {
    let listeners = answer(node, Item::Listeners).ok().flatten().unwrap_or_default();
    let listeners: Vec<Listener> = serde_json::from_slice(&listeners).unwrap_or_default();
    let others = listeners.iter().filter(|l| matches!(l.port, 10249 | 10256)).filter_map(|listener| {
        let program = listener.program.as_deref().filter(|program| !program.starts_with("kpx"))?;
        Some(format!("{program} (process {}) listens on port {}", listener.pid.unwrap_or_default(), listener.port))
    });
    others.collect()
}

/// Proves that kube-proxy is away for good; the error says what speaks against it.
fn away(site: &Site<'_>, driver: &ProxyDriver) -> Result<(), ProxyError> {
    let mut seen = seen(site.node);
    if seen.is_empty() {
        seen = holders(site.node);
    }
    if !seen.is_empty() {
        return Err(ProxyError::Runs { seen });
    }
    match site.comes_back(driver)? {
        Some(why) => Err(ProxyError::ComesBack { why }),
        None => Ok(()),
    }
}

/// Stops kube-proxy, and proves that it has gone and stays away.
pub(super) fn stop(world: &NodeWorld<'_>) -> Result<(), ProxyError> {
    let (site, driver) = (world.site(), &world.driver);
    if away(&site, driver).is_err() {
        if matches!(driver, ProxyDriver::Operator) {
            return away(&site, driver);
        }
        site.stop(driver)?;
        let begun = Instant::now();
        while let Err(error) = away(&site, driver) {
            let waited = begun.elapsed();
            if waited >= driver.patience() {
                return Err(match error {
                    ProxyError::Runs { seen } => ProxyError::Stays { driver: Box::new(driver.clone()), waited, seen },
                    error => error,
                });
            }
            std::thread::sleep(GLANCE);
        }
    }
    Ok(())
}

/// Whether kube-proxy is away, and who shows otherwise. Without the API it counts what the node itself shows.
pub(super) fn is_away(world: &NodeWorld<'_>) -> Result<(), String> {
    match away(&world.site(), &world.driver) {
        Ok(()) | Err(ProxyError::Driver(DriverError::Cluster(_))) => Ok(()),
        Err(error) => Err(with_causes(&error)),
    }
}

/// Before a rule is touched: kube-proxy is away, stays away, and its rules are as it left them.
pub(super) fn prove_away(world: &NodeWorld<'_>) -> Result<(), StepError> {
    away(&world.site(), &world.driver)?;
    if is_rewritten(world)? {
        return Err(ProxyError::Rewritten.into());
    }
    Ok(())
}

/// Where the digest of the rules is that kube-proxy has left.
fn left(world: &NodeWorld<'_>) -> PathBuf {
    world.migration.dir.join("kube-proxy.left")
}

/// All that kube-proxy has made, in a few bytes. What stays for somebody else's sake is not in it: that changes with him.
fn rules(world: &NodeWorld<'_>) -> Result<String, StepError> {
    let now = State::read(world.node)?.at_rest();
    let text = Removal::of(&now, None)?.to_string();
    let own: Vec<&str> = text.lines().filter(|line| !line.contains(" stays: ")).collect();
    Ok(digest(own.join("\n").as_bytes()))
}

/// Keeps what kube-proxy's rules are, once it has gone.
pub(super) fn keep_rules(world: &NodeWorld<'_>) -> Result<(), StepError> {
    Ok(write_durably(&left(world), rules(world)?.as_bytes())?)
}

/// Whether kube-proxy's rules are others than it left; no longer asked once kpx has kept them to remove them.
pub(super) fn is_rewritten(world: &NodeWorld<'_>) -> Result<bool, StepError> {
    if super::remove::folder(world).exists() {
        return Ok(false);
    }
    match fs_err::read_to_string(left(world)) {
        Ok(kept) => Ok(kept != rules(world)?),
        // Stopped by a kpx that kept nothing, or not yet.
        Err(_) => Ok(false),
    }
}

/// Forgets how kube-proxy was stopped, and what it left: it runs again, or somebody else sees to that.
pub(super) fn forget(world: &NodeWorld<'_>) -> Result<(), StepError> {
    world.site().forget().map_err(ProxyError::from)?;
    match fs_err::remove_file(left(world)) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::Io { action: "remove", path: left(world), source }.into())
        }
        _ => Ok(()),
    }
}

/// Starts kube-proxy where that is known how, and proves it; whether one runs.
pub(super) fn start(world: &NodeWorld<'_>) -> Result<bool, ProxyError> {
    let (node, driver) = (world.node, &world.driver);
    let runs = !seen(node).is_empty();
    let known = world.site().start(driver, runs)?;
    if runs || !known {
        return Ok(runs);
    }
    let begun = Instant::now();
    loop {
        let of = |item| answer(node, item).ok().flatten();
        let health = ProxyHealth::parse(of(Item::ProxyMode).as_deref(), of(Item::Healthz).as_deref(), None);
        let agents = health.mode.as_deref() == Some(AGENTS_MODE);
        if !agents && health.is_alive() && health.healthz.as_ref().is_none_or(|healthz| healthz.ok) {
            return Ok(true);
        }
        let waited = begun.elapsed();
        if waited >= driver.patience() {
            return Err(ProxyError::NotHealthy { driver: Box::new(driver.clone()), waited, is: health.describe() });
        }
        std::thread::sleep(GLANCE);
    }
}
