//! Maps whose key and value types are known when kpx is compiled.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::Pod;

use super::{BatchAttr, ElemAttr, MapInfo, address, address_mut, bpf, cmd, map_info, obj_get, raw, unsupported};
use crate::failpoint;

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

/// Number of keys in the map that one can walk through; counts what is there while it looks.
pub(crate) fn count_keys(map: BorrowedFd<'_>) -> io::Result<u64> {
    let size = map_info(map)?.key_size as usize;
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

/// Number of processors the kernel has room for: the number of copies of a per-CPU value.
pub(super) fn possible_processors() -> io::Result<usize> {
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
