//! Clients: in a process of their own where they have to be in a cgroup, since a socket belongs to that of its maker.
//!
//! The process is this test binary once more, asked for the one test below. A line of JSON each way.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use kpx::capture::command;
use serde::{Deserialize, Serialize};

use super::probe::{Flows, Heard, Request};

const ASKED: &str = "KPX_TEST_CONFORMANCE_CLIENT";
/// Marks answers among what the test harness prints.
const MARK: &str = "client: ";

/// Someone who can be asked.
pub(super) enum Client {
    /// This process, outside of every cgroup of the test.
    Here(Flows),
    /// A process in a cgroup.
    There(Process),
}

/// A client process; ends with this value.
pub(super) struct Process {
    child: Child,
    stdin: Mutex<ChildStdin>,
    next: AtomicU64,
    waiting: Arc<Mutex<BTreeMap<u64, Sender<Vec<Heard>>>>>,
}

#[derive(Serialize, Deserialize)]
struct Line<T> {
    id: u64,
    body: T,
}

impl Client {
    /// A client in a cgroup.
    pub(super) fn in_cgroup(cgroup: &Path) -> Self {
        let program = std::env::current_exe().expect("the test binary has a path");
        let program = program.to_str().expect("its path is UTF-8").to_owned();
        let asked = format!("{ASKED}=1");
        let words = [&asked, &program, "conformance::client::client", "--exact", "--nocapture", "--test-threads=1"];
        let mut child = command::start("env", words).expect("the test binary runs");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        fs_err::write(cgroup.join("cgroup.procs"), child.id().to_string()).expect("the cgroup takes the client");
        let waiting: Arc<Mutex<BTreeMap<u64, Sender<Vec<Heard>>>>> = Arc::default();
        let answered = waiting.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The harness prints the test's name without ending the line.
                let Some((_, answer)) = line.split_once(MARK) else { continue };
                let answer: Line<Vec<Heard>> = serde_json::from_str(answer).expect("clients speak JSON");
                let waiter = answered.lock().expect("no holder panics").remove(&answer.id);
                let _ = waiter.expect("an answer to a question").send(answer.body);
            }
            // Whoever still waits learns that there is nobody.
            answered.lock().expect("no holder panics").clear();
        });
        Self::There(Process { child, stdin: Mutex::new(stdin), next: AtomicU64::new(0), waiting })
    }

    /// Asks and waits for the answer.
    pub(super) fn ask(&self, request: Request) -> Vec<Heard> {
        match self {
            Self::Here(flows) => std::thread::scope(|scope| scope.spawn(|| flows.answer(request)).join())
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Self::There(process) => process.ask(request),
        }
    }
}

impl Process {
    fn ask(&self, body: Request) -> Vec<Heard> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (send, receive) = channel();
        self.waiting.lock().expect("no holder panics").insert(id, send);
        let line = serde_json::to_string(&Line { id, body }).expect("a request is JSON");
        writeln!(self.stdin.lock().expect("no holder panics"), "{line}").expect("the client listens");
        receive.recv().expect("the client lives")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The client's side; does nothing when run as a test like any other.
#[test]
fn client() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let flows = Flows::default();
    let out = Mutex::new(io::stdout());
    std::thread::scope(|scope| {
        for line in io::stdin().lines() {
            let line: Line<Request> = serde_json::from_str(&line.expect("text")).expect("requests are JSON");
            let (flows, out) = (&flows, &out);
            scope.spawn(move || {
                let body = flows.answer(line.body);
                let text = serde_json::to_string(&Line { id: line.id, body }).expect("an answer is JSON");
                let mut out = out.lock().expect("no holder panics");
                writeln!(out, "{MARK}{text}").and_then(|()| out.flush()).expect("answers are read");
            });
        }
    });
}
