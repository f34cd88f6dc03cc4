//! Other people's programs on the hooks that we use.
//!
//! The kernel runs, for one socket, the programs of its own cgroup first, in the order in which they were attached, then
//! those of each cgroup above (kernel/bpf/cgroup.c, `compute_effective_progs`; programs attached with `BPF_F_PREORDER`
//! come before all others). Ours are attached last to their cgroup. So what comes before them is: on the same cgroup,
//! whatever was there before; and for sockets further down, whatever is attached on the way.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::DataplaneError;
use super::hooks::HOOKS;
use super::pins::Paths;
use crate::inspect::bpf::{self, sys};

/// Where a foreign program runs in relation to ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// Before ours: it sees, and may change, the address that we would translate.
    Before,
    /// After ours: it sees the backend's address.
    After,
}

/// A foreign program on a hook that we use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForeignHook {
    /// The cgroup it is attached to.
    pub cgroup: PathBuf,
    /// The hook, such as `connect4`.
    pub hook: String,
    /// Its id.
    pub program_id: u32,
    /// Its name.
    pub name: String,
    /// Where it runs in relation to ours.
    pub position: Position,
}

/// Foreign programs on our hooks: of our cgroup, those above and those below.
pub fn foreign_hooks(paths: &Paths) -> Result<Vec<ForeignHook>, DataplaneError> {
    let ours = bpf::pinned_programs(&paths.programs());
    let mut found = Vec::new();
    let mut above = paths.cgroup.parent();
    while let Some(cgroup) = above.filter(|dir| dir.join("cgroup.procs").is_file()) {
        found.extend(query(cgroup, &ours, |_| Position::After)?);
        above = cgroup.parent();
    }
    found.extend(query(
        &paths.cgroup,
        &ours,
        |before_ours| if before_ours { Position::Before } else { Position::After },
    )?);
    let mut below = children(&paths.cgroup);
    while let Some(cgroup) = below.pop() {
        // Cgroups come and go all the time.
        found.extend(query(&cgroup, &ours, |_| Position::Before).unwrap_or_default());
        below.extend(children(&cgroup));
    }
    Ok(found)
}

/// Those of [`foreign_hooks`] that run before ours.
pub fn hooks_in_front(paths: &Paths) -> Result<Vec<ForeignHook>, DataplaneError> {
    Ok(foreign_hooks(paths)?.into_iter().filter(|hook| hook.position == Position::Before).collect())
}

fn children(cgroup: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs_err::read_dir(cgroup) else { return Vec::new() };
    entries.flatten().filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path()).collect()
}

fn query(
    cgroup: &Path,
    ours: &BTreeSet<u32>,
    position: impl Fn(bool) -> Position,
) -> Result<Vec<ForeignHook>, DataplaneError> {
    let directory = fs_err::File::open(cgroup)?;
    let mut found = Vec::new();
    for hook in &HOOKS {
        let ids = sys::cgroup_programs(directory.as_fd(), hook.number, false)
            .map_err(|source| DataplaneError::Object { action: "query", path: cgroup.to_owned(), source })?;
        let our_place = ids.iter().position(|id| ours.contains(id)).unwrap_or(ids.len());
        for (place, &program_id) in ids.iter().enumerate().filter(|(_, id)| !ours.contains(id)) {
            found.push(ForeignHook {
                cgroup: cgroup.to_owned(),
                hook: bpf::attach_type_name(hook.number),
                program_id,
                name: bpf::program_name(program_id).unwrap_or_default(),
                position: position(place < our_place),
            });
        }
    }
    Ok(found)
}
