//! bpf(2) and its kin: the one module of the dataplane that speaks to the kernel in raw structures.
//!
//! Only what aya 0.14 does not offer: batches, objects by id with run-time sizes, queries of cgroup hooks. Structures are
//! the members of `union bpf_attr` (include/uapi/linux/bpf.h), cut where the fields used end; a kernel takes the rest as
//! zero.
#![expect(unsafe_code, reason = "system calls with raw structures")]

mod entries;
mod hooks;
mod objects;
mod table;
pub(crate) mod trial;

use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

pub(crate) use entries::{Entries, btf, copies};
pub(crate) use hooks::{cgroup_attached, cgroup_programs, interface_programs};
pub(crate) use objects::{
    Kind, MapInfo, by_id, ids, link_detach, link_info, link_update, map_info, obj_get, obj_pin, program_info,
    program_maps,
};
pub(crate) use table::{Table, count_keys, put};

/// Commands of bpf(2).
mod cmd {
    pub(super) const MAP_LOOKUP_ELEM: i32 = 1;
    pub(super) const MAP_UPDATE_ELEM: i32 = 2;
    pub(super) const MAP_DELETE_ELEM: i32 = 3;
    pub(super) const MAP_GET_NEXT_KEY: i32 = 4;
    pub(super) const OBJ_PIN: i32 = 6;
    pub(super) const OBJ_GET: i32 = 7;
    pub(super) const PROG_GET_NEXT_ID: i32 = 11;
    pub(super) const MAP_GET_NEXT_ID: i32 = 12;
    pub(super) const PROG_GET_FD_BY_ID: i32 = 13;
    pub(super) const MAP_GET_FD_BY_ID: i32 = 14;
    pub(super) const OBJ_GET_INFO_BY_FD: i32 = 15;
    pub(super) const PROG_QUERY: i32 = 16;
    pub(super) const BTF_GET_FD_BY_ID: i32 = 19;
    pub(super) const MAP_LOOKUP_BATCH: i32 = 24;
    pub(super) const MAP_UPDATE_BATCH: i32 = 26;
    pub(super) const LINK_UPDATE: i32 = 29;
    pub(super) const LINK_GET_FD_BY_ID: i32 = 30;
    pub(super) const LINK_GET_NEXT_ID: i32 = 31;
    pub(super) const LINK_DETACH: i32 = 34;
}

/// Runs a command. `attr` is a `repr(C)` structure that starts like the command's member of `union bpf_attr`.
///
/// # Safety
///
/// Pointers inside `attr` are valid for what the command reads and writes.
unsafe fn bpf<T>(command: i32, attr: &mut T) -> io::Result<i64> {
    // SAFETY: the kernel reads and writes `attr` within its size only; the rest is the caller's promise.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of_val(attr)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

fn descriptor(raw: i64) -> OwnedFd {
    let raw = i32::try_from(raw).expect("the kernel's descriptors are ints");
    // SAFETY: the kernel has just made it for this process, close-on-exec, and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

fn address<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).cast::<u8>() as u64
}

fn address_mut<T: ?Sized>(value: &mut T) -> u64 {
    std::ptr::from_mut(value).cast::<u8>() as u64
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("a borrowed descriptor is open, and so not negative")
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C)]
struct ElemAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    /// The value, or the place for the next key.
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Whether a refusal means that the kernel does not know the command for this map (`ENOTSUPP` is the kernel's own 524).
fn unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS | 524))
}

/// A value that the kernel has written; `None` if it is of another size.
pub(crate) fn value_of<V: aya::Pod>(bytes: &[u8]) -> Option<V> {
    // SAFETY: as many bytes as a value has, any of which are one: that is what plain old data means.
    (bytes.len() == size_of::<V>()).then(|| unsafe { bytes.as_ptr().cast::<V>().read_unaligned() })
}

/// `CLOCK_MONOTONIC`, nanoseconds: the clock of `bpf_ktime_get_ns`.
pub(crate) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing. The call cannot fail: every Linux has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Cookie of the network namespace that this thread is in (Linux 5.14).
pub(crate) fn netns_cookie() -> io::Result<u64> {
    const SO_NETNS_COOKIE: i32 = 71;
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let mut cookie = 0_u64;
    let mut size: libc::socklen_t = 8;
    // SAFETY: `cookie` has the eight bytes that `size` says.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut size)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}
