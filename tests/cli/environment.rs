//! Runs of the binary in a fixed environment.

use std::path::{Path, PathBuf};

use assert_cmd::Command;

/// What a run printed and how it ended.
pub(crate) struct Run {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

/// The binary with an environment of its own: no colour, no terminal, no settings of whoever runs the tests.
pub(crate) fn kpx() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kpx"));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// Runs the binary with these arguments.
pub(crate) fn run<A: AsRef<std::ffi::OsStr>>(args: &[A]) -> Run {
    finish(kpx().args(args))
}

/// Runs a prepared command.
pub(crate) fn finish(command: &mut Command) -> Run {
    let output = command.output().expect("the binary runs");
    Run {
        out: String::from_utf8(output.stdout).expect("kpx prints UTF-8"),
        err: String::from_utf8(output.stderr).expect("kpx prints UTF-8"),
        code: output.status.code().expect("kpx ends by itself"),
    }
}

/// A file or folder of the project.
pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
