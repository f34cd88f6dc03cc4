//! The world that comes with kpx, for a lab without a snapshot.

use std::io::Write as _;

use super::{LabError, Spec};
use crate::capture::{Node, NodeOptions};

/// A node of three, with one Service of every kind: kube-proxy v1.36.2 on iptables-nft, as recorded in
/// `tests/data/lab/node`.
const WORLD: &[u8] = include_bytes!("world.tar.zst");

impl Spec {
    /// The built-in world.
    pub fn builtin(name: &str) -> Result<Self, LabError> {
        let mut file = tempfile::Builder::new().prefix("kpx-world-").suffix(".tar.zst").tempfile()?;
        file.write_all(WORLD)?;
        let node = Node::open(&NodeOptions { from: Some(file.path().to_owned()), ..NodeOptions::default() })?;
        let spec = Self::read(&node, name)?;
        Ok(Self { from: "the recording that comes with kpx".to_owned(), ..spec })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;
    use std::path::Path;

    use super::*;

    /// The archive is committed; this proves that it is the folder beside the tests.
    #[test]
    fn the_world_is_the_recorded_folder() {
        let mut archive = tar::Archive::new(zstd::Decoder::new(WORLD).expect("zstd"));
        let mut packed = BTreeMap::new();
        for entry in archive.entries().expect("tar") {
            let mut entry = entry.expect("an entry");
            if entry.header().entry_type().is_file() {
                let name = entry.path().expect("a name").into_owned();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).expect("its bytes");
                packed.insert(name.file_name().expect("a file").to_owned(), bytes);
            }
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lab/node");
        let mut there = BTreeMap::new();
        for entry in fs_err::read_dir(folder).expect("the folder") {
            let entry = entry.expect("an entry");
            there.insert(entry.file_name(), fs_err::read(entry.path()).expect("its bytes"));
        }
        assert!(packed == there, "pack tests/data/lab/node again into src/lab/world.tar.zst");
    }
}
