//! The Kubernetes side of a node: API objects and kube-proxy's configuration → ServiceTable.

mod config;
mod document;
mod endpoints;
mod flags;
mod lean;
mod lift;
mod metrics;
mod notice;
mod objects;
mod place;
mod settings;
mod text;

use std::collections::BTreeSet;
use std::net::IpAddr;

pub use config::{
    ClusterCidrs, ConfigError, ConfigSources, Conntrack, DetectLocal, NodePortAddress, ProxyConfig, ProxyMode, Setting,
    Source, Text,
};
pub use lift::{FieldFault, LiftedPort, LiftedService, lift, lift_service};
pub use metrics::metric;
pub use notice::{NameGuess, Notice};
pub use objects::{Listed, ObjectRef, Objects, ObjectsError};
pub use place::{PerFamily, Place};

use crate::capture::{CaptureError, Captured, Item, Node};
use crate::error::Hinted;
use crate::model::{Family, KubeVersion, Semantics, ServiceTable};

/// What the API and kube-proxy's configuration say of one node.
#[derive(Clone, Debug)]
pub struct KubeState {
    /// The table that kube-proxy should have programmed.
    pub table: ServiceTable,
    /// kube-proxy's configuration.
    pub config: ProxyConfig,
    /// Name of the Node.
    pub node_name: String,
    /// Addresses of the node's interfaces; where these were not captured, those of its Node object.
    pub local_addresses: BTreeSet<IpAddr>,
    /// The objects.
    pub objects: Objects,
    /// What had to be assumed.
    pub notices: Vec<Notice>,
}

impl KubeState {
    /// The Node's first address of each family, as its object has them.
    pub fn primary_addresses(&self) -> Vec<IpAddr> {
        let node =
            self.objects.nodes.iter().find(|node| node.metadata.name.as_deref() == Some(self.node_name.as_str()));
        let all = node.map(place::node_addresses).unwrap_or_default();
        Family::BOTH.into_iter().filter_map(|family| all.iter().copied().find(|ip| Family::of(*ip) == family)).collect()
    }
}

/// Captured bytes of everything the table is made of.
#[derive(Clone, Debug, Default)]
pub struct Raw<'a> {
    /// LIST answers or mixed lists; each document once.
    pub objects: Vec<Text<'a>>,
    /// Where the configuration may be read.
    pub config: ConfigSources<'a>,
    /// `ip -j -d addr`.
    pub addresses: Option<Text<'a>>,
    /// The name of the Node as given by the operator: nothing else is asked then.
    pub node_name: Option<&'a str>,
    /// The host's name, which kube-proxy takes if there is no `hostnameOverride`.
    pub host_name: Option<&'a str>,
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// Something on the node could not be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A document of objects cannot be used.
    #[error("cannot read API objects")]
    Objects(#[from] ObjectsError),
    /// kube-proxy's configuration cannot be used.
    #[error("cannot read kube-proxy's configuration")]
    Config(#[from] ConfigError),
    /// A field has a value the API server would not have let in.
    #[error("an API object is malformed")]
    Field(#[from] FieldFault),
    /// The interfaces' addresses are not JSON of `ip -j addr`.
    #[error("{place} is not the output of `ip -j addr`")]
    Addresses {
        /// File or command line.
        place: String,
        /// The parser's reason.
        #[source]
        source: serde_json::Error,
    },
    /// There are no Services or no EndpointSlices.
    #[error("no {kind} to read: {reason}")]
    Absent {
        /// Kind, in the plural.
        kind: &'static str,
        /// Why, as the capture says.
        reason: String,
    },
    /// Nothing tells which Node this is.
    #[error("which Node this is, nothing tells")]
    NameUnknown {
        /// Names of the Nodes there are.
        nodes: Vec<String>,
    },
}

impl Hinted for KubeError {
    fn hints(&self) -> Vec<String> {
        const LIST: &str =
            "kubectl get svc,endpointslices,nodes -A -o json > objects.json, then --services-from objects.json";
        match self {
            Self::Capture(source) => source.hints(),
            Self::Absent { .. } | Self::Objects(ObjectsError::Kind { .. } | ObjectsError::Refused { .. }) => {
                vec![LIST.to_owned()]
            }
            Self::Objects(ObjectsError::Page { .. }) => vec![format!("take the whole list: {LIST}")],
            Self::NameUnknown { nodes } if !nodes.is_empty() => vec![format!("--node-name {}", nodes.join("|"))],
            Self::NameUnknown { .. } => vec!["--node-name NAME".to_owned()],
            Self::Config(ConfigError::UnknownFlag { .. }) => {
                vec![format!("those it reads are {}", settings::known_flags().join(", "))]
            }
            _ => Vec::new(),
        }
    }
}

/// What kpx's agent answers where kube-proxy names its mode.
pub const AGENTS_MODE: &str = "ebpf";

/// Reads the API side of a node.
pub fn read_node(node: &Node) -> Result<KubeState, KubeError> {
    read_node_as(node, None)
}

/// The same, with kube-proxy's answers as they were `kept` where it does not answer any more.
pub fn read_node_as(node: &Node, kept: Option<&Node>) -> Result<KubeState, KubeError> {
    let mut objects: Vec<(Vec<u8>, String)> = Vec::new();
    for (item, kind) in [(Item::Services, "Services"), (Item::EndpointSlices, "EndpointSlices"), (Item::Nodes, "Nodes")]
    {
        match node.read(item)? {
            // One mixed list stands for all three.
            Captured::Present { place, .. } if objects.iter().any(|(_, known)| *known == place) => {}
            Captured::Present { bytes, place } => objects.push((bytes, place)),
            Captured::Absent { .. } if item == Item::Nodes => {}
            Captured::Absent { reason } => return Err(KubeError::Absent { kind, reason }),
        }
    }
    let captured = |node: &Node, item| match node.read(item)? {
        Captured::Present { bytes, place } => Ok::<_, CaptureError>(Some((bytes, place))),
        Captured::Absent { .. } => Ok(None),
    };
    // kpx's agent answers in kube-proxy's place, and of itself.
    let mode = |node| {
        let mode = captured(node, Item::ProxyMode)?;
        Ok::<_, CaptureError>(mode.filter(|(bytes, _)| bytes.trim_ascii() != AGENTS_MODE.as_bytes()))
    };
    let (mut proxy_mode, mut answers) = (mode(node)?, node);
    if let (None, Some(kept)) = (&proxy_mode, kept) {
        (proxy_mode, answers) = (mode(kept)?, kept);
    }
    let configz = captured(answers, Item::Configz)?;
    let metrics = captured(answers, Item::Metrics)?;
    let log = captured(node, Item::ProxyLog)?;
    let config_map = captured(node, Item::ProxyConfigMap)?;
    let addresses = captured(node, Item::Addresses)?;
    // Without its own record a snapshot does not know the host it was taken on.
    let host_name = match node.recorded() {
        None => Some(node.node_name()),
        Some(recorded) => recorded.manifest().map(|manifest| manifest.node.as_str()),
    };
    read(&Raw {
        objects: objects.iter().map(text).collect(),
        config: ConfigSources {
            proxy_mode: proxy_mode.as_ref().map(text),
            configz: configz.as_ref().map(text),
            metrics: metrics.as_ref().map(text),
            log: log.as_ref().map(text),
            config_map: config_map.as_ref().map(text),
            flags: node.proxy_flags(),
        },
        addresses: addresses.as_ref().map(text),
        node_name: node.given_name(),
        host_name,
    })
}

fn text((bytes, place): &(Vec<u8>, String)) -> Text<'_> {
    Text { bytes, place }
}

/// Makes the table of one node from captured bytes.
pub fn read(raw: &Raw<'_>) -> Result<KubeState, KubeError> {
    let mut objects = Objects::default();
    for document in &raw.objects {
        objects.add(document.bytes, document.place)?;
    }
    let places = || raw.objects.iter().map(|d| d.place).collect::<Vec<_>>().join(", ");
    for (kind, listed) in [("Services", objects.listed.services), ("EndpointSlices", objects.listed.slices)] {
        if !listed {
            return Err(KubeError::Absent { kind, reason: format!("there are none in {}", places()) });
        }
    }
    let (config, mut notices) = ProxyConfig::read(&raw.config)?;
    let addresses = raw.addresses.map(addresses).transpose()?;
    let node_name = node_name(raw, &config, &objects, addresses.as_ref(), &mut notices)?;
    let node = objects.node(&node_name);
    let place = place(node_name, node, addresses.as_ref(), &config, &mut notices);
    let table = lift(&objects, &place, &mut notices)?;
    let local_addresses =
        addresses.or_else(|| node.map(|node| place::node_addresses(node).into_iter().collect())).unwrap_or_default();
    Ok(KubeState { table, config, node_name: place.name, local_addresses, objects, notices })
}

fn addresses(text: Text<'_>) -> Result<BTreeSet<IpAddr>, KubeError> {
    place::interface_addresses(text.bytes)
        .map_err(|source| KubeError::Addresses { place: text.place.to_owned(), source })
}

/// The operator's word, then kube-proxy's `hostnameOverride`, then the Node that has an address of this host, then the
/// host's name, then the only Node there is.
fn node_name(
    raw: &Raw<'_>,
    config: &ProxyConfig,
    objects: &Objects,
    addresses: Option<&BTreeSet<IpAddr>>,
    notices: &mut Vec<Notice>,
) -> Result<String, KubeError> {
    if let Some(name) = raw.node_name {
        return Ok(name.to_lowercase());
    }
    if let Some(name) = &config.hostname_override.value {
        return Ok(name.clone());
    }
    if let Some(host) = raw.host_name.map(str::to_lowercase)
        && objects.node(&host).is_some()
    {
        return Ok(host);
    }
    let names = || objects.nodes.iter().filter_map(|n| n.metadata.name.clone());
    let mut here = objects
        .nodes
        .iter()
        .filter(|node| addresses.is_some_and(|local| place::node_addresses(node).iter().any(|ip| local.contains(ip))));
    let guess = match (here.next().and_then(|n| n.metadata.name.clone()), here.next(), objects.nodes.len()) {
        (Some(name), None, _) => Some((name, NameGuess::Address)),
        (_, _, 1) => names().next().map(|name| (name, NameGuess::OnlyNode)),
        _ => None,
    };
    match (guess, raw.host_name) {
        (Some((name, by)), _) => {
            notices.push(Notice::NameGuessed { name: name.clone(), by });
            Ok(name)
        }
        (None, Some(host)) if objects.nodes.is_empty() => Ok(host.to_lowercase()),
        (None, _) => Err(KubeError::NameUnknown { nodes: names().collect() }),
    }
}

/// What the lift needs to know of a node: what its Node object, its interfaces' addresses and kube-proxy's configuration
/// say together.
pub fn place(
    name: String,
    node: Option<&k8s_openapi::api::core::v1::Node>,
    addresses: Option<&BTreeSet<IpAddr>>,
    config: &ProxyConfig,
    notices: &mut Vec<Notice>,
) -> Place {
    let semantics = semantics(config, node, notices);
    Place::new(name, node, addresses, config, semantics, notices)
}

fn semantics(
    config: &ProxyConfig,
    node: Option<&k8s_openapi::api::core::v1::Node>,
    notices: &mut Vec<Notice>,
) -> Semantics {
    let gates = &config.feature_gates.value;
    if let Some(version) = config.version.value {
        return Semantics::new(version, gates);
    }
    let kubelet = node
        .and_then(|n| n.status.as_ref()?.node_info.as_ref())
        .and_then(|info| info.kubelet_version.parse::<KubeVersion>().ok());
    let version = kubelet.unwrap_or(KubeVersion::LATEST);
    notices.push(Notice::VersionAssumed { version, from_kubelet: kubelet.is_some() });
    Semantics::new(version, gates)
}
