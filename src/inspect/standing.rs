//! Whether kube-proxy's rules stand in this network namespace: a question that is asked every few seconds, so it takes no
//! more than a few answers of the kernel, needs no tool and reads no rule.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::Ipv6Addr;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};

use crate::capture::legacy_table;
use crate::capture::netlink::{Netlink, NetlinkError, Request, attributes};
use crate::error::Hinted;
use crate::model::Family;

/// The chain that every mode but nftables has, in every release.
const CHAIN: &str = "KUBE-SERVICES";
/// The table of nftables mode.
const TABLE: &str = "kube-proxy";
/// The device of ipvs mode.
const IPVS: &str = "kube-ipvs0";

// linux/netfilter/nfnetlink.h, nf_tables.h
const NF_TABLES: u8 = 10;
const GET_TABLE: u8 = 1;
const GET_CHAIN: u8 = 4;
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;

// linux/rtnetlink.h, linux/if_addr.h
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
/// `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;

/// Rules of kube-proxy that stand. A chain that no packet reaches any more counts as well: where there is doubt, they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Its chain in the nat table of legacy iptables.
    Legacy(Family),
    /// Its chain in the nat table of iptables over nf_tables.
    Nft(Family),
    /// Its table of nftables mode.
    Nftables(Family),
    /// The device of ipvs mode, with virtual services in the kernel.
    Ipvs,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Legacy(family) => write!(f, "chain {CHAIN} of iptables-legacy, {family}"),
            Self::Nft(family) => write!(f, "chain {CHAIN} of iptables-nft, {family}"),
            Self::Nftables(family) => write!(f, "table {TABLE} of nftables, {family}"),
            Self::Ipvs => write!(f, "virtual services of IPVS, with {IPVS}"),
        }
    }
}

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// nf_tables does not tell.
    #[error("nf_tables does not tell whether kube-proxy's rules stand")]
    NfTables(#[from] NetlinkError),
    /// Legacy iptables or IPVS does not.
    #[error("the kernel does not tell whether kube-proxy's rules stand")]
    Kernel(#[from] io::Error),
}

impl Hinted for StandingError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::NfTables(source) => source.hints(),
            Self::Kernel(_) => Vec::new(),
        }
    }
}

/// What of kube-proxy stands in this network namespace; loads nothing and makes nothing.
pub fn standing() -> Result<Vec<Standing>, StandingError> {
    let mut found = Vec::new();
    if let Some(mut netlink) = Netlink::nf_tables()? {
        for family in Family::BOTH {
            let nfproto = match family {
                Family::V4 => libc::AF_INET as u8,
                Family::V6 => libc::AF_INET6 as u8,
            };
            let chain = Request::netfilter(NF_TABLES, GET_CHAIN, nfproto)
                .with(CHAIN_TABLE, b"nat\0")
                .with(CHAIN_NAME, &terminated(CHAIN));
            if exists(&mut netlink, chain)? {
                found.push(Standing::Nft(family));
            }
            let table = Request::netfilter(NF_TABLES, GET_TABLE, nfproto).with(TABLE_NAME, &terminated(TABLE));
            if exists(&mut netlink, table)? {
                found.push(Standing::Nftables(family));
            }
        }
    }
    for family in Family::BOTH {
        // A chain begins with an entry that carries its name.
        let name = terminated(CHAIN);
        if legacy_table(family, "nat")?.is_some_and(|entries| memchr::memmem::find(&entries, &name).is_some()) {
            found.push(Standing::Legacy(family));
        }
    }
    if ipvs()? {
        found.push(Standing::Ipvs);
    }
    Ok(found)
}

fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

fn exists(netlink: &mut Netlink, request: Request) -> Result<bool, NetlinkError> {
    match netlink.ask(&[request], |_, _| {}) {
        Ok(()) => Ok(true),
        Err(NetlinkError::Refused(error)) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether there is a device of ipvs mode.
pub fn ipvs_device() -> Result<bool, StandingError> {
    Ok(device()?.is_some())
}

fn device() -> io::Result<Option<u32>> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(name_to_index(&socket, IPVS).ok())
}

/// Whether a virtual service has an address of the device. Others may have virtual services, and the device may be left with
/// addresses that sockets use.
fn ipvs() -> Result<bool, StandingError> {
    let Some(device) = device()? else { return Ok(false) };
    let text = match fs_err::read_to_string("/proc/thread-self/net/ip_vs") {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let served = served(&text);
    if served.is_empty() {
        return Ok(false);
    }
    let mut found = false;
    let request = Request { kind: RTM_GETADDR, body: vec![0; ADDRESS_HEADER] };
    Netlink::route()?.dump(&request, |kind, body| {
        let index = body.get(4..8).and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_ne_bytes(*bytes));
        if kind == RTM_NEWADDR && index == Some(device) {
            let of = attributes(body.get(ADDRESS_HEADER..).unwrap_or_default());
            found |= of.filter(|(kind, _)| *kind == IFA_ADDRESS).any(|(_, ip)| served.contains(ip));
        }
    })?;
    Ok(found)
}

/// The addresses of virtual services in `/proc/net/ip_vs`: `TCP  0A60000A:01BB rr`, `UDP  [fd00:0010:…:000a]:0035 rr`.
fn served(text: &str) -> BTreeSet<Vec<u8>> {
    let one = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let protocol = words.next()?;
        let (ip, _) = words.next()?.rsplit_once(':')?;
        if !["TCP", "UDP", "SCTP"].contains(&protocol) {
            return None;
        }
        match ip.strip_prefix('[') {
            Some(v6) => Some(v6.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.octets().to_vec()),
            None => Some(u32::from_str_radix(ip, 16).ok()?.to_be_bytes().to_vec()),
        }
    };
    text.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_virtual_services_are_read_and_marks_are_none() {
        let text = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> \
                    RemoteAddress:Port Forward Weight ActiveConn InActConn\nTCP  0A60000A:01BB rr\n  -> C0A8320B:192B      \
                    Masq    1      0          0\nUDP  [fd00:0010:0096:0000:0000:0000:0000:000a]:0035 rr\nFWM  00000007 rr\n";
        let v6: Ipv6Addr = "fd00:10:96::a".parse().expect("an address");
        assert_eq!(served(text), [vec![10, 96, 0, 10], v6.octets().to_vec()].into());
    }
}
