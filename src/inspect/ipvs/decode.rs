//! What the kernel's IPVS answers. Numbers are the host's, addresses and ports big-endian.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::message::{
    INFO_TABLE_SIZE, INFO_VERSION, NEW_SERVER, NEW_SERVICE, SERVER, SERVER_ACTIVE, SERVER_ADDRESS, SERVER_FAMILY,
    SERVER_FORWARD, SERVER_INACTIVE, SERVER_PERSISTENT, SERVER_PORT, SERVER_STATS, SERVER_STATS64, SERVER_WEIGHT,
    SERVICE, SERVICE_ADDRESS, SERVICE_FAMILY, SERVICE_FLAGS, SERVICE_MARK, SERVICE_NETMASK, SERVICE_PORT,
    SERVICE_PROTOCOL, SERVICE_SCHEDULER, SERVICE_STATS, SERVICE_STATS64, SERVICE_TIMEOUT, SET_CONFIG, SET_INFO,
    TIMEOUTS,
};
use super::state::{Flags, Forward, Ipvs, RealServer, Stats, Version, Virtual, VirtualService};
use crate::capture::netlink::{GENERIC_HEADER, NetlinkError, Recorded, attributes, replay};
use crate::model::{Family, Protocol};

/// Why recorded messages give no state.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They do not hold together, or hold a refusal.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// There are more lists of servers than services.
    #[error("a list of servers belongs to no virtual service")]
    Order,
    /// A service or a server lacks its address.
    #[error("a virtual service or server without address and protocol")]
    Address,
}

/// The state in recorded answers: information and configuration, the list of services, then one list of servers for each of
/// them in the same order. No bytes are no IPVS.
pub fn decode(bytes: &[u8]) -> Result<Ipvs, DecodeError> {
    let mut ipvs = Ipvs::default();
    // Of the service whose servers come now; `None` until the list of services has ended.
    let mut current = None;
    let mut error = None;
    replay(bytes, |message| match message {
        Recorded::End => current = Some(current.map_or(0, |i: usize| i + 1)),
        Recorded::Answer(_, body) => {
            if let Err(e) = answer(body, current, &mut ipvs) {
                error.get_or_insert(e);
            }
        }
    })?;
    error.map_or(Ok(ipvs), Err)
}

fn answer(body: &[u8], current: Option<usize>, ipvs: &mut Ipvs) -> Result<(), DecodeError> {
    let Some((header, rest)) = body.split_first_chunk::<GENERIC_HEADER>() else { return Ok(()) };
    let nested = |wanted: u16| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let top = |wanted: u16| nested(wanted).and_then(number).and_then(|n| u32::try_from(n).ok());
    match header[0] {
        SET_INFO => (ipvs.version, ipvs.table_size) = (top(INFO_VERSION).map(Version), top(INFO_TABLE_SIZE)),
        SET_CONFIG => ipvs.timeouts = Some(TIMEOUTS.map(|kind| top(kind).unwrap_or(0))),
        NEW_SERVICE => ipvs.services.push(nested(SERVICE).and_then(service).ok_or(DecodeError::Address)?),
        NEW_SERVER => {
            let service = current.and_then(|i| ipvs.services.get_mut(i)).ok_or(DecodeError::Order)?;
            let family = match service.key {
                Virtual::Address(address, _) => Family::of(address.ip()),
                Virtual::Mark(family, _) => family,
            };
            service.servers.push(nested(SERVER).and_then(|b| server(b, family)).ok_or(DecodeError::Address)?);
        }
        _ => {}
    }
    Ok(())
}

fn service(bytes: &[u8]) -> Option<VirtualService> {
    let (mut family, mut protocol, mut address, mut port, mut mark) = (Family::V4, None, None, 0, None);
    let mut service = VirtualService {
        key: Virtual::Mark(Family::V4, 0),
        scheduler: String::new(),
        flags: Flags::default(),
        persistence: 0,
        netmask: 0,
        stats: Stats::default(),
        servers: Vec::new(),
    };
    for (kind, value) in attributes(bytes) {
        match kind {
            SERVICE_FAMILY => family = family_of(value),
            SERVICE_PROTOCOL => protocol = u8::try_from(small(value)).ok().and_then(Protocol::from_number),
            SERVICE_ADDRESS => address = Some(value),
            SERVICE_PORT => port = big(value),
            SERVICE_MARK => mark = Some(small(value)),
            SERVICE_SCHEDULER => service.scheduler = text(value),
            // Flags and a mask of those that count.
            SERVICE_FLAGS => service.flags = Flags(value.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b))),
            SERVICE_TIMEOUT => service.persistence = small(value),
            SERVICE_NETMASK => service.netmask = small(value),
            SERVICE_STATS if service.stats == Stats::default() => service.stats = stats(value),
            SERVICE_STATS64 => service.stats = stats(value),
            _ => {}
        }
    }
    service.key = match mark {
        Some(mark) => Virtual::Mark(family, mark),
        None => Virtual::Address(SocketAddr::new(ip(address?, family)?, port), protocol?),
    };
    Some(service)
}

fn server(bytes: &[u8], mut family: Family) -> Option<RealServer> {
    let (mut address, mut port) = (None, 0);
    let mut server = RealServer {
        address: SocketAddr::from(([0; 4], 0)),
        forward: Forward::Masquerade,
        weight: 0,
        active: 0,
        inactive: 0,
        persistent: 0,
        stats: Stats::default(),
    };
    for (kind, value) in attributes(bytes) {
        match kind {
            SERVER_ADDRESS => address = Some(value),
            SERVER_PORT => port = big(value),
            SERVER_FORWARD => server.forward = Forward::from_flags(small(value)),
            SERVER_WEIGHT => server.weight = small(value),
            SERVER_ACTIVE => server.active = small(value),
            SERVER_INACTIVE => server.inactive = small(value),
            SERVER_PERSISTENT => server.persistent = small(value),
            SERVER_STATS if server.stats == Stats::default() => server.stats = stats(value),
            SERVER_STATS64 => server.stats = stats(value),
            // Kernels before 3.18 do not tell: the service's.
            SERVER_FAMILY => family = family_of(value),
            _ => {}
        }
    }
    server.address = SocketAddr::new(ip(address?, family)?, port);
    Some(server)
}

fn stats(bytes: &[u8]) -> Stats {
    let mut stats = Stats::default();
    for (kind, value) in attributes(bytes) {
        let Some(number) = number(value) else { continue };
        match kind {
            1 => stats.connections = number,
            2 => stats.in_packets = number,
            3 => stats.out_packets = number,
            4 => stats.in_bytes = number,
            5 => stats.out_bytes = number,
            6 => stats.connection_rate = number,
            7 => stats.in_packet_rate = number,
            8 => stats.out_packet_rate = number,
            9 => stats.in_byte_rate = number,
            10 => stats.out_byte_rate = number,
            _ => {}
        }
    }
    stats
}

/// An unsigned number of the host's byte order, as long as it is.
fn number(value: &[u8]) -> Option<u64> {
    Some(match value.len() {
        2 => u16::from_ne_bytes(*value.first_chunk()?).into(),
        4 => u32::from_ne_bytes(*value.first_chunk()?).into(),
        8 => u64::from_ne_bytes(*value.first_chunk()?),
        _ => return None,
    })
}

fn small(value: &[u8]) -> u32 {
    number(value).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

fn big(value: &[u8]) -> u16 {
    value.first_chunk().map_or(0, |b| u16::from_be_bytes(*b))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

fn family_of(value: &[u8]) -> Family {
    if small(value) == libc::AF_INET6 as u32 { Family::V6 } else { Family::V4 }
}

/// The kernel gives sixteen bytes of either family; IPv4 uses the first four.
fn ip(value: &[u8], family: Family) -> Option<IpAddr> {
    Some(match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(*value.first_chunk::<4>()?)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(*value.first_chunk::<16>()?)),
    })
}
