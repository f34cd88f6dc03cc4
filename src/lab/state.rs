//! What a lab has made, written down before it is made, so that it can be removed after a crash.
//!
//! One directory a lab:
//!
//! ```text
//! /run/kpx/lab/NAME/
//!   lab.json        this record
//!   bpf/            a bpf file system of the lab's own; kpx pins below bpf/kpx
//!   state/          --state-dir of kpx in the lab
//!   api/            Services, EndpointSlices and Nodes of the snapshot, for --services-from
//!   pages/          what kube-proxy's own ports answered
//!   cgroup2/        a mount of cgroup2, if the machine had none
//! ```

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::LabError;

/// Where labs are kept.
pub(super) const ROOT: &str = "/run/kpx/lab";

/// The record of a lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Layout of this file.
    pub version: u32,
    /// Name of the lab.
    pub name: String,
    /// Name of the Node it plays.
    pub node_name: String,
    /// The snapshot it was made from.
    pub from: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Its cgroup: what `--cgroup` wants. Clients are in `clients` below.
    pub cgroup: PathBuf,
    /// The cgroup2 mount that was made for it, if any.
    pub cgroup_mount: Option<PathBuf>,
    /// The process that is bringing it up, until it has.
    pub builder: Option<Process>,
    /// Processes that run in it.
    pub processes: Vec<Process>,
    /// Whether bringing it up came to its end.
    pub complete: bool,
}

/// A process of a lab. The start time tells it from a later one with the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `backends` or `client`.
    pub role: String,
    /// Process number.
    pub pid: u32,
    /// Clock ticks after boot at which it started (proc_pid_stat(5), field 22).
    pub start: u64,
}

/// The names that follow from a lab's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    lab: String,
}

impl Names {
    /// Names of the lab `name`, which has to be short and plain.
    pub fn new(name: &str) -> Result<Self, LabError> {
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if name.is_empty() || name.len() > 20 || !plain || name.starts_with('-') {
            return Err(LabError::BadName { name: name.to_owned() });
        }
        Ok(Self { lab: name.to_owned() })
    }

    /// The node's namespace: what `--netns` wants.
    pub fn node(&self) -> String {
        format!("kpx-lab-{}-node", self.lab)
    }

    /// The namespace of the gateway, the other nodes and their pods.
    pub fn outside(&self) -> String {
        format!("kpx-lab-{}-out", self.lab)
    }

    /// The namespace of the node's pods.
    pub fn pods(&self) -> String {
        format!("kpx-lab-{}-pods", self.lab)
    }

    /// The namespace of the pod with the clients.
    pub fn client(&self) -> String {
        format!("kpx-lab-{}-client", self.lab)
    }

    /// All namespaces.
    pub fn namespaces(&self) -> [String; 4] {
        [self.node(), self.outside(), self.pods(), self.client()]
    }

    /// Name of the lab's cgroup.
    pub(super) fn cgroup(&self) -> String {
        format!("kpx-lab-{}", self.lab)
    }

    /// The lab's directory.
    pub fn directory(&self) -> PathBuf {
        Path::new(ROOT).join(&self.lab)
    }

    /// The mount point of its bpf file system.
    pub(super) fn bpf_mount(&self) -> PathBuf {
        self.directory().join("bpf")
    }

    /// What `--bpffs` wants.
    pub fn bpffs(&self) -> PathBuf {
        self.bpf_mount().join("kpx")
    }

    /// What `--state-dir` wants.
    pub fn state_dir(&self) -> PathBuf {
        self.directory().join("state")
    }

    /// What `--services-from` wants.
    pub fn api(&self) -> PathBuf {
        self.directory().join("api")
    }

    /// Answers of kube-proxy's own ports.
    pub(super) fn pages(&self) -> PathBuf {
        self.directory().join("pages")
    }

    fn record(&self) -> PathBuf {
        self.directory().join("lab.json")
    }
}

impl Record {
    /// Reads the record of a lab; `None` where there is none, or only a torn one.
    pub(super) fn read(names: &Names) -> Result<Option<Self>, LabError> {
        match fs_err::read(names.record()) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the record, whole or not at all.
    pub(super) fn write(&self, names: &Names) -> Result<(), LabError> {
        let path = names.record();
        let mut text = serde_json::to_vec_pretty(self).map_err(io::Error::from)?;
        text.push(b'\n');
        let beside = path.with_extension("new");
        fs_err::write(&beside, text)?;
        fs_err::rename(&beside, &path)?;
        Ok(())
    }
}

impl Process {
    /// A process that runs now; `None` if it has ended already.
    pub(super) fn running(role: &str, pid: u32) -> Option<Self> {
        start_time(pid).map(|start| Self { role: role.to_owned(), pid, start })
    }

    /// Whether it still runs.
    pub(super) fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.start)
    }
}

/// Start time of a process that is no zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces and parentheses itself.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The names of all labs on this machine, also of those that are half gone.
pub(super) fn all() -> Result<Vec<Names>, LabError> {
    let mut found = Vec::new();
    match fs_err::read_dir(ROOT) {
        Ok(entries) => {
            for entry in entries {
                if let Some(names) = entry?.file_name().to_str().and_then(|name| Names::new(name).ok()) {
                    found.push(names);
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    found.sort_by(|a, b| a.lab.cmp(&b.lab));
    Ok(found)
}

impl std::fmt::Display for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.lab)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_short() {
        assert_eq!(Names::new("demo").unwrap().node(), "kpx-lab-demo-node");
        for bad in ["", "../x", "UPPER", "-x", "a b", "a-name-that-is-far-too-long"] {
            assert!(matches!(Names::new(bad), Err(LabError::BadName { .. })), "{bad}");
        }
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = Process::running("test", std::process::id()).expect("this process runs");
        assert!(own.alive());
        assert!(!Process { start: own.start + 1, ..own }.alive());
    }
}
