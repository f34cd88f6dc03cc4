//! Which addresses the node's devices have: the JSON of `ip -j -d addr`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Deserialize;

use crate::model::Family;

/// The device on which kube-proxy puts the addresses of Services.
pub const DEVICE: &str = "kube-ipvs0";

/// Addresses of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// On kube-ipvs0; `None` where there is no such device.
    pub services: Option<BTreeSet<IpAddr>>,
    /// On other devices, but for loopback and link-local ones: where NodePorts are served by default.
    pub node: BTreeSet<IpAddr>,
}

#[derive(Deserialize)]
struct Link {
    ifname: String,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    local: Option<IpAddr>,
}

impl Addresses {
    /// Reads what `ip -j -d addr` prints.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let links: Vec<Link> = serde_json::from_slice(json)?;
        let mut addresses = Self::default();
        for link in links {
            let of_link = link.addr_info.iter().filter_map(|a| a.local);
            if link.ifname == DEVICE {
                addresses.services.get_or_insert_default().extend(of_link);
            } else {
                addresses.node.extend(of_link.filter(|ip| !is_special(*ip)));
            }
        }
        Ok(addresses)
    }

    /// Those of the node in one family.
    pub fn of_node(&self, family: Family) -> BTreeSet<IpAddr> {
        self.node.iter().copied().filter(|ip| Family::of(*ip) == family).collect()
    }
}

const fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    }
}
