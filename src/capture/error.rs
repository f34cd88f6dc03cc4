//! What can go wrong at the door.

use std::io;
use std::path::PathBuf;

use super::command::CommandError;
use super::netlink::NetlinkError;
use super::{Item, api::ApiError};
use crate::error::Hinted;

/// Why raw state could not be read though it was looked for. What simply is not there is
/// [`super::Captured::Absent`] instead.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The snapshot is not there or cannot be opened.
    #[error("cannot open snapshot {}", .path.display())]
    OpenSnapshot {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing in it is known.
    #[error("{} is not a snapshot", .path.display())]
    NotASnapshot {
        /// As given.
        path: PathBuf,
        /// Why not.
        source: NotASnapshot,
    },
    /// A file cannot be read.
    #[error("cannot read {place}")]
    Read {
        /// The file.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// A file of a snapshot is damaged, or no file that kpx writes.
    #[error("{place} is damaged")]
    Damaged {
        /// The file; for one in an archive, the archive and its name there.
        place: String,
        /// How.
        source: Damage,
    },
    /// A program did not tell.
    #[error("cannot capture {item}")]
    Command {
        /// What was wanted.
        item: Item,
        /// Why.
        source: CommandError,
    },
    /// The kernel did not tell.
    #[error("cannot capture {item} from {place}")]
    Kernel {
        /// What was wanted.
        item: Item,
        /// A file or an interface of the kernel.
        place: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A subsystem of the kernel did not tell.
    #[error("cannot capture {item} by netlink")]
    Netlink {
        /// What was wanted.
        item: Item,
        /// Why.
        source: NetlinkError,
    },
    /// Something answered, but not as kube-proxy does.
    #[error("cannot capture {item} from {place}")]
    Http {
        /// What was wanted.
        item: Item,
        /// The URL.
        place: String,
        /// Why.
        source: super::http::HttpError,
    },
    /// The API server did not tell.
    #[error("cannot capture {item} from the API server")]
    Api {
        /// What was wanted.
        item: Item,
        /// Why.
        source: ApiError,
    },
}

/// Why a path is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum NotASnapshot {
    /// A folder without any known file.
    #[error("the folder holds no file of a snapshot, such as iptables-save.txt")]
    NoKnownFile {
        /// Folders inside it that are snapshots.
        inside: Vec<PathBuf>,
    },
    /// An archive without any known file.
    #[error("the archive holds no file of a snapshot, such as iptables-save.txt")]
    NoKnownEntry,
    /// A file of another kind.
    #[error("it is neither a folder nor a zstd-compressed tar archive")]
    OtherFile,
}

/// How a file of a snapshot is damaged.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The compression or the archive does not hold together.
    #[error("its data ends early or is corrupt")]
    Corrupt {
        /// What the decoder says.
        source: io::Error,
    },
    /// It would not fit into memory, or is made to fill it.
    #[error("it unpacks to more than {} MiB", .limit >> 20)]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    /// An entry's name leads out of the archive.
    #[error("the name is no plain path inside the archive")]
    Name,
    /// An entry's name is not text.
    #[error("the name is not UTF-8")]
    NotUtf8,
    /// An entry is a link or a device.
    #[error("it is neither a file nor a folder")]
    NotAFile,
    /// Two entries have one name.
    #[error("the archive holds it twice")]
    Twice,
    /// `capture.json` is not what kpx writes.
    #[error("it is not the JSON that kpx writes")]
    Manifest {
        /// What the parser says, with line and column.
        source: serde_json::Error,
    },
}

impl Hinted for CaptureError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::OpenSnapshot { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                vec!["record one on a node with: kpx snapshot node.tar.zst".to_owned()]
            }
            Self::NotASnapshot { source: NotASnapshot::NoKnownFile { inside }, .. } => {
                inside.iter().take(3).map(|path| format!("did you mean --from {}", path.display())).collect()
            }
            Self::Command { source, .. } => source.hints(),
            Self::Api { source, .. } => source.hints(),
            Self::Netlink { source, .. } => source.hints(),
            Self::Kernel { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                vec!["run kpx as root".to_owned()]
            }
            Self::Damaged { .. } => {
                vec!["copy the snapshot again, or take a new one with: kpx snapshot node.tar.zst".to_owned()]
            }
            _ => Vec::new(),
        }
    }
}
