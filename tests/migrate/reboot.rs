//! A node that boots half-way: what is left to do is told, and either command does it.

use std::path::Path;

use serde_json::Value;

use super::rig::{Rig, tool};
use super::switch::ACTIVE;
use crate::support::privileged;

/// The steps that `status` says are to be done again.
fn gone(status: &Value) -> Vec<&str> {
    assert_eq!(status["state"], "rebooted", "{status}");
    status["gone"].as_array().expect("a list").iter().filter_map(Value::as_str).collect()
}

impl Rig {
    fn status(&self) -> Value {
        self.kpx(&["migrate", "status", "-o", "json"]).exits(0).json()
    }

    /// What a boot leaves of a node on which nobody starts kube-proxy: no rule of its, and no answer.
    fn without_kube_proxy(&self) {
        let [stop, _] = self.lab.proxy_commands();
        tool("sh", &["-c", &stop]);
        for (save, restore) in
            [("iptables-nft-save", "iptables-nft-restore"), ("ip6tables-nft-save", "ip6tables-nft-restore")]
        {
            // The kubelet's own stay.
            let line = format!(r"{save} | sed '/KUBE-\(FIREWALL\|KUBELET\|IPTABLES\)/!{{/KUBE-/d}}' | {restore}");
            self.inside("sh", &["-c", &line]);
        }
        assert_eq!(self.rules_with("KUBE-SVC-"), 0);
    }
}

/// Kube-proxy comes back with the boot, and its rules with it.
#[test]
fn a_node_whose_kube_proxy_starts_with_the_boot_goes_on_or_back() {
    if !privileged() {
        return;
    }
    for (phase, forward) in [("packets", true), ("packets", false), ("remove", true), ("remove", false)] {
        let rig = Rig::up("boot-with");
        let before = rig.fingerprint();
        rig.apply_with(&["--until", phase], None).exits(0);
        let rig = rig.boot();
        assert_eq!(rig.fingerprint(), before, "the lab boots as the node did");
        let status = rig.status();
        assert_eq!(status["serving"], "rules", "{status}");
        for step in ["install", "attach", "hold-table", "stop-kube-proxy", "serve-packets"] {
            assert!(gone(&status).contains(&step), "{step}: {status}");
        }
        assert_eq!(gone(&status).contains(&"remove-rules"), phase == "remove", "{status}");
        if forward {
            rig.apply_with(&[], None).exits(0);
            assert_eq!((rig.mode(), rig.devices(), rig.rules_with("-j KUBE-SVC-")), (Some(ACTIVE), 4, 0));
            rig.kpx(&["migrate", "verify", "--probe-timeout", "300ms"]).exits(0);
        }
        rig.kpx(&["migrate", "rollback"]).exits(0);
        assert_eq!(rig.fingerprint(), before, "{phase}, {forward}");
    }
}

/// Nobody starts kube-proxy: until the next command nobody serves, where no agent does, and that is said.
#[test]
fn a_node_that_nobody_serves_after_the_boot_says_so() {
    if !privileged() {
        return;
    }
    for forward in [true, false] {
        let rig = Rig::up("boot-without");
        rig.drop_forwarded("nft", false);
        let before = rig.fingerprint();
        rig.apply_with(&[], None).exits(0);
        let rig = rig.boot();
        rig.without_kube_proxy();
        rig.drop_forwarded("nft", false);
        let status = rig.status();
        assert_eq!(status["serving"], "nobody", "{status}");
        assert!(gone(&status).contains(&"accept-forwarded"), "{status}");
        let said = rig.kpx(&["migrate", "status"]).exits(0);
        assert!(
            said.stdout.replace('\n', " ").contains("packets to Services are dropped until the next apply"),
            "{said:?}"
        );
        assert!(said.stdout.contains("NOBODY SERVES"), "{said:?}");
        if forward {
            rig.apply_with(&[], None).exits(0);
            assert_eq!((rig.mode(), rig.devices(), rig.rules_with("-A KPX-FORWARD")), (Some(ACTIVE), 4, 4));
            rig.kpx(&["migrate", "verify", "--probe-timeout", "300ms"]).exits(0);
        }
        rig.kpx(&["migrate", "rollback"]).exits(0);
        assert_eq!(sorted(&rig.fingerprint()), sorted(&before), "{forward}");
    }
}

/// Jumps of kube-proxy's among others' rules may be in another order, since these have come in another.
fn sorted(fingerprint: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = fingerprint.lines().collect();
    lines.sort_unstable();
    lines
}

/// Power goes while a line of the journal is written: what was not synced is not there, or half there.
#[test]
fn what_a_power_cut_leaves_of_the_journal_is_enough() {
    if !privileged() {
        return;
    }
    for (write, torn) in
        [(12, ""), (21, r#"{"seq":21,"at":"2026-11-26T18:00:00Z","event":"do"#), (26, "\0\0\0\0\0\0\n")]
    {
        let rig = Rig::up("boot-power");
        let before = rig.fingerprint();
        let run = rig.apply_with(&[], Some(&format!("before:{write}")));
        assert_eq!(run.code, None, "{run:?}");
        let rig = rig.boot();
        let migrations = Path::new(&rig.option("--state-dir")).join("migrations");
        let newest = fs_err::read_dir(migrations).expect("migrations").map(|e| e.expect("an entry").path()).max();
        let journal = newest.expect("a migration").join("journal.jsonl");
        let text = fs_err::read(&journal).expect("a journal");
        fs_err::write(&journal, [&text, torn.as_bytes()].concat()).expect("written");
        assert!(!gone(&rig.status()).is_empty());
        rig.apply_with(&[], None).exits(0);
        assert_eq!((rig.mode(), rig.rules_with("-j KUBE-SVC-")), (Some(ACTIVE), 0), "write {write}");
        rig.kpx(&["migrate", "rollback"]).exits(0);
        assert_eq!(rig.fingerprint(), before, "write {write}");
    }
}
