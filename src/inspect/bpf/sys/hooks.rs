//! What is attached to hooks of cgroups and interfaces.

use std::io;
use std::os::fd::BorrowedFd;

use super::{address_mut, bpf, cmd, raw};

/// Ids of the programs on a hook of a cgroup: its own, or with `effective` all that run for its sockets, in the order in
/// which they run.
pub(crate) fn cgroup_programs(cgroup: BorrowedFd<'_>, attach_type: u32, effective: bool) -> io::Result<Vec<u32>> {
    query(raw(cgroup), attach_type, u32::from(effective)).map(|attached| attached.ids)
}

/// The programs on a hook of a cgroup alone, and the flags (`BPF_F_ALLOW_…`) they were attached with.
pub(crate) fn cgroup_attached(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Attached> {
    query(raw(cgroup), attach_type, 0)
}

/// Ids of the programs on a tcx or netkit hook of a network interface, in the order in which they run.
pub(crate) fn interface_programs(interface: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    query(interface, attach_type, 0).map(|attached| attached.ids)
}

/// What is attached to a hook.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) ids: Vec<u32>,
    pub(crate) flags: u32,
}

fn query(target: u32, attach_type: u32, query_flags: u32) -> io::Result<Attached> {
    #[repr(C)]
    struct Attr {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_cnt: u32,
        pad: u32,
    }
    let mut ids = vec![0_u32; 64];
    loop {
        let mut attr = Attr {
            target,
            attach_type,
            query_flags,
            attach_flags: 0,
            prog_ids: address_mut(ids.as_mut_slice()),
            prog_cnt: u32::try_from(ids.len()).expect("a few programs"),
            pad: 0,
        };
        // SAFETY: `prog_ids` points to room for `prog_cnt` words.
        match unsafe { bpf(cmd::PROG_QUERY, &mut attr) } {
            Ok(_) => {
                ids.truncate(attr.prog_cnt as usize);
                return Ok(Attached { ids, flags: attr.attach_flags });
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => ids.resize(ids.len() * 2, 0),
            Err(error) => return Err(error),
        }
    }
}
