//! Network namespaces without a name: they are gone with this process, however it ends.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;

use kpx::capture::command;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// A network namespace.
pub(super) struct Netns {
    file: fs_err::File,
}

impl Netns {
    /// Makes one, with its loopback device up and without opinions on the way that packets come.
    pub(super) fn new() -> Self {
        let made = in_a_thread(|| {
            // SAFETY: not one flag that concerns memory or descriptors: only this thread's network namespace changes.
            #[expect(unsafe_code, reason = "unshare is unsafe for flags that are not used here")]
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("root can make a network namespace");
            fs_err::File::open("/proc/thread-self/ns/net").expect("a thread knows its namespace")
        });
        let netns = Self { file: made };
        netns.sysctl(&QUIET);
        netns.ip("link set lo up\n");
        netns
    }

    /// Where other processes find it, while this one lives.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// Runs `work` inside; processes that it starts stay inside too.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_a_thread(|| {
            enter(&self.file);
            work()
        })
    }

    /// What the kernel's programs call it.
    pub(super) fn cookie(&self) -> u64 {
        const SO_NETNS_COOKIE: i32 = 71;
        self.inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket can be made");
            let (mut cookie, mut size): (u64, libc::socklen_t) = (0, 8);
            let (level, value) = (libc::SOL_SOCKET, (&raw mut cookie).cast());
            // SAFETY: `cookie` has the eight bytes that `size` says.
            #[expect(unsafe_code, reason = "no safe function asks for this option")]
            let done = unsafe { libc::getsockopt(socket.as_raw_fd(), level, SO_NETNS_COOKIE, value, &raw mut size) };
            assert_eq!(done, 0, "the kernel has network namespace cookies");
            cookie
        })
    }

    /// Runs lines of `ip -batch` inside.
    pub(super) fn ip(&self, lines: &str) {
        self.inside(|| command::output("ip", ["-batch", "-"], Some(lines.as_bytes()))).expect("ip does as told");
    }

    /// Sets sysctls of this namespace.
    pub(super) fn sysctl(&self, values: &[(&str, &str)]) {
        self.inside(|| {
            for (name, value) in values {
                let path = format!("/proc/sys/net/{name}");
                fs_err::write(path, value).expect("a sysctl of an own namespace can be set");
            }
        });
    }
}

/// Moves the calling thread into a namespace.
pub(super) fn enter(file: &fs_err::File) {
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("a namespace can be entered");
}

/// A thread of its own, since a namespace belongs to a thread.
fn in_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// No duplicate address detection to wait for, no redirects past a node, no refusals held back.
const QUIET: [(&str, &str); 14] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv6/icmp/ratelimit", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/all/accept_redirects", "0"),
    ("ipv6/conf/default/accept_redirects", "0"),
];
