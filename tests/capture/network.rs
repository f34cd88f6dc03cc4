//! A network namespace for one test.

use std::sync::atomic::{AtomicU32, Ordering};

use kpx::capture::{command, netns};

/// Removed when dropped.
#[derive(Debug)]
pub(crate) struct Netns {
    pub(crate) name: String,
}

impl Netns {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("kpx-capture-{}-{number}", std::process::id());
        command::output("ip", ["netns", "add", &name], None).expect("ip netns add");
        Self { name }
    }

    /// With the loopback device up. Without it no packet moves, so that counters stand still.
    pub(crate) fn with_loopback() -> Self {
        let netns = Self::new();
        netns.run("ip", &["link", "set", "lo", "up"], None);
        netns
    }

    /// Runs a program inside and gives what it prints.
    pub(crate) fn run(&self, program: &str, args: &[&str], stdin: Option<&[u8]>) -> String {
        let inside = ["netns", "exec", &self.name, program];
        let output = command::output("ip", inside.iter().chain(args), stdin).expect("the oracle runs");
        String::from_utf8(output).expect("text")
    }

    /// Does something on a thread inside. Sockets that it opens stay inside.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let thread = || {
            netns::enter(&self.name).expect("the namespace can be entered");
            work()
        };
        std::thread::scope(|scope| scope.spawn(thread).join().expect("the work does not panic"))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = command::run("ip", ["netns", "del", &self.name], None);
    }
}
