//! The network namespaces that processes of this node are in.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// One file for each network namespace that a process is in, this one's first.
pub(super) fn find() -> io::Result<Vec<PathBuf>> {
    let mut known = BTreeSet::new();
    let mut found = Vec::new();
    let own = std::iter::once(PathBuf::from("/proc/thread-self/ns/net"));
    let processes = fs_err::read_dir("/proc")?.flatten().map(|entry| entry.path());
    let is_process =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
    for path in own.chain(processes.filter(is_process).map(|path| path.join("ns/net"))) {
        // Kernel threads and processes that have just ended have none to show.
        let Ok(metadata) = fs_err::metadata(&path) else { continue };
        if known.insert((metadata.dev(), metadata.ino())) {
            found.push(path);
        }
    }
    Ok(found)
}
