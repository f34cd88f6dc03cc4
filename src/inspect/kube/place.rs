//! The node itself, as far as kube-proxy's decisions depend on it: name, zone, addresses, how pods are recognised.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use serde::Deserialize;

use super::config::{DetectLocal, NodePortAddress, ProxyConfig, ProxyMode, Source};
use super::notice::Notice;
use super::text::{parse_ip, parse_net};
use crate::inspect::ipvs::DEVICE;
use crate::model::select::NodeIpRule;
use crate::model::{Detector, Family, NodeFacts, NodePortScope, Semantics};

/// One value for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerFamily<T> {
    /// IPv4.
    pub v4: T,
    /// IPv6.
    pub v6: T,
}

impl<T> PerFamily<T> {
    /// Makes both values.
    pub fn new(mut make: impl FnMut(Family) -> T) -> Self {
        Self { v4: make(Family::V4), v6: make(Family::V6) }
    }

    /// The value of one family.
    pub const fn of(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// What the lift needs to know of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the Node, which endpoints carry as `nodeName`.
    pub name: String,
    /// Label `topology.kubernetes.io/zone`, if not empty.
    pub zone: Option<String>,
    /// The address that counts as the node's own in `loadBalancerSourceRanges`.
    pub node_ip: PerFamily<IpAddr>,
    /// How pods are recognised, and where NodePorts are served.
    pub facts: PerFamily<NodeFacts>,
    /// `masqueradeAll`.
    pub masquerade_all: bool,
    /// What kube-proxy's version does.
    pub semantics: Semantics,
}

impl Place {
    /// Puts together what the Node object, the interfaces and the configuration say. `local` are the addresses on the
    /// node's interfaces, if captured.
    pub fn new(
        name: String,
        node: Option<&Node>,
        local: Option<&BTreeSet<IpAddr>>,
        config: &ProxyConfig,
        semantics: Semantics,
        notices: &mut Vec<Notice>,
    ) -> Self {
        if node.is_none() {
            notices.push(Notice::NodeMissing { name: name.clone() });
        }
        let zone = node
            .and_then(|n| n.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned())
            .filter(|zone| !zone.is_empty());
        let own = node.map(node_addresses).unwrap_or_default();
        let node_ip = node_ips(&own, config.bind_address.value, semantics.node_ip);
        let from_node: BTreeSet<IpAddr> = own.iter().copied().collect();
        let local = local.or_else(|| {
            let limited = !config.node_port_addresses.value.is_empty();
            if limited && from_node.is_empty() {
                notices.push(Notice::AddressesUnknown);
            } else if limited {
                notices.push(Notice::AddressesFromNodeObject);
            }
            (!from_node.is_empty()).then_some(&from_node)
        });
        let facts = PerFamily::new(|family| NodeFacts {
            detector: detector(family, node, config, notices),
            node_ports: node_port_scope(family, config, local, *node_ip.of(family)),
        });
        Self { name, zone, node_ip, facts, masquerade_all: config.masquerade_all.value, semantics }
    }
}

/// The Node's addresses, InternalIP before ExternalIP, in the order of the object: the first of a family is its primary.
pub(super) fn node_addresses(node: &Node) -> Vec<IpAddr> {
    let listed = node.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or_default();
    ["InternalIP", "ExternalIP"]
        .iter()
        .flat_map(|kind| listed.iter().filter(move |a| a.type_ == *kind))
        .filter_map(|a| parse_ip(&a.address))
        .collect()
}

fn node_ips(own: &[IpAddr], bind: IpAddr, rule: NodeIpRule) -> PerFamily<IpAddr> {
    let primary = own.first().map(|ip| Family::of(*ip));
    PerFamily::new(|family| {
        if Family::of(bind) == family && (!bind.is_unspecified() || rule == NodeIpRule::BindAddress) {
            return bind;
        }
        let known = match rule {
            NodeIpRule::BindAddress => return family.unspecified(),
            NodeIpRule::PrimaryFamily if primary.is_some_and(|p| p != family) => return family.unspecified(),
            NodeIpRule::PrimaryFamily | NodeIpRule::EachFamily => own.iter().find(|ip| Family::of(**ip) == family),
        };
        known.copied().unwrap_or(match family {
            Family::V4 => IpAddr::from([127, 0, 0, 1]),
            Family::V6 => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        })
    })
}

fn detector(family: Family, node: Option<&Node>, config: &ProxyConfig, notices: &mut Vec<Notice>) -> Detector {
    match &config.detect_local.value {
        DetectLocal::BridgeInterface(name) => Detector::Interface(name.clone()),
        DetectLocal::InterfaceNamePrefix(prefix) => Detector::InterfacePrefix(prefix.clone()),
        DetectLocal::ClusterCidr => match config.cluster_cidrs.value.of(family) {
            Some(net) => Detector::Cidr(net),
            None if config.cluster_cidrs.source == Source::Default => Detector::Unknown,
            None => Detector::None,
        },
        DetectLocal::NodeCidr => match node {
            None => Detector::Unknown,
            Some(node) => {
                let net = pod_cidrs(node).into_iter().find(|net| Family::of(net.addr()) == family);
                if net.is_none() {
                    notices.push(Notice::NoPodCidr { family });
                }
                net.map_or(Detector::None, Detector::Cidr)
            }
        },
    }
}

fn pod_cidrs(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let listed = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    listed.filter_map(|net| parse_net(net)).collect()
}

/// Where NodePorts are served. A family without a network of its own in `nodePortAddresses` serves on every address.
fn node_port_scope(
    family: Family,
    config: &ProxyConfig,
    local: Option<&BTreeSet<IpAddr>>,
    node_ip: IpAddr,
) -> NodePortScope {
    // The kernel never routes ::1 off the loopback device, so no rule makes IPv6 NodePorts answer there.
    let loopback =
        family == Family::V4 && config.localhost_node_ports.value && config.mode.value == ProxyMode::Iptables;
    let listed = &config.node_port_addresses.value;
    // A Node without an address of the family leaves that family without a network, and so with every address.
    if listed.contains(&NodePortAddress::Primary) && !node_ip.is_loopback() && !node_ip.is_unspecified() {
        return NodePortScope::Addresses(BTreeSet::from([node_ip]));
    }
    let nets: Vec<IpNet> = listed
        .iter()
        .filter_map(|a| match a {
            NodePortAddress::Net(net) if Family::of(net.addr()) == family => Some(*net),
            NodePortAddress::Net(_) | NodePortAddress::Primary => None,
        })
        .collect();
    if nets.is_empty() || nets.iter().any(|net| net.prefix_len() == 0) {
        return NodePortScope::All { loopback };
    }
    let Some(local) = local else { return NodePortScope::Unknown };
    let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let served =
        |ip: &IpAddr| nets.iter().any(|net| net.contains(ip)) && !link_local(ip) && (loopback || !ip.is_loopback());
    NodePortScope::Addresses(local.iter().copied().filter(served).collect())
}

#[derive(Deserialize)]
struct Link {
    #[serde(default)]
    ifname: String,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    local: Option<IpAddr>,
}

/// Addresses in the output of `ip -j -d addr`. Those of ipvs mode's device are Services', and go with it.
pub(super) fn interface_addresses(bytes: &[u8]) -> Result<BTreeSet<IpAddr>, serde_json::Error> {
    let links: Vec<Link> = serde_json::from_slice(bytes)?;
    let own = links.iter().filter(|link| link.ifname != DEVICE);
    Ok(own.flat_map(|link| &link.addr_info).filter_map(|a| a.local).collect())
}
