//! The agent, run as a program on ground of its own, and what is asked of it from outside.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use kpx::capture::command;
use kpx::dataplane::Paths;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::api::{Api, node};
use crate::dataplane::ground::Ground;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// An API server and the place for an agent.
pub(crate) struct Rig<'a> {
    paths: &'a Paths,
    pub(crate) api: Api,
    folder: tempfile::TempDir,
    node: &'static str,
    flags: &'static str,
    interval: &'static str,
}

/// A running agent; killed with this value.
pub(crate) struct Running {
    child: Child,
}

impl<'a> Rig<'a> {
    /// An API server that knows the node and nothing else.
    pub(crate) fn new(ground: &'a Ground) -> Self {
        ground.route_frontends();
        Self::at(&ground.paths)
    }

    /// The same in the network namespace of this thread as it is.
    pub(crate) fn at(paths: &'a Paths) -> Self {
        let api = Api::start();
        api.put(node());
        Self::of(paths, api, "node-a")
    }

    /// The place for the agent of another node, in the network namespace of this thread, with the same API server.
    pub(crate) fn of_other(&self, paths: &'a Paths, node: &'static str) -> Self {
        Self::of(paths, self.api.here(), node)
    }

    fn of(paths: &'a Paths, api: Api, node: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs_err::write(folder.path().join("kubeconfig"), api.kubeconfig()).expect("written");
        Self { paths, api, folder, node, flags: "", interval: "500ms" }
    }

    /// The same with more words on the agent's command line.
    pub(crate) fn with(self, flags: &'static str) -> Self {
        Self { flags, ..self }
    }

    /// The same with an agent that looks after the node by itself only so often.
    pub(crate) fn looking_every(self, interval: &'static str) -> Self {
        Self { interval, ..self }
    }

    /// Where the agent's locks, journals and the socket of `--notify` are.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the agent.
    pub(crate) fn start(&self) -> Running {
        self.start_binary(Path::new(env!("CARGO_BIN_EXE_kpx")))
    }

    /// Lets an agent serve and go: what it attached and wrote stays.
    #[track_caller]
    pub(crate) fn start_and_kill(&self) {
        let agent = self.start();
        self.until_healthy();
        agent.kill();
    }

    /// Starts the agent of this binary.
    pub(crate) fn start_binary(&self, binary: &Path) -> Running {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let (kubeconfig, state, log, notify) = (at("kubeconfig"), at("state"), at("log"), at("notify"));
        let (bpffs, cgroup) = (self.paths.pins.display(), self.paths.cgroup.display());
        let line = format!(
            "NOTIFY_SOCKET={notify} exec {} -v --bpffs {bpffs} --cgroup {cgroup} --state-dir {state} --node-name {} \
             --kubeconfig {kubeconfig} agent --interval {} {} 2>>{log}",
            binary.display(),
            self.node,
            self.interval,
            self.flags,
        );
        Running { child: command::start("sh", ["-c", &line]).expect("the agent starts") }
    }

    /// Starts it as in a container: a root that is read-only, as /proc/sys is, with the folder of this rig, BPF and cgroup file
    /// systems and the network's sysctls mounted into it, and no capability but these.
    pub(crate) fn start_confined(self, capabilities: &[String]) -> (Self, Running) {
        let folder = self.folder.path().display().to_string();
        let named: Vec<_> = capabilities.iter().map(|name| format!("+{}", name.to_lowercase())).collect();
        let script = format!(
            "set -e; mkdir -p {folder}/sys/net
             mount --make-rprivate /; mount --bind {folder} {folder}; mount --bind /proc/sys/net {folder}/sys/net
             mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys; mount -o remount,bind,ro /
             exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,{} {} \"$@\"",
            named.join(","),
            env!("CARGO_BIN_EXE_kpx"),
        );
        let path = folder.clone() + "/confined";
        fs_err::write(&path, format!("#!/bin/sh\nexec unshare --mount sh -c '{script}' sh \"$@\"\n")).expect("written");
        fs_err::set_permissions(&path, Permissions::from_mode(0o755)).expect("it is ours");
        let rig = self.with(Box::leak(format!("--proc-sys {folder}/sys").into_boxed_str()));
        let agent = rig.start_binary(Path::new(&path));
        (rig, agent)
    }

    /// What the agents have logged so far.
    pub(crate) fn log(&self) -> String {
        fs_err::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until something holds.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}; the agent's log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the agent calls the node healthy.
    #[track_caller]
    pub(crate) fn until_healthy(&self) {
        self.until("healthy", || health("/healthz").is_some_and(|(status, _)| status == 200));
    }

    /// The backends in the maps that serve, by bpftool: address and port, sorted.
    pub(crate) fn backends(&self) -> Vec<SocketAddr> {
        let dump = self.dump("kpx_backends");
        let number = |value: &Value| value.as_u64().expect("a number") as u8;
        let backends = dump.iter().map(|entry| &entry["formatted"]["value"]).filter(|value| value["state"] == 1);
        let mut found: Vec<SocketAddr> = backends
            .map(|value| {
                let addr: Vec<u8> = value["addr"].as_array().expect("bytes").iter().map(number).collect();
                let addr: [u8; 16] = addr.try_into().expect("sixteen bytes");
                let port = u16::from_be(value["port"].as_u64().expect("a port") as u16);
                SocketAddr::new(std::net::Ipv6Addr::from(addr).to_canonical(), port)
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// What bpftool dumps of a map; nothing where there is none.
    pub(crate) fn dump(&self, map: &str) -> Vec<Value> {
        let pin = self.paths.pins.join("maps").join(map);
        let Ok(output) = command::output("bpftool", ["-j", "map", "dump", "pinned", &pin.to_string_lossy()], None)
        else {
            return Vec::new();
        };
        let list: Value = serde_json::from_slice(&output).expect("bpftool speaks JSON");
        list.as_array().cloned().unwrap_or_default()
    }
}

impl Running {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as the kernel does when memory runs out.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Asks it to end; the exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it can be signalled");
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `/metrics` says.
pub(crate) fn metrics() -> String {
    ask("127.0.0.1:10249", "/metrics").map(|answer| answer.2).unwrap_or_default()
}

/// Asks this node; status, headers and body.
pub(crate) fn ask(at: &str, path: &str) -> Option<(u16, String, String)> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, head.to_lowercase(), body.to_owned()))
}

/// Asks the health server; status and JSON.
pub(crate) fn health(path: &str) -> Option<(u16, Value)> {
    let (status, _, body) = ask("127.0.0.1:10256", path)?;
    Some((status, serde_json::from_str(&body).ok()?))
}
