//! Recording a node: every item into a folder or one `.tar.zst`, whole or not at all.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use fs_err as fs;
use tempfile::{NamedTempFile, TempDir};

use super::item::{Item, Variant, plain_save_file};
use super::manifest::{self, Entry, Manifest};
use super::{Captured, Node, live};
use crate::error::{Hinted, with_causes};

/// Files in a folder are gzipped from this size on.
const PACKED_FROM: usize = 300_000;
/// Ending of an archive.
const ARCHIVE: &str = ".tar.zst";
/// Endings of archives that kpx does not write: a folder of that name would surprise.
const OTHER_ARCHIVES: &[&str] = &["tar", "tgz", "gz", "bz2", "xz", "zst", "tzst", "zip"];
/// A chain that kube-proxy keeps in the mangle table of the variant that it uses.
const CANARY: &[u8] = b"KUBE-PROXY-CANARY";

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Something is there already.
    #[error("{} exists already", .path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The name is that of an archive of another kind.
    #[error("cannot write {}: archives of snapshots end in {ARCHIVE}", .path.display())]
    OtherArchive {
        /// The target.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("cannot write snapshot {}", .path.display())]
    Write {
        /// The target.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The operator stopped it; nothing is left.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

impl Hinted for SnapshotError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Exists { path } => {
                vec![format!("give a new name, or remove it first: rm -r {}", path.display())]
            }
            Self::OtherArchive { path } => {
                let stem = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.split('.').next());
                vec![format!("try {}", path.with_file_name(format!("{}{ARCHIVE}", stem.unwrap_or("node"))).display())]
            }
            Self::Write { .. } | Self::Interrupted => Vec::new(),
        }
    }
}

/// Records every item of a node into `target`: a folder that is new or empty, or a new file ending in `.tar.zst`.
///
/// Items that cannot be read are recorded as absent, with the reason. `begin` is told what comes next; `stop` ends the
/// work before the next item. The target appears only when it is complete, readable by its owner alone.
pub fn take(
    node: &Node,
    target: &Path,
    stop: &AtomicBool,
    mut begin: impl FnMut(Item),
) -> Result<Manifest, SnapshotError> {
    let failed = |source| SnapshotError::Write { path: target.to_owned(), source };
    let mut sink = Sink::open(target)?;
    let original = node.recorded().and_then(|recorded| recorded.manifest());
    let taken = original.map_or_else(|| jiff::Timestamp::now().to_string(), |m| m.taken.clone());
    let mut entries = Vec::new();
    let mut pending = Vec::new();
    let mut plain = Variant::Nft;
    for item in Item::ALL {
        if stop.load(Ordering::Relaxed) {
            return Err(SnapshotError::Interrupted);
        }
        begin(item);
        let read = Read::of(node, item);
        // The names of the rules' files are known when all of them have been seen.
        if let Item::IptablesSave(_, variant) = item {
            // The nft ones come last and win: a canary of both is what a change of the variant leaves.
            if read.has_canary() {
                plain = variant;
            }
            pending.push((item, read));
            continue;
        }
        for (item, read) in pending.drain(..).chain([(item, read)]) {
            entries.push(read.write(item, file_name(item, plain), original, &mut sink).map_err(failed)?);
        }
    }
    let manifest = Manifest {
        api_version: "kpx.dev/v1".to_owned(),
        kind: "Snapshot".to_owned(),
        kpx_version: env!("CARGO_PKG_VERSION").to_owned(),
        taken,
        node: node.node_name().to_owned(),
        label: node.label(),
        items: entries,
    };
    let mut text = serde_json::to_vec_pretty(&manifest).expect("plain structs always serialise");
    text.push(b'\n');
    sink.put(manifest::FILE, &text).map_err(failed)?;
    sink.finish()?;
    Ok(manifest)
}

fn file_name(item: Item, plain: Variant) -> &'static str {
    match item {
        Item::IptablesSave(family, variant) if variant == plain => plain_save_file(family),
        _ => item.files()[0],
    }
}

/// What reading an item gave.
struct Read {
    captured: Captured,
    failed: bool,
}

impl Read {
    fn of(node: &Node, item: Item) -> Self {
        match node.read(item) {
            Ok(captured) => Self { captured, failed: false },
            Err(error) => Self { captured: Captured::Absent { reason: with_causes(&error) }, failed: true },
        }
    }

    fn has_canary(&self) -> bool {
        matches!(&self.captured, Captured::Present { bytes, .. } if memchr::memmem::find(bytes, CANARY).is_some())
    }

    fn write(self, item: Item, file: &str, original: Option<&Manifest>, sink: &mut Sink) -> io::Result<Entry> {
        let told = original.and_then(|m| m.items.iter().find(|e| e.item == item.name()));
        let source = |place: Option<String>| match told {
            Some(entry) => entry.source.clone(),
            None => place.unwrap_or_else(|| live::source(item)),
        };
        let entry = Entry {
            item: item.name().to_owned(),
            file: file.to_owned(),
            source: String::new(),
            bytes: None,
            absent: None,
            failed: self.failed,
        };
        Ok(match self.captured {
            Captured::Present { bytes, place } => Entry {
                file: sink.put(file, &bytes)?,
                source: source(Some(place)),
                bytes: Some(bytes.len() as u64),
                ..entry
            },
            Captured::Absent { reason } => Entry { source: source(None), absent: Some(reason), ..entry },
        })
    }
}

/// Where files go until all are there.
enum Sink {
    Folder { work: TempDir, target: PathBuf },
    Archive { work: tar::Builder<zstd::Encoder<'static, NamedTempFile>>, top: String, target: PathBuf },
}

impl Sink {
    fn open(target: &Path) -> Result<Self, SnapshotError> {
        let path = || target.to_owned();
        let failed = |source| SnapshotError::Write { path: path(), source };
        let name = match target.components().next_back() {
            Some(Component::Normal(name)) => name.to_string_lossy().into_owned(),
            _ => return Err(SnapshotError::Exists { path: path() }),
        };
        // A sibling of the target, so that the last step is one rename.
        let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut temporary = tempfile::Builder::new();
        let prefix = format!(".{name}.");
        temporary.prefix(&prefix);
        let at_parent = |e: io::Error| failed(io::Error::new(e.kind(), format!("{}: {e}", parent.display())));
        if let Some(stem) = name.strip_suffix(ARCHIVE).filter(|stem| !stem.is_empty()) {
            if target.symlink_metadata().is_ok() {
                return Err(SnapshotError::Exists { path: path() });
            }
            let file = temporary.permissions(Permissions::from_mode(0o600)).tempfile_in(parent).map_err(at_parent)?;
            let encoder = zstd::Encoder::new(file, zstd::DEFAULT_COMPRESSION_LEVEL).map_err(failed)?;
            return Ok(Self::Archive { work: tar::Builder::new(encoder), top: stem.to_owned(), target: path() });
        }
        if target.extension().and_then(|e| e.to_str()).is_some_and(|e| OTHER_ARCHIVES.contains(&e)) {
            return Err(SnapshotError::OtherArchive { path: path() });
        }
        match fs::read_dir(target) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(SnapshotError::Exists { path: path() });
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Err(SnapshotError::Exists { path: path() }),
            Err(e) => return Err(failed(e)),
        }
        let work = temporary.permissions(Permissions::from_mode(0o700)).tempdir_in(parent).map_err(at_parent)?;
        Ok(Self::Folder { work, target: path() })
    }

    /// Writes one file and gives its name in the snapshot.
    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<String> {
        match self {
            Self::Folder { work, .. } => {
                let path = work.path().join(name);
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder)?;
                }
                if bytes.len() < PACKED_FROM {
                    fs::write(path, bytes)?;
                    return Ok(name.to_owned());
                }
                let name = format!("{name}.gz");
                let mut packed = GzEncoder::new(fs::File::create(work.path().join(&name))?, Compression::default());
                packed.write_all(bytes)?;
                packed.finish()?;
                Ok(name)
            }
            Self::Archive { work, top, .. } => {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                header.set_mtime(jiff::Timestamp::now().as_second().unsigned_abs());
                work.append_data(&mut header, format!("{top}/{name}"), bytes)?;
                Ok(name.to_owned())
            }
        }
    }

    fn finish(self) -> Result<(), SnapshotError> {
        match self {
            Self::Folder { work, target } => {
                let failed = |source| SnapshotError::Write { path: target.clone(), source };
                // Removed again by `work` if the rename fails.
                fs::rename(work.path(), &target).map_err(failed)?;
                // What `work` would remove is gone.
                let _ = work.keep();
                Ok(())
            }
            Self::Archive { work, target, .. } => {
                let failed = |source| SnapshotError::Write { path: target.clone(), source };
                let file = work.into_inner().and_then(zstd::Encoder::finish).map_err(failed)?;
                file.as_file().sync_all().map_err(failed)?;
                match file.persist_noclobber(&target) {
                    Ok(_) => Ok(()),
                    Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => {
                        Err(SnapshotError::Exists { path: target })
                    }
                    Err(e) => Err(failed(e.error)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Family;

    #[test]
    fn names_of_the_rules_follow_the_variant() {
        let legacy = Item::IptablesSave(Family::V4, Variant::Legacy);
        assert_eq!(file_name(legacy, Variant::Legacy), "iptables-save.txt");
        assert_eq!(file_name(legacy, Variant::Nft), "iptables-legacy-save.txt");
        assert_eq!(file_name(Item::IptablesSave(Family::V6, Variant::Nft), Variant::Nft), "ip6tables-save.txt");
    }
}
