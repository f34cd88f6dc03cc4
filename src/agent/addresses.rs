//! The addresses of this network namespace, by netlink.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};

use crate::capture::netlink::{Netlink, NetlinkError, Request, attributes};
use crate::inspect::ipvs::DEVICE;

// linux/rtnetlink.h, linux/if_addr.h
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// `struct ifaddrmsg`.
const HEADER: usize = 8;

/// Every address of every interface but ipvs mode's, whose are those of Services.
pub(super) fn local() -> Result<BTreeSet<IpAddr>, NetlinkError> {
    let mut found = BTreeSet::new();
    let services = number(DEVICE);
    let request = Request { kind: RTM_GETADDR, body: vec![0; HEADER] };
    Netlink::route()?.dump(&request, |kind, body| {
        if kind == RTM_NEWADDR && (services.is_none() || device(body) != services) {
            found.extend(address(body));
        }
    })?;
    Ok(found)
}

/// The number of an interface; `None` where there is none of this name.
fn number(name: &str) -> Option<u32> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    name_to_index(&socket, name).ok()
}

/// `ifa_index`, behind family, prefix length, flags and scope.
fn device(body: &[u8]) -> Option<u32> {
    body.get(4..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// Of a point-to-point link `IFA_ADDRESS` is the other end; IPv6 has no `IFA_LOCAL` unless it is one.
fn address(body: &[u8]) -> Option<IpAddr> {
    let of = |wanted: u16| attributes(body.get(HEADER..)?).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    ip(of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?)
}

/// An address in network byte order, of either family.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|b| Ipv4Addr::from(*b).into()),
        16 => bytes.first_chunk::<16>().map(|b| Ipv6Addr::from(*b).into()),
        _ => None,
    }
}
