//! A client in a process of its own: a socket belongs to the cgroup of the process that makes it.
//!
//! The process is this test binary once more, asked for the one test below, which then takes commands on its standard
//! input and answers on its standard output, a line each.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, ChildStdin, ChildStdout};
use std::time::Duration;

use kpx::capture::command;
use kpx::dataplane::{Capacity, Dataplane, DataplaneError, Mode, Paths};
use kpx::model::Protocol;

use super::ground::{cluster_ip, table};

const ASKED: &str = "KPX_TEST_AGENT";
/// Marks answers among what the test harness prints.
const MARK: &str = "agent: ";
/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_millis(700);

/// A client process. It ends with this value.
pub(crate) struct Agent {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Agent {
    /// Starts a client in the network namespace of this thread and moves it into a cgroup.
    pub(crate) fn start(cgroup: &std::path::Path) -> Self {
        let program = std::env::current_exe().expect("the test binary has a path");
        let program = program.to_str().expect("its path is UTF-8").to_owned();
        let asked = format!("{ASKED}=1");
        let words = [&asked, &program, "dataplane::agent::agent", "--exact", "--nocapture", "--test-threads=1"];
        let mut child = command::start("env", words).expect("the test binary runs");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        fs_err::write(cgroup.join("cgroup.procs"), child.id().to_string()).expect("the cgroup takes the client");
        let mut agent = Self { child, stdin, stdout: BufReader::new(stdout) };
        assert_eq!(agent.ask("hello"), "ok hello");
        agent
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a command, returns the answer.
    pub(crate) fn ask(&mut self, command: impl std::fmt::Display) -> String {
        self.tell(command);
        self.answer()
    }

    /// Sends a command without waiting for the answer.
    pub(crate) fn tell(&mut self, command: impl std::fmt::Display) {
        writeln!(self.stdin, "{command}").expect("the client listens");
    }

    /// Waits for the answer to the oldest command told.
    pub(crate) fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.stdout.read_line(&mut line).expect("the client speaks");
            assert_ne!(read, 0, "the client ended");
            // The harness prints the test's name without ending the line.
            if let Some((_, answer)) = line.split_once(MARK) {
                return answer.trim_end().to_owned();
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The client's side; does nothing when run as a test like any other.
#[test]
fn agent() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let mut sockets = HashMap::new();
    for line in io::stdin().lines() {
        let line = line.expect("commands are text");
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match run(&words, &mut sockets) {
            Ok(answer) => format!("ok {answer}"),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                "err timeout".to_owned()
            }
            Err(error) => format!("err {}", error.raw_os_error().unwrap_or(0)),
        };
        println!("{MARK}{answer}");
        io::stdout().flush().expect("answers are read");
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

fn run(words: &[&str], sockets: &mut HashMap<String, UdpSocket>) -> io::Result<String> {
    let named = |name: &str| sockets.get(name).expect("a socket opened before");
    match *words {
        ["hello"] => Ok("hello".to_owned()),
        // A TCP connection: the peer's name, and what the server says of itself and of us.
        ["tcp", to] => {
            let mut stream = TcpStream::connect(address(to))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(format!("peer={} {text}", stream.peer_addr()?))
        }
        // Many of them: how often each server answered, and the failures.
        ["tcp-many", to, count] => {
            let count: usize = count.parse().expect("a number");
            Ok(tally(count, || {
                let mut stream = TcpStream::connect(address(to))?;
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                let mut text = String::new();
                stream.read_to_string(&mut text)?;
                Ok(text)
            }))
        }
        // Many datagrams on a socket of their own each.
        ["udp-many", to, count] => {
            let count: usize = count.parse().expect("a number");
            Ok(tally(count, || {
                let socket = open(if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" })?;
                socket.set_read_timeout(Some(Duration::from_secs(5)))?;
                exchange(&socket, Some(address(to))).map(|answer| answer.1)
            }))
        }
        // Many datagrams on one socket without waiting for answers: how many went, and the failures.
        ["udp-flood", to, count] => {
            let socket = open("0.0.0.0:0")?;
            let count: usize = count.parse().expect("a number");
            Ok(tally(count, || socket.send_to(b"?", to).map(|_| "sent".to_owned())))
        }
        // A dataplane with one frontend, attached and active.
        ["load", pins, cgroup, frontend, backend] => {
            let mut dataplane = install(pins, cgroup, frontend, backend).expect("it can be installed");
            dataplane.set_mode(Mode::Active).expect("its mode can be set");
            Ok(String::new())
        }
        // The same over and over, until killed.
        ["come-and-go", pins, cgroup, frontend, backend] => loop {
            let dataplane = install(pins, cgroup, frontend, backend).expect("it can be installed");
            Dataplane::remove(dataplane.paths()).expect("it can be removed");
        },
        ["load-without-capabilities", pins, cgroup] => {
            caps::clear(None, caps::CapSet::Effective).expect("capabilities can be given up");
            let paths = Paths { pins: pins.into(), cgroup: cgroup.into() };
            let error =
                Dataplane::install(&paths, &Capacity::for_table(&table([]))).expect_err("it cannot be installed");
            Ok(error.to_string())
        }
        ["listen", at] => std::net::TcpListener::bind(address(at)).map(|_| String::new()),
        ["udp", name, bind] => {
            sockets.insert(name.to_owned(), open(bind)?);
            Ok(sockets[name].local_addr()?.to_string())
        }
        ["connect", name, to] => named(name).connect(address(to)).map(|()| String::new()),
        ["peer", name] => Ok(named(name).peer_addr()?.to_string()),
        ["send", name, to] => told(exchange(named(name), Some(address(to)))),
        ["exchange", name] => told(exchange(named(name), None)),
        ["close", name] => {
            sockets.remove(name);
            Ok(String::new())
        }
        _ => panic!("no such command: {words:?}"),
    }
}

fn install(pins: &str, cgroup: &str, frontend: &str, backend: &str) -> Result<Dataplane, DataplaneError> {
    let table = table([cluster_ip(frontend, Protocol::Tcp, &[backend])]);
    let paths = Paths { pins: pins.into(), cgroup: cgroup.into() };
    let mut dataplane = Dataplane::install(&paths, &Capacity::for_table(&table))?;
    dataplane.fill(&table)?;
    dataplane.attach()?;
    Ok(dataplane)
}

fn open(bind: &str) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address(bind))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn told(answer: io::Result<(SocketAddr, String)>) -> io::Result<String> {
    answer.map(|(from, text)| format!("from={from} {text}"))
}

/// One datagram there and one back: where it came from, as the application sees it, and what it says.
fn exchange(socket: &UdpSocket, to: Option<SocketAddr>) -> io::Result<(SocketAddr, String)> {
    match to {
        Some(to) => socket.send_to(b"?", to)?,
        None => socket.send(b"?")?,
    };
    let mut room = [0; 256];
    let (size, from) = socket.recv_from(&mut room)?;
    Ok((from, String::from_utf8_lossy(&room[..size]).into_owned()))
}

fn tally(count: usize, mut once: impl FnMut() -> io::Result<String>) -> String {
    let mut names: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for _ in 0..count {
        let name = match once() {
            Ok(text) => text.split(' ').next().unwrap_or_default().to_owned(),
            Err(error) => format!("err{}", error.raw_os_error().unwrap_or(0)),
        };
        *names.entry(name).or_default() += 1;
    }
    names.iter().map(|(name, count)| format!("{name}={count}")).collect::<Vec<_>>().join(" ")
}
