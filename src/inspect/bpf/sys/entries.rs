//! Maps whose key and value types are known at run time only, and the BTF that describes them.

use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsFd as _, BorrowedFd};

use super::{BatchAttr, ElemAttr, IdAttr, MapInfo, address, address_mut, bpf, cmd, descriptor, raw, unsupported};

/// Map types with a copy of the value for each processor: per-CPU hash and array, LRU per-CPU hash, per-CPU cgroup storage.
const PER_CPU: [u32; 4] = [5, 6, 10, 21];

/// How many entries are asked for at once. A hash hands out whole buckets, so it must not be too few.
const PAGE: usize = 4096;

/// A walk through the entries of a map, page by page: in batches where the kernel has them (Linux 5.6), else one by one.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    map: BorrowedFd<'a>,
    key_size: usize,
    value_size: usize,
    most: usize,
    room: usize,
    batches: bool,
    /// Where the walk stands: the kernel's mark of a batch, or the last key.
    position: Option<Vec<u8>>,
    seen: usize,
    ended: bool,
    keys: Vec<u8>,
    values: Vec<u8>,
}

/// Entries that were read together.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    keys: std::slice::ChunksExact<'a, u8>,
    values: std::slice::ChunksExact<'a, u8>,
}

impl<'a> Iterator for Page<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.keys.next().zip(self.values.next())
    }
}

impl<'a> Entries<'a> {
    /// Starts at the beginning.
    pub(crate) fn new(map: BorrowedFd<'a>, info: &MapInfo) -> io::Result<Self> {
        let most = info.max_entries as usize;
        Ok(Self {
            map,
            key_size: info.key_size as usize,
            value_size: value_size(info)?,
            most,
            room: PAGE.min(most).max(64),
            batches: true,
            position: None,
            seen: 0,
            ended: false,
            keys: Vec::new(),
            values: Vec::new(),
        })
    }

    /// The next entries; `None` after the last.
    pub(crate) fn page(&mut self) -> io::Result<Option<Page<'_>>> {
        let mut count = 0;
        while count == 0 && !self.ended {
            count = match if self.batches { self.batch() } else { self.one_by_one() } {
                // What a kernel cannot do it says at the first batch.
                Err(error) if self.batches && unsupported(&error) && self.position.is_none() => {
                    self.batches = false;
                    0
                }
                result => result?,
            };
        }
        self.seen += count;
        let (keys, values) = (self.keys.get(..count * self.key_size), self.values.get(..count * self.value_size));
        let page = keys.zip(values).filter(|_| count > 0 && self.key_size > 0 && self.value_size > 0);
        Ok(page.map(|(keys, values)| Page {
            keys: keys.chunks_exact(self.key_size),
            values: values.chunks_exact(self.value_size),
        }))
    }

    fn batch(&mut self) -> io::Result<usize> {
        loop {
            self.keys.resize(self.room * self.key_size, 0);
            self.values.resize(self.room * self.value_size, 0);
            // The mark of a hash is a number, that of other maps a key.
            let mut after = vec![0_u8; self.key_size.max(8)];
            let mut attr = BatchAttr {
                in_batch: self.position.as_ref().map_or(0, |mark| address(mark.as_slice())),
                out_batch: address_mut(after.as_mut_slice()),
                keys: address_mut(self.keys.as_mut_slice()),
                values: address_mut(self.values.as_mut_slice()),
                count: u32::try_from(self.room).map_err(io::Error::other)?,
                map_fd: raw(self.map),
                ..BatchAttr::default()
            };
            // SAFETY: `keys` and `values` have room for `count` elements of the map's sizes, the marks for a key.
            match unsafe { bpf(cmd::MAP_LOOKUP_BATCH, &mut attr) } {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.ended = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    self.room *= 2;
                    continue;
                }
                Err(error) => return Err(error),
            }
            self.position = Some(after);
            return Ok((attr.count as usize).min(self.room));
        }
    }

    fn one_by_one(&mut self) -> io::Result<usize> {
        self.keys.resize(self.room * self.key_size, 0);
        self.values.resize(self.room * self.value_size, 0);
        let mut count = 0;
        // A key that is deleted under the walk sends it back to the start; no map has more entries than it has room for.
        while count < self.room && self.seen + count < self.most {
            let mut next = vec![0_u8; self.key_size];
            let mut attr = ElemAttr {
                map_fd: raw(self.map),
                pad: 0,
                key: self.position.as_ref().map_or(0, |key| address(key.as_slice())),
                value: address_mut(next.as_mut_slice()),
                flags: 0,
            };
            // SAFETY: both keys have the map's key size.
            match unsafe { bpf(cmd::MAP_GET_NEXT_KEY, &mut attr) } {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
                Err(error) => return Err(error),
            }
            let value = &mut self.values[count * self.value_size..][..self.value_size];
            let mut attr = ElemAttr {
                map_fd: raw(self.map),
                pad: 0,
                key: address(next.as_slice()),
                value: address_mut(value),
                flags: 0,
            };
            // SAFETY: the key has the map's key size, and `value` room for all copies of its value.
            match unsafe { bpf(cmd::MAP_LOOKUP_ELEM, &mut attr) } {
                Ok(_) => {
                    self.keys[count * self.key_size..][..self.key_size].copy_from_slice(&next);
                    count += 1;
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
            self.position = Some(next);
        }
        self.ended = count < self.room;
        Ok(count)
    }
}

/// Bytes that a lookup writes: the value, or its copies for all possible processors, each rounded up to 8.
fn value_size(info: &MapInfo) -> io::Result<usize> {
    let size = info.value_size as usize;
    if PER_CPU.contains(&info.kind) {
        return Ok(size.next_multiple_of(8) * super::table::possible_processors()?);
    }
    Ok(size)
}

/// Distance between the copies of a value in a per-CPU map; `None` for maps with one copy.
pub(crate) fn copies(info: &MapInfo) -> Option<usize> {
    PER_CPU.contains(&info.kind).then(|| (info.value_size as usize).next_multiple_of(8))
}

/// The bytes of a BTF object.
pub(crate) fn btf(id: u32) -> io::Result<Vec<u8>> {
    /// `struct bpf_btf_info`.
    #[repr(C)]
    #[derive(Default)]
    struct BtfInfo {
        btf: u64,
        btf_size: u32,
        id: u32,
        name: u64,
        name_len: u32,
        kernel_btf: u32,
    }
    #[repr(C)]
    struct Attr {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut attr = IdAttr { id, ..IdAttr::default() };
    // SAFETY: no pointers.
    let fd = descriptor(unsafe { bpf(cmd::BTF_GET_FD_BY_ID, &mut attr) }?);
    let mut bytes = Vec::new();
    loop {
        let room = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut info = BtfInfo { btf: address_mut(bytes.as_mut_slice()), btf_size: room, ..BtfInfo::default() };
        let info_len = u32::try_from(size_of_val(&info)).expect("a small structure");
        let mut attr = Attr { bpf_fd: raw(fd.as_fd()), info_len, info: address_mut(&mut info) };
        // SAFETY: `btf` points to room for `btf_size` bytes, and the kernel writes no more than `info_len` bytes of `info`.
        unsafe { bpf(cmd::OBJ_GET_INFO_BY_FD, &mut attr) }?;
        if info.btf_size <= room {
            bytes.truncate(info.btf_size as usize);
            return Ok(bytes);
        }
        bytes.resize(info.btf_size as usize, 0);
    }
}
