//! Programs, maps and links: pins, ids, what the kernel says of them.

use std::ffi::CString;
use std::io;
use std::mem::size_of_val;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::{IdAttr, address_mut, bpf, cmd, descriptor, raw};

#[repr(C)]
struct PinAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens a pinned object.
pub(crate) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = PinAttr { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the path is a C string that outlives the call.
    unsafe { bpf(cmd::OBJ_GET, &mut attr) }.map(descriptor)
}

/// Pins an object.
pub(crate) fn obj_pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = PinAttr { pathname: path.as_ptr() as u64, bpf_fd: raw(object), file_flags: 0 };
    // SAFETY: the path is a C string that outlives the call.
    unsafe { bpf(cmd::OBJ_PIN, &mut attr) }.map(drop)
}

/// The three kinds of objects that have ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Program,
    Map,
    Link,
}

/// All ids of a kind, in the kernel's order. Objects may come and go meanwhile.
pub(crate) fn ids(kind: Kind) -> io::Result<Vec<u32>> {
    let command = match kind {
        Kind::Program => cmd::PROG_GET_NEXT_ID,
        Kind::Map => cmd::MAP_GET_NEXT_ID,
        Kind::Link => cmd::LINK_GET_NEXT_ID,
    };
    let mut found = Vec::new();
    let mut attr = IdAttr::default();
    loop {
        attr.id = found.last().copied().unwrap_or(0);
        // SAFETY: no pointers.
        match unsafe { bpf(command, &mut attr) } {
            Ok(_) => found.push(attr.next_id),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(found),
            Err(error) => return Err(error),
        }
    }
}

/// Opens an object by id; `None` if it is gone.
pub(crate) fn by_id(kind: Kind, id: u32) -> io::Result<Option<OwnedFd>> {
    let command = match kind {
        Kind::Program => cmd::PROG_GET_FD_BY_ID,
        Kind::Map => cmd::MAP_GET_FD_BY_ID,
        Kind::Link => cmd::LINK_GET_FD_BY_ID,
    };
    let mut attr = IdAttr { id, ..IdAttr::default() };
    // SAFETY: no pointers.
    match unsafe { bpf(command, &mut attr) } {
        Ok(raw) => Ok(Some(descriptor(raw))),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `struct bpf_prog_info` up to `run_cnt`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProgramInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    pub(crate) created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    pub(crate) name: [u8; 16],
    ifindex: u32,
    flags: u32,
    netns: [u64; 2],
    nr_jited_ksyms: u32,
    nr_jited_func_lens: u32,
    jited_ksyms: u64,
    jited_func_lens: u64,
    btf_id: u32,
    func_info_rec_size: u32,
    func_info: u64,
    nr_func_info: u32,
    nr_line_info: u32,
    line_info: u64,
    jited_line_info: u64,
    nr_jited_line_info: u32,
    line_info_rec_size: u32,
    jited_line_info_rec_size: u32,
    nr_prog_tags: u32,
    prog_tags: u64,
    /// Time spent in it, nanoseconds: counted while `kernel.bpf_stats_enabled` is 1.
    pub(crate) run_time_ns: u64,
    /// How often it ran: counted while `kernel.bpf_stats_enabled` is 1.
    pub(crate) run_cnt: u64,
}

/// `struct bpf_map_info` up to the ids of its types.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
    pub(crate) name: [u8; 16],
    ifindex: u32,
    btf_vmlinux_value_type_id: u32,
    netns: [u64; 2],
    /// The BTF object that describes keys and values; 0 without one.
    pub(crate) btf_id: u32,
    pub(crate) btf_key_type_id: u32,
    pub(crate) btf_value_type_id: u32,
    pad: u32,
}

/// `struct bpf_link_info`, with the first words of its union.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) program_id: u32,
    pad: u32,
    place: [u32; 4],
}

impl LinkInfo {
    /// Of a cgroup link: the cgroup's id (its inode number), 0 once detached, and the `enum bpf_attach_type`.
    pub(crate) const fn cgroup(&self) -> (u64, u32) {
        let [first, second] = [self.place[0] as u64, self.place[1] as u64];
        let id = if cfg!(target_endian = "big") { first << 32 | second } else { second << 32 | first };
        (id, self.place[2])
    }

    /// Of an XDP, tcx or netkit link: the index of the interface, 0 once detached.
    pub(crate) const fn interface(&self) -> u32 {
        self.place[0]
    }

    /// Of a tcx or netkit link: the `enum bpf_attach_type`.
    pub(crate) const fn interface_hook(&self) -> u32 {
        self.place[1]
    }
}

fn info<T: Default>(fd: BorrowedFd<'_>) -> io::Result<T> {
    #[repr(C)]
    struct Attr {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut value = T::default();
    let size = u32::try_from(size_of_val(&value)).expect("a small structure");
    let mut attr = Attr { bpf_fd: raw(fd), info_len: size, info: address_mut(&mut value) };
    // SAFETY: the kernel writes `info_len` bytes at most, and any bits are a value of the integers there.
    unsafe { bpf(cmd::OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(value)
}

/// What the kernel says of a program.
pub(crate) fn program_info(fd: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    info(fd)
}

/// Ids of the maps a program uses.
pub(crate) fn program_maps(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    #[repr(C)]
    struct Attr {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut ids = vec![0_u32; program_info(fd)?.nr_map_ids as usize];
    let mut query = ProgramInfo {
        nr_map_ids: u32::try_from(ids.len()).expect("the kernel's count"),
        map_ids: address_mut(ids.as_mut_slice()),
        ..ProgramInfo::default()
    };
    let size = u32::try_from(size_of_val(&query)).expect("a small structure");
    let mut attr = Attr { bpf_fd: raw(fd), info_len: size, info: address_mut(&mut query) };
    // SAFETY: `map_ids` points to room for `nr_map_ids` words.
    unsafe { bpf(cmd::OBJ_GET_INFO_BY_FD, &mut attr) }?;
    ids.truncate(query.nr_map_ids as usize);
    Ok(ids)
}

/// What the kernel says of a map.
pub(crate) fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    info(fd)
}

/// What the kernel says of a link.
pub(crate) fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    info(fd)
}

/// Gives a link another program in one step: whatever passes the hook meets the one or the other. Linux 5.7.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attr = Attr { link_fd: raw(link), new_prog_fd: raw(program), flags: 0, old_prog_fd: 0 };
    // SAFETY: no pointers.
    unsafe { bpf(cmd::LINK_UPDATE, &mut attr) }.map(drop)
}

/// Takes a link off its hook at once; it stays as an object until unpinned. Linux 5.9.
pub(crate) fn link_detach(fd: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link_fd: u32,
    }
    // SAFETY: no pointers.
    unsafe { bpf(cmd::LINK_DETACH, &mut Attr { link_fd: raw(fd) }) }.map(drop)
}
