//! A network namespace, a cgroup and a BPF filesystem of a benchmark's own.

use std::io;
use std::path::PathBuf;

use kpx::capture::{cgroup, command};
use kpx::dataplane::{Dataplane, Paths};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Where it happens; this process moves there. Gone with this value.
pub(crate) struct Ground {
    pub(crate) paths: Paths,
    root: PathBuf,
    mount: tempfile::TempDir,
}

impl Ground {
    pub(crate) fn new() -> io::Result<Self> {
        let root = cgroup::root().map_err(io::Error::other)?;
        // SAFETY: not one flag that concerns memory or descriptors, and no other thread runs yet.
        #[expect(unsafe_code, reason = "unshare is unsafe for flags that are not used here")]
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        command::output("ip", ["link", "set", "lo", "up"], None).map_err(io::Error::other)?;
        let directory = tempfile::tempdir()?;
        mount("bpf", directory.path(), "bpf", MountFlags::empty(), None)?;
        let cgroup = root.join(format!("kpx-bench-{}", std::process::id()));
        fs_err::create_dir(&cgroup)?;
        fs_err::write(cgroup.join("cgroup.procs"), "0")?;
        Ok(Self { paths: Paths { pins: directory.path().join("kpx"), cgroup }, root, mount: directory })
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = Dataplane::remove(&self.paths);
        let _ = unmount(self.mount.path(), UnmountFlags::DETACH);
        let _ = fs_err::write(self.root.join("cgroup.procs"), "0");
        let _ = fs_err::remove_dir(&self.paths.cgroup);
    }
}
