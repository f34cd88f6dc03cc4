//! What several modules of tests need: where recordings are, and skipping with a printed reason.

use std::path::{Path, PathBuf};

/// The recordings of real kube-proxies beside the project, or `None` with the reason printed.
///
/// `KPX_FIXTURES` names another place.
pub(crate) fn recordings() -> Option<PathBuf> {
    let path = std::env::var_os("KPX_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures"), PathBuf::from);
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: no recordings at {} (set KPX_FIXTURES)", path.display());
    None
}

/// Whether this process may do privileged things; prints the reason if not.
pub(crate) fn privileged() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root (network namespaces, BPF)");
    }
    root
}
