//! What can go wrong with a lab.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::capture::CaptureError;
use crate::capture::command::CommandError;
use crate::error::Hinted;
use crate::model::Protocol;

/// Why a lab, or something in it, did not work.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces, mounts and cgroups need root.
    #[error("a lab needs root: it makes network namespaces, a cgroup and a bpf file system")]
    NotRoot,
    /// A lab of that name is there.
    #[error("lab {name} is already up")]
    Exists {
        /// Its name.
        name: String,
    },
    /// Somebody is bringing that lab up just now.
    #[error("lab {name} is being brought up by process {pid}")]
    Busy {
        /// Its name.
        name: String,
        /// Who does.
        pid: u32,
    },
    /// No lab of that name is there.
    #[error("there is no lab called {name}")]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// The name cannot be part of file and namespace names.
    #[error("{name:?} cannot name a lab: 1 to 20 of a-z, 0-9 and - are allowed")]
    BadName {
        /// The name asked for.
        name: String,
    },
    /// A file could not be read or written; the message names it.
    #[error(transparent)]
    File(#[from] io::Error),
    /// A program could not be run.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A program ran and failed.
    #[error("{program} failed {about}: {message}")]
    Tool {
        /// The program.
        program: String,
        /// What it was to do, such as `in namespace kpx-lab-demo-node`.
        about: String,
        /// What it said on stderr.
        message: String,
    },
    /// Raw state could not be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// kube-proxy's rules could not be lifted.
    #[error(transparent)]
    Rules(#[from] crate::inspect::proxy_rules::RulesError),
    /// What kube-proxy made in ipvs mode could not be read or made.
    #[error(transparent)]
    Removal(#[from] crate::migrate::removal::RemovalError),
    /// The API objects could not be lifted.
    #[error(transparent)]
    Objects(#[from] crate::inspect::kube::KubeError),
    /// A recorded JSON file does not have the expected form.
    #[error("cannot understand {place}")]
    Recorded {
        /// The file.
        place: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The snapshot lacks something a lab cannot do without.
    #[error("the snapshot does not say {what}: {reason}")]
    Missing {
        /// What is missing, such as `the addresses of the node`.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The snapshot is of a node that a lab cannot play.
    #[error("a lab cannot play this node: {reason}")]
    Unsupported {
        /// Why not.
        reason: &'static str,
    },
    /// A network namespace could not be entered.
    #[error("cannot enter network namespace {name}")]
    Namespace {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A mount failed.
    #[error("cannot mount {kind} on {}", path.display())]
    Mount {
        /// The kind of file system.
        kind: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file system could not be unmounted.
    #[error("cannot unmount {}", path.display())]
    Unmount {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel or the tools of this machine lack something that kube-proxy's own rules need.
    #[error("this machine cannot hold kube-proxy's rules: {message}: {rule}")]
    CannotHold {
        /// The first such rule.
        rule: String,
        /// What the tool said.
        message: String,
    },
    /// An nfacct object could not be made.
    #[error("cannot make the nfacct object {name}")]
    Nfacct {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A backend could not listen.
    #[error("cannot listen on {addr}/{protocol} in namespace {netns}")]
    Listen {
        /// Address and port.
        addr: SocketAddr,
        /// Protocol.
        protocol: Protocol,
        /// The namespace.
        netns: String,
        /// Why.
        source: io::Error,
    },
    /// A process of the lab did not say what it should.
    #[error("the lab's {role} process ended early: {message}")]
    Helper {
        /// `backend` or `client`.
        role: &'static str,
        /// What it said last.
        message: String,
    },
    /// Tearing down left something behind.
    #[error("lab {name} is not wholly removed: {}", left.join("; "))]
    LeftBehind {
        /// Its name.
        name: String,
        /// What is left, and why.
        left: Vec<String>,
    },
}

/// The error with its causes, for a process that can only say one line.
pub(super) fn in_a_line(error: &LabError) -> String {
    let mut line = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}

impl Hinted for LabError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::NotRoot => vec!["run it again with sudo".to_owned()],
            Self::Exists { name } => {
                vec![format!("remove it with: kpx lab down {name}"), "or choose another name with --name".to_owned()]
            }
            Self::Unknown { .. } => vec!["list what is there with: kpx lab list".to_owned()],
            Self::LeftBehind { name, .. } => vec![format!("end what uses it, then: kpx lab down {name}")],
            Self::Tool { program, .. } if program.contains("tables") => {
                vec!["the lab restores rules with the iptables and ip6tables of Debian's package iptables".to_owned()]
            }
            Self::Command(error) => error.hints(),
            Self::Capture(error) => error.hints(),
            Self::Rules(error) => error.hints(),
            Self::Removal(error) => error.hints(),
            Self::Objects(error) => error.hints(),
            Self::CannotHold { .. } => vec![
                "rehearse where iptables and the kernel are those of the node, such as in a virtual machine with its image"
                    .to_owned(),
            ],
            Self::Missing { .. } => vec!["record the node with: kpx snapshot DIR".to_owned()],
            _ => Vec::new(),
        }
    }
}
