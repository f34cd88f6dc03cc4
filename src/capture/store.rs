//! Files of a snapshot by name, whether in a folder or in one archive, gzipped or not.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use fs_err as fs;

use super::archive::Archive;
use super::error::{CaptureError, Damage, NotASnapshot};
use super::item::{Item, plain_save_file};
use super::manifest;

/// First bytes of a zstd frame (RFC 8878).
pub(super) const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The most that one file of a snapshot may unpack to. The largest known, `nft -j list ruleset` of 10 000 Services, has
/// about 100 MB.
pub(super) const FILE_LIMIT: u64 = 1 << 30;

/// How much of a file is read to see what it is.
pub(super) const START: u64 = 4096;

/// A snapshot's files.
#[derive(Debug)]
pub(super) enum Store {
    Folder(PathBuf),
    Archive(Archive),
}

/// One file, unpacked.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) bytes: Vec<u8>,
    /// Where it was, for messages.
    pub(super) place: String,
}

impl Store {
    /// Opens a folder or an archive and makes sure that it holds at least one known file.
    pub(super) fn open(path: &Path) -> Result<Self, CaptureError> {
        let failed = |source| CaptureError::OpenSnapshot { path: path.to_owned(), source };
        let not = |source| CaptureError::NotASnapshot { path: path.to_owned(), source };
        if fs::metadata(path).map_err(failed)?.is_dir() {
            if is_snapshot(path).map_err(failed)? {
                return Ok(Self::Folder(path.to_owned()));
            }
            return Err(not(NotASnapshot::NoKnownFile { inside: snapshots_inside(path) }));
        }
        let mut start = [0; 4];
        let magic = fs::File::open(path).and_then(|mut f| f.read_exact(&mut start)).map(|()| start);
        match magic {
            Ok(ZSTD) => {}
            Ok(_) => return Err(not(NotASnapshot::OtherFile)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(not(NotASnapshot::OtherFile)),
            Err(e) => return Err(failed(e)),
        }
        let archive = Archive::open(path)?;
        if archive.names().any(is_known) { Ok(Self::Archive(archive)) } else { Err(not(NotASnapshot::NoKnownEntry)) }
    }

    /// The first bytes of the file `name`, or of `name.gz` unpacked; `None` if there is neither.
    pub(super) fn start(&self, name: &str) -> Result<Option<Vec<u8>>, CaptureError> {
        for (name, packed) in [(name.to_owned(), false), (format!("{name}.gz"), true)] {
            let bytes = match self {
                Self::Folder(folder) => {
                    let path = folder.join(name);
                    let place = || path.display().to_string();
                    start_of_file(&path).map_err(|source| CaptureError::Read { place: place(), source })?
                }
                Self::Archive(archive) => archive.start(&name).map(<[u8]>::to_vec),
            };
            let Some(bytes) = bytes else { continue };
            if !packed {
                return Ok(Some(bytes));
            }
            let mut unpacked = Vec::new();
            // It ends early, and that is no matter: damage shows when all of it is read.
            let _ = MultiGzDecoder::new(bytes.as_slice()).take(START).read_to_end(&mut unpacked);
            return Ok(Some(unpacked));
        }
        Ok(None)
    }

    /// The file `name`, or `name.gz` unpacked; `None` if there is neither.
    pub(super) fn read(&self, name: &str) -> Result<Option<Found>, CaptureError> {
        for (name, packed) in [(name.to_owned(), false), (format!("{name}.gz"), true)] {
            let found = match self {
                Self::Folder(folder) => read_file(&folder.join(name))?,
                Self::Archive(archive) => archive.read(&name)?,
            };
            let Some(found) = found else { continue };
            return if packed { unpack(found).map(Some) } else { Ok(Some(found)) };
        }
        Ok(None)
    }
}

fn start_of_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if !path.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(START).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// A file's bytes; `None` if there is no such file.
pub(super) fn read_file(path: &Path) -> Result<Option<Found>, CaptureError> {
    let place = path.display().to_string();
    let read = || -> io::Result<Option<Vec<u8>>> {
        let metadata = match fs::metadata(path) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            other => other?,
        };
        // Opening a pipe would wait for somebody to write to it.
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    };
    match read() {
        Ok(Some(bytes)) if bytes.len() as u64 > FILE_LIMIT => {
            Err(CaptureError::Damaged { place, source: Damage::TooLarge { limit: FILE_LIMIT } })
        }
        Ok(bytes) => Ok(bytes.map(|bytes| Found { bytes, place })),
        Err(source) => Err(CaptureError::Read { place, source }),
    }
}

/// Unpacks gzip.
pub(super) fn unpack(found: Found) -> Result<Found, CaptureError> {
    let Found { bytes: packed, place } = found;
    let mut bytes = Vec::new();
    match MultiGzDecoder::new(packed.as_slice()).take(FILE_LIMIT + 1).read_to_end(&mut bytes) {
        Err(source) => Err(CaptureError::Damaged { place, source: Damage::Corrupt { source } }),
        Ok(_) if bytes.len() as u64 > FILE_LIMIT => {
            Err(CaptureError::Damaged { place, source: Damage::TooLarge { limit: FILE_LIMIT } })
        }
        Ok(_) => Ok(Found { bytes, place }),
    }
}

fn is_known(name: &str) -> bool {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let plain = [crate::model::Family::V4, crate::model::Family::V6].map(plain_save_file);
    name == manifest::FILE || plain.contains(&name) || Item::ALL.iter().any(|i| i.files().contains(&name))
}

fn is_snapshot(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if is_known(name) || (name == "api" && is_snapshot(&folder.join(name)).unwrap_or(false)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn snapshots_inside(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let folders = entries
        .filter_map(Result::ok)
        .map(|e| e.path())
        .filter(|p| p.is_dir() && p.file_name() != Some("api".as_ref()));
    let mut inside: Vec<_> = folders.filter(|p| is_snapshot(p).unwrap_or(false)).collect();
    inside.sort();
    inside
}
