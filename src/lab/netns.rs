//! Doing something inside a network namespace, from a thread of its own.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::LabError;

/// Where `ip netns` keeps the names.
const NAMED: &str = "/run/netns";

/// Whether a namespace of this name is there.
pub(super) fn exists(name: &str) -> bool {
    Path::new(NAMED).join(name).exists()
}

/// Moves the calling thread into a namespace. Threads and processes it starts afterwards follow; others stay.
pub(super) fn enter(name: &str) -> Result<(), LabError> {
    let failed = |source| LabError::Namespace { name: name.to_owned(), source };
    let file = fs_err::File::open(Path::new(NAMED).join(name)).map_err(failed)?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|e| failed(e.into()))
}

/// Runs `work` inside a namespace; the calling thread stays where it is.
pub(super) fn inside<T: Send>(name: &str, work: impl FnOnce() -> Result<T, LabError> + Send) -> Result<T, LabError> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| enter(name).and_then(|()| work()));
        match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
