//! Finding the cgroup2 hierarchy.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::error::Hinted;

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// Why there is no cgroup2 directory to attach to.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup2 is mounted.
    #[error("no cgroup2 hierarchy is mounted")]
    NotMounted,
    /// The directory is not on cgroup2.
    #[error("{} is not on a cgroup2 file system", .path.display())]
    NotCgroup2 {
        /// As given.
        path: PathBuf,
    },
    /// It could not be looked at.
    #[error("cannot look for the cgroup2 hierarchy")]
    Read {
        /// Why, with the path.
        source: io::Error,
    },
}

impl Hinted for CgroupError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::NotMounted => vec![
                "mount it: mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with systemd.unified_cgroup_hierarchy=1"
                    .to_owned(),
            ],
            Self::NotCgroup2 { .. } => match root() {
                Ok(root) => vec![format!("cgroup2 is mounted at {}", root.display())],
                Err(_) => Vec::new(),
            },
            Self::Read { .. } => Vec::new(),
        }
    }
}

/// The root of the cgroup2 hierarchy: `/sys/fs/cgroup` where it is the only one, `/sys/fs/cgroup/unified` or elsewhere
/// beside cgroup v1.
pub fn root() -> Result<PathBuf, CgroupError> {
    let mounts = fs_err::read("/proc/self/mountinfo").map_err(|source| CgroupError::Read { source })?;
    find(&mounts).ok_or(CgroupError::NotMounted)
}

/// Checks that a directory is on cgroup2.
pub fn check(path: &Path) -> Result<(), CgroupError> {
    let file = fs_err::File::open(path).map_err(|source| CgroupError::Read { source })?;
    let stat = rustix::fs::fstatfs(&file).map_err(|e| CgroupError::Read { source: e.into() })?;
    // The field's type differs between architectures.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "i64 here, u32 elsewhere")]
    if stat.f_type as i64 == CGROUP2_MAGIC { Ok(()) } else { Err(CgroupError::NotCgroup2 { path: path.to_owned() }) }
}

/// The mount point of cgroup2 in the text of mountinfo (proc_pid_mountinfo(5)). A mount of the hierarchy's root wins
/// over one of a part of it, then the first one wins.
fn find(mountinfo: &[u8]) -> Option<PathBuf> {
    let mut part = None;
    for line in mountinfo.split(|b| *b == b'\n') {
        let mut fields = line.split(|b| *b == b' ');
        let (Some(root), Some(point)) = (fields.nth(3), fields.next()) else { continue };
        // Optional fields end with a dash; the type of the file system follows.
        if fields.find(|f| *f == b"-").is_none() || fields.next() != Some(b"cgroup2") {
            continue;
        }
        let point = PathBuf::from(OsString::from_vec(unescape(point)));
        if root == b"/" {
            return Some(point);
        }
        part.get_or_insert(point);
    }
    part
}

/// Space, tab, newline and backslash stand as three octal digits after a backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|d| *first == b'\\' && d.iter().all(|c| (b'0'..b'8').contains(c)));
        if let Some(digits) = digits {
            out.push(digits.iter().fold(0u8, |n, c| (n << 3) | (c - b'0')));
            rest = &tail[3..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<PathBuf> {
        find(text.as_bytes())
    }

    #[test]
    fn unified() {
        let text = "25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                    31 25 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(found(text), Some(PathBuf::from("/sys/fs/cgroup")));
    }

    #[test]
    fn hybrid() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                    40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(found(text), Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn version_one_only_or_rubbish() {
        assert_eq!(found("40 31 0:37 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
        assert_eq!(found("cgroup2\n\n1 2 3\n/ - cgroup2"), None);
    }

    #[test]
    fn a_whole_hierarchy_wins_over_a_part_and_names_are_unescaped() {
        let text = "50 1 0:26 /kubepods/pod1 /part rw - cgroup2 cgroup2 rw\n\
                    51 1 0:26 / /host\\040cgroup\\134x rw master:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(found(text), Some(PathBuf::from("/host cgroup\\x")));
        let part = text.lines().next().expect("one line");
        assert_eq!(found(part), Some(PathBuf::from("/part")));
    }

    #[test]
    fn this_machine() {
        let Ok(root) = root() else { return println!("skipped: no cgroup2 here") };
        check(&root).expect("the root is on cgroup2");
        assert!(matches!(check(Path::new("/proc")), Err(CgroupError::NotCgroup2 { .. })));
    }
}
