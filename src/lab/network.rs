//! The recorded node's interfaces and routes, and what of them a lab has to build. Pure: no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Deserialize;

use crate::inspect::ipvs::DEVICE;
use crate::model::Family;

/// What an interface of the node is to the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The way to other nodes and to the outside.
    Uplink,
    /// The bridge at which the node's pods are.
    Pods,
    /// Neither: it only carries addresses.
    Other,
    /// `lo`, with addresses beyond its own.
    Loopback,
}

/// An interface of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// Name.
    pub(super) name: String,
    /// What it is to the lab.
    pub(super) role: Role,
    /// Link-layer address, where it was recorded.
    pub(super) mac: Option<String>,
    /// Addresses with their prefix.
    pub(super) addresses: Vec<IpNet>,
}

/// A route of the node that the kernel does not make by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    /// Destination.
    pub(super) destination: IpNet,
    /// Next hop.
    pub(super) gateway: Option<IpAddr>,
    /// Interface.
    pub(super) device: String,
}

/// The node's network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Network {
    /// Interfaces.
    pub(super) devices: Vec<Device>,
    /// Routes.
    pub(super) routes: Vec<Route>,
}

/// What the API says of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeAddresses {
    /// Its InternalIPs.
    pub(super) internal: Vec<IpAddr>,
    /// Its pod CIDRs.
    pub(super) pod_cidrs: Vec<IpNet>,
}

#[derive(Deserialize)]
struct LinkJson {
    ifname: String,
    address: Option<String>,
    link_type: Option<String>,
    master: Option<String>,
    #[serde(default)]
    addr_info: Vec<AddressJson>,
}

#[derive(Deserialize)]
struct AddressJson {
    local: Option<IpAddr>,
    prefixlen: Option<u8>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct RouteJson {
    dst: String,
    gateway: Option<IpAddr>,
    dev: Option<String>,
    protocol: Option<String>,
    table: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Reads `ip -j addr` and `ip -j route show table all`.
pub(super) fn parse(addresses: &[u8], routes: &[u8], pod_cidrs: &[IpNet]) -> Result<Network, serde_json::Error> {
    let links: Vec<LinkJson> = serde_json::from_slice(addresses)?;
    let routes: Vec<RouteJson> = if routes.is_empty() { Vec::new() } else { serde_json::from_slice(routes)? };
    let routes: BTreeSet<Route> = routes.into_iter().filter_map(route).collect();
    let mut devices = Vec::new();
    for link in links {
        let loopback = link.link_type.as_deref() == Some("loopback") || link.ifname == "lo";
        let addresses: Vec<IpNet> = link
            .addr_info
            .iter()
            .filter(|a| a.scope.as_deref() != Some("link"))
            .filter_map(|a| IpNet::new(a.local?, a.prefixlen?).ok())
            .filter(|net| !net.addr().is_loopback())
            .collect();
        let gateway = routes.iter().any(|r| r.device == link.ifname && r.gateway.is_some());
        let role = if loopback {
            Role::Loopback
        } else if gateway {
            Role::Uplink
        } else if addresses.iter().any(|a| pod_cidrs.iter().any(|c| c.contains(&a.addr()))) {
            Role::Pods
        } else {
            Role::Other
        };
        // Ports of a bridge and tunnels without an address of their own have nothing to say here.
        // What ipvs mode has put its addresses on comes with its virtual services.
        if (addresses.is_empty() && role != Role::Uplink) || link.master.is_some() || link.ifname == DEVICE {
            continue;
        }
        let mac = link.address.filter(|mac| mac.len() == 17 && !loopback);
        devices.push(Device { name: link.ifname, role, mac, addresses });
    }
    let known = |r: &Route| devices.iter().any(|d| d.name == r.device);
    let routes = routes.iter().filter(|r| known(r)).cloned().collect();
    Ok(Network { devices, routes })
}

fn route(json: RouteJson) -> Option<Route> {
    let main = json.table.is_none_or(|table| table == "main") && json.kind.is_none_or(|kind| kind == "unicast");
    if !main || json.protocol.as_deref() == Some("kernel") {
        return None;
    }
    let family = json.gateway.map_or(Family::V4, Family::of);
    let destination = match json.dst.as_str() {
        "default" => IpNet::new(family.unspecified(), 0).ok()?,
        text => text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?,
    };
    Some(Route { destination, gateway: json.gateway, device: json.dev? })
}

impl Network {
    /// A network from what the API says alone: `eth0` with the node's addresses, the other nodes beside it, `cni0` for
    /// the pods.
    pub(super) fn from_api(own: &NodeAddresses, others: &[NodeAddresses]) -> Self {
        let length = |ip: IpAddr| if ip.is_ipv4() { 24 } else { 64 };
        let addresses: Vec<IpNet> = own.internal.iter().filter_map(|ip| IpNet::new(*ip, length(*ip)).ok()).collect();
        let mut routes = BTreeSet::new();
        for other in others {
            for cidr in &other.pod_cidrs {
                let next_hop = other
                    .internal
                    .iter()
                    .find(|ip| ip.is_ipv4() == cidr.addr().is_ipv4() && addresses.iter().any(|net| net.contains(*ip)));
                if let Some(gateway) = next_hop {
                    routes.insert(Route { destination: *cidr, gateway: Some(*gateway), device: "eth0".to_owned() });
                }
            }
        }
        for net in &addresses {
            let taken = |ip: &IpAddr| own.internal.contains(ip) || others.iter().any(|o| o.internal.contains(ip));
            if let Some(gateway) = net.trunc().hosts().take(300).find(|ip| !taken(ip) && *ip != net.network()) {
                let any = Family::of(gateway).unspecified();
                let destination = IpNet::new(any, 0).expect("zero is a prefix length of every family");
                routes.insert(Route { destination, gateway: Some(gateway), device: "eth0".to_owned() });
            }
        }
        let uplink = Device { name: "eth0".to_owned(), role: Role::Uplink, mac: None, addresses };
        let mut network = Self { devices: vec![uplink], routes: routes.into_iter().collect() };
        network.ensure_pods(&own.pod_cidrs);
        network
    }

    /// Adds a bridge for pods if the node has none (as with plug-ins that route to each pod).
    pub(super) fn ensure_pods(&mut self, pod_cidrs: &[IpNet]) {
        if self.devices.iter().any(|d| d.role == Role::Pods) || pod_cidrs.is_empty() {
            return;
        }
        let addresses = pod_cidrs.iter().filter_map(|cidr| IpNet::new(nth(cidr, 1), cidr.prefix_len()).ok()).collect();
        self.devices.push(Device { name: "cni0".to_owned(), role: Role::Pods, mac: None, addresses });
    }

    /// The interfaces with this role.
    pub(super) fn with(&self, role: Role) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(move |d| d.role == role)
    }

    /// Whether an address is the node's own.
    pub(super) fn owns(&self, ip: IpAddr) -> bool {
        self.devices.iter().flat_map(|d| &d.addresses).any(|net| net.addr() == ip)
    }

    /// The subnets of the node's pods.
    pub(super) fn pod_subnets(&self) -> Vec<IpNet> {
        self.with(Role::Pods).flat_map(|d| &d.addresses).copied().collect()
    }

    /// Whether an address is one of the node's pods.
    pub(super) fn is_pod(&self, ip: IpAddr) -> bool {
        self.pod_subnets().iter().any(|net| net.contains(&ip))
    }

    /// Next hops by interface, with the prefix they have there.
    pub(super) fn gateways(&self) -> BTreeMap<&str, BTreeSet<IpNet>> {
        let mut found: BTreeMap<&str, BTreeSet<IpNet>> = BTreeMap::new();
        for route in &self.routes {
            let Some(gateway) = route.gateway else { continue };
            let Some(device) = self.devices.iter().find(|d| d.name == route.device) else { continue };
            let link_local = matches!(gateway, IpAddr::V6(ip) if ip.is_unicast_link_local());
            let length = if link_local {
                Some(64)
            } else {
                device.addresses.iter().find(|net| net.contains(&gateway)).map(IpNet::prefix_len)
            };
            let net = length.and_then(|l| IpNet::new(gateway, l).ok()).unwrap_or_else(|| IpNet::from(gateway));
            found.entry(&device.name).or_default().insert(net);
        }
        found
    }

    /// Free addresses for one more pod of the node, one a family: from its subnets, or, where these are full, from the
    /// `wider` nets of the cluster.
    pub(super) fn free_pod_addresses(&self, taken: &BTreeSet<IpAddr>, wider: &[IpNet]) -> Vec<IpAddr> {
        let mut free: Vec<IpAddr> = Vec::new();
        let own = self.pod_subnets();
        let served = |v4: bool| own.iter().any(|net| net.addr().is_ipv4() == v4);
        for net in own.iter().chain(wider) {
            let v4 = net.addr().is_ipv4();
            if !served(v4) || free.iter().any(|ip| ip.is_ipv4() == v4) {
                continue;
            }
            let highest = match net.trunc() {
                IpNet::V4(net) => IpAddr::V4(net.broadcast()),
                IpNet::V6(net) => IpAddr::V6(Ipv6Addr::from(u128::from(net.network()) | 0xffff)),
            };
            let mut candidates = (1..=u8::MAX).map(|n| below(highest, n)).take_while(|ip| net.contains(ip));
            free.extend(candidates.find(|ip| !taken.contains(ip) && !self.owns(*ip) && *ip != net.network()));
        }
        free
    }
}

fn nth(net: &IpNet, n: u8) -> IpAddr {
    match net.network() {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip) + u32::from(n)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) + u128::from(n)).into(),
    }
}

fn below(ip: IpAddr, n: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip) - u32::from(n)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) - u128::from(n)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: &str = include_str!("../../tests/data/lab/node/ip-addr.json");
    const ROUTES: &str = include_str!("../../tests/data/lab/node/ip-route.json");

    fn net(text: &str) -> IpNet {
        text.parse().expect("an address with a prefix")
    }

    #[test]
    fn the_recorded_node() {
        let cidrs = [net("10.244.1.0/24"), net("fd00:10:244:1::/64")];
        let network = parse(ADDRESSES.as_bytes(), ROUTES.as_bytes(), &cidrs).expect("recorded files parse");
        let roles: Vec<_> = network.devices.iter().map(|d| (d.name.as_str(), d.role)).collect();
        assert_eq!(roles, [("eth0", Role::Uplink), ("cni0", Role::Pods)]);
        assert_eq!(network.devices[0].addresses, [net("192.168.50.11/24"), net("fd00:50::11/64")]);
        // Two pod CIDRs of other nodes and the default route, twice: IPv4 and IPv6.
        assert_eq!(network.routes.len(), 6);
        let gateways: Vec<_> = network.gateways()["eth0"].iter().map(ToString::to_string).collect();
        assert_eq!(
            gateways,
            [
                "192.168.50.1/24",
                "192.168.50.12/24",
                "192.168.50.13/24",
                "fd00:50::1/64",
                "fd00:50::12/64",
                "fd00:50::13/64"
            ]
        );
        let free = network.free_pod_addresses(&BTreeSet::new(), &[]);
        assert_eq!(free, ["10.244.1.254".parse::<IpAddr>().unwrap(), "fd00:10:244:1::fffe".parse().unwrap()]);
        let full = (1..=254).map(|n| IpAddr::V4(Ipv4Addr::new(10, 244, 1, n))).collect();
        let wider = network.free_pod_addresses(&full, &[net("10.244.0.0/16")]);
        assert_eq!(wider[0], "fd00:10:244:1::fffe".parse::<IpAddr>().unwrap());
        assert_eq!(wider[1], "10.244.255.254".parse::<IpAddr>().unwrap());
        assert!(network.is_pod("10.244.1.11".parse().unwrap()) && !network.is_pod("10.244.2.11".parse().unwrap()));
    }

    #[test]
    fn a_node_known_from_the_api_alone() {
        let own =
            NodeAddresses { internal: vec!["192.168.60.11".parse().unwrap()], pod_cidrs: vec![net("10.128.1.0/24")] };
        let other =
            NodeAddresses { internal: vec!["192.168.60.12".parse().unwrap()], pod_cidrs: vec![net("10.128.2.0/24")] };
        let network = Network::from_api(&own, &[other]);
        assert_eq!(network.pod_subnets(), [net("10.128.1.1/24")]);
        let routes: Vec<_> = network.routes.iter().map(|r| (r.destination.to_string(), r.gateway)).collect();
        assert_eq!(
            routes,
            [
                ("0.0.0.0/0".to_owned(), Some("192.168.60.1".parse().unwrap())),
                ("10.128.2.0/24".to_owned(), Some("192.168.60.12".parse().unwrap())),
            ]
        );
    }

    #[test]
    fn rubbish_is_an_error() {
        assert!(parse(b"{}", b"[]", &[]).is_err());
        assert!(parse(b"[]", b"[{}]", &[]).is_err());
    }
}
