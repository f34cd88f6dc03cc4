//! `cargo xtask test`: everything that CI does, stage by stage.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::kernels::{self, Selection};
use crate::setup;
use crate::shell::{Privilege, cmd, in_ci, root, say, which};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on after a failed stage
    #[arg(long)]
    keep_going: bool,
    /// Install what optional stages need: the eBPF toolchain, cargo-deny [default: in CI]
    #[arg(long)]
    install: bool,
    /// Run only the kernel's tests, on these kernels in virtual machines [default: 5.10 to the newest]
    ///
    /// A version is a series such as 6.1, a release, or newest.
    #[arg(long, value_name = "VERSION", num_args = 0.., value_delimiter = ',', conflicts_with_all = ["keep_going", "install"])]
    kernels: Option<Vec<String>>,
    /// With --kernels: write what came out into docs/kernels.md
    #[arg(long, requires = "kernels")]
    record: bool,
    /// With --kernels: go on where a run was interrupted; what passed with these very tests is left out
    #[arg(long, requires = "kernels")]
    resume: bool,
    /// With --kernels: names of tests, or parts of names [default: all that have to do with the kernel]
    #[arg(last = true, value_name = "FILTER", requires = "kernels")]
    filters: Vec<String>,
}

/// The fuzz targets are a workspace of their own, so that building them with another toolchain touches nothing else. They have to
/// compile with this one all the same.
const FUZZ_TARGETS: [&str; 6] =
    ["check", "--manifest-path=fuzz/Cargo.toml", "--target-dir=target", "--all-targets", "--locked", "--quiet"];

/// How a stage ended.
enum Outcome {
    Passed,
    /// Passed as far as it went; a part was left out, for this reason.
    PassedWithout(String),
    Skipped(String),
    Failed(anyhow::Error),
}

impl From<Result<()>> for Outcome {
    fn from(result: Result<()>) -> Self {
        match result {
            Ok(()) => Self::Passed,
            Err(error) => Self::Failed(error),
        }
    }
}

type Stage<'a> = (&'static str, Box<dyn Fn() -> Outcome + 'a>);

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(versions) = &args.kernels {
        let selection = Selection::of(versions, &args.filters, args.record, args.resume);
        return kernels::test(&selection, &kernels::prepare(&selection.versions)?);
    }
    let privilege = Privilege::find();
    let install = args.install || in_ci();
    let stages: [Stage<'_>; 10] = [
        ("set-up", Box::new(|| set_up(&privilege))),
        ("toolchain", Box::new(|| toolchain().into())),
        ("fmt", Box::new(|| cargo(&["fmt", "--all", "--check"]))),
        ("clippy", Box::new(|| cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))),
        ("fuzz", Box::new(|| cargo(&FUZZ_TARGETS))),
        ("docs", Box::new(docs)),
        ("tests", Box::new(|| tests(&privilege).into())),
        ("kernels", Box::new(usual_kernels)),
        ("ebpf", Box::new(|| ebpf(install))),
        ("deny", Box::new(|| deny(install))),
    ];
    let mut done = Vec::new();
    for (name, stage) in stages {
        say(&format!("\n== {name}"));
        let start = Instant::now();
        let outcome = stage();
        if let Outcome::Failed(error) = &outcome {
            say(&format!("{name} failed: {error:#}"));
        }
        let stop = matches!(outcome, Outcome::Failed(_)) && !args.keep_going;
        done.push((name, outcome, start.elapsed()));
        if stop {
            break;
        }
    }
    summary(&done)
}

fn summary(done: &[(&str, Outcome, Duration)]) -> Result<()> {
    say("\n== summary");
    let mut failed = Vec::new();
    for (name, outcome, time) in done {
        let text = match outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::PassedWithout(what) => format!("passed; {what}"),
            Outcome::Skipped(reason) => format!("skipped: {reason}"),
            Outcome::Failed(_) => {
                failed.push(*name);
                "FAILED".to_owned()
            }
        };
        say(&format!("{name:<10} {:>7.1} s  {text}", time.as_secs_f64()));
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn cargo(args: &[&str]) -> Outcome {
    cmd("cargo", args).run().into()
}

/// In CI everything must be there; elsewhere the tests that miss a tool say so themselves.
fn set_up(privilege: &Privilege) -> Outcome {
    match setup::run(privilege) {
        Err(error) if !in_ci() => Outcome::Skipped(error.to_string()),
        result => result.into(),
    }
}

/// The oldest supported compiler is the one this runs on, or the stage says that it is newer.
fn toolchain() -> Result<()> {
    let manifest = fs_err::read_to_string(root().join("Cargo.toml"))?;
    let declared = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = ")?.split('"').nth(1))
        .context("Cargo.toml declares no rust-version")?;
    let version = String::from_utf8(cmd("rustc", ["--version"]).read()?)?;
    let here = version.split(' ').nth(1).context("rustc --version is not understood")?;
    if here.starts_with(declared) {
        say(&format!("rustc {here} is the declared minimum: all that follows proves it"));
    } else {
        say(&format!("rustc {here}; the declared minimum {declared} is not tried here"));
    }
    Ok(())
}

/// Every link leads somewhere; to private items too, which is where those who work on the code want to go.
fn docs() -> Outcome {
    cmd("cargo", ["doc", "--workspace", "--no-deps", "--locked", "--quiet"])
        .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links")
        .run()
        .into()
}

/// Unit, snapshot and privileged tests, and the freshness of generated files, which are tests too.
///
/// What passing tests print is shown: it is where a test that cannot run says why.
///
/// Builds as the user, runs as root where that is to be had, so that the namespace tests run.
fn tests(privilege: &Privilege) -> Result<()> {
    let mut tests = cmd("cargo", ["test", "--workspace", "--locked", "--", "--show-output"]).env("INSTA_UPDATE", "no");
    match privilege {
        Privilege::Root => {}
        Privilege::Sudo => {
            let verbose = String::from_utf8(cmd("rustc", ["--version", "--verbose"]).read()?)?;
            let host = verbose.lines().find_map(|l| l.strip_prefix("host: ")).context("rustc tells no host")?;
            let host = host.to_uppercase().replace('-', "_");
            tests = tests.env(format!("CARGO_TARGET_{host}_RUNNER"), "sudo --preserve-env");
        }
        Privilege::None(reason) => say(&format!("privileged tests will skip: {reason}")),
    }
    tests.run()
}

/// The dataplane on Debian's kernels. A machine that cannot have them says so.
fn usual_kernels() -> Outcome {
    let selection = Selection::usual();
    match kernels::prepare(&selection.versions) {
        Ok(found) => kernels::test(&selection, &found).into(),
        Err(error) => Outcome::Skipped(format!("no other kernels here ({error:#})")),
    }
}

/// Runs this very program again: the task is the same as by hand. Without its toolchain it compares hashes only, and says so.
fn ebpf(install: bool) -> Outcome {
    let check = || -> Result<()> {
        let args: &[&str] = if install { &["ebpf", "--check", "--install"] } else { &["ebpf", "--check"] };
        cmd(std::env::current_exe()?, args.iter().copied()).run()
    };
    check().into()
}

/// Licences, bans and sources; advisories where their database can be reached.
fn deny(install: bool) -> Outcome {
    if which("cargo-deny").is_none() {
        if !install {
            return Outcome::Skipped("cargo-deny is not installed; cargo xtask test --install does it".to_owned());
        }
        let installed = cmd("timeout", ["15m", "cargo", "install", "--locked", "--quiet", "cargo-deny"]).run();
        if let Err(error) = installed {
            return Outcome::Skipped(format!("cargo-deny could not be installed ({error:#})"));
        }
    }
    let policy = cmd("cargo", ["deny", "--all-features", "check", "bans", "licenses", "sources"]).run();
    if let Err(error) = policy {
        return Outcome::Failed(error);
    }
    if let Err(error) = cmd("cargo", ["deny", "fetch", "db"]).read() {
        say(&format!("{error:#}"));
        return Outcome::PassedWithout("advisories not checked, their database was not reached".to_owned());
    }
    cmd("cargo", ["deny", "check", "advisories"]).run().into()
}
