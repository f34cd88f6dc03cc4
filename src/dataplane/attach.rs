//! Attaches the programs of the packet path to network devices: by pinned tcx links, and before Linux 6.6 by filters of a
//! clsact qdisc, which stay of themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, Link as _};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, xdp};

use super::devices::NodeDevice;
use super::error::DataplaneError;
use super::links::renew_one;
use super::load::gone;
use super::pins::Paths;
use crate::failpoint;
use crate::inspect::bpf::{self, OnDevice, sys};

/// A program of the packet path and its hook.
pub(super) struct PacketHook {
    /// Name of the program.
    pub(super) program: &'static str,
    /// Its hook.
    attach: TcAttachType,
}

/// In the order of attaching: what translates answers before what begins flows. Detaching goes backwards.
pub(super) const PACKET_HOOKS: [PacketHook; 2] = [
    PacketHook { program: "kpx_egress", attach: TcAttachType::Egress },
    PacketHook { program: "kpx_ingress", attach: TcAttachType::Ingress },
];

/// Name of the program that drivers run, where they do.
pub(super) const SHORT_CUT: &str = "kpx_xdp";

/// Where the short cut runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// Before the stack, for any driver; no faster than without.
    Generic,
}

/// Where our filter stands among those of a clsact qdisc: by its place it is found again.
const PRIORITY: u16 = 0x6b70;
const HANDLE: TcHandle = TcHandle::new(0, 1);

fn pin(paths: &Paths, program: &str, index: u32) -> PathBuf {
    paths.links().join(format!("{program}-{index}"))
}

/// Attaches both programs to a device; what is attached stays. Which of them were not attached.
pub(super) fn attach(paths: &Paths, device: &NodeDevice) -> Result<Vec<&'static str>, DataplaneError> {
    let mut new = Vec::new();
    for hook in &PACKET_HOOKS {
        let path = pin(paths, hook.program, device.index);
        if linked_to(&path)? == Some(device.index) {
            continue;
        }
        gone(fs_err::remove_file(&path))?;
        let failed = |source: ProgramError| DataplaneError::Device {
            action: "attach to",
            device: device.name.clone(),
            source: Box::new(source),
        };
        let mut program = SchedClassifier::from_pin(paths.programs().join(hook.program)).map_err(failed)?;
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        match program.attach_with_options(&device.name, hook.attach, order) {
            Ok(id) => {
                let link = program.take_link(id).map_err(failed)?;
                let link =
                    FdLink::try_from(link).map_err(|error| failed(ProgramError::IOError(io::Error::other(error))))?;
                link.pin(&path).map_err(|source| DataplaneError::Pin { path, source: Box::new(source) })?;
                new.push(hook.program);
                failpoint::changed();
            }
            Err(ProgramError::SyscallError(call)) if lacks_tcx(&call.io_error) => {
                if attach_filter(&mut program, hook, &device.name).map_err(failed)? {
                    new.push(hook.program);
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(new)
}

/// Attaches the short cut to a device, which has the other programs already; if it is attached in that mode it stays. Whether it
/// was not.
pub(super) fn attach_short_cut(paths: &Paths, device: &NodeDevice, mode: XdpMode) -> Result<bool, DataplaneError> {
    let path = pin(paths, SHORT_CUT, device.index);
    if linked_to(&path)? == Some(device.index) {
        if device.xdp.is_none_or(|now| now == mode) {
            return Ok(false);
        }
        // A device runs programs in one mode at a time: until the new one is there, packets go through the stack.
        unlink(&path)?;
    }
    gone(fs_err::remove_file(&path))?;
    let failed = |source: ProgramError| DataplaneError::Device {
        action: "attach to the driver of",
        device: device.name.clone(),
        source: Box::new(source),
    };
    let pinned = paths.programs().join(SHORT_CUT);
    if !pinned.exists() {
        return Err(DataplaneError::no_short_cut());
    }
    let mut program = Xdp::from_pin(pinned, aya_obj::programs::XdpAttachType::Interface).map_err(failed)?;
    let mode = match mode {
        XdpMode::Native => xdp::XdpMode::Driver,
        XdpMode::Generic => xdp::XdpMode::Skb,
    };
    let id = program.attach(&device.name, mode).map_err(failed)?;
    let link = program.take_link(id).map_err(failed)?;
    let link = FdLink::try_from(link).map_err(|error| failed(ProgramError::IOError(io::Error::other(error))))?;
    link.pin(&path).map_err(|source| DataplaneError::Pin { path, source: Box::new(source) })?;
    Ok(true)
}

/// Before Linux 6.6 the kernel does not know the attach type.
fn lacks_tcx(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// Whether the filter was not there.
fn attach_filter(program: &mut SchedClassifier, hook: &PacketHook, device: &str) -> Result<bool, ProgramError> {
    match qdisc_add_clsact(device) {
        Err(error) if !exists(&error) => return Err(error.into()),
        _ => {}
    }
    let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
    match program.attach_with_options(device, hook.attach, TcAttachOptions::Netlink(options)) {
        // The filter is the kernel's now: the value that would take it away is let go of without doing so.
        Ok(id) => {
            program.take_link(id).map(std::mem::forget)?;
            Ok(true)
        }
        Err(ProgramError::TcError(error)) if exists(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn exists(error: &TcError) -> bool {
    let kind = match error {
        TcError::AlreadyAttached => return true,
        TcError::NetlinkError(error) => error.raw_os_error(),
        TcError::IoError(error) => error.raw_os_error(),
        _ => None,
    };
    kind == Some(libc::EEXIST)
}

/// The programs that filters of ours run on devices of this network namespace: these are attached without a pin. They are known
/// by their names, since this is for when pins are gone. Who may not ask may not change anything either, and is told of none.
pub(super) fn filters(paths: &Paths) -> Vec<u32> {
    let ours = |on: &OnDevice| match on.hook {
        bpf::Hook::TcEgress => on.program == PACKET_HOOKS[0].program,
        bpf::Hook::TcIngress => on.program == PACKET_HOOKS[1].program,
        _ => false,
    };
    bpf::devices(&paths.pins).unwrap_or_default().into_iter().filter(ours).map(|on| on.program_id).collect()
}

/// The device that a pinned link is attached to; none if there is no such pin, or its device is gone.
fn linked_to(path: &Path) -> Result<Option<u32>, DataplaneError> {
    let object = |action, source| DataplaneError::Object { action, path: path.to_owned(), source };
    match sys::obj_get(path) {
        Ok(fd) => {
            let info = sys::link_info(fd.as_fd()).map_err(|source| object("ask about", source))?;
            Ok((info.interface() != 0).then(|| info.interface()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(object("open", source)),
    }
}

/// Gives the hooks of these devices that are ours the programs pinned in `programs`, what translates answers first; `before` is
/// called ahead of each. What is not attached stays so. `named` are the devices that there are.
pub(super) fn renew(
    paths: &Paths,
    programs: &Path,
    indexes: &BTreeSet<u32>,
    named: &BTreeMap<u32, String>,
    before: &mut dyn FnMut() -> Result<(), DataplaneError>,
) -> Result<(), DataplaneError> {
    // What the programs before routing write, those after it have to know.
    for hook in &PACKET_HOOKS {
        for index in indexes {
            let link = pin(paths, hook.program, *index);
            if link.exists() {
                renew_one(&link, &programs.join(hook.program), before)?;
            } else if let Some(name) = named.get(index) {
                before()?;
                renew_filter(&programs.join(hook.program), hook, name).map_err(|source| DataplaneError::Device {
                    action: "replace the program of",
                    device: name.clone(),
                    source: Box::new(source),
                })?;
            }
        }
    }
    // A kernel that has lost the short cut's helpers is another kernel, and has no pins.
    let short_cut = programs.join(SHORT_CUT);
    if short_cut.exists() {
        for index in indexes {
            renew_one(&pin(paths, SHORT_CUT, *index), &short_cut, before)?;
        }
    }
    Ok(())
}

/// Replaces the program of our filter in its place: packets meet the one or the other. Nothing where there is no filter.
fn renew_filter(program: &Path, hook: &PacketHook, device: &str) -> Result<(), ProgramError> {
    let filter = SchedClassifierLink::attached(device, hook.attach, PRIORITY, HANDLE, None)?;
    let mut program = SchedClassifier::from_pin(program)?;
    match program.attach_to_link(filter) {
        // The filter is the kernel's: see `attach_filter`.
        Ok(id) => program.take_link(id).map(std::mem::forget),
        Err(ProgramError::TcError(TcError::NetlinkError(error)))
            if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Names of pinned links.
pub(super) fn links(paths: &Paths) -> Result<Vec<String>, DataplaneError> {
    let entries = match fs_err::read_dir(paths.links()) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    Ok(entries.iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// Whether there are pinned links of the short cut.
pub(super) fn has_short_cuts(paths: &Paths) -> Result<bool, DataplaneError> {
    Ok(links(paths)?.iter().any(|name| name.starts_with(SHORT_CUT)))
}

/// The devices that have pinned links, gone or not.
pub(super) fn pinned(paths: &Paths) -> Result<Vec<u32>, DataplaneError> {
    let of = |name: &String| {
        let mut programs = PACKET_HOOKS.iter().map(|hook| hook.program).chain([SHORT_CUT]);
        programs.find_map(|program| name.strip_prefix(program)?.strip_prefix('-')?.parse().ok())
    };
    let mut found: Vec<u32> = links(paths)?.iter().filter_map(of).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Takes a pinned link off its device; false if there is none.
fn unlink(path: &Path) -> Result<bool, DataplaneError> {
    let Ok(fd) = sys::obj_get(path) else { return Ok(false) };
    // At once; see `links::detach`.
    let _ = sys::link_detach(fd.as_fd());
    gone(fs_err::remove_file(path))?;
    failpoint::changed();
    Ok(true)
}

/// Detaches the short cut from a device.
pub(super) fn detach_short_cut(paths: &Paths, index: u32) -> Result<(), DataplaneError> {
    unlink(&pin(paths, SHORT_CUT, index)).map(drop)
}

/// Detaches all programs from a device; one that is gone has no name.
pub(super) fn detach(paths: &Paths, index: u32, name: Option<&str>) -> Result<(), DataplaneError> {
    detach_short_cut(paths, index)?;
    for hook in PACKET_HOOKS.iter().rev() {
        if unlink(&pin(paths, hook.program, index))? {
            continue;
        }
        if let Some(name) = name
            && let Ok(filter) = SchedClassifierLink::attached(name, hook.attach, PRIORITY, HANDLE, None)
        {
            // Where there is no such filter there is nothing to do.
            let _ = filter.detach();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use kpx_abi::map_name;

    use super::super::{Capacity, Dataplane, load};
    use super::*;
    use crate::capture::command;

    /// Runs a test with a device `port` in a network namespace of its own, or prints why not.
    fn with_port(test: impl FnOnce(&Paths) + Send) {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root (network namespaces, BPF)");
            return;
        }
        let Ok(cgroups) = crate::capture::cgroup::root() else {
            println!("skipped: no cgroup2 filesystem is mounted");
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        mount("bpf", directory.path(), "bpf", MountFlags::empty(), None).unwrap();
        let paths = Paths { pins: directory.path().join("kpx"), cgroup: cgroups };
        let body = || {
            // SAFETY: not one flag that concerns memory or descriptors: only this thread's network namespace changes.
            #[expect(unsafe_code, reason = "unshare is unsafe for flags that are not used here")]
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            command::output("ip", ["link", "add", "port", "type", "veth", "peer", "name", "peer"], None).unwrap();
            test(&paths);
        };
        let done = std::thread::scope(|scope| scope.spawn(body).join());
        unmount(directory.path(), UnmountFlags::DETACH).unwrap();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    /// The filters of `port`, as tc shows them.
    fn shown() -> [String; 2] {
        let of = |hook| command::output("tc", ["filter", "show", "dev", "port", hook], None).unwrap();
        ["ingress", "egress"].map(|hook| String::from_utf8(of(hook)).unwrap())
    }

    fn attach_filters(paths: &Paths) -> [bool; 2] {
        PACKET_HOOKS.each_ref().map(|hook| {
            let program = SchedClassifier::from_pin(paths.programs().join(hook.program));
            attach_filter(&mut program.unwrap(), hook, "port").unwrap()
        })
    }

    /// What a kernel before 6.6 gets, on whichever kernel this is.
    #[test]
    fn filters_stay_until_they_are_detached() {
        with_port(|paths| {
            load::load_new(paths, &Capacity::default()).unwrap();
            let once = || {
                for filters in shown() {
                    assert_eq!(filters.matches("direct-action").count(), 1, "{filters}");
                }
            };
            assert_eq!([attach_filters(paths), attach_filters(paths)], [[true; 2], [false; 2]]);
            once();
            // Whoever takes the qdisc away takes the filters along.
            command::output("tc", ["qdisc", "del", "dev", "port", "clsact"], None).unwrap();
            assert_eq!([attach_filters(paths), attach_filters(paths)], [[true; 2], [false; 2]]);
            once();
            let before = shown();
            // Others take their place, where they are.
            let next = paths.staged();
            load::load_new(&next, &Capacity::default()).unwrap();
            let name = BTreeMap::from([(1, "port".to_owned()), (2, "peer".to_owned())]);
            renew(paths, &next.programs(), &BTreeSet::from([1, 2]), &name, &mut || Ok(())).unwrap();
            for (filters, before) in shown().iter().zip(&before) {
                assert_eq!(filters.matches("direct-action").count(), 1, "{filters}");
                assert_ne!(filters, before, "its id is another");
            }
            for _ in 0..2 {
                detach(paths, 1, Some("port")).unwrap();
                assert_eq!(shown(), ["", ""]);
            }
        });
    }

    /// Before 6.6 nothing but the filters tells of maps whose pins are gone.
    #[test]
    fn filters_whose_pins_are_gone_keep_their_maps() {
        with_port(|paths| {
            let map = |name| sys::map_info(sys::obj_get(&paths.maps().join(name)).unwrap().as_fd()).unwrap().id;
            let programs = || {
                PACKET_HOOKS.each_ref().map(|hook| {
                    let program = sys::obj_get(&paths.programs().join(hook.program)).unwrap();
                    sys::program_info(program.as_fd()).unwrap().id
                })
            };
            let attached = || {
                let mut ids = filters(paths);
                ids.sort_unstable();
                ids
            };
            let dataplane = Dataplane::install(paths, &Capacity::default()).unwrap();
            assert_eq!(attach_filters(paths), [true; 2]);
            let index = super::super::devices::read().unwrap().iter().find(|d| d.name == "port").unwrap().index;
            dataplane.maps.devices.put(&index, &kpx_abi::Device::default()).unwrap();
            drop(dataplane);
            let (flows, sockets) = (map(map_name::CONNTRACK), map(map_name::PEERS));
            fs_err::remove_dir_all(&paths.pins).unwrap();
            assert!(matches!(Dataplane::adopt(paths), Err(DataplaneError::Damaged { .. })));
            Dataplane::install(paths, &Capacity::default()).unwrap();
            assert_eq!(map(map_name::CONNTRACK), flows, "the flows are those that there were");
            assert_ne!(map(map_name::PEERS), sockets, "no hook of sockets was attached");
            let mut pinned = programs().to_vec();
            pinned.sort_unstable();
            assert_eq!(attached(), pinned, "each hook has one program, the one that is pinned");
            Dataplane::remove(paths).unwrap();
            assert_eq!((shown(), paths.pins.exists()), (["", ""].map(str::to_owned), false));
        });
    }
}
