//! The audit of a live node, which is a network namespace here, and the commands that it advises.

#![expect(clippy::disallowed_types, reason = "tests run the program and its oracles themselves")]

use std::path::Path;
use std::process::Command;

use kpx::audit::all;

use crate::support::privileged;

/// A network namespace of its own, gone when dropped.
pub(super) struct Namespace(String);

impl Namespace {
    pub(super) fn new(name: &str) -> Self {
        let name = format!("kpx-{name}-{:x}", std::process::id());
        let namespace = Self(name);
        run("ip", &["netns", "add", &namespace.0]);
        namespace
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// Runs a shell line inside.
    pub(super) fn sh(&self, line: &str) {
        run("ip", &["netns", "exec", &self.0, "sh", "-ec", line]);
    }

    /// What a shell line prints inside.
    pub(super) fn output(&self, line: &str) -> String {
        let output = Command::new("ip").args(["netns", "exec", &self.0, "sh", "-c", line]).output().expect("it runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().expect("it runs");
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn audit(netns: &str, more: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kpx"));
    command.args(["audit", "--netns", netns, "-o", "json"]).args(more);
    let output = command.output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(!text.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().expect("it ends by itself"), text)
}

fn result(text: &str, id: &str) -> serde_json::Value {
    let document: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let items = document["items"].as_array().expect("a list");
    items.iter().find(|item| item["id"] == id).unwrap_or_else(|| panic!("{id} is in {text}")).clone()
}

#[test]
fn native_rules_that_iptables_save_does_not_show_are_found() {
    if !privileged() {
        return;
    }
    let node = Namespace::new("native");
    node.sh(
        "iptables-nft -t nat -A POSTROUTING -s 10.0.0.1 -j RETURN; iptables-nft -N SHORT; iptables-nft -A FORWARD -j ACCEPT
         iptables-nft -A FORWARD -p tcp -m tcp --dport 80:90 -m limit --limit 5/min -j LOG",
    );
    let (_, text) = audit(&node.0, &["iptables"]);
    assert_eq!(result(&text, "KPX-A106")["result"], "passed");
    // One that is printed whole, one without its condition.
    node.sh("nft add rule ip filter FORWARD ip saddr 192.0.2.1 drop
         nft 'add rule ip nat POSTROUTING ip saddr . ip daddr { 1.2.3.4 . 5.6.7.8 } drop'");
    // The oracle: what iptables makes of them.
    let saved = node.output("iptables-nft-save");
    assert!(
        saved.contains("-A POSTROUTING -j DROP") && saved.contains("-A FORWARD -s 192.0.2.1/32 -j DROP"),
        "{saved}"
    );
    let places = || {
        let (_, text) = audit(&node.0, &["iptables"]);
        let found = result(&text, "KPX-A106");
        found["evidence"].as_array().expect("a list").iter().map(|e| e["at"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(places(), ["iptables-nft nat POSTROUTING rule 2"]);
    // One at which iptables-nft-save of 1.8.9 stops; others may leave it out.
    node.sh("nft add rule ip filter SHORT meta skuid 5 drop");
    assert!(!node.output("iptables-nft-save 2>/dev/null").contains("-A SHORT"));
    assert!(places().contains(&"iptables-nft filter SHORT".into()), "{:?}", places());
}

#[test]
fn a_node_whose_kube_proxy_is_gone_is_told_so() {
    if !privileged() {
        return;
    }
    let node = Namespace::new("audit");
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/iptables/v1.36-nft-ipv6.txt");
    node.sh(&format!("grep -v nfacct {} | ip6tables-nft-restore", rules.display()));
    // A rule that depends on kube-proxy's chain, as CRI-O's hostPorts do.
    node.sh("ip6tables-nft -t nat -N KUBE-HOSTPORTS && ip6tables-nft -t nat -A KUBE-HOSTPORTS -j KUBE-MARK-MASQ");
    let (code, text) = audit(&node.0, &[]);
    assert_eq!(result(&text, "KPX-A101")["evidence"][0]["at"], "ip6tables-nft nat KUBE-HOSTPORTS rule 1");
    assert_eq!(result(&text, "KPX-A401")["result"], "found");
    assert_eq!(result(&text, "KPX-A110")["result"], "passed");
    assert_eq!(result(&text, "KPX-A603")["result"], "passed");
    // Processes are the machine's, not the namespace's: a kube-proxy may run elsewhere.
    let frozen = result(&text, "KPX-A601");
    assert_eq!(code == 2, frozen["result"] == "found" || result(&text, "KPX-A121")["result"] == "found", "{frozen}");

    // What the audit advises holds: the table loads, and then somebody else tracks connections.
    for id in ["KPX-A401", "KPX-A402"] {
        let check = all().find(|check| check.id == id).expect("it is a check");
        node.sh(check.command);
    }
    let (_, text) = audit(&node.0, &["conntrack"]);
    assert_eq!(result(&text, "KPX-A401")["result"], "passed");
}

#[test]
fn looking_changes_nothing() {
    if !privileged() {
        return;
    }
    let node = Namespace::new("audit-look");
    let (code, _) = audit(&node.0, &[]);
    assert_eq!(code, 0);
    let tables =
        Command::new("ip").args(["netns", "exec", &node.0, "nft", "list", "tables"]).output().expect("it runs");
    assert!(tables.stdout.is_empty(), "{}", String::from_utf8_lossy(&tables.stdout));
}
