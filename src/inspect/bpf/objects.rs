//! The lists.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use super::names;
use super::pinned::{self, Pins};
use super::sys::{self, Kind};
use crate::error::Hinted;

/// Map types whose keys can be counted by walking through them.
const COUNTABLE: [u32; 6] = [1, 5, 9, 10, 11, 13];
/// `BPF_LINK_TYPE_CGROUP`.
const CGROUP_LINK: u32 = 3;

/// What can go wrong with listing.
#[derive(Debug, Error)]
pub enum BpfError {
    /// The kernel does not list its objects.
    #[error("cannot list the kernel's BPF {what}")]
    List {
        /// programs, maps or links.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// An object cannot be asked about.
    #[error("cannot ask about BPF {what} {id}")]
    Info {
        /// program, map or link.
        what: &'static str,
        /// Its id.
        id: u32,
        /// Why.
        source: io::Error,
    },
}

impl Hinted for BpfError {
    fn hints(&self) -> Vec<String> {
        let (Self::List { source, .. } | Self::Info { source, .. }) = self;
        match source.kind() {
            io::ErrorKind::PermissionDenied => vec!["run as root: listing needs CAP_SYS_ADMIN".to_owned()],
            _ => Vec::new(),
        }
    }
}

/// A loaded program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Its id.
    pub id: u32,
    /// Its name, cut by the kernel after 15 characters.
    pub name: String,
    /// Its type, such as `cgroup_sock_addr`.
    pub kind: String,
    /// Hash of its instructions, hexadecimal.
    pub tag: String,
    /// User id of who loaded it.
    pub uid: u32,
    /// Memory it is charged for, bytes.
    pub memory: Option<u64>,
    /// Ids of the maps it uses.
    pub maps: Vec<u32>,
    /// Where it is pinned.
    pub pinned: Vec<PathBuf>,
    /// Where it is attached by links.
    pub attached: Vec<Place>,
    /// Whether it is one of this dataplane's.
    pub ours: bool,
}

/// A loaded map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Map {
    /// Its id.
    pub id: u32,
    /// Its name, cut by the kernel after 15 characters.
    pub name: String,
    /// Its type, such as `hash`.
    pub kind: String,
    /// Size of a key, bytes.
    pub key_size: u32,
    /// Size of a value, bytes; of one copy in a per-CPU map.
    pub value_size: u32,
    /// Most entries it can hold; 0 for storage that belongs to sockets, tasks and the like.
    pub max_entries: u32,
    /// Entries it holds; `None` where they cannot be counted. An array always holds all.
    pub entries: Option<u64>,
    /// Memory it is charged for, bytes.
    pub memory: Option<u64>,
    /// Where it is pinned.
    pub pinned: Vec<PathBuf>,
    /// Whether it is one of this dataplane's.
    pub ours: bool,
}

/// A link: a program on a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Its id.
    pub id: u32,
    /// Its type, such as `cgroup`.
    pub kind: String,
    /// The program's id.
    pub program_id: u32,
    /// The program's name.
    pub program: String,
    /// Where it leads; `None` for types other than cgroup links.
    pub place: Option<Place>,
    /// Where it is pinned.
    pub pinned: Vec<PathBuf>,
    /// Whether it is one of this dataplane's.
    pub ours: bool,
}

/// A hook of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The hook, such as `connect4`.
    pub hook: String,
    /// Path of the cgroup; `None` if it is not below the root given, or gone.
    pub cgroup: Option<PathBuf>,
}

fn text(name: &[u8]) -> String {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

/// Opens every object of a kind that is still there when its turn comes.
fn each(kind: Kind, what: &'static str, mut visit: impl FnMut(u32, OwnedFd) -> io::Result<()>) -> Result<(), BpfError> {
    for id in sys::ids(kind).map_err(|source| BpfError::List { what, source })? {
        let failed = |source| BpfError::Info { what, id, source };
        if let Some(fd) = sys::by_id(kind, id).map_err(failed)? {
            visit(id, fd).map_err(failed)?;
        }
    }
    Ok(())
}

/// The `memlock` line of a descriptor's fdinfo.
fn memory(fd: BorrowedFd<'_>) -> Option<u64> {
    let info = fs_err::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}

fn pins_and_ours(ours: &Path) -> (Pins, Pins) {
    let mut places = pinned::mounts();
    if !places.iter().any(|mount| ours.starts_with(mount)) {
        places.push(ours.to_owned());
    }
    (pinned::all(&places), pinned::all(&[ours.to_owned()]))
}

fn take(pins: &Pins, kind: Kind, id: u32) -> Vec<PathBuf> {
    let mut found = pins.get(&pinned::key(kind, id)).cloned().unwrap_or_default();
    found.sort();
    found.dedup();
    found
}

/// Name of a loaded program; `None` if it is gone.
pub(crate) fn program_name(id: u32) -> Option<String> {
    let fd = sys::by_id(Kind::Program, id).ok()??;
    Some(text(&sys::program_info(fd.as_fd()).ok()?.name))
}

/// Paths of the cgroups below a root, by id (inode number).
fn cgroups(root: &Path) -> BTreeMap<u64, PathBuf> {
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

/// The loaded programs. `ours` is the directory of this dataplane's pins, `cgroups` the root below which cgroups are named.
pub fn programs(ours: &Path, cgroup_root: &Path) -> Result<Vec<Program>, BpfError> {
    let (pins, our_pins) = pins_and_ours(ours);
    let mut attached: BTreeMap<u32, Vec<Place>> = BTreeMap::new();
    for link in links(ours, cgroup_root)? {
        if let Some(place) = link.place {
            attached.entry(link.program_id).or_default().push(place);
        }
    }
    let mut found = Vec::new();
    each(Kind::Program, "programs", |id, fd| {
        let info = sys::program_info(fd.as_fd())?;
        found.push(Program {
            id,
            name: text(&info.name),
            kind: names::program(info.kind),
            tag: format!("{:016x}", u64::from_be_bytes(info.tag)),
            uid: info.created_by_uid,
            memory: memory(fd.as_fd()),
            maps: sys::program_maps(fd.as_fd())?,
            pinned: take(&pins, Kind::Program, id),
            attached: attached.remove(&id).unwrap_or_default(),
            ours: our_pins.contains_key(&pinned::key(Kind::Program, id)),
        });
        Ok(())
    })?;
    Ok(found)
}

/// The loaded maps. `ours` is the directory of this dataplane's pins.
pub fn maps(ours: &Path) -> Result<Vec<Map>, BpfError> {
    let (pins, our_pins) = pins_and_ours(ours);
    let mut found = Vec::new();
    each(Kind::Map, "maps", |id, fd| {
        let info = sys::map_info(fd.as_fd())?;
        let array = [2, 6].contains(&info.kind);
        let entries = if array {
            Some(u64::from(info.max_entries))
        } else if COUNTABLE.contains(&info.kind) {
            // A map frozen for user space cannot be walked through; that is no reason to fail.
            sys::count_keys(fd.as_fd()).ok()
        } else {
            None
        };
        found.push(Map {
            id,
            name: text(&info.name),
            kind: names::map(info.kind),
            key_size: info.key_size,
            value_size: info.value_size,
            max_entries: info.max_entries,
            entries,
            memory: memory(fd.as_fd()),
            pinned: take(&pins, Kind::Map, id),
            ours: our_pins.contains_key(&pinned::key(Kind::Map, id)),
        });
        Ok(())
    })?;
    Ok(found)
}

/// The links. `ours` is the directory of this dataplane's pins, `cgroup_root` the root below which cgroups are named.
pub fn links(ours: &Path, cgroup_root: &Path) -> Result<Vec<Link>, BpfError> {
    let (pins, our_pins) = pins_and_ours(ours);
    let paths = cgroups(cgroup_root);
    let mut found = Vec::new();
    each(Kind::Link, "links", |id, fd| {
        let info = sys::link_info(fd.as_fd())?;
        let place = (info.kind == CGROUP_LINK)
            .then(|| Place { hook: names::attach_type(info.attach_type), cgroup: paths.get(&info.cgroup_id).cloned() });
        found.push(Link {
            id,
            kind: names::link(info.kind),
            program_id: info.program_id,
            program: program_name(info.program_id).unwrap_or_default(),
            place,
            pinned: take(&pins, Kind::Link, id),
            ours: our_pins.contains_key(&pinned::key(Kind::Link, id)),
        });
        Ok(())
    })?;
    Ok(found)
}
