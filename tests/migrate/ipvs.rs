//! A node of ipvs mode, carried over and back: on kernels that have IPVS. The oracles are ipvsadm, ipset, ip and iptables-save.

use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use kpx::capture::command;
use kpx::lab::{Expect, Place, Target, Traffic, TrafficOptions};
use kpx::model::Protocol;

use super::rig::{Rig, Run, assert_gone};
use super::switch::{ACTIVE, clean};
use crate::support::{privileged, recordings};

/// Of somebody else: a virtual service at an address of the node, and one by mark.
const OTHERS: &str = "\
-A -t 192.168.50.11:9 -s wlc -p 60
-a -t 192.168.50.11:9 -r 10.244.1.13:8080 -m -w 7
-A -f 7 -s rr
-a -f 7 -r 10.244.1.13:0 -g -w 1
";

/// What an operator has to say besides.
pub(super) const WISHES: [&str; 4] = ["--accept", "ipvs-policies", "--drain-timeout", "2s"];

/// Brings the recorded node up; `None`, with the reason printed, where the kernel has no IPVS.
pub(super) fn up(name: &str) -> Option<Rig> {
    let (true, Some(recordings)) = (privileged(), recordings()) else { return None };
    if let Err(error) = command::output("ipvsadm", ["-Ln"], None) {
        println!("skipped: no IPVS here ({error})");
        return None;
    }
    let small = recordings.join("small");
    let rig = Rig::up_from(name, &small.join("ipvs/running"), Some(small.join("api")));
    rig.feed("ipvsadm", &["-R"], OTHERS);
    Some(rig)
}

impl Rig {
    fn feed(&self, program: &str, args: &[&str], text: &str) {
        let netns = self.option("--netns");
        let args = [&["netns", "exec", &netns, program], args].concat();
        command::output("ip", args, Some(text.as_bytes())).unwrap_or_else(|e| panic!("{e}"));
    }

    fn carry(&self, more: &[&str]) -> Run {
        self.apply(&[&WISHES[..], more].concat())
    }

    /// Lines of ipvsadm with this.
    fn virtual_services(&self, part: &str) -> usize {
        self.inside("ipvsadm", &["-Sn"]).lines().filter(|line| line.contains(part)).count()
    }

    /// Addresses on kube-ipvs0; `None` where there is no such device.
    fn service_addresses(&self) -> Option<usize> {
        let shown = self.inside("ip", &["-o", "addr"]);
        let there = self.inside("ip", &["-o", "link"]).contains("kube-ipvs0");
        there.then(|| shown.lines().filter(|line| line.contains(" kube-ipvs0 ")).count())
    }

    /// A connection of a pod to a ClusterIP.
    fn connection(&self) -> TcpStream {
        let usable = |t: &&Target| t.expect == Expect::Answer && t.protocol == Protocol::Tcp && t.addr.is_ipv4();
        let target = self.lab.targets(Place::Pod).iter().find(usable).expect("a Service").addr;
        let netns = self.lab.names().client();
        let connect = || {
            kpx::capture::netns::enter(&netns).expect("the pod's namespace");
            TcpStream::connect_timeout(&target, Duration::from_secs(5)).expect("it answers")
        };
        std::thread::scope(|scope| scope.spawn(connect).join().expect("it connects"))
    }

    /// The weights of kube-proxy's servers, by ipvsadm.
    fn own_weights(&self) -> Vec<String> {
        let listed = self.inside("ipvsadm", &["-Sn"]);
        let own = listed
            .lines()
            .filter(|line| line.starts_with("-a ") && !line.contains("192.168.50.11:9 ") && !line.contains("-f "));
        own.filter_map(|line| line.split("-w ").nth(1)).map(|weight| weight.trim().to_owned()).collect()
    }

    /// Nothing of kube-proxy's is left but, maybe, addresses that sockets have; eBPF serves.
    fn is_carried_over(&self) {
        assert_eq!(self.mode(), Some(ACTIVE));
        assert_eq!(self.devices(), 4);
        assert_eq!(self.rules_with("KUBE-SERVICES"), 0);
        let left = self.inside("ipvsadm", &["-Sn"]);
        assert_eq!(left.lines().count(), 4, "what others made stays, and nothing else: {left}");
        assert_eq!(self.inside("ipset", &["list", "-n"]), "");
    }

    /// Goes on until nothing is waited for: what conntrack remembers of datagrams lasts two minutes.
    fn completes(&self) {
        for _ in 0..20 {
            let run = self.carry(&[]).exits(0);
            let status = self.kpx(&["migrate", "status", "-o", "json"]).exits(0).json();
            if status["state"] == "in-force" {
                self.is_carried_over();
                assert_eq!(self.service_addresses(), None, "kube-ipvs0 has gone");
                let tables = self.inside("nft", &["list", "tables"]);
                assert!(!tables.contains("kpx_"), "{tables}");
                return;
            }
            println!("{}", run.stdout);
            sleep(Duration::from_secs(20));
        }
        panic!("it always waits for something");
    }

    fn goes_back(&self, before: &str) {
        let programs = self.program_ids();
        let run = self.kpx(&["migrate", "rollback"]).exits(0);
        println!("{}", run.stderr);
        assert_eq!(self.fingerprint(), before);
        assert_gone(&programs);
    }
}

fn traffic() -> TrafficOptions {
    // Under emulation each packet costs.
    let interval = Duration::from_millis(100);
    TrafficOptions { flows: 60, interval, timed_per_second: 4, connects_per_second: 8, ..TrafficOptions::default() }
}

#[test]
fn a_node_of_ipvs_mode_goes_all_the_way_and_comes_back_at_rest() {
    let Some(rig) = up("ipvs-rest") else { return };
    let before = rig.fingerprint();
    assert!(rig.virtual_services("-A ") > 240 && rig.service_addresses() > Some(80));
    let blocked = rig.apply(&[]).exits(2);
    assert!(blocked.stdout.contains("ipvs-policies"), "{blocked:?}");
    rig.carry(&[]).exits(0);
    rig.completes();
    rig.kpx(&["migrate", "verify", "--probe-timeout", "300ms"]).exits(0);
    rig.goes_back(&before);
}

/// There and back and there, under traffic that notices nothing, of which much is of the node's own sockets.
#[test]
fn a_node_of_ipvs_mode_goes_all_the_way_and_comes_back() {
    let Some(mut rig) = up("ipvs-way") else { return };
    let before = rig.fingerprint();
    let mut traffic = Traffic::start(&mut rig.lab, &traffic()).expect("traffic");
    traffic.phase("apply").expect("a phase");
    let run = rig.carry(&[]).exits(0);
    println!("{}", run.stderr);
    rig.is_carried_over();
    let addresses = rig.service_addresses().expect("sockets have addresses of kube-ipvs0");
    assert!((1..80).contains(&addresses), "{addresses}");
    traffic.phase("ebpf").expect("a phase");
    sleep(Duration::from_secs(2));
    traffic.phase("rollback").expect("a phase");
    rig.goes_back(&before);
    traffic.phase("apply again").expect("a phase");
    rig.carry(&[]).exits(0);
    rig.is_carried_over();
    end(traffic);
    rig.completes();
    rig.goes_back(&before);
}

/// Turned round in front of the removal: IPVS still has its connections, and gets them back.
#[test]
fn a_node_of_ipvs_mode_turns_round_in_front_of_the_removal() {
    let Some(mut rig) = up("ipvs-turn") else { return };
    let before = rig.fingerprint();
    let mut traffic = Traffic::start(&mut rig.lab, &traffic()).expect("traffic");
    traffic.phase("handover").expect("a phase");
    rig.carry(&["--until", "handover"]).exits(0);
    traffic.phase("rollback").expect("a phase");
    rig.goes_back(&before);
    traffic.phase("rules").expect("a phase");
    sleep(Duration::from_secs(2));
    end(traffic);
}

fn end(traffic: Traffic) {
    let report = traffic.stop().expect("a report");
    println!("longest gap {:.1} ms of {} flows", report.longest_gap_ms, report.flows_total);
    clean(&report);
}

/// Puts all packets of a pod in a zone of conntrack, as some network plug-ins do.
const ZONED: &str = "table inet site {
    chain pre {
        type filter hook prerouting priority -300;
        ip saddr 10.244.1.254 ct zone set 9
        ip daddr 10.244.1.254 ct zone set 9
    }
}
";

/// What neither the packet path nor nf_nat can carry is waited for, and cut only if that is accepted.
#[test]
fn connections_that_only_ipvs_can_carry_are_waited_for() {
    let Some(rig) = up("ipvs-drain") else { return };
    rig.feed("nft", &["-f", "-"], ZONED);
    let before = rig.fingerprint();
    let talk = rig.connection();
    let waits = rig.carry(&[]).exits(0);
    assert!(waits.stderr.contains("1 in a conntrack zone"), "{waits:?}");
    assert!(waits.stdout.contains("Virtual services and kube-ipvs0 stay"), "{waits:?}");
    let status = rig.kpx(&["migrate", "status", "-o", "json"]).exits(0).json();
    assert_eq!((&status["state"], &status["before"]), (&"waiting".into(), &"remove".into()), "{status}");
    let weights = rig.own_weights();
    assert!(weights.len() > 200 && weights.iter().all(|weight| weight == "0"), "{weights:?}");
    rig.goes_back(&before);
    rig.carry(&["--until", "handover"]).exits(0);
    // It ends by itself: nothing is waited for any more.
    drop(talk);
    rig.completes();
    rig.goes_back(&before);

    let talk = rig.connection();
    let cut = rig.carry(&["--accept", "cut-connections"]).exits(0);
    assert!(cut.stderr.contains("1 connections through IPVS were cut"), "{cut:?}");
    rig.is_carried_over();
    drop(talk);
    rig.goes_back(&before);
}
