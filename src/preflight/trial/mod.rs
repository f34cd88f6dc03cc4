//! Trying it: what the running kernel does when it is asked to.
//!
//! A child process does all of it, in a network namespace and a cgroup of its own that nobody else is in: nothing is attached to
//! a device, a cgroup or a namespace of the node, and nothing stays. What is asked for may make the kernel load a module.

mod kernel;
mod network;
mod sockets;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::answer::Answer;
use crate::capture::command::{self, CommandError};

/// What a trial came to, and how that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// The answer.
    pub answer: Answer,
    /// What was done, and what the kernel said.
    pub reason: String,
}

impl Tried {
    fn works(reason: impl Display) -> Self {
        Self { answer: Answer::Works, reason: reason.to_string() }
    }

    fn lacks(reason: impl Display) -> Self {
        Self { answer: Answer::Lacks, reason: reason.to_string() }
    }

    fn unknown(reason: impl Display) -> Self {
        Self { answer: Answer::Unknown, reason: reason.to_string() }
    }

    /// A refusal: for want of rights it says nothing of the kernel.
    fn refused(what: &str, error: &io::Error) -> Self {
        let reason = format!("{what}: {error}");
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => Self::unknown(reason),
            _ => Self::lacks(reason),
        }
    }

    fn of<T>(what: &str, result: io::Result<T>) -> Self {
        match result {
            Ok(_) => Self::works(what),
            Err(error) => Self::refused(what, &error),
        }
    }
}

/// Trials by the names of features.
pub type Trials = BTreeMap<String, Tried>;

/// Why nothing could be tried.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The child could not be run.
    #[error("cannot run the trials")]
    Run(#[from] CommandError),
    /// The child failed.
    #[error("the trials failed: {said}")]
    Failed {
        /// What it said.
        said: String,
    },
    /// Its answer cannot be read.
    #[error("cannot read what the trials found")]
    Answer(#[from] serde_json::Error),
    /// The program's own file is not known.
    #[error("cannot find kpx itself")]
    Program(#[source] io::Error),
}

/// A cgroup for the trials, gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn below(cgroup: &Path) -> io::Result<Self> {
        let path = cgroup.join(format!("kpx-preflight-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The child's sockets may hold it for a moment after the child has ended.
        for _ in 0..20 {
            match fs::remove_dir(&self.0) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                _ => return,
            }
        }
    }
}

/// Tries everything in a child process; `cgroup` is the root of cgroup2, if there is one.
pub fn run(cgroup: Option<&Path>) -> Result<Trials, TrialError> {
    let program = std::env::current_exe().map_err(TrialError::Program)?;
    let scratch = match cgroup {
        Some(root) => Scratch::below(root).map_err(|e| e.to_string()),
        None => Err("no cgroup2 hierarchy is mounted".to_owned()),
    };
    let input = serde_json::to_vec(&scratch.as_ref().map(|scratch| scratch.0.clone()).map_err(Clone::clone))?;
    let output = command::run(&program.to_string_lossy(), ["preflight-trial"], Some(&input))?;
    if !output.status.success() {
        return Err(TrialError::Failed { said: String::from_utf8_lossy(&output.stderr).trim().to_owned() });
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The child's side: `request` is what [`run`] wrote, the answer is what it reads.
pub fn serve(request: &str) -> Result<String, serde_json::Error> {
    let cgroup: Result<PathBuf, String> = serde_json::from_str(request)?;
    let mut trials = Trials::new();
    kernel::try_all(&mut trials);
    sockets::load_all(&mut trials);
    match isolate() {
        Ok(()) => {
            network::try_all(&mut trials);
            sockets::try_all(&mut trials, cgroup.as_deref().map_err(String::as_str));
        }
        Err(error) => {
            let tried = Tried::unknown(format!("no network namespace of its own to try it in: {error}"));
            for name in network::NAMES {
                trials.insert((*name).to_owned(), tried.clone());
            }
        }
    }
    serde_json::to_string(&trials)
}

/// Moves this process, which has one thread, into a new network namespace.
fn isolate() -> io::Result<()> {
    network::unshare()?;
    network::loopback_up()
}
