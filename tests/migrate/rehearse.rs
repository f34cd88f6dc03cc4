//! `kpx migrate rehearse`: a recorded node goes there and back under traffic, and what breaks is named.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::rig::{KPX, tool, world};
use crate::cli::schema::conforms;
use crate::support::{privileged, recordings};

/// How a rehearsal ended.
struct Ended {
    code: Option<i32>,
    report: Value,
    stderr: String,
    name: String,
}

/// A name that no other run of the tests uses.
fn name(of: &str) -> String {
    format!("{of}-{:x}", std::process::id())
}

/// Rehearses with little time.
/// One at a time: each has hundreds of flows, and a machine that is too busy to move them looks like one that lost them.
fn rehearse(of: &str, from: &Path, more: &[&str]) -> Ended {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let name = name(of);
    let mut kpx = assert_cmd::Command::new(KPX);
    kpx.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", "/nonexistent");
    kpx.args(["migrate", "rehearse", "--name", &name, "--hold", "1", "--rate", "150", "-o", "json", "--from"]);
    let output = kpx.arg(from).args(more).timeout(Duration::from_mins(5)).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ended { code: output.status.code(), report, stderr, name }
}

impl Ended {
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{:#}", self.stderr, self.report);
        if !self.report.is_null() {
            conforms(&self.report);
        }
        assert_eq!(traces(&self.name), Vec::<String>::new());
        self
    }

    /// A phase of the traffic.
    #[track_caller]
    fn phase(&self, name: &str) -> &Value {
        let phases = self.report["items"].as_array().unwrap();
        phases.iter().find(|p| p["phase"] == name).unwrap_or_else(|| panic!("no phase {name}: {:#}", self.report))
    }

    /// Kinds of what breaks.
    fn kinds(&self) -> Vec<&str> {
        self.report["breaks"].as_array().unwrap().iter().filter_map(|b| b["kind"].as_str()).collect()
    }

    /// Nothing breaks, and there was something that could have.
    #[track_caller]
    fn lossless(self) -> Self {
        let ended = self.exits(0);
        assert_eq!((&ended.report["lossless"], &ended.report["came"]), (&true.into(), &"whole".into()));
        assert_eq!(ended.kinds(), Vec::<&str>::new());
        let all = ended.report["frontends"].as_u64().unwrap();
        assert!(all > 200, "{all}");
        for phase in ["idle", "ebpf", "rules again"] {
            let asked = ended.phase(phase)["frontends_asked"].as_u64().unwrap();
            assert!(asked + 3 >= all, "{asked} of {all} in {phase}");
        }
        for phase in ["apply shadow", "apply handover", "apply remove", "rollback remove", "rollback sockets"] {
            assert!(ended.phase(phase)["flows_open"].as_u64() > Some(100), "{phase}");
        }
        let codes: Vec<_> =
            ended.report["commands"].as_array().unwrap().iter().map(|c| c["exit_code"].clone()).collect();
        assert_eq!(codes, vec![Value::from(0); 4]);
        ended
    }
}

/// Everything on this machine that bears a lab's name, by other tools.
fn traces(name: &str) -> Vec<String> {
    let mut found: Vec<String> = tool("ip", &["netns", "list"]).lines().map(str::to_owned).collect();
    found.extend(tool("cat", &["/proc/mounts"]).lines().map(str::to_owned));
    found.extend(tool("find", &["/sys/fs/cgroup", "-maxdepth", "3", "-type", "d"]).lines().map(str::to_owned));
    found.retain(|line| line.contains(&format!("lab-{name}")) || line.contains(&format!("lab/{name}")));
    if Path::new("/run/kpx/lab").join(name).exists() {
        found.push(format!("/run/kpx/lab/{name}"));
    }
    found
}

/// A copy of the recorded world, with one of its files changed.
fn changed(file: &str, change: impl FnOnce(String) -> String) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs_err::read_dir(world()).unwrap() {
        let path = entry.unwrap().path();
        fs_err::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = folder.path().join(file);
    let text = fs_err::read_to_string(&path).unwrap();
    let new = change(text.clone());
    assert_ne!(new, text, "the change does nothing");
    fs_err::write(path, new).unwrap();
    folder
}

/// Puts a rule in front of all of FORWARD's.
fn forward(rule: &str) -> impl FnOnce(String) -> String {
    move |text| {
        let filter = text.find("*filter").unwrap();
        let at = filter + text[filter..].find("\n[").unwrap() + 1;
        format!("{}[0:0] -A FORWARD {rule}\n{}", &text[..at], &text[at..])
    }
}

/// From a snapshot that kpx itself took of a recording.
#[test]
fn a_node_of_iptables_nft_is_lossless() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("node-a.tar.zst");
    tool(KPX, &["snapshot", archive.to_str().unwrap(), "--from", world().to_str().unwrap()]);
    let ended = rehearse("re-nft", &archive, &[]).lossless();
    assert_eq!(ended.report["dataplane"], "kube-proxy iptables (nft)");
    let left: Vec<_> = ended.report["left_out"].as_array().unwrap().iter().map(|it| it["what"].clone()).collect();
    assert_eq!(left, ["traffic by SCTP: edge/diameter:diameter"]);
}

fn recorded(of: &str, node: &str) {
    let Some(recordings) = recordings() else { return };
    if !privileged() {
        return;
    }
    let small = recordings.join("small");
    let api = small.join("api").display().to_string();
    rehearse(of, &small.join(node).join("running"), &["--services-from", &api]).lossless();
}

#[test]
fn a_node_of_iptables_legacy_is_lossless() {
    recorded("re-leg", "iptables-legacy");
}

#[test]
fn a_node_of_nftables_mode_is_lossless() {
    recorded("re-tab", "nftables");
}

/// Rules of Docker, flannel, a firewall in nftables and the portmap plug-in stand beside kube-proxy's.
#[test]
fn a_node_with_rules_of_others_is_lossless() {
    let Some(recordings) = recordings() else { return };
    if !privileged() {
        return;
    }
    let objects = crate::kube::worlds::objects_of_stale(&recordings);
    let api = objects.path().display().to_string();
    rehearse("re-doc", &recordings.join("stale/docker-flannel-nftables"), &["--services-from", &api]).lossless();
}

/// An operator's rule lets in what the kernel's NAT has translated, and nothing else: under eBPF nothing is.
#[test]
fn a_rule_that_wants_the_kernels_nat_is_found_before_it_hurts() {
    if !privileged() {
        return;
    }
    let rule = "-d 10.244.1.0/24 -i eth0 -m conntrack --ctstate NEW -m conntrack ! --ctstate DNAT -j DROP";
    let snapshot = changed("iptables-save.txt", forward(rule));
    let ended = rehearse("re-ct", snapshot.path(), &[]).exits(2);
    assert_eq!(ended.report["lossless"], false);
    assert!(ended.kinds().contains(&"connects"), "{:#}", ended.report);
    let breaks = ended.report["breaks"].to_string();
    assert!(breaks.contains("connections timed out, where an answer was expected"), "{breaks}");
    let troubles = ended.report["traffic"]["troubles"].as_array().unwrap();
    assert!(troubles.iter().any(|t| t["service"] == "edge/np-local:http"), "{troubles:?}");
    assert!(troubles.iter().all(|t| t["place"] == "outside"), "{troubles:?}");
    let suspects: Vec<_> = ended.report["suspects"].as_array().unwrap().iter().map(|s| s["rule"].clone()).collect();
    assert_eq!(suspects, [format!("-A FORWARD {rule}")]);
    // Before eBPF serves packets, and where it never does, nothing is hurt.
    for phase in ["idle", "apply sockets", "apply hold"] {
        assert_eq!((&ended.phase(phase)["flows_lost"], &ended.phase(phase)["connects_failed"]), (&0.into(), &0.into()));
    }
}

/// What a firewall keeps clients from before is no loss when it keeps them from it afterwards.
#[test]
fn what_does_not_answer_before_is_told_and_no_loss() {
    if !privileged() {
        return;
    }
    let snapshot = changed("iptables-save.txt", forward("-i eth0 -p tcp -m tcp --dport 8443 -j DROP"));
    let ended = rehearse("re-shut", snapshot.path(), &[]).lossless();
    let unlike = ended.report["unlike"].as_array().unwrap();
    assert!(unlike.len() > 5, "{unlike:?}");
    for it in unlike {
        assert!(it["service"].as_str().unwrap().ends_with(":https"), "{it}");
        assert_eq!(
            (&it["place"], &it["expected"], &it["becomes"]),
            (&"outside".into(), &"answer".into(), &"silence".into())
        );
    }
}

/// A firewall in front of a NodePort: packets are translated before they meet it, so it keeps nobody out any more.
#[test]
fn a_firewall_that_ebpf_goes_around_is_found() {
    if !privileged() {
        return;
    }
    let rule = "-p tcp -m conntrack --ctorigdstport 30080 -j DROP";
    let snapshot = changed("iptables-save.txt", forward(rule));
    let ended = rehearse("re-wall", snapshot.path(), &["--flows", "60"]).exits(2);
    let unlike = ended.report["unlike"].to_string();
    assert!(unlike.contains("192.168.50.11:30080"), "{unlike}");
    let breaks = ended.report["breaks"].to_string();
    assert!(breaks.contains("answered, where silence was expected"), "{breaks}");
    assert!(breaks.contains("edge/np:http 192.168.50.11:30080/TCP from outside"), "{breaks}");
}

/// Known differences show where clients are let everywhere: kube-proxy leaves what the node itself sends to a load balancer without
/// endpoints alone, eBPF refuses it.
#[test]
fn everywhere_finds_what_kube_proxy_leaves_alone() {
    if !privileged() {
        return;
    }
    let ended = rehearse("re-all", &world(), &["--everywhere", "--flows", "1"]).exits(2);
    let breaks = ended.report["breaks"].to_string();
    assert!(breaks.contains("edge/lb-empty:http 203.0.113.20:80/TCP from node"), "{breaks}");
    assert!(breaks.contains("refused, where silence was expected"), "{breaks}");
}

#[test]
fn a_blocked_plan_is_told_without_root_and_without_a_lab() {
    let snapshot = changed("services.json", |text| text.replace("\"port\": 80,", "\"port\": 81,"));
    let ended = rehearse("re-blk", snapshot.path(), &[]).exits(2);
    assert_eq!((&ended.report["came"], ended.kinds()), (&"refused".into(), vec!["blocked"]));
    let first = &ended.report["breaks"][0];
    assert!(first["what"].as_str().unwrap().starts_with("tables-differ: API objects and rules differ in "), "{first}");
    assert!(first["remedy"].as_str().unwrap().contains("kpx diff api iptables"), "{first}");
    assert_eq!(ended.report["items"], Value::Array(Vec::new()));
}

/// What ipvs mode does otherwise has to be accepted; and where the kernel has no IPVS, that is said.
#[test]
fn ipvs_mode_needs_a_kernel_that_has_it() {
    let Some(recordings) = recordings() else { return };
    let small = recordings.join("small");
    let api = small.join("api").display().to_string();
    let from = small.join("ipvs/running");
    let ended = rehearse("re-ipvs", &from, &["--services-from", &api]).exits(2);
    let what = ended.report["breaks"][0]["what"].as_str().unwrap();
    assert!(what.starts_with("ipvs-policies: "), "{what}");
    if privileged() && !Path::new("/proc/net/ip_vs").exists() {
        let ended = rehearse("re-ipvs", &from, &["--services-from", &api, "--accept", "ipvs-policies"]).exits(1);
        assert!(ended.stderr.contains("this machine's kernel has no IPVS (ip_vs)"), "{}", ended.stderr);
    }
}

#[test]
fn what_is_no_snapshot_is_an_error_that_says_so() {
    let nowhere = rehearse("re-no", &PathBuf::from("/nonexistent/node-a"), &[]).exits(1);
    assert!(nowhere.stderr.contains("cannot open snapshot /nonexistent/node-a"), "{}", nowhere.stderr);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node-a.tar.zst");
    fs_err::write(&file, "no archive").unwrap();
    let other = rehearse("re-file", &file, &[]).exits(1);
    assert!(other.stderr.contains("is not a snapshot"), "{}", other.stderr);
    let torn = changed("services.json", |text| text[..text.len() / 2].to_owned());
    let torn = rehearse("re-torn", torn.path(), &[]).exits(2);
    assert!(torn.report["breaks"].to_string().contains("services.json"), "{:#}", torn.report);
    let mut kpx = assert_cmd::Command::new(KPX);
    let output = kpx.args(["migrate", "rehearse"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    assert!(stderr.contains("--from SNAPSHOT") && stderr.contains("kpx snapshot"), "{stderr}");
}

/// Stopped in the middle of the way there: the command under way ends, and nothing stays.
#[test]
fn a_rehearsal_that_is_interrupted_leaves_nothing() {
    if !privileged() {
        return;
    }
    let name = name("re-int");
    let args = ["migrate", "rehearse", "--name", &name, "--hold", "1", "-o", "json", "--from"];
    #[expect(clippy::disallowed_types, reason = "tests run the program themselves")]
    let mut child = std::process::Command::new(KPX)
        .args(args)
        .arg(world())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let journals = format!("/run/kpx/lab/{name}/state");
    let begun = Instant::now();
    while !find(&journals, "journal.jsonl") {
        assert!(begun.elapsed() < Duration::from_mins(1), "no migration begins");
        assert_eq!(child.try_wait().unwrap(), None, "it has ended");
        std::thread::sleep(Duration::from_millis(50));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["came"], &report["lossless"]), (&"interrupted".into(), &false.into()));
    assert_eq!(traces(&name), Vec::<String>::new());
}

/// Whether a file of this name is below a folder.
fn find(folder: &str, name: &str) -> bool {
    let Ok(entries) = fs_err::read_dir(folder) else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        let path = entry.path();
        entry.file_name() == name || (path.is_dir() && find(&path.display().to_string(), name))
    })
}
