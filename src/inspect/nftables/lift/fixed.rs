//! The chains every table has: hooks, checks, dispatch and masquerading, of Kubernetes 1.30 and of 1.36.

use super::super::notice::{Notice, Place};
use super::super::ruleset::{Addresses, Chain, Match, Rule, Side, Statement, Verdict};
use super::super::text::word;
use super::Reader;
use crate::model::{Family, Masquerade, NodePortScope};

/// What the fixed chains say.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    /// The mark that asks for masquerading.
    pub(super) mark: u32,
    pub(super) cluster_masquerade: ClusterMasquerade,
    pub(super) node_ports: NodePortScope,
    /// Whether the node's own connections meet the refusing maps before they are translated (before Kubernetes 1.35).
    pub(super) refuses_output_early: bool,
}

impl Default for Fixed {
    fn default() -> Self {
        Self {
            mark: 0x4000,
            cluster_masquerade: ClusterMasquerade::PerService,
            node_ports: NodePortScope::Unknown,
            refuses_output_early: false,
        }
    }
}

/// Where the masquerading of ClusterIP traffic is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClusterMasquerade {
    /// In `services`, for all alike.
    All(Masquerade),
    /// In each Service port's chain (before Kubernetes 1.35).
    PerService,
}

/// A base chain as kube-proxy makes it.
struct Base {
    name: &'static str,
    kind: &'static str,
    hook: &'static str,
    priority: i32,
    rules: &'static [&'static str],
}

const fn base(
    name: &'static str,
    kind: &'static str,
    hook: &'static str,
    priority: i32,
    rules: &'static [&'static str],
) -> Base {
    Base { name, kind, hook, priority, rules }
}

const FIREWALL: &str = "ct state new jump firewall-check";
const SERVICES: &str = "ct state new jump service-endpoints-check";
const NODE_PORTS: &str = "ct state new jump nodeport-endpoints-check";
const CLUSTER_IPS: &str = "ct state new jump cluster-ips-check";

/// In all versions.
const NAT: [Base; 3] = [
    base("nat-prerouting", "nat", "prerouting", -100, &["jump services"]),
    base("nat-output", "nat", "output", -100, &["jump services"]),
    base("nat-postrouting", "nat", "postrouting", 100, &["jump masquerading"]),
];

/// From Kubernetes 1.34 on.
const FILTER: [Base; 5] = [
    base("filter-prerouting-pre-dnat", "filter", "prerouting", -110, &[FIREWALL]),
    base("filter-output-pre-dnat", "filter", "output", -110, &[FIREWALL]),
    base("filter-input", "filter", "input", 0, &[NODE_PORTS, SERVICES]),
    base("filter-forward", "filter", "forward", 0, &[SERVICES, CLUSTER_IPS]),
    base("filter-output", "filter", "output", 0, &[SERVICES, CLUSTER_IPS]),
];

/// Before.
const OLD_FILTER: [Base; 5] = [
    base("filter-prerouting", "filter", "prerouting", -110, &[FIREWALL]),
    base("filter-input", "filter", "input", -110, &[NODE_PORTS, SERVICES]),
    base("filter-forward", "filter", "forward", -110, &[SERVICES, CLUSTER_IPS]),
    base("filter-output", "filter", "output", -110, &[SERVICES, FIREWALL]),
    base("filter-output-post-dnat", "filter", "output", -90, &[CLUSTER_IPS]),
];

/// Sets and maps of all versions.
const SETS: [(&str, bool); 6] = [
    ("cluster-ips", false),
    ("service-ips", true),
    ("service-nodeports", true),
    ("no-endpoint-services", true),
    ("no-endpoint-nodeports", true),
    ("firewall-ips", true),
];

/// Sets that only some configurations and versions have.
const OPTIONAL_SETS: [&str; 2] = ["nodeport-ips", "hairpin-connections"];

impl<'a> Reader<'a> {
    pub(super) fn read_fixed(&mut self) {
        let old = self.table.chains.contains_key("filter-output-post-dnat")
            || self.table.chains.contains_key("filter-prerouting");
        self.fixed.refuses_output_early = old;
        if let Some(mark) = self.find_mark() {
            self.fixed.mark = mark;
        }
        let filter = if old { &OLD_FILTER } else { &FILTER };
        let mut known: Vec<&str> = Vec::new();
        for base in filter.iter().chain(&NAT) {
            known.push(base.name);
            self.check_base(base);
        }
        known.extend(self.check_regular());
        let table = self.table;
        for (name, chain) in &table.chains {
            if !name.contains('/') && !known.contains(&&**name) {
                self.unknown_object(format!("chain {name}"));
            } else if name.contains('/') && chain.hook.is_some() {
                self.unusual_hook(name, chain, None);
            }
        }
        for (name, is_map) in SETS {
            match table.sets.get(name) {
                Some(set) if set.is_map == is_map => {}
                _ => {
                    let kind = if is_map { "map" } else { "set" };
                    let what = Place { kind, ..Place::chain(self.family, name) };
                    self.notices.push(Notice::Missing { what });
                }
            }
        }
        for name in table.sets.keys() {
            let named = SETS.iter().any(|(known, _)| *known == &**name) || OPTIONAL_SETS.contains(&&**name);
            if !named && !name.contains('/') {
                self.unknown_object(format!("set {name}"));
            }
        }
        for other in &table.others {
            self.unknown_object(other.clone());
        }
    }

    fn unknown_object(&mut self, object: String) {
        self.notices.push(Notice::UnknownObject { family: self.family, object });
    }

    fn unusual_hook(&mut self, name: &str, chain: &Chain, expected: Option<&Base>) {
        let found = chain.hook.as_ref().map_or_else(
            || "no hook".to_owned(),
            |hook| {
                let policy = if hook.accepts { "" } else { ", policy drop" };
                format!("{} {} priority {}{policy}", hook.kind, hook.hook, hook.priority)
            },
        );
        let expected = expected.map_or_else(
            || "no hook".to_owned(),
            |base| format!("{} {} priority {}", base.kind, base.hook, base.priority),
        );
        self.notices.push(Notice::UnusualHook { chain: Place::chain(self.family, name), found, expected });
    }

    fn check_base(&mut self, base: &Base) {
        let Some(chain) = self.table.chains.get(base.name) else {
            self.notices.push(Notice::Missing { what: Place::chain(self.family, base.name) });
            return;
        };
        let usual = chain.hook.as_ref().is_some_and(|hook| {
            (&*hook.kind, &*hook.hook, hook.priority, hook.accepts) == (base.kind, base.hook, base.priority, true)
        });
        if !usual {
            self.unusual_hook(base.name, chain, Some(base));
        }
        let expected: Vec<String> = base.rules.iter().map(|rule| (*rule).to_owned()).collect();
        self.check_rules(base.name, &expected);
    }

    /// The chains without a hook; returns the names of those that may be there.
    fn check_regular(&mut self) -> [&'static str; 8] {
        let ip = word(self.family);
        let mark = format!("{:#010x}", self.fixed.mark);
        let by_service = |map| vec![format!("{ip} daddr . meta l4proto . th dport vmap @{map}")];
        self.check_regular_rules("service-endpoints-check", &by_service("no-endpoint-services"));
        self.check_regular_rules("firewall-check", &by_service("firewall-ips"));
        self.check_regular_rules("reject-chain", &["reject".to_owned()]);
        let masquerading = if self.table.sets.contains_key("hairpin-connections") {
            vec![
                format!("meta mark & {mark} != 0x00000000 meta mark set meta mark ^ {mark} masquerade fully-random"),
                format!(
                    "ct status dnat {ip} saddr . {ip} daddr . meta l4proto . th dport @hairpin-connections \
                     masquerade fully-random"
                ),
            ]
        } else {
            vec![
                format!("meta mark & {mark} == 0x00000000 return"),
                format!("meta mark set meta mark ^ {mark}"),
                "masquerade fully-random".to_owned(),
            ]
        };
        self.check_regular_rules("masquerading", &masquerading);
        if self.table.chains.contains_key("mark-for-masquerade") {
            self.check_regular_rules("mark-for-masquerade", &[format!("meta mark set meta mark | {mark}")]);
        }
        self.read_services();
        self.read_node_port_check();
        self.read_cluster_ips_check();
        [
            "service-endpoints-check",
            "firewall-check",
            "reject-chain",
            "masquerading",
            "mark-for-masquerade",
            "services",
            "nodeport-endpoints-check",
            "cluster-ips-check",
        ]
    }

    /// Checks a chain that no hook calls.
    fn check_regular_rules(&mut self, name: &'static str, expected: &[String]) {
        if self.regular(name).is_some() {
            self.check_rules(name, expected);
        }
    }

    /// The rules of a chain that no hook must call; one that is not there, or is called, is reported.
    fn regular(&mut self, name: &'static str) -> Option<&'a [Rule]> {
        let Some(chain) = self.table.chains.get(name) else {
            self.notices.push(Notice::Missing { what: Place::chain(self.family, name) });
            return None;
        };
        if chain.hook.is_some() {
            self.unusual_hook(name, chain, None);
        }
        Some(&chain.rules)
    }

    /// Compares a chain's rules with what kube-proxy writes there.
    fn check_rules(&mut self, name: &str, expected: &[String]) {
        let Some(chain) = self.table.chains.get(name) else { return };
        let texts: Vec<String> = chain.rules.iter().map(|rule| rule.text(self.family).to_string()).collect();
        if texts == expected {
            return;
        }
        let before = self.notices.len();
        for (i, (rule, text)) in chain.rules.iter().zip(&texts).enumerate() {
            if !expected.contains(text) || texts[..i].contains(text) {
                self.unknown_rule(name, i + 1, rule);
            }
        }
        for missing in expected.iter().filter(|rule| !texts.contains(rule)) {
            self.incomplete(name, &format!("the rule `{missing}`"));
        }
        if self.notices.len() == before {
            self.notices.push(Notice::Misordered { chain: Place::chain(self.family, name) });
        }
    }

    /// The mark that `masquerading` looks for.
    fn find_mark(&self) -> Option<u32> {
        let rules = &self.table.chains.get("masquerading")?.rules;
        rules.iter().flat_map(|rule| &rule.statements).find_map(|statement| match statement {
            Statement::Match(Match::Marked { bits, .. }) => Some(*bits),
            _ => None,
        })
    }

    /// `services`: masquerading of ClusterIPs (from 1.35 on), dispatch by address, dispatch by NodePort.
    fn read_services(&mut self) {
        const CHAIN: &str = "services";
        let Some(rules) = self.regular(CHAIN) else { return };
        let mut masquerade = None;
        let (mut by_address, mut by_port) = (false, false);
        for (i, rule) in rules.iter().enumerate() {
            let done = match rule.statements.as_slice() {
                [
                    Statement::Match(Match::Address {
                        side: Side::Destination,
                        not: false,
                        among: Addresses::Set(set),
                    }),
                    rest @ ..,
                ] if &**set == "cluster-ips" && masquerade.is_none() && !by_address && !by_port => {
                    masquerade = self.masquerade_in(CHAIN, i + 1, rule, rest);
                    masquerade.is_some()
                }
                [Statement::ServiceMap(map)] if &**map == "service-ips" && !by_address && !by_port => {
                    by_address = true;
                    true
                }
                [scope @ .., Statement::NodePortMap(map)] if &**map == "service-nodeports" && !by_port => {
                    match self.scope(scope, true) {
                        Some(scope) => {
                            (self.fixed.node_ports, by_port) = (scope, true);
                            true
                        }
                        None => false,
                    }
                }
                _ => false,
            };
            if !done {
                self.unknown_rule(CHAIN, i + 1, rule);
            }
        }
        if !by_address {
            self.incomplete(CHAIN, "the rule that looks into @service-ips");
        }
        if !by_port {
            self.incomplete(CHAIN, "the rule that looks into @service-nodeports");
        }
        self.fixed.cluster_masquerade = match masquerade {
            Some(masquerade) => ClusterMasquerade::All(masquerade),
            None if self.table.chains.contains_key("mark-for-masquerade") => ClusterMasquerade::PerService,
            None => ClusterMasquerade::All(Masquerade::Never),
        };
    }

    /// `ip daddr @nodeport-ips`, or everything but loopback.
    fn scope(&mut self, statements: &[Statement], dispatch: bool) -> Option<NodePortScope> {
        let rest = match statements {
            [Statement::Match(Match::Address { side: Side::Destination, not: false, among: Addresses::Set(set) })]
                if &**set == "nodeport-ips" =>
            {
                let ips = self.addresses("nodeport-ips");
                return Some(NodePortScope::Addresses(ips.into_iter().collect()));
            }
            [Statement::Match(Match::Local(Side::Destination)), rest @ ..] if dispatch => rest,
            rest if !dispatch => rest,
            _ => return None,
        };
        let loopback = match self.family {
            Family::V4 => "127.0.0.0/8",
            Family::V6 => "::1/128",
        };
        match rest {
            [Statement::Match(Match::Address { side: Side::Destination, not: true, among: Addresses::Nets(nets) })] => {
                matches!(nets.as_slice(), [net] if net.to_string() == loopback)
                    .then_some(NodePortScope::All { loopback: false })
            }
            [] if dispatch => Some(NodePortScope::All { loopback: true }),
            _ => None,
        }
    }

    /// Refused NodePorts are looked up on the addresses that serve NodePorts.
    fn read_node_port_check(&mut self) {
        const CHAIN: &str = "nodeport-endpoints-check";
        let Some(rules) = self.regular(CHAIN) else { return };
        let mut found = false;
        for (i, rule) in rules.iter().enumerate() {
            let done = match rule.statements.as_slice() {
                [scope @ .., Statement::NodePortMap(map)] if &**map == "no-endpoint-nodeports" && !found => {
                    self.scope(scope, false).is_some_and(|scope| scope == self.fixed.node_ports)
                }
                _ => false,
            };
            found |= done;
            if !done {
                self.unknown_rule(CHAIN, i + 1, rule);
            }
        }
        if !found {
            self.incomplete(CHAIN, "the rule that looks into @no-endpoint-nodeports");
        }
    }

    /// Unknown ports of ClusterIPs are refused; unallocated ClusterIPs dropped, where kube-proxy knows the ServiceCIDRs.
    fn read_cluster_ips_check(&mut self) {
        const CHAIN: &str = "cluster-ips-check";
        let Some(rules) = self.regular(CHAIN) else { return };
        let ip = word(self.family);
        let refuse = format!("{ip} daddr @cluster-ips reject");
        let mut found = false;
        for (i, rule) in rules.iter().enumerate() {
            let done = match rule.statements.as_slice() {
                [
                    Statement::Match(Match::Address { side: Side::Destination, not: false, among: Addresses::Nets(_) }),
                    Statement::Verdict(Verdict::Drop),
                ] => found && i == 1,
                _ => !found && rule.text(self.family).to_string() == refuse,
            };
            found |= done;
            if !done {
                self.unknown_rule(CHAIN, i + 1, rule);
            }
        }
        if !found {
            self.incomplete(CHAIN, "the rule that refuses unknown ports of ClusterIPs");
        }
    }
}
