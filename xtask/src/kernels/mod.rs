//! Tests on other kernels than the running one: `cargo xtask test --kernels`, `cargo xtask vm`.
//!
//! A kernel is a package of Debian's, unpacked and not installed. It boots in QEMU, by emulation, on an initial file
//! system that holds the test binary and the tools of this machine. docs/kernels.md has what came out.

mod apt;
mod cpio;
mod guest;
mod kernel;
pub(crate) mod report;
mod results;
mod vm;

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::setup;
use crate::shell::{Privilege, say};
pub(crate) use kernel::Kernel;
use kernel::store;
use results::Results;
use vm::Machine;

/// Debian 12's kernels: what CI runs each time.
pub(crate) const USUAL: [&str; 2] = ["6.1", "6.12"];
/// From the oldest that can be had to the newest.
const ALL: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "newest"];

/// The modules of tests that have to do with the kernel. What reads recordings is the same everywhere.
const MODULES: [&str; 7] =
    ["dataplane::", "lab::", "migrate::", "capture::live", "capture::servers", "nftables::live", "cli::maps"];
/// Those that CI runs each time: all programs loaded, and traffic through the hooks of sockets. More would take longer under
/// emulation than everything else together.
const USUAL_FILTERS: [&str; 3] = ["dataplane::features", "dataplane::exposures", "dataplane::sockets"];

/// Arguments of `cargo xtask vm`.
#[derive(Debug, clap::Args)]
pub(crate) struct VmArgs {
    /// The kernel: a series such as 6.1, a release, or newest
    #[arg(long, value_name = "VERSION", default_value = "6.12")]
    kernel: String,
    /// Let the clock count instructions and jump over idle time (one processor only)
    #[arg(long)]
    virtual_time: bool,
    /// Processors
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    processors: u8,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    memory: u32,
    /// A file or folder that the machine shall have too, at the same path
    #[arg(long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// How many seconds it may run
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    limit: u64,
    /// Build kpx and its tests first; $KPX and $TESTS name them
    #[arg(long)]
    build: bool,
    /// The command, run by a shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Which tests run on which kernels.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Kernels by version.
    pub(crate) versions: Vec<String>,
    /// Words for the test harness.
    pub(crate) filters: Vec<String>,
    /// Whether docs/kernels.md shall tell what came out.
    pub(crate) record: bool,
}

impl Selection {
    /// What CI runs each time.
    pub(crate) fn usual() -> Self {
        Self { versions: owned(&USUAL), filters: owned(&USUAL_FILTERS), record: false }
    }

    /// These versions and tests; all of either where none is named.
    pub(crate) fn of(versions: &[String], filters: &[String], record: bool) -> Self {
        let or_all = |given: &[String], all: &[&str]| if given.is_empty() { owned(all) } else { given.to_vec() };
        Self { versions: or_all(versions, &ALL), filters: or_all(filters, &MODULES), record }
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// Fetches what machines are made with and the kernels; an error is a reason to skip.
pub(crate) fn prepare(versions: &[String]) -> Result<Vec<Kernel>> {
    setup::machines(&Privilege::find())?;
    kernel::find(versions)
}

/// Runs the tests on each kernel, as many at a time as there are processors; fails when a test failed on any.
pub(crate) fn test(selection: &Selection, kernels: &[Kernel]) -> Result<()> {
    let job = format!("KPX_VIRTUAL_TIME=1 \"$TESTS\" --show-output --test-threads=1 {}", selection.filters.join(" "));
    let files = guest::files(Some(&guest::build()?), &[], &job)?;
    let names: Vec<&str> = kernels.iter().map(|kernel| kernel.release.as_str()).collect();
    say(&format!("running on Linux {}", names.join(", ")));
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut failed = Vec::new();
        while let Some(kernel) = kernels.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = test_one(kernel, &files, selection) {
                say(&format!("Linux {}: {error:#}", kernel.release));
                failed.push(kernel.release.as_str());
            }
        }
        failed
    };
    let failed = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..processors()).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker does not panic")).collect::<Vec<_>>()
    });
    ensure!(failed.is_empty(), "tests failed on Linux {}", failed.join(", "));
    Ok(())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn test_one(kernel: &Kernel, files: &[u8], selection: &Selection) -> Result<()> {
    let start = Instant::now();
    let ended = Machine::default().run(kernel, files, &store().join(&kernel.release).join("run"))?;
    let results = Results::read(&ended.output);
    let skipped = results.skipped.iter().map(|(name, reason)| format!("skipped {name}: {reason}\n"));
    let failed = results.failed.iter().map(|(name, printed)| format!("FAILED {name}\n{printed}\n"));
    let told = skipped.chain(failed).collect::<String>();
    say(&format!(
        "\n{told}Linux {}: {} passed, {} skipped, {} failed in {:.0} s; all that was printed: {}",
        kernel.release,
        results.passed.len(),
        results.skipped.len(),
        results.failed.len(),
        start.elapsed().as_secs_f64(),
        ended.log.display(),
    ));
    if selection.record && results.complete {
        report::record(kernel, &selection.filters, &results)?;
    }
    ensure!(results.complete, "the tests did not come to their end on Linux {}", kernel.release);
    ensure!(ended.status == 0 && results.failed.is_empty(), "{} tests failed", results.failed.len());
    ensure!(!results.passed.is_empty(), "no test ran");
    Ok(())
}

/// `cargo xtask vm`: one command on one kernel.
pub(crate) fn vm(args: &VmArgs) -> Result<()> {
    let kernels = prepare(std::slice::from_ref(&args.kernel))?;
    let built = args.build.then(guest::build).transpose()?;
    let files = guest::files(built.as_ref(), &args.files, &args.command.join(" "))?;
    let machine = Machine {
        processors: if args.virtual_time { 1 } else { args.processors },
        memory: args.memory,
        virtual_time: args.virtual_time,
        limit: Duration::from_secs(args.limit),
    };
    for kernel in kernels {
        let ended = machine.run(&kernel, &files, &store().join(&kernel.release).join("vm"))?;
        say(&ended.output);
        if ended.status != 0 {
            bail!("the command ended with {} on Linux {}", ended.status, kernel.release);
        }
    }
    Ok(())
}
