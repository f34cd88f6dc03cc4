//! A lab's node with a process that plays kube-proxy: called so, in a cgroup like a real one's, on its ports, with recorded answers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use kpx::capture::command;
use kpx::lab::Spec;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::rig::{KPX, Rig, Run, tool, world};
use crate::agent::api::Api;
use crate::agent::rig::ask;

/// Answers from files, and like kube-proxy tries again and again to listen where somebody else does. What it does first, if
/// anything, a script says: a real one writes its rules then.
const PROXY: &str = r#"
use strict; use IO::Socket::INET; use IO::Select;
my ($pages) = @ARGV;
$SIG{TERM} = sub { exit 0 };
system("sh", "$pages/first") if -e "$pages/first";
my %at;
while (1) {
    for my $port (10249, 10256) {
        $at{$port} //= IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $port, Listen => 64, ReuseAddr => 1);
    }
    my @open = grep { defined } values %at;
    if (!@open) { select(undef, undef, undef, 0.1); next; }
    for my $listener (IO::Select->new(@open)->can_read(0.1)) {
        my $client = $listener->accept or next;
        my $asked = "";
        while ($asked !~ /\r\n\r\n/) { last unless sysread($client, $asked, 4096, length $asked); }
        my ($path) = $asked =~ m{^GET (/\w+)} or next;
        if (open my $file, "<", "$pages$path") {
            local $/; my $body = <$file>;
            $body = "HTTP/1.1 200 OK\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body" if $body !~ m{^HTTP/};
            syswrite($client, $body);
        } else {
            syswrite($client, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    }
}
"#;

/// A kubelet as far as it matters here: what runs is what its folder says.
const KUBELET: &str = r#"
use strict;
my ($folder) = $ARGV[0] =~ /^--pod-manifest-path=(.*)/;
my $run = $ARGV[1];
my $child;
$SIG{TERM} = sub { kill "TERM", $child if $child; exit 0 };
while (1) {
    my $wanted = -e "$folder/kube-proxy.yaml";
    if ($wanted && !$child) { $child = fork(); if (!$child) { exec("sh", $run) } }
    if (!$wanted && $child) { kill "TERM", $child; waitpid($child, 0); undef $child; }
    select(undef, undef, undef, 0.05);
}
"#;

/// Keeps in files what systemd would know, and writes down what it was asked for.
const SYSTEMCTL: &str = r#"#!/bin/sh
here=$(dirname "$0")
verb=$1
for unit; do :; done
echo "$verb $unit" >>"$here/asked"
pid=$(cat "$here/pid" 2>/dev/null || echo 0)
if [ "$pid" = 0 ] || ! grep -q '^State:.[^ZX]' "/proc/$pid/status" 2>/dev/null; then pid=0; active=inactive; else active=active; fi
state=$(cat "$here/state")
case $verb in
show) printf 'LoadState=loaded\nActiveState=%s\nUnitFileState=%s\nFragmentPath=%s\nMainPID=%s\n' \
    "$active" "$state" "$(cat "$here/fragment")" "$pid" ;;
mask) if [ "$state" != masked ]; then echo "$state" >"$here/before"; echo masked >"$here/state"; fi ;;
unmask) if [ "$state" = masked ]; then mv "$here/before" "$here/state"; fi ;;
disable) echo disabled >"$here/state" ;;
enable) echo enabled >"$here/state" ;;
stop) if [ "$pid" != 0 ]; then kill "$pid"; fi ;;
start)
    if [ "$state" = masked ]; then echo "Unit $unit is masked." >&2; exit 1; fi
    if [ "$pid" = 0 ]; then setsid sh "$here/run" >/dev/null 2>&1 </dev/null & echo $! >"$here/pid"; fi ;;
*) exit 1 ;;
esac
if [ "$verb" = "$(cat "$here/kill-after" 2>/dev/null)" ]; then rm "$here/kill-after"; kill -9 $PPID; fi
"#;

/// A node with its kube-proxy.
pub(crate) struct Stage {
    pub(crate) rig: Rig,
    pub(crate) folder: tempfile::TempDir,
    /// The lab's options, or others for the same node.
    pub(crate) options: Vec<String>,
}

impl Stage {
    /// Brings the node up; no kube-proxy runs yet.
    pub(crate) fn up(name: &str) -> Self {
        Self::up_as(Rig::spec(name, &world(), None))
    }

    pub(crate) fn up_as(spec: Spec) -> Self {
        let rig = Rig::up_as(&spec.without_kube_proxy());
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, script) in [("kube-proxy", PROXY), ("kubelet", KUBELET)] {
            fs_err::copy("/usr/bin/perl", at(name)).unwrap();
            fs_err::write(at(&format!("{name}.pl")), script).unwrap();
        }
        // What a real one listens as, for those whose kube-proxy is a part of something else.
        fs_err::copy("/usr/bin/perl", at("k3s-server")).unwrap();
        fs_err::create_dir(at("pages")).unwrap();
        for (page, file) in [("configz", "configz.json"), ("healthz", "healthz.txt"), ("proxyMode", "proxyMode.txt")] {
            fs_err::copy(world().join(file), at("pages").join(page)).unwrap();
        }
        let options = rig.lab.options();
        Self { rig, folder, options }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An API server in the node's network namespace, and kpx told of it beside, or instead of, its files.
    pub(crate) fn api(&mut self, instead: bool) -> Api {
        let api = self.inside(Api::start);
        fs_err::write(self.at("kubeconfig"), api.kubeconfig()).unwrap();
        let files = PathBuf::from(self.rig.option("--services-from"));
        if instead {
            let at = self.options.iter().position(|option| option == "--services-from").unwrap();
            self.options.drain(at..at + 2);
        }
        self.options.extend(["--kubeconfig".to_owned(), self.at("kubeconfig").display().to_string()]);
        for (file, kind) in [("services", "Service"), ("endpointslices", "EndpointSlice"), ("nodes", "Node")] {
            let text = fs_err::read(files.join(format!("{file}.json"))).unwrap();
            let mut list: Value = serde_json::from_slice(&text).unwrap();
            for object in list["items"].as_array_mut().unwrap() {
                object["kind"] = kind.into();
                api.put(object.take());
            }
        }
        api
    }

    /// Kills kpx where it stands; nothing where none runs.
    pub(crate) fn kill_kpx(netns: &str) {
        let pids = tool("ip", &["netns", "pids", netns]);
        for pid in pids.lines().filter_map(|line| line.trim().parse::<u32>().ok()) {
            let line = fs_err::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if line.split(|b| *b == 0).any(|word| word == b"migrate") {
                let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
            }
        }
    }

    /// Makes a cgroup below the node's, and a script that becomes a kube-proxy in it.
    pub(crate) fn script(&self, cgroup: &str) -> PathBuf {
        let cgroup = Path::new(&self.rig.option("--cgroup")).join(cgroup);
        fs_err::create_dir_all(&cgroup).unwrap();
        let here = self.folder.path().display();
        let text = format!(
            "echo $$ >{}/cgroup.procs\ncd {here}/pages\n\
             exec env -i 'SAID=so and so' {here}/kube-proxy {here}/kube-proxy.pl {here}/pages '--a=b c'\n",
            cgroup.display()
        );
        fs_err::write(self.at("run"), text).unwrap();
        self.at("run")
    }

    /// Starts a program on the node, apart from this process.
    pub(crate) fn start(&self, program: &Path, args: &[&str]) {
        let words: Vec<OsString> = std::iter::once(program.into()).chain(args.iter().map(Into::into)).collect();
        let path = OsString::from("PATH=/usr/sbin:/usr/bin:/sbin:/bin");
        let log = self.at("log");
        self.inside(|| command::start_apart(program, &words, &[path], Path::new("/"), &log).unwrap());
    }

    /// Does something in the node's network namespace.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let netns = self.rig.option("--netns");
        let inside = || {
            kpx::capture::netns::enter(&netns).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    /// Starts a kube-proxy in a cgroup, and waits until it answers.
    pub(crate) fn start_proxy(&self, cgroup: &str) -> u32 {
        let script = self.script(cgroup);
        self.start(Path::new("/bin/sh"), &[script.to_str().unwrap()]);
        self.until("kube-proxy runs", || self.proxies().len() == 1 && self.answers("/proxyMode") == "iptables");
        self.proxies()[0]
    }

    /// Processes of the node that are called kube-proxy, by the kernel's list.
    pub(crate) fn proxies(&self) -> Vec<u32> {
        self.processes(|name| name == "kube-proxy")
    }

    fn processes(&self, wanted: impl Fn(&str) -> bool) -> Vec<u32> {
        let pids = tool("ip", &["netns", "pids", &self.rig.option("--netns")]);
        let pids = pids.lines().filter_map(|line| line.trim().parse().ok());
        let name = |pid: &u32| fs_err::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        pids.filter(|pid| wanted(name(pid).trim())).collect()
    }

    /// What whoever has kube-proxy's ports answers; empty: nobody does.
    pub(crate) fn answers(&self, path: &str) -> String {
        let at = if path == "/healthz" { "127.0.0.1:10256" } else { "127.0.0.1:10249" };
        self.inside(|| ask(at, path).map(|(_, _, body)| body.trim().to_owned()).unwrap_or_default())
    }

    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            let log = fs_err::read_to_string(self.at("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(40), "{what}: not in time; {log}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Puts a systemctl in front of the machine's own.
    pub(crate) fn systemd(&self, state: &str, fragment: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        for (name, text) in [("systemctl", SYSTEMCTL), ("state", state), ("fragment", fragment), ("asked", "")] {
            fs_err::write(self.at(name), text).unwrap();
        }
        fs_err::set_permissions(self.at("systemctl"), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn kpx(&self, args: &[&str]) -> Run {
        self.kpx_with(args, None)
    }

    /// Runs kpx on the node, to be killed at a journal write or at a change.
    pub(crate) fn kpx_with(&self, args: &[&str], crash: Option<&str>) -> Run {
        let mut kpx = Command::new(KPX);
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap_or_default());
        kpx.env_clear().env("PATH", path).env("HOME", "/nonexistent");
        if let Some(crash) = crash {
            kpx.env("KPX_CRASH", crash);
        }
        let output = kpx.args(&self.options).args(args).timeout(Duration::from_mins(5)).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The kubelet first: it would start another one.
        for wanted in ["kubelet", "kube-proxy", "k3s-server"] {
            for pid in self.processes(|name| name == wanted) {
                let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
            }
        }
        std::thread::sleep(Duration::from_millis(100));
        let below = tool("find", &[&self.rig.option("--cgroup"), "-mindepth", "1", "-depth", "-type", "d"]);
        for cgroup in below.lines().filter(|line| !line.ends_with("/clients")) {
            let _ = fs_err::remove_dir(cgroup);
        }
    }
}
