//! Which objects are pinned where.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

use super::sys::{self, Kind};

/// Most files looked at: a filesystem with more pins is walked in part.
const MOST_PINS: usize = 20_000;

/// Pins of objects, by kind and id.
pub(super) type Pins = BTreeMap<(u8, u32), Vec<PathBuf>>;

/// The key of an object among pins.
pub(super) const fn key(kind: Kind, id: u32) -> (u8, u32) {
    (kind as u8, id)
}

/// All pins below these directories. What cannot be opened is left out.
pub(super) fn all(directories: &[PathBuf]) -> Pins {
    let mut pins = Pins::new();
    let mut left = directories.to_vec();
    let mut looked = 0;
    while let Some(directory) = left.pop() {
        for entry in fs_err::read_dir(&directory).into_iter().flatten().flatten() {
            looked += 1;
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file()
                && looked <= MOST_PINS
                && let Some((kind, id)) = identify(&entry.path())
            {
                pins.entry(key(kind, id)).or_default().push(entry.path());
            }
        }
    }
    pins
}

/// Ids of the programs pinned right in a directory.
pub(crate) fn programs(directory: &Path) -> BTreeSet<u32> {
    let entries = fs_err::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| identify(&entry.path()))
        .filter(|(kind, _)| *kind == Kind::Program)
        .map(|(_, id)| id)
        .collect()
}

/// What a pin holds.
fn identify(path: &Path) -> Option<(Kind, u32)> {
    let fd = sys::obj_get(path).ok()?;
    let target = fs_err::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
    let target = target.to_str()?;
    if target.ends_with("bpf-prog") {
        Some((Kind::Program, sys::program_info(fd.as_fd()).ok()?.id))
    } else if target.ends_with("bpf-map") {
        Some((Kind::Map, sys::map_info(fd.as_fd()).ok()?.id))
    } else if target.ends_with("bpf_link") || target.ends_with("bpf-link") {
        Some((Kind::Link, sys::link_info(fd.as_fd()).ok()?.id))
    } else {
        None
    }
}

/// Where BPF filesystems are mounted in this mount namespace.
pub(super) fn mounts() -> Vec<PathBuf> {
    let text = fs_err::read_to_string("/proc/self/mounts").unwrap_or_default();
    let bpf = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "bpf").then(|| PathBuf::from(unescape(place)))
    });
    bpf.collect()
}

/// Octal escapes of /proc/self/mounts: space, tab, newline and backslash.
fn unescape(place: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(place.to_owned(), |text, (code, plain)| text.replace(code, plain))
}
