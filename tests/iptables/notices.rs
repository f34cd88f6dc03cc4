//! A real dump, damaged in one place: each damage has its own notice, at the rule that was damaged.

use kpx::inspect::iptables::{Lifted, lift, parse};
use kpx::model::{Detector, Exposure, NodePortScope};

/// IPv6 rules of v1.36 on iptables-nft, without a notice as they are.
const SOUND: &str = include_str!("../data/iptables/v1.36-nft-ipv6.txt");

fn lifted(text: &str) -> Lifted {
    lift(None, Some(&parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}"))))
}

/// Codes and texts of the notices.
fn notices(text: &str) -> Vec<(&'static str, String)> {
    lifted(text).notices.iter().map(|n| (n.code(), n.to_string())).collect()
}

fn join<'l>(lines: impl Iterator<Item = &'l str>) -> String {
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The dump with one line replaced by others.
fn replace(line: &str, by: &[&str]) -> String {
    let found = SOUND.lines().filter(|l| l.contains(line)).count();
    assert_eq!(found, 1, "{line} stands in {found} lines");
    join(SOUND.lines().flat_map(|l| if l.contains(line) { by.to_vec() } else { vec![l] }))
}

fn remove(line: &str) -> String {
    replace(line, &[])
}

/// The dump with lines added behind one.
fn add(line: &str, more: &[&str]) -> String {
    let whole = SOUND.lines().find(|l| l.contains(line)).expect("the line is there");
    let mut by = vec![whole];
    by.extend(more);
    replace(line, &by)
}

fn assert_only(text: &str, code: &str, parts: &[&str]) {
    // What a missing rule led to is left over besides.
    let found: Vec<_> =
        notices(text).into_iter().filter(|(c, _)| code == "stale-chain" || *c != "stale-chain").collect();
    assert_eq!(found.iter().map(|(c, _)| *c).collect::<Vec<_>>(), [code], "{found:#?}");
    for part in parts {
        assert!(found[0].1.contains(part), "{} lacks {part}", found[0].1);
    }
}

const DNS: &str = "-A KUBE-SERVICES -d fd00:10:96::a/128 -p udp";
const DNS_LAST: &str =
    "KUBE-SVC-TCOU7JCQXEZGVUNU -m comment --comment \"kube-system/kube-dns:dns -> [fd00:10:244:2::12]:53\"";
const DNS_SECOND_SEP: &str = "-A KUBE-SEP-IRVBA533JJ5ODKLW -p udp";
const NODE_PORTS: &str = "-A KUBE-SERVICES ! -d ::1/128";

#[test]
fn the_sound_dump_has_none() {
    assert_eq!(notices(SOUND), []);
}

#[test]
fn unknown_rules_are_reported_where_they_stand() {
    let foreign = "[0:0] -A KUBE-SERVICES -p tcp -m multiport --dports 80,443 -j RETURN";
    assert_only(&add(DNS, &[foreign]), "unknown-rule", &["IPv6 nat KUBE-SERVICES rule 25", "--dports 80,443"]);
    let shapes = [
        // Behind the rule that must be the last.
        (
            NODE_PORTS,
            "-A KUBE-SERVICES -d fd00::9/128 -p tcp -m comment --comment \"a/b cluster IP\" -m tcp --dport 1 -j KUBE-SVC-TCOU7JCQXEZGVUNU",
        ),
        // Behind the last choice, where no packet comes.
        (DNS_LAST, "-A KUBE-SVC-TCOU7JCQXEZGVUNU -m comment --comment late -j KUBE-SEP-IRVBA533JJ5ODKLW"),
        (DNS_LAST, "-A KUBE-SVC-TCOU7JCQXEZGVUNU -j ACCEPT"),
        (DNS_SECOND_SEP, "-A KUBE-SEP-IRVBA533JJ5ODKLW -j LOG"),
        ("-A KUBE-MARK-MASQ -j MARK", "-A KUBE-MARK-MASQ -j ACCEPT"),
        ("requiring SNAT", "-A KUBE-POSTROUTING -s fd00::/8 -j ACCEPT"),
        ("forwarding conntrack rule", "-A KUBE-FORWARD -j ACCEPT"),
        ("edge/lb-local:https health check node port", "-A KUBE-NODEPORTS -p tcp -m tcp --dport 1 -j ACCEPT"),
        ("edge/lb-sources-dual:https traffic not accepted", "-A KUBE-PROXY-FIREWALL -d fd00::1/128 -j DROP"),
        ("data/no-endpoints:udp has no endpoints", "-A KUBE-SERVICES -d fd00::1/128 -j DROP"),
        (
            "edge/lb-sources-dual:http\" -m tcp --dport 31076",
            "-A KUBE-NODEPORTS -p tcp -m comment --comment \"a/b\" -m tcp --dport 1 -j ACCEPT",
        ),
        (
            "other traffic to edge/lb-sources-dual:http will",
            "-A KUBE-FW-4MPSMALGTT64Y3YI -s fd00::/8 -j KUBE-EXT-4MPSMALGTT64Y3YI",
        ),
        ("pod traffic for edge/np-local:http", "-A KUBE-EXT-BLCWGGYY2Z3GUSPM -s fd00::/64 -j ACCEPT"),
    ];
    for (behind, rule) in shapes {
        assert_only(
            &add(behind, &[rule]),
            "unknown-rule",
            &[rule.split_once(' ').expect("words").1.split_once(' ').expect("words").1],
        );
    }
}

#[test]
fn missing_rules_chains_and_jumps() {
    let found = notices(&remove(DNS_LAST));
    let codes: Vec<_> = found.iter().map(|(c, _)| *c).collect();
    assert_eq!(codes, ["incomplete-chain", "stale-chain"], "{found:?}");
    assert!(found[0].1.ends_with("KUBE-SVC-TCOU7JCQXEZGVUNU: the rule for the last endpoint is missing"));
    assert_only(&remove(DNS_SECOND_SEP), "incomplete-chain", &["KUBE-SEP-IRVBA533JJ5ODKLW: the DNAT rule"]);
    assert_only(&remove("-A KUBE-SEP-IRVBA533JJ5ODKLW -s"), "incomplete-chain", &["traffic to itself"]);
    assert_only(
        &remove("edge/lb-sources-dual:http traffic not"),
        "incomplete-chain",
        &["KUBE-PROXY-FIREWALL", "leave out"],
    );
    assert_only(
        &remove("route LOCAL traffic for edge/np-local:http"),
        "incomplete-chain",
        &["KUBE-EXT-BLCWGGYY2Z3GUSPM"],
    );
    let found = notices(&remove("-A KUBE-MARK-MASQ -j MARK"));
    assert!(found[0].1.ends_with("KUBE-MARK-MASQ: the rule that sets the mark is missing"), "{found:?}");
    // Nor do the rules that test the mark make sense then.
    assert!(found[1..].iter().all(|(c, _)| *c == "unknown-rule"), "{found:?}");
    assert_only(&remove(NODE_PORTS), "incomplete-chain", &["KUBE-SERVICES", "NodePorts"]);
    assert_only(
        &remove("-A OUTPUT -m comment --comment \"kubernetes service portals\""),
        "missing-jump",
        &["IPv6 nat OUTPUT", "KUBE-SERVICES"],
    );
    assert_only(
        &remove("-A FORWARD -m comment --comment \"kubernetes forwarding rules\""),
        "missing-jump",
        &["filter FORWARD", "KUBE-FORWARD"],
    );
    let without_chain = join(
        SOUND
            .lines()
            .filter(|l| !l.starts_with(":KUBE-SEP-IRVBA533JJ5ODKLW") && !l.contains("-A KUBE-SEP-IRVBA533JJ5ODKLW")),
    );
    let found = notices(&without_chain);
    assert!(
        found.iter().any(|(c, t)| *c == "missing-chain" && t.contains("rule 3: jumps to KUBE-SEP-IRVBA533JJ5ODKLW")),
        "{found:?}"
    );
    assert!(lifted(&without_chain).notices[0].blocks_migration());
    let canary: String = SOUND.replacen(":KUBE-PROXY-CANARY - [0:0]\n", "", 1);
    assert_only(&canary, "missing-canary", &["IPv6"]);
}

#[test]
fn a_jump_under_a_condition_is_none() {
    let text = replace(
        "-A OUTPUT -m comment --comment \"kubernetes service portals\"",
        &["-A OUTPUT -o eth0 -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES"],
    );
    let found = notices(&text);
    let codes: Vec<_> = found.iter().map(|(c, _)| *c).collect();
    assert_eq!(codes, ["foreign-reference", "missing-jump"], "{found:?}");
}

#[test]
fn names_must_match_hashes() {
    let renamed = SOUND.replace("kube-system/kube-dns:dns cluster IP", "kube-system/kube-dns:other cluster IP");
    let found = notices(&renamed);
    assert!(found.iter().all(|(c, _)| *c == "hash-mismatch"), "{found:?}");
    // The Service's chain and its two endpoints'.
    assert_eq!(found.len(), 3);
    assert!(
        found
            .iter()
            .any(|(_, t)| t.ends_with("KUBE-SVC-TCOU7JCQXEZGVUNU is not the chain of kube-system/kube-dns:other udp"))
    );
    let moved = SOUND.replace("--to-destination [fd00:10:244:2::12]:53\n", "--to-destination [fd00:10:244:2::12]:54\n");
    let found = notices(&moved);
    assert!(found.iter().any(|(c, t)| *c == "hash-mismatch" && t.contains("at [fd00:10:244:2::12]:54")), "{found:?}");
}

#[test]
fn uneven_shares_are_weights_or_a_notice() {
    let first =
        "kube-system/kube-dns:dns -> [fd00:10:244:1::12]:53\" -m statistic --mode random --probability 0.50000000000";
    let with = |p: &str| SOUND.replace(first, &first.replace("0.50000000000", p));
    let thirds = lifted(&with("0.75000000000"));
    assert_eq!(thirds.notices, []);
    let dns = |l: &Lifted| {
        let f =
            l.table.frontends().iter().find(|f| f.display_name() == "kube-system/kube-dns:dns").expect("there").clone();
        f.cluster.iter().map(|b| b.weight).collect::<Vec<_>>()
    };
    assert_eq!(dns(&thirds), [3, 1]);
    assert_eq!(dns(&lifted(SOUND)), [1, 1]);
    assert_only(&with("0.41421356237"), "odd-probabilities", &["KUBE-SVC-TCOU7JCQXEZGVUNU"]);
}

#[test]
fn affinity_must_be_whole() {
    let second = "\"shop/session:http -> [fd00:10:244:2::14]:8080\" -m recent";
    assert_only(&remove(second), "incomplete-chain", &["an affinity rule for each endpoint"]);
    let forgets = SOUND.replace(
        "-m recent --set --name KUBE-SEP-AK2PMIEPDERKDD3D --mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rsource ",
        "",
    );
    assert_only(&forgets, "incomplete-chain", &["KUBE-SEP-AK2PMIEPDERKDD3D", "session affinity"]);
}

#[test]
fn a_rule_of_others_about_a_cluster_ip_blocks() {
    // As NodeLocal DNS writes it.
    let rule = |port: u16| format!("-A OUTPUT -d fd00:10:96::a/128 -p udp -m udp --dport {port} -j ACCEPT");
    let local_dns = add("-A INPUT -j KUBE-FIREWALL", &[&rule(53)]);
    assert_only(&local_dns, "foreign-service", &["IPv6 filter OUTPUT rule 1", "kube-system/kube-dns:dns", "-j ACCEPT"]);
    assert!(lifted(&local_dns).notices[0].blocks_migration());
    assert_eq!(notices(&add("-A INPUT -j KUBE-FIREWALL", &[&rule(54)])), [], "no port of the Service");
    let other_way = rule(53).replace("-d", "! -d");
    assert_eq!(notices(&add("-A INPUT -j KUBE-FIREWALL", &[&other_way])), []);
}

#[test]
fn leftovers_and_rules_of_others() {
    let stale =
        add(":KUBE-SVL-BLCWGGYY2Z3GUSPM", &[":KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]", ":KUBE-SERVICES-OLD - [0:0]"]);
    assert_only(&stale, "stale-chain", &["IPv6 nat KUBE-SVC-AAAAAAAAAAAAAAAA"]);
    assert!(!lifted(&stale).notices[0].blocks_migration());
    let portmap = SOUND
        .replace(":KUBE-SVL-BLCWGGYY2Z3GUSPM - [0:0]\n", ":KUBE-SVL-BLCWGGYY2Z3GUSPM - [0:0]\n:CNI-HOSTPORT-SETMARK - [0:0]\n")
        .replace("[0:0] -A OUTPUT -m comment --comment \"kubernetes service portals\"", "-A CNI-HOSTPORT-SETMARK -j KUBE-MARK-MASQ\n[0:0] -A OUTPUT -m comment --comment \"kubernetes service portals\"");
    assert_only(&portmap, "foreign-reference", &["IPv6 nat CNI-HOSTPORT-SETMARK rule 1", "KUBE-MARK-MASQ"]);
    assert!(!lifted(&portmap).notices[0].blocks_migration());
    // A chain that is only mentioned, in a comment or by a longer name, is not referenced.
    let mention = add("PREROUTING -m comment", &["-A PREROUTING -m comment --comment \"-j KUBE-SERVICES\" -j RETURN"]);
    assert_eq!(notices(&mention), []);
    let ipvs = add("-A INPUT -j KUBE-FIREWALL", &["-A INPUT -j KUBE-IPVS-FILTER"])
        .replace(":KUBE-FIREWALL - [0:0]\n", ":KUBE-FIREWALL - [0:0]\n:KUBE-IPVS-FILTER - [0:0]\n");
    let codes: Vec<_> = notices(&ipvs).into_iter().map(|(c, _)| c).collect();
    assert_eq!(codes, ["unknown-rule", "stale-chain"]);
}

#[test]
fn refusals_must_agree_with_the_nat_table() {
    let refused = "-A KUBE-SERVICES -d fd00:10:96::a/128 -p udp -m comment --comment \"kube-system/kube-dns:dns has no endpoints\" \
                   -m udp --dport 53 -j REJECT --reject-with icmp6-port-unreachable";
    assert_only(
        &add("data/no-endpoints:udp has no endpoints", &[refused]),
        "contradiction",
        &["IPv6 filter KUBE-SERVICES rule 3"],
    );
    // Without the Local list nothing says what becomes of traffic from outside.
    let silent = join(SOUND.lines().filter(|l| !l.contains("KUBE-SVL-BLCWGGYY2Z3GUSPM")));
    assert_only(&silent, "unrefused", &["edge/np-local:http has no backend here, and no filter rule refuses"]);
}

#[test]
fn conflicts_keep_all_frontends_in_rule_order() {
    let thief = "-A KUBE-SERVICES -d fd00:10:96::a/128 -p udp -m comment --comment \"edge/np:http loadbalancer IP\" -m udp --dport 53 -j KUBE-EXT-KZRD5HVR24M7NJMY";
    let text = SOUND.replace(
        &format!("{}\n", SOUND.lines().find(|l| l.contains(DNS)).expect("there")),
        &format!("{thief}\n{}\n", SOUND.lines().find(|l| l.contains(DNS)).expect("there")),
    );
    let lifted = lifted(&text);
    let conflict = lifted.notices.iter().find(|n| n.code() == "conflict").expect("a conflict");
    assert!(conflict.blocks_migration(), "it hides a ClusterIP");
    assert_eq!(conflict.origin().expect("a rule").to_string(), "IPv6 nat KUBE-SERVICES rule 24");
    let both = lifted.table.frontends().iter().filter(|f| f.key.to_string() == "[fd00:10:96::a]:53/UDP");
    assert_eq!(both.map(|f| f.key.exposure).collect::<Vec<_>>(), [Exposure::ClusterIp, Exposure::LoadBalancer]);
}

#[test]
fn tables_saved_twice() {
    let mangle = SOUND.split_inclusive("COMMIT\n").next().expect("a table");
    assert_only(&format!("{mangle}{SOUND}"), "repeated-table", &["IPv6 mangle"]);
}

#[test]
fn detectors_and_node_port_addresses_of_every_kind() {
    let by = |from: &str, to: &str| {
        SOUND.replace(&format!("! -s {from}"), &format!("! {to}")).replace(&format!("-s {from}"), to)
    };
    let detector = |text: &str| {
        let lifted = lifted(text);
        assert_eq!(lifted.notices, []);
        lifted.table.v6.detector
    };
    assert_eq!(detector(SOUND), Detector::Cidr("fd00:10:244::/48".parse().expect("a network")));
    assert_eq!(detector(&by("fd00:10:244::/48", "-i cni0")), Detector::Interface("cni0".to_owned()));
    assert_eq!(detector(&by("fd00:10:244::/48", "-i veth+")), Detector::InterfacePrefix("veth".to_owned()));
    let none = join(SOUND.lines().filter(|l| !l.contains("-s fd00:10:244::/48")));
    assert_eq!(detector(&none), Detector::None);
    let all = SOUND.replace("! -s fd00:10:244::/48 ", "");
    assert_eq!(detector(&all), Detector::Cidr("fd00:10:244::/48".parse().expect("a network")));
    let mixed = SOUND.replacen("! -s fd00:10:244::/48", "! -s fd00:99::/48", 1);
    assert!(notices(&mixed).iter().all(|(c, _)| *c == "mixed-detectors"), "{:?}", notices(&mixed));

    let comment = "-m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -j KUBE-NODEPORTS";
    let addresses = replace(
        NODE_PORTS,
        &[
            &format!("-A KUBE-SERVICES -d fd00:50::11/128 {comment}"),
            &format!("-A KUBE-SERVICES -d fd00:50::99/128 {comment}"),
        ],
    );
    let lifted = lifted(&addresses);
    assert_eq!(lifted.notices, []);
    let wanted = ["fd00:50::11", "fd00:50::99"].map(|a| a.parse().expect("an address"));
    assert_eq!(lifted.table.v6.node_ports, NodePortScope::Addresses(wanted.into()));
}
