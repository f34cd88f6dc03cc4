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

/// The modules of tests that have to do with the kernel, each in a machine of its own: what is quick and tells most comes
/// first. What reads recordings is the same everywhere.
const MODULES: [&str; 28] = [
    "dataplane::features",
    "dataplane::exposures",
    "dataplane::sockets",
    "dataplane::hours",
    "dataplane::kernel_flows",
    "dataplane::live",
    "dataplane::modes",
    "dataplane::neighbours",
    "dataplane::object",
    "dataplane::lifecycle",
    "dataplane::worlds",
    "bpf::",
    "capture::live",
    "capture::servers",
    "cli::maps",
    "conntrack::live",
    "ipvs::live",
    "nftables::live",
    "path::kernel",
    "preflight::tried",
    "path::maps",
    "audit::live",
    "agent::",
    "dataplane::packets",
    "migrate::",
    "lab::",
    "conformance::kpx",
    "conformance::rules",
];
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
    /// What runs in one machine.
    shards: Vec<Shard>,
    /// Whether docs/kernels.md shall tell what came out.
    pub(crate) record: bool,
    /// Whether what passed before, with these very tests, is left out.
    pub(crate) resume: bool,
}

/// Tests that run in one machine, one after the other.
#[derive(Debug)]
struct Shard {
    name: String,
    /// Words for the test harness.
    filters: Vec<String>,
}

impl Shard {
    fn job(&self) -> String {
        format!("KPX_VIRTUAL_TIME=1 \"$TESTS\" --show-output --test-threads=1 {}", self.filters.join(" "))
    }
}

impl Selection {
    /// What CI runs each time, in one machine.
    pub(crate) fn usual() -> Self {
        let shard = Shard { name: "usual".to_owned(), filters: owned(&USUAL_FILTERS) };
        Self { versions: owned(&USUAL), shards: vec![shard], record: false, resume: false }
    }

    /// These versions and tests; all of either where none is named.
    pub(crate) fn of(versions: &[String], filters: &[String], record: bool, resume: bool) -> Self {
        let or_all = |given: &[String], all: &[&str]| if given.is_empty() { owned(all) } else { given.to_vec() };
        let shard = |filter: String| Shard { name: filter.clone(), filters: vec![filter] };
        let shards = or_all(filters, &MODULES).into_iter().map(shard).collect();
        Self { versions: or_all(versions, &ALL), shards, record, resume }
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
    let built = guest::build()?;
    let tools = guest::tools(Some(&built), &[])?;
    let names: Vec<&str> = kernels.iter().map(|kernel| kernel.release.as_str()).collect();
    say(&format!("running on Linux {}", names.join(", ")));
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut ended = Vec::new();
        while let Some(kernel) = kernels.get(next.fetch_add(1, Ordering::Relaxed)) {
            ended.push((kernel, test_one(kernel, &built, &tools, selection)));
        }
        ended
    };
    let ended = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..processors()).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker does not panic")).collect::<Vec<_>>()
    });
    if selection.record {
        report::write()?;
    }
    say(&format!("\n{:<32}{:>8}{:>9}{:>8}{:>9}", "Linux", "passed", "skipped", "failed", "seconds"));
    let mut failed = Vec::new();
    for (kernel, all) in &ended {
        let sum = |of: fn(&Results) -> usize| all.iter().map(|(_, results)| of(results)).sum::<usize>();
        let seconds = all.iter().map(|(_, results)| results.seconds).sum::<u64>();
        let (passed, skipped, bad) = (sum(|r| r.passed.len()), sum(|r| r.skipped.len()), sum(|r| r.failed.len()));
        say(&format!("{:<32}{passed:>8}{skipped:>9}{bad:>8}{seconds:>9}", kernel.release));
        let bad = all.iter().filter(|(_, results)| !results.good()).map(|(shard, _)| shard.name.as_str());
        failed.extend(bad.map(|name| format!("{name} on Linux {}", kernel.release)));
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// All shards on one kernel. What went wrong in one is told and kept; the others run nevertheless.
fn test_one<'a>(
    kernel: &Kernel,
    built: &guest::Built,
    tools: &[u8],
    selection: &'a Selection,
) -> Vec<(&'a Shard, Results)> {
    let (mut all, count) = (Vec::new(), selection.shards.len());
    for (number, shard) in selection.shards.iter().enumerate() {
        let head = format!("Linux {} [{}/{count}] {}", kernel.release, number + 1, shard.name);
        if let Some(before) = selection.resume.then(|| Results::kept(kernel, &shard.name, &built.tests)).flatten() {
            say(&format!("{head}: passed before"));
            all.push((shard, before));
            continue;
        }
        let results = run_shard(kernel, built, tools, shard).unwrap_or_else(|error| {
            say(&format!("{head}: {error:#}"));
            Results::default()
        });
        say(&format!("{}{head}: {}", results.told(), results.summary()));
        let kept = results.keep(kernel, &shard.name);
        let recorded = if selection.record { report::record(kernel, &shard.name, &results) } else { Ok(()) };
        if let Err(error) = kept.and(recorded) {
            say(&format!("{head}: what came out cannot be kept: {error:#}"));
        }
        all.push((shard, results));
    }
    all
}

fn run_shard(kernel: &Kernel, built: &guest::Built, tools: &[u8], shard: &Shard) -> Result<Results> {
    let start = Instant::now();
    let directory = store().join(&kernel.release).join(format!("run-{}", shard.name.replace("::", "-")));
    let ended = Machine::default().run(kernel, &[tools, &guest::job(Some(built), &shard.job())], &directory)?;
    let mut results = Results::read(&ended.output);
    results.seconds = start.elapsed().as_secs();
    if !results.good() {
        say(&format!("all that was printed: {}", ended.log.display()));
    }
    Ok(results)
}

/// `cargo xtask vm`: one command on one kernel.
pub(crate) fn vm(args: &VmArgs) -> Result<()> {
    let kernels = prepare(std::slice::from_ref(&args.kernel))?;
    let built = args.build.then(guest::build).transpose()?;
    let (tools, job) =
        (guest::tools(built.as_ref(), &args.files)?, guest::job(built.as_ref(), &args.command.join(" ")));
    let machine = Machine {
        processors: if args.virtual_time { 1 } else { args.processors },
        memory: args.memory,
        virtual_time: args.virtual_time,
        limit: Duration::from_secs(args.limit),
    };
    for kernel in kernels {
        let ended = machine.run(&kernel, &[&tools, &job], &store().join(&kernel.release).join("vm"))?;
        say(&ended.output);
        if ended.status != 0 {
            bail!("the command ended with {} on Linux {}", ended.status, kernel.release);
        }
    }
    Ok(())
}
