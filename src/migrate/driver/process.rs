//! A kube-proxy that nobody minds: a process, ended by SIGTERM and started again with the command line that it had.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::DriverError;
use crate::capture::command;

/// A process that is kube-proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bare {
    /// Its number when it was looked at.
    pub pid: u32,
    /// Its command line, for people.
    pub command: String,
    /// Who started it, for people.
    pub parent: String,
}

/// All that it takes to start it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Before {
    argv: Vec<Vec<u8>>,
    environment: Vec<Vec<u8>>,
    folder: PathBuf,
    program: PathBuf,
}

fn proc(pid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

fn words(bytes: &[u8]) -> Vec<Vec<u8>> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() { Vec::new() } else { bytes.split(|b| *b == 0).map(<[u8]>::to_vec).collect() }
}

impl Bare {
    /// Looks at a process; `Err` says why it could not be started again as it is.
    pub(super) fn of(pid: u32) -> Result<Self, String> {
        let read = |name: &str| fs::read(proc(pid, name)).map_err(|error| error.to_string());
        let line = words(&read("cmdline")?);
        let command: Vec<_> = line.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let status = String::from_utf8_lossy(&read("status")?).into_owned();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        let parent = field("PPid:");
        let parent = match fs::read_to_string(format!("/proc/{parent}/comm")) {
            Ok(name) => format!("{} (process {parent})", name.trim()),
            Err(_) => format!("process {parent}"),
        };
        let inode = |path: PathBuf| fs::metadata(path).map(|m| (m.dev(), m.ino())).map_err(|error| error.to_string());
        if inode(proc(pid, "ns/mnt"))? != inode(PathBuf::from("/proc/self/ns/mnt"))? {
            return Err(
                "it has a mount namespace of its own: it is in a container, and only who made that can start it again"
                    .to_owned(),
            );
        }
        let uid = field("Uid:").split_ascii_whitespace().next().unwrap_or_default().to_owned();
        if uid != rustix::process::getuid().as_raw().to_string() {
            return Err(format!("it runs as user {uid}, and kpx would start it as another"));
        }
        Ok(Self { pid, command: command.join(" "), parent })
    }

    /// What it takes to start a running one again.
    pub(super) fn before(pid: u32) -> Result<Before, DriverError> {
        let failed = |source| DriverError::Process { pid, source };
        Ok(Before {
            argv: words(&fs::read(proc(pid, "cmdline")).map_err(failed)?),
            environment: words(&fs::read(proc(pid, "environ")).map_err(failed)?),
            folder: fs::read_link(proc(pid, "cwd")).map_err(failed)?,
            program: fs::read_link(proc(pid, "exe")).map_err(failed)?,
        })
    }

    /// Asks a process to end. One that is gone is no error.
    pub(super) fn stop(pid: u32) -> Result<(), DriverError> {
        let failed = |source: rustix::io::Errno| DriverError::Process { pid, source: source.into() };
        let Some(number) = Pid::from_raw(pid.cast_signed()) else { return Ok(()) };
        let process = match pidfd_open(number, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            opened => opened.map_err(failed)?,
        };
        // The number may be another process's by now, and cannot become one from here on.
        if !is_kube_proxy(pid) {
            return Ok(());
        }
        match pidfd_send_signal(&process, Signal::TERM) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            sent => sent.map_err(failed),
        }
    }

    /// Starts it again, as a process of its own that outlives this one; what it says goes to a file.
    pub(super) fn start(before: &Before, log: &Path) -> Result<(), DriverError> {
        let os = |words: &[Vec<u8>]| words.iter().cloned().map(OsString::from_vec).collect::<Vec<_>>();
        let argv = os(&before.argv);
        // A file that was replaced since is named with this behind it.
        let program = before.program.to_string_lossy();
        let program = PathBuf::from(program.strip_suffix(" (deleted)").unwrap_or(&program));
        Ok(command::start_apart(&program, &argv, &os(&before.environment), &before.folder, log)?)
    }
}

/// Whether a process is called kube-proxy.
pub(super) fn is_kube_proxy(pid: u32) -> bool {
    fs::read_to_string(proc(pid, "comm")).is_ok_and(|name| name.trim() == "kube-proxy")
}
