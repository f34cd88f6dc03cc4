//! The recorded node's interfaces and routes, and what of them a lab has to build. Pure: no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Deserialize;

use super::LeftOut;
use super::left_out::few;
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
    /// Size of its largest packet, where it was recorded.
    pub(super) mtu: Option<u32>,
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
    /// Pods of the node outside of the subnets of its bridge, as with plug-ins that route to each pod.
    pub(super) pods: BTreeSet<IpAddr>,
    /// An interface of such a pod, whose name rules may match by its start.
    pub(super) pod_device: Option<String>,
    /// What is not built as it was.
    pub(super) unlike: Vec<LeftOut>,
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
    mtu: Option<u32>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    linkinfo: LinkInfo,
    master: Option<String>,
    #[serde(default)]
    addr_info: Vec<AddressJson>,
}

#[derive(Default, Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
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
    let elsewhere = tables(&routes);
    let routes: BTreeSet<Route> = routes.into_iter().filter_map(route).collect();
    let mut devices = Vec::new();
    let mut unlike: Vec<LeftOut> = elsewhere.into_iter().collect();
    let mut silent = BTreeSet::new();
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
        if link.ifname == DEVICE {
            continue;
        }
        if (addresses.is_empty() && role != Role::Uplink) || link.master.is_some() {
            if link.master.is_none() {
                silent.insert(link.ifname);
            }
            continue;
        }
        let kind = link.linkinfo.info_kind.unwrap_or_default();
        if TUNNELS.contains(&kind.as_str()) && link.flags.iter().any(|flag| flag == "UP") {
            let why = "a plain interface here: packets do not go through a tunnel";
            unlike.push(LeftOut::new(format!("interface {} ({kind})", link.ifname), why));
        }
        let mac = link.address.filter(|mac| mac.len() == 17 && !loopback);
        let mtu = link.mtu.filter(|_| !loopback);
        devices.push(Device { name: link.ifname, role, mac, addresses, mtu });
    }
    let (routes, lost): (Vec<Route>, Vec<Route>) =
        routes.into_iter().partition(|r| devices.iter().any(|d| d.name == r.device));
    // A route to one address behind an interface that has none of its own leads to a pod.
    let to_pod = |r: &Route| r.gateway.is_none() && IpNet::from(r.destination.addr()) == r.destination;
    let (to_pods, lost): (Vec<Route>, Vec<Route>) =
        lost.into_iter().partition(|r| to_pod(r) && silent.contains(&r.device));
    if !lost.is_empty() {
        let lost: Vec<String> = lost.iter().map(|r| format!("{} dev {}", r.destination, r.device)).collect();
        unlike.push(LeftOut::new(format!("routes: {}", few(&lost)), "the lab does not have these interfaces"));
    }
    let pod_device = to_pods.first().map(|r| r.device.clone());
    let pods = to_pods.iter().map(|r| r.destination.addr()).collect();
    Ok(Network { devices, routes, pods, pod_device, unlike })
}

/// Kinds of interfaces that put packets into other packets.
const TUNNELS: [&str; 9] = ["vxlan", "geneve", "ipip", "sit", "gre", "ip6gre", "ip6tnl", "wireguard", "vti"];

/// Tables of routes that the lab does not fill.
fn tables(routes: &[RouteJson]) -> Option<LeftOut> {
    let names: BTreeSet<&str> = routes.iter().filter_map(|route| route.table.as_deref()).collect();
    let own: Vec<&str> = names.into_iter().filter(|name| !["main", "local", "default"].contains(name)).collect();
    (!own.is_empty()).then(|| LeftOut::new(format!("tables of routes: {}", few(&own)), "only the main table is filled"))
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
        let uplink = Device { name: "eth0".to_owned(), role: Role::Uplink, mac: None, addresses, mtu: None };
        let mut network = Self { devices: vec![uplink], routes: routes.into_iter().collect(), ..Self::default() };
        network.ensure_pods(&own.pod_cidrs);
        network
    }

    /// Adds a bridge for pods if the node has none (as with plug-ins that route to each pod).
    pub(super) fn ensure_pods(&mut self, pod_cidrs: &[IpNet]) {
        if self.devices.iter().any(|d| d.role == Role::Pods) || (pod_cidrs.is_empty() && self.pods.is_empty()) {
            return;
        }
        // The pods' gateway has no address of the node's, so its link-layer address has to be known to them.
        let mac = Some(BRIDGE_MAC.to_owned());
        if self.pods.is_empty() {
            let addresses =
                pod_cidrs.iter().filter_map(|cidr| IpNet::new(nth(cidr, 1), cidr.prefix_len()).ok()).collect();
            self.devices.push(Device { name: "cni0".to_owned(), role: Role::Pods, mac, addresses, mtu: None });
            return;
        }
        let name = self.pod_device.clone().unwrap_or_else(|| "cni0".to_owned());
        self.unlike.push(LeftOut::new("an interface for each pod of the node", format!("all are behind one: {name}")));
        self.devices.push(Device { name, role: Role::Pods, mac, addresses: Vec::new(), mtu: None });
    }

    /// Takes addresses for pods of the node that no route and no subnet shows to be.
    pub(super) fn adopt(&mut self, pods: impl IntoIterator<Item = IpAddr>) {
        for ip in pods {
            if !self.owns(ip) && !self.is_pod(ip) {
                self.pods.insert(ip);
            }
        }
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
        self.in_pod_subnet(ip) || self.pods.contains(&ip)
    }

    /// Whether an address is in a subnet of the pods' bridge.
    pub(super) fn in_pod_subnet(&self, ip: IpAddr) -> bool {
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

    /// The address that clients outside have: of the first gateway, as the kernel chooses it.
    pub(super) fn outsider(&self, family: Family) -> Option<IpAddr> {
        let gateways = self.gateways();
        let first = self.with(Role::Uplink).find_map(|device| gateways.get(device.name.as_str()));
        first.into_iter().flatten().map(IpNet::addr).find(|ip| Family::of(*ip) == family)
    }

    /// Free addresses for one more pod of the node, one a family: from its subnets, or, where these are full, from the
    /// `wider` nets of the cluster.
    pub(super) fn free_pod_addresses(&self, taken: &BTreeSet<IpAddr>, wider: &[IpNet]) -> Vec<IpAddr> {
        let mut free: Vec<IpAddr> = Vec::new();
        let own = self.pod_subnets();
        let served =
            |v4: bool| own.iter().map(IpNet::addr).chain(self.pods.iter().copied()).any(|ip| ip.is_ipv4() == v4);
        // Where neither says, beside a pod.
        let beside = |ip: &IpAddr| IpNet::new(*ip, if ip.is_ipv4() { 24 } else { 64 }).ok();
        let beside: Vec<IpNet> = self.pods.iter().filter_map(beside).collect();
        for net in own.iter().chain(wider).chain(&beside) {
            let v4 = net.addr().is_ipv4();
            if !served(v4) || free.iter().any(|ip| ip.is_ipv4() == v4) {
                continue;
            }
            let highest = match net.trunc() {
                IpNet::V4(net) => IpAddr::V4(net.broadcast()),
                IpNet::V6(net) => IpAddr::V6(Ipv6Addr::from(u128::from(net.network()) | 0xffff)),
            };
            let mut candidates = (1..=u8::MAX).map(|n| below(highest, n)).take_while(|ip| net.contains(ip));
            let fits =
                |ip: &IpAddr| !taken.contains(ip) && !self.owns(*ip) && !self.pods.contains(ip) && *ip != net.network();
            free.extend(candidates.find(fits));
        }
        free
    }
}

/// Link-layer address of a bridge that was not recorded.
pub(super) const BRIDGE_MAC: &str = "02:6b:70:78:00:01";

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
        assert_eq!(network.devices[0].mtu, Some(1500));
        assert_eq!((network.pods.len(), &network.unlike), (0, &Vec::new()));
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

    /// As Calico and the plug-ins of clouds do: no bridge, a route to each pod.
    #[test]
    fn a_node_that_routes_to_each_pod() {
        let addresses = r#"[
            {"ifname": "lo", "link_type": "loopback", "addr_info": []},
            {"ifname": "eth0", "mtu": 9001, "address": "02:00:00:00:00:01", "addr_info": [
                {"local": "10.0.0.5", "prefixlen": 24, "scope": "global"}]},
            {"ifname": "vxlan.calico", "flags": ["UP"], "linkinfo": {"info_kind": "vxlan"}, "addr_info": [
                {"local": "192.168.7.64", "prefixlen": 32, "scope": "global"}]},
            {"ifname": "cali1a2b3c", "linkinfo": {"info_kind": "veth"}, "addr_info": [
                {"local": "fe80::ecee:eeff:feee:eeee", "prefixlen": 64, "scope": "link"}]},
            {"ifname": "cali4d5e6f", "linkinfo": {"info_kind": "veth"}, "addr_info": []}]"#;
        let routes = r#"[
            {"dst": "default", "gateway": "10.0.0.1", "dev": "eth0"},
            {"dst": "192.168.7.66", "dev": "cali1a2b3c", "scope": "link"},
            {"dst": "192.168.7.67", "dev": "cali4d5e6f", "scope": "link"},
            {"dst": "192.168.9.0/26", "gateway": "192.168.9.0", "dev": "vxlan.calico"},
            {"type": "blackhole", "dst": "192.168.7.64/26", "dev": "*"},
            {"dst": "10.9.0.0/16", "gateway": "10.8.0.1", "dev": "wg0"}]"#;
        let mut network = parse(addresses.as_bytes(), routes.as_bytes(), &[]).expect("it parses");
        network.ensure_pods(&[net("192.168.7.0/24")]);
        network.adopt(["10.0.0.5", "192.168.7.66", "192.168.7.99"].map(|ip| ip.parse().unwrap()));
        let roles: Vec<_> = network.devices.iter().map(|d| (d.name.as_str(), d.role)).collect();
        assert_eq!(roles, [("eth0", Role::Uplink), ("vxlan.calico", Role::Uplink), ("cali1a2b3c", Role::Pods)]);
        assert_eq!(network.devices[0].mtu, Some(9001));
        let pods: Vec<_> = network.pods.iter().map(ToString::to_string).collect();
        assert_eq!(pods, ["192.168.7.66", "192.168.7.67", "192.168.7.99"]);
        assert!(network.is_pod(pods[0].parse().unwrap()) && !network.in_pod_subnet(pods[0].parse().unwrap()));
        let free = network.free_pod_addresses(&BTreeSet::new(), &[]);
        assert_eq!(free, ["192.168.7.254".parse::<IpAddr>().unwrap()]);
        let unlike: Vec<_> = network.unlike.iter().map(|left| left.what.as_str()).collect();
        assert_eq!(
            unlike,
            ["interface vxlan.calico (vxlan)", "routes: 10.9.0.0/16 dev wg0", "an interface for each pod of the node"]
        );
    }

    #[test]
    fn rubbish_is_an_error() {
        assert!(parse(b"{}", b"[]", &[]).is_err());
        assert!(parse(b"[]", b"[{}]", &[]).is_err());
    }
}
