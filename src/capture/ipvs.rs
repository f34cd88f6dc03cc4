//! IPVS by generic netlink (linux/ip_vs.h): information, configuration, virtual services, and the servers of each.

use std::io;

use fs_err as fs;

use super::error::CaptureError;
use super::item::Item;
use super::kernel::Part;
use super::netlink::{GENERIC_HEADER, Netlink, NetlinkError, Recorded, Request, attribute, attributes, replay};
use super::{Captured, live};

pub(super) const PLACE: &str = "generic netlink IPVS";
/// Of this thread, so that a thread in another namespace than the process sees its own.
const CONNECTIONS: &str = "/proc/thread-self/net/ip_vs_conn";

const VERSION: u8 = 1;
const GET_SERVICE: u8 = 4;
const GET_DEST: u8 = 8;
const GET_CONFIG: u8 = 13;
const GET_INFO: u8 = 15;
const CMD_SERVICE: u16 = 1;
const NESTED: u16 = 0x8000;
/// Attributes that name a virtual service: family, protocol, address, port, mark.
const KEY: std::ops::RangeInclusive<u16> = 1..=5;

/// How often the list is read until it is the same afterwards.
const ATTEMPTS: usize = 5;

pub(super) fn state() -> Result<Captured, CaptureError> {
    let failed = |source| CaptureError::Netlink { item: Item::Ipvs, source };
    let Some((mut netlink, family)) = Netlink::ipvs().map_err(failed)? else {
        return Ok(live::nothing(Part::Ipvs, b""));
    };
    let bytes = record(&mut netlink, family).map_err(failed)?;
    Ok(Captured::Present { bytes, place: PLACE.to_owned() })
}

/// IPVS's connections in the network namespace of this thread, as [`Item::IpvsConnections`] has them; `None` without IPVS.
pub fn ipvs_connections() -> io::Result<Option<Vec<u8>>> {
    match fs::read(CONNECTIONS) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(source),
    }
}

pub(super) fn connections() -> Result<Captured, CaptureError> {
    match ipvs_connections() {
        Ok(Some(bytes)) => Ok(Captured::Present { bytes, place: CONNECTIONS.replace("/thread-self", "") }),
        Ok(None) => Ok(live::nothing(Part::Ipvs, b"")),
        Err(source) => Err(CaptureError::Kernel { item: Item::IpvsConnections, place: CONNECTIONS, source }),
    }
}

/// A list of servers does not say whose they are, so the list of services must be the same before and after.
fn record(netlink: &mut Netlink, family: u16) -> Result<Vec<u8>, NetlinkError> {
    let ask = |command| Request::generic(family, command, VERSION);
    for _ in 0..ATTEMPTS {
        let mut out = Vec::new();
        netlink.record_one(&ask(GET_INFO), &mut out)?;
        netlink.record_one(&ask(GET_CONFIG), &mut out)?;
        let start = out.len();
        netlink.record(&ask(GET_SERVICE), &mut out)?;
        let keys = service_keys(&out[start..])?;
        for key in &keys {
            netlink.record(&ask(GET_DEST).with(CMD_SERVICE | NESTED, key), &mut out)?;
        }
        let mut after = Vec::new();
        netlink.record(&ask(GET_SERVICE), &mut after)?;
        if service_keys(&after)? == keys {
            return Ok(out);
        }
    }
    Err(NetlinkError::Changed)
}

/// What names each service of a recorded list, as a request must give it.
fn service_keys(list: &[u8]) -> Result<Vec<Vec<u8>>, NetlinkError> {
    let mut keys = Vec::new();
    replay(list, |message| {
        let Recorded::Answer(_, body) = message else { return };
        let service = attributes(body.get(GENERIC_HEADER..).unwrap_or_default()).find(|(kind, _)| *kind == CMD_SERVICE);
        if let Some((_, service)) = service {
            let mut key = Vec::new();
            for (kind, value) in attributes(service).filter(|(kind, _)| KEY.contains(kind)) {
                attribute(&mut key, kind, value);
            }
            keys.push(key);
        }
    })?;
    Ok(keys)
}
