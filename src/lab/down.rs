//! Removing a lab: by its recorded names, as often as one likes, whatever is left of it.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use super::error::in_a_line;
use super::state::{self, Names, Process, Record};
use super::{LabError, netns};
use crate::capture::{cgroup, command};

/// A lab in the list of labs.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its names.
    pub names: Names,
    /// Its record; `None` if the lab died while it was made.
    pub record: Option<Record>,
    /// Whether all of it is there.
    pub whole: bool,
}

impl Listed {
    /// The options with which other commands of kpx act on the lab's node; none for a lab without a record.
    pub fn options(&self) -> Vec<String> {
        self.record.as_ref().map(|record| super::up::options(&self.names, record)).unwrap_or_default()
    }
}

/// The labs of this machine.
pub fn list() -> Result<Vec<Listed>, LabError> {
    let mut labs = Vec::new();
    for names in state::all()? {
        let record = Record::read(&names)?;
        let backends = |r: &Record| r.processes.iter().any(|p| p.role == "backends" && p.alive());
        let whole = record.as_ref().is_some_and(|r| r.complete && backends(r) && r.cgroup.exists())
            && names.namespaces().iter().all(|name| netns::exists(name));
        labs.push(Listed { names, record, whole });
    }
    Ok(labs)
}

/// Time for a program to end whose parent was killed.
const SETTLE: Duration = Duration::from_millis(200);

/// Removes a lab. What is gone already is no error; everything is tried before anything is reported.
pub fn down(name: &str) -> Result<(), LabError> {
    let names = Names::new(name)?;
    if !names.directory().exists() && !names.namespaces().iter().any(|n| netns::exists(n)) {
        return Err(LabError::Unknown { name: name.to_owned() });
    }
    if !rustix::process::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let record = Record::read(&names)?;
    if let Some(builder) = record.as_ref().and_then(|record| record.builder.as_ref())
        && builder.alive()
        && builder.pid != std::process::id()
    {
        return Err(LabError::Busy { name: name.to_owned(), pid: builder.pid });
    }
    if record.as_ref().is_none_or(|record| !record.complete) {
        // A program that the builder started may still be at work, such as `ip` making namespaces.
        thread::sleep(SETTLE);
    }
    let mut left = Vec::new();
    if let Some(record) = &record {
        for process in &record.processes {
            if let Err(error) = end(process) {
                left.push(format!("process {} ({}): {error}", process.pid, process.role));
            }
        }
    }
    // The pins go first: with them the programs leave the cgroup.
    for point in mounts_below(&names.bpf_mount())? {
        if let Err(error) = unmount_at(&point) {
            left.push(in_a_line(&error));
        }
    }
    for cgroup in cgroups(&names, record.as_ref()) {
        remove_cgroups(&cgroup, &mut left);
    }
    for namespace in names.namespaces() {
        if netns::exists(&namespace)
            && let Err(error) = command::output("ip", ["netns", "delete", &namespace], None)
        {
            left.push(error.to_string());
        }
    }
    for point in mounts_below(&names.directory())? {
        if let Err(error) = unmount_at(&point) {
            left.push(in_a_line(&error));
        }
    }
    if !left.is_empty() {
        return Err(LabError::LeftBehind { name: name.to_owned(), left });
    }
    match fs_err::remove_dir_all(names.directory()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => {
            // The parents stay while somebody else has something there.
            for parent in Path::new(state::ROOT).ancestors().take(2) {
                let _ = fs_err::remove_dir(parent);
            }
            Ok(())
        }
    }
}

/// Kills a process that is still the recorded one, and waits for its end.
fn end(process: &Process) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(process.pid.cast_signed()) else { return Ok(()) };
    if !process.alive() {
        return Ok(());
    }
    match kill_process(pid, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error.into()),
    }
    let patience = Instant::now() + Duration::from_secs(5);
    while process.alive() {
        if Instant::now() > patience {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Where the lab's cgroup is, or would be if its record is torn.
fn cgroups(names: &Names, record: Option<&Record>) -> Vec<PathBuf> {
    match record {
        Some(record) => vec![record.cgroup.clone()],
        None => cgroup::root().map(|root| root.join(names.cgroup())).into_iter().collect(),
    }
}

/// Removes a cgroup and those below, once nothing runs in them.
fn remove_cgroups(path: &Path, left: &mut Vec<String>) {
    let below = match fs_err::read_dir(path) {
        Ok(entries) => entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()),
        Err(_) => return,
    };
    for child in below {
        remove_cgroups(&child, left);
    }
    let patience = Instant::now() + Duration::from_secs(2);
    loop {
        match rustix::fs::rmdir(path) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => return,
            Err(rustix::io::Errno::BUSY) if Instant::now() < patience => thread::sleep(Duration::from_millis(20)),
            Err(error) => {
                let processes = fs_err::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
                let processes: Vec<&str> = processes.lines().collect();
                left.push(format!("cgroup {} ({error}; processes: {})", path.display(), processes.join(", ")));
                return;
            }
        }
    }
}

/// Mount points at a path and below, deepest first.
fn mounts_below(path: &Path) -> Result<Vec<PathBuf>, LabError> {
    let text = fs_err::read_to_string("/proc/self/mountinfo")?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut points: Vec<PathBuf> = points.filter(|point| point.starts_with(path)).collect();
    points.reverse();
    Ok(points)
}

fn unmount_at(path: &Path) -> Result<(), LabError> {
    unmount(path, UnmountFlags::empty())
        .map_err(|error| LabError::Unmount { path: path.to_owned(), source: error.into() })
}
