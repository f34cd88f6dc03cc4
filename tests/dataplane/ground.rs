//! A network namespace, a cgroup and a BPF filesystem of a test's own, and tables to fill in.

use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use kpx::capture::command;
use kpx::dataplane::{Capacity, Dataplane, Mode, Paths};
use kpx::model::{
    Backend, Exposure, Frontend, FrontendKey, Masquerade, NoBackends, NodeFacts, Origin, Policy, Protocol, ServiceTable,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::agent::Agent;
use crate::support;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The place where a test runs. Gone with this value, whatever happened.
pub(crate) struct Ground {
    pub(crate) paths: Paths,
    mount: tempfile::TempDir,
}

impl Ground {
    /// Runs a test on ground of its own, or prints why not.
    pub(crate) fn with(test: impl FnOnce(&Ground) + Send) {
        if !support::privileged() {
            return;
        }
        let Some(cgroups) = cgroup_root() else {
            println!("skipped: no cgroup2 filesystem is mounted");
            return;
        };
        // A namespace belongs to a thread, and what it starts; no other test shall get into it.
        let done = std::thread::scope(|scope| {
            let body = || {
                let ground = Ground::new(cgroups);
                test(&ground);
            };
            scope.spawn(body).join()
        });
        done.unwrap_or_else(|panic| resume_unwind(panic));
    }

    fn new(cgroups: PathBuf) -> Self {
        // SAFETY: not one flag that concerns memory or descriptors: only this thread's network namespace changes.
        #[expect(unsafe_code, reason = "unshare is unsafe for flags that are not used here")]
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("root can make a network namespace");
        for args in [
            &["link", "set", "lo", "up"][..],
            &["addr", "add", "fd00::1/128", "dev", "lo", "nodad"],
            &["addr", "add", "fd00::2/128", "dev", "lo", "nodad"],
        ] {
            command::output("ip", args, None).expect("the loopback device can be set up");
        }
        let mount_point = tempfile::tempdir().expect("a temporary directory can be made");
        mount("bpf", mount_point.path(), "bpf", MountFlags::empty(), None).expect("root can mount a BPF filesystem");
        let name = format!("kpx-ebpf-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let cgroup = cgroups.join(name);
        fs_err::create_dir(&cgroup).expect("root can make a cgroup");
        Self { paths: Paths { pins: mount_point.path().join("kpx"), cgroup }, mount: mount_point }
    }

    /// Lets a route lead to the frontends, as on a node; without it, what is not translated fails as unreachable.
    #[expect(clippy::unused_self, reason = "the namespace of this thread is the ground")]
    pub(crate) fn route_frontends(&self) {
        for args in [
            "link add kpx0 type veth peer name kpx1",
            "link set kpx0 up",
            "link set kpx1 up",
            "addr add 10.2.0.1/24 dev kpx0",
            "addr add fd00:2::1/64 dev kpx0 nodad",
            "route add 10.96.0.0/16 via 10.2.0.2",
            "-6 route add fd00:96::/64 via fd00:2::2",
        ] {
            command::output("ip", args.split(' '), None).expect("a device can be made");
        }
    }

    /// A client inside the cgroup.
    pub(crate) fn agent(&self) -> Agent {
        Agent::start(&self.paths.cgroup)
    }

    /// A dataplane with this table, attached, in this mode.
    pub(crate) fn dataplane(&self, table: &ServiceTable, mode: Mode) -> Dataplane {
        let mut dataplane = Dataplane::install(&self.paths, &Capacity::for_table(table)).expect("it can be installed");
        dataplane.fill(table).expect("it can be filled");
        dataplane.attach().expect("it can be attached");
        dataplane.set_mode(mode).expect("its mode can be set");
        dataplane
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = Dataplane::remove(&self.paths);
        let _ = unmount(self.mount.path(), UnmountFlags::DETACH);
        // Clients are killed when their values go, which is before this; the kernel needs a moment to bury them.
        for _ in 0..100 {
            if fs_err::remove_dir(&self.paths.cgroup).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// The root of cgroup2, in whichever place it is mounted.
pub(super) fn cgroup_root() -> Option<PathBuf> {
    let mounts = fs_err::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    })
}

/// A ClusterIP with these endpoints.
pub(crate) fn cluster_ip(at: &str, protocol: Protocol, endpoints: &[&str]) -> Frontend {
    let at: SocketAddr = at.parse().expect("an address with a port");
    let backend = |text: &&str| {
        let socket: SocketAddr = text.parse().expect("an address with a port");
        Backend { ip: socket.ip(), port: socket.port(), weight: 1, local: None, state: None }
    };
    Frontend {
        key: FrontendKey { ip: at.ip(), port: at.port(), protocol, exposure: Exposure::ClusterIp },
        service: None,
        port_name: None,
        cluster: endpoints.iter().map(backend).collect(),
        local: Vec::new(),
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity: None,
        sources: Vec::new(),
        masquerade: Masquerade::OffCluster,
        no_backends: endpoints.is_empty().then_some(NoBackends::Reject),
        selection: None,
        forwarding: None,
        origin: Origin::MapEntry { map: "test", id: 0 },
    }
}

/// A table of these frontends.
pub(crate) fn table(frontends: impl IntoIterator<Item = Frontend>) -> ServiceTable {
    ServiceTable::new(frontends.into_iter().collect(), NodeFacts::default(), NodeFacts::default())
}
