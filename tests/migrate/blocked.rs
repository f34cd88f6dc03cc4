//! Situations in which a plan must be blocked, made on a node or recorded from one.

use std::path::Path;

use serde_json::Value;

use super::rig::{KPX, Rig, tool};
use crate::cli::schema::conforms;
use crate::support::{privileged, recordings};

/// Ids of the blockers of a plan.
fn ids(plan: &Value) -> Vec<&str> {
    plan["blockers"].as_array().expect("a list").iter().filter_map(|b| b["id"].as_str()).collect()
}

/// The one blocker, with everything it says.
fn only(plan: &Value, id: &str) -> String {
    assert_eq!(ids(plan), [id], "{}", plan["blockers"]);
    plan["blockers"][0].to_string()
}

impl Rig {
    fn iptables(&self, args: &[&str]) {
        let netns = self.option("--netns");
        tool("ip", &[&["netns", "exec", &netns, "iptables-nft", "-t", "nat"][..], args].concat());
    }

    fn plan(&self, code: i32) -> Value {
        self.kpx(&["migrate", "plan", "-o", "json"]).exits(code).json()
    }

    /// The first rule of the nat table that begins so and holds this, in words.
    fn nat_rule(&self, start: &str, part: &str) -> Vec<String> {
        let netns = self.option("--netns");
        let saved = tool("ip", &["netns", "exec", &netns, "iptables-nft", "-t", "nat", "-S"]);
        let rule = saved.lines().find(|l| l.starts_with(start) && l.contains(part)).expect("such a rule").to_owned();
        // Comments are the only quoted words.
        let mut words = Vec::new();
        for (i, piece) in rule.split('"').enumerate() {
            if i % 2 == 1 {
                words.push(piece.to_owned());
            } else {
                words.extend(piece.split_whitespace().map(str::to_owned));
            }
        }
        words
    }
}

#[test]
fn what_is_wrong_with_a_live_node_blocks_its_plan() {
    if !privileged() {
        return;
    }
    let rig = Rig::up("mig-block");
    rig.plan(0);

    // A rule that no kube-proxy writes.
    let jump = rig.nat_rule("-A KUBE-SERVICES", "shop/frontend");
    let chain = jump.last().expect("a target").clone();
    let foreign = [chain.as_str(), "-s", "192.0.2.7", "-j", "RETURN"];
    rig.iptables(&[&["-I"][..], &foreign].concat());
    let blocker = only(&rig.plan(2), "unknown-rules");
    assert!(blocker.contains("192.0.2.7"), "{blocker}");
    let refused = rig.kpx(&["migrate", "apply", "--yes"]).exits(2);
    assert!(refused.stdout.contains("unknown-rules"), "{refused:?}");
    assert!(rig.pins().is_empty(), "nothing was loaded");
    rig.iptables(&[&["-D"][..], &foreign].concat());

    // A Service that the rules lack.
    let words: Vec<&str> = jump.iter().map(String::as_str).collect();
    rig.iptables(&[&["-D"][..], &words[1..]].concat());
    let blocker = only(&rig.plan(2), "tables-differ");
    assert!(blocker.contains("in the API, not in the rules") && blocker.contains("shop/frontend"), "{blocker}");
    rig.iptables(&[&["-I"][..], &words[1..]].concat());
    rig.plan(0);

    // Places that will not do.
    let plain = tempfile::tempdir().expect("a directory");
    let plain = plain.path().to_str().expect("plain");
    for (option, id) in [("--bpffs", "bpffs"), ("--cgroup", "cgroup")] {
        let mut options = rig.lab.options();
        let at = options.iter().position(|o| o == option).expect("the lab gives it");
        plain.clone_into(&mut options[at + 1]);
        let args = options.iter().map(String::as_str).chain(["migrate", "plan", "-o", "json"]);
        let run = kpx::capture::command::run(KPX, args, None).expect("kpx runs");
        let plan: Value = serde_json::from_slice(&run.stdout).expect("JSON");
        assert!(only(&plan, id).contains(plain), "{plan}");
    }
}

#[test]
fn another_owners_program_that_runs_first_blocks_the_plan() {
    if !privileged() {
        return;
    }
    let (rig, owner) = (Rig::up("mig-for-1"), Rig::up("mig-for-2"));
    // Programs that are loaded and attached nowhere: for the other node they are somebody else's.
    owner.kpx(&["migrate", "apply", "--yes", "--until", "load"]).exits(0);
    let program = format!("{}/programs/kpx_connect4", owner.option("--bpffs"));
    let cgroup = rig.option("--cgroup");
    let attach = ["cgroup", "attach", &cgroup, "cgroup_inet4_connect", "pinned", &program, "multi"];
    tool("bpftool", &attach);
    let blocker = only(&rig.plan(2), "foreign-hook");
    assert!(blocker.contains("connect4") && blocker.contains(&cgroup), "{blocker}");
    tool("bpftool", &["cgroup", "detach", &cgroup, "cgroup_inet4_connect", "pinned", &program]);
    rig.plan(0);
    owner.kpx(&["migrate", "rollback"]).exits(0);
}

#[test]
fn a_process_without_the_capabilities_gets_a_blocked_plan() {
    if !privileged() {
        return;
    }
    let rig = Rig::up("mig-caps");
    let options = rig.lab.options();
    let at = options.iter().position(|o| o == "--netns").expect("the lab names its namespace");
    let (netns, mut rest) = (options[at + 1].clone(), options.clone());
    rest.drain(at..at + 2);
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    // Not `ip netns exec`, which hides the mounts below /sys.
    let namespace = format!("--net=/run/netns/{netns}");
    let enter = [namespace.as_str(), "setpriv", "--bounding-set", "-sys_admin,-bpf", KPX];
    let command = ["migrate", "plan", "-o", "json"];
    let run =
        kpx::capture::command::run("nsenter", [&enter[..], &rest, &command].concat(), None).expect("setpriv runs");
    let plan: Value = serde_json::from_slice(&run.stdout).expect("JSON");
    assert!(only(&plan, "capabilities").contains("CAP_BPF"));
    assert_eq!(run.status.code(), Some(2));
}

/// A plan made of a recording.
fn recorded(from: &Path, services: &Path) -> (Option<i32>, Value) {
    recorded_with(from, services, &[])
}

fn recorded_with(from: &Path, services: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let paths = [from, services].map(|p| p.to_str().expect("plain"));
    let args = [&["--from", paths[0], "--services-from", paths[1], "migrate", "plan", "-o", "json"], more].concat();
    let run = kpx::capture::command::run(KPX, args, None).expect("kpx runs");
    let plan =
        serde_json::from_slice(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&run.stderr)));
    conforms(&plan);
    (run.status.code(), plan)
}

#[test]
fn recorded_nodes_of_every_version_get_a_plan() {
    let Some(recordings) = recordings() else { return };
    let small = recordings.join("small");
    for world in [
        "iptables-nft",
        "iptables-legacy",
        "nftables",
        "v1.30-iptables-nft",
        "v1.30-nftables",
        "v1.25-iptables-legacy",
        "v1.23-iptables-nft",
    ] {
        let (code, plan) = recorded(&small.join(world).join("running"), &small.join("api"));
        assert_eq!((code, ids(&plan)), (Some(0), vec![]), "{world}");
        let fates = plan["items"].as_array().expect("a list");
        assert!(plan["counts"]["to_ebpf"].as_u64() > Some(90), "{world}");
        assert!(
            fates.iter().all(|f| f["reason"].is_null() == (f["served_by"]["sockets"] == "ebpf")
                && f["served_by"]["shadow"] == "rules"),
            "{world}"
        );
        let left = |f: &Value| f["served_by"]["sockets"] == "rules";
        assert!(fates.iter().all(|f| f["protocol"] != "SCTP" || left(f)), "{world}");
        assert!(fates.iter().any(|f| f["kind"] == "NodePort" && !left(f)), "{world}");
    }
}

/// What differs in ipvs mode from what the API asks for is named, and nothing else stands in the way.
#[test]
fn recorded_nodes_of_ipvs_mode_get_a_plan() {
    let Some(recordings) = recordings() else { return };
    let small = recordings.join("small");
    for world in ["ipvs", "ipvs-strict-arp", "ipvs-kernel-6.12"] {
        let (code, plan) = recorded(&small.join(world).join("running"), &small.join("api"));
        assert_eq!((code, ids(&plan)), (Some(2), vec!["ipvs-policies"]), "{world}");
        let details = plan["blockers"][0]["details"].to_string();
        assert!(details.contains("edge/np-local-none-here") && details.contains("eBPF drop"), "{details}");
        let (code, plan) =
            recorded_with(&small.join(world).join("running"), &small.join("api"), &["--accept", "ipvs-policies"]);
        assert_eq!((code, ids(&plan)), (Some(0), vec![]), "{world}");
        assert_eq!(
            (&plan["source"]["mode"], &plan["source"]["dataplane"]),
            (&"ipvs".into(), &"kube-proxy ipvs".into())
        );
        // 248 virtual services by ipvsadm, and the rules of kube-proxy's chains by iptables-save.
        let saved =
            |file: &str| fs_err::read_to_string(small.join(world).join("running").join(file)).expect("recorded");
        let services = saved("ipvsadm-Sn.txt").lines().filter(|line| line.starts_with("-A ")).count();
        let of_chains = |text: String| {
            let own = |line: &&str| line.contains("-A KUBE-") && !line.contains("-A KUBE-FIREWALL");
            text.lines().filter(own).count()
        };
        let rules = of_chains(saved("iptables-save.txt")) + of_chains(saved("ip6tables-save.txt"));
        assert_eq!(plan["counts"]["rules_to_delete"].as_u64(), Some((services + rules) as u64), "{world}");
    }
}

#[test]
fn recorded_nodes_in_another_state_are_blocked_with_the_reason() {
    let Some(recordings) = recordings() else { return };
    let (small, stale) = (recordings.join("small"), recordings.join("stale"));
    let api = small.join("api");
    // Names of Services that the API has and IPVS does not.
    let (code, plan) = recorded(&small.join("ipvs/running"), &stale.join("conflicting-addresses/api"));
    assert_eq!(code, Some(2));
    assert!(ids(&plan).contains(&"tables-differ"), "{:?}", ids(&plan));
    let (code, plan) = recorded(&stale.join("legacy-then-nft"), &api);
    assert_eq!(code, Some(2));
    assert!(ids(&plan).contains(&"other-variant"), "{:?}", ids(&plan));
    assert!(plan["blockers"].to_string().contains("iptables-legacy-save"));
    let (code, plan) = recorded(&stale.join("switch-legacy-to-nftables"), &api);
    assert_eq!((code, ids(&plan).contains(&"other-variant")), (Some(2), true), "{:?}", ids(&plan));
    assert!(plan["blockers"].to_string().contains("of iptables (legacy) mode stand as well"));
    let (code, plan) =
        recorded(&stale.join("conflicting-addresses/iptables"), &stale.join("conflicting-addresses/api"));
    assert_eq!((code, ids(&plan)), (Some(2), vec!["conflicting-addresses"]));
    assert!(plan["blockers"].to_string().contains("10.96.0.10:53/TCP"));
}
