//! The lists.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use super::owner::Owner;
use super::pinned::{self, Pins};
use super::sys::{self, Kind};
use super::{cgroups, devices, names};
use crate::capture::netlink::NetlinkError;
use crate::error::Hinted;

/// Map types whose keys can be counted by walking through them.
const COUNTABLE: [u32; 6] = [1, 5, 9, 10, 11, 13];
/// `BPF_LINK_TYPE_CGROUP`.
const CGROUP_LINK: u32 = 3;
/// `BPF_LINK_TYPE_XDP`.
const XDP_LINK: u32 = 6;
/// `BPF_LINK_TYPE_TCX`.
const TCX_LINK: u32 = 11;
/// `BPF_LINK_TYPE_NETKIT`.
const NETKIT_LINK: u32 = 13;

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
    /// A cgroup does not tell what is attached to it.
    #[error("cannot ask what is attached to {}", .cgroup.display())]
    Cgroup {
        /// The cgroup.
        cgroup: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Interfaces could not be listed.
    #[error("cannot list what is attached to network interfaces")]
    Devices(#[from] NetlinkError),
}

impl Hinted for BpfError {
    fn hints(&self) -> Vec<String> {
        let (Self::List { source, .. } | Self::Info { source, .. } | Self::Cgroup { source, .. }) = self else {
            return Vec::new();
        };
        match source.kind() {
            io::ErrorKind::PermissionDenied => vec!["run as root: it needs CAP_SYS_ADMIN".to_owned()],
            io::ErrorKind::NotFound => vec!["list what there is: kpx inspect cgroups".to_owned()],
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
    /// How often it ran, since the kernel counts; `None` while it never has (`kernel.bpf_stats_enabled`).
    pub runs: Option<u64>,
    /// Time spent in it meanwhile, nanoseconds.
    pub run_time_ns: Option<u64>,
    /// Whose it is.
    pub owner: Owner,
    /// Whether it is pinned where this dataplane is.
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
    /// Whose it is.
    pub owner: Owner,
    /// Whether it is pinned where this dataplane is.
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
    /// Where it leads; `None` where the kernel does not tell, and once it is detached.
    pub place: Option<Place>,
    /// Where it is pinned.
    pub pinned: Vec<PathBuf>,
    /// Whose it is.
    pub owner: Owner,
    /// Whether it is pinned where this dataplane is.
    pub ours: bool,
}

/// A hook of a cgroup or of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The hook, such as `connect4`.
    pub hook: String,
    /// Path of the cgroup; `None` if it is not below the root given, or gone.
    pub cgroup: Option<PathBuf>,
    /// Name of the interface; `None` if it is in another network namespace.
    pub device: Option<String>,
}

/// A text of the kernel: up to the first zero.
pub(super) fn text(name: &[u8]) -> String {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

/// Opens every object of a kind that is still there when its turn comes.
pub(super) fn each(
    kind: Kind,
    what: &'static str,
    mut visit: impl FnMut(u32, OwnedFd) -> io::Result<()>,
) -> Result<(), BpfError> {
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

/// A program as others speak of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) name: String,
    pub(super) owner: Owner,
    pub(super) ours: bool,
}

/// All programs by id, with their owners.
pub(super) fn known_programs(ours: &Path) -> Result<BTreeMap<u32, Known>, BpfError> {
    let found = described_programs(ours, BTreeMap::new())?;
    Ok(found.into_iter().map(|p| (p.id, Known { name: p.name, owner: p.owner, ours: p.ours })).collect())
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

/// The loaded programs. `ours` is the directory of this dataplane's pins, `cgroups` the root below which cgroups are named.
pub fn programs(ours: &Path, cgroup_root: &Path) -> Result<Vec<Program>, BpfError> {
    let mut attached: BTreeMap<u32, Vec<Place>> = BTreeMap::new();
    for link in links(ours, cgroup_root)? {
        if let Some(place) = link.place {
            attached.entry(link.program_id).or_default().push(place);
        }
    }
    described_programs(ours, attached)
}

fn described_programs(ours: &Path, mut attached: BTreeMap<u32, Vec<Place>>) -> Result<Vec<Program>, BpfError> {
    let (pins, our_pins) = pins_and_ours(ours);
    let mut map_owners = BTreeMap::new();
    each(Kind::Map, "maps", |id, fd| {
        let name = text(&sys::map_info(fd.as_fd())?.name);
        let ours = our_pins.contains_key(&pinned::key(Kind::Map, id));
        map_owners.insert(id, Owner::of(&name, &take(&pins, Kind::Map, id), ours));
        Ok(())
    })?;
    let mut found = Vec::new();
    each(Kind::Program, "programs", |id, fd| {
        let info = sys::program_info(fd.as_fd())?;
        let (name, maps, pinned) = (text(&info.name), sys::program_maps(fd.as_fd())?, take(&pins, Kind::Program, id));
        let ours = our_pins.contains_key(&pinned::key(Kind::Program, id));
        let of_maps = maps.iter().filter_map(|map| map_owners.get(map).copied());
        found.push(Program {
            id,
            owner: Owner::of(&name, &pinned, ours).or_of_maps(of_maps),
            name,
            kind: names::program(info.kind),
            tag: format!("{:016x}", u64::from_be_bytes(info.tag)),
            uid: info.created_by_uid,
            memory: memory(fd.as_fd()),
            maps,
            pinned,
            attached: attached.remove(&id).unwrap_or_default(),
            runs: Some(info.run_cnt).filter(|runs| *runs > 0),
            run_time_ns: Some(info.run_time_ns).filter(|_| info.run_cnt > 0),
            ours,
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
        let (name, pinned) = (text(&info.name), take(&pins, Kind::Map, id));
        let ours = our_pins.contains_key(&pinned::key(Kind::Map, id));
        found.push(Map {
            id,
            owner: Owner::of(&name, &pinned, ours),
            ours,
            name,
            kind: names::map(info.kind),
            key_size: info.key_size,
            value_size: info.value_size,
            max_entries: info.max_entries,
            entries,
            memory: memory(fd.as_fd()),
            pinned,
        });
        Ok(())
    })?;
    Ok(found)
}

/// The links. `ours` is the directory of this dataplane's pins, `cgroup_root` the root below which cgroups are named.
pub fn links(ours: &Path, cgroup_root: &Path) -> Result<Vec<Link>, BpfError> {
    let (pins, our_pins) = pins_and_ours(ours);
    let paths = cgroups::below(cgroup_root);
    let known = known_programs(ours)?;
    // A link tells the index of its interface, but not in which network namespace: only what is found here has a name.
    let devices = devices::attachments()?;
    let device = |interface: u32, program: u32| {
        let found = devices.iter().find(|d| (d.interface, d.program_id) == (interface, program));
        found.map(|attachment| attachment.device.clone())
    };
    let mut found = Vec::new();
    each(Kind::Link, "links", |id, fd| {
        let info = sys::link_info(fd.as_fd())?;
        let on_device = |hook: String| Place { hook, cgroup: None, device: device(info.interface(), info.program_id) };
        let place = match info.kind {
            CGROUP_LINK => {
                let (cgroup, hook) = info.cgroup();
                Some(Place { hook: names::attach_type(hook), cgroup: paths.get(&cgroup).cloned(), device: None })
            }
            XDP_LINK => Some(on_device("xdp".to_owned())).filter(|_| info.interface() != 0),
            TCX_LINK | NETKIT_LINK => {
                Some(on_device(names::attach_type(info.interface_hook()))).filter(|_| info.interface() != 0)
            }
            _ => None,
        };
        let Known { name, owner, .. } = known.get(&info.program_id).cloned().unwrap_or_default();
        let ours = our_pins.contains_key(&pinned::key(Kind::Link, id));
        found.push(Link {
            id,
            kind: names::link(info.kind),
            program_id: info.program_id,
            program: name,
            place,
            pinned: take(&pins, Kind::Link, id),
            owner: if ours { Owner::Kpx } else { owner },
            ours,
        });
        Ok(())
    })?;
    Ok(found)
}
