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
use crate::inspect::bpf::sys;

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

/// Attaches the short cut to a device, which has the other programs already; if it is attached it stays, in the mode it has.
/// Whether it was not attached.
pub(super) fn attach_short_cut(paths: &Paths, device: &NodeDevice, mode: XdpMode) -> Result<bool, DataplaneError> {
    let path = pin(paths, SHORT_CUT, device.index);
    if linked_to(&path)? == Some(device.index) {
        return Ok(false);
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
fn links(paths: &Paths) -> Result<Vec<String>, DataplaneError> {
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

    use super::super::{Capacity, load};
    use super::*;
    use crate::capture::command;

    /// What a kernel before 6.6 gets, on whichever kernel this is.
    #[test]
    fn filters_stay_until_they_are_detached() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root (network namespaces, BPF)");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        mount("bpf", directory.path(), "bpf", MountFlags::empty(), None).unwrap();
        let paths = Paths { pins: directory.path().join("kpx"), cgroup: "/".into() };
        let shown = || {
            let of = |hook| command::output("tc", ["filter", "show", "dev", "port", hook], None).unwrap();
            ["ingress", "egress"].map(|hook| String::from_utf8(of(hook)).unwrap())
        };
        let body = || {
            // SAFETY: not one flag that concerns memory or descriptors: only this thread's network namespace changes.
            #[expect(unsafe_code, reason = "unshare is unsafe for flags that are not used here")]
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            command::output("ip", ["link", "add", "port", "type", "veth", "peer", "name", "peer"], None).unwrap();
            load::load_new(&paths, &Capacity::default()).unwrap();
            let attach = || {
                PACKET_HOOKS.each_ref().map(|hook| {
                    let program = SchedClassifier::from_pin(paths.programs().join(hook.program));
                    attach_filter(&mut program.unwrap(), hook, "port").unwrap()
                })
            };
            let once = || {
                for filters in shown() {
                    assert_eq!(filters.matches("direct-action").count(), 1, "{filters}");
                }
            };
            assert_eq!([attach(), attach()], [[true; 2], [false; 2]]);
            once();
            // Whoever takes the qdisc away takes the filters along.
            command::output("tc", ["qdisc", "del", "dev", "port", "clsact"], None).unwrap();
            assert_eq!([attach(), attach()], [[true; 2], [false; 2]]);
            once();
            let before = shown();
            // Others take their place, where they are.
            let next = paths.staged();
            load::load_new(&next, &Capacity::default()).unwrap();
            let name = BTreeMap::from([(1, "port".to_owned()), (2, "peer".to_owned())]);
            renew(&paths, &next.programs(), &BTreeSet::from([1, 2]), &name, &mut || Ok(())).unwrap();
            for (filters, before) in shown().iter().zip(&before) {
                assert_eq!(filters.matches("direct-action").count(), 1, "{filters}");
                assert_ne!(filters, before, "its id is another");
            }
            for _ in 0..2 {
                detach(&paths, 1, Some("port")).unwrap();
                assert_eq!(shown(), ["", ""]);
            }
        };
        let done = std::thread::scope(|scope| scope.spawn(body).join());
        unmount(directory.path(), UnmountFlags::DETACH).unwrap();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}
