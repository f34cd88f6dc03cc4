//! What is in a test machine besides the kernel: tools of this machine, the test programs, and a job.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::cpio::Archive;
use super::kernel::store;
use crate::setup;
use crate::shell::{cmd, root, which};

/// Programs that tests and people use there, if this machine has them.
const PROGRAMS: [&str; 50] = [
    "awk", "bash", "cat", "chmod", "cp", "cut", "date", "dmesg", "echo", "env", "ethtool", "false", "find", "free",
    "grep", "head", "hostname", "id", "ipvsadm", "kill", "ln", "ls", "lsmod", "mkdir", "modprobe", "mount", "mv",
    "nsenter", "ping", "printf", "ps", "rm", "rmmod", "sed", "seq", "setpriv", "sh", "sleep", "sort", "ss", "stat",
    "strace", "tail", "tar", "tc", "tcpdump", "true", "umount", "unshare", "wc",
];
/// And these files and folders.
const FILES: [&str; 7] = [
    "/etc/protocols",
    "/etc/services",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/iproute2",
    "/usr/lib/x86_64-linux-gnu/xtables",
];

/// How the programs under test are built.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Build {
    /// As for tests on the running kernel: nothing more to build where those were.
    Dev,
    /// Optimized a little: it takes minutes, and spares hours of emulation.
    Emulated,
}

/// The programs under test, as cargo built them.
#[derive(Debug)]
pub(super) struct Built {
    kpx: PathBuf,
    /// The one integration binary.
    pub(super) tests: PathBuf,
    /// The commit that they are of; with `-dirty` where the sources differ from it.
    pub(super) commit: String,
}

/// Builds kpx and its tests.
pub(super) fn build(how: Build) -> Result<Built> {
    let what: &[&str] = match how {
        Build::Dev => &["--workspace"],
        Build::Emulated => &["--profile", "emulated", "--package", "kpx", "--test", "kpx"],
    };
    let args = [&["test", "--no-run", "--locked", "--message-format=json-render-diagnostics"], what].concat();
    // Before the build: what changes while it runs may be in it or not.
    let commit = commit()?;
    let messages = String::from_utf8(cmd("cargo", args).read_shown()?)?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = Vec::new();
    for message in messages.filter(|message| message["target"]["name"] == "kpx") {
        if let Some(program) = message["executable"].as_str() {
            let kind = message["target"]["kind"][0].as_str().unwrap_or_default().to_owned();
            programs.push((kind, message["profile"]["test"] == true, PathBuf::from(program)));
        }
    }
    let built = |kind: &str, test: bool| {
        let found = programs.iter().find(|(k, t, _)| (k.as_str(), *t) == (kind, test));
        found.map(|(_, _, program)| program.clone()).with_context(|| format!("cargo built no {kind} kpx"))
    };
    Ok(Built { kpx: built("bin", false)?, tests: built("test", true)?, commit })
}

/// The commit that is checked out; what runs are recorded in does not count as a difference.
fn commit() -> Result<String> {
    let git = |args: &[&str]| anyhow::Ok(String::from_utf8(cmd("git", args).read()?)?.trim().to_owned());
    let commit = git(&["rev-parse", "--short=10", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/docs"])?;
    Ok(if changes.is_empty() { commit } else { commit + "-dirty" })
}

/// An archive with a job: a shell script.
pub(super) fn job(built: Option<&Built>, job: &str) -> Vec<u8> {
    let mut archive = Archive::default();
    let names = built.map(|built| format!("export KPX={} TESTS={}\n", built.kpx.display(), built.tests.display()));
    let job = format!("cd {}\n{}{job}\n", root().display(), names.unwrap_or_default());
    archive.file(Path::new("/job"), 0o755, job.as_bytes());
    archive.finish()
}

/// An archive with everything that a job may need, and these files of this machine.
pub(super) fn tools(built: Option<&Built>, extra: &[PathBuf]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.file(Path::new("/init"), 0o755, include_bytes!("init.sh"));
    // Where these are links, they must be so before anything is put below them.
    for folder in ["/bin", "/sbin", "/lib", "/lib64"].map(Path::new) {
        archive.links(folder)?;
    }
    for program in PROGRAMS.into_iter().chain(setup::programs()) {
        if let Some(path) = which(program) {
            archive.program(&path)?;
        }
    }
    for entry in fs_err::read_dir("/usr/sbin")? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if ["iptables", "ip6tables", "xtables"].iter().any(|family| name.starts_with(family)) {
            archive.program(&path)?;
        }
    }
    for file in FILES.map(Path::new) {
        if file.exists() {
            archive.add(file)?;
        }
    }
    for program in built.iter().flat_map(|built| [&built.kpx, &built.tests]) {
        let stripped = store().join("stripped");
        cmd("strip", ["--strip-debug".into(), "-o".into(), stripped.clone().into_os_string(), program.into()])
            .read()?;
        archive.file(program, 0o755, &fs_err::read(&stripped)?);
        archive.libraries(program)?;
    }
    for path in ["tests/data", "docs/schema", "deploy", "ebpf/kpx.bpf.o"] {
        archive.add(&root().join(path))?;
    }
    let recordings = root().join("../shared/fixtures");
    if recordings.is_dir() {
        archive.add(&recordings)?;
    }
    for path in extra {
        archive.add(&std::path::absolute(path)?)?;
    }
    Ok(archive.finish())
}
