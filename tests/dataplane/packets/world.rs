//! Two nodes with pods behind a bridge each, and a client outside, each in a network namespace of its own.

use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU32, Ordering};

use kpx::capture::command;
use kpx::dataplane::{Capacity, Dataplane, Mode, Paths};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::super::ground::cgroup_root;
use super::frontends::Tables;
use crate::support;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Where things are. The node under test is `NODE`; the other one only routes, unless it gets a dataplane too.
pub(crate) const CLIENT: [&str; 2] = ["192.168.77.100", "fd77::100"];
pub(crate) const NODE: [&str; 2] = ["192.168.77.1", "fd77::1"];
pub(crate) const OTHER: [&str; 2] = ["192.168.77.2", "fd77::2"];
/// The addresses of the node's bridge, which its pods see as the node's.
pub(crate) const BRIDGE: [&str; 2] = ["10.244.1.1", "fd44:1::1"];
/// Two pods of the node, one of the other node.
pub(crate) const POD: [&str; 2] = ["10.244.1.2", "fd44:1::2"];
pub(crate) const NEIGHBOUR: [&str; 2] = ["10.244.1.3", "fd44:1::3"];
pub(crate) const REMOTE: [&str; 2] = ["10.244.2.2", "fd44:2::2"];
/// Frontends: routed to the node, from inside and from outside.
pub(crate) const CLUSTER_IP: [&str; 2] = ["10.96.0.10", "fd96::10"];
pub(crate) const VIP: [&str; 2] = ["203.0.113.10", "fd20::10"];

const SPACES: [&str; 6] = ["client", "node", "other", "pod", "neighbour", "remote"];
/// A pod that a test may add.
const LATE: &str = "late";

/// The namespaces. Gone with this value, whatever happened.
pub(crate) struct World {
    prefix: String,
    mount: tempfile::TempDir,
    pub(crate) paths: Paths,
    /// Of the other node.
    pub(crate) other: Paths,
}

impl World {
    /// Runs a test in a world of its own, or prints why not.
    pub(crate) fn with(test: impl FnOnce(&World)) {
        if !support::privileged() {
            return;
        }
        let Some(cgroups) = cgroup_root() else {
            println!("skipped: no cgroup2 filesystem is mounted");
            return;
        };
        let mount_point = tempfile::tempdir().expect("a temporary directory can be made");
        mount("bpf", mount_point.path(), "bpf", MountFlags::empty(), None).expect("root can mount a BPF filesystem");
        let prefix = format!("kpxp{}x{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // Nobody is in it, unless a test says so.
        let cgroup = cgroups.join(&prefix);
        fs_err::create_dir(&cgroup).expect("root can make a cgroup");
        let paths = Paths { pins: mount_point.path().join("kpx"), cgroup };
        let other = Paths { pins: mount_point.path().join("other"), ..paths.clone() };
        let world = World { prefix, mount: mount_point, paths, other };
        world.build();
        test(&world);
    }

    fn build(&self) {
        let mut lines = Vec::new();
        for space in SPACES {
            lines.push(format!("netns add {}", self.name(space)));
        }
        batch(&lines);
        for space in SPACES {
            self.inside(space, || {
                batch(&["link set lo up".to_owned()]);
                for family in ["ipv4", "ipv6"] {
                    set(&format!("{family}/conf/all/forwarding"), "1");
                }
                set("ipv6/conf/all/accept_dad", "0");
                set("ipv6/conf/default/accept_dad", "0");
                set("ipv4/conf/all/rp_filter", "1");
                set("ipv4/conf/default/rp_filter", "1");
                set("ipv4/ping_group_range", "0 2147483647");
            });
        }
        // The wire between client and nodes is a bridge in the client's namespace.
        self.inside("client", || {
            let mut lines = vec!["link add wire type bridge".to_owned(), "link set wire up".to_owned()];
            for (port, space) in [("to-node", "node"), ("to-other", "other")] {
                let name = self.name(space);
                lines.push(format!("link add {port} type veth peer name eth0 netns {name}"));
                lines.push(format!("link set {port} master wire up"));
            }
            lines.push(format!("addr add {}/24 dev wire", CLIENT[0]));
            lines.push(format!("addr add {}/64 dev wire nodad", CLIENT[1]));
            for network in ["10.96.0.0/16", "203.0.113.0/24"] {
                lines.push(format!("route add {network} via {}", NODE[0]));
            }
            for network in ["fd96::/64", "fd20::/64"] {
                lines.push(format!("route add {network} via {}", NODE[1]));
            }
            batch(&lines);
        });
        self.node("node", NODE, 1, &[("pod", POD), ("neighbour", NEIGHBOUR)]);
        self.node("other", OTHER, 2, &[("remote", REMOTE)]);
        self.inside("node", || {
            batch(&["route add 10.244.2.0/24 via 192.168.77.2", "route add fd44:2::/64 via fd77::2"]);
        });
        self.inside("other", || {
            batch(&["route add 10.244.1.0/24 via 192.168.77.1", "route add fd44:1::/64 via fd77::1"]);
        });
    }

    /// A node with its pods.
    fn node(&self, space: &str, addresses: [&str; 2], number: u8, pods: &[(&str, [&str; 2])]) {
        let gateway = [format!("10.244.{number}.1"), format!("fd44:{number}::1")];
        self.inside(space, || {
            let mut lines = vec![
                "link set eth0 up".to_owned(),
                format!("addr add {}/24 dev eth0", addresses[0]),
                format!("addr add {}/64 dev eth0 nodad", addresses[1]),
                format!("route add default via {}", CLIENT[0]),
                format!("route add ::/0 via {}", CLIENT[1]),
                "link add br0 type bridge".to_owned(),
                "link set br0 up".to_owned(),
                format!("addr add {}/24 dev br0", gateway[0]),
                format!("addr add {}/64 dev br0 nodad", gateway[1]),
            ];
            for (pod, _) in pods {
                lines.push(format!("link add {pod} type veth peer name eth0 netns {}", self.name(pod)));
                lines.push(format!("link set {pod} master br0 up"));
            }
            batch(&lines);
        });
        for (pod, addresses) in pods {
            self.pod(pod, *addresses, &gateway);
        }
    }

    fn pod(&self, pod: &str, addresses: [&str; 2], gateway: &[String; 2]) {
        self.inside(pod, || {
            batch(&[
                "link set eth0 up".to_owned(),
                format!("addr add {}/24 dev eth0", addresses[0]),
                format!("addr add {}/64 dev eth0 nodad", addresses[1]),
                format!("route add default via {}", gateway[0]),
                format!("route add ::/0 via {}", gateway[1]),
            ]);
        });
    }

    /// Adds a pod to the node.
    pub(crate) fn add_late_pod(&self, addresses: [&str; 2]) {
        batch(&[format!("netns add {}", self.name(LATE))]);
        self.inside("node", || {
            batch(&[
                format!("link add {LATE} type veth peer name eth0 netns {}", self.name(LATE)),
                format!("link set {LATE} master br0 up"),
            ]);
        });
        self.pod(LATE, addresses, &BRIDGE.map(str::to_owned));
    }

    /// The name of a namespace.
    pub(super) fn name(&self, space: &str) -> String {
        format!("{}-{space}", self.prefix)
    }

    /// Does something in a namespace, in a thread of its own; threads that it starts stay there.
    pub(crate) fn inside<T: Send>(&self, space: &str, work: impl FnOnce() -> T + Send) -> T {
        let file = fs_err::File::open(format!("/run/netns/{}", self.name(space))).expect("the namespace is there");
        let done = std::thread::scope(|scope| {
            let body = || {
                move_into_link_name_space(rustix::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
                    .expect("a thread can enter a namespace");
                work()
            };
            scope.spawn(body).join()
        });
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Runs lines of `ip -batch` in a namespace.
    pub(crate) fn ip(&self, space: &str, lines: &[&str]) {
        self.inside(space, || batch(lines));
    }

    /// The dataplane of the node, attached to all its devices, in this mode.
    pub(crate) fn dataplane(&self, capacity: &Capacity, mode: Mode) -> (Dataplane, Tables) {
        self.dataplane_of("node", &self.paths, &[NODE, BRIDGE].concat(), capacity, mode)
    }

    /// The same of the other node.
    pub(super) fn other_dataplane(&self, capacity: &Capacity, mode: Mode) -> (Dataplane, Tables) {
        let bridge = ["10.244.2.1", "fd44:2::1"];
        self.dataplane_of("other", &self.other, &[OTHER, bridge].concat(), capacity, mode)
    }

    fn dataplane_of(
        &self,
        space: &str,
        paths: &Paths,
        addresses: &[&str],
        capacity: &Capacity,
        mode: Mode,
    ) -> (Dataplane, Tables) {
        self.inside(space, || {
            let mut dataplane = Dataplane::install(paths, capacity).expect("it can be installed");
            dataplane.attach_devices(|_| true, |_| false).expect("it can be attached");
            dataplane.set_mode(mode).expect("its mode can be set");
            let mut tables = Tables::open(paths);
            tables.node(addresses, &["10.244.0.0/16", "fd44::/16"]);
            (dataplane, tables)
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let remove = |space: &str, paths: &Paths| {
            let file = fs_err::File::open(format!("/run/netns/{}", self.name(space)))?;
            std::thread::scope(|scope| {
                let removal = scope.spawn(|| {
                    move_into_link_name_space(rustix::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))?;
                    drop(Dataplane::remove(paths));
                    std::io::Result::Ok(())
                });
                removal.join().unwrap_or(Ok(()))
            })
        };
        for (space, paths) in [("node", &self.paths), ("other", &self.other)] {
            let _: std::io::Result<()> = remove(space, paths);
        }
        let _ = unmount(self.mount.path(), UnmountFlags::DETACH);
        let _ = fs_err::remove_dir(&self.paths.cgroup);
        for space in SPACES.into_iter().chain([LATE]) {
            let _ = command::output("ip", ["netns", "del", &self.name(space)], None);
        }
    }
}

fn batch(lines: &[impl AsRef<str>]) {
    let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
    let text = lines.join("\n") + "\n";
    command::output("ip", ["-batch", "-"], Some(text.as_bytes())).expect("the network can be made");
}

/// Sets a sysctl of the network namespace of this thread.
pub(crate) fn set(name: &str, value: &str) {
    fs_err::write(format!("/proc/sys/net/{name}"), value).expect("a sysctl can be set");
}

/// An address with a port.
pub(crate) fn socket(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(addr.parse().expect("an address"), port)
}

/// The same as it is written.
pub(crate) fn at(addr: &str, port: u16) -> String {
    socket(addr, port).to_string()
}
