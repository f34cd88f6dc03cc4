//! Traffic that is judged by both of its ends: the lab's backends and clients, run as programs.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout};

use kpx::capture::command;
use serde_json::{Value, json};

/// How many kinds of traffic the lab's client has; each has something open at any time.
const CLASSES: usize = 7;

const KPX: &str = env!("CARGO_BIN_EXE_kpx");
/// How much longer than in quiet the longest gap of a flow may be, on a machine that does other things too: it shows a flow that
/// stands still, where the numbers are the benchmarks' business.
const TIMES: f64 = 4.0;
const MARGIN_US: f64 = 1_500_000.0;

struct Program {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Program {
    fn start(args: &[&str], orders: &Value) -> Self {
        let mut child = command::start(KPX, args).expect("kpx runs");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut program = Self { child, stdin, stdout: BufReader::new(stdout) };
        program.say(orders);
        program
    }

    fn say(&mut self, what: &Value) {
        writeln!(self.stdin, "{what}").expect("it listens");
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.stdout.read_line(&mut line).expect("it speaks"), 0, "it ended");
        line
    }

    fn event(&mut self, name: &str) -> Value {
        loop {
            let event: Value = serde_json::from_str(&self.hear()).expect("JSON");
            assert_ne!(event["event"], "failed", "{event}");
            if event["event"] == name {
                return event;
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Backends for TCP and UDP; they end with this value.
pub(crate) struct Backends {
    _program: Program,
}

impl Backends {
    /// Starts them: a namespace's name or path, and where to listen in it.
    pub(crate) fn start(sites: &[(&str, &[&str])]) -> Self {
        let sites: Vec<Value> =
            sites.iter().map(|(netns, at)| json!({ "netns": netns, "tcp": at, "udp": at })).collect();
        let mut program = Program::start(&["lab", "serve"], &json!({ "sites": sites, "pages": null }));
        assert_eq!(program.hear().trim(), "ready");
        Self { _program: program }
    }
}

/// Where a client is, and what it speaks to.
pub(crate) struct Client<'a> {
    /// Name of its namespace; that of this thread without one.
    pub(crate) netns: Option<&'a str>,
    /// The cgroup it joins.
    pub(crate) cgroup: Option<&'a Path>,
    /// Frontends, for TCP and UDP.
    pub(crate) targets: &'a [&'a str],
}

/// Running clients; they end with this value.
pub(crate) struct Traffic {
    clients: Vec<Program>,
}

impl Traffic {
    /// Starts them and waits until their flows are open: streams that the server pushes, UDP flows of both kinds, short ones of
    /// each, short connections.
    pub(crate) fn start(clients: &[Client<'_>]) -> Self {
        let mut started = Vec::new();
        for (n, client) in (1_u64..).zip(clients) {
            let mut args = Vec::new();
            if let Some(netns) = client.netns {
                args.extend(["--netns", netns]);
            }
            args.extend(["lab", "client"]);
            if let Some(cgroup) = client.cgroup {
                args.extend(["--join", cgroup.to_str().expect("UTF-8")]);
            }
            let target = |addr: &&str, protocol: &str| json!({ "service": "test/test:test", "addr": addr, "protocol": protocol, "expect": "answer" });
            let targets: Vec<Value> =
                client.targets.iter().flat_map(|addr| ["TCP", "UDP"].map(|protocol| target(addr, protocol))).collect();
            started.push(Program::start(
                &args,
                &json!({
                    "place": client.netns.unwrap_or("here"), "interval_us": 10_000, "keep_us": 25_000, "long": 18,
                    "timed_per_second": 9, "timed_ms": 1000, "connects_per_second": 40, "rounds_per_second": 0,
                    "session_base": n << 32 | u64::from(std::process::id()) << 40, "targets": targets,
                }),
            ));
        }
        for client in &mut started {
            client.event("ready");
        }
        let mut traffic = Self { clients: started };
        traffic.phase("idle");
        traffic
    }

    /// What happens from now on belongs to this phase.
    pub(crate) fn phase(&mut self, name: &str) {
        for client in &mut self.clients {
            client.say(&json!({ "command": "phase", "name": name }));
        }
    }

    /// Ends it: nothing was lost or refused at either end, and no gap is out of proportion to those of the idle phase.
    #[track_caller]
    pub(crate) fn judge(mut self) {
        for client in &mut self.clients {
            client.say(&json!({ "command": "stop" }));
        }
        for client in &mut self.clients {
            let done = client.event("done");
            assert_eq!(done["troubles"], json!([]), "{done:#}");
            let phases = done["phases"].as_array().expect("phases");
            let idle = phases.iter().find(|phase| phase["phase"] == "idle").expect("there is one");
            for phase in phases {
                for none in ["refused", "failed"] {
                    assert_eq!(phase[none], 0, "{none}: {phase:#}");
                }
                if phase["phase"] != "start" {
                    assert!(phase["connects"].as_u64() > Some(0), "{phase:#}");
                    assert_eq!(phase["classes"].as_object().map(serde_json::Map::len), Some(CLASSES), "{phase:#}");
                }
                for (class, sums) in phase["classes"].as_object().expect("classes") {
                    assert_eq!([&sums["lost"], &sums["records_lost"]], [0, 0], "{class}: {phase:#}");
                    for gap in ["longest_gap_us", "longest_client_gap_us"] {
                        let of = |phase: &Value| phase["classes"][class][gap].as_f64().unwrap_or_default();
                        assert!(
                            of(phase) <= TIMES * of(idle) + MARGIN_US,
                            "{class} {gap}, idle {}: {phase:#}",
                            of(idle)
                        );
                    }
                }
                println!("{}", phase["classes"]);
            }
        }
    }
}
