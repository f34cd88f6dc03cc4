//! A recorded node in a lab, kpx run upon it as a program, and what other tools say about it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use kpx::capture::{Node, NodeOptions, command};
use kpx::lab::{Lab, Spec};
use serde_json::Value;

use crate::cli::schema::{conforms, is_event};

/// The binary under test.
pub(crate) const KPX: &str = env!("CARGO_BIN_EXE_kpx");

/// The recorded world that the repository carries.
pub(crate) fn world() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lab/node")
}

/// A lab that plays the recorded node; gone when dropped.
pub(crate) struct Rig {
    pub(crate) lab: Lab,
    spec: Spec,
}

/// How a run of kpx ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// The JSON document on stdout, which is as its schema says.
    pub(crate) fn json(&self) -> Value {
        let document = serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        conforms(&document);
        document
    }

    /// The events on stdout, a line each, which are as their schema says.
    pub(crate) fn events(&self) -> Vec<Value> {
        let lines =
            self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")));
        lines.inspect(is_event).collect()
    }

    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

impl Rig {
    /// Brings a lab up that no other run of the tests on this machine uses.
    pub(crate) fn up(name: &str) -> Self {
        Self::up_from(name, &world(), None)
    }

    /// The same with another recording, and objects from elsewhere.
    pub(crate) fn up_from(name: &str, from: &Path, services_from: Option<PathBuf>) -> Self {
        Self::up_as(&Self::spec(name, from, services_from))
    }

    /// What such a lab is to be.
    pub(crate) fn spec(name: &str, from: &Path, services_from: Option<PathBuf>) -> Spec {
        let options = NodeOptions { from: Some(from.to_owned()), services_from, ..NodeOptions::default() };
        let node = Node::open(&options).unwrap();
        Spec::read(&node, &format!("{name}-{:x}", std::process::id())).unwrap()
    }

    /// Brings it up.
    pub(crate) fn up_as(spec: &Spec) -> Self {
        Self { lab: Lab::up(spec, Path::new(KPX)).unwrap(), spec: spec.clone() }
    }

    /// The same node after a boot: everything of the kernel's is as it was recorded, the state directory is as it was left, and
    /// the boot id in it is another one's.
    pub(crate) fn boot(self) -> Self {
        let Self { lab, spec } = self;
        let aside = tempfile::tempdir().unwrap();
        let state = lab.names().state_dir();
        let (state, aside) = (state.to_str().unwrap(), aside.path().to_str().unwrap());
        tool("cp", &["-a", state, aside]);
        drop(lab);
        let lab = Lab::up(&spec, Path::new(KPX)).unwrap();
        tool("cp", &["-a", &format!("{aside}/state/."), state]);
        let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let records = tool("find", &[state, "-name", "journal.jsonl", "-o", "-name", "plan.json"]);
        for path in records.lines() {
            let text = fs_err::read_to_string(path).unwrap();
            fs_err::write(path, text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000")).unwrap();
        }
        Self { lab, spec }
    }

    /// Runs kpx on the lab's node.
    pub(crate) fn kpx(&self, args: &[&str]) -> Run {
        self.kpx_with(args, None)
    }

    /// The same, to be killed at a journal write (`before:N` or `after:N`).
    pub(crate) fn kpx_with(&self, args: &[&str], crash: Option<&str>) -> Run {
        let mut kpx = Command::new(KPX);
        kpx.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", "/nonexistent");
        if let Some(crash) = crash {
            kpx.env("KPX_CRASH", crash);
        }
        let output = kpx.args(self.lab.options()).args(args).timeout(Duration::from_mins(2)).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The value of an option of the lab.
    pub(crate) fn option(&self, name: &str) -> String {
        let options = self.lab.options();
        let at = options.iter().position(|o| o == name).unwrap();
        options[at + 1].clone()
    }

    /// Everything of the node that a migration could leave changed, by other tools' words.
    pub(crate) fn fingerprint(&self) -> String {
        let netns = self.option("--netns");
        let mut text = String::new();
        for save in ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"] {
            let rules = tool("ip", &["netns", "exec", &netns, save]);
            text.extend(rules.lines().filter(|l| !l.starts_with('#')).map(without_counters));
        }
        text.push_str(
            &tool("ip", &["netns", "exec", &netns, "sysctl", "-a", "--pattern", "net.(ipv4|netfilter)"])
                .lines()
                .filter(|l| !l.contains("nf_conntrack_count"))
                .collect::<Vec<_>>()
                .join("\n"),
        );
        text.push_str(&ruleset(&tool("ip", &["netns", "exec", &netns, "nft", "list", "ruleset"])));
        text.push_str(&self.ipvs());
        text.push_str(&self.hooks().join("\n"));
        for pin in self.pins() {
            text.push_str(&pin.to_string_lossy());
        }
        text.push_str(&tool("find", &[&self.option("--cgroup"), "-type", "d"]));
        text
    }

    /// What ipvs mode has besides rules: virtual services, sets and the device; empty where the kernel has no IPVS.
    fn ipvs(&self) -> String {
        if !Path::new("/proc/net/ip_vs").exists() {
            return String::new();
        }
        let netns = self.option("--netns");
        let sorted = |args: &[&str]| {
            let text = tool("ip", &[&["netns", "exec", &netns], args].concat());
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            lines.join("\n")
        };
        // A device that is made anew has another number, and addresses that stayed come before those that came back.
        let addresses = tool("ip", &["netns", "exec", &netns, "ip", "-o", "addr"]);
        let lines = addresses.lines().filter_map(|line| line.split_once(": "));
        let own: BTreeSet<&str> = lines.map(|(_, rest)| rest).filter(|rest| rest.starts_with("kube-ipvs0")).collect();
        let addresses: Vec<&str> = own.into_iter().collect();
        [sorted(&["ipvsadm", "-Sn"]), sorted(&["ipset", "save"]), addresses.join("\n")].join("\n")
    }

    /// The programs attached to the lab's cgroup and below, as bpftool lists them.
    pub(crate) fn hooks(&self) -> Vec<String> {
        let tree = tool("bpftool", &["-j", "cgroup", "tree", &self.option("--cgroup")]);
        let tree: Value = serde_json::from_str(&tree).unwrap();
        let mut hooks = Vec::new();
        for cgroup in tree.as_array().unwrap() {
            for program in cgroup["programs"].as_array().unwrap() {
                hooks.push(format!("{} {} {}", cgroup["cgroup"], program["attach_type"], program["name"]));
            }
        }
        hooks.sort();
        hooks
    }

    /// Everything below the pins' directory.
    pub(crate) fn pins(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut todo = vec![PathBuf::from(self.option("--bpffs"))];
        while let Some(dir) = todo.pop() {
            let Ok(entries) = fs_err::read_dir(&dir) else { continue };
            found.insert(dir);
            for entry in entries {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    todo.push(path);
                } else {
                    found.insert(path);
                }
            }
        }
        found
    }

    /// Ids of the pinned programs, by bpftool.
    pub(crate) fn program_ids(&self) -> Vec<u64> {
        let pins = self.pins();
        let programs = pins.iter().filter(|p| p.parent().is_some_and(|d| d.ends_with("programs")));
        programs
            .map(|pin| {
                let shown = tool("bpftool", &["-j", "prog", "show", "pinned", &pin.to_string_lossy()]);
                serde_json::from_str::<Value>(&shown).unwrap()["id"].as_u64().unwrap()
            })
            .collect()
    }

    /// The mode in the pinned configuration map, by bpftool; `None` where nothing is pinned.
    pub(crate) fn mode(&self) -> Option<u64> {
        let map = PathBuf::from(self.option("--bpffs")).join("maps/kpx_config");
        if !map.exists() {
            return None;
        }
        let dump = tool("bpftool", &["-j", "map", "dump", "pinned", &map.to_string_lossy()]);
        let dump: Value = serde_json::from_str(&dump).unwrap();
        dump[0]["formatted"]["value"]["mode"].as_u64()
    }
}

/// Waits until none of these programs exists any more: the kernel frees them some time after their last user went.
pub(crate) fn assert_gone(ids: &[u64]) {
    let begun = Instant::now();
    for id in ids {
        while command::run("bpftool", ["prog", "show", "id", &id.to_string()], None).unwrap().status.success() {
            assert!(begun.elapsed() < Duration::from_secs(20), "program {id} is still there");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Standard output of a tool that must succeed.
pub(crate) fn tool(program: &str, args: &[&str]) -> String {
    let output = command::output(program, args, None).unwrap_or_else(|e| panic!("{e}"));
    String::from_utf8(output).unwrap()
}

/// A listing of nft without the tables of iptables, which iptables-save shows, and without what packets change: counters, and
/// which clients are remembered for how long. Its tables in order.
fn ruleset(listing: &str) -> String {
    let of_iptables = |table: &&str| {
        ["nat", "filter", "mangle", "raw"].iter().any(|name| {
            table.starts_with(&format!("table ip {name} {{")) || table.starts_with(&format!("table ip6 {name} {{"))
        })
    };
    let mut tables: Vec<String> = listing.split("\n}\n").filter(|table| !of_iptables(table)).map(unaged).collect();
    tables.sort();
    tables.join("\n")
}

fn unaged(table: &str) -> String {
    let mut text = String::new();
    let mut affinity = false;
    for line in table.lines() {
        if line.starts_with("\tset ") {
            affinity = line.starts_with("\tset affinity-");
        }
        // A set of clients has nothing but its kind and them.
        if !affinity || line.contains("type ") || line.contains("set ") {
            text.push_str(&without_counter(line));
            text.push('\n');
        }
    }
    text
}

/// A rule of nft without `packets N bytes N`.
fn without_counter(line: &str) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    while let Some(at) = words.iter().position(|word| *word == "packets") {
        words.drain(at..(at + 4).min(words.len()));
    }
    words.join(" ")
}

/// A line of iptables-save without `[packets:bytes]`.
fn without_counters(line: &str) -> String {
    let line = line.split(" [").next().unwrap_or(line);
    format!("{line}\n")
}
