//! Cilium's pinned maps, read into typed entries.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::layout::{Affinity, Backend, CtEntry, NatEntry, ServiceKey, ServiceValue, SourceRange, Tuple, TupleKind};
use super::notice::Notice;
use crate::error::Hinted;
use crate::inspect::bpf::sys::monotonic_ns;
use crate::inspect::bpf::{MapError, OpenMap, Which};
use crate::inspect::entry;
use crate::model::Family;

/// Where Cilium pins its maps.
pub const PINS: &str = "/sys/fs/bpf/tc/globals";

/// Names of one kind of map, for IPv4 and IPv6.
type Names = [&'static str; 2];
pub(super) const SERVICES: Names = ["cilium_lb4_services_v2", "cilium_lb6_services_v2"];
pub(super) const BACKENDS: Names = ["cilium_lb4_backends_v3", "cilium_lb6_backends_v3"];
pub(super) const RANGES: Names = ["cilium_lb4_source_range", "cilium_lb6_source_range"];
pub(super) const AFFINITY: Names = ["cilium_lb4_affinity", "cilium_lb6_affinity"];
const MAGLEV: Names = ["cilium_lb4_maglev", "cilium_lb6_maglev"];
const CONNTRACK: [Names; 2] =
    [["cilium_ct4_global", "cilium_ct6_global"], ["cilium_ct_any4_global", "cilium_ct_any6_global"]];
const NAT: Names = ["cilium_snat_v4_external", "cilium_snat_v6_external"];

/// Why Cilium's maps cannot be read.
#[derive(Debug, Error)]
pub enum CiliumError {
    /// None is pinned there.
    #[error("no maps of Cilium are pinned in {}", .directory.display())]
    NotThere {
        /// The directory.
        directory: PathBuf,
    },
    /// Those of one kind are not pinned.
    #[error("Cilium keeps no {what} in {}", .directory.display())]
    Without {
        /// What they hold.
        what: &'static str,
        /// The directory.
        directory: PathBuf,
    },
    /// A map could not be read.
    #[error(transparent)]
    Map(#[from] MapError),
}

impl Hinted for CiliumError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::NotThere { .. } => vec![
                "Cilium runs here only if these are listed: kpx inspect maps -o wide".to_owned(),
                format!("where its maps are pinned is told by --cilium-pins (default {PINS})"),
            ],
            Self::Without { .. } => vec!["list what there is: kpx inspect maps -o wide".to_owned()],
            Self::Map(error) => error.hints(),
        }
    }
}

/// What serves Services: frontends with their slots, backends, source ranges.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Services, by key.
    pub services: BTreeMap<ServiceKey, ServiceValue>,
    /// Backends, by family and id: ids of the two families are apart.
    pub backends: BTreeMap<(Family, u32), Backend>,
    /// Source ranges.
    pub ranges: Vec<SourceRange>,
    /// What was met and not understood.
    pub notices: Vec<Notice>,
}

/// A directory of Cilium's pins.
#[derive(Clone, Debug)]
pub struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// The pins of a directory.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Opens a map; `None` if it is not pinned.
    fn open(&self, name: &str) -> Result<Option<OpenMap>, CiliumError> {
        match OpenMap::open(&Which::Pin(self.directory.join(name)), None) {
            Ok(map) => Ok(Some(map)),
            Err(MapError::NotThere { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the maps of both families that are pinned; `read` makes something of an entry, `None` of one that is of another
    /// size than expected. What was found, and how many maps there are.
    fn each<T>(
        &self,
        names: Names,
        notices: &mut Vec<Notice>,
        read: impl Fn(&[u8], &[u8], Family) -> Option<T>,
    ) -> Result<(Vec<T>, usize), CiliumError> {
        let (mut found, mut maps) = (Vec::new(), 0);
        for (name, family) in names.into_iter().zip(Family::BOTH) {
            let Some(map) = self.open(name)? else { continue };
            maps += 1;
            let mut odd = 0_u64;
            map.each(|key, value| {
                match read(key, value, family) {
                    Some(entry) => found.push(entry),
                    None => odd += 1,
                }
                true
            })?;
            if odd > 0 {
                let (key_size, value_size) = (map.key_size(), map.value_size());
                notices.push(Notice::Layout { map: name, key_size, value_size });
            }
        }
        Ok((found, maps))
    }

    /// Reads what serves Services.
    pub fn state(&self) -> Result<State, CiliumError> {
        let mut state = State::default();
        let notices = &mut state.notices;
        let (services, maps) =
            self.each(SERVICES, notices, |k, v, family| Some((ServiceKey::read(k, family)?, ServiceValue::read(v)?)))?;
        if maps == 0 {
            return Err(CiliumError::NotThere { directory: self.directory.clone() });
        }
        let id = |key: &[u8]| key.try_into().ok().map(u32::from_ne_bytes);
        let (backends, _) =
            self.each(BACKENDS, notices, |k, v, family| Some(((family, id(k)?), Backend::read(v, family)?)))?;
        let (ranges, _) = self.each(RANGES, notices, |k, _, family| SourceRange::read(k, family))?;
        (state.services, state.backends) = (services.into_iter().collect(), backends.into_iter().collect());
        state.ranges = ranges;
        Ok(state)
    }

    /// Entries of a kind that is known by itself; fails where Cilium is not there, or does not keep it.
    fn entries<T>(
        &self,
        what: &'static str,
        names: &[Names],
        read: impl Fn(&[u8], &[u8], Family) -> Option<T>,
    ) -> Result<(Vec<T>, Vec<Notice>), CiliumError> {
        let (mut all, mut notices, mut maps) = (Vec::new(), Vec::new(), 0);
        for names in names {
            let (found, more) = self.each(*names, &mut notices, &read)?;
            all.extend(found);
            maps += more;
        }
        if maps == 0 {
            return Err(CiliumError::Without { what, directory: self.directory.clone() });
        }
        Ok((all, notices))
    }

    /// Reads the clients that stay with their backends.
    pub fn affinity(&self, state: &State) -> Result<(Vec<entry::Affinity>, Vec<Notice>), CiliumError> {
        let now = now_seconds();
        self.entries("session affinity", &[AFFINITY], |key, value, family| {
            let read = Affinity::read(key, value, family)?;
            Some(entry::Affinity {
                client: read.client,
                service: read.service.into(),
                backend_id: read.backend,
                backend: state.backends.get(&(family, read.backend)).map(|backend| backend.addr),
                idle_seconds: now.checked_sub(read.last_used).filter(|idle| *idle < LONGEST),
            })
        })
    }

    /// Reads the flows that the packet path knows.
    pub fn conntrack(&self, state: &State) -> Result<(Vec<entry::Flow>, Vec<Notice>), CiliumError> {
        let now = now_seconds().cast_signed();
        self.entries("conntrack", &CONNTRACK, |key, value, family| {
            let (tuple, read) = (Tuple::of_conntrack(key, family)?, CtEntry::read(value)?);
            let backend = || state.backends.get(&(family, read.backend)).map(|backend| backend.addr);
            let expires = i64::from(read.lifetime) - now;
            Some(entry::Flow {
                protocol: tuple.protocol,
                kind: tuple.kind.name(),
                source: tuple.source,
                destination: tuple.destination,
                service: Some(u32::from(read.service)).filter(|id| *id != 0),
                backend: (tuple.kind == TupleKind::Service).then(backend).flatten(),
                packets: Some(read.packets),
                bytes: Some(read.bytes),
                expires_seconds: Some(expires).filter(|seconds| seconds.unsigned_abs() < LONGEST),
                flags: read.flag_names(),
            })
        })
    }

    /// Reads the translations of addresses.
    pub fn nat(&self) -> Result<(Vec<entry::Nat>, Vec<Notice>), CiliumError> {
        let now = monotonic_ns();
        self.entries("NAT", &[NAT], |key, value, family| {
            let (tuple, read) = (Tuple::of_nat(key, family)?, NatEntry::read(value, family)?);
            let back = matches!(tuple.kind, TupleKind::In | TupleKind::RelatedIn);
            Some(entry::Nat {
                protocol: tuple.protocol,
                kind: if back { entry::Translation::Destination } else { entry::Translation::Source },
                source: tuple.source,
                destination: tuple.destination,
                becomes: read.becomes,
                service: None,
                age_seconds: now.checked_sub(read.created).map(|age| age / 1_000_000_000),
            })
        })
    }

    /// Reads the Maglev tables: a map of maps, each with one entry that is a table of backend ids.
    pub fn maglev(&self, state: &State) -> Result<(Vec<entry::Maglev>, Vec<Notice>), CiliumError> {
        let (inner, notices) = self.entries("Maglev tables", &[MAGLEV], |key, value, family| {
            let service = u16::from_be_bytes(key.try_into().ok()?);
            Some((service, family, u32::from_ne_bytes(value.try_into().ok()?)))
        })?;
        let mut found = Vec::new();
        for (service, family, id) in inner {
            let map = match OpenMap::open(&Which::Id(id), None) {
                Ok(map) => map,
                // Replaced meanwhile.
                Err(MapError::NotThere { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            map.each(|_, table| {
                let ids = table.chunks_exact(4).filter_map(|id| id.try_into().ok().map(u32::from_ne_bytes));
                let backend = |id| state.backends.get(&(family, id)).map(|backend| backend.addr);
                found.push(entry::Maglev::of(service.into(), "Cluster", ids, backend));
                false
            })?;
        }
        found.sort_by_key(|table| table.service);
        Ok((found, notices))
    }
}

/// Longest time that is told, seconds: a larger one says that Cilium's clock is another than the kernel's.
const LONGEST: u64 = 1_000_000;

/// Seconds since boot, without sleep: the clock of Cilium where it does not count jiffies.
fn now_seconds() -> u64 {
    monotonic_ns() / 1_000_000_000
}

/// Whether Cilium's maps of Services are pinned in a directory.
pub fn is_there(directory: &Path) -> io::Result<bool> {
    SERVICES.iter().try_fold(false, |found, name| Ok(found || directory.join(name).try_exists()?))
}
