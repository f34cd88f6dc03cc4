//! The addresses of this network namespace, by netlink.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::capture::netlink::{Netlink, NetlinkError, Request, attributes};

// linux/rtnetlink.h, linux/if_addr.h
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// `struct ifaddrmsg`.
const HEADER: usize = 8;

/// Every address of every interface.
pub(super) fn local() -> Result<BTreeSet<IpAddr>, NetlinkError> {
    let mut found = BTreeSet::new();
    let request = Request { kind: RTM_GETADDR, body: vec![0; HEADER] };
    Netlink::route()?.dump(&request, |kind, body| {
        if kind == RTM_NEWADDR {
            found.extend(address(body));
        }
    })?;
    Ok(found)
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
