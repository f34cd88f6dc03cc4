//! Tasks of the project: `cargo xtask demo | test | vm | ebpf | generate | bench | dist`.

mod bench;
mod demo;
mod dist;
mod ebpf;
mod generate;
mod kernels;
mod kpx;
mod setup;
mod shell;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the project
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Watch a recorded node go from kube-proxy to eBPF and come back, under live traffic
    Demo(demo::Args),
    /// Do everything that CI does
    Test(test::Args),
    /// Run a command in a virtual machine with another kernel
    Vm(kernels::VmArgs),
    /// Build the eBPF object, or check that the committed one comes from its source
    Ebpf(ebpf::Args),
    /// Write completions and man pages from the command line's definition
    Generate(generate::Args),
    /// Run the benchmarks
    Bench(bench::Args),
    /// Make a Debian package, a tarball and their checksums, and try the package out
    Dist(dist::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Vm(args) => kernels::vm(&args),
        Task::Ebpf(args) => ebpf::run(&args),
        Task::Generate(args) => generate::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Dist(args) => dist::run(&args),
    };
    if let Err(error) = done {
        shell::say(&format!("error: {error:#}"));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
