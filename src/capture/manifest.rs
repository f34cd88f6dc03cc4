//! `capture.json`: what a snapshot holds, where each file came from, and why something is missing.

use serde::{Deserialize, Serialize};

use super::error::{CaptureError, Damage};
use super::store::Store;

/// The file's name.
pub(super) const FILE: &str = "capture.json";

/// The content of `capture.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// `kpx.dev/v1`.
    pub api_version: String,
    /// `Snapshot`.
    pub kind: String,
    /// kpx's version.
    pub kpx_version: String,
    /// When the snapshot was begun, in UTC (RFC 3339).
    pub taken: String,
    /// Name of the Node object.
    pub node: String,
    /// What was read, as kpx names it in messages.
    pub label: String,
    /// One for each kind of raw state.
    pub items: Vec<Entry>,
}

/// What became of one kind of raw state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The item's name.
    pub item: String,
    /// Its file in the snapshot, or the one it would have had.
    pub file: String,
    /// How it was, or would have been, read: a command line, a file, a URL.
    pub source: String,
    /// Size of the content, unpacked; `None` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Why it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
    /// It should have been there, but reading it failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

impl Manifest {
    /// The manifest of a snapshot; `None` in recordings that kpx did not make.
    pub(super) fn read(store: &Store) -> Result<Option<Self>, CaptureError> {
        let Some(found) = store.read(FILE)? else { return Ok(None) };
        match serde_json::from_slice(&found.bytes) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(source) => Err(CaptureError::Damaged { place: found.place, source: Damage::Manifest { source } }),
        }
    }

    /// Why an item is absent, if the snapshot says so.
    pub(super) fn why_absent(&self, item: &str) -> Option<&str> {
        self.items.iter().find(|e| e.item == item)?.absent.as_deref()
    }
}
