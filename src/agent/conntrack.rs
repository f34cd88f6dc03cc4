//! Ends UDP flows in the kernel's conntrack that lead to backends which serve no more.
//!
//! The rules of a kube-proxy made them, and while they are used they never expire. TCP and SCTP entries stay: their ends
//! notice by themselves.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::addresses::ip;
use super::ports::Ports;
use crate::capture::netlink::{Netlink, NetlinkError, Request, attributes};

// linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h
const CTNETLINK: u8 = 1;
const GET: u8 = 1;
const DELETE: u8 = 2;
const NESTED: u16 = 0x8000;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const UDP: u8 = 17;
const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];

/// `struct nfgenmsg`.
const HEADER: usize = 4;

/// Deletions in one batch.
const BATCH: usize = 64;

/// Deletes the stale entries of this network namespace, and returns how many there were.
pub(super) fn clean(ports: &Ports, local: &BTreeSet<IpAddr>) -> Result<usize, NetlinkError> {
    let Some(mut netlink) = Netlink::conntrack()? else { return Ok(0) };
    let mut stale = Vec::new();
    for family in FAMILIES {
        netlink.dump(&Request::netfilter(CTNETLINK, GET, family), |_, body| {
            let Some(entry) = body.get(HEADER..).and_then(Entry::read) else { return };
            if ports.is_stale_flow(entry.sent_to, entry.answers_from, local) {
                stale.push(entry.deletion(family));
            }
        })?;
    }
    for batch in stale.chunks(BATCH) {
        match netlink.ask(batch, |_, _| {}) {
            // Some have ended by themselves.
            Err(NetlinkError::Refused(error)) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(stale.len())
}

/// A UDP entry, with what is needed to delete it and no later one of the same tuple.
struct Entry<'a> {
    sent_to: SocketAddr,
    answers_from: SocketAddr,
    original: &'a [u8],
    id: Option<&'a [u8]>,
    zone: Option<&'a [u8]>,
}

impl<'a> Entry<'a> {
    /// `None` for other protocols and for what is cut short.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let of = |wanted: u16| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let original = of(CTA_TUPLE_ORIG)?;
        Some(Self {
            sent_to: end(original, [CTA_IP_V4_DST, CTA_IP_V6_DST], CTA_PROTO_DST_PORT)?,
            answers_from: end(of(CTA_TUPLE_REPLY)?, [CTA_IP_V4_SRC, CTA_IP_V6_SRC], CTA_PROTO_SRC_PORT)?,
            original,
            id: of(CTA_ID),
            zone: of(CTA_ZONE),
        })
    }

    fn deletion(&self, family: u8) -> Request {
        let mut request = Request::netfilter(CTNETLINK, DELETE, family).with(NESTED | CTA_TUPLE_ORIG, self.original);
        for (kind, value) in [(CTA_ID, self.id), (CTA_ZONE, self.zone)] {
            if let Some(value) = value {
                request = request.with(kind, value);
            }
        }
        request
    }
}

/// One end of a tuple, if it is one of UDP.
fn end(tuple: &[u8], addresses: [u16; 2], port: u16) -> Option<SocketAddr> {
    let of = |wanted: u16| attributes(tuple).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let (network, transport) = (of(CTA_TUPLE_IP)?, of(CTA_TUPLE_PROTO)?);
    let address = attributes(network).find(|(kind, _)| addresses.contains(kind)).and_then(|(_, value)| ip(value))?;
    let of = |wanted: u16| attributes(transport).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    if of(CTA_PROTO_NUM)? != [UDP] {
        return None;
    }
    Some(SocketAddr::new(address, u16::from_be_bytes(*of(port)?.first_chunk()?)))
}
