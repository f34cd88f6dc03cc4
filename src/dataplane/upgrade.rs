//! Takes a dataplane that another kpx pinned over to this kpx's programs and layout, with nothing unattached for a moment.
//!
//! The new programs, and maps where their definition has changed, are pinned in a place of their own (`staged`). Then every link
//! gets its new program, one by one, then the place is renamed (`replacing`), then the pins move to where those of the old
//! ones are. A run that is killed before the renaming is as if it had not been, but for links that have new programs already:
//! the next run stages anew and gives every link that one. After the renaming, any run only has to move what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd as _;

use kpx_abi::{LAYOUT_VERSION, map_name};
use sha2::{Digest as _, Sha256};

use super::error::DataplaneError;
use super::load::{self, gone};
use super::pins::{Missing, Paths, Pinned};
use super::{Capacity, layouts, links, packet, recover};
use crate::inspect::bpf::sys;

/// How the name of a mark begins: an empty directory that says of which layout the pins are, and which object the programs
/// are from: `object-LAYOUT-DIGEST`.
const MARK: &str = "object-";

/// What an upgrade has replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The layout found; the present one where only programs were replaced.
    pub from: u32,
    /// The present layout.
    pub to: u32,
}

fn mark_of(object: &[u8]) -> String {
    // Eight bytes tell a node's few objects apart.
    let digest = Sha256::digest(object).iter().take(8).fold(0_u64, |digest, byte| digest << 8 | u64::from(*byte));
    format!("{MARK}{LAYOUT_VERSION}-{digest:016x}")
}

/// The layout that a mark names.
fn layout_of(mark: &str) -> Option<u32> {
    mark.strip_prefix(MARK)?.split_once('-')?.0.parse().ok()
}

/// Writes down that the programs pinned there are from this object.
pub(super) fn mark(paths: &Paths, object: &[u8]) -> Result<(), DataplaneError> {
    Ok(fs_err::create_dir_all(paths.pins.join(mark_of(object)))?)
}

/// Whether the programs pinned there are from this object.
pub(super) fn is_marked(paths: &Paths, object: &[u8]) -> bool {
    paths.pins.join(mark_of(object)).exists()
}

fn marks(paths: &Paths) -> Result<Vec<String>, DataplaneError> {
    let names = names(&paths.pins)?;
    Ok(names.into_iter().filter(|name| name.starts_with(MARK)).collect())
}

/// Removes the mark.
pub(super) fn unmark(paths: &Paths) -> Result<(), DataplaneError> {
    for name in marks(paths)? {
        gone(fs_err::remove_dir(paths.pins.join(name)))?;
    }
    Ok(())
}

fn names(directory: &std::path::Path) -> Result<Vec<String>, DataplaneError> {
    match fs_err::read_dir(directory) {
        Ok(entries) => {
            Ok(entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<io::Result<_>>()?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Brings what is pinned to this object and the present layout; what was replaced, if anything. `before` is called ahead of
/// each change that others can see.
pub(super) fn upgrade(
    paths: &Paths,
    object: &[u8],
    capacity: &Capacity,
    before: &mut dyn FnMut() -> Result<(), DataplaneError>,
) -> Result<Option<Upgrade>, DataplaneError> {
    let mut found = paths.look()?;
    if found == Pinned::Replacing {
        refuse_newer(paths)?;
        replace_pins(paths, before)?;
        found = paths.look()?;
    }
    if matches!(found, Pinned::Damaged(_)) {
        let maps = recover::maps(paths)?;
        if !maps.is_empty() {
            return Err(Missing { maps, programs: Vec::new() }.error(paths));
        }
        found = paths.look()?;
    }
    let is_damaged = matches!(found, Pinned::Damaged(_));
    if let Pinned::Damaged(missing) = &found {
        // The kernel has freed what no program uses any more.
        for name in &missing.maps {
            tracing::warn!("map {name} was gone with all that used it: it is made anew, empty");
        }
    }
    let from = match found {
        // What is missing is made anew, as by an upgrade.
        Pinned::Complete | Pinned::Damaged(_) => LAYOUT_VERSION,
        Pinned::Older(version) => version,
        Pinned::Newer(version) => return Err(newer(paths, version)),
        // Nothing to upgrade; an installation sees to it.
        Pinned::Nothing | Pinned::Remains | Pinned::Replacing => return Ok(None),
    };
    if from == LAYOUT_VERSION && is_marked(paths, object) && !is_damaged {
        // Links can have programs of an upgrade that a newer kpx began and did not come through with.
        renew(paths, paths, before)?;
        return Ok(None);
    }
    before()?;
    stage(paths, object, from, capacity)?;
    renew(paths, &paths.staged(), before)?;
    before()?;
    fs_err::rename(paths.staged().pins, paths.replacing().pins)?;
    replace_pins(paths, before)?;
    Ok(Some(Upgrade { from, to: LAYOUT_VERSION }))
}

fn newer(paths: &Paths, found: u32) -> DataplaneError {
    DataplaneError::Newer { pins: paths.pins.clone(), found, known: LAYOUT_VERSION }
}

fn refuse_newer(paths: &Paths) -> Result<(), DataplaneError> {
    match marks(&paths.replacing())?.iter().find_map(|mark| layout_of(mark)) {
        Some(version) if version > LAYOUT_VERSION => Err(newer(paths, version)),
        _ => Ok(()),
    }
}

/// Gives every link the program of this place.
fn renew(
    paths: &Paths,
    place: &Paths,
    before: &mut dyn FnMut() -> Result<(), DataplaneError>,
) -> Result<(), DataplaneError> {
    links::renew(paths, &place.programs(), before)?;
    packet::renew(paths, &place.programs(), before)
}

/// Loads the object beside what serves, with the old maps where these are what it defines, and the others filled.
fn stage(paths: &Paths, object: &[u8], from: u32, capacity: &Capacity) -> Result<(), DataplaneError> {
    let staged = paths.staged();
    if staged.pins.exists() {
        load::unpin_one(&staged)?;
    }
    let parsed = aya_obj::Object::parse(object).map_err(|source| DataplaneError::Parse { source: Box::new(source) })?;
    let mut sizes = load::sizes(capacity);
    let mut kept = BTreeMap::new();
    for name in map_name::ALL {
        let Some(wanted) = parsed.maps.get(name) else { continue };
        let path = paths.maps().join(name);
        let failed = |source| DataplaneError::Object { action: "ask about", path: path.clone(), source };
        let old = match sys::obj_get(&path) {
            Ok(fd) => sys::map_info(fd.as_fd()).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(failed(source)),
        };
        let size = sizes.get_mut(name);
        let same = [old.kind, old.key_size, old.value_size, old.flags]
            == [wanted.map_type(), wanted.key_size(), wanted.value_size(), wanted.map_flags()];
        if same && (size.is_some() || old.max_entries == wanted.max_entries()) {
            kept.insert(name, path);
        } else if layouts::can_carry(from, name) {
            // It has to take all that the old one holds.
            if let Some(size) = size {
                *size = old.max_entries.max(*size);
            }
        } else {
            let pins = paths.pins.clone();
            return Err(DataplaneError::Carry { pins, map: name, from, to: LAYOUT_VERSION });
        }
    }
    load::load_and_pin(&staged, object, &sizes, &kept)?;
    layouts::carry(from, &paths.maps(), &staged.maps())?;
    mark(&staged, object)
}

/// Moves the pins of an upgrade to the places of those before, and takes away what no longer has a place.
fn replace_pins(paths: &Paths, before: &mut dyn FnMut() -> Result<(), DataplaneError>) -> Result<(), DataplaneError> {
    let new = paths.replacing();
    // As long as there is a new mark, nothing of the old is needed: the marks go first and the new one comes last.
    let marks_left = marks(&new)?;
    if !marks_left.is_empty() {
        before()?;
        unmark(paths)?;
    }
    for directory in [paths.maps(), paths.programs(), paths.links()] {
        fs_err::create_dir_all(directory)?;
    }
    for (from, to) in [(new.maps(), paths.maps()), (new.programs(), paths.programs())] {
        for name in names(&from)? {
            before()?;
            fs_err::rename(from.join(&name), to.join(&name))?;
        }
    }
    let known: BTreeSet<String> = links::programs().map(str::to_owned).collect();
    for name in names(&paths.programs())?.into_iter().filter(|name| !known.contains(name)) {
        gone(fs_err::remove_file(paths.programs().join(name)))?;
    }
    for name in names(&paths.maps())?.into_iter().filter(|name| !map_name::ALL.contains(&name.as_str())) {
        gone(fs_err::remove_file(paths.maps().join(name)))?;
    }
    for version in marks_left.iter().filter_map(|mark| layout_of(mark)) {
        before()?;
        layouts::set_version(&paths.maps(), version)?;
    }
    for name in marks_left {
        before()?;
        fs_err::rename(new.pins.join(&name), paths.pins.join(&name))?;
    }
    before()?;
    load::unpin_one(&new)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

    use super::super::Dataplane;
    use super::super::hooks::HOOKS;
    use super::*;

    /// Each link's id and that of its program, after it was seen to be on its hook.
    fn links(paths: &Paths) -> Vec<(u32, u32)> {
        let of = |name: &str| {
            let fd = sys::obj_get(&paths.links().join(name)).unwrap();
            let info = sys::link_info(fd.as_fd()).unwrap();
            assert_ne!(info.cgroup().0, 0, "{name} is off its hook");
            (info.id, info.program_id)
        };
        HOOKS.iter().map(|hook| of(hook.program)).collect()
    }

    fn pinned(paths: &Paths) -> Vec<u32> {
        let of = |name: &str| {
            let fd = sys::obj_get(&paths.programs().join(name)).unwrap();
            sys::program_info(fd.as_fd()).unwrap().id
        };
        HOOKS.iter().map(|hook| of(hook.program)).collect()
    }

    fn killed() -> DataplaneError {
        io::Error::other("killed").into()
    }

    /// How many steps an upgrade has; at each of them one is killed, and the next one finishes.
    fn kill_everywhere(paths: &Paths) -> usize {
        let capacity = Capacity::default();
        let mut dataplane = Dataplane::install(paths, &capacity).unwrap();
        dataplane.attach().unwrap();
        drop(dataplane);
        // Each round loads the object twice; every third step is as good as all for steps of a kind that are alike.
        for last in (0..4).chain((4..).step_by(3)) {
            // As if the layout before had been the same but for its number.
            unmark(paths).unwrap();
            layouts::set_version(&paths.maps(), LAYOUT_VERSION - 1).unwrap();
            let before = links(paths);
            let mut steps = 0;
            let mut step = || {
                // Whatever is there at this moment, everything is attached.
                assert_eq!(links(paths).len(), HOOKS.len());
                steps += 1;
                if steps > last { Err(killed()) } else { Ok(()) }
            };
            let first = upgrade(paths, load::OBJECT, &capacity, &mut step);
            let finished = first.is_ok();
            if !finished {
                upgrade(paths, load::OBJECT, &capacity, &mut || Ok(())).unwrap();
            }
            let after = links(paths);
            for (before, after) in before.iter().zip(&after) {
                assert_eq!(before.0, after.0, "after {last} steps: the link stays");
                assert_ne!(before.1, after.1, "after {last} steps: its program does not");
            }
            assert_eq!(after.iter().map(|link| link.1).collect::<Vec<_>>(), pinned(paths), "after {last} steps");
            assert!(is_marked(paths, load::OBJECT));
            assert_eq!(layouts::version(&paths.maps()).unwrap(), Some(LAYOUT_VERSION));
            assert_eq!(paths.look().unwrap(), Pinned::Complete);
            assert!(!paths.staged().pins.exists() && !paths.replacing().pins.exists());
            if finished {
                return steps;
            }
        }
        0
    }

    #[test]
    fn one_that_is_killed_anywhere_is_finished_by_the_next() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root (cgroups, BPF)");
            return;
        }
        let mounts = fs_err::read_to_string("/proc/self/mounts").unwrap();
        let cgroups =
            mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| words[2] == "cgroup2");
        let Some(cgroups) = cgroups else {
            println!("skipped: no cgroup2 filesystem is mounted");
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        mount("bpf", directory.path(), "bpf", MountFlags::empty(), None).unwrap();
        let cgroup = Path::new(cgroups[1]).join(format!("kpx-upgrade-unit-{}", std::process::id()));
        fs_err::create_dir(&cgroup).unwrap();
        let paths = Paths { pins: directory.path().join("kpx"), cgroup };
        let done = std::panic::catch_unwind(|| {
            // Every link, and moving every pin of what is replaced.
            assert!(kill_everywhere(&paths) > 2 * HOOKS.len());
            Dataplane::remove(&paths).unwrap();
            assert!(!paths.pins.exists(), "nothing is left");
        });
        let _ = Dataplane::remove(&paths);
        let _ = unmount(directory.path(), UnmountFlags::DETACH);
        fs_err::remove_dir(&paths.cgroup).unwrap();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}
