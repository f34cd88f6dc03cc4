//! bpf(2) and its kin: the one module of the dataplane that speaks to the kernel in raw structures.
//!
//! Only what aya 0.14 does not offer: batches, objects by id with run-time sizes, queries of cgroup hooks. Structures are
//! the members of `union bpf_attr` (include/uapi/linux/bpf.h), cut where the fields used end; a kernel takes the rest as
//! zero.
#![expect(unsafe_code, reason = "system calls with raw structures")]

mod entries;
pub(crate) mod trial;

use std::cell::Cell;
use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::mem::size_of_val;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::Pod;

use crate::failpoint;

pub(crate) use entries::{Entries, btf, copies};

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

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
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

/// Number of keys in the map that one can walk through; counts what is there while it looks.
pub(crate) fn count_keys(map: BorrowedFd<'_>) -> io::Result<u64> {
    let size = info::<MapInfo>(map)?.key_size as usize;
    let (mut key, mut next) = (vec![0_u8; size], vec![0_u8; size]);
    let mut count = 0;
    loop {
        let mut attr = ElemAttr {
            map_fd: raw(map),
            pad: 0,
            key: if count == 0 { 0 } else { address(key.as_slice()) },
            value: address_mut(next.as_mut_slice()),
            flags: 0,
        };
        // SAFETY: both buffers have the map's key size.
        match unsafe { bpf(cmd::MAP_GET_NEXT_KEY, &mut attr) } {
            Ok(_) => count += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(count),
            Err(error) => return Err(error),
        }
        std::mem::swap(&mut key, &mut next);
    }
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

/// A map of known key and value types: checked once, when it is opened.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    fd: OwnedFd,
    max_entries: u32,
    /// Values per key: the number of possible processors for a per-CPU map.
    copies: usize,
    /// Whether the kernel has batches for this map, as far as is known.
    batches: Cell<bool>,
    types: PhantomData<(K, V)>,
}

/// `BPF_MAP_TYPE_PERCPU_ARRAY`.
const PERCPU_ARRAY: u32 = 6;

impl<K: Pod + Default + PartialEq, V: Pod + Default> Table<K, V> {
    /// Opens a pinned map; `None` if its key or value has another size.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        let fd = obj_get(path)?;
        let info = map_info(fd.as_fd())?;
        let per_cpu = info.kind == PERCPU_ARRAY;
        if info.key_size as usize != size_of::<K>() || info.value_size as usize != size_of::<V>() {
            return Ok(None);
        }
        if per_cpu && !size_of::<V>().is_multiple_of(8) {
            return Ok(None);
        }
        let copies = if per_cpu { possible_processors()? } else { 1 };
        Ok(Some(Self { fd, max_entries: info.max_entries, copies, batches: Cell::new(true), types: PhantomData }))
    }

    /// Behaves as on a kernel without batches from now on.
    #[cfg(test)]
    pub(crate) fn without_batches(&self) {
        self.batches.set(false);
    }

    /// Most elements it can hold.
    pub(crate) const fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// The values of a key: one, or one for each processor; `None` without such a key.
    pub(crate) fn get_all(&self, key: &K) -> io::Result<Option<Vec<V>>> {
        let mut values = vec![V::default(); self.copies];
        let mut attr = ElemAttr {
            map_fd: raw(self.fd.as_fd()),
            pad: 0,
            key: address(key),
            value: address_mut(values.as_mut_slice()),
            flags: 0,
        };
        // SAFETY: sizes were checked on opening; a per-CPU value has the possible processors' number of copies.
        match unsafe { bpf(cmd::MAP_LOOKUP_ELEM, &mut attr) } {
            Ok(_) => Ok(Some(values)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &K) -> io::Result<Option<V>> {
        Ok(self.get_all(key)?.and_then(|values| values.first().copied()))
    }

    /// Writes an element.
    pub(crate) fn put(&self, key: &K, value: &V) -> io::Result<()> {
        debug_assert_eq!(self.copies, 1, "per-CPU maps are only read");
        let mut attr =
            ElemAttr { map_fd: raw(self.fd.as_fd()), pad: 0, key: address(key), value: address(value), flags: 0 };
        // SAFETY: sizes were checked on opening; the kernel reads only.
        unsafe { bpf(cmd::MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    /// Writes elements in their order: in one call where the kernel has batches (Linux 5.6), else one by one.
    pub(crate) fn put_many(&self, keys: &[K], values: &[V]) -> io::Result<()> {
        assert_eq!(keys.len(), values.len(), "one value for each key");
        if let ([key], [value]) = (keys, values) {
            return self.put(key, value);
        }
        if self.batches.get() && !keys.is_empty() {
            let mut attr = BatchAttr {
                keys: address(keys),
                values: address(values),
                count: u32::try_from(keys.len()).map_err(io::Error::other)?,
                map_fd: raw(self.fd.as_fd()),
                ..BatchAttr::default()
            };
            // SAFETY: `keys` and `values` are arrays of `count` elements of the checked sizes; the kernel only reads them.
            match unsafe { bpf(cmd::MAP_UPDATE_BATCH, &mut attr) } {
                Ok(_) => {
                    failpoint::changed();
                    return Ok(());
                }
                Err(error) if unsupported(&error) => self.batches.set(false),
                Err(error) => return Err(error),
            }
        }
        keys.iter().zip(values).try_for_each(|(key, value)| self.put(key, value))?;
        failpoint::changed();
        Ok(())
    }

    /// Removes an element; whether there was one.
    pub(crate) fn delete(&self, key: &K) -> io::Result<bool> {
        let mut attr = ElemAttr { map_fd: raw(self.fd.as_fd()), pad: 0, key: address(key), value: 0, flags: 0 };
        // SAFETY: the key's size was checked on opening.
        match unsafe { bpf(cmd::MAP_DELETE_ELEM, &mut attr) } {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All elements, in the kernel's order: in a few calls where it has batches (Linux 5.6), else one by one.
    pub(crate) fn dump(&self) -> io::Result<Vec<(K, V)>> {
        let mut found: Vec<(K, V)> = Vec::new();
        self.walk(|page| {
            found.extend(page);
            io::Result::Ok(())
        })?;
        Ok(found)
    }

    /// Hands all elements on, some thousands at a time; all at once where the kernel has no batches. What is handed on may
    /// be deleted meanwhile.
    pub(crate) fn walk<E: From<io::Error>>(&self, mut each: impl FnMut(Vec<(K, V)>) -> Result<(), E>) -> Result<(), E> {
        // A hash hands out whole buckets, so the room must not be too small for one.
        let mut room = 4096.min(self.max_entries as usize).max(64);
        let mut position: Option<[u8; 64]> = None;
        while self.batches.get() {
            match self.batch(&mut room, position.as_ref()) {
                Ok((page, next)) => {
                    each(page)?;
                    if next.is_none() {
                        return Ok(());
                    }
                    position = next;
                }
                Err(error) if position.is_none() && unsupported(&error) => self.batches.set(false),
                Err(error) => return Err(error.into()),
            }
        }
        each(self.one_by_one()?)
    }

    fn one_by_one(&self) -> io::Result<Vec<(K, V)>> {
        let mut found: Vec<(K, V)> = Vec::new();
        let mut next = K::default();
        loop {
            let last = found.last().map(|(key, _)| *key);
            let mut attr = ElemAttr {
                map_fd: raw(self.fd.as_fd()),
                pad: 0,
                key: last.as_ref().map_or(0, address),
                value: address_mut(&mut next),
                flags: 0,
            };
            // SAFETY: both keys have the size checked on opening.
            match unsafe { bpf(cmd::MAP_GET_NEXT_KEY, &mut attr) } {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(found),
                Err(error) => return Err(error),
            }
            if let Some(value) = self.get(&next)? {
                found.push((next, value));
            }
        }
    }

    /// The elements after this position of the walk, and the next position; none at the end.
    #[expect(clippy::type_complexity, reason = "elements and a position")]
    fn batch(&self, room: &mut usize, position: Option<&[u8; 64]>) -> io::Result<(Vec<(K, V)>, Option<[u8; 64]>)> {
        assert!(size_of::<K>() <= 64, "a position of the walk is a key or a number");
        loop {
            let mut keys = vec![K::default(); *room];
            let mut values = vec![V::default(); *room];
            let mut after = [0_u8; 64];
            let mut attr = BatchAttr {
                in_batch: position.map_or(0, address),
                out_batch: address_mut(&mut after),
                keys: address_mut(keys.as_mut_slice()),
                values: address_mut(values.as_mut_slice()),
                count: u32::try_from(*room).map_err(io::Error::other)?,
                map_fd: raw(self.fd.as_fd()),
                ..BatchAttr::default()
            };
            // SAFETY: `keys` and `values` have room for `count` elements of the checked sizes; a position is at most as
            // large as a key (arrays) or four bytes (hashes).
            let end = match unsafe { bpf(cmd::MAP_LOOKUP_BATCH, &mut attr) } {
                Ok(_) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    *room *= 2;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let page = keys.into_iter().zip(values).take(attr.count as usize).collect();
            return Ok((page, (!end).then_some(after)));
        }
    }
}

/// Whether a refusal means that the kernel does not know the command for this map (`ENOTSUPP` is the kernel's own 524).
fn unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS | 524))
}

/// Number of processors the kernel has room for: the number of copies of a per-CPU value.
fn possible_processors() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(_, error)| error)
}

/// Writes an element of a map whose types are known at run time only; fails where a size is not the map's.
pub(crate) fn put(map: BorrowedFd<'_>, info: &MapInfo, key: &[u8], value: &[u8]) -> io::Result<()> {
    if key.len() != info.key_size as usize || value.len() != info.value_size as usize || info.kind == PERCPU_ARRAY {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut attr = ElemAttr { map_fd: raw(map), pad: 0, key: address(key), value: address(value), flags: 0 };
    // SAFETY: key and value have the map's sizes; the kernel reads only.
    unsafe { bpf(cmd::MAP_UPDATE_ELEM, &mut attr) }.map(drop)
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
