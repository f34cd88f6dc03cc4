//! Moving this process into a network namespace.

use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::Hinted;

/// Where `ip netns add` puts names.
const NAMED: &str = "/run/netns";

/// Why the namespace could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// It could not be opened.
    #[error("cannot open network namespace {name}")]
    Open {
        /// As given.
        name: String,
        /// Why, with the path.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot enter network namespace {name}")]
    Enter {
        /// As given.
        name: String,
        /// Why.
        source: io::Error,
    },
}

impl NetnsError {
    /// Whether there is no such namespace, or no longer.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Open { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl Hinted for NetnsError {
    fn hints(&self) -> Vec<String> {
        let (Self::Open { source, .. } | Self::Enter { source, .. }) = self;
        match source.kind() {
            io::ErrorKind::NotFound => {
                vec!["list the names with: ip netns list; a path such as /proc/PID/ns/net also works".to_owned()]
            }
            io::ErrorKind::PermissionDenied => vec!["run kpx as root".to_owned()],
            io::ErrorKind::InvalidInput => vec!["the file is not a network namespace".to_owned()],
            _ => Vec::new(),
        }
    }
}

/// The file of a namespace: a name from `ip netns` has no slash, anything else is a path.
pub fn path(name_or_path: &str) -> PathBuf {
    if name_or_path.contains('/') { PathBuf::from(name_or_path) } else { Path::new(NAMED).join(name_or_path) }
}

/// Moves the calling thread, and with it every thread and child that it starts later, into a network namespace.
///
/// The command line does so before anything else, while the process has one thread.
pub fn enter(name_or_path: &str) -> Result<(), NetnsError> {
    let name = || name_or_path.to_owned();
    let file = fs_err::File::open(path(name_or_path)).map_err(|source| NetnsError::Open { name: name(), source })?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|e| NetnsError::Enter { name: name(), source: e.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths() {
        assert_eq!(path("node-a"), Path::new("/run/netns/node-a"));
        assert_eq!(path("/proc/1/ns/net"), Path::new("/proc/1/ns/net"));
        assert_eq!(path("./ns"), Path::new("./ns"));
    }

    #[test]
    fn what_is_no_namespace_is_refused() {
        let missing = enter("kpx-no-such-namespace").expect_err("no such name");
        assert!(missing.hints()[0].contains("ip netns list"));
        assert!(matches!(enter("/proc/self/status"), Err(NetnsError::Enter { .. })));
    }
}
