//! How kube-proxy is taken off this node alone, and brought back: by who runs it.
//!
//! What is found out by [`find`] is part of the plan. What was there before is kept beside the journal before anything is changed
//! (`kube-proxy.json`), and the way back goes by that. Each change may be made twice, and after a crash between any two.

mod cluster;
mod daemon_set;
mod find;
mod manifest;
mod process;
mod unit;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use serde::{Deserialize, Serialize};

pub use cluster::ClusterError;
pub use daemon_set::DaemonSet;
pub use find::kube_proxy_runs;
pub use find::{Choice, Found, Named, Verdict};
pub(super) use find::{find, is_here, processes};
pub use manifest::StaticPod;
pub use process::Bare;
pub use unit::{Bar, Unit};

use super::store::{StoreError, write_durably};
use crate::capture::Node;
use crate::capture::command::{self, CommandError};
use crate::error::Hinted;
use cluster::Cluster;

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
    /// kpx, by the API: the DaemonSet leaves this node out.
    #[serde(rename = "daemonset")]
    DaemonSet(DaemonSet),
    /// kpx, by the manifest that the kubelet reads.
    StaticPod(StaticPod),
    /// kpx, by systemd.
    Systemd(Unit),
    /// kpx, by a signal.
    Process(Bare),
}

impl fmt::Display for ProxyDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => write!(f, "operator"),
            Self::Commands { .. } => write!(f, "commands"),
            Self::DaemonSet(set) => write!(f, "daemonset={}", set.display()),
            Self::StaticPod(pod) => write!(f, "static-pod={}", pod.manifest.display()),
            Self::Systemd(unit) => write!(f, "systemd={}", unit.unit),
            Self::Process(_) => write!(f, "process"),
        }
    }
}

impl ProxyDriver {
    /// What stops it, in words.
    pub(super) fn describe_stop(&self) -> String {
        let by = match self {
            Self::Operator => return "see that no kube-proxy runs in this network namespace".to_owned(),
            Self::Commands { stop, .. } => format!("`{stop}`"),
            Self::DaemonSet(set) => match &set.patch {
                Some(_) => format!(
                    "label {}=ebpf on Node {}, which DaemonSet {} is patched to leave out",
                    daemon_set::LABEL,
                    set.node,
                    set.display()
                ),
                None => format!(
                    "label {}=ebpf on Node {}, which DaemonSet {} leaves out",
                    daemon_set::LABEL,
                    set.node,
                    set.display()
                ),
            },
            Self::StaticPod(pod) => format!("taking {} away, kept beside the journal", pod.manifest.display()),
            Self::Systemd(unit) => unit.describe_stop(),
            Self::Process(bare) => format!("SIGTERM to process {}", bare.pid),
        };
        format!("stop kube-proxy by {by}; see that none runs and none comes back")
    }

    /// What starts it, in words.
    pub(super) fn describe_start(&self) -> String {
        let by = match self {
            Self::Operator | Self::Commands { start: None, .. } => {
                return "leave it to the operator to start kube-proxy".to_owned();
            }
            Self::Commands { start: Some(start), .. } => format!("`{start}`"),
            Self::DaemonSet(set) => {
                format!(
                    "taking label {} off Node {}, and the patch if no other node has it",
                    daemon_set::LABEL,
                    set.node
                )
            }
            Self::StaticPod(pod) => format!("putting {} back", pod.manifest.display()),
            Self::Systemd(unit) => unit.describe_start(),
            Self::Process(_) => "its command line, folder and environment".to_owned(),
        };
        format!("start kube-proxy by {by}; see that it is healthy")
    }

    /// What an operator should know of it beforehand, each a sentence or a text to paste.
    pub fn details(&self) -> Vec<String> {
        let mut out = vec![self.describe_stop(), format!("on the way back: {}", self.describe_start())];
        match self {
            Self::DaemonSet(set) => {
                out.extend(set.patch.as_ref().map(|patch| format!("the patch: {patch}")));
                out.extend(set.others.clone());
            }
            Self::Process(bare) => {
                out.push(format!("its command line: {}", bare.command));
                out.push(format!("started by {}; what starts it at boot is not known to kpx", bare.parent));
            }
            _ => {}
        }
        out
    }

    /// How long kube-proxy may take to go, or to come.
    pub(super) const fn patience(&self) -> Duration {
        match self {
            // A controller, a scheduler and a kubelet have to follow, and pods have 30 s to end.
            Self::DaemonSet(_) | Self::StaticPod(_) => Duration::from_mins(3),
            _ => Duration::from_mins(1),
        }
    }

    /// Whether it is known how it is started again.
    pub(super) const fn starts(&self) -> bool {
        !matches!(self, Self::Operator | Self::Commands { start: None, .. })
    }
}

/// Why kube-proxy could not be taken off this node, or brought back.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The API.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// systemd, or another program.
    #[error(transparent)]
    Run(#[from] CommandError),
    /// A file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A link or the like, where a manifest is.
    #[error("{path} is no plain file")]
    NotAFile {
        /// Its path.
        path: PathBuf,
    },
    /// A process cannot be looked at or ended.
    #[error("process {pid}")]
    Process {
        /// Its number.
        pid: u32,
        /// Why.
        source: io::Error,
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
}

impl Hinted for DriverError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Cluster(source) => source.hints(),
            Self::Run(source) => source.hints(),
            Self::Store(source) => source.hints(),
            Self::NotAFile { path } => {
                vec![format!("take {} away yourself, and go on with --driver operator", path.display())]
            }
            Self::Process { .. } | Self::Command { .. } => Vec::new(),
        }
    }
}

/// Where a driver works.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    /// The node.
    pub(super) node: &'a Node,
    /// Where it keeps what was there before.
    pub(super) dir: &'a Path,
}

/// What a driver is about to change, as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    driver: ProxyDriver,
    before: Before,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "kebab-case")]
enum Before {
    StaticPod(manifest::Before),
    Process(process::Before),
    DaemonSet(daemon_set::Before),
    /// What there was is part of the driver.
    Unit,
}

impl Site<'_> {
    fn file(&self) -> PathBuf {
        self.dir.join("kube-proxy.json")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What is kept, oldest first.
    fn records(&self) -> Result<Vec<Record>, DriverError> {
        match fs::read(self.file()) {
            Ok(bytes) => {
                let read = serde_json::from_slice(&bytes);
                Ok(read.map_err(|source| StoreError::Plan { path: self.file(), source })?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(StoreError::Io { action: "read", path: self.file(), source }.into()),
        }
    }

    fn keep(&self, driver: &ProxyDriver, before: Before) -> Result<(), DriverError> {
        let mut records = self.records()?;
        records.retain(|record| record.driver != *driver);
        records.push(Record { driver: driver.clone(), before });
        let text = serde_json::to_vec_pretty(&records).expect("plain values serialise");
        Ok(write_durably(&self.file(), &text)?)
    }

    fn is_kept(&self, driver: &ProxyDriver) -> Result<bool, DriverError> {
        Ok(self.records()?.iter().any(|record| record.driver == *driver))
    }

    /// Stops kube-proxy as the driver does. What is there already is left.
    pub(super) fn stop(&self, driver: &ProxyDriver) -> Result<(), DriverError> {
        match driver {
            ProxyDriver::Operator => Ok(()),
            ProxyDriver::Commands { stop, .. } => run(stop, &self.log("stop.log")),
            ProxyDriver::DaemonSet(set) => {
                let cluster = Cluster::of(self.node)?;
                if !self.is_kept(driver)? {
                    self.keep(driver, Before::DaemonSet(set.before(&cluster)?))?;
                }
                Ok(set.stop(&cluster)?)
            }
            ProxyDriver::StaticPod(pod) => {
                // A manifest that is there is the one that counts, whoever put it there.
                if let Some(before) = pod.before(self.dir)? {
                    self.keep(driver, Before::StaticPod(before))?;
                }
                pod.stop()
            }
            ProxyDriver::Systemd(unit) => {
                if !self.is_kept(driver)? {
                    self.keep(driver, Before::Unit)?;
                }
                unit.stop()
            }
            ProxyDriver::Process(_) => {
                // Whichever runs now: its number may be another one than when the plan was made.
                for process in processes(self.node).into_iter().filter(|process| process.name == "kube-proxy") {
                    self.keep(driver, Before::Process(Bare::before(process.pid)?))?;
                    Bare::stop(process.pid)?;
                }
                Ok(())
            }
        }
    }

    /// Undoes what was kept, and starts kube-proxy; `runs` says whether one is seen already. Whether it is known how.
    pub(super) fn start(&self, driver: &ProxyDriver, runs: bool) -> Result<bool, DriverError> {
        let records = self.records()?;
        for Record { driver, before } in records.iter().rev() {
            match (driver, before) {
                (ProxyDriver::DaemonSet(set), Before::DaemonSet(before)) => {
                    set.start(&Cluster::of(self.node)?, before)?;
                }
                (ProxyDriver::StaticPod(pod), Before::StaticPod(before)) => pod.start(self.dir, before)?,
                (ProxyDriver::Systemd(unit), Before::Unit) => unit.start()?,
                (ProxyDriver::Process(_), Before::Process(before)) if !runs => {
                    Bare::start(before, &self.log("start.log"))?;
                }
                _ => {}
            }
        }
        if let (ProxyDriver::Commands { start: Some(start), .. }, false) = (driver, runs) {
            run(start, &self.log("start.log"))?;
            return Ok(true);
        }
        Ok(!records.is_empty())
    }

    /// Forgets what was there before, once it is there again.
    pub(super) fn forget(&self) -> Result<(), DriverError> {
        StaticPod::forget(self.dir)?;
        match fs::remove_file(self.file()) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Io { action: "remove", path: self.file(), source }.into())
            }
            _ => Ok(()),
        }
    }

    /// Why a kube-proxy that is stopped would come back; `None`: nothing is known that starts it.
    pub(super) fn comes_back(&self, driver: &ProxyDriver) -> Result<Option<String>, DriverError> {
        match driver {
            ProxyDriver::Operator | ProxyDriver::Commands { .. } | ProxyDriver::Process(_) => Ok(None),
            ProxyDriver::DaemonSet(set) => Ok(set.wants_node(&Cluster::of(self.node)?)?),
            ProxyDriver::StaticPod(pod) => pod.comes_back(),
            ProxyDriver::Systemd(unit) => unit.comes_back(),
        }
    }
}

/// Runs a command of the operator's. What it says goes to a file, since what it leaves running may hold on to its output.
fn run(command: &str, log: &Path) -> Result<(), DriverError> {
    let log_text = log.to_string_lossy();
    let args = ["-c", "exec >\"$1\" 2>&1 </dev/null; eval \"$2\"", "sh", &log_text, command];
    let output = command::run("sh", args, None)?;
    if output.status.success() {
        return Ok(());
    }
    let said = fs::read_to_string(log).unwrap_or_default();
    let said = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
    Err(DriverError::Command { command: command.to_owned(), status: output.status.to_string(), said })
}
