//! kube-proxy's chains, of every version from 1.23 to 1.36, lifted into the ServiceTable.
//!
//! Only what packets can meet is lifted: reading starts at the built-in chains' jumps and follows the rules. A rule that no
//! known kube-proxy writes is reported and never guessed at.

mod balance;
mod filter;
mod fixed;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ipnet::IpNet;

use self::balance::List;
use super::Map;
use super::dump::{Dump, Rule, Table};
use super::hash::{HASH_LEN, chain_hash};
use super::notice::{Notice, Place};
use crate::model::{
    Backend, Detector, Exposure, Family, Frontend, FrontendKey, Masquerade, NoBackends, NodeFacts, NodePortScope,
    Origin, Policy, Protocol, ServiceName, ServiceTable,
};

/// kube-proxy's rules of one node, as a table, with what must be said besides.
#[derive(Clone, Debug, Default)]
pub struct Lifted {
    /// The table.
    pub table: ServiceTable,
    /// What the table does not tell.
    pub notices: Vec<Notice>,
    /// IPv4's and IPv6's share, in this order.
    pub families: [FamilySummary; 2],
}

/// What one family's rules consist of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilySummary {
    /// Whether kube-proxy in iptables mode has Service rules here.
    pub programmed: bool,
    /// Frontends lifted.
    pub frontends: usize,
    /// kube-proxy's chains by table.
    pub chains: BTreeMap<String, usize>,
    /// Rules inside kube-proxy's chains by table.
    pub rules: BTreeMap<String, usize>,
    /// The mark that asks for masquerading (kube-proxy's `masqueradeBit`).
    pub masquerade_mark: Option<u32>,
    /// nfacct objects that rules name: they must exist before a restore of the rules.
    pub nfacct: BTreeSet<String>,
}

impl FamilySummary {
    /// kube-proxy's chains in all tables.
    pub fn all_chains(&self) -> usize {
        self.chains.values().sum()
    }

    /// Rules inside kube-proxy's chains of all tables.
    pub fn all_rules(&self) -> usize {
        self.rules.values().sum()
    }
}

/// Lifts one backend's rules of both families; a family that was not saved is left unknown.
pub fn lift(v4: Option<&Dump<'_>>, v6: Option<&Dump<'_>>) -> Lifted {
    let mut frontends = Vec::new();
    let mut facts = [NodeFacts::default(), NodeFacts::default()];
    let mut health: Option<BTreeMap<u16, BTreeSet<ServiceName>>> = None;
    let mut lifted = Lifted::default();
    for (i, (family, dump)) in [(Family::V4, v4), (Family::V6, v6)].into_iter().enumerate() {
        let Some(dump) = dump else { continue };
        let mut reader = Reader::new(family, dump);
        reader.read();
        let (own, notices) = reader.finish(&mut frontends);
        lifted.notices.extend(notices);
        facts[i] = own.facts;
        if own.summary.programmed {
            let all = health.get_or_insert_default();
            for (port, services) in own.health {
                all.entry(port).or_default().extend(services);
            }
        }
        lifted.families[i] = own.summary;
    }
    let [v4, v6] = facts;
    lifted.table = ServiceTable::new(frontends, v4, v6);
    report_conflicts(&lifted.table, &mut lifted.notices);
    lifted.table.health_checks = health;
    lifted
}

/// What a family gives besides frontends.
#[derive(Default)]
struct Own {
    facts: NodeFacts,
    health: BTreeMap<u16, BTreeSet<ServiceName>>,
    summary: FamilySummary,
}

/// A Service port, as far as rules have told of it.
struct Port<'a> {
    /// `namespace/name:port`, or `namespace/name`.
    name: &'a str,
    protocol: Protocol,
    hash: [u8; HASH_LEN],
    internal: Option<Policy>,
    external: Option<Policy>,
    /// Index of the list for the Cluster policy.
    cluster: Option<usize>,
    /// Index of the list for the Local policy.
    local: Option<usize>,
}

/// Where a draft's masquerading is decided.
#[derive(Clone, Copy)]
enum MasqueradeBy {
    /// By the rules at the head of this list's chain.
    List(usize),
    /// On the way to it.
    Path(Masquerade),
    /// There are no backends to masquerade for.
    Nothing,
}

/// A frontend before all rules of its Service port are known.
struct Draft {
    key: FrontendKey,
    port: usize,
    origin: Origin,
    masquerade: MasqueradeBy,
    sources: Vec<IpNet>,
    /// What a filter rule says to packets that no backend took.
    refusal: Option<NoBackends>,
    refused_by: Option<(Origin, String)>,
    /// Whether a filter rule must drop what its source ranges leave out.
    wants_firewall: bool,
}

struct Reader<'d, 'a> {
    family: Family,
    dump: &'d Dump<'a>,
    own: Own,
    notices: Vec<Notice>,
    ports: Vec<Port<'a>>,
    port_index: Map<(&'a str, Protocol), usize>,
    lists: Vec<List>,
    drafts: Vec<Draft>,
    /// Which chains of nat were reached.
    reached: Vec<bool>,
    /// Endpoint chains of the usual shape, by index of the nat chain.
    endpoints: Vec<Option<balance::Endpoint>>,
    /// Those that are not, once they were read: number of the DNAT rule and address.
    odd_endpoint_of: Map<usize, Option<(usize, SocketAddr)>>,
    /// Endpoint chains whose hash was checked, by index of the nat chain.
    endpoint_checked: Vec<bool>,
    /// Chains and Service ports whose hashes were reported to differ.
    mismatches: BTreeSet<(usize, usize)>,
    /// Lists and entry chains already read, by index of the nat chain.
    list_of: Map<usize, usize>,
    entry_of: Map<usize, services::Entry>,
    /// Whether a rule ends in KUBE-MARK-DROP.
    drops_by_mark: bool,
}

impl<'d, 'a> Reader<'d, 'a> {
    fn new(family: Family, dump: &'d Dump<'a>) -> Self {
        let nat_chains = dump.table("nat").map_or(0, |t| t.chains().len());
        Self {
            family,
            dump,
            own: Own::default(),
            notices: Vec::new(),
            ports: Vec::new(),
            port_index: Map::default(),
            lists: Vec::new(),
            drafts: Vec::new(),
            reached: vec![false; nat_chains],
            endpoints: Vec::new(),
            odd_endpoint_of: Map::default(),
            endpoint_checked: vec![false; nat_chains],
            mismatches: BTreeSet::new(),
            list_of: Map::default(),
            entry_of: Map::default(),
            drops_by_mark: false,
        }
    }

    fn read(&mut self) {
        let (hashed, ipvs) = self.summarise();
        self.repeated_tables();
        let nat = self.dump.table("nat");
        if ipvs && !hashed {
            self.notices.push(Notice::IpvsMode { family: self.family });
            return;
        }
        let services = nat.and_then(|t| Some((t, t.chain(b"KUBE-SERVICES")?)));
        if let Some((nat, services)) = services
            && (hashed || nat.rules_of(services).len() > 0)
        {
            self.own.summary.programmed = true;
            self.read_endpoints(nat);
            self.read_services(nat, services);
            self.read_filter();
            self.read_fixed(nat);
        }
        self.jumps();
        self.leftovers();
        self.detector();
        if let Some((nat, _)) = services {
            self.check_entries(nat);
        }
    }

    /// The Service port that a comment names, made when it is first met.
    fn port(&mut self, name: &'a str, protocol: Protocol) -> usize {
        *self.port_index.entry((name, protocol)).or_insert_with(|| {
            let hash = chain_hash(&[name.as_bytes(), protocol.lower().as_bytes()]);
            self.ports.push(Port { name, protocol, hash, internal: None, external: None, cluster: None, local: None });
            self.ports.len() - 1
        })
    }

    fn place(&self, table: &Table<'_>, chain: usize) -> Place {
        Place { family: self.family, table: lossy(table.name()), chain: lossy(table.chains()[chain].name) }
    }

    fn origin(&self, table: &Table<'_>, chain: usize, number: usize) -> Origin {
        let Place { family, table, chain } = self.place(table, chain);
        Origin::Rule { family, table, chain, number: u32::try_from(number).unwrap_or(u32::MAX) }
    }

    fn unknown(&mut self, table: &Table<'_>, rule: &Rule<'_>, number: usize) {
        let at = self.origin(table, rule.chain(), number);
        self.notices.push(Notice::UnknownRule { at, rule: rule.to_string() });
    }

    fn incomplete(&mut self, table: &Table<'_>, chain: usize, missing: &'static str) {
        let chain = self.place(table, chain);
        self.notices.push(Notice::IncompleteChain { chain, missing });
    }

    /// The chain a rule jumps to, marked as reached; reports one that does not exist.
    fn follow(&mut self, nat: &Table<'_>, rule: &Rule<'_>, number: usize, target: &[u8]) -> Option<usize> {
        let Some(chain) = nat.chain(target) else {
            let at = self.origin(nat, rule.chain(), number);
            self.notices.push(Notice::MissingChain { at, chain: String::from_utf8_lossy(target).into_owned() });
            return None;
        };
        self.reached[chain] = true;
        Some(chain)
    }

    fn repeated_tables(&mut self) {
        let mut seen = BTreeSet::new();
        for table in self.dump.tables() {
            if !seen.insert(table.name()) {
                let table = String::from_utf8_lossy(table.name()).into_owned();
                self.notices.push(Notice::RepeatedTable { family: self.family, table });
            }
        }
    }

    /// Finishes the drafts into frontends.
    fn finish(mut self, out: &mut Vec<Frontend>) -> (Own, Vec<Notice>) {
        let drafts = std::mem::take(&mut self.drafts);
        self.own.summary.frontends = drafts.len();
        out.reserve(drafts.len());
        for draft in drafts {
            out.push(self.frontend(draft));
        }
        (self.own, self.notices)
    }

    fn frontend(&mut self, draft: Draft) -> Frontend {
        let port = &self.ports[draft.port];
        let (service, port_name) = split_name(port.name);
        let backends = |list: Option<usize>| list.map_or_else(Vec::new, |i| self.lists[i].backends.clone());
        let (mut cluster, mut local) = (backends(port.cluster), backends(port.local));
        let (internal, external) = (port.internal.unwrap_or_default(), port.external.unwrap_or_default());
        if internal == Policy::Local || external == Policy::Local {
            mark_local(&mut cluster, &mut local);
        }
        let affinity = [port.cluster, port.local].into_iter().flatten().find_map(|i| self.lists[i].affinity);
        let masquerade = match draft.masquerade {
            MasqueradeBy::Path(masquerade) => masquerade,
            MasqueradeBy::List(list) => self.lists[list].masquerade(&draft.key),
            MasqueradeBy::Nothing if external == Policy::Local && draft.key.exposure.is_external() => Masquerade::Never,
            MasqueradeBy::Nothing if draft.key.exposure.is_external() => Masquerade::Always,
            MasqueradeBy::Nothing => self.unserved_masquerade(),
        };
        let mut frontend = Frontend {
            key: draft.key,
            service: Some(service),
            port_name,
            cluster,
            local,
            internal_policy: internal,
            external_policy: external,
            affinity,
            sources: draft.sources,
            masquerade,
            no_backends: None,
            selection: None,
            forwarding: None,
            origin: draft.origin,
        };
        match (frontend.own_list().is_empty(), draft.refusal, draft.refused_by) {
            (true, Some(refusal), _) => frontend.no_backends = Some(refusal),
            (true, None, _) => {
                frontend.no_backends = Some(NoBackends::Drop);
                let service = frontend.display_name();
                self.notices.push(Notice::Unrefused { at: frontend.origin.clone(), service });
            }
            (false, _, Some((at, rule))) => self.notices.push(Notice::Contradiction { at, rule }),
            (false, _, None) => {}
        }
        frontend
    }

    /// What a ClusterIP without backends would have, as its neighbours do: nothing in the rules depends on it.
    fn unserved_masquerade(&self) -> Masquerade {
        match self.own.facts.detector {
            Detector::None => Masquerade::Never,
            Detector::Unknown if self.lists.iter().any(List::masquerades_all) => Masquerade::Always,
            _ => Masquerade::OffCluster,
        }
    }

    /// What the rules have shown of the way to recognise pods.
    fn detector(&mut self) {
        // Rules with a detector set it as they are read. Without one: a ClusterIP's chain that masquerades nobody, or an
        // external entry under the Local policy that knows no pods, tells that there is none.
        if self.own.facts.detector == Detector::Unknown && self.own.summary.programmed {
            let silent = self.lists.iter().any(|l| l.serves_cluster_ip && !l.masquerades_all())
                || self.entry_of.values().any(|e| e.policy == Policy::Local && !e.knows_pods);
            if silent {
                self.own.facts.detector = Detector::None;
            }
        }
    }

    /// Notes how a rule recognises pods.
    fn detected(&mut self, detector: Detector, at: impl FnOnce(&Self) -> Origin) {
        let known = &mut self.own.facts.detector;
        if *known == Detector::Unknown {
            *known = detector;
        } else if *known != detector {
            let at = at(self);
            self.notices.push(Notice::MixedDetectors { at });
        }
    }
}

fn lossy(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).into()
}

/// `namespace/name:port` in its parts; the text was checked when its port was made.
fn split_name(name: &str) -> (ServiceName, Option<String>) {
    let (namespace, rest) = name.split_once('/').unwrap_or(("", name));
    let (service, port) = match rest.split_once(':') {
        Some((service, port)) => (service, Some(port.to_owned())),
        None => (rest, None),
    };
    (ServiceName { namespace: namespace.to_owned(), name: service.to_owned() }, port)
}

/// Where a Local policy is in force, kube-proxy writes the list of this node's endpoints: what is not in it is elsewhere.
fn mark_local(cluster: &mut [Backend], local: &mut [Backend]) {
    for backend in cluster.iter_mut() {
        backend.local = Some(local.iter().any(|l| l.addr() == backend.addr()));
    }
    for backend in local {
        backend.local = Some(true);
    }
}

/// Frontends on one address, port and protocol, which are neighbours in a table: the kernel follows the rule that comes
/// first, and dispatch in the nat table comes before refusals in the filter table.
fn report_conflicts(table: &ServiceTable, notices: &mut Vec<Notice>) {
    let place = |f: &Frontend| match &f.origin {
        Origin::Rule { table, number, .. } => (&**table != "nat", *number),
        _ => (true, u32::MAX),
    };
    let same =
        |a: &Frontend, b: &Frontend| (a.key.ip, a.key.port, a.key.protocol) == (b.key.ip, b.key.port, b.key.protocol);
    for group in table.frontends().chunk_by(same).filter(|group| group.len() > 1) {
        let mut group: Vec<&Frontend> = group.iter().collect();
        group.sort_by_key(|f| place(f));
        let (first, shadowed) = group.split_first().expect("a group has two");
        notices.push(Notice::Conflict {
            first: first.origin.clone(),
            key: first.key,
            hides_cluster_ip: shadowed.iter().any(|f| f.key.exposure == Exposure::ClusterIp),
            shadowed: shadowed.iter().map(|f| f.origin.clone()).collect(),
        });
    }
}

/// A NodePort's key: on whatever addresses [`NodePortScope`] says.
fn node_port_key(family: Family, port: u16, protocol: Protocol) -> FrontendKey {
    FrontendKey { ip: family.unspecified(), port, protocol, exposure: Exposure::NodePort }
}

/// The scope that one dispatch rule of NodePorts stands for.
fn widen(scope: &mut NodePortScope, with: NodePortScope) {
    match (scope, with) {
        (NodePortScope::Addresses(all), NodePortScope::Addresses(more)) => all.extend(more),
        (scope, with) => *scope = with,
    }
}
