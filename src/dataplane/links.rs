//! Attaches programs as pinned links, which outlive the process.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use super::attach::{PACKET_HOOKS, SHORT_CUT};
use super::error::DataplaneError;
use super::hooks::{HOOKS, Hook};
use super::load::gone;
use super::pins::Paths;
use crate::failpoint;
use crate::inspect::bpf::sys;

/// Which programs are attached to the cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// None.
    Detached,
    /// Some; these are not.
    Partly(Vec<&'static str>),
    /// All.
    Attached,
}

enum Link {
    Missing,
    /// Pinned, and off its cgroup: it was detached, or the cgroup is gone.
    Loose,
    Attached,
}

fn open(path: &Path) -> Result<Option<OwnedFd>, DataplaneError> {
    match sys::obj_get(path) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataplaneError::Object { action: "open", path: path.to_owned(), source }),
    }
}

fn look(path: &Path, cgroup_id: u64, paths: &Paths) -> Result<Link, DataplaneError> {
    let Some(fd) = open(path)? else { return Ok(Link::Missing) };
    let info = sys::link_info(fd.as_fd()).map_err(|source| DataplaneError::Object {
        action: "ask about",
        path: path.to_owned(),
        source,
    })?;
    match info.cgroup().0 {
        0 => Ok(Link::Loose),
        id if id == cgroup_id => Ok(Link::Attached),
        _ => Err(DataplaneError::OtherCgroup { link: path.to_owned(), cgroup: paths.cgroup.clone() }),
    }
}

pub(super) fn attach(paths: &Paths) -> Result<(), DataplaneError> {
    let cgroup_id = paths.cgroup_id()?;
    for hook in &HOOKS {
        let path = paths.links().join(hook.program);
        match look(&path, cgroup_id, paths)? {
            Link::Attached => continue,
            Link::Loose => gone(fs_err::remove_file(&path))?,
            Link::Missing => {}
        }
        attach_one(paths, hook, &path)?;
    }
    Ok(())
}

fn attach_one(paths: &Paths, hook: &Hook, path: &PathBuf) -> Result<(), DataplaneError> {
    let link = hook.attach(&paths.programs().join(hook.program), paths.open_cgroup()?)?;
    link.pin(path).map_err(|source| DataplaneError::Pin { path: path.clone(), source: Box::new(source) })?;
    failpoint::changed();
    Ok(())
}

/// Gives every attached link the program of `programs` that it is named for, what restores addresses first; `before` is
/// called ahead of each. What is not attached stays so.
pub(super) fn renew(
    paths: &Paths,
    programs: &Path,
    before: &mut dyn FnMut() -> Result<(), DataplaneError>,
) -> Result<(), DataplaneError> {
    for hook in &HOOKS {
        renew_one(&paths.links().join(hook.program), &programs.join(hook.program), before)?;
    }
    Ok(())
}

/// Gives a pinned link another program, unless it has that; nothing where there is no such link, or it is off its hook.
pub(super) fn renew_one(
    link: &Path,
    program: &Path,
    before: &mut dyn FnMut() -> Result<(), DataplaneError>,
) -> Result<(), DataplaneError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| DataplaneError::Object { action, path, source }
    };
    let Some(fd) = open(link)? else { return Ok(()) };
    let now = sys::link_info(fd.as_fd()).map_err(failed("ask about", link))?;
    let new = sys::obj_get(program).map_err(failed("open", program))?;
    let wanted = sys::program_info(new.as_fd()).map_err(failed("ask about", program))?;
    // Of every kind of link, the first word of its place is 0 once its hook is gone: part of a cgroup's id, an interface.
    let off = now.interface() == 0;
    if off || now.program_id == wanted.id {
        return Ok(());
    }
    before()?;
    sys::link_update(fd.as_fd(), new.as_fd()).map_err(failed("replace the program of", link))
}

/// The names of all programs.
pub(super) fn programs() -> impl Iterator<Item = &'static str> {
    HOOKS.iter().map(|hook| hook.program).chain(PACKET_HOOKS.iter().map(|hook| hook.program)).chain([SHORT_CUT])
}

pub(super) fn attachment(paths: &Paths) -> Result<Attachment, DataplaneError> {
    let cgroup_id = paths.cgroup_id()?;
    let mut missing = Vec::new();
    for hook in &HOOKS {
        match look(&paths.links().join(hook.program), cgroup_id, paths)? {
            Link::Attached => {}
            Link::Loose | Link::Missing => missing.push(hook.program),
        }
    }
    Ok(match missing.len() {
        0 => Attachment::Attached,
        n if n == HOOKS.len() => Attachment::Detached,
        _ => Attachment::Partly(missing),
    })
}

pub(super) fn detach(paths: &Paths) -> Result<(), DataplaneError> {
    for hook in HOOKS.iter().rev() {
        let path = paths.links().join(hook.program);
        let Some(fd) = open(&path)? else { continue };
        // At once, where the kernel can (Linux 5.9): a link whose last holder goes is detached by a worker, some time
        // later. Elsewhere that has to do.
        let _ = sys::link_detach(fd.as_fd());
        gone(fs_err::remove_file(&path))?;
        failpoint::changed();
    }
    Ok(())
}
