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
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::setup;
use crate::shell::{Privilege, say};
use guest::Build;
pub(crate) use kernel::Kernel;
use kernel::store;
use results::Results;
use vm::Machine;

/// Debian 12's kernels: what CI runs each time.
pub(crate) const USUAL: [&str; 2] = ["6.1", "6.12"];
/// From the oldest that can be had to the newest.
const ALL: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "newest"];

/// The modules of tests that have to do with the kernel; each line runs in a machine of its own. What is quick and tells most
/// comes first. What reads recordings is the same everywhere.
const MODULES: [&[&str]; 13] = [
    &[
        "dataplane::features",
        "dataplane::exposures",
        "dataplane::sockets",
        "dataplane::kernel_flows",
        "dataplane::live",
    ],
    &["dataplane::hours"],
    &["dataplane::modes", "dataplane::neighbours", "dataplane::object", "dataplane::lifecycle", "dataplane::worlds"],
    &["ipvs::live", "nftables::live", "conntrack::live", "bpf::"],
    &["capture::live", "capture::servers", "cli::maps"],
    &["path::kernel", "path::maps", "preflight::tried"],
    &["audit::live"],
    &["agent::"],
    &["dataplane::packets"],
    &["migrate::"],
    &["lab::"],
    &["conformance::kpx"],
    &["conformance::rules"],
];
/// Those that CI runs each time: all programs loaded, and traffic through the hooks of sockets. More would take longer under
/// emulation than everything else together.
const USUAL_MODULES: [&str; 3] = ["dataplane::features", "dataplane::exposures", "dataplane::sockets"];

/// What a machine prints before a module's tests; its name follows.
const MODULE: &str = "kpx-vm: module ";

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
    /// How many seconds of this machine's processors it may take
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
    build: Build,
    /// Whether docs/kernels.md shall tell what came out.
    pub(crate) record: bool,
    /// Whether what passed before, with these very tests, is left out.
    pub(crate) resume: bool,
}

/// Modules of tests that run in one machine, one after the other.
#[derive(Debug)]
struct Shard {
    modules: Vec<String>,
}

impl Selection {
    /// What CI runs each time, in one machine.
    pub(crate) fn usual() -> Self {
        let shard = Shard { modules: owned(&USUAL_MODULES) };
        Self { versions: owned(&USUAL), shards: vec![shard], build: Build::Dev, record: false, resume: false }
    }

    /// These versions and tests; all of either where none is named.
    pub(crate) fn of(versions: &[String], filters: &[String], record: bool, resume: bool) -> Self {
        let shards = if filters.is_empty() {
            MODULES.iter().map(|modules| Shard { modules: owned(modules) }).collect()
        } else {
            vec![Shard { modules: filters.to_vec() }]
        };
        let versions = if versions.is_empty() { owned(&ALL) } else { versions.to_vec() };
        Self { versions, shards, build: Build::Emulated, record, resume }
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
    let built = guest::build(selection.build)?;
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
        let bad = all.iter().filter(|(_, results)| !results.good()).map(|(module, _)| module);
        failed.extend(bad.map(|name| format!("{name} on Linux {}", kernel.release)));
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// All shards on one kernel, by module. What went wrong in one is told and kept; the others run nevertheless.
fn test_one(kernel: &Kernel, built: &guest::Built, tools: &[u8], selection: &Selection) -> Vec<(String, Results)> {
    let mut all = Vec::new();
    for shard in &selection.shards {
        let mut left = Vec::new();
        for module in &shard.modules {
            match selection.resume.then(|| Results::kept(kernel, module, &built.tests)).flatten() {
                Some(before) => {
                    say(&format!("Linux {}: {module}: passed before", kernel.release));
                    all.push((module.clone(), before));
                }
                None => left.push(module.clone()),
            }
        }
        if left.is_empty() {
            continue;
        }
        let ended = run(kernel, built, tools, &left).unwrap_or_else(|error| {
            say(&format!("Linux {}: {error:#}", kernel.release));
            Vec::new()
        });
        for module in left {
            let results = ended.iter().find(|(name, _)| *name == module).map(|(_, results)| results);
            let Some(results) = results else {
                say(&format!("Linux {}: {module} was not begun", kernel.release));
                all.push((module, Results::default()));
                continue;
            };
            say(&format!("{}Linux {}: {module}: {}", results.told(), kernel.release, results.summary()));
            let kept = results.keep(kernel, &module);
            let recorded = if selection.record { report::record(kernel, &module, results) } else { Ok(()) };
            if let Err(error) = kept.and(recorded) {
                say(&format!("{module}: what came out cannot be kept: {error:#}"));
            }
            all.push((module, results.clone()));
        }
    }
    all
}

/// Runs modules in one machine; those that were begun, with what came out.
fn run(kernel: &Kernel, built: &guest::Built, tools: &[u8], modules: &[String]) -> Result<Vec<(String, Results)>> {
    let job = |module: &String| {
        format!("echo '{MODULE}{module}'\nKPX_VIRTUAL_TIME=1 \"$TESTS\" --show-output --test-threads=1 {module}\n")
    };
    let job = guest::job(Some(built), &modules.iter().map(job).collect::<String>());
    let name = format!("run-{}", modules[0].replace("::", "-"));
    let ended = Machine::default().run(kernel, &[tools, &job], &store().join(&kernel.release).join(name))?;
    if let Err(error) = &ended.status {
        say(&format!("Linux {}: {error:#}", kernel.release));
    }
    say(&format!("all that was printed: {}", ended.log.display()));
    let parts = ended.output.split(MODULE).skip(1).filter_map(|part| part.split_once('\n'));
    let read = |(module, printed): (&str, &str)| {
        (module.to_owned(), Results { commit: built.commit.clone(), ..Results::read(printed) })
    };
    Ok(parts.map(read).collect())
}

/// `cargo xtask vm`: one command on one kernel.
pub(crate) fn vm(args: &VmArgs) -> Result<()> {
    let kernels = prepare(std::slice::from_ref(&args.kernel))?;
    let built = args.build.then(|| guest::build(Build::Dev)).transpose()?;
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
        let status = ended.status.with_context(|| format!("Linux {}", kernel.release))?;
        ensure!(status == 0, "the command ended with {status} on Linux {}", kernel.release);
    }
    Ok(())
}
