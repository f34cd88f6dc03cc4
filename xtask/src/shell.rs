//! Running other programs, with the words printed first, and as root where that is needed and possible.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
#[expect(clippy::disallowed_types, reason = "this is the one place of xtask that runs programs")]
use std::process::Command;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};

/// The project's directory.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the project")
}

/// Prints a line to stderr: the tasks' own words stand apart from the output of what they run.
pub(crate) fn say(text: &str) {
    // Nothing is left to tell anybody when stderr itself is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

/// One program with its arguments and environment.
pub(crate) struct Cmd {
    words: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    directory: PathBuf,
}

/// Starts a command line.
pub(crate) fn cmd<I: IntoIterator<Item = S>, S: Into<OsString>>(program: impl Into<OsString>, args: I) -> Cmd {
    let words = std::iter::once(program.into()).chain(args.into_iter().map(Into::into)).collect();
    Cmd { words, env: Vec::new(), directory: root().to_owned() }
}

impl Cmd {
    /// The same with one more environment variable.
    pub(crate) fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The same with one more argument.
    pub(crate) fn arg(mut self, word: impl Into<OsString>) -> Self {
        self.words.push(word.into());
        self
    }

    /// The same with more arguments.
    pub(crate) fn args<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.words.extend(words.into_iter().map(OsString::from));
        self
    }

    /// The same in another directory than the project's.
    pub(crate) fn dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// The same run as root.
    pub(crate) fn privileged(mut self, privilege: &Privilege) -> Self {
        if let Privilege::Sudo = privilege {
            let preserve = ["sudo", "--preserve-env"].map(OsString::from);
            self.words.splice(0..0, preserve);
        }
        self
    }

    fn shown(&self) -> String {
        let words = self.words.iter().map(|word| word.to_string_lossy().into_owned());
        let env = self.env.iter().map(|(name, value)| format!("{}={}", name.display(), value.display()));
        env.chain(words).collect::<Vec<_>>().join(" ")
    }

    #[expect(clippy::disallowed_types, reason = "this is the one place of xtask that runs programs")]
    fn build(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).envs(self.env.iter().cloned()).current_dir(&self.directory);
        command
    }

    /// Runs it with this terminal; the status is the caller's to judge.
    pub(crate) fn status(&self) -> Result<ExitStatus> {
        say(&format!("$ {}", self.shown()));
        self.build().stdin(Stdio::inherit()).status().with_context(|| format!("cannot run {}", self.shown()))
    }

    /// Runs it with this terminal; fails unless it succeeds.
    pub(crate) fn run(&self) -> Result<()> {
        let status = self.status()?;
        if !status.success() {
            bail!("{} ended with {status}", self.shown());
        }
        Ok(())
    }

    /// Runs it with its stderr shown and returns its stdout; fails unless it succeeds.
    pub(crate) fn read_shown(&self) -> Result<Vec<u8>> {
        say(&format!("$ {}", self.shown()));
        let mut command = self.build();
        let output = command.stdin(Stdio::inherit()).stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("cannot run {}", self.shown()))?;
        if !output.status.success() {
            bail!("{} ended with {}", self.shown(), output.status);
        }
        Ok(output.stdout)
    }

    /// Runs it silently and returns its stdout; fails unless it succeeds.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        let output =
            self.build().stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", self.shown()))?;
        if !output.status.success() {
            bail!("{} ended with {}: {}", self.shown(), output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output.stdout)
    }
}

/// How root is to be had.
#[derive(Debug)]
pub(crate) enum Privilege {
    /// This is root.
    Root,
    /// By sudo.
    Sudo,
    /// Not at all, with the reason.
    None(&'static str),
}

impl Privilege {
    /// Finds out, without asking for a password unless somebody is there to type it.
    pub(crate) fn find() -> Self {
        let root = cmd("id", ["-u"]).read().is_ok_and(|uid| uid.trim_ascii() == b"0");
        if root {
            Self::Root
        } else if which("sudo").is_none() {
            Self::None("not root, and sudo is not installed")
        } else if io::stdin().is_terminal() || cmd("sudo", ["-n", "true"]).read().is_ok() {
            Self::Sudo
        } else {
            Self::None("not root, and sudo wants a password that nobody can type")
        }
    }
}

/// The path of a program. Debian keeps the network tools in directories that are not on a user's PATH.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .map(|cargo| cargo.join("bin"));
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .chain(home)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// Whether this is a CI run.
pub(crate) fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}
