//! Who holds the lock of iptables-legacy, from /proc/locks: looked at, never taken.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use fs_err as fs;
use serde::{Deserialize, Serialize};

/// What iptables-legacy and iptables-legacy-restore lock.
const FILE: &str = "/run/xtables.lock";

/// The content of `xtables-lock.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XtablesLock {
    /// Whether a folder stands where the file should be: a hostPath without `type: FileOrCreate` makes one, and then nobody can
    /// lock.
    pub is_folder: bool,
    /// Who holds it or waits for it, in the kernel's order.
    pub holders: Vec<LockHolder>,
}

/// A process with the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// Process.
    pub pid: u32,
    /// Its name, as far as it is seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Whether it waits for another to let go.
    pub waits: bool,
}

/// Reads who holds the lock now.
pub(super) fn read() -> io::Result<XtablesLock> {
    let metadata = match fs::metadata(FILE) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(XtablesLock::default()),
        Err(e) => return Err(e),
    };
    let device = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let mut holders = held(&fs::read_to_string("/proc/locks")?, device, metadata.ino());
    for holder in &mut holders {
        let name = fs::read_to_string(Path::new("/proc").join(holder.pid.to_string()).join("comm"));
        holder.program = name.ok().map(|name| name.trim().to_owned());
    }
    Ok(XtablesLock { is_folder: metadata.is_dir(), holders })
}

/// `1: FLOCK  ADVISORY  WRITE 510 fe:00:10510339 0 EOF`; one that waits has `->` behind the number of the lock it waits for.
fn held(locks: &str, device: (u32, u32), inode: u64) -> Vec<LockHolder> {
    let line = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let rest = rest.trim_start();
        let waits = rest.starts_with("->");
        let mut words = rest.trim_start_matches("->").split_ascii_whitespace();
        let pid = words.nth(3)?.parse().ok()?;
        let mut file = words.next()?.split(':');
        let mut hex = || u32::from_str_radix(file.next()?, 16).ok();
        let at = (hex()?, hex()?);
        let same = at == device && file.next()?.parse() == Ok(inode);
        same.then_some(LockHolder { pid, program: None, waits })
    };
    locks.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_and_those_who_wait() {
        let text = "1: FLOCK  ADVISORY  WRITE 510 fe:00:10510339 0 EOF\n2: FLOCK  ADVISORY  WRITE 42 00:1a:7 0 EOF\n\
                    2: -> FLOCK  ADVISORY  WRITE 43 00:1a:7 0 EOF\n3: POSIX  ADVISORY  READ 9 00:1a:8 0 EOF\nrubbish\n";
        let holder = |pid, waits| LockHolder { pid, program: None, waits };
        assert_eq!(held(text, (0, 0x1a), 7), [holder(42, false), holder(43, true)]);
    }

    #[test]
    fn a_lock_that_is_held_here_is_seen() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        rustix::fs::flock(file.as_file(), rustix::fs::FlockOperation::LockExclusive).expect("nobody has it");
        let metadata = file.as_file().metadata().expect("it is there");
        let device = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
        let found = held(&fs::read_to_string("/proc/locks").expect("it can be read"), device, metadata.ino());
        assert_eq!(found.iter().map(|h| (h.pid, h.waits)).collect::<Vec<_>>(), [(std::process::id(), false)]);
    }
}
