//! Running other programs: the one place that does.
//!
//! Children get no terminal, the C locale, the system directories at the end of `PATH` (an operator's often lacks
//! them) and a process group of their own, so that Ctrl-C never tears a restore in half. All waits are bounded.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
#[expect(clippy::disallowed_types, reason = "this is the module that may")]
use std::process::Command;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

use crate::error::Hinted;
use crate::failpoint;

/// How long a program may run. The longest here, listing 10 000 Services with `nft`, takes 15 s on a slow machine.
const LIMIT: Duration = Duration::from_mins(5);

/// What a program printed and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// Why a program gave no result.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such program.
    #[error("{program} is not installed")]
    NotInstalled {
        /// Its name.
        program: String,
    },
    /// It could not be started or spoken to.
    #[error("cannot run {command}")]
    Io {
        /// The command line.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("{command} failed ({status}){}", said(.stderr))]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said on standard error.
        stderr: String,
    },
    /// It did not end.
    #[error("{command} did not end within {} s and was killed", .limit.as_secs())]
    TimedOut {
        /// The command line.
        command: String,
        /// How long it was given.
        limit: Duration,
    },
}

fn said(stderr: &str) -> String {
    let line = stderr.lines().map(str::trim).rfind(|l| !l.is_empty() && !l.starts_with("# Warning"));
    line.map_or_else(String::new, |line| format!(": {line}"))
}

impl Hinted for CommandError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::NotInstalled { program } => package(program)
                .map(|package| format!("install it: apt-get install {package} (or as your distribution calls it)"))
                .into_iter()
                .collect(),
            Self::Failed { stderr, .. } if denied(stderr) => vec!["run kpx as root".to_owned()],
            _ => Vec::new(),
        }
    }
}

fn denied(stderr: &str) -> bool {
    stderr.contains("Permission denied") || stderr.contains("Operation not permitted")
}

/// Debian's package of a program.
fn package(program: &str) -> Option<&'static str> {
    let packages: &[(&[&str], &str)] = &[
        (&["iptables", "ip6tables", "xtables"], "iptables"),
        (&["nft"], "nftables"),
        (&["nfacct"], "nfacct"),
        (&["ipset"], "ipset"),
        (&["ip"], "iproute2"),
        (&["conntrack"], "conntrack"),
    ];
    let tool = program.split('-').next().unwrap_or(program);
    packages.iter().find(|(tools, _)| tools.contains(&tool)).map(|(_, package)| *package)
}

/// Runs a program to its end, whatever its exit status, with `stdin` as its input.
pub fn run<A>(program: &str, args: A, stdin: Option<&[u8]>) -> Result<Output, CommandError>
where
    A: IntoIterator<Item: AsRef<OsStr>>,
{
    run_within(LIMIT, program, args, stdin)
}

/// Runs a program to its end and gives what it printed; another exit status than 0 is an error.
pub fn output<A>(program: &str, args: A, stdin: Option<&[u8]>) -> Result<Vec<u8>, CommandError>
where
    A: IntoIterator<Item: AsRef<OsStr>>,
{
    let args: Vec<OsString> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
    let output = run(program, &args, stdin)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(CommandError::Failed {
        command: line(program, &args),
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Starts a program that goes on running, with pipes to its standard input and output; what it says on standard error
/// is dropped. The caller ends it.
pub fn start<A>(program: &str, args: A) -> Result<Child, CommandError>
where
    A: IntoIterator<Item: AsRef<OsStr>>,
{
    let args: Vec<OsString> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
    command(program, &args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| spawn_error(program, &args, e))
}

/// Runs a program to its end and hands on each line of its standard output as it comes; the output has what it said on standard
/// error. `started` is told its process number. Once `stop` is set, the program is asked to end as by Ctrl-C, and waited for.
pub fn follow<A>(
    program: &str,
    args: A,
    stop: &AtomicBool,
    started: impl FnOnce(u32),
    mut line_came: impl FnMut(&str),
) -> Result<Output, CommandError>
where
    A: IntoIterator<Item: AsRef<OsStr>>,
{
    let args: Vec<OsString> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
    let mut child = command(program, &args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| spawn_error(program, &args, e))?;
    started(child.id());
    let io_error = |source| CommandError::Io { command: line(program, &args), source };
    let (out, err, pid) = (child.stdout.take(), child.stderr.take(), Pid::from_child(&child));
    thread::scope(|scope| {
        let stderr = scope.spawn(|| drain(err));
        let (sender, lines) = channel();
        scope.spawn(move || {
            for text in out.map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
                // The receiver stays until this end is gone.
                let _ = sender.send(text);
            }
        });
        let mut asked = false;
        loop {
            match lines.recv_timeout(Duration::from_millis(50)) {
                Ok(text) => line_came(&text),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if stop.load(Ordering::Relaxed) && !asked {
                asked = true;
                // It may have ended by itself. Not SIGINT: that is ignored by what is started from a shell's background.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let status = child.wait().map_err(io_error)?;
        let stderr = stderr.join().expect("the reader does not panic").map_err(io_error)?;
        Ok(Output { status, stdout: Vec::new(), stderr })
    })
}

/// Starts a program that outlives this process, with exactly this command line (its first word is what the program is told that it is
/// called) and environment; what it says is added to a file.
pub fn start_apart(
    program: &Path,
    argv: &[OsString],
    environment: &[OsString],
    folder: &Path,
    log: &Path,
) -> Result<(), CommandError> {
    let words = argv.split_first().map_or(&[][..], |(_, rest)| rest);
    let shown = program.to_string_lossy();
    let failed = |source| CommandError::Io { command: line(&shown, words), source };
    let log = fs_err::OpenOptions::new().create(true).append(true).open(log).map_err(failed)?.into_file();
    let pairs = environment.iter().filter_map(|pair| {
        let bytes = pair.as_bytes();
        let at = bytes.iter().position(|b| *b == b'=')?;
        Some((OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..])))
    });
    #[expect(clippy::disallowed_types, reason = "this is the module that may")]
    let mut command = Command::new(program);
    command.args(words).env_clear().envs(pairs).current_dir(folder).process_group(0);
    if let Some(name) = argv.first() {
        command.arg0(name);
    }
    let output = log.try_clone().map_err(failed)?;
    command.stdin(Stdio::null()).stdout(output).stderr(log);
    command.spawn().map(drop).map_err(|e| spawn_error(&shown, words, e))
}

fn run_within<A>(limit: Duration, program: &str, args: A, stdin: Option<&[u8]>) -> Result<Output, CommandError>
where
    A: IntoIterator<Item: AsRef<OsStr>>,
{
    let args: Vec<OsString> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
    tracing::debug!(command = line(program, &args), "run");
    let mut child = command(program, &args)
        .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| spawn_error(program, &args, e))?;
    let io_error = |source| CommandError::Io { command: line(program, &args), source };
    let (input, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let writer = scope.spawn(move || match (input, stdin) {
            (Some(mut pipe), Some(bytes)) => pipe.write_all(bytes),
            _ => Ok(()),
        });
        let stdout = scope.spawn(|| drain(out));
        let stderr = scope.spawn(|| drain(err));
        let ended = wait(&mut child, limit).map_err(io_error)?;
        let join = |handle: thread::ScopedJoinHandle<'_, io::Result<Vec<u8>>>| {
            handle.join().expect("the reader does not panic").map_err(io_error)
        };
        let (stdout, stderr) = (join(stdout)?, join(stderr)?);
        match writer.join().expect("the writer does not panic") {
            // A program that fails early does not read its input: its exit status says more.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(io_error(e)),
            _ => {}
        }
        let status = ended.ok_or_else(|| CommandError::TimedOut { command: line(program, &args), limit })?;
        if stdin.is_some() {
            failpoint::changed();
        }
        Ok(Output { status, stdout, stderr })
    })
}

fn drain(pipe: Option<impl io::Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Waits for the end of a child; `None` if it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    let watch = pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)], Some(&timeout)) {
            Ok(0) => {
                kill_process_group(pid, Signal::KILL)?;
                child.wait()?;
                return Ok(None);
            }
            Ok(_) => return child.wait().map(Some),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[expect(clippy::disallowed_types, reason = "this is the module that may")]
fn command(program: &str, args: &[OsString]) -> Command {
    let mut path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    let mut command = Command::new(program);
    command.args(args).env("PATH", path).env("LC_ALL", "C").process_group(0);
    command
}

fn spawn_error(program: &str, args: &[OsString], source: io::Error) -> CommandError {
    if source.kind() == io::ErrorKind::NotFound {
        CommandError::NotInstalled { program: program.to_owned() }
    } else {
        CommandError::Io { command: line(program, args), source }
    }
}

fn line(program: &str, args: &[OsString]) -> String {
    let words = std::iter::once(OsStr::new(program)).chain(args.iter().map(OsString::as_os_str));
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_input_and_output_do_not_block_each_other() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(output("cat", [] as [&str; 0], Some(&input)).expect("cat runs"), input);
    }

    #[test]
    fn lines_are_handed_on_and_a_stop_is_passed_on() {
        let (stop, mut lines) = (AtomicBool::new(false), Vec::new());
        let output = follow("sh", ["-c", "echo a; echo no >&2; echo b"], &stop, |_| {}, |l| lines.push(l.to_owned()));
        assert_eq!((lines, output.expect("it runs").stderr), (vec!["a".to_owned(), "b".to_owned()], b"no\n".to_vec()));
        let script = "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
        let mut told = false;
        let output = follow(
            "sh",
            ["-c", script],
            &stop,
            |_| {},
            |line| {
                stop.store(true, Ordering::Relaxed);
                told |= line == "told";
            },
        );
        assert_eq!((output.expect("it runs").status.code(), told), (Some(7), true));
    }

    #[test]
    fn failures_name_the_command_and_what_it_said() {
        let error = output("sh", ["-c", "echo lost >&2; exit 3"], None).expect_err("exit status 3");
        assert_eq!(error.to_string(), "sh -c echo lost >&2; exit 3 failed (exit status: 3): lost");
        let missing = run("iptables-of-nowhere", ["-c"], None).expect_err("no such program");
        assert_eq!(missing.to_string(), "iptables-of-nowhere is not installed");
        assert!(missing.hints()[0].contains("apt-get install iptables"));
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_with_its_children() {
        let begun = Instant::now();
        let error = run_within(Duration::from_millis(100), "sh", ["-c", "sleep 60 & sleep 60"], None);
        assert!(matches!(error, Err(CommandError::TimedOut { .. })), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
