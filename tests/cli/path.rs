//! `kpx path` on a recorded node.

use serde_json::Value;

use super::environment::{finish, kpx, project, run};
use super::schema;

fn node() -> String {
    project("tests/data/lab/node").display().to_string()
}

#[test]
fn a_packet_has_the_same_ways_by_the_rules_and_by_the_api() {
    let printed = run(&["path", "10.106.13.236:80", "--from", &node(), "-o", "json"]);
    let document: Value = serde_json::from_str(&printed.out).unwrap_or_else(|e| panic!("{e}: {}", printed.err));
    schema::conforms(&document);
    assert_eq!(document["packet"]["origin"], "node");
    let items = document["items"].as_array().expect("a list");
    let sources: Vec<&Value> = items.iter().map(|item| &item["source"]).collect();
    assert_eq!(sources, ["iptables", "api"]);
    assert_eq!(document["differ"], serde_json::json!([]));
    assert_eq!(printed.code, 0);
    for item in items {
        let sum: f64 =
            item["ways"].as_array().expect("a list").iter().map(|w| w["probability"].as_f64().expect("a number")).sum();
        assert!((sum - 1.0).abs() < 1e-6);
    }
}

#[test]
fn the_screen_fits_80_columns() {
    let mut command = kpx();
    command.args(["path", "--from-ip", "203.0.113.9", "10.96.0.1:443", "--via", "iptables", "--from"]);
    command.arg(project("tests/data/lab/node")).env("COLUMNS", "80");
    let printed = finish(&mut command).out;
    // The title names the folder.
    let screen = printed.split_once('\n').expect("more than a line").1;
    insta::assert_snapshot!(screen, @r"
    HOOK         AT                               DOES
    prerouting   nat PREROUTING 1                 -> KUBE-SERVICES
    prerouting   nat KUBE-SERVICES 53             -> KUBE-SVC-NPX46M4PTMTKRN6Y
    prerouting   nat KUBE-SVC-NPX46M4PTMTKRN6Y 1  -> KUBE-MARK-MASQ
    prerouting   nat KUBE-MARK-MASQ 1             mark 0x4000
    prerouting   nat KUBE-SVC-NPX46M4PTMTKRN6Y 2  -> KUBE-SEP-KKK6SCI4WIYHH42C
    prerouting   nat KUBE-SEP-KKK6SCI4WIYHH42C 2  to 192.168.50.1:6443
    forward      filter FORWARD 1                 -> KUBE-PROXY-FIREWALL
    forward      filter FORWARD 2                 -> KUBE-FORWARD
    forward      filter KUBE-FORWARD 2            accept
    postrouting  nat POSTROUTING 1                -> KUBE-POSTROUTING
    postrouting  nat KUBE-POSTROUTING 2           mark 0x4000
    postrouting  nat KUBE-POSTROUTING 3           source becomes the node's

      SHARE  ENDS-AT            SOURCE      BY
    100.0 %  192.168.50.1:6443  the node's  -
    10.96.0.1:443/TCP from 203.0.113.9 outside by eth0: by iptables alone; nothing
    to compare it with
    ");
}

#[test]
fn mistakes_are_named() {
    for (args, part) in [
        (&["path", "10.96.0.10"][..], "expected ADDRESS:PORT"),
        (&["path", "10.96.0.10:53/ICMP"], "expected ADDRESS:PORT"),
        (&["path", "10.96.0.10:53", "--from-ip", "fd00::1"], "different address families"),
        (&["path", "10.96.0.10:53", "--in-interface", "eth0"], "--from-ip"),
    ] {
        let mut args = args.to_vec();
        let node = node();
        args.extend(["--from", &node]);
        let printed = run(&args);
        assert_eq!(printed.code, 64, "{args:?}: {}", printed.err);
        assert!(printed.err.contains(part), "{args:?}: {}", printed.err);
    }
    let printed = run(&["path", "10.96.0.10:53", "--via", "ebpf", "--from", &node()]);
    assert_eq!(printed.code, 1, "{}", printed.err);
}
