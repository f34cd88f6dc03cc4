//! Reading a node, recording it, and playing the recording back. The oracle is what the tools themselves print.

#[path = "capture/archives.rs"]
mod archives;
#[path = "capture/live.rs"]
mod live;
#[path = "capture/network.rs"]
pub(crate) mod network;
#[path = "capture/recordings.rs"]
mod recordings;
#[path = "capture/servers.rs"]
mod servers;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use assert_cmd::Command;
use kpx::capture::{self, Captured, Item, Manifest, Node, NodeOptions, SnapshotError};

/// The kpx binary, without the cluster that the person running the tests may have.
fn kpx() -> Command {
    let mut kpx = Command::new(env!("CARGO_BIN_EXE_kpx"));
    kpx.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST").env("HOME", "/nonexistent");
    kpx
}

fn open(path: &Path) -> Node {
    try_open(path).unwrap_or_else(|e| panic!("{} opens: {e}", path.display()))
}

fn try_open(path: &Path) -> Result<Node, capture::CaptureError> {
    Node::open(&NodeOptions { from: Some(path.to_owned()), ..NodeOptions::default() })
}

fn take(node: &Node, target: &Path) -> Result<Manifest, SnapshotError> {
    capture::take(node, target, &AtomicBool::new(false), |_| {})
}

/// The bytes of an item, or why there are none.
fn read(node: &Node, item: Item) -> Result<Vec<u8>, String> {
    match node.read(item).unwrap_or_else(|e| panic!("{item} of {} can be read: {e}", node.label())) {
        Captured::Present { bytes, .. } => Ok(bytes),
        Captured::Absent { reason } => Err(reason),
    }
}

fn read_text(node: &Node, item: Item) -> String {
    let bytes = read(node, item).unwrap_or_else(|why| panic!("{item} of {} is there: {why}", node.label()));
    String::from_utf8(bytes).expect("text")
}

/// A folder of its own for a test.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Names in a folder, hidden ones included.
fn listing(folder: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(folder).expect("the folder can be listed");
    let mut names: Vec<_> =
        entries.map(|e| e.expect("an entry").file_name().into_string().expect("a UTF-8 name")).collect();
    names.sort();
    names
}
