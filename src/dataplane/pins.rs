//! Where the dataplane is pinned and attached, and whether those places will do.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use kpx_abi::LAYOUT_VERSION;
use rustix::fs::{FsWord, statfs};

use super::attach::{self, PACKET_HOOKS};
use super::error::DataplaneError;
use super::hooks::HOOKS;
use super::layouts;

/// `BPF_FS_MAGIC`.
const BPFFS: FsWord = 0xcafe_4a11;
/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2: FsWord = 0x6367_7270;

/// Where the dataplane of a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Directory of its pins, on a BPF filesystem.
    pub pins: PathBuf,
    /// The cgroup whose sockets it serves, and those below: the root of cgroup2 for a node.
    pub cgroup: PathBuf,
}

impl Paths {
    /// The pinned maps.
    pub fn maps(&self) -> PathBuf {
        self.pins.join("maps")
    }

    /// The pinned programs.
    pub(super) fn programs(&self) -> PathBuf {
        self.pins.join("programs")
    }

    /// The pinned links.
    pub(super) fn links(&self) -> PathBuf {
        self.pins.join("links")
    }

    /// Where an upgrade pins what is to take the place of what serves. Links are not touched yet, or not all of them:
    /// until the last one is, this is worth nothing to anybody else and made anew.
    pub(super) fn staged(&self) -> Self {
        Self { pins: self.pins.join("staged"), cgroup: self.cgroup.clone() }
    }

    /// The same once every link has its new program: whoever comes moves the pins to their places.
    pub(super) fn replacing(&self) -> Self {
        Self { pins: self.pins.join("replacing"), cgroup: self.cgroup.clone() }
    }

    /// Fails unless pins can be made there.
    pub(super) fn check_bpffs(&self) -> Result<(), DataplaneError> {
        let mut place = self.pins.as_path();
        while !place.exists() {
            let Some(parent) = place.parent() else { break };
            place = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        }
        match statfs(place) {
            Ok(found) if found.f_type == BPFFS => Ok(()),
            _ => Err(DataplaneError::NotBpffs { path: place.to_owned() }),
        }
    }

    /// Opens the cgroup; fails unless it is one of version 2.
    pub(super) fn open_cgroup(&self) -> Result<fs_err::File, DataplaneError> {
        let cgroup = fs_err::File::open(&self.cgroup)
            .map_err(|source| DataplaneError::Cgroup { path: self.cgroup.clone(), source })?;
        match rustix::fs::fstatfs(cgroup.as_fd()) {
            Ok(found) if found.f_type == CGROUP2 => Ok(cgroup),
            _ => Err(DataplaneError::NotCgroup2 { path: self.cgroup.clone() }),
        }
    }

    /// The cgroup's id: its inode number.
    pub(super) fn cgroup_id(&self) -> Result<u64, DataplaneError> {
        Ok(self.open_cgroup()?.metadata()?.ino())
    }

    /// What is pinned.
    pub(super) fn look(&self) -> Result<Pinned, DataplaneError> {
        if self.replacing().pins.exists() {
            return Ok(Pinned::Replacing);
        }
        match layouts::version(&self.maps())? {
            Some(version) if version > LAYOUT_VERSION => return Ok(Pinned::Newer(version)),
            // Without a version yet, it is the remains of an installation.
            Some(version) if version > 0 && version < LAYOUT_VERSION => return Ok(Pinned::Older(version)),
            _ => {}
        }
        let names = |directory: &Path| match fs_err::read_dir(directory) {
            Ok(entries) => entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let found =
            Found { maps: names(&self.maps())?, programs: names(&self.programs())?, links: names(&self.links())? };
        match found.judge() {
            // Filters of a qdisc are attached, and have no pin to say so.
            Pinned::Nothing | Pinned::Remains if !attach::filters(self).is_empty() => {
                Ok(Pinned::Damaged(found.missing()))
            }
            judged => Ok(judged),
        }
    }
}

struct Found {
    maps: Vec<String>,
    programs: Vec<String>,
    links: Vec<String>,
}

/// Names of pins that should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// Of maps.
    pub(super) maps: Vec<String>,
    /// Of programs.
    pub(super) programs: Vec<String>,
}

impl Missing {
    /// What to say of it.
    pub(super) fn error(&self, paths: &Paths) -> DataplaneError {
        let maps = self.maps.iter().map(|name| format!("map {name}"));
        let programs = self.programs.iter().map(|name| format!("program {name}"));
        DataplaneError::Damaged { pins: paths.pins.clone(), missing: maps.chain(programs).collect() }
    }
}

/// What is pinned in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pinned {
    /// Nothing at all.
    Nothing,
    /// The remains of an installation or removal that ended half-way; nothing is attached.
    Remains,
    /// Something is attached, and these pins are missing.
    Damaged(Missing),
    /// All maps and programs.
    Complete,
    /// A dataplane of an older layout, this one.
    Older(u32),
    /// A dataplane of a newer layout, this one.
    Newer(u32),
    /// An upgrade that has given every link its new program, and not moved all pins.
    Replacing,
}

impl Found {
    fn missing(&self) -> Missing {
        let lacks = |found: &[String], name: &str| !found.iter().any(|f| f == name);
        let maps = kpx_abi::map_name::ALL.into_iter().filter(|name| lacks(&self.maps, name));
        let names = HOOKS.iter().map(|hook| hook.program).chain(PACKET_HOOKS.iter().map(|hook| hook.program));
        let programs = names.filter(|name| lacks(&self.programs, name));
        Missing { maps: maps.map(str::to_owned).collect(), programs: programs.map(str::to_owned).collect() }
    }

    fn judge(&self) -> Pinned {
        if self.maps.is_empty() && self.programs.is_empty() && self.links.is_empty() {
            return Pinned::Nothing;
        }
        let missing = self.missing();
        match (missing.maps.is_empty() && missing.programs.is_empty(), self.links.is_empty()) {
            (true, _) => Pinned::Complete,
            (false, true) => Pinned::Remains,
            (false, false) => Pinned::Damaged(missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(maps: usize, programs: usize, links: usize) -> Pinned {
        let names = |all: &[&str], n: usize| all.iter().take(n).map(ToString::to_string).collect::<Vec<_>>();
        let hooks: Vec<_> = HOOKS.iter().map(|h| h.program).chain(PACKET_HOOKS.iter().map(|h| h.program)).collect();
        Found {
            maps: names(&kpx_abi::map_name::ALL, maps),
            programs: names(&hooks, programs),
            links: names(&hooks, links),
        }
        .judge()
    }

    #[test]
    fn half_made_is_told_from_damaged() {
        let maps = kpx_abi::map_name::ALL.len();
        assert_eq!(found(0, 0, 0), Pinned::Nothing);
        assert_eq!(found(3, 0, 0), Pinned::Remains);
        assert_eq!(found(maps, 7, 0), Pinned::Remains);
        let all = HOOKS.len() + PACKET_HOOKS.len();
        assert_eq!(found(maps, all, 0), Pinned::Complete);
        assert_eq!(found(maps, all, 3), Pinned::Complete);
        let last = kpx_abi::map_name::ALL[maps - 1];
        let missing = Missing { maps: vec![last.to_owned()], programs: Vec::new() };
        assert_eq!(found(maps - 1, all, 3), Pinned::Damaged(missing));
    }

    #[test]
    fn a_plain_directory_is_no_place_for_pins() {
        let paths = Paths { pins: PathBuf::from("/tmp/no/such/directory"), cgroup: PathBuf::from("/tmp") };
        assert!(matches!(paths.check_bpffs(), Err(DataplaneError::NotBpffs { path }) if path == Path::new("/tmp")));
        assert!(matches!(paths.open_cgroup(), Err(DataplaneError::NotCgroup2 { .. })));
    }
}
