//! Reading a snapshot that is one `.tar.zst`.
//!
//! Opening reads the archive once, from end to end, so that damage shows before anything is decided on its content;
//! small files are kept from that pass, large ones are read again when asked for.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use fs_err as fs;
use tar::{EntryType, PaxExtensions};

use super::error::{CaptureError, Damage};
use super::store::{FILE_LIMIT, Found, START};

/// Files up to this size stay in memory.
const KEPT: u64 = 8 << 20;
/// How much may stay in memory altogether.
const KEPT_TOTAL: u64 = 256 << 20;
/// More entries than any snapshot has.
const ENTRIES: usize = 10_000;
/// What all entries together may unpack to.
const TOTAL: u64 = 8 * FILE_LIMIT;
/// The most that an entry may say about the next one: its long name.
const EXTENSION: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    /// By name inside the snapshot, with the name inside the archive.
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    full_name: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// All of it.
    Kept(Vec<u8>),
    /// The first bytes; the rest is read again when asked for.
    Start(Vec<u8>),
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Self, CaptureError> {
        let mut entries = BTreeMap::new();
        let (mut kept, mut unpacked) = (0, 0);
        walk(path, |name, size, reader| {
            let place = || format!("{}:{name}", path.display());
            if size > FILE_LIMIT {
                return Err(damaged(place(), Damage::TooLarge { limit: FILE_LIMIT }));
            }
            let corrupt = |source| damaged(place(), Damage::Corrupt { source });
            let content = if size <= KEPT && kept + size <= KEPT_TOTAL {
                kept += size;
                Content::Kept(read_whole(reader, size).map_err(corrupt)?)
            } else {
                let start = read_whole(reader, size.min(START)).map_err(corrupt)?;
                io::copy(reader, &mut io::sink()).map_err(corrupt)?;
                Content::Start(start)
            };
            let entry = Entry { full_name: name.to_owned(), content };
            if entries.insert(name.to_owned(), entry).is_some() {
                return Err(damaged(place(), Damage::Twice));
            }
            unpacked += size;
            if entries.len() > ENTRIES || unpacked > TOTAL {
                return Err(damaged(path.display().to_string(), Damage::TooLarge { limit: TOTAL }));
            }
            Ok(true)
        })?;
        Ok(Self { path: path.to_owned(), entries: without_common_folder(entries) })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The first bytes of a file, as they are stored.
    pub(super) fn start(&self, name: &str) -> Option<&[u8]> {
        let (Content::Kept(bytes) | Content::Start(bytes)) = &self.entries.get(name)?.content;
        Some(&bytes[..bytes.len().min(START as usize)])
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Found>, CaptureError> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let place = format!("{}:{}", self.path.display(), entry.full_name);
        if let Content::Kept(bytes) = &entry.content {
            return Ok(Some(Found { bytes: bytes.clone(), place }));
        }
        let mut found = None;
        walk(&self.path, |name, size, reader| {
            if name != entry.full_name {
                return Ok(true);
            }
            let bytes = read_whole(reader, size.min(FILE_LIMIT));
            found = Some(bytes.map_err(|source| damaged(place.clone(), Damage::Corrupt { source }))?);
            Ok(false)
        })?;
        match found {
            Some(bytes) => Ok(Some(Found { bytes, place })),
            None => {
                Err(CaptureError::Read { place, source: io::Error::other("the archive changed while it was read") })
            }
        }
    }
}

/// Calls `visit` with name, size and content of each file, until it says `false`.
fn walk(
    path: &Path,
    mut visit: impl FnMut(&str, u64, &mut dyn Read) -> Result<bool, CaptureError>,
) -> Result<(), CaptureError> {
    let whole = || path.display().to_string();
    let corrupt = |source| damaged(whole(), Damage::Corrupt { source });
    let file = fs::File::open(path).map_err(|source| CaptureError::Read { place: whole(), source })?;
    let mut decoder = zstd::Decoder::new(file).map_err(corrupt)?;
    {
        let mut archive = tar::Archive::new(&mut decoder);
        let mut long_name = None;
        // Raw: the crate would read a long name into memory whatever its size.
        for entry in archive.entries().map_err(corrupt)?.raw(true) {
            let mut entry = entry.map_err(corrupt)?;
            let kind = entry.header().entry_type();
            if kind.is_gnu_longname() || kind.is_pax_local_extensions() {
                long_name = name_of_next(kind, &mut entry).map_err(corrupt)?.or(long_name);
                continue;
            }
            let raw = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
            let shown = String::from_utf8_lossy(&raw).escape_debug().to_string();
            let at = |damage| damaged(format!("{}:{shown}", path.display()), damage);
            let name = str::from_utf8(&raw).map_err(|_| at(Damage::NotUtf8))?;
            let name = plain(name).ok_or_else(|| at(Damage::Name))?;
            if kind.is_dir() || kind.is_pax_global_extensions() {
                continue;
            }
            if !kind.is_file() {
                return Err(at(Damage::NotAFile));
            }
            let size = entry.size();
            if !visit(&name, size, &mut entry)? {
                return Ok(());
            }
        }
    }
    // The tar format ends before the compressed stream does: read on, so that a cut-off end is noticed.
    io::copy(&mut decoder.take(FILE_LIMIT), &mut io::sink()).map_err(corrupt)?;
    Ok(())
}

/// The name that an extension gives the next entry: GNU tar's, or the `path` of POSIX.1-2001.
fn name_of_next(kind: EntryType, entry: &mut dyn Read) -> io::Result<Option<Vec<u8>>> {
    let mut data = Vec::new();
    entry.take(EXTENSION + 1).read_to_end(&mut data)?;
    if data.len() as u64 > EXTENSION {
        return Err(io::Error::other("a name is too long"));
    }
    if kind.is_gnu_longname() {
        data.truncate(memchr::memchr(0, &data).unwrap_or(data.len()));
        return Ok(Some(data));
    }
    for record in PaxExtensions::new(&data) {
        let record = record?;
        if record.key_bytes() == b"path" {
            return Ok(Some(record.value_bytes().to_vec()));
        }
    }
    Ok(None)
}

fn read_whole(reader: &mut dyn Read, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(size).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// A name without `.`; `None` if it is absolute or leads upwards.
fn plain(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// `node-a/iptables-save.txt` is known as `iptables-save.txt` when everything lies in `node-a`.
fn without_common_folder(entries: BTreeMap<String, Entry>) -> BTreeMap<String, Entry> {
    let mut folders = entries.keys().map(|name| name.split_once('/').map(|(folder, _)| folder));
    let first = folders.next().flatten().filter(|f| *f != "api");
    let Some(folder) = first.filter(|first| folders.all(|f| f == Some(*first))).map(str::to_owned) else {
        return entries;
    };
    entries.into_iter().map(|(name, entry)| (name[folder.len() + 1..].to_owned(), entry)).collect()
}

const fn damaged(place: String, source: Damage) -> CaptureError {
    CaptureError::Damaged { place, source }
}
