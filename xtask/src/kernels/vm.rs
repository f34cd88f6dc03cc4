//! A virtual machine by QEMU without hardware support: it needs no privilege, and boots in seconds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::kernel::Kernel;
use crate::shell::cmd;

/// What `/init` prints on the kernel's console when the job has ended; its status follows.
const MARK: &str = "kpx-vm: status ";

/// What a machine is made of.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// Processors.
    pub(super) processors: u8,
    /// Memory in MiB.
    pub(super) memory: u32,
    /// The machine's clock counts instructions and jumps over idle time; for one processor only.
    pub(super) virtual_time: bool,
    /// How long it may run, on the host's clock.
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
    /// Its exit status.
    pub(super) status: i32,
    /// What it printed.
    pub(super) output: String,
    /// The file that holds the same.
    pub(super) log: PathBuf,
}

impl Machine {
    /// Boots a kernel on an initial file system of these archives, which has a `/job` for `/init` to run, and waits for its end.
    pub(super) fn run(&self, kernel: &Kernel, archives: &[&[u8]], directory: &Path) -> Result<Ended> {
        fs_err::create_dir_all(directory)?;
        let (console, log) = (directory.join("console.log"), directory.join("output.log"));
        let initrd = directory.join("initrd");
        // The kernel unpacks archives one after the other.
        fs_err::write(&initrd, [&archives.concat(), &fs_err::read(kernel.modules())?[..]].concat())?;
        let accelerator = if self.virtual_time { "tcg" } else { "tcg,thread=multi" };
        let limit = self.limit.as_secs().to_string();
        let mut command = cmd("timeout", ["--kill-after=5", &limit, "qemu-system-x86_64", "-accel", accelerator])
            .args(["-cpu", "max", "-smp", &self.processors.to_string(), "-m", &self.memory.to_string()])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args([
                "-append",
                "console=ttyS0 panic=-1 quiet loglevel=4 tsc=unstable clocksource=acpi_pm cryptomgr.notests",
            ])
            .arg("-kernel")
            .arg(kernel.image())
            .arg("-initrd")
            .arg(&initrd);
        for (id, file) in [("console", &console), ("output", &log)] {
            let device = format!("file,id={id},path={}", file.display());
            command = command.args(["-chardev", &device, "-serial", &format!("chardev:{id}")]);
        }
        if self.virtual_time {
            command = command.args(["-icount", "shift=1,sleep=off"]);
        }
        let ran = command.read();
        fs_err::remove_file(&initrd)?;
        let text = |file: &Path| fs_err::read(file).map(|bytes| String::from_utf8_lossy(&bytes).replace('\r', ""));
        let said = text(&console).unwrap_or_default();
        let status = said.lines().find_map(|line| line.split_once(MARK)?.1.trim().parse().ok());
        let Some(status) = status else {
            ran.context("the machine did not run to its end")?;
            let last: Vec<&str> = said.lines().rev().take(20).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            bail!("Linux {} ended before its job did; its last words:\n{}", kernel.release, last.join("\n"));
        };
        Ok(Ended { status, output: text(&log)?, log })
    }
}
