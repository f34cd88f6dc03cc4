//! Holds what is pinned open, so that a pin that somebody takes away can be made again.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use super::error::DataplaneError;
use super::pins::Paths;
use crate::inspect::bpf::sys;

/// Every pinned map and program of a dataplane, held open. With the maps live what sockets remember.
///
/// Links are not held: one that is unpinned while somebody holds it stays attached, and would be attached twice after it is
/// made again.
#[derive(Debug)]
pub struct Keeper {
    held: Vec<(PathBuf, OwnedFd)>,
}

impl Keeper {
    /// Opens everything that is pinned.
    pub fn hold(paths: &Paths) -> Result<Self, DataplaneError> {
        let mut held = Vec::new();
        for directory in [paths.maps(), paths.programs()] {
            for entry in fs_err::read_dir(directory)? {
                let path = entry?.path();
                let failed = |source| DataplaneError::Object { action: "open", path: path.clone(), source };
                let object = sys::obj_get(&path).map_err(failed)?;
                held.push((path, object));
            }
        }
        Ok(Self { held })
    }

    /// Pins again what is no longer pinned, and tells what that was.
    pub fn restore(&self, paths: &Paths) -> Result<Vec<PathBuf>, DataplaneError> {
        let mut restored = Vec::new();
        for (path, object) in self.held.iter().filter(|(path, _)| !path.exists()) {
            for directory in [paths.maps(), paths.programs(), paths.links()] {
                fs_err::create_dir_all(directory)?;
            }
            let failed = |source| DataplaneError::Object { action: "pin", path: path.clone(), source };
            sys::obj_pin(object.as_fd(), path).map_err(failed)?;
            restored.push(path.clone());
        }
        Ok(restored)
    }
}
