//! What several modules of tests need: where recordings are, and skipping with a printed reason.

use std::path::{Path, PathBuf};

use rustix::thread::{UnshareFlags, unshare_unsafe};

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

/// Runs `work`, and the programs that it starts, in a network namespace that ends with it.
pub(crate) fn in_new_netns<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        // SAFETY: not one flag that concerns memory or descriptors: only this thread's network namespace changes.
        #[expect(unsafe_code, reason = "unshare is unsafe for flags that are not used here")]
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("root can make a network namespace");
        work()
    };
    std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
