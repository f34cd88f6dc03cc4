//! The node's network devices: which there are, and what the packet path has to know of them.

use std::net::IpAddr;

use kpx_abi::{Addr, Device};
use serde::Deserialize;

use super::attach::XdpMode;
use super::error::DataplaneError;
use crate::capture::command;
use crate::inspect::ipvs::DEVICE;
use crate::model::Detector;

/// Kinds of devices that no packet of a client comes by: they only hold addresses, copy packets, or carry no IP.
const IDLE: [&str; 5] = ["dummy", "ifb", "nlmon", "vcan", "vxcan"];

/// Whether packets of clients may come by this device, so that the packet path belongs on it.
pub fn carries_packets(device: &NodeDevice) -> bool {
    !device.kind.as_deref().is_some_and(|kind| IDLE.contains(&kind))
}

/// Whether pods are recognised by being behind this device, with the detectors of both families. What a rule sees at a bridge is
/// seen here at its ports.
pub fn has_pods(detectors: [&Detector; 2], device: &NodeDevice) -> bool {
    let names = [Some(&device.name), device.master.as_ref()];
    detectors.iter().any(|detector| {
        names.into_iter().flatten().any(|name| match detector {
            Detector::Interface(interface) => name == interface,
            Detector::InterfacePrefix(prefix) => name.starts_with(prefix.as_str()),
            _ => false,
        })
    })
}

/// A network device of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDevice {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What the kernel calls its kind, such as `veth` or `vxlan`; none for hardware.
    pub kind: Option<String>,
    /// The bridge or bond that it is a port of.
    pub master: Option<String>,
    /// Its Ethernet address, if it has such.
    pub mac: Option<[u8; 6]>,
    /// How it runs a program of XDP, if it does in one of these ways.
    pub xdp: Option<XdpMode>,
    /// Its addresses that others can answer to, in the kernel's order: primary ones first.
    pub addresses: Vec<IpAddr>,
}

#[derive(Deserialize)]
struct LinkJson {
    ifindex: u32,
    ifname: String,
    link_type: String,
    address: Option<String>,
    master: Option<String>,
    linkinfo: Option<KindJson>,
    xdp: Option<XdpJson>,
    #[serde(default)]
    addr_info: Vec<AddressJson>,
}

#[derive(Deserialize)]
struct KindJson {
    info_kind: Option<String>,
}

#[derive(Deserialize)]
struct XdpJson {
    /// `XDP_ATTACHED_DRV` and its like, of linux/if_link.h.
    mode: u8,
}

impl XdpJson {
    const fn mode(&self) -> Option<XdpMode> {
        match self.mode {
            1 => Some(XdpMode::Native),
            2 => Some(XdpMode::Generic),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct AddressJson {
    local: Option<IpAddr>,
    scope: Option<String>,
    #[serde(default)]
    secondary: bool,
    #[serde(default)]
    deprecated: bool,
    #[serde(default)]
    temporary: bool,
}

/// The devices of this network namespace, but for the loopback device.
pub fn read() -> Result<Vec<NodeDevice>, DataplaneError> {
    let listed = command::output("ip", ["-j", "-d", "addr"], None)?;
    Ok(parse(&listed)?)
}

fn parse(json: &[u8]) -> Result<Vec<NodeDevice>, serde_json::Error> {
    // With nothing to list, `ip` prints nothing.
    let links: Vec<LinkJson> = if json.is_empty() { Vec::new() } else { serde_json::from_slice(json)? };
    let devices = links.into_iter().filter(|link| link.link_type != "loopback").map(|link| NodeDevice {
        index: link.ifindex,
        mac: (link.link_type == "ether").then(|| link.address.as_deref().and_then(mac)).flatten(),
        name: link.ifname,
        kind: link.linkinfo.and_then(|info| info.info_kind),
        master: link.master,
        xdp: link.xdp.and_then(|xdp| xdp.mode()),
        addresses: link
            .addr_info
            .iter()
            .filter(|a| a.scope.as_deref() == Some("global") && !a.secondary && !a.deprecated && !a.temporary)
            .filter_map(|a| a.local)
            .collect(),
    });
    Ok(devices.collect())
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// What the programs are told of each device.
///
/// Masquerade takes an address of the device itself; where it has none, as devices of routed pods do, the first one that
/// the node has, which is what the kernel's does.
pub(super) fn described(
    devices: &[NodeDevice],
    wanted: impl Fn(&NodeDevice) -> bool,
    pods: impl Fn(&NodeDevice) -> bool,
) -> Vec<(u32, Device)> {
    let master = |device: &NodeDevice| {
        let ports: Vec<_> = devices.iter().filter(|port| port.master.as_ref() == Some(&device.name)).collect();
        match ports.iter().filter(|port| wanted(port)).count() {
            0 => 0,
            seen if seen == ports.len() => Device::MASTER,
            _ => Device::PARTLY,
        }
    };
    let first = |of: fn(&IpAddr) -> bool, device: &NodeDevice| -> Addr {
        let own = device.addresses.iter().find(|a| of(a));
        // Nobody answers to what ipvs mode's device has: those are addresses of Services.
        let others = devices.iter().filter(|d| d.name != DEVICE);
        let found = own.or_else(|| others.flat_map(|d| &d.addresses).find(|a| of(a)));
        found.map_or([0; 16], |addr| super::reconcile::endpoint((*addr, 0).into()).0)
    };
    let describe = |device: &NodeDevice| {
        let ethernet = if device.mac.is_some() { Device::ETHERNET } else { 0 };
        let pod = if pods(device) { Device::POD } else { 0 };
        let described = Device {
            v4: first(IpAddr::is_ipv4, device),
            v6: first(IpAddr::is_ipv6, device),
            mac: device.mac.unwrap_or_default(),
            flags: ethernet | pod | master(device),
        };
        (device.index, described)
    };
    devices.iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = r#"[
        {"ifindex":1,"ifname":"lo","link_type":"loopback","address":"00:00:00:00:00:00",
         "addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host"}]},
        {"ifindex":2,"ifname":"eth0","link_type":"ether","address":"02:00:00:00:00:0a","master":"br0",
         "xdp":{"mode":2,"prog":{"id":42,"tag":"3b185187f1855c4c","jited":1}},
         "addr_info":[{"family":"inet","local":"192.0.2.9","prefixlen":24,"scope":"global","secondary":true},
                      {"family":"inet","local":"192.0.2.8","prefixlen":24,"scope":"global"},
                      {"family":"inet6","local":"fd00::9","prefixlen":64,"scope":"global","temporary":true},
                      {"family":"inet6","local":"fe80::1","prefixlen":64,"scope":"link"}]},
        {"ifindex":3,"ifname":"wg0","link_type":"none",
         "addr_info":[{"family":"inet6","local":"fd00::3","prefixlen":64,"scope":"global"}]},
        {"ifindex":4,"ifname":"br0","link_type":"ether","address":"02:00:00:00:00:0b","addr_info":[],
         "linkinfo":{"info_kind":"bridge","info_data":{"forward_delay":1500}}}
    ]"#;

    #[test]
    fn devices_are_described_with_the_addresses_that_masquerade_takes() {
        let devices = parse(LISTED.as_bytes()).unwrap();
        assert_eq!(devices.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["eth0", "wg0", "br0"]);
        assert_eq!(devices.iter().map(|d| d.kind.as_deref()).collect::<Vec<_>>(), [None, None, Some("bridge")]);
        assert_eq!(devices.iter().map(|d| d.xdp).collect::<Vec<_>>(), [Some(XdpMode::Generic), None, None]);
        let all = described(&devices, |_| true, |device| device.name == "wg0");
        let v4 = kpx_abi::packet::mapped([192, 0, 2, 8]);
        let v6 = "fd00::3".parse::<std::net::Ipv6Addr>().unwrap().octets();
        let eth0 = Device { v4, v6, mac: [2, 0, 0, 0, 0, 10], flags: Device::ETHERNET };
        let wg0 = Device { v4, v6, mac: [0; 6], flags: Device::POD };
        let br0 = Device { mac: [2, 0, 0, 0, 0, 11], flags: Device::ETHERNET | Device::MASTER, ..eth0 };
        assert_eq!(all, [(2, eth0), (3, wg0), (4, br0)]);
        // A port without programs: what comes in by it is seen at the bridge only.
        let some = described(&devices, |device| device.name != "eth0", |_| false);
        assert!(!some[2].1.has(Device::MASTER));
        assert_eq!(parse(b"").unwrap(), []);
    }
}
