//! Older layouts of the maps, and how what they hold is carried over to the present one.
//!
//! Numbers stay: a frontend, a service and a backend have in the new maps the number that they had in the old ones, since
//! sockets, flows and affinity name them by it.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use kpx_abi::{Addr, Backend, BackendFlags, BackendState, Config, Frontend, FrontendKey, FrontendRef, List, map_name};

use super::error::DataplaneError;
use super::first_config;
use super::maps::{failed, open};
use crate::inspect::bpf::sys::{self, Entries};

/// Maps that are begun anew where they cannot stay: counters, scratch space, and ports of datagrams that are under way for
/// a moment.
const BEGUN_ANEW: [&str; 3] = [map_name::REASONS, map_name::SCRATCH, map_name::FRAGMENTS];

/// The layout version of pinned maps: whatever the layout, the first word of the configuration. `None` without a configuration,
/// 0 where an installation has not come so far.
pub(super) fn version(maps: &Path) -> Result<Option<u32>, DataplaneError> {
    let path = maps.join(map_name::CONFIG);
    let failed = |source| DataplaneError::Object { action: "read", path: path.clone(), source };
    let fd = match sys::obj_get(&path) {
        Ok(fd) => fd,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let info = sys::map_info(fd.as_fd()).map_err(failed)?;
    let mut entries = Entries::new(fd.as_fd(), &info).map_err(failed)?;
    let page = entries.page().map_err(failed)?;
    Ok(page.and_then(|mut page| page.next()).and_then(|(_, value)| word(value)))
}

/// Writes the layout version into a configuration of whatever layout; the mode and all else stay.
pub(super) fn set_version(maps: &Path, version: u32) -> Result<(), DataplaneError> {
    let path = maps.join(map_name::CONFIG);
    let failed = |source| DataplaneError::Object { action: "write", path: path.clone(), source };
    let fd = sys::obj_get(&path).map_err(failed)?;
    let info = sys::map_info(fd.as_fd()).map_err(failed)?;
    let mut entries = Entries::new(fd.as_fd(), &info).map_err(failed)?;
    let found = entries.page().map_err(failed)?.and_then(|mut page| page.next());
    let Some((key, value)) = found.map(|(key, value)| (key.to_vec(), value.to_vec())) else { return Ok(()) };
    let changed: Vec<u8> = version.to_ne_bytes().into_iter().chain(value.iter().copied().skip(4)).collect();
    if changed == value {
        return Ok(());
    }
    sys::put(fd.as_fd(), &info, &key, &changed).map_err(failed)
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

/// The first words of the keys of a pinned map, whatever its layout; none without such a map.
pub(super) fn first_words(maps: &Path, name: &'static str) -> Result<Vec<u32>, DataplaneError> {
    let fd = match sys::obj_get(&maps.join(name)) {
        Ok(fd) => fd,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed("open", name)(source)),
    };
    let mut found = Vec::new();
    let info = sys::map_info(fd.as_fd()).map_err(failed("read", name))?;
    let mut entries = Entries::new(fd.as_fd(), &info).map_err(failed("read", name))?;
    while let Some(page) = entries.page().map_err(failed("read", name))? {
        found.extend(page.filter_map(|(key, _)| word(key)));
    }
    Ok(found)
}

/// Whether a map whose definition has changed since this layout can be carried over.
pub(super) fn can_carry(from: u32, map: &str) -> bool {
    BEGUN_ANEW.contains(&map) || (from == 1 && [map_name::CONFIG, map_name::BACKENDS].contains(&map))
}

/// Fills the new maps from the old ones, as far as their definitions have changed since this layout.
pub(super) fn carry(from: u32, old: &Path, new: &Path) -> Result<(), DataplaneError> {
    match from {
        1 => from_1(old, new),
        _ => Ok(()),
    }
}

/// Layout 1: no packet path, no affinity and no addresses, so nothing of these; an entry of a backend did not say which lists
/// name it, and the configuration ended early.
fn from_1(old: &Path, new: &Path) -> Result<(), DataplaneError> {
    /// Address, port, protocol, state, service id.
    type OldBackend = [u8; 24];
    /// Layout version, mode, how long UDP flows are kept, the node's network namespace.
    type OldConfig = [u8; 24];

    let backends: Vec<(u32, OldBackend)> =
        open(old, map_name::BACKENDS)?.dump().map_err(failed("read", map_name::BACKENDS))?;
    let lists = memberships(old)?;
    let mut carried = (Vec::new(), Vec::new());
    for (id, bytes) in backends {
        let [addr @ .., p0, p1, proto, state, s0, s1, s2, s3] = bytes;
        let addr: Addr = addr;
        if state == BackendState::Free as u8 {
            continue;
        }
        carried.0.push(id);
        carried.1.push(Backend {
            addr,
            port: u16::from_ne_bytes([p0, p1]),
            proto,
            state,
            service: u32::from_ne_bytes([s0, s1, s2, s3]),
            flags: lists.get(&id).copied().unwrap_or_default(),
        });
    }
    open::<u32, Backend>(new, map_name::BACKENDS)?
        .put_many(&carried.0, &carried.1)
        .map_err(failed("write", map_name::BACKENDS))?;

    let config: Option<OldConfig> = open(old, map_name::CONFIG)?.get(&0).map_err(failed("read", map_name::CONFIG))?;
    let [_, _, _, _, m0, m1, m2, m3, y0, y1, y2, y3, y4, y5, y6, y7, ..] = config.unwrap_or_default();
    let config = Config {
        mode: u32::from_ne_bytes([m0, m1, m2, m3]),
        yield_ns: u64::from_ne_bytes([y0, y1, y2, y3, y4, y5, y6, y7]),
        ..first_config()
    };
    open(new, map_name::CONFIG)?.put(&0, &config).map_err(failed("write", map_name::CONFIG))
}

/// Which lists name each backend. These three maps are in layout 1 what they are now.
fn memberships(old: &Path) -> Result<HashMap<u32, BackendFlags>, DataplaneError> {
    let index =
        open::<FrontendKey, FrontendRef>(old, map_name::INDEX)?.dump().map_err(failed("read", map_name::INDEX))?;
    let frontends: HashMap<u32, Frontend> =
        open(old, map_name::FRONTENDS)?.dump().map_err(failed("read", map_name::FRONTENDS))?.into_iter().collect();
    let slots: HashMap<u32, u32> =
        open(old, map_name::SLOTS)?.dump().map_err(failed("read", map_name::SLOTS))?.into_iter().collect();
    let mut lists: HashMap<u32, BackendFlags> = HashMap::new();
    for frontend in index.iter().filter_map(|(_, found)| frontends.get(&found.entry)) {
        let mut add = |list: List, flag: BackendFlags| {
            for slot in list.base..list.base.saturating_add(list.count) {
                let Some(id) = slots.get(&slot) else { break };
                let flags = lists.entry(*id).or_default();
                *flags = flags.with(flag, true);
            }
        };
        add(frontend.cluster, BackendFlags::IN_CLUSTER);
        add(frontend.local, BackendFlags::IN_LOCAL);
    }
    Ok(lists)
}
