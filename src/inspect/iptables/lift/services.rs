//! The nat table's dispatch: `KUBE-SERVICES`, `KUBE-NODEPORTS`, and the entry chains for external destinations
//! (`KUBE-EXT-`, `KUBE-FW-`, and `KUBE-XLB-` of Kubernetes 1.23).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::super::dump::{Rule, Table};
use super::super::notice::Notice;
use super::super::owner::{Hashed, hashed};
use super::super::spec::{Parts, Spec};
use super::balance::{Balancing, detector};
use super::{Draft, MasqueradeBy, Port, Reader, node_port_key, widen};
use crate::model::{Detector, Exposure, Family, FrontendKey, Masquerade, NoBackends, NodePortScope, Policy};

/// What an entry chain for external destinations says.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) policy: Policy,
    masquerade: Masquerade,
    /// Whether it sends pods to the Cluster list.
    pub(super) knows_pods: bool,
    /// The Service port it is of.
    port: usize,
    /// Whether it sends on, or refuses itself, what no rule before the last took.
    ends: bool,
    /// Source ranges let in; empty: all.
    sources: Vec<IpNet>,
    /// What it says itself to traffic without a backend (1.23; later versions leave it to the filter table).
    refusal: Option<NoBackends>,
    /// Whether the chain drops by mark what its source ranges leave out (1.23; later versions leave it to the filter table).
    drops_rest: bool,
}

impl Entry {
    const fn new(policy: Policy, port: usize) -> Self {
        Self {
            policy,
            masquerade: Masquerade::Never,
            knows_pods: false,
            port,
            ends: false,
            sources: Vec::new(),
            refusal: None,
            drops_rest: false,
        }
    }
}

/// `-p tcp --comment N --dport P -j X`, which all dispatch rules have.
const DISPATCH: Parts = Parts::PROTOCOL.and(Parts::COMMENT).and(Parts::DPORT).and(Parts::TARGET);

const NODE_PORTS_COMMENT: &str = "kubernetes service nodeports; NOTE: this must be the last rule in this chain";

impl<'a> Reader<'_, 'a> {
    pub(super) fn read_services(&mut self, nat: &Table<'a>, services: usize) {
        self.reached[services] = true;
        let mut node_ports = None;
        for (i, rule) in nat.rules_of(services).enumerate() {
            let spec = rule.spec();
            // Nothing may follow the dispatch of NodePorts: it would no longer be the last resort.
            let last = node_ports.is_some() && spec.target_name() != b"KUBE-NODEPORTS";
            let done = !last
                && match spec.target_name() {
                    b"KUBE-NODEPORTS" => self.node_ports_rule(nat, rule, i + 1, &spec, &mut node_ports),
                    _ => self.service_rule(nat, rule, i + 1, &spec).is_some(),
                };
            if !done {
                self.unknown(nat, rule, i + 1);
            }
        }
        match node_ports {
            Some(chain) => self.read_node_ports(nat, chain),
            None => self.incomplete(nat, services, "the rule that sends NodePorts to KUBE-NODEPORTS"),
        }
    }

    /// `-d VIP -p tcp --comment "N cluster IP" --dport 80 -j KUBE-SVC-H` and its kin.
    fn service_rule(&mut self, nat: &Table<'a>, rule: &Rule<'a>, number: usize, spec: &Spec<'a>) -> Option<()> {
        if !spec.is(DISPATCH.and(Parts::DESTINATION)) {
            return None;
        }
        let comment = spec.plain_comment()?;
        let (name, exposure) = [
            (" cluster IP", Exposure::ClusterIp),
            (" external IP", Exposure::ExternalIp),
            (" loadbalancer IP", Exposure::LoadBalancer),
        ]
        .iter()
        .find_map(|&(suffix, exposure)| Some((service_port(comment.strip_suffix(suffix)?)?, exposure)))?;
        let protocol = spec.protocol?;
        let key = FrontendKey { ip: spec.destination_host()?, port: spec.destination_port()?, protocol, exposure };
        let port = self.port(name, protocol);
        self.dispatch(nat, rule, number, spec.target_name(), key, port)
    }

    /// Follows a dispatch rule to its chain and drafts the frontend.
    fn dispatch(
        &mut self,
        nat: &Table<'a>,
        rule: &Rule<'a>,
        number: usize,
        target: &'a [u8],
        key: FrontendKey,
        port: usize,
    ) -> Option<()> {
        let (kind, _) = hashed(target)?;
        let cluster_ip = key.exposure == Exposure::ClusterIp;
        match kind {
            Hashed::Svc => {}
            Hashed::Svl if cluster_ip => {}
            Hashed::Ext | Hashed::Xlb if !cluster_ip => {}
            Hashed::Fw if key.exposure == Exposure::LoadBalancer => {}
            _ => return None,
        }
        // A missing chain has its own notice; the frontend is not there without it.
        let Some(chain) = self.follow(nat, rule, number, target) else { return Some(()) };
        self.check_hash(nat, rule, number, chain, port);
        let (masquerade, sources, refusal, wants_firewall) = match kind {
            Hashed::Svc | Hashed::Svl => {
                let list = self.list(nat, chain, port);
                let policy = if kind == Hashed::Svc { Policy::Cluster } else { Policy::Local };
                self.bind(nat, chain, port, policy, list);
                if cluster_ip {
                    self.lists[list].serves_cluster_ip = true;
                    self.ports[port].internal = Some(policy);
                } else {
                    self.ports[port].external = Some(policy);
                }
                (MasqueradeBy::List(list), Vec::new(), None, false)
            }
            _ => {
                let entry = self.entry(nat, chain, kind, port);
                self.ports[port].external = Some(entry.policy);
                let wants_firewall = !entry.sources.is_empty() && !entry.drops_rest;
                (MasqueradeBy::Path(entry.masquerade), entry.sources, entry.refusal, wants_firewall)
            }
        };
        let origin = self.origin(nat, rule.chain(), number);
        self.drafts.push(Draft { key, port, origin, masquerade, sources, refusal, refused_by: None, wants_firewall });
        Some(())
    }

    /// Gives a Service port its list; two lists of one kind cannot be.
    fn bind(&mut self, nat: &Table<'a>, chain: usize, port: usize, policy: Policy, list: usize) {
        let slot = match policy {
            Policy::Cluster => &mut self.ports[port].cluster,
            Policy::Local => &mut self.ports[port].local,
        };
        if slot.is_some_and(|known| known != list) {
            self.incomplete(nat, chain, "agreement with the other chains of its Service port");
        } else {
            *slot = Some(list);
        }
    }

    fn check_hash(&mut self, nat: &Table<'a>, rule: &Rule<'a>, number: usize, chain: usize, port: usize) {
        let name = nat.chains()[chain].name;
        let Port { name: service, protocol, hash: wanted, .. } = self.ports[port];
        if hashed(name).is_some_and(|(_, hash)| hash != wanted) && self.mismatches.insert((chain, port)) {
            let of = format!("{service} {}", protocol.lower());
            let at = self.origin(nat, rule.chain(), number);
            self.notices.push(Notice::HashMismatch { at, chain: String::from_utf8_lossy(name).into_owned(), of });
        }
    }

    /// An entry chain, read once.
    fn entry(&mut self, nat: &Table<'a>, chain: usize, kind: Hashed, port: usize) -> Entry {
        if let Some(known) = self.entry_of.get(&chain) {
            return known.clone();
        }
        let entry = match kind {
            Hashed::Fw => self.read_fw(nat, chain, port),
            _ => self.read_external(nat, chain, port),
        };
        self.entry_of.insert(chain, entry.clone());
        entry
    }

    /// `KUBE-EXT-`, or `KUBE-XLB-`: 1.23 wrote the latter under externalTrafficPolicy Local only, with the local endpoints in it.
    fn read_external(&mut self, nat: &Table<'a>, chain: usize, port: usize) -> Entry {
        let mut entry = Entry::new(Policy::Cluster, port);
        let mut choices = Balancing::default();
        let mut has_choices = false;
        let (mut node_marked, mut node_routed, mut ended) = (false, false, false);
        for (i, rule) in nat.rules_of(chain).enumerate() {
            let spec = rule.spec();
            let target = spec.target_name();
            let kind = hashed(target).map(|(kind, _)| kind);
            let parts = spec.parts.without(Parts::COMMENT);
            let plain = spec.negated == Parts::NONE && !ended;
            let from_node = parts == Parts::SRC_TYPE.and(Parts::TARGET) && spec.src_type == Some(b"LOCAL");
            let done = if !plain {
                false
            } else if parts == Parts::TARGET && target == b"KUBE-MARK-MASQ" {
                entry.masquerade = Masquerade::Always;
                true
            } else if parts == Parts::TARGET && kind == Some(Hashed::Svc) {
                ended = true;
                self.jump_to_list(nat, rule, i + 1, target, port, Policy::Cluster)
            } else if parts == Parts::TARGET && kind == Some(Hashed::Svl) {
                (entry.policy, ended) = (Policy::Local, true);
                self.jump_to_list(nat, rule, i + 1, target, port, Policy::Local)
            } else if from_node && !node_routed && target == b"KUBE-MARK-MASQ" {
                entry.policy = Policy::Local;
                node_marked = true;
                true
            } else if from_node && kind == Some(Hashed::Svc) {
                node_routed = true;
                self.jump_to_list(nat, rule, i + 1, target, port, Policy::Cluster)
            } else if (parts == Parts::SOURCE.and(Parts::TARGET) || parts == Parts::IN.and(Parts::TARGET))
                && !node_marked
                && kind == Some(Hashed::Svc)
                && let Some(detector) = detector(&spec)
            {
                entry.knows_pods = true;
                self.detected(detector, |r| r.origin(nat, rule.chain(), i + 1));
                self.jump_to_list(nat, rule, i + 1, target, port, Policy::Cluster)
            } else if parts == Parts::TARGET && target == b"KUBE-MARK-DROP" {
                (entry.refusal, ended) = (Some(NoBackends::Drop), true);
                self.drop_mark(nat, rule, i + 1);
                true
            } else if kind == Some(Hashed::Sep) {
                has_choices = true;
                self.choice_rule(nat, rule, i + 1, &spec, &mut choices)
            } else {
                false
            };
            if !done {
                self.unknown(nat, rule, i + 1);
            }
        }
        if has_choices {
            let list = self.close_list(nat, chain, port, choices);
            self.bind(nat, chain, port, Policy::Local, list);
        }
        entry.ends = ended || has_choices;
        let whole = match entry.policy {
            Policy::Cluster => entry.masquerade == Masquerade::Always && ended && !entry.knows_pods && !node_routed,
            Policy::Local => node_marked && node_routed && entry.masquerade == Masquerade::Never,
        };
        if !whole {
            self.incomplete(nat, chain, "a rule that external destinations need");
        }
        entry
    }

    /// What an entry chain under the Local policy lacks, once all rules are read: the others tell how pods are recognised and which
    /// endpoints are here.
    pub(super) fn check_entries(&mut self, nat: &Table<'a>) {
        let knows_pods = !matches!(self.own.facts.detector, Detector::Unknown | Detector::None);
        let external =
            |chain: &usize| matches!(hashed(nat.chains()[*chain].name), Some((Hashed::Ext | Hashed::Xlb, _)));
        let mut missing = Vec::new();
        for (chain, entry) in self.entry_of.iter().filter(|(chain, e)| e.policy == Policy::Local && external(chain)) {
            if knows_pods && !entry.knows_pods {
                missing.push((*chain, "the rule that sends pods to all endpoints"));
            }
            let local = self.ports[entry.port].local;
            if !entry.ends && local.is_some_and(|list| !self.lists[list].backends.is_empty()) {
                missing.push((*chain, "the jump to the endpoints of this node"));
            }
        }
        missing.sort_unstable();
        for (chain, what) in missing {
            self.incomplete(nat, chain, what);
        }
    }

    /// `KUBE-FW-`: 1.23 had one for every load-balancer Service, later versions where there are source ranges.
    fn read_fw(&mut self, nat: &Table<'a>, chain: usize, port: usize) -> Entry {
        let mut found: Option<Entry> = None;
        let (mut marked, mut open, mut closed, mut dropped) = (false, false, false, false);
        let mut ranges = Vec::new();
        for (i, rule) in nat.rules_of(chain).enumerate() {
            // 1.23 wrote all rules anew for each address of the load balancer: copies decide nothing.
            if nat.rules_of(chain).take(i).any(|before| before.body() == rule.body()) {
                continue;
            }
            let spec = rule.spec();
            let target = spec.target_name();
            let parts = spec.parts.without(Parts::COMMENT);
            let kind = hashed(target).map(|(kind, _)| kind);
            let done = if spec.negated != Parts::NONE || closed {
                false
            } else if spec.parts == Parts::COMMENT {
                // "other traffic to N will be dropped by KUBE-PROXY-FIREWALL"
                closed = true;
                true
            } else if parts == Parts::TARGET && target == b"KUBE-MARK-MASQ" {
                marked = true;
                true
            } else if parts == Parts::TARGET && target == b"KUBE-MARK-DROP" {
                (closed, dropped) = (true, true);
                self.drop_mark(nat, rule, i + 1);
                true
            } else if parts.without(Parts::SOURCE) == Parts::TARGET && !open {
                match spec.source {
                    Some(range) => ranges.push(range),
                    None => open = true,
                }
                self.fw_target(nat, rule, i + 1, kind, target, port, &mut found)
            } else {
                false
            };
            if !done {
                self.unknown(nat, rule, i + 1);
            }
        }
        if open {
            ranges.clear();
        } else if ranges.is_empty() {
            self.incomplete(nat, chain, "a source range");
        }
        ranges.sort_unstable();
        ranges.dedup();
        let mut entry = found.unwrap_or_else(|| Entry::new(Policy::Cluster, port));
        entry.drops_rest = dropped;
        if marked {
            entry.masquerade = Masquerade::Always;
        }
        entry.sources = ranges;
        entry
    }

    /// Where a rule of `KUBE-FW-` lets traffic through to; the same for all of them.
    #[expect(clippy::too_many_arguments, reason = "a rule is a table, a number and a target everywhere here")]
    fn fw_target(
        &mut self,
        nat: &Table<'a>,
        rule: &Rule<'a>,
        number: usize,
        kind: Option<Hashed>,
        target: &'a [u8],
        port: usize,
        found: &mut Option<Entry>,
    ) -> bool {
        match kind {
            Some(kind @ (Hashed::Ext | Hashed::Xlb)) => {
                if let Some(chain) = self.follow(nat, rule, number, target) {
                    self.check_hash(nat, rule, number, chain, port);
                    *found = Some(self.entry(nat, chain, kind, port));
                }
                true
            }
            Some(Hashed::Svc) => {
                *found = Some(Entry::new(Policy::Cluster, port));
                self.jump_to_list(nat, rule, number, target, port, Policy::Cluster)
            }
            _ => false,
        }
    }

    /// Reads the list a rule of an entry chain jumps to, as its Service port's.
    fn jump_to_list(
        &mut self,
        nat: &Table<'a>,
        rule: &Rule<'a>,
        number: usize,
        target: &'a [u8],
        port: usize,
        policy: Policy,
    ) -> bool {
        if let Some(chain) = self.follow(nat, rule, number, target) {
            self.check_hash(nat, rule, number, chain, port);
            let list = self.list(nat, chain, port);
            self.bind(nat, chain, port, policy, list);
        }
        true
    }

    fn drop_mark(&mut self, nat: &Table<'a>, rule: &Rule<'a>, number: usize) {
        self.drops_by_mark = true;
        self.follow(nat, rule, number, b"KUBE-MARK-DROP");
    }

    /// The rules at the end of `KUBE-SERVICES` that send the node's own addresses to `KUBE-NODEPORTS`.
    fn node_ports_rule(
        &mut self,
        nat: &Table<'a>,
        rule: &Rule<'a>,
        number: usize,
        spec: &Spec<'a>,
        chain: &mut Option<usize>,
    ) -> bool {
        if spec.plain_comment() != Some(NODE_PORTS_COMMENT) {
            return false;
        }
        let base = Parts::COMMENT.and(Parts::TARGET);
        let local = spec.parts.without(Parts::DESTINATION) == base.and(Parts::DST_TYPE);
        let scope = if local && spec.dst_type == Some(b"LOCAL") {
            let spares_loopback = match spec.destination {
                None => false,
                Some(net) if spec.negated == Parts::DESTINATION && is_loopback(net) => true,
                Some(_) => return false,
            };
            // The kernel never routes ::1 off the loopback device, whatever the rule says (rules before 1.26 spared nothing).
            NodePortScope::All { loopback: self.family == Family::V4 && !spares_loopback }
        } else if spec.is(base.and(Parts::DESTINATION))
            && let Some(ip) = spec.destination_host()
        {
            NodePortScope::Addresses(BTreeSet::from([ip]))
        } else {
            return false;
        };
        if let Some(followed) = self.follow(nat, rule, number, b"KUBE-NODEPORTS") {
            *chain = Some(followed);
        }
        widen(&mut self.own.facts.node_ports, scope);
        true
    }

    fn read_node_ports(&mut self, nat: &Table<'a>, chain: usize) {
        // A rule for 127.0.0.0/8 in front of the general one: counts packets (1.32 and later), or marks them (1.23).
        let mut ahead: Option<(usize, &Rule<'a>, Spec<'a>)> = None;
        for (i, rule) in nat.rules_of(chain).enumerate() {
            let spec = rule.spec();
            let loopback = spec.destination.or(spec.source);
            self.note_nfacct(&spec);
            if let Some(net) = loopback
                && ahead.is_none()
                && is_loopback(net)
                && spec.negated == Parts::NONE
            {
                ahead = Some((i + 1, rule, spec));
                continue;
            }
            if let Some((number, before, special)) = ahead.take()
                && !announces(&special, &spec)
            {
                self.unknown(nat, before, number);
            }
            if self.node_port(nat, rule, i + 1, &spec).is_none() {
                self.unknown(nat, rule, i + 1);
            }
        }
        if let Some((number, rule, _)) = ahead {
            self.unknown(nat, rule, number);
        }
    }

    /// `-p tcp --comment N --dport 30080 -j KUBE-EXT-H`.
    fn node_port(&mut self, nat: &Table<'a>, rule: &Rule<'a>, number: usize, spec: &Spec<'a>) -> Option<()> {
        if !spec.is(DISPATCH) {
            return None;
        }
        let name = service_port(spec.plain_comment()?)?;
        let protocol = spec.protocol?;
        let key = node_port_key(self.family, spec.destination_port()?, protocol);
        let port = self.port(name, protocol);
        self.dispatch(nat, rule, number, spec.target_name(), key, port)
    }
}

/// Whether `special`, for loopback addresses, is the companion of the NodePort rule `general` behind it.
fn announces(special: &Spec<'_>, general: &Spec<'_>) -> bool {
    let same_port = special.dport == general.dport && special.protocol == general.protocol;
    let counts = special.parts == DISPATCH.and(Parts::DESTINATION).and(Parts::NFACCT)
        && special.target_name() == general.target_name();
    let marks = special.parts == DISPATCH.and(Parts::SOURCE) && special.target_name() == b"KUBE-MARK-MASQ";
    same_port && (counts || marks)
}

fn is_loopback(net: IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.addr() == Ipv4Addr::new(127, 0, 0, 0) && net.prefix_len() == 8,
        IpNet::V6(net) => IpAddr::V6(net.addr()).is_loopback() && net.prefix_len() == 128,
    }
}

/// Checks that a text has the form `namespace/name` or `namespace/name:port`.
pub(super) fn service_port(text: &str) -> Option<&str> {
    let (namespace, rest) = text.split_once('/')?;
    let name = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
    };
    let (service, port) = rest.split_once(':').map_or((rest, None), |(service, port)| (service, Some(port)));
    (name(namespace) && name(service) && port.is_none_or(name)).then_some(text)
}
