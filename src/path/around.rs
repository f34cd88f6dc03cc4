//! What a walk has to know of the node besides rules: its addresses and its routes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::capture::{CaptureError, Captured, Item, Node};
use crate::model::Family;

/// The node around the rules.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// Addresses of the node's interfaces; `None` where they were not captured.
    pub addresses: Option<BTreeSet<IpAddr>>,
    /// The interfaces' names and addresses.
    interfaces: Vec<(String, IpAddr)>,
    /// Networks and the interfaces that lead there.
    routes: Vec<(IpNet, Way)>,
}

/// Where a route leads.
#[derive(Clone, Debug)]
struct Way {
    interface: String,
    source: Option<IpAddr>,
}

#[derive(Deserialize)]
struct Route {
    dst: String,
    dev: Option<String>,
    r#type: Option<String>,
    gateway: Option<IpAddr>,
    prefsrc: Option<IpAddr>,
}

#[derive(Deserialize)]
struct Link {
    ifname: Option<String>,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    local: Option<IpAddr>,
    scope: Option<String>,
}

impl Around {
    /// Takes it from a node. What cannot be read is not known, and whoever asks for it says so.
    pub fn read(node: &Node) -> Result<Self, CaptureError> {
        let mut text = [Item::Addresses, Item::Routes].map(|item| match node.read(item) {
            Ok(Captured::Present { bytes, .. }) => Ok(Some(bytes)),
            Ok(Captured::Absent { .. }) => Ok(None),
            Err(error) => Err(error),
        });
        let [addresses, routes] = &mut text;
        let take = |text: &mut Result<Option<Vec<u8>>, CaptureError>| std::mem::replace(text, Ok(None));
        Ok(Self::of(take(addresses)?.as_deref(), take(routes)?.as_deref().unwrap_or_default()))
    }

    /// A node of which `ip -j addr` and `ip -j route` printed this.
    pub fn of(addresses: Option<&[u8]>, routes: &[u8]) -> Self {
        let links: Option<Vec<Link>> = addresses.and_then(|json| serde_json::from_slice(json).ok());
        let known = links.is_some();
        let mut interfaces = Vec::new();
        for link in links.into_iter().flatten() {
            let name = link.ifname.unwrap_or_default();
            // What has a wider scope is preferred as a source.
            let (global, others): (Vec<_>, Vec<_>) =
                link.addr_info.into_iter().partition(|address| address.scope.as_deref() == Some("global"));
            interfaces.extend(global.into_iter().chain(others).filter_map(|a| Some((name.clone(), a.local?))));
        }
        let addresses = known.then(|| interfaces.iter().map(|(_, ip)| *ip).collect());
        Self { addresses, interfaces, routes: read_routes(routes) }
    }

    /// Whether an address is one of the node's own; `None` where they are not known.
    pub fn is_local(&self, ip: IpAddr) -> Option<bool> {
        if ip.is_loopback() {
            return Some(true);
        }
        self.addresses.as_ref().map(|addresses| addresses.contains(&ip))
    }

    /// The interface that leads to an address, by the narrowest route of the main table and of the others together.
    pub fn interface_to(&self, ip: IpAddr) -> Option<&str> {
        if self.is_local(ip) == Some(true) {
            return Some("lo");
        }
        self.way_to(ip).map(|way| way.interface.as_str())
    }

    /// The address that a socket of the node has when it sends to `ip`; `None` where no route tells.
    pub fn source_to(&self, ip: IpAddr) -> Option<IpAddr> {
        if self.is_local(ip) == Some(true) {
            return Some(ip);
        }
        let way = self.way_to(ip)?;
        let own = self.interfaces.iter().find(|(name, own)| *name == way.interface && own.is_ipv4() == ip.is_ipv4());
        way.source.or_else(|| own.map(|(_, ip)| *ip))
    }

    fn way_to(&self, ip: IpAddr) -> Option<&Way> {
        // Of equal routes `ip` prints the one with the smallest metric first.
        let leads = self.routes.iter().rev().filter(|(net, _)| net.contains(&ip));
        leads.max_by_key(|(net, _)| net.prefix_len()).map(|(_, way)| way)
    }
}

/// Unicast routes with an interface of `ip -j route`; text that is none gives none.
fn read_routes(json: &[u8]) -> Vec<(IpNet, Way)> {
    let all: Vec<Route> = serde_json::from_slice(json).unwrap_or_default();
    all.into_iter()
        .filter(|route| route.r#type.as_deref().is_none_or(|kind| kind == "unicast"))
        .filter_map(|route| {
            let way = Way { interface: route.dev?, source: route.prefsrc };
            Some((network(&route.dst, route.gateway)?, way))
        })
        .flat_map(|(nets, way)| nets.into_iter().map(move |net| (net, way.clone())))
        .collect()
}

/// `default` stands for either family; the gateway tells which, else it is both.
fn network(text: &str, gateway: Option<IpAddr>) -> Option<Vec<IpNet>> {
    if text != "default" {
        return text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok().map(|net| vec![net]);
    }
    let all = |family: Family| IpNet::new(family.unspecified(), 0).ok();
    match gateway {
        Some(ip) => all(Family::of(ip)).map(|net| vec![net]),
        None => Some(Family::BOTH.into_iter().filter_map(all).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_route_leads() {
        let json = br#"[{"dst":"default","gateway":"192.0.2.1","dev":"eth0"},{"dst":"10.244.0.0/16","dev":"tunl0"},
            {"dst":"10.244.1.0/24","dev":"cni0"},{"type":"blackhole","dst":"10.244.1.9"},{"dst":"fd00::1","dev":"veth1"}]"#;
        let addresses = br#"[{"ifname":"eth0","addr_info":[{"local":"192.0.2.7","scope":"global"}]},{"ifname":"cni0",
            "addr_info":[{"local":"10.244.1.1","scope":"global"}]}]"#;
        let around = Around::of(Some(addresses), json);
        let to = |ip: &str| around.interface_to(ip.parse().expect("an address"));
        assert_eq!(to("10.244.1.9"), Some("cni0"));
        assert_eq!(to("10.244.2.9"), Some("tunl0"));
        assert_eq!(to("198.51.100.1"), Some("eth0"));
        assert_eq!(to("192.0.2.7"), Some("lo"));
        assert_eq!(to("fd00::1"), Some("veth1"));
        // `default` without a gateway would be of either family.
        assert_eq!(to("fd00::2"), None);
        let source = |ip: &str| around.source_to(ip.parse().expect("an address")).map(|ip| ip.to_string());
        assert_eq!(source("198.51.100.1").as_deref(), Some("192.0.2.7"));
        assert_eq!(source("10.244.1.9").as_deref(), Some("10.244.1.1"));
        assert_eq!(source("192.0.2.7").as_deref(), Some("192.0.2.7"));
    }
}
