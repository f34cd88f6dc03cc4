//! What a lab is to be: a recorded node, taken apart into what has to be built.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::client::{Expect, Target};
use super::network::{Network, NodeAddresses, Role, parse};
use super::restore::Recorded;
use super::rules::Rules;
use super::state::Names;
use super::tables::Tables;
use super::{LabError, LeftOut, left_out, sysctl};
use crate::capture::{Captured, Item, Node, Variant, nft_table};
use crate::inspect::kube::{self, KubeError};
use crate::inspect::proxy_rules::{self, ProxyRules, RulesMode};
use crate::migrate::removal::State;
use crate::model::{Detector, Exposure, Family, Frontend, NoBackends, Protocol, ServiceTable, TrafficSource};

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// On the node itself, in the lab's cgroup.
    Node,
    /// In a pod of the node, in the lab's cgroup.
    Pod,
    /// Outside of the node and of its cgroup.
    Outside,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Node, Self::Pod, Self::Outside];

    /// What the table calls traffic from there.
    const fn source(self) -> TrafficSource {
        match self {
            Self::Node => TrafficSource::Node,
            Self::Pod => TrafficSource::Pod,
            Self::Outside => TrafficSource::Outside,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Node => "node",
            Self::Pod => "pod",
            Self::Outside => "outside",
        })
    }
}

/// More frontends than these say nothing new, and each is a connection more.
const TARGETS: usize = 400;

/// A recorded node, as a lab builds it.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The names that everything gets.
    pub names: Names,
    /// Name of the Node it plays.
    pub node_name: String,
    /// Where it was recorded.
    pub from: String,
    /// Frontends of the node.
    pub frontends: usize,
    /// Backends of the node.
    pub backends: usize,
    pub(super) network: Network,
    pub(super) beside: Vec<IpAddr>,
    pub(super) recorded: Recorded,
    pub(super) sysctls: Vec<(String, String)>,
    pub(super) listeners: BTreeMap<Home, BTreeSet<(SocketAddr, Protocol)>>,
    pub(super) client_pod: Vec<IpAddr>,
    pub(super) via_node: BTreeSet<IpAddr>,
    pub(super) targets: BTreeMap<Place, Vec<Target>>,
    pub(super) api: Vec<(&'static str, Vec<u8>)>,
    pub(super) pages: Vec<(&'static str, Vec<u8>)>,
    /// What of the node a lab does not have.
    pub left_out: Vec<LeftOut>,
}

/// Which frontends clients use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breadth {
    /// Those that behave alike for every client, and of very many a part.
    Sample,
    /// Every one, from where its clients usually are.
    Every,
    /// Every one, also those for clients outside from the node and from pods.
    Everywhere,
}

/// In which namespace a backend listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Home {
    /// On the node itself: a pod with the host's network.
    Node,
    /// A pod of the node.
    Pods,
    /// Anywhere else.
    Outside,
}

impl Spec {
    /// Takes a recorded (or live) node apart.
    pub fn read(node: &Node, name: &str) -> Result<Self, LabError> {
        Self::read_for(node, name, Breadth::Sample)
    }

    /// The same, for clients that use these frontends.
    pub fn read_for(node: &Node, name: &str, breadth: Breadth) -> Result<Self, LabError> {
        let names = Names::new(name)?;
        let mut recorded = Recorded {
            rules: rules(node)?,
            own_tables: own_tables(node)?,
            tables: tables_of_others(node)?,
            ipsets: bytes(node, Item::Ipset)?.unwrap_or_default(),
            ipvs: None,
        };
        let found = proxy_rules::read_node(node)?.rules.into_iter().next();
        let can_be_made = |found: &ProxyRules| match found.mode() {
            RulesMode::IptablesLegacy | RulesMode::IptablesNft => recorded.rules.iter().any(Rules::serve),
            RulesMode::Nftables => !recorded.own_tables.is_empty(),
            RulesMode::Ipvs => true,
        };
        let Some(found) = found.filter(can_be_made) else {
            return Err(LabError::Unsupported {
                reason: "kube-proxy serves it in another mode than iptables, nftables and ipvs, or does not serve it at all",
            });
        };
        let mode = found.mode();
        // The rest of ipvs mode: sets, virtual services, their device and its sysctls.
        if mode == RulesMode::Ipvs {
            recorded.ipvs = Some(State::read(node)?);
        }
        // What the rules do is what clients will meet; what the API asks for has to have backends too.
        let table = found.into_table();
        let asked = objects(node)?;
        let mut nodes = bytes(node, Item::Nodes)?.map(|b| node_addresses(&b)).transpose()?.unwrap_or_default();
        let node_name = match asked.as_ref() {
            Some(asked) => asked.node_name.clone(),
            None => by_address(node, &nodes)?.unwrap_or_else(|| node.node_name().to_owned()),
        };
        let own = nodes.remove(&node_name).unwrap_or_default();
        let others: Vec<NodeAddresses> = nodes.into_values().collect();
        let cluster = detected(&table);
        let pod_nets = if own.pod_cidrs.is_empty() { &cluster } else { &own.pod_cidrs };
        let asked_for = asked.iter().flat_map(|o| o.table.frontends()).flat_map(|f| f.cluster.iter().chain(&f.local));
        let pods = asked_for.filter(|backend| backend.local == Some(true)).map(|backend| backend.ip).collect();
        let network = network(node, &own, pod_nets, &others, &pods)?;
        let mut listeners: BTreeMap<Home, BTreeSet<(SocketAddr, Protocol)>> = BTreeMap::new();
        for frontend in table.frontends().iter().chain(asked.iter().flat_map(|o| o.table.frontends())) {
            listen(frontend, &network, &mut listeners);
        }
        let taken: BTreeSet<IpAddr> = listeners.values().flatten().map(|(addr, _)| addr.ip()).collect();
        let client_pod = network.free_pod_addresses(&taken, &cluster);
        let via_node = via_node(&table, &network, &taken);
        // What clients meet there changes with the mode.
        let otherwise = asked.as_ref().map(|asked| mode.otherwise(&asked.table)).unwrap_or_default();
        let targets = |place| targets(&table, place, &network, breadth, &otherwise);
        let targets = Place::ALL.into_iter().map(|place| (place, targets(place))).collect();
        let mut left_out = left_out::of_snapshot(node, &network, &table)?;
        if !otherwise.is_empty() {
            let all: Vec<String> =
                otherwise.iter().map(|(ip, port, p)| format!("{}/{p}", SocketAddr::new(*ip, *port))).collect();
            let why = "what clients meet there changes with the mode, as the plan says: nobody asks";
            left_out.push(LeftOut::new(format!("traffic to {}", left_out::few(&all)), why));
        }
        let mut api = Vec::new();
        for (file, item) in [
            ("services.json", Item::Services),
            ("endpointslices.json", Item::EndpointSlices),
            ("nodes.json", Item::Nodes),
        ] {
            api.extend(bytes(node, item)?.map(|bytes| (file, bytes)));
        }
        let mut pages = Vec::new();
        for (path, item) in [
            ("/configz", Item::Configz),
            ("/healthz", Item::Healthz),
            ("/metrics", Item::Metrics),
            ("/proxyMode", Item::ProxyMode),
        ] {
            pages.extend(bytes(node, item)?.map(|bytes| (path, bytes)));
        }
        let sysctls = bytes(node, Item::Sysctl)?.map(|text| sysctl::of_a_namespace(&text)).unwrap_or_default();
        Ok(Self {
            names,
            from: node.label(),
            node_name,
            frontends: table.frontends().len(),
            backends: taken.len(),
            beside: others.iter().flat_map(|other| other.internal.iter().copied()).collect(),
            network,
            recorded,
            sysctls,
            listeners,
            client_pod,
            via_node,
            targets,
            api,
            pages,
            left_out,
        })
    }

    /// The same node without anybody who answers as kube-proxy: a process of the caller's does.
    #[must_use]
    pub fn without_kube_proxy(self) -> Self {
        Self { pages: Vec::new(), ..self }
    }

    /// The recorded rules in a few words: backend, family and number of rules.
    pub fn rules_summary(&self) -> String {
        let one = |rules: &Rules| {
            let number =
                rules.text.split(|b| *b == b'\n').filter(|line| line.starts_with(b"[") || line.starts_with(b"-A"));
            format!("iptables-{} {}: {}", rules.variant, rules.family, number.count())
        };
        let own = (!self.recorded.own_tables.is_empty()).then(|| "nftables: kube-proxy's tables".to_owned());
        let others = self.recorded.tables.others.iter().map(|t| format!("nftables: table {} {}", t.family, t.name));
        let services = self.recorded.ipvs.as_ref().map(|_| "IPVS: virtual services".to_owned());
        self.recorded.rules.iter().map(one).chain(own).chain(others).chain(services).collect::<Vec<_>>().join(", ")
    }

    /// The frontends that clients at one place use.
    pub fn targets(&self, place: Place) -> &[Target] {
        self.targets.get(&place).map_or(&[], Vec::as_slice)
    }
}

/// The bytes of an item, if they were captured and there are any.
fn bytes(node: &Node, item: Item) -> Result<Option<Vec<u8>>, LabError> {
    Ok(match node.read(item)? {
        Captured::Present { bytes, .. } if !bytes.is_empty() => Some(bytes),
        _ => None,
    })
}

/// The API's view; `None` where the snapshot has no objects, which a lab can do without.
fn objects(node: &Node) -> Result<Option<kube::KubeState>, LabError> {
    match kube::read_node(node) {
        Ok(state) => Ok(Some(state)),
        Err(KubeError::Absent { .. } | KubeError::NameUnknown { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The nets by whose source addresses the rules know pods: usually the whole cluster's.
fn detected(table: &ServiceTable) -> Vec<IpNet> {
    let detectors = Family::BOTH.map(|family| table.facts(family).detector.clone());
    let nets = detectors.into_iter().filter_map(|detector| match detector {
        Detector::Cidr(net) => Some(net),
        _ => None,
    });
    nets.collect()
}

/// The Node that has one of the recorded addresses, for a snapshot that does not know its name.
fn by_address(node: &Node, nodes: &BTreeMap<String, NodeAddresses>) -> Result<Option<String>, LabError> {
    let Captured::Present { bytes, place } = node.read(Item::Addresses)? else { return Ok(None) };
    let network = parse(&bytes, &[], &[]).map_err(|source| LabError::Recorded { place, source })?;
    let own = |addresses: &NodeAddresses| addresses.internal.iter().any(|ip| network.owns(*ip));
    Ok(nodes.iter().find(|(_, addresses)| own(addresses)).map(|(name, _)| name.clone()))
}

fn network(
    node: &Node,
    own: &NodeAddresses,
    pod_nets: &[IpNet],
    others: &[NodeAddresses],
    pods: &BTreeSet<IpAddr>,
) -> Result<Network, LabError> {
    let mut network = match node.read(Item::Addresses)? {
        Captured::Present { bytes: addresses, place } => {
            let routes = bytes(node, Item::Routes)?.unwrap_or_default();
            let recorded = |source| LabError::Recorded { place, source };
            let mut network = parse(&addresses, &routes, pod_nets).map_err(recorded)?;
            network.ensure_pods(&own.pod_cidrs);
            network.adopt(pods.iter().copied());
            network.ensure_pods(&[]);
            network
        }
        Captured::Absent { .. } if !own.internal.is_empty() => Network::from_api(own, others),
        Captured::Absent { reason } => {
            return Err(LabError::Missing { what: "the addresses of the node", reason });
        }
    };
    if network.with(Role::Uplink).next().is_none() {
        // A node without a route to anywhere: its first address leads to the others.
        match network.devices.iter_mut().find(|d| d.role == Role::Other) {
            Some(device) => device.role = Role::Uplink,
            None => return Err(LabError::Unsupported { reason: "it has no interface that leads to other nodes" }),
        }
    }
    if network.with(Role::Pods).next().is_none() {
        return Err(LabError::Missing {
            what: "where the node's pods are",
            reason: "no interface holds its podCIDR, no route leads to a pod, and no object of the API says".to_owned(),
        });
    }
    Ok(network)
}

fn rules(node: &Node) -> Result<Vec<Rules>, LabError> {
    let mut rules = Vec::new();
    for variant in Variant::BOTH {
        for family in Family::BOTH {
            if let Some(text) = bytes(node, Item::IptablesSave(family, variant))? {
                rules.push(Rules { family, variant, text });
            }
        }
    }
    Ok(rules)
}

fn tables_of_others(node: &Node) -> Result<Tables, LabError> {
    let Captured::Present { bytes, place } = node.read(Item::NftOthers)? else { return Ok(Tables::default()) };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Tables::default());
    }
    Tables::parse(&bytes).map_err(|source| LabError::Recorded { place, source })
}

fn own_tables(node: &Node) -> Result<String, LabError> {
    let listing = bytes(node, Item::NftTables)?.unwrap_or_default();
    let listing = String::from_utf8_lossy(&listing);
    Ok(Family::BOTH.into_iter().filter_map(|family| nft_table(&listing, family)).collect())
}

#[derive(Deserialize)]
struct NodeList {
    #[serde(default)]
    items: Vec<NodeObject>,
}

#[derive(Deserialize)]
struct NodeObject {
    metadata: Metadata,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeSpec {
    #[serde(default, rename = "podCIDRs")]
    pod_cidrs: Vec<IpNet>,
}

#[derive(Default, Deserialize)]
struct NodeStatus {
    #[serde(default)]
    addresses: Vec<NodeAddress>,
}

#[derive(Deserialize)]
struct NodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

fn node_addresses(list: &[u8]) -> Result<BTreeMap<String, NodeAddresses>, LabError> {
    let list: NodeList = serde_json::from_slice(list)
        .map_err(|source| LabError::Recorded { place: "the Nodes of the snapshot".to_owned(), source })?;
    let of = |node: NodeObject| {
        let internal = node.status.addresses.iter().filter(|a| a.kind == "InternalIP");
        let internal = internal.filter_map(|a| a.address.parse().ok()).collect();
        (node.metadata.name, NodeAddresses { internal, pod_cidrs: node.spec.pod_cidrs })
    };
    Ok(list.items.into_iter().map(of).collect())
}

/// Adds the backends of a frontend to the listeners, each where it is at home.
fn listen(frontend: &Frontend, network: &Network, listeners: &mut BTreeMap<Home, BTreeSet<(SocketAddr, Protocol)>>) {
    if frontend.key.protocol == Protocol::Sctp {
        return;
    }
    for backend in frontend.cluster.iter().chain(&frontend.local) {
        let home = if network.owns(backend.ip) {
            Home::Node
        } else if network.is_pod(backend.ip) {
            Home::Pods
        } else {
            Home::Outside
        };
        listeners.entry(home).or_default().insert((backend.addr(), frontend.key.protocol));
    }
}

/// Addresses that the outside reaches through the node: of load balancers and external IPs.
fn via_node(table: &ServiceTable, network: &Network, backends: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    let external = |f: &&Frontend| matches!(f.key.exposure, Exposure::LoadBalancer | Exposure::ExternalIp);
    let addresses = table.frontends().iter().filter(external).map(|f| f.key.ip);
    addresses.filter(|ip| !network.owns(*ip) && !backends.contains(ip)).collect()
}

fn targets(
    table: &ServiceTable,
    place: Place,
    network: &Network,
    breadth: Breadth,
    otherwise: &BTreeSet<(IpAddr, u16, Protocol)>,
) -> Vec<Target> {
    // Where several frontends claim an address, which of them wins is no matter of traffic.
    let conflicting: BTreeSet<_> = table.conflicts().iter().flat_map(|c| c.frontends.iter().map(|f| f.key)).collect();
    let of_place = |f: &Frontend| f.key.exposure.is_external() == (place == Place::Outside);
    let usable = |f: &&Frontend| match breadth {
        _ if otherwise.contains(&f.key.address()) => false,
        Breadth::Everywhere => f.key.exposure.is_external() || place != Place::Outside,
        Breadth::Every => of_place(f),
        Breadth::Sample => of_place(f) && !conflicting.contains(&f.key) && f.sources.is_empty(),
    };
    let mut seen = BTreeSet::new();
    let mut list = Vec::new();
    for frontend in table.frontends().iter().filter(usable).filter(|f| f.key.protocol != Protocol::Sctp) {
        let family = Family::of(frontend.key.ip);
        let Some(ip) = address(frontend, family, network) else { continue };
        let addr = SocketAddr::new(ip, frontend.key.port);
        if !seen.insert((addr, frontend.key.protocol)) {
            continue;
        }
        let treatment = frontend.treatment(place.source(), &table.facts(family).detector);
        let admits = |client: IpAddr| frontend.sources.iter().any(|net| net.contains(&client));
        let kept_out =
            !frontend.sources.is_empty() && place == Place::Outside && !network.outsider(family).is_some_and(admits);
        let expect = match treatment.no_backends {
            _ if kept_out => Expect::Silence,
            None => Expect::Answer,
            Some(NoBackends::Reject) => Expect::Refusal,
            Some(NoBackends::Drop) => Expect::Silence,
        };
        list.push(Target { service: frontend.display_name(), addr, protocol: frontend.key.protocol, expect });
    }
    match breadth {
        Breadth::Every | Breadth::Everywhere => list,
        Breadth::Sample => {
            let stride = list.len().div_ceil(TARGETS).max(1);
            list.into_iter().step_by(stride).collect()
        }
    }
}

/// The address under which clients reach a frontend; a NodePort on every address is tried at the uplink's.
fn address(frontend: &Frontend, family: Family, network: &Network) -> Option<IpAddr> {
    if !frontend.key.ip.is_unspecified() {
        return Some(frontend.key.ip);
    }
    let uplink = network.with(Role::Uplink).flat_map(|d| &d.addresses).map(IpNet::addr);
    uplink.into_iter().find(|ip| Family::of(*ip) == family)
}
