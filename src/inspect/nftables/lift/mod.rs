//! kube-proxy's nftables tables, of every version recorded, lifted into the ServiceTable.
//!
//! Only what packets can meet is lifted: reading starts at the verdict maps that the base chains reach. What no known
//! kube-proxy writes is reported and never guessed at.

mod checks;
mod element;
mod entry;
mod fixed;
mod list;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;

pub use self::checks::without_hairpin;
use self::entry::Entry;
use self::fixed::{ClusterMasquerade, Fixed};
use self::list::List;
use super::name::{ChainKind, ChainName};
use super::notice::{Notice, Part, Place};
use super::ruleset::{Addresses, Element, Key, Match, Rule, Ruleset, Set, Side, Statement, Table, Verdict};
use crate::model::{
    Backend, Detector, Exposure, Family, Frontend, FrontendKey, Masquerade, NoBackends, NodeFacts, Origin, Policy,
    Protocol, ServiceName, ServiceTable,
};

/// kube-proxy's tables of one node, as a ServiceTable, with what must be said besides.
#[derive(Clone, Debug, Default)]
pub struct Lift {
    /// The table.
    ///
    /// nftables mode does not tell load-balancer addresses from external IPs: those with source ranges are
    /// [`Exposure::LoadBalancer`], all others [`Exposure::ExternalIp`]. Health checks are unknown.
    pub table: ServiceTable,
    /// What the table does not tell.
    pub notices: Vec<Notice>,
    /// The mark that asks for masquerading (kube-proxy's `masqueradeBit`), of IPv4 and of IPv6.
    pub masquerade_marks: [Option<u32>; 2],
}

/// Lifts both tables; a family without a table is left unknown.
pub fn lift(ruleset: &Ruleset) -> Lift {
    let mut lift = Lift::default();
    let mut frontends = Vec::new();
    let mut facts = [NodeFacts::default(), NodeFacts::default()];
    for (i, family) in Family::BOTH.into_iter().enumerate() {
        let Some(table) = ruleset.table(family) else { continue };
        let mut reader = Reader::new(family, table);
        reader.read();
        lift.masquerade_marks[i] = Some(reader.fixed.mark);
        facts[i] = reader.facts();
        frontends.extend(reader.drafts.iter().map(|draft| reader.frontend(draft)));
        lift.notices.append(&mut reader.notices);
    }
    let [v4, v6] = facts;
    lift.table = ServiceTable::new(frontends, v4, v6);
    lift
}

/// One Service port, as names and comments tell it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    service: ServiceName,
    name: String,
    protocol: Protocol,
}

/// What the frontends of one Service port share, as far as they tell.
#[derive(Clone, Debug, Default)]
struct Shared {
    internal: Option<Policy>,
    external: Option<Policy>,
    cluster: Option<Rc<List>>,
    local: Option<Rc<List>>,
}

impl Shared {
    fn list(&self, policy: Policy) -> Option<&Rc<List>> {
        match policy {
            Policy::Cluster => self.cluster.as_ref(),
            Policy::Local => self.local.as_ref(),
        }
    }

    fn backends(&self, policy: Policy) -> &[Backend] {
        self.list(policy).map_or(&[], |list| &list.backends)
    }

    const fn set_policy(&mut self, exposure: Exposure, policy: Policy) {
        if exposure.is_external() {
            self.external = Some(policy);
        } else {
            self.internal = Some(policy);
        }
    }
}

/// A frontend whose Service port may still have more to say.
struct Draft {
    key: FrontendKey,
    port: Option<Port>,
    /// Whether its packets reach the lists of the Service port.
    served: bool,
    policy: Policy,
    sources: Vec<IpNet>,
    masquerade: Masquerade,
    no_backends: Option<NoBackends>,
    origin: Origin,
}

/// Reads one table.
struct Reader<'a> {
    family: Family,
    table: &'a Table,
    fixed: Fixed,
    detector: Option<Detector>,
    /// Chains and affinity sets that packets reach.
    reached: HashSet<&'a str>,
    lists: HashMap<&'a str, Rc<List>>,
    entries: HashMap<&'a str, Rc<Entry>>,
    /// Endpoints of this node; `None` where the table does not list them.
    here: Option<HashSet<(IpAddr, Protocol, u16)>>,
    cluster_ips: HashSet<IpAddr>,
    shared: BTreeMap<Port, Shared>,
    drafts: Vec<Draft>,
    notices: Vec<Notice>,
}

/// Elements of a map that frontends are refused by, by key.
type Refusals<'a> = HashMap<&'a Key, (&'a Element, NoBackends)>;

impl<'a> Reader<'a> {
    fn new(family: Family, table: &'a Table) -> Self {
        Self {
            family,
            table,
            fixed: Fixed::default(),
            detector: None,
            reached: HashSet::new(),
            lists: HashMap::new(),
            entries: HashMap::new(),
            here: None,
            cluster_ips: HashSet::new(),
            shared: BTreeMap::new(),
            drafts: Vec::new(),
            notices: Vec::new(),
        }
    }

    fn read(&mut self) {
        self.read_fixed();
        self.cluster_ips = self.addresses("cluster-ips");
        self.here = self.table.sets.contains_key("hairpin-connections").then(|| self.hairpins());
        let firewalls = self.firewalls();
        self.read_map("service-ips", "no-endpoint-services", &firewalls);
        self.read_map("service-nodeports", "no-endpoint-nodeports", &HashMap::new());
        self.check_short_circuits();
        self.check_hairpins();
        self.report_stale();
    }

    fn set(&self, name: &str) -> Option<&'a Set> {
        self.table.sets.get(name)
    }

    fn element_place(&self, map: &str, key: &Key) -> Place {
        let is_map = self.set(map).is_some_and(|set| set.is_map);
        let kind = if is_map { "map" } else { "set" };
        Place { family: self.family, kind, name: map.into(), part: Part::Element(key.to_string().into()) }
    }

    fn rule_place(&self, chain: &str, number: usize, rule: &Rule) -> Place {
        let part = Part::Rule { number, handle: rule.handle };
        Place { part, ..Place::chain(self.family, chain) }
    }

    fn unknown_rule(&mut self, chain: &str, number: usize, rule: &Rule) {
        let at = self.rule_place(chain, number, rule);
        self.notices.push(Notice::UnknownRule { at, rule: rule.text(self.family).to_string() });
    }

    fn unknown_element(&mut self, set: &str, key: &Key) {
        self.notices.push(Notice::UnknownElement { at: self.element_place(set, key) });
    }

    fn incomplete(&mut self, chain: &str, missing: &str) {
        let chain = Place::chain(self.family, chain);
        self.notices.push(Notice::IncompleteChain { chain, missing: missing.to_owned() });
    }

    /// The rules of a chain that a verdict leads to; a chain that is not there is reported.
    fn follow(&mut self, name: &'a str) -> Option<&'a [Rule]> {
        self.reached.insert(name);
        let chain = self.table.chains.get(name);
        if chain.is_none() {
            let notice = Notice::Missing { what: Place::chain(self.family, name) };
            if !self.notices.contains(&notice) {
                self.notices.push(notice);
            }
        }
        chain.map(|chain| &*chain.rules)
    }

    /// Takes a chain's name apart; one that is not kube-proxy's is reported.
    fn name(&mut self, name: &'a str) -> Option<ChainName<'a>> {
        match ChainName::parse(name) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                let notice = Notice::BadName { at: Place::chain(self.family, name), error };
                if !self.notices.contains(&notice) {
                    self.notices.push(notice);
                }
                None
            }
        }
    }

    /// Whether these statements mark the packet for masquerading, and do nothing else.
    fn marks(&self, statements: &[Statement]) -> bool {
        match statements {
            [Statement::MarkOr(bits)] => *bits == self.fixed.mark,
            [Statement::Verdict(Verdict::Jump(chain))] => &**chain == "mark-for-masquerade",
            _ => false,
        }
    }

    /// The way to recognise pods in a match, if it is one; `not` tells whether it matches everything but pods.
    fn detector_in(condition: &Match, not: bool) -> Option<Detector> {
        match condition {
            Match::Address { side: Side::Source, not: negated, among: Addresses::Nets(nets) } if *negated == not => {
                match nets.as_slice() {
                    [net] => Some(Detector::Cidr(*net)),
                    _ => None,
                }
            }
            Match::Interface { not: negated, name, .. } if *negated == not => Some(match name.strip_suffix('*') {
                Some(prefix) => Detector::InterfacePrefix(prefix.to_owned()),
                None => Detector::Interface(name.to_string()),
            }),
            _ => None,
        }
    }

    fn saw_detector(&mut self, detector: Detector, chain: &str, number: usize, rule: &Rule) {
        match &self.detector {
            Some(known) if *known != detector => {
                let at = self.rule_place(chain, number, rule);
                self.notices.push(Notice::MixedDetectors { at });
            }
            Some(_) => {}
            None => self.detector = Some(detector),
        }
    }

    fn addresses(&mut self, name: &'static str) -> HashSet<IpAddr> {
        let mut found = HashSet::new();
        for element in self.set(name).map_or(&[][..], |set| &set.elements) {
            match element.key {
                Key::Address(ip) => {
                    found.insert(ip);
                }
                _ => self.unknown_element(name, &element.key),
            }
        }
        found
    }

    fn hairpins(&mut self) -> HashSet<(IpAddr, Protocol, u16)> {
        let mut found = HashSet::new();
        for element in self.set("hairpin-connections").map_or(&[][..], |set| &set.elements) {
            match element.key {
                Key::Hairpin(source, destination, protocol, port) if source == destination => {
                    found.insert((source, protocol, port));
                }
                _ => self.unknown_element("hairpin-connections", &element.key),
            }
        }
        found
    }

    /// Source ranges by load-balancer address.
    fn firewalls(&mut self) -> HashMap<Key, (Port, Vec<IpNet>)> {
        let mut found = HashMap::new();
        for element in self.set("firewall-ips").map_or(&[][..], |set| &set.elements) {
            let (Key::Service(_, protocol, _), Some(Verdict::Goto(chain))) = (&element.key, &element.verdict) else {
                self.unknown_element("firewall-ips", &element.key);
                continue;
            };
            match self.name(chain) {
                Some(name) if name.kind == ChainKind::Firewall && name.protocol == *protocol => {
                    if let Some(rules) = self.follow(chain) {
                        let sources = self.source_ranges(chain, rules);
                        found.insert(element.key.clone(), (port_of(&name), sources));
                    }
                }
                Some(_) => self.unknown_element("firewall-ips", &element.key),
                None => {}
            }
        }
        found
    }

    /// `ip saddr != { RANGES } drop`.
    fn source_ranges(&mut self, chain: &str, rules: &[Rule]) -> Vec<IpNet> {
        let mut ranges = None;
        for (i, rule) in rules.iter().enumerate() {
            match rule.statements.as_slice() {
                [
                    Statement::Match(Match::Address { side: Side::Source, not: true, among: Addresses::Nets(nets) }),
                    Statement::Verdict(Verdict::Drop),
                ] if ranges.is_none() => ranges = Some(nets.clone()),
                _ => self.unknown_rule(chain, i + 1, rule),
            }
        }
        if ranges.is_none() {
            self.incomplete(chain, "the rule that drops other sources");
        }
        let mut ranges = ranges.unwrap_or_default();
        ranges.sort_unstable();
        ranges.dedup();
        ranges
    }

    /// The elements that refuse, by key.
    fn refusals(&mut self, name: &'static str) -> Refusals<'a> {
        let mut found = HashMap::new();
        for element in self.set(name).map_or(&[][..], |set| &set.elements) {
            let verdict = match &element.verdict {
                Some(Verdict::Drop) => NoBackends::Drop,
                Some(Verdict::Goto(chain)) if &**chain == "reject-chain" => NoBackends::Reject,
                _ => {
                    self.unknown_element(name, &element.key);
                    continue;
                }
            };
            found.insert(&element.key, (element, verdict));
        }
        found
    }

    fn frontend(&self, draft: &Draft) -> Frontend {
        let unknown = Shared::default();
        let shared = draft.port.as_ref().and_then(|port| self.shared.get(port)).unwrap_or(&unknown);
        let (internal_policy, external_policy) = if draft.key.exposure.is_external() {
            (shared.internal.unwrap_or_default(), draft.policy)
        } else {
            (draft.policy, shared.external.unwrap_or_default())
        };
        let lists = if draft.served { shared } else { &unknown };
        // The two lists share the memory of an endpoint, and with it the time-out.
        let affinity = [draft.policy, Policy::Cluster].into_iter().find_map(|policy| lists.list(policy)?.affinity);
        Frontend {
            key: draft.key,
            service: draft.port.as_ref().map(|port| port.service.clone()),
            port_name: draft.port.as_ref().map(|port| port.name.clone()).filter(|name| !name.is_empty()),
            cluster: lists.backends(Policy::Cluster).to_vec(),
            local: lists.backends(Policy::Local).to_vec(),
            internal_policy,
            external_policy,
            affinity,
            sources: draft.sources.clone(),
            masquerade: draft.masquerade,
            no_backends: draft.no_backends,
            selection: None,
            forwarding: None,
            origin: draft.origin.clone(),
        }
    }

    fn facts(&self) -> NodeFacts {
        let detector = match (&self.detector, self.fixed.cluster_masquerade) {
            (Some(detector), _) => detector.clone(),
            (None, ClusterMasquerade::All(Masquerade::Never)) => Detector::None,
            (None, ClusterMasquerade::PerService) if !self.cluster_ips.is_empty() => Detector::None,
            (None, _) => Detector::Unknown,
        };
        NodeFacts { detector, node_ports: self.fixed.node_ports.clone() }
    }
}

fn port_of(name: &ChainName<'_>) -> Port {
    Port { service: name.service.clone(), name: name.port_name.to_owned(), protocol: name.protocol }
}
