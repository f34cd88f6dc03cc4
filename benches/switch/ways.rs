//! The ways from the rules to eBPF.

use std::io::{self, BufRead as _, BufReader};

use kpx::capture::{NodeOptions, command, netns};
use kpx::dataplane::{Capacity, Dataplane, Mode, Paths, Served, carries_packets, node_addresses};
use kpx::inspect::kube;
use serde_json::Value;

use super::node::{KPX, Node};

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing is done for as long as the others take.
    Nothing,
    /// `kpx migrate apply`.
    Kpx,
    /// `kpx migrate rollback` behind it.
    KpxBack,
    /// The eBPF dataplane is switched on, kube-proxy stopped, and what `kube-proxy --cleanup` does is done.
    Cleanup,
    /// The same, with `iptables-save | grep -v KUBE | iptables-restore`.
    Pipeline,
}

impl Way {
    /// Those that are compared.
    pub(super) const ALL: [Self; 4] = [Self::Nothing, Self::Kpx, Self::Cleanup, Self::Pipeline];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Kpx => "kpx",
            Self::KpxBack => "kpx-back",
            Self::Cleanup => "cleanup",
            Self::Pipeline => "grep",
        }
    }

    /// Goes it; `phase` is told what kpx is about. What tools complained of.
    pub(super) fn go(self, node: &Node, phase: &mut dyn FnMut(&str)) -> io::Result<Vec<String>> {
        let [stop, start] = node.lab.proxy_commands();
        match self {
            Self::Nothing => {
                std::thread::sleep(std::time::Duration::from_secs(10));
                Ok(Vec::new())
            }
            Self::Kpx => {
                let words =
                    ["apply", "--yes", "--stop-command", &stop, "--start-command", &start, "--accept", "no-agent"];
                kpx(node, &words, phase)
            }
            Self::KpxBack => kpx(node, &["rollback"], phase),
            Self::Cleanup | Self::Pipeline => {
                command::output("sh", ["-c", &stop], None).map_err(io::Error::other)?;
                switch_on(node)?;
                if self == Self::Cleanup { cleanup(node) } else { pipeline(node) }
            }
        }
    }
}

/// Runs `kpx migrate`, and tells of each phase as it begins.
fn kpx(node: &Node, words: &[&str], phase: &mut dyn FnMut(&str)) -> io::Result<Vec<String>> {
    let mut args = node.lab.options();
    args.extend(["-o", "json", "migrate"].map(str::to_owned));
    args.extend(words.iter().map(|word| (*word).to_owned()));
    let mut child = command::start(KPX, args).map_err(io::Error::other)?;
    drop(child.stdin.take());
    let output = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
    let (mut now, mut last) = (String::new(), String::new());
    for line in BufReader::new(output).lines() {
        let event: Value = serde_json::from_str(&line?)?;
        let of = event["phase"].as_str().unwrap_or_default();
        if !of.is_empty() && of != now && event["state"] != "skipped" {
            of.clone_into(&mut now);
            phase(of);
        }
        event["message"].as_str().unwrap_or_default().clone_into(&mut last);
    }
    if child.wait()?.success() {
        Ok(Vec::new())
    } else {
        Err(io::Error::other(format!("kpx migrate {}: {last}", words[0])))
    }
}

/// Loads the eBPF dataplane, fills it and lets it serve, all at once.
fn switch_on(node: &Node) -> io::Result<()> {
    let lab = &node.lab;
    let options = NodeOptions {
        services_from: Some(lab.names().api()),
        node_name: Some(lab.record().node_name.clone()),
        netns: Some(lab.names().node()),
        ..NodeOptions::default()
    };
    let work = || {
        netns::enter(&lab.names().node()).map_err(io::Error::other)?;
        let node = kpx::capture::Node::open(&options).map_err(io::Error::other)?;
        let api = kube::read_node(&node).map_err(io::Error::other)?;
        let served = Served::of(&api.table).table;
        let paths = Paths { pins: lab.names().bpffs(), cgroup: lab.cgroup().to_owned() };
        let on = |error: kpx::dataplane::DataplaneError| io::Error::other(error);
        let mut dataplane = Dataplane::install(&paths, &Capacity::for_table(&served)).map_err(on)?;
        dataplane.set_addresses(&node_addresses(&served, &api.local_addresses)).map_err(on)?;
        dataplane.fill(&served).map_err(on)?;
        dataplane.set_rules_gone(true).map_err(on)?;
        dataplane.attach().map_err(on)?;
        dataplane.attach_devices(carries_packets, |_| false).map_err(on)?;
        dataplane.set_mode(Mode::Active).map_err(on)
    };
    std::thread::scope(|scope| scope.spawn(work).join().expect("it does not panic"))
}

/// What `kube-proxy --cleanup` of 1.34 and later does of iptables: jumps one by one, then the chains of each table at once.
/// Errors are collected, and the rest goes on.
fn cleanup(node: &Node) -> io::Result<Vec<String>> {
    const JUMPS: [&str; 6] = [
        "KUBE-SERVICES",
        "KUBE-EXTERNAL-SERVICES",
        "KUBE-NODEPORTS",
        "KUBE-POSTROUTING",
        "KUBE-FORWARD",
        "KUBE-PROXY-FIREWALL",
    ];
    const NAT: [&str; 5] =
        ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-PROXY-CANARY"];
    const OF_SERVICES: [&str; 5] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-"];
    const FILTER: [&str; 6] = [
        "KUBE-SERVICES",
        "KUBE-EXTERNAL-SERVICES",
        "KUBE-FORWARD",
        "KUBE-NODEPORTS",
        "KUBE-PROXY-FIREWALL",
        "KUBE-PROXY-CANARY",
    ];
    let mut said = Vec::new();
    for tool in ["iptables-nft", "ip6tables-nft"] {
        let text = node.sh(&format!("{tool}-save"), None)?.stdout;
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut table = "";
        let mut chains = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let jump = !rule.starts_with("KUBE-") && JUMPS.iter().any(|j| rule.ends_with(&format!("-j {j}")));
                if jump {
                    complain(&mut said, &node.sh(&format!("{tool} -w -t {table} -D {rule}"), None)?);
                }
            } else if let Some(chain) = line.strip_prefix(':') {
                chains.push((table, chain.split(' ').next().unwrap_or_default()));
            }
        }
        for (table, own) in [("nat", &NAT[..]), ("filter", &FILTER), ("mangle", &["KUBE-PROXY-CANARY"])] {
            let gone = chains.iter().filter(|(of, chain)| {
                *of == table
                    && (own.contains(chain) || (table == "nat" && OF_SERVICES.iter().any(|p| chain.starts_with(p))))
            });
            let gone: Vec<&str> = gone.map(|(_, chain)| *chain).collect();
            let declared: Vec<String> = gone.iter().map(|chain| format!(":{chain} - [0:0]")).collect();
            let deleted: Vec<String> = gone.iter().map(|chain| format!("-X {chain}")).collect();
            let input = [&[format!("*{table}")][..], &declared, &deleted, &["COMMIT\n".to_owned()]].concat().join("\n");
            let line = format!("{tool}-restore -w -T {table} --noflush --counters");
            complain(&mut said, &node.sh(&line, Some(input.as_bytes()))?);
        }
    }
    Ok(said)
}

/// What guides tell to type.
fn pipeline(node: &Node) -> io::Result<Vec<String>> {
    let mut said = Vec::new();
    for tool in ["iptables-nft", "ip6tables-nft"] {
        complain(&mut said, &node.sh(&format!("{tool}-save | grep -v KUBE | {tool}-restore"), None)?);
    }
    Ok(said)
}

fn complain(said: &mut Vec<String>, output: &command::Output) {
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        said.push(stderr.lines().find(|line| !line.starts_with('#')).unwrap_or_default().trim().to_owned());
    }
}
