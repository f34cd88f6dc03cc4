//! A virtual machine by QEMU without hardware support: it needs no privilege, and boots in seconds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::kernel::Kernel;
use crate::shell::cmd;

/// What `/init` prints on the kernel's console when the job has ended; its status follows.
const MARK: &str = "kpx-vm: status ";

/// What the kernel shall leave out, since every instruction counts: it protects from nobody here.
const SPARING: &str = "cryptomgr.notests mitigations=off init_on_alloc=0";

/// What a machine is made of.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// Processors.
    pub(super) processors: u8,
    /// Memory in MiB.
    pub(super) memory: u32,
    /// The machine's clock counts instructions and jumps over idle time; for one processor only.
    pub(super) virtual_time: bool,
    /// How much of the host's processors it may take: a busy host is no reason to end it.
    pub(super) limit: Duration,
}

impl Default for Machine {
    fn default() -> Self {
        Self { processors: 1, memory: 2048, virtual_time: true, limit: Duration::from_mins(40) }
    }
}

/// How a job ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit status, or why it came to none.
    pub(super) status: Result<i32>,
    /// What it printed.
    pub(super) output: String,
    /// The file that holds the same.
    pub(super) log: PathBuf,
}

/// Why a machine has told no status, given how QEMU ended and what the kernel has said.
fn cut_off(ran: Result<Vec<u8>>, said: &str) -> anyhow::Error {
    if let Err(error) = ran {
        return error.context("the machine did not run to its end");
    }
    let lines: Vec<&str> = said.lines().collect();
    let last = &lines[lines.len().saturating_sub(20)..];
    anyhow!("the machine ended before its job did; its last words:\n{}", last.join("\n"))
}

impl Machine {
    /// Boots a kernel on an initial file system of these archives, which has a `/job` for `/init` to run, and waits for its
    /// end. What a job that was cut off has printed is there nevertheless.
    pub(super) fn run(&self, kernel: &Kernel, archives: &[&[u8]], directory: &Path) -> Result<Ended> {
        fs_err::create_dir_all(directory)?;
        let (console, log) = (directory.join("console.log"), directory.join("output.log"));
        let initrd = directory.join("initrd");
        // The kernel unpacks archives one after the other.
        fs_err::write(&initrd, [&archives.concat(), &fs_err::read(kernel.modules())?[..]].concat())?;
        // Where time counts instructions, so does the processor's own counter, and exactly. Elsewhere a busy host lets the
        // kernel measure that counter wrong.
        let (accelerator, clock) = if self.virtual_time {
            ("tcg", "tsc=reliable clocksource=tsc")
        } else {
            ("tcg,thread=multi", "tsc=unstable clocksource=acpi_pm")
        };
        // One that hangs and takes nothing ends too.
        let (work, wait) = (self.limit.as_secs(), self.limit.as_secs() * 6);
        let mut command = cmd("timeout", ["--kill-after=5".to_owned(), wait.to_string()])
            .args(["prlimit", &format!("--cpu={work}"), "qemu-system-x86_64", "-accel", accelerator])
            .args(["-cpu", "max", "-smp", &self.processors.to_string(), "-m", &self.memory.to_string()])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-append", &format!("console=ttyS0 panic=-1 quiet loglevel=4 {SPARING} {clock}")])
            .arg("-kernel")
            .arg(kernel.image())
            .arg("-initrd")
            .arg(&initrd);
        for (id, file) in [("console", &console), ("output", &log)] {
            let device = format!("file,id={id},path={}", file.display());
            command = command.args(["-chardev", &device, "-serial", &format!("chardev:{id}")]);
        }
        if self.virtual_time {
            command = command.args(["-icount", "shift=0,sleep=off"]);
        }
        let ran = command.read();
        fs_err::remove_file(&initrd)?;
        let text = |file: &Path| fs_err::read(file).map(|bytes| String::from_utf8_lossy(&bytes).replace('\r', ""));
        let said = text(&console).unwrap_or_default();
        let status = said.lines().find_map(|line| line.split_once(MARK)?.1.trim().parse().ok());
        let status = status.map_or_else(|| Err(cut_off(ran, &said)), Ok);
        Ok(Ended { status, output: text(&log)?, log })
    }
}
