//! Maps whose pins are gone while programs that use them are attached: by these they are found, and pinned again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;

use kpx_abi::map_name;

use super::attach;
use super::error::DataplaneError;
use super::pins::Paths;
use crate::inspect::bpf::sys::{self, Kind};

/// Pins again the maps that are not pinned and that attached programs use. Returned are those that are not pinned still: where
/// programs use several of one name, which an upgrade that did not come through may leave, nobody knows which of them counts.
pub(super) fn maps(paths: &Paths) -> Result<Vec<String>, DataplaneError> {
    let used = used_maps(paths)?;
    let mut unclear = Vec::new();
    for name in map_name::ALL {
        let path = paths.maps().join(name);
        let Some(ids) = used.get(name).filter(|_| !path.exists()) else { continue };
        let failed = |source| DataplaneError::Object { action: "pin again", path: path.clone(), source };
        let found = match ids.iter().collect::<Vec<_>>().as_slice() {
            [id] => sys::by_id(Kind::Map, **id).map_err(failed)?,
            _ => None,
        };
        let Some(map) = found else {
            unclear.push(name.to_owned());
            continue;
        };
        fs_err::create_dir_all(paths.maps())?;
        sys::obj_pin(map.as_fd(), &path).map_err(failed)?;
        tracing::warn!("{} was gone and is pinned again", path.display());
    }
    Ok(unclear)
}

/// The maps that attached programs use, by name.
fn used_maps(paths: &Paths) -> Result<BTreeMap<String, BTreeSet<u32>>, DataplaneError> {
    let mut used: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for id in attached(paths)? {
        let failed =
            |source| DataplaneError::Object { action: "ask about programs of", path: paths.pins.clone(), source };
        let Some(program) = sys::by_id(Kind::Program, id).map_err(failed)? else { continue };
        for id in sys::program_maps(program.as_fd()).map_err(failed)? {
            let Some(map) = sys::by_id(Kind::Map, id).map_err(failed)? else { continue };
            let name = sys::map_info(map.as_fd()).map_err(failed)?.name;
            let name = name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
            used.entry(name).or_default().insert(id);
        }
    }
    Ok(used)
}

/// The programs that are attached: by links, and by filters.
fn attached(paths: &Paths) -> Result<BTreeSet<u32>, DataplaneError> {
    let mut found: BTreeSet<u32> = attach::filters(paths).into_iter().collect();
    for name in attach::links(paths)? {
        let path = paths.links().join(name);
        let failed = |source| DataplaneError::Object { action: "ask about", path: path.clone(), source };
        let link = sys::obj_get(&path).map_err(failed)?;
        found.insert(sys::link_info(link.as_fd()).map_err(failed)?.program_id);
    }
    Ok(found)
}
