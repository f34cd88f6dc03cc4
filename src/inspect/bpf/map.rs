//! One map of the host, whoever made it, and its entries by the types it was made with.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

use super::names;
use super::objects::{BpfError, each, text};
use super::owner::Owner;
use super::sys::{self, Entries, Kind, MapInfo};
use crate::error::Hinted;
use crate::inspect::btf::{Btf, Hint, Shape};

/// A map as an operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// By its id.
    Id(u32),
    /// By its name, of which the kernel keeps 15 characters.
    Name(String),
    /// By its pin.
    Pin(PathBuf),
}

impl FromStr for Which {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.parse() {
            Ok(id) => Self::Id(id),
            Err(_) if text.contains('/') => Self::Pin(PathBuf::from(text)),
            Err(_) => Self::Name(text.to_owned()),
        })
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => write!(f, "{name}"),
            Self::Pin(pin) => write!(f, "{}", pin.display()),
        }
    }
}

/// Why a map cannot be shown.
#[derive(Debug, Error)]
pub enum MapError {
    /// Listing failed.
    #[error(transparent)]
    List(#[from] BpfError),
    /// There is no such map.
    #[error("no BPF map {which} on this host")]
    NotThere {
        /// As given.
        which: Which,
    },
    /// There are several.
    #[error("{} BPF maps are called {name}", .ids.len())]
    Many {
        /// As given.
        name: String,
        /// Their ids.
        ids: Vec<u32>,
    },
    /// It cannot be opened.
    #[error("cannot open BPF map {which}")]
    Open {
        /// As given.
        which: Which,
        /// Why.
        source: io::Error,
    },
    /// The pin is of another kind of object.
    #[error("{} pins something else than a map", .pin.display())]
    NoMap {
        /// The pin.
        pin: PathBuf,
    },
    /// Entries of this type cannot be listed.
    #[error("the entries of a {kind} map cannot be listed")]
    NoEntries {
        /// Its type.
        kind: String,
    },
    /// Reading failed.
    #[error("cannot read BPF map {name}")]
    Read {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

impl Hinted for MapError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::List(error) => error.hints(),
            Self::NotThere { .. } | Self::NoMap { .. } => vec!["list what there is: kpx inspect maps".to_owned()],
            Self::Many { ids, .. } => ids.iter().map(|id| format!("show one of them: kpx inspect map {id}")).collect(),
            Self::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                vec!["run as root: it needs CAP_SYS_ADMIN".to_owned()]
            }
            Self::Open { .. } | Self::NoEntries { .. } | Self::Read { .. } => Vec::new(),
        }
    }
}

/// An opened map.
#[derive(Debug)]
pub struct OpenMap {
    fd: OwnedFd,
    info: MapInfo,
    /// Its name, cut by the kernel after 15 characters.
    pub name: String,
    /// Its type, such as `hash`.
    pub kind: String,
    /// Name of the type of its keys, where the kernel was told.
    pub key_type: Option<String>,
    /// Name of the type of its values, where the kernel was told.
    pub value_type: Option<String>,
    key: Shape,
    value: Shape,
}

/// `BPF_MAP_TYPE_ARRAY` and `BPF_MAP_TYPE_PERCPU_ARRAY`.
const ARRAYS: [u32; 2] = [2, 6];

impl OpenMap {
    /// Opens a map. Of several with one name it is the one in `ours`, this dataplane's directory of maps.
    pub fn open(which: &Which, ours: Option<&Path>) -> Result<Self, MapError> {
        let failed = |source| MapError::Open { which: which.clone(), source };
        let not_there = || MapError::NotThere { which: which.clone() };
        let fd = match which {
            Which::Id(id) => sys::by_id(Kind::Map, *id).map_err(failed)?.ok_or_else(not_there)?,
            Which::Name(name) => match ours.map(|maps| sys::obj_get(&maps.join(name))) {
                Some(Ok(fd)) if is_map(&fd) => fd,
                _ => by_name(name)?.ok_or_else(not_there)?,
            },
            Which::Pin(pin) => match sys::obj_get(pin) {
                Ok(fd) if is_map(&fd) => fd,
                Ok(_) => return Err(MapError::NoMap { pin: pin.clone() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_there()),
                Err(error) => return Err(failed(error)),
            },
        };
        let info = sys::map_info(fd.as_fd()).map_err(failed)?;
        Ok(Self::of(fd, info))
    }

    fn of(fd: OwnedFd, info: MapInfo) -> Self {
        let name = text(&info.name);
        // A map of ours or Cilium's says by its fields' names what an address is.
        let known = matches!(Owner::of(&name, &[], false), Owner::Kpx | Owner::Cilium);
        let hint = if known { Hint::Network } else { Hint::None };
        // A map whose types are not known, or not understood, is still so many bytes.
        let btf = (info.btf_id != 0).then(|| Btf::parse(&sys::btf(info.btf_id).ok()?).ok()).flatten();
        let typed = |id: u32, size: u32| {
            let btf = btf.as_ref()?;
            let shape = Shape::of(btf, id, hint).filter(|shape| shape.size() == size as usize)?;
            Some((shape, Some(btf.name(id)).filter(|name| !name.is_empty())))
        };
        let number = (Shape::Int { size: 4, signed: false }, None);
        let bytes = |size| (Shape::Bytes { size: size as usize }, None);
        let (key, key_type) = match typed(info.btf_key_type_id, info.key_size) {
            Some(known) => known,
            None if ARRAYS.contains(&info.kind) => number,
            None => bytes(info.key_size),
        };
        let (value, value_type) =
            typed(info.btf_value_type_id, info.value_size).unwrap_or_else(|| bytes(info.value_size));
        Self { fd, name, kind: names::map(info.kind), key_type, value_type, key, value, info }
    }

    /// Its id.
    pub const fn id(&self) -> u32 {
        self.info.id
    }

    /// Size of a key, bytes.
    pub const fn key_size(&self) -> u32 {
        self.info.key_size
    }

    /// Size of a value, bytes; of one copy in a per-CPU map.
    pub const fn value_size(&self) -> u32 {
        self.info.value_size
    }

    /// Most entries it can hold.
    pub const fn max_entries(&self) -> u32 {
        self.info.max_entries
    }

    /// Whether it has an entry for each number below its size, used or not.
    pub fn is_array(&self) -> bool {
        ARRAYS.contains(&self.info.kind)
    }

    /// How a key is read.
    pub const fn key(&self) -> &Shape {
        &self.key
    }

    /// How a value is read: one copy of it in a per-CPU map.
    pub const fn value(&self) -> &Shape {
        &self.value
    }

    /// The copies in what [`Self::each`] gives as a value: one, or one a processor.
    pub fn copies<'a>(&self, value: &'a [u8]) -> Option<std::slice::ChunksExact<'a, u8>> {
        sys::copies(&self.info).map(|stride| value.chunks_exact(stride))
    }

    /// Reads the entries, in the kernel's order, until `visit` says that it has enough.
    pub fn each(&self, mut visit: impl FnMut(&[u8], &[u8]) -> bool) -> Result<(), MapError> {
        let failed = |source: io::Error| match source.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::EINVAL | ENOTSUPP) => MapError::NoEntries { kind: self.kind.clone() },
            _ => MapError::Read { name: self.name.clone(), source },
        };
        let mut entries = Entries::new(self.fd.as_fd(), &self.info).map_err(failed)?;
        while let Some(page) = entries.page().map_err(failed)? {
            for (key, value) in page {
                if !visit(key, value) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The kernel's own error, which has no name outside of it.
const ENOTSUPP: i32 = 524;

fn is_map(fd: &OwnedFd) -> bool {
    use std::os::fd::AsRawFd as _;
    let target = fs_err::read_link(Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string()));
    target.is_ok_and(|target| target.to_string_lossy().ends_with("bpf-map"))
}

fn by_name(name: &str) -> Result<Option<OwnedFd>, MapError> {
    let mut found = Vec::new();
    each(Kind::Map, "maps", |id, fd| {
        let kept = text(&sys::map_info(fd.as_fd())?.name);
        if kept == name || kept.len() == 15 && name.starts_with(&kept) {
            found.push((id, fd));
        }
        Ok(())
    })?;
    match found.len() {
        0 | 1 => Ok(found.pop().map(|(_, fd)| fd)),
        _ => Err(MapError::Many { name: name.to_owned(), ids: found.into_iter().map(|(id, _)| id).collect() }),
    }
}
