//! API objects from files: `--services-from`.

use std::path::Path;

use serde::Deserialize;

use super::Captured;
use super::error::CaptureError;
use super::item::Item;
use super::recorded::Recorded;
use super::store::{Found, ZSTD, read_file, unpack};

/// First bytes of gzip (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// API objects given beside a node.
#[derive(Debug)]
pub(super) enum Objects {
    /// One list, of one kind or of several.
    File { bytes: Vec<u8>, place: String },
    /// A folder or archive with `services.json` and its kin.
    Snapshot(Recorded),
}

impl Objects {
    pub(super) fn open(path: &Path) -> Result<Self, CaptureError> {
        if path.is_dir() {
            return Recorded::open(path).map(Self::Snapshot);
        }
        let found = read_file(path)?.ok_or_else(|| CaptureError::Read {
            place: path.display().to_string(),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        if found.bytes.starts_with(&ZSTD) {
            return Recorded::open(path).map(Self::Snapshot);
        }
        let Found { bytes, place } = if found.bytes.starts_with(&GZIP) { unpack(found)? } else { found };
        Ok(Self::File { bytes, place })
    }

    pub(super) fn read(&self, item: Item, kind: &str) -> Result<Captured, CaptureError> {
        match self {
            Self::File { bytes, place } => Ok(of_kind(Found { bytes: bytes.clone(), place: place.clone() }, kind)),
            Self::Snapshot(snapshot) => snapshot.read(item),
        }
    }
}

/// The file, if it is a list with objects of a kind. What is no list at all is left to the reader, who can say where it
/// goes wrong.
pub(super) fn of_kind(found: Found, kind: &str) -> Captured {
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        kind: String,
        #[serde(default)]
        items: Option<Vec<Object>>,
    }
    #[derive(Deserialize)]
    struct Object {
        #[serde(default)]
        kind: Option<String>,
    }

    // The API server puts the kind first: no need to look through 10 000 objects.
    let start = format!("{{\"kind\":\"{kind}List\"");
    if found.bytes.starts_with(start.as_bytes()) {
        return Captured::Present { bytes: found.bytes, place: found.place };
    }
    let holds = match serde_json::from_slice::<List>(&found.bytes) {
        Err(_) => true,
        Ok(List { kind: list, items }) => match list.strip_suffix("List") {
            Some("") => items.unwrap_or_default().iter().any(|o| o.kind.as_deref() == Some(kind)),
            Some(of) => of == kind,
            None => true,
        },
    };
    if holds {
        Captured::Present { bytes: found.bytes, place: found.place }
    } else {
        Captured::Absent { reason: format!("{} holds no {kind} objects", found.place) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, kind: &str) -> bool {
        let found = Found { bytes: text.as_bytes().to_vec(), place: "all.json".to_owned() };
        matches!(of_kind(found, kind), Captured::Present { .. })
    }

    #[test]
    fn lists_hold_their_kind_only() {
        assert!(holds(r#"{"kind":"ServiceList","items":[]}"#, "Service"));
        assert!(!holds(r#"{"kind":"ServiceList","items":[]}"#, "Node"));
        let mixed = r#"{"kind":"List","items":[{"kind":"Service","spec":{}},{"kind":"Node"}]}"#;
        assert!(holds(mixed, "Service") && holds(mixed, "Node"));
        assert!(!holds(mixed, "EndpointSlice"));
        assert!(holds("{ not json", "Node"), "the reader says what is wrong");
    }
}
