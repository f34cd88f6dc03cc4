//! The whole switch under traffic: from the rules to eBPF for every packet, and back.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use aya::programs::SchedClassifier;
use aya::programs::tc::TcAttachType;
use kpx::lab::{Traffic, TrafficOptions, TrafficReport};

use super::rig::{Rig, Run, assert_gone, tool, world};
use crate::support::{privileged, recordings};

/// `enum mode` of the maps: 2 is active.
pub(super) const ACTIVE: u64 = 2;

/// Flows that are open all the while, and others that come and go.
fn traffic() -> TrafficOptions {
    TrafficOptions { flows: 60, timed_per_second: 8, connects_per_second: 30, ..TrafficOptions::default() }
}

impl Rig {
    pub(super) fn apply(&self, more: &[&str]) -> Run {
        self.apply_with(more, None)
    }

    /// The same, to be killed there.
    pub(super) fn apply_with(&self, more: &[&str], crash: Option<&str>) -> Run {
        let [stop, start] = self.lab.proxy_commands();
        let stopping = ["--stop-command", &stop, "--start-command", &start, "--accept", "no-agent"];
        self.kpx_with(
            &[&["migrate", "apply", "--yes", "--probe-timeout", "300ms"][..], &stopping, more].concat(),
            crash,
        )
    }

    pub(super) fn inside(&self, program: &str, args: &[&str]) -> String {
        tool("ip", &[&["netns", "exec", &self.option("--netns"), program], args].concat())
    }

    /// Rules whose text has this, of either variant and family.
    pub(super) fn rules_with(&self, part: &str) -> usize {
        let saves = ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"];
        saves.iter().map(|save| self.inside(save, &[]).lines().filter(|line| line.contains(part)).count()).sum()
    }

    /// Makes the node drop what it forwards unless a rule accepts it, as docker does, with a rule for pods as network plug-ins
    /// have; where kube-proxy accepts nothing, with one for what is established, too.
    pub(super) fn drop_forwarded(&self, variant: &str, established: bool) {
        for (family, pods) in [("", "10.244.0.0/16"), ("6", "fd00:10:244::/48")] {
            let program = format!("ip{family}tables-{variant}");
            self.inside(&program, &["-w", "-P", "FORWARD", "DROP"]);
            if family == "6" {
                // Where bridges call ip6tables, neighbours are found through FORWARD.
                self.inside(&program, &["-w", "-A", "FORWARD", "-p", "icmpv6", "-j", "ACCEPT"]);
            }
            if established {
                let rule =
                    ["-w", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"];
                self.inside(&program, &rule);
            }
            for side in ["-s", "-d"] {
                self.inside(
                    &program,
                    &["-w", "-A", "FORWARD", side, pods, "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT"],
                );
            }
        }
    }

    /// Makes kube-proxy's tables anew, as if it had started last: of the chains with one priority the youngest judges first, and
    /// what its chains refuse is not to be dropped before.
    fn renew_tables(&self) {
        let one = "t=$(nft list table $f kube-proxy) && nft delete table $f kube-proxy && echo \"$t\" | nft -f -";
        if self.tables() > 0 {
            self.inside("sh", &["-c", &format!("set -e; for f in ip ip6; do {one}; done")]);
        }
    }

    /// kube-proxy's tables of nftables mode.
    fn tables(&self) -> usize {
        self.inside("nft", &["list", "tables"]).lines().filter(|line| line.ends_with(" kube-proxy")).count()
    }

    /// Networks that the programs know, by bpftool.
    fn networks(&self) -> usize {
        let map = format!("{}/maps/kpx_networks", self.option("--bpffs"));
        let dump: serde_json::Value =
            serde_json::from_str(&tool("bpftool", &["-j", "map", "dump", "pinned", &map])).expect("JSON");
        dump.as_array().expect("a list").len()
    }

    /// Devices that have the packet path, as the kernel lists their programs.
    pub(super) fn devices(&self) -> usize {
        let netns = self.option("--netns");
        let count = || {
            kpx::capture::netns::enter(&netns).expect("the lab's namespace");
            let devices = kpx::dataplane::node_devices().expect("devices are listed");
            let has = |name: &str, attach| {
                if let Ok((_, programs)) = SchedClassifier::query_tcx(name, attach) {
                    return programs.iter().any(|program| program.name().starts_with(b"kpx_"));
                }
                // Before Linux 6.6 they are filters.
                let way = if matches!(attach, TcAttachType::Ingress) { "ingress" } else { "egress" };
                tool("tc", &["filter", "show", "dev", name, way]).contains("kpx_")
            };
            let both = |name: &str| has(name, TcAttachType::Ingress) && has(name, TcAttachType::Egress);
            devices.iter().filter(|device| both(&device.name)).count()
        };
        std::thread::scope(|scope| scope.spawn(count).join().expect("it counts"))
    }
}

/// Nothing was lost, and there was something that could have been.
pub(super) fn clean(report: &TrafficReport) {
    assert_eq!((report.flows_lost, report.connects_failed), (0, 0), "{:#?}", report.troubles);
    assert!(report.clean(), "{:#?}", report.troubles);
    assert!(report.flows_total > 80 && report.connects_total > 100, "{report:?}");
}

/// Who drops what nobody accepts in hook forward.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Forward {
    Accepts,
    /// iptables, of this variant.
    Drops(&'static str),
}

/// There and back and there and back, under traffic that notices nothing.
fn there_and_back(name: &str, from: &Path, services: Option<PathBuf>, forward: Forward) {
    if !privileged() {
        return;
    }
    let mut rig = Rig::up_from(name, from, services);
    let of_nftables = rig.tables() > 0;
    if let Forward::Drops(variant) = forward {
        rig.drop_forwarded(variant, of_nftables);
        rig.renew_tables();
    }
    // For each family a rule for flows that were taken over, and one for what kube-proxy's rules accepted.
    let accepts = match (forward, of_nftables) {
        (Forward::Accepts, _) => 0,
        (Forward::Drops(_), false) => 4,
        (Forward::Drops(_), true) => 2,
    };
    let before = rig.fingerprint();
    let mut traffic = Traffic::start(&mut rig.lab, &traffic()).expect("traffic");
    for round in ["first", "second"] {
        traffic.phase(&format!("{round} apply")).expect("a phase");
        rig.apply(&[]).exits(0);
        assert_eq!(rig.mode(), Some(ACTIVE));
        assert_eq!(rig.devices(), 4);
        assert_eq!((rig.rules_with("-j KUBE-SVC-"), rig.tables()), (0, 0));
        let ours = rig.rules_with("-j KPX-FORWARD") + rig.rules_with("kpx: flows");
        assert_eq!(ours, accepts);
        // The pods' networks, which only kube-proxy's configuration tells, and it has gone.
        assert_eq!(rig.networks(), 2);
        traffic.phase(&format!("{round} ebpf")).expect("a phase");
        rig.kpx(&["migrate", "verify", "--probe-timeout", "300ms"]).exits(0);
        sleep(Duration::from_secs(2));
        traffic.phase(&format!("{round} rollback")).expect("a phase");
        let programs = rig.program_ids();
        rig.kpx(&["migrate", "rollback"]).exits(0);
        assert_eq!(rig.fingerprint(), before);
        assert_gone(&programs);
        traffic.phase(&format!("{round} rules")).expect("a phase");
        sleep(Duration::from_secs(1));
    }
    let report = traffic.stop().expect("a report");
    clean(&report);
    println!("{name}: longest gap {:.1} ms", report.longest_gap_ms);
}

#[test]
fn a_node_of_iptables_nft_goes_all_the_way_and_comes_back() {
    there_and_back("sw-nft", &world(), None, Forward::Accepts);
}

#[test]
fn a_node_that_drops_what_it_forwards_goes_all_the_way_and_comes_back() {
    there_and_back("sw-nft-drop", &world(), None, Forward::Drops("nft"));
}

fn recorded(name: &str, node: &str, forward: Forward) {
    let Some(recordings) = recordings() else { return };
    let small = recordings.join("small");
    there_and_back(name, &small.join(node).join("running"), Some(small.join("api")), forward);
}

#[test]
fn a_node_of_iptables_legacy_goes_all_the_way_and_comes_back() {
    recorded("sw-leg", "iptables-legacy", Forward::Accepts);
}

#[test]
fn a_node_of_iptables_legacy_that_drops_goes_all_the_way_and_comes_back() {
    recorded("sw-leg-drop", "iptables-legacy", Forward::Drops("legacy"));
}

#[test]
fn a_node_of_nftables_mode_goes_all_the_way_and_comes_back() {
    recorded("sw-tab", "nftables", Forward::Accepts);
}

/// Two owners judge each packet there, and one drop is enough.
#[test]
fn a_node_of_nftables_mode_whose_iptables_drop_goes_all_the_way_and_comes_back() {
    recorded("sw-tab-drop", "nftables", Forward::Drops("nft"));
}

#[test]
fn a_node_of_nftables_mode_of_an_older_kube_proxy_goes_all_the_way_and_comes_back() {
    recorded("sw-tab-old", "v1.30-nftables", Forward::Drops("legacy"));
}

/// Stopped behind each phase, and rolled back from there.
#[test]
fn a_node_comes_back_from_each_phase() {
    if !privileged() {
        return;
    }
    let mut rig = Rig::up("sw-until");
    let before = rig.fingerprint();
    let traffic = Traffic::start(&mut rig.lab, &traffic()).expect("traffic");
    for phase in ["hold", "stop", "packets", "handover", "remove"] {
        rig.apply(&["--until", phase]).exits(0);
        let status = rig.kpx(&["migrate", "status", "-o", "json"]).exits(0).json();
        assert_eq!((&status["state"], &status["after"]), (&"stopped".into(), &phase.into()), "{status}");
        for step in status["items"].as_array().expect("a list") {
            assert!(step["journal"] != "done" || step["on_node"] == true, "after {phase}: {step}");
        }
        rig.kpx(&["migrate", "rollback"]).exits(0);
        assert_eq!(rig.fingerprint(), before, "after {phase}");
    }
    clean(&traffic.stop().expect("a report"));
}

/// Nobody said how to stop kube-proxy, and one runs: the run ends there, says what to do, and goes on when it is done.
#[test]
fn a_running_kube_proxy_ends_the_run_with_what_to_do() {
    if !privileged() {
        return;
    }
    let rig = Rig::up("sw-proxy");
    let quick = ["migrate", "apply", "--yes", "--probe-timeout", "300ms"];
    let refused = rig.kpx(&quick).exits(3);
    assert!(refused.stderr.contains("no agent of kpx runs on this node"), "{refused:?}");
    assert!(refused.stderr.contains("--accept no-agent"), "{refused:?}");
    let refused = rig.kpx(&[&quick[..], &["--accept", "no-agent"]].concat()).exits(3);
    assert!(refused.stderr.contains("port 10249 answers as kube-proxy in iptables mode"), "{refused:?}");
    assert!(refused.stderr.contains("--stop-command"), "{refused:?}");
    // A command that does nothing is not taken at its word; and this one fails.
    let failed = rig.kpx(&[&quick[..], &["--stop-command", "echo never >&2; exit 3"]].concat()).exits(3);
    assert!(failed.stderr.contains("never"), "{failed:?}");
    let [stop, start] = rig.lab.proxy_commands();
    tool("sh", &["-c", &stop]);
    rig.kpx(&[&quick[..], &["--until", "packets"]].concat()).exits(0);
    assert_eq!(rig.devices(), 4);
    tool("sh", &["-c", &start]);
    rig.kpx(&["migrate", "rollback"]).exits(0);
    assert_eq!(rig.devices(), 0);
}
