//! kube-proxy's nftables tables, of every version recorded, lifted into the ServiceTable.
//!
//! Only what packets can meet is lifted: reading starts at the verdict maps that the base chains reach. What no known
//! kube-proxy writes is reported and never guessed at.

mod entry;
mod fixed;
mod list;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;

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

    /// Reads a map of frontends together with the map that refuses those without a backend.
    fn read_map(&mut self, map: &'static str, refusing: &'static str, firewalls: &HashMap<Key, (Port, Vec<IpNet>)>) {
        let mut refusals = self.refusals(refusing);
        for element in self.set(map).map_or(&[][..], |set| &set.elements) {
            let refusal = refusals.remove(&element.key);
            if !self.frontend_element(map, element, refusal, refusing, firewalls) {
                self.unknown_element(map, &element.key);
            }
        }
        let mut rest: Vec<_> = refusals.into_values().collect();
        rest.sort_by_key(|(element, _)| &element.key);
        for (element, verdict) in rest {
            if !self.refused_element(map, refusing, element, verdict, firewalls) {
                self.unknown_element(refusing, &element.key);
            }
        }
    }

    /// Drafts the frontend of one element of `service-ips` or `service-nodeports`; `false` if it is not kube-proxy's.
    fn frontend_element(
        &mut self,
        map: &'static str,
        element: &'a Element,
        refusal: Option<(&'a Element, NoBackends)>,
        refusing: &'static str,
        firewalls: &HashMap<Key, (Port, Vec<IpNet>)>,
    ) -> bool {
        let Some(Verdict::Goto(target)) = &element.verdict else { return false };
        let Some(name) = self.name(target) else { return true };
        let cluster_ip = matches!(name.kind, ChainKind::Service | ChainKind::Local);
        let firewall = firewalls.get(&element.key);
        let Some(key) = self.key(&element.key, cluster_ip, firewall.is_some()) else { return false };
        if key.protocol != name.protocol || firewall.is_some_and(|(port, _)| *port != port_of(&name)) {
            return false;
        }
        let entry = match name.kind {
            ChainKind::Service | ChainKind::Local if key.exposure == Exposure::ClusterIp => {
                if !self.cluster_ips.contains(&key.ip) {
                    let what = self.element_place("cluster-ips", &Key::Address(key.ip));
                    self.notices.push(Notice::Missing { what });
                }
                let policy = if name.kind == ChainKind::Service { Policy::Cluster } else { Policy::Local };
                let list = self.list(target, &name);
                let masquerade = self.cluster_masquerade(&list, key);
                let (cluster, local) = match policy {
                    Policy::Cluster => (Some(list), None),
                    Policy::Local => (None, Some(list)),
                };
                Rc::new(Entry { policy, masquerade, knows_pods: false, cluster, local })
            }
            ChainKind::External if key.exposure != Exposure::ClusterIp => self.entry(target, &name),
            _ => return false,
        };
        let own = match entry.policy {
            Policy::Cluster => &entry.cluster,
            Policy::Local => &entry.local,
        };
        let empty = own.as_ref().is_none_or(|list| list.backends.is_empty());
        let no_backends = match (empty, refusal) {
            (true, Some((_, NoBackends::Drop))) if entry.policy == Policy::Local => {
                if self.fixed.refuses_output_early && key.exposure.is_external() && key.exposure != Exposure::NodePort {
                    self.notices.push(Notice::NodeTrafficRefused { key });
                }
                Some(NoBackends::Drop)
            }
            (true, None) => {
                self.notices.push(Notice::Unanswered { key });
                Some(NoBackends::Drop)
            }
            (false, None) => None,
            (empty, Some((element, verdict))) => {
                let at = self.element_place(refusing, &element.key);
                self.notices.push(Notice::Contradiction { at });
                empty.then_some(verdict)
            }
        };
        let port = port_of(&name);
        let shared = self.shared.entry(port.clone()).or_default();
        shared.set_policy(key.exposure, entry.policy);
        shared.cluster = shared.cluster.take().or_else(|| entry.cluster.clone());
        shared.local = shared.local.take().or_else(|| entry.local.clone());
        self.drafts.push(Draft {
            key,
            port: Some(port),
            served: true,
            policy: entry.policy,
            sources: firewall.map_or_else(Vec::new, |(_, sources)| sources.clone()),
            masquerade: entry.masquerade,
            no_backends,
            origin: self.origin(map, &element.key),
        });
        true
    }

    /// Drafts the frontend of an element that refuses and has no chain; `false` if it is not kube-proxy's.
    fn refused_element(
        &mut self,
        map: &'static str,
        refusing: &'static str,
        element: &'a Element,
        verdict: NoBackends,
        firewalls: &HashMap<Key, (Port, Vec<IpNet>)>,
    ) -> bool {
        let cluster_ip = matches!(element.key, Key::Service(ip, ..) if self.cluster_ips.contains(&ip));
        let firewall = firewalls.get(&element.key);
        let Some(key) = self.key(&element.key, cluster_ip, firewall.is_some()) else { return false };
        let port = element.comment.as_deref().and_then(|comment| port_in_comment(comment, key.protocol));
        let policy = if verdict == NoBackends::Drop { Policy::Local } else { Policy::Cluster };
        if key.exposure.is_external() && verdict == NoBackends::Drop {
            // Pods and the node itself would be sent to the endpoints of other nodes.
            self.notices.push(Notice::Missing { what: self.element_place(map, &element.key) });
        }
        if let Some(port) = &port
            && policy == Policy::Local
        {
            self.shared.entry(port.clone()).or_default().set_policy(key.exposure, policy);
        }
        self.drafts.push(Draft {
            key,
            port,
            served: false,
            policy,
            sources: firewall.map_or_else(Vec::new, |(_, sources)| sources.clone()),
            masquerade: self.refused_masquerade(key.exposure, policy),
            no_backends: Some(verdict),
            origin: self.origin(refusing, &element.key),
        });
        true
    }

    /// What would happen to a packet's source if it had a backend to go to.
    fn refused_masquerade(&self, exposure: Exposure, policy: Policy) -> Masquerade {
        match (exposure, policy, self.fixed.cluster_masquerade) {
            (Exposure::ClusterIp, _, ClusterMasquerade::All(masquerade)) => masquerade,
            (Exposure::ClusterIp, _, ClusterMasquerade::PerService) => Masquerade::OffCluster,
            (_, Policy::Cluster, _) => Masquerade::Always,
            (_, Policy::Local, _) => Masquerade::Never,
        }
    }

    fn key(&self, key: &Key, cluster_ip: bool, has_firewall: bool) -> Option<FrontendKey> {
        match *key {
            Key::Service(ip, protocol, port) => {
                let exposure = match (cluster_ip, has_firewall) {
                    (true, false) => Exposure::ClusterIp,
                    (true, true) => return None,
                    (false, true) => Exposure::LoadBalancer,
                    (false, false) => Exposure::ExternalIp,
                };
                Some(FrontendKey { ip, port, protocol, exposure })
            }
            Key::NodePort(protocol, port) if !cluster_ip => {
                Some(FrontendKey { ip: self.family.unspecified(), port, protocol, exposure: Exposure::NodePort })
            }
            _ => None,
        }
    }

    fn cluster_masquerade(&self, list: &List, key: FrontendKey) -> Masquerade {
        match self.fixed.cluster_masquerade {
            ClusterMasquerade::All(masquerade) => masquerade,
            ClusterMasquerade::PerService => {
                let mine = list.masquerades.iter().find(|(ip, port, _)| (*ip, *port) == (key.ip, key.port));
                mine.map_or(Masquerade::Never, |(_, _, masquerade)| *masquerade)
            }
        }
    }

    fn origin(&self, map: &'static str, key: &Key) -> Origin {
        Origin::NftElement { family: self.family, map, key: key.to_string().into() }
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

    /// With a way to recognise pods, every entry under the Local policy must use it.
    fn check_short_circuits(&mut self) {
        if self.detector.is_none() {
            return;
        }
        let mut lacking: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.policy == Policy::Local && !entry.knows_pods)
            .map(|(name, _)| *name)
            .collect();
        lacking.sort_unstable();
        for chain in lacking {
            self.incomplete(chain, "the rule that sends pods to the endpoints of the cluster");
        }
    }

    /// The endpoints of Local lists are on this node.
    fn check_hairpins(&mut self) {
        let Some(here) = &self.here else { return };
        let mut lacking = BTreeSet::new();
        for (port, shared) in &self.shared {
            for backend in shared.backends(Policy::Local) {
                if !here.contains(&(backend.ip, port.protocol, backend.port)) {
                    lacking.insert(address((port.protocol, backend)));
                }
            }
        }
        self.notices.extend(lacking.into_iter().map(|endpoint| Notice::NoHairpin { endpoint }));
    }

    /// Chains of Service ports and sets of endpoints that nothing leads to.
    fn report_stale(&mut self) {
        let chains = self.table.chains.iter().map(|(name, chain)| ("chain", &**name, chain.rules.len()));
        let sets = self.table.sets.iter().map(|(name, set)| {
            let kind = if set.is_map { "map" } else { "set" };
            (kind, &**name, set.elements.len())
        });
        for (kind, name, size) in chains.chain(sets) {
            if name.contains('/') && !self.reached.contains(name) {
                let what = Place { kind, ..Place::chain(self.family, name) };
                self.notices.push(match ChainName::parse(name) {
                    Ok(_) => Notice::Stale { what, size },
                    Err(error) => Notice::BadName { at: what, error },
                });
            }
        }
    }
}

/// Endpoints that run on this node, as the API says, and that the tables do not masquerade when they connect to themselves.
///
/// The lift reports those in Local lists on its own; where the others run, only the API knows.
pub fn without_hairpin(tables: &ServiceTable, api: &ServiceTable) -> Vec<Notice> {
    let here: BTreeSet<_> = endpoints(api).filter(|(_, backend)| backend.local == Some(true)).map(address).collect();
    let lacking: BTreeSet<_> = endpoints(tables)
        .filter(|(_, backend)| backend.local == Some(false))
        .map(address)
        .filter(|endpoint| here.contains(endpoint))
        .collect();
    lacking.into_iter().map(|endpoint| Notice::NoHairpin { endpoint }).collect()
}

fn endpoints(table: &ServiceTable) -> impl Iterator<Item = (Protocol, &Backend)> {
    table.frontends().iter().flat_map(|f| f.cluster.iter().chain(&f.local).map(|backend| (f.key.protocol, backend)))
}

fn address((protocol, backend): (Protocol, &Backend)) -> String {
    format!("{}/{protocol}", backend.addr())
}

fn port_of(name: &ChainName<'_>) -> Port {
    Port { service: name.service.clone(), name: name.port_name.to_owned(), protocol: name.protocol }
}

/// `namespace/name:port`, or `namespace/name` for an unnamed port.
fn port_in_comment(comment: &str, protocol: Protocol) -> Option<Port> {
    let (service, port) = comment.split_once(':').unwrap_or((comment, ""));
    let (namespace, name) = service.split_once('/')?;
    let service = ServiceName { namespace: namespace.to_owned(), name: name.to_owned() };
    Some(Port { service, name: port.to_owned(), protocol })
}
