//! Loads the object, pins its maps and programs, takes half-made pins away.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use aya::programs::{ProgramType, SchedClassifier, Xdp};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfLoader};
use kpx_abi::{Event, map_name};

use super::Capacity;
use super::attach::{PACKET_HOOKS, SHORT_CUT};
use super::error::{DataplaneError, missing_capabilities};
use super::hooks::HOOKS;
use super::pins::Paths;
use super::upgrade;
use crate::failpoint;

/// The compiled programs; `cargo xtask ebpf --check` proves that they come from `ebpf/`.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/ebpf/kpx.bpf.o"));

/// Lets the kernel verify every program, with small maps, and keeps nothing of it.
pub fn verify() -> Result<(), DataplaneError> {
    let small = Capacity { frontends: 16, backends: 16, slots: 64, affinity: 64, ..Capacity::default() };
    let mut object = maps(OBJECT, &sizes(&small), &BTreeMap::new())?;
    for hook in &HOOKS {
        let program = object.program_mut(hook.program).expect("the object has every program, as its test says");
        hook.verify(program)?;
    }
    for hook in &PACKET_HOOKS {
        let failed = |error| DataplaneError::of_packet_program(hook.program, error);
        let program = object.program_mut(hook.program).expect("the object has every program, as its test says");
        let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
        program.load().map_err(failed)?;
    }
    Ok(())
}

/// How many elements each map has room for, of those whose object does not say.
pub(super) type Sizes = BTreeMap<&'static str, u32>;

/// The sizes of the maps of a new dataplane.
pub(super) fn sizes(capacity: &Capacity) -> Sizes {
    Sizes::from([
        (map_name::INDEX, capacity.frontends),
        (map_name::FRONTENDS, capacity.entries()),
        (map_name::STATS, capacity.frontends + 1),
        (map_name::BACKENDS, capacity.backends + 1),
        (map_name::SLOTS, capacity.slots + 1),
        (map_name::YIELD, capacity.yields),
        (map_name::ADDRESSES, capacity.addresses),
        (map_name::NETWORKS, capacity.networks),
        (map_name::SOURCES, capacity.sources),
        (map_name::CLIENTS, capacity.clients),
        (map_name::AFFINITY, capacity.affinity),
        (map_name::CONNTRACK, capacity.conntrack),
        (map_name::FRAGMENTS, capacity.fragments),
        (map_name::DIRECT, capacity.direct),
        (map_name::EVENTS, buffer(capacity.events)),
    ])
}

/// Bytes of a ring buffer with room for so many events: a power of two, as the kernel wants it; the loader makes it a page
/// at least.
fn buffer(events: u32) -> u32 {
    /// What the kernel puts in front of each.
    const HEADER: u32 = 8;
    /// The largest that every kernel makes.
    const MOST: u32 = 1 << 26;
    let event = u32::try_from(size_of::<Event>()).expect("an event is small");
    events.saturating_mul(event + HEADER).min(MOST).next_power_of_two()
}

/// Loads and pins the maps and programs of a new dataplane. Nothing is attached.
pub(super) fn load_new(paths: &Paths, capacity: &Capacity) -> Result<(), DataplaneError> {
    load_and_pin(paths, OBJECT, &sizes(capacity), &BTreeMap::new())
}

/// Reads an object and creates its maps, but for those `kept`.
fn maps(object: &[u8], sizes: &Sizes, kept: &BTreeMap<&'static str, PathBuf>) -> Result<Ebpf, DataplaneError> {
    let missing = missing_capabilities();
    if !missing.is_empty() {
        return Err(DataplaneError::Capability { missing });
    }
    // Where it cannot be found out, the helper counts as missing: then refusals are left to the rules.
    let set_retval =
        u32::from(is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval).unwrap_or(false));
    let mut loader = EbpfLoader::new();
    // The programs need nothing of the kernel's own BTF.
    loader.btf(None);
    loader.override_global("HAVE_SET_RETVAL", &set_retval, true);
    for (map, size) in sizes {
        loader.map_max_entries(map, *size);
    }
    for (map, pin) in kept {
        loader.map_pin_path(map, pin);
    }
    loader.load(object).map_err(DataplaneError::of_load)
}

/// Loads an object and pins its maps and programs, in that order. Nothing is attached.
///
/// `kept` are maps that are pinned already: the programs use these, and they stay where they are.
pub(super) fn load_and_pin(
    paths: &Paths,
    object: &[u8],
    sizes: &Sizes,
    kept: &BTreeMap<&'static str, PathBuf>,
) -> Result<(), DataplaneError> {
    let mut object = maps(object, sizes, kept)?;
    for directory in [paths.maps(), paths.programs(), paths.links()] {
        fs_err::create_dir_all(directory)?;
    }
    for name in map_name::ALL.into_iter().filter(|name| !kept.contains_key(name)) {
        let path = paths.maps().join(name);
        let map = object.map_mut(name).expect("the object has every map, as its test says");
        map.pin(&path).map_err(|source| DataplaneError::Pin { path, source: Box::new(source) })?;
    }
    failpoint::changed();
    for hook in &HOOKS {
        let program = object.program_mut(hook.program).expect("the object has every program, as its test says");
        hook.load(program, &paths.programs().join(hook.program))?;
    }
    failpoint::changed();
    for hook in &PACKET_HOOKS {
        let failed = |error| DataplaneError::of_packet_program(hook.program, error);
        let program = object.program_mut(hook.program).expect("the object has every program, as its test says");
        let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
        program.load().map_err(failed)?;
        let path = paths.programs().join(hook.program);
        program.pin(&path).map_err(|source| DataplaneError::Pin { path, source: Box::new(source) })?;
    }
    // Nothing depends on the short cut: where the kernel lacks what it needs, it is not there.
    let program = object.program_mut(SHORT_CUT).expect("the object has every program, as its test says");
    let program: &mut Xdp = program.try_into().map_err(|e| DataplaneError::of_packet_program(SHORT_CUT, e))?;
    let reads = is_helper_supported(ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_load_bytes).unwrap_or(false);
    if reads && program.load().is_ok() {
        let path = paths.programs().join(SHORT_CUT);
        program.pin(&path).map_err(|source| DataplaneError::Pin { path, source: Box::new(source) })?;
    }
    Ok(())
}

/// Removes the pins of programs and maps. Nothing may be attached. What is gone already is no error.
pub(super) fn unpin(paths: &Paths) -> Result<(), DataplaneError> {
    for upgrade in [paths.staged(), paths.replacing()] {
        if upgrade.pins.exists() {
            unpin_one(&upgrade)?;
        }
    }
    unpin_one(paths)
}

/// The same, leaving the pins of an upgrade that are below.
pub(super) fn unpin_one(paths: &Paths) -> Result<(), DataplaneError> {
    upgrade::unmark(paths)?;
    for directory in [paths.links(), paths.programs(), paths.maps(), paths.pins.clone()] {
        let entries = match fs_err::read_dir(&directory) {
            Ok(entries) => entries.collect::<Result<Vec<_>, _>>()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        for entry in entries.iter().filter(|_| directory != paths.pins) {
            gone(fs_err::remove_file(entry.path()))?;
        }
        failpoint::changed();
        // The directory given may hold what others pinned: then it stays.
        match fs_err::remove_dir(&directory) {
            Err(error) if directory == paths.pins && error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            result => gone(result)?,
        }
    }
    Ok(())
}

/// Turns "not there" into success.
pub(super) fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
