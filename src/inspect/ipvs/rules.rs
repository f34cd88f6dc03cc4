//! The few iptables rules of IPVS mode: they masquerade, refuse and let in by the sets.

use std::collections::BTreeSet;

use super::notice::Notice;
use super::sets::{KubeSet, KubeSets};
use crate::inspect::iptables::{Dump, Rule, Table};
use crate::model::{Detector, Family, Masquerade, Origin, Protocol};

/// Chains that kube-proxy has in IPVS mode and in no other.
const ONLY_IPVS: [&[u8]; 3] = [b"KUBE-NODE-PORT", b"KUBE-IPVS-FILTER", b"KUBE-IPVS-OUT-FILTER"];

/// Chains of kube-proxy in IPVS mode, by table.
const CHAINS: [(&str, &[&str]); 2] = [
    ("nat", &["KUBE-SERVICES", "KUBE-POSTROUTING", "KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", "KUBE-MARK-MASQ"]),
    (
        "filter",
        &[
            "KUBE-FORWARD",
            "KUBE-NODE-PORT",
            "KUBE-PROXY-FIREWALL",
            "KUBE-SOURCE-RANGES-FIREWALL",
            "KUBE-IPVS-FILTER",
            "KUBE-IPVS-OUT-FILTER",
        ],
    ),
];

/// What the rules of one family say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Who is masqueraded on the way to a ClusterIP; `None` where no rule tells.
    pub cluster_ip: Option<Masquerade>,
    /// How pods are recognised.
    pub detector: Detector,
    /// How many rules kube-proxy's chains hold.
    pub number: usize,
}

/// Whether a dump has rules of kube-proxy in IPVS mode.
pub fn are_there(dump: &Dump<'_>) -> bool {
    dump.tables()
        .iter()
        .any(|table| ONLY_IPVS.iter().any(|name| table.chain(name).is_some_and(|c| table.rules_of(c).len() > 0)))
}

/// Reads the rules of one family; what is missing or unknown becomes a notice.
pub(super) fn read(family: Family, dump: &Dump<'_>, sets: KubeSets<'_>, notices: &mut Vec<Notice>) -> Rules {
    let mut rules = Rules::default();
    let expected = expected(family, sets);
    let mut missing: BTreeSet<&(&str, String)> = expected.iter().collect();
    for (name, chains) in CHAINS {
        let Some(table) = dump.table(name) else { continue };
        let ours = chains.iter().filter_map(|chain| table.chain(chain.as_bytes()));
        for chain in ours {
            for (number, rule) in (1..).zip(table.rules_of(chain)) {
                rules.number += 1;
                let text = without_comment(table, rule);
                if let Some(found) = cluster_ip_mark(family, &text) {
                    (rules.cluster_ip, rules.detector) = (Some(found.0), found.1);
                } else if let Some(known) = expected.iter().find(|(t, r)| *t == name && *r == text) {
                    missing.remove(known);
                } else if !is_variable(&text) {
                    let at = Origin::Rule {
                        family,
                        table: name.into(),
                        chain: lossy(table.chains()[chain].name).into(),
                        number,
                    };
                    notices.push(Notice::UnknownRule { at, rule: text });
                }
            }
        }
        for rule in table.rules().iter().filter(|rule| table.chains()[rule.chain()].is_builtin()) {
            let text = without_comment(table, rule);
            missing.retain(|(t, r)| !(*t == name && *r == text));
        }
    }
    notices.extend(missing.into_iter().map(|(table, rule)| Notice::MissingRule {
        family,
        table: (*table).to_owned(),
        rule: rule.clone(),
    }));
    if rules.cluster_ip.is_none() && sets.entries(KubeSet::ClusterIp).next().is_some() {
        let rule = format!(
            "-A KUBE-SERVICES -m set --match-set {} dst,dst -j KUBE-MARK-MASQ",
            KubeSet::ClusterIp.name(family)
        );
        notices.push(Notice::MissingRule { family, table: "nat".to_owned(), rule });
    }
    rules
}

/// The rule that masquerades traffic to ClusterIPs: whose, and how pods are recognised.
fn cluster_ip_mark(family: Family, text: &str) -> Option<(Masquerade, Detector)> {
    let set = KubeSet::ClusterIp.name(family);
    let rest = text.strip_prefix("-A KUBE-SERVICES ")?.strip_suffix(" -j KUBE-MARK-MASQ")?;
    let words: Vec<&str> = rest.split(' ').collect();
    match words.as_slice() {
        ["-m", "set", "--match-set", s, "dst,dst"] if *s == set => Some((Masquerade::Always, Detector::Unknown)),
        // By the port of a ClusterIP and the client's address: no client has one, but for the node itself.
        ["-m", "set", "--match-set", s, "src,dst"] if *s == set => Some((Masquerade::OffCluster, Detector::None)),
        ["!", how, what, "-m", "set", "--match-set", s, "dst,dst"] if *s == set => {
            let detector = match (*how, what.strip_suffix('+')) {
                ("-s", _) => Detector::Cidr(what.parse().ok()?),
                ("-i", Some(prefix)) => Detector::InterfacePrefix(prefix.to_owned()),
                ("-i", None) => Detector::Interface((*what).to_owned()),
                _ => return None,
            };
            Some((Masquerade::OffCluster, detector))
        }
        _ => None,
    }
}

/// Rules with values of the cluster in them: the mark, and those that keep the node from load balancers that do not let it in.
fn is_variable(text: &str) -> bool {
    let marked = [
        "-A KUBE-MARK-MASQ -j MARK --set-xmark ",
        "-A KUBE-POSTROUTING -j MARK --set-xmark ",
        "-A KUBE-POSTROUTING -m mark ! --mark ",
        "-A KUBE-FORWARD -m mark --mark ",
    ];
    marked.iter().any(|prefix| text.starts_with(prefix))
        || text.starts_with("-A KUBE-POSTROUTING -j MASQUERADE")
        || (text.starts_with("-A KUBE-IPVS-OUT-FILTER -s ") && text.ends_with(" -j DROP"))
}

/// The rules that kube-proxy 1.36 writes for these sets, with their tables, as iptables-save prints them without comments.
fn expected(family: Family, sets: KubeSets<'_>) -> Vec<(&'static str, String)> {
    let mut rules: Vec<(&'static str, String)> = Vec::new();
    let mut add = |table: &'static str, rule: &str| rules.push((table, format!("-A {rule}")));
    let loopback = if family == Family::V4 { "127.0.0.0/8" } else { "::1/128" };
    let unreachable = if family == Family::V4 { "icmp-port-unreachable" } else { "icmp6-port-unreachable" };
    let name = |set: KubeSet| set.name(family);
    let filled = |set: KubeSet| sets.entries(set).next().is_some();
    for hook in ["PREROUTING", "OUTPUT"] {
        add("nat", &format!("{hook} -j KUBE-SERVICES"));
    }
    add("nat", "POSTROUTING -j KUBE-POSTROUTING");
    for (hook, chain) in [
        ("INPUT", "KUBE-IPVS-FILTER"),
        ("INPUT", "KUBE-PROXY-FIREWALL"),
        ("INPUT", "KUBE-NODE-PORT"),
        ("FORWARD", "KUBE-PROXY-FIREWALL"),
        ("FORWARD", "KUBE-FORWARD"),
        ("OUTPUT", "KUBE-IPVS-OUT-FILTER"),
    ] {
        add("filter", &format!("{hook} -j {chain}"));
    }
    add("nat", &format!("KUBE-SERVICES -s {loopback} -j RETURN"));
    add("nat", "KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT");
    let by = |set: KubeSet, dirs: &str| format!("-m set --match-set {} {dirs}", name(set));
    if filled(KubeSet::LoadBalancer) {
        add("nat", &format!("KUBE-SERVICES {} -j KUBE-LOAD-BALANCER", by(KubeSet::LoadBalancer, "dst,dst")));
        add("nat", &format!("KUBE-SERVICES {} -j ACCEPT", by(KubeSet::LoadBalancer, "dst,dst")));
        add("nat", "KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ");
    }
    if filled(KubeSet::LoadBalancerLocal) {
        add("nat", &format!("KUBE-LOAD-BALANCER {} -j RETURN", by(KubeSet::LoadBalancerLocal, "dst,dst")));
    }
    if filled(KubeSet::ClusterIp) {
        add("nat", &format!("KUBE-SERVICES {} -j ACCEPT", by(KubeSet::ClusterIp, "dst,dst")));
    }
    for set in [KubeSet::ExternalIp, KubeSet::ExternalIpLocal] {
        if filled(set) {
            let matched = by(set, "dst,dst");
            if set == KubeSet::ExternalIp {
                add("nat", &format!("KUBE-SERVICES {matched} -j KUBE-MARK-MASQ"));
            }
            let foreign = "-m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL";
            add("nat", &format!("KUBE-SERVICES {matched} {foreign} -j ACCEPT"));
            add("nat", &format!("KUBE-SERVICES {matched} -m addrtype --dst-type LOCAL -j ACCEPT"));
        }
    }
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        let (lower, dirs) = (protocol.lower(), if protocol == Protocol::Sctp { "dst,dst" } else { "dst" });
        for (set, target) in
            [(KubeSet::NodePortLocal(protocol), "RETURN"), (KubeSet::NodePort(protocol), "KUBE-MARK-MASQ")]
        {
            if filled(set) {
                add("nat", &format!("KUBE-NODE-PORT -p {lower} {} -j {target}", by(set, dirs)));
            }
        }
    }
    if filled(KubeSet::LoopBack) {
        add("nat", &format!("KUBE-POSTROUTING {} -j MASQUERADE", by(KubeSet::LoopBack, "dst,dst,src")));
    }
    add("filter", "KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    add("filter", &format!("KUBE-NODE-PORT {} -j ACCEPT", by(KubeSet::HealthCheck, "dst")));
    if filled(KubeSet::LoadBalancerFirewall) {
        add(
            "filter",
            &format!(
                "KUBE-PROXY-FIREWALL {} -j KUBE-SOURCE-RANGES-FIREWALL",
                by(KubeSet::LoadBalancerFirewall, "dst,dst")
            ),
        );
        for set in [KubeSet::LoadBalancerSourceCidr, KubeSet::LoadBalancerSourceIp] {
            if filled(set) {
                add("filter", &format!("KUBE-SOURCE-RANGES-FIREWALL {} -j RETURN", by(set, "dst,dst,src")));
            }
        }
    }
    add("filter", "KUBE-SOURCE-RANGES-FIREWALL -j DROP");
    for set in [KubeSet::LoadBalancer, KubeSet::ClusterIp, KubeSet::ExternalIp, KubeSet::ExternalIpLocal] {
        add("filter", &format!("KUBE-IPVS-FILTER {} -j RETURN", by(set, "dst,dst")));
    }
    add("filter", &format!("KUBE-IPVS-FILTER {} -j RETURN", by(KubeSet::HealthCheck, "dst")));
    let new = format!("KUBE-IPVS-FILTER -m conntrack --ctstate NEW {}", by(KubeSet::Ips, "dst"));
    add("filter", &format!("{new} -j REJECT --reject-with {unreachable}"));
    rules
}

/// The rule as iptables-save prints it, without counters and comment.
fn without_comment(table: &Table<'_>, rule: &Rule<'_>) -> String {
    let mut text = format!("-A {}", lossy(table.chains()[rule.chain()].name));
    let words: Vec<_> = rule.words().collect();
    let mut i = 0;
    while let Some(word) = words.get(i) {
        if word.raw() == b"-m" && words.get(i + 1).is_some_and(|w| w.raw() == b"comment") {
            // `-m comment --comment TEXT`
            i += 4;
            continue;
        }
        text.push(' ');
        text.push_str(&word.text());
        i += 1;
    }
    text
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
