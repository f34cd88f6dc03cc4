//! A node and its far side, in network namespaces joined by a wire.

#![expect(clippy::disallowed_types, reason = "the processes of a benchmark live as long as it, and are talked to")]

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use kpx::capture::{Variant, cgroup, command, netns};
use kpx::dataplane::Paths;
use kpx::lab::{Rules, load_rules};
use kpx::model::Family;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::worker::{WORD, Worker};

/// The node's end of the wire.
pub(super) const WIRE: &str = "eth0";
/// Where pods listen in the recordings.
const PORT: u16 = 8080;

/// The namespaces. Gone with this value.
pub(super) struct World {
    name: String,
    /// Serves on the far side.
    server: Option<Worker>,
}

impl World {
    pub(super) fn new(subject: &str) -> io::Result<Self> {
        let name = format!("kpx-bench-{}-{subject}", std::process::id());
        let mut world = Self { name, server: None };
        for space in [world.node(), world.far()] {
            run(&format!("netns add {space}"))?;
        }
        let (node, far) = (world.node(), world.far());
        run(&format!("-n {node} link add {WIRE} index 5 type veth peer name {WIRE} index 6 netns {far}"))?;
        for (space, address) in [(&node, "192.168.60.11/24"), (&far, "192.168.60.1/24")] {
            run(&format!("-n {space} link set lo up"))?;
            run(&format!("-n {space} link set {WIRE} up"))?;
            run(&format!("-n {space} addr add {address} dev {WIRE}"))?;
        }
        // As on a real wire: what the driver's short cut sees has its checksum.
        let offload = ["netns", "exec", &far, "ethtool", "-K", WIRE, "tx", "off"];
        command::output("ip", offload, None).map_err(io::Error::other)?;
        run(&format!("-n {node} route add default via 192.168.60.1"))?;
        run(&format!("-n {far} route add 10.96.0.0/12 via 192.168.60.11"))?;
        // One server answers for all pods.
        run(&format!("-n {far} route add local 10.128.0.0/10 dev lo"))?;
        Self::inside(&node, || -> io::Result<()> {
            fs_err::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            fs_err::write("/proc/sys/net/ipv4/ip_local_port_range", "10000 60999")
        })?;
        let mut server = Self::worker(&world.far(), None)?;
        server.ask(&format!("serve {PORT}"))?;
        world.server = Some(server);
        Ok(world)
    }

    pub(super) fn node(&self) -> String {
        format!("{}-n", self.name)
    }

    pub(super) fn far(&self) -> String {
        format!("{}-f", self.name)
    }

    /// Does something while nobody takes connections, which the kernel makes all the same: a server that wakes up on the only
    /// processor would be measured too.
    pub(super) fn quiet<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match &self.server {
            Some(server) => server.stopped(work),
            None => work(),
        }
    }

    /// A process in a namespace, and in a cgroup.
    pub(super) fn worker(space: &str, cgroup: Option<&Path>) -> io::Result<Worker> {
        let this = std::env::current_exe()?;
        let procs = cgroup.map_or_else(|| PathBuf::from("/dev/null"), |path| path.join("cgroup.procs"));
        // `ip netns exec` would take the cgroups' mounts away.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{space}"));
        // All on one processor: what is compared is work, not who waits for whom on which other one.
        command.args(["taskset", "-c", "0", "sh", "-c", "echo $$ > \"$0\" && exec \"$1\" \"$2\""]);
        command.arg(procs).arg(this).arg(WORD);
        Worker::start(command)
    }

    /// Does something on a thread in a namespace.
    pub(super) fn inside<T: Send>(space: &str, work: impl FnOnce() -> T + Send) -> T {
        let thread = || {
            netns::enter(space).expect("the namespace can be entered");
            work()
        };
        std::thread::scope(|scope| scope.spawn(thread).join().expect("the work does not panic"))
    }

    pub(super) fn load_iptables(&self, variant: Variant, text: &[u8]) -> io::Result<()> {
        let rules = [Rules { family: Family::V4, variant, text: text.to_vec() }];
        Self::inside(&self.node(), || load_rules(&rules)).map_err(io::Error::other)
    }

    pub(super) fn load_nftables(&self, text: &[u8]) -> io::Result<()> {
        let node = self.node();
        command::output("ip", ["netns", "exec", &node, "nft", "-f", "-"], Some(text)).map_err(io::Error::other)?;
        Ok(())
    }

    /// Lets the far end take what the driver of the near one sends back, which a virtual device does only with a program of its
    /// own: this one, which knows nothing of that device, and passes everything.
    pub(super) fn take_frames(&self, program: &Path) -> io::Result<()> {
        run(&format!("-n {} link set {WIRE} xdpdrv pinned {}", self.far(), program.display()))
    }

    /// A cgroup and a BPF filesystem of this world's own.
    pub(super) fn ground(&self) -> io::Result<(Paths, tempfile::TempDir)> {
        let directory = tempfile::tempdir()?;
        mount("bpf", directory.path(), "bpf", MountFlags::empty(), None)?;
        let cgroup = cgroup::root().map_err(io::Error::other)?.join(&self.name);
        fs_err::create_dir(&cgroup)?;
        Ok((Paths { pins: directory.path().join("kpx"), cgroup }, directory))
    }
}

/// Takes away what [`World::ground`] made.
pub(super) fn leave_ground(paths: &Paths, mounted: &Path) {
    let _ = unmount(mounted, UnmountFlags::DETACH);
    for _ in 0..100 {
        // The kernel needs a moment to bury the processes that were in it.
        if fs_err::remove_dir(&paths.cgroup).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.server.take());
        for space in [self.node(), self.far()] {
            let _ = run(&format!("netns del {space}"));
        }
    }
}

fn run(line: &str) -> io::Result<()> {
    command::output("ip", line.split(' '), None).map_err(io::Error::other)?;
    Ok(())
}

/// A recorded file, unpacked if only its `.gz` is there.
pub(super) fn text(path: &Path) -> io::Result<Vec<u8>> {
    if path.exists() {
        return fs_err::read(path);
    }
    let packed = fs_err::read(path.with_added_extension("gz"))?;
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut out)?;
    Ok(out)
}
