//! Programs on the hooks of cgroups, in the order in which they run.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::objects::{self, BpfError, Known};
use super::owner::Owner;
use super::{names, sys};

/// `BPF_F_ALLOW_OVERRIDE` and `BPF_F_ALLOW_MULTI`.
const OVERRIDE: u32 = 1;
const MULTI: u32 = 2;

/// A program on a hook of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OnCgroup {
    /// The cgroup.
    pub cgroup: PathBuf,
    /// The hook, such as `connect4`.
    pub hook: String,
    /// Place among the programs of the hook, from 1: the order in which they run.
    pub order: usize,
    /// What programs further down may do: `multi` (run too), `override` (run instead), `exclusive` (not be there); `None`
    /// if no program is attached to this cgroup itself.
    pub sharing: Option<&'static str>,
    /// The program's id.
    pub program_id: u32,
    /// The program's name.
    pub program: String,
    /// Whose it is.
    pub owner: Owner,
    /// Whether it is pinned where this dataplane is.
    pub ours: bool,
}

/// Cgroups below a root, the root among them, by id (inode number).
pub(super) fn below(root: &Path) -> BTreeMap<u64, PathBuf> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        let Ok(metadata) = fs_err::metadata(&directory) else { continue };
        let entries = fs_err::read_dir(&directory).into_iter().flatten().flatten();
        left.extend(entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        found.insert(metadata.ino(), directory);
    }
    found
}

/// What is attached to the cgroups below a root, by cgroup and hook. `ours` is the directory of this dataplane's pins.
pub fn attached(ours: &Path, root: &Path) -> Result<Vec<OnCgroup>, BpfError> {
    let known = objects::known_programs(ours)?;
    let mut found = Vec::new();
    let mut cgroups: Vec<PathBuf> = below(root).into_values().collect();
    cgroups.sort();
    for cgroup in cgroups {
        match on_hooks(&cgroup, false, &known) {
            Ok(hooked) => found.extend(hooked),
            // Cgroups come and go, except for the one that was named.
            Err(source) if cgroup == root => return Err(BpfError::Cgroup { cgroup, source }),
            Err(_) => {}
        }
    }
    Ok(found)
}

/// What runs for the sockets and processes of one cgroup: its own programs and those of the cgroups above it.
pub fn effective(ours: &Path, cgroup: &Path) -> Result<Vec<OnCgroup>, BpfError> {
    let known = objects::known_programs(ours)?;
    on_hooks(cgroup, true, &known).map_err(|source| BpfError::Cgroup { cgroup: cgroup.to_owned(), source })
}

fn on_hooks(cgroup: &Path, effective: bool, known: &BTreeMap<u32, Known>) -> io::Result<Vec<OnCgroup>> {
    let directory = fs_err::File::open(cgroup)?;
    let mut found = Vec::new();
    for (number, hook) in names::cgroup_hooks() {
        let own = match sys::cgroup_attached(directory.as_fd(), number) {
            Ok(own) => own,
            // A hook that this kernel does not have.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => continue,
            Err(error) => return Err(error),
        };
        let sharing = match own.flags {
            _ if own.ids.is_empty() => None,
            flags if flags & MULTI != 0 => Some("multi"),
            flags if flags & OVERRIDE != 0 => Some("override"),
            _ => Some("exclusive"),
        };
        let ids = if effective { sys::cgroup_programs(directory.as_fd(), number, true)? } else { own.ids };
        found.extend(ids.into_iter().enumerate().map(|(i, program_id)| {
            let Known { name, owner, ours } = known.get(&program_id).cloned().unwrap_or_default();
            let (cgroup, hook) = (cgroup.to_owned(), hook.to_owned());
            OnCgroup { cgroup, hook, order: i + 1, sharing, program_id, program: name, owner, ours }
        }));
    }
    Ok(found)
}
