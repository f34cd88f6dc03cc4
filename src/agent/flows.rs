//! Forgets flows of the packet path that are over, and counts how full the maps are: a thread, since a look through a
//! million flows takes a second.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::metrics::{label, seconds, set};
use super::status::{Condition, Shared};
use super::sysctl;
use crate::dataplane::{DataplaneError, Forgotten, MapUse, Paths, forget_flows, map_use, timeouts};
use crate::error::with_causes;

/// The pace while there is room.
const PACE: Duration = Duration::from_secs(10);
/// The pace where the map is nearly full.
const HURRY: Duration = Duration::from_secs(1);
/// A look takes no more than one part in so many of the time.
const SHARE: u32 = 20;

/// Starts the thread, which ends with the process.
pub(super) fn start(paths: Paths, proc_sys: PathBuf, shared: Arc<Shared>) -> std::io::Result<()> {
    std::thread::Builder::new().name("flows".to_owned()).spawn(move || {
        loop {
            let started = Instant::now();
            let pace = match look(&paths, &proc_sys, &shared) {
                Ok(pace) => {
                    shared.condition(Condition::Flows, None);
                    pace
                }
                Err(error) => {
                    shared.condition(Condition::Flows, Some(with_causes(&error)));
                    PACE
                }
            };
            std::thread::sleep(pace.max(started.elapsed() * SHARE));
        }
    })?;
    Ok(())
}

/// One look; how long to wait for the next.
fn look(paths: &Paths, proc_sys: &Path, shared: &Shared) -> Result<Duration, DataplaneError> {
    let maps = paths.maps();
    if !maps.join(kpx_abi::map_name::ALL[0]).exists() {
        return Ok(HURRY);
    }
    let started = Instant::now();
    let Forgotten { forgotten, left, size } = forget_flows(paths, &timeouts(&sysctl::conntrack(proc_sys)))?;
    shared.metrics.flows_forgotten.inc_by(forgotten as u64);
    shared.metrics.flows_time.observe(seconds(started.elapsed()));
    tell(shared, &[MapUse { map: kpx_abi::map_name::CONNTRACK, entries: left, size }]);
    tell(shared, &map_use(paths)?);
    Ok(if left > size - size / 8 { HURRY } else { PACE })
}

/// Puts into the metrics how full maps are.
pub(super) fn tell(shared: &Shared, maps: &[MapUse]) {
    for MapUse { map, entries, size } in maps {
        set(&shared.metrics.map_entries.get_or_create(&label("map", *map)), *entries);
        set(&shared.metrics.map_size.get_or_create(&label("map", *map)), *size);
    }
}
