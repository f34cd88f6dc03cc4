//! Clients that kube-proxy's rules remember, as `kpx inspect affinity` lists them; and how long rules take to load.

#![expect(clippy::disallowed_types, reason = "tests run the program and its oracles themselves")]

use std::process::Command;

use serde_json::Value;

use super::folder::Folder;
use super::live::Namespace;
use crate::support::privileged;

fn kpx(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_kpx")).args(args).args(["-o", "json"]).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {error}"))
}

#[test]
fn a_recorded_list_is_named_by_the_service_and_backend_of_its_chain() {
    let node = Folder::iptables();
    let rules = node.read("iptables-save.txt");
    let remembers = |line: &&str| line.contains("\"shop/session:http") && line.contains("--rcheck");
    let rule = rules.lines().find(remembers).expect("the Service has affinity");
    let list = rule.rsplit(' ').next().expect("a target");
    // What the rules themselves say of that chain.
    let dnat = rules.lines().find(|l| l.contains(&format!("-A {list} ")) && l.contains("--to-destination"));
    let backend = dnat.and_then(|l| l.rsplit(' ').next()).expect("its chain translates");
    node.write(
        "xt_recent.txt",
        &format!(
            "# jiffies 4296745746 hz 250 limit 100\n{list} src=10.244.2.7 ttl: 64 last_seen: 4296743246 oldest_pkt: 1 4296743246\n\
             KUBE-SEP-AAAAAAAAAAAAAAAA src=10.0.0.9 ttl: 64 last_seen: 4296745746 oldest_pkt: 1 4296745746\n"
        ),
    );
    let from = node.folder().display().to_string();
    let document = kpx(&["inspect", "affinity", "--via", "iptables", "--from", &from]);
    assert_eq!((&document["kind"], &document["total"]), (&"AffinityList".into(), &2.into()), "{document:#}");
    let items = document["items"].as_array().expect("a list");
    let known = items.iter().find(|item| item["client"] == "10.244.2.7").expect("it is listed");
    let (ip, port) = backend.rsplit_once(':').expect("a port");
    assert_eq!((&known["service"], &known["idle_seconds"]), (&"shop/session".into(), &10.into()), "{known:#}");
    assert_eq!(known["backend"]["ip"], ip);
    assert_eq!(known["backend"]["port"].to_string(), port);
    let stale = items.iter().find(|item| item["client"] == "10.0.0.9").expect("it is listed");
    assert_eq!((&stale["service"], &stale["backend"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_live_list_is_read_as_the_kernel_has_it() {
    if !privileged() {
        return;
    }
    let node = Namespace::new("recent");
    node.sh(
        "ip link set lo up; iptables-nft -A INPUT -m recent --name KUBE-SEP-AAAAAAAAAAAAAAAA --set; ping -c1 127.0.0.1",
    );
    let document = kpx(&["inspect", "affinity", "--via", "iptables", "--netns", node.name()]);
    let item = &document["items"][0];
    assert_eq!(
        (&item["client"], &item["place"]),
        (&"127.0.0.1".into(), &"KUBE-SEP-AAAAAAAAAAAAAAAA".into()),
        "{document:#}"
    );
    // Without the kernel's clock the time is not told.
    assert!(item["idle_seconds"].is_null() || item["idle_seconds"].as_u64().is_some_and(|s| s < 120), "{item:#}");
}

#[test]
fn a_load_is_measured_apart_from_the_node() {
    if !privileged() {
        return;
    }
    let node = Namespace::new("measure");
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/iptables/v1.36-nft-ipv6.txt");
    node.sh(&format!("grep -v nfacct {rules} | ip6tables-nft-restore"));
    let saved = || node.output("ip6tables-nft-save | grep -v '^#'");
    let before = saved();
    let document = kpx(&["audit", "iptables", "--measure", "--netns", node.name()]);
    assert_eq!(saved(), before, "measuring changes nothing");
    let loads = document["loads"].as_array().expect("it was measured");
    let load = loads.iter().find(|load| load["tool"] == "ip6tables-nft-restore").expect("these rules were loaded");
    let count = before.lines().filter(|line| line.starts_with("-A ")).count();
    assert_eq!(load["rules"], count, "{load:#}");
    for time in ["first_seconds", "again_seconds"] {
        assert!(load[time].as_f64().is_some_and(|seconds| seconds > 0.0), "{load:#}");
    }
    assert!(document["xtables_lock"]["holders"].is_array(), "{}", document["xtables_lock"]);
}
