//! Maps whose pins are gone while programs that use them are attached: by these they are found, and pinned again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;

use kpx_abi::map_name;

use super::error::DataplaneError;
use super::pins::Paths;
use crate::inspect::bpf::sys::{self, Kind};

/// Pins again the maps that are not pinned and that attached programs use. Where these use several of one name, which an
/// upgrade that did not come through may leave, none is: nobody knows which of them counts.
pub(super) fn maps(paths: &Paths) -> Result<(), DataplaneError> {
    let used = used_maps(paths)?;
    for name in map_name::ALL {
        let path = paths.maps().join(name);
        let Some(ids) = used.get(name).filter(|ids| ids.len() == 1 && !path.exists()) else { continue };
        for id in ids {
            let failed = |source| DataplaneError::Object { action: "pin again", path: path.clone(), source };
            if let Some(map) = sys::by_id(Kind::Map, *id).map_err(failed)? {
                fs_err::create_dir_all(paths.maps())?;
                sys::obj_pin(map.as_fd(), &path).map_err(failed)?;
                tracing::warn!("{} was gone and is pinned again", path.display());
            }
        }
    }
    Ok(())
}

/// The maps that attached programs use, by name.
fn used_maps(paths: &Paths) -> Result<BTreeMap<String, BTreeSet<u32>>, DataplaneError> {
    let mut used: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for entry in fs_err::read_dir(paths.links())? {
        let path = entry?.path();
        let failed = |source| DataplaneError::Object { action: "ask about", path: path.clone(), source };
        let link = sys::obj_get(&path).map_err(failed)?;
        let program = sys::link_info(link.as_fd()).map_err(failed)?.program_id;
        let Some(program) = sys::by_id(Kind::Program, program).map_err(failed)? else { continue };
        for id in sys::program_maps(program.as_fd()).map_err(failed)? {
            let Some(map) = sys::by_id(Kind::Map, id).map_err(failed)? else { continue };
            let name = sys::map_info(map.as_fd()).map_err(failed)?.name;
            let name = name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
            used.entry(name).or_default().insert(id);
        }
    }
    Ok(used)
}
