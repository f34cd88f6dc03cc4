//! ctnetlink's form of an entry (linux/netfilter/nfnetlink_conntrack.h). Numbers are big-endian.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::entry::{Counters, Entry, Status, Tuple, states};
use crate::capture::netlink::{NetlinkError, Recorded, attributes, replay as replay_messages};

/// `NFNL_SUBSYS_CTNETLINK`.
pub(super) const SUBSYSTEM: u8 = 1;
/// `IPCTNL_MSG_CT_NEW`.
const NEW: u8 = 0;
/// Length of `nfgenmsg`.
pub(super) const NETFILTER_HEADER: usize = 4;

pub(super) const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
pub(super) const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
const TIMEOUT: u16 = 7;
const MARK: u16 = 8;
const COUNTERS_ORIG: u16 = 9;
const COUNTERS_REPLY: u16 = 10;
pub(super) const ID: u16 = 12;
pub(super) const ZONE: u16 = 18;
pub(super) const STATUS_MASK: u16 = 26;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;

const V4_SRC: u16 = 1;
const V4_DST: u16 = 2;
const V6_SRC: u16 = 3;
const V6_DST: u16 = 4;

const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;

/// In both `CTA_PROTOINFO_TCP` (1) and `CTA_PROTOINFO_SCTP` (3).
const PROTOINFO_STATE: u16 = 1;

const COUNTER_PACKETS: u16 = 1;
const COUNTER_BYTES: u16 = 2;

/// The entry in a message of ctnetlink: its type and its body, with `nfgenmsg`. `None` for other messages, and for one
/// without both tuples.
pub fn decode(kind: u16, body: &[u8]) -> Option<Entry> {
    if kind != u16::from(SUBSYSTEM) << 8 | u16::from(NEW) {
        return None;
    }
    let (mut original, mut reply) = (None, None);
    let mut status = Status::default();
    let mut state = None;
    let (mut timeout, mut mark, mut id, mut zone) = (None, 0, None, 0);
    let mut counters = [None, None];
    for (kind, value) in attributes(body.get(NETFILTER_HEADER..)?) {
        match kind {
            TUPLE_ORIG => original = tuple(value),
            TUPLE_REPLY => reply = tuple(value),
            STATUS => status = number(value).map_or(status, Status::all),
            PROTOINFO => state = attributes(value).next().map(|(_, inner)| inner),
            TIMEOUT => timeout = number(value),
            MARK => mark = number(value).unwrap_or(0),
            COUNTERS_ORIG => counters[0] = Some(count(value)),
            COUNTERS_REPLY => counters[1] = Some(count(value)),
            ID => id = number(value),
            ZONE => zone = value.first_chunk().map_or(0, |b| u16::from_be_bytes(*b)),
            _ => {}
        }
    }
    let ((protocol, original), (_, reply)) = (original?, reply?);
    let state = state
        .and_then(|inner| attributes(inner).find(|(kind, _)| *kind == PROTOINFO_STATE))
        .and_then(|(_, value)| states(protocol).get(usize::from(*value.first()?)).copied());
    let counters = match counters {
        [None, None] => None,
        [a, b] => Some([a.unwrap_or_default(), b.unwrap_or_default()]),
    };
    Some(Entry { protocol, original, reply, status, state, timeout, counters, mark, zone, id })
}

/// The entries of recorded dumps; other messages are passed over.
pub fn replay(bytes: &[u8], mut each: impl FnMut(&Entry)) -> Result<(), NetlinkError> {
    replay_messages(bytes, |message| {
        if let Recorded::Answer(kind, body) = message
            && let Some(entry) = decode(kind, body)
        {
            each(&entry);
        }
    })
}

fn tuple(bytes: &[u8]) -> Option<(u8, Tuple)> {
    let (mut source, mut destination) = (None, None);
    let (mut protocol, mut ports) = (0, (0, 0));
    for (kind, value) in attributes(bytes) {
        match kind {
            TUPLE_IP => {
                for (kind, value) in attributes(value) {
                    match kind {
                        V4_SRC | V6_SRC => source = address(value),
                        V4_DST | V6_DST => destination = address(value),
                        _ => {}
                    }
                }
            }
            TUPLE_PROTO => {
                for (kind, value) in attributes(value) {
                    let port = || value.first_chunk().map_or(0, |b| u16::from_be_bytes(*b));
                    match kind {
                        PROTO_NUM => protocol = value.first().copied().unwrap_or(0),
                        PROTO_SRC_PORT => ports.0 = port(),
                        PROTO_DST_PORT => ports.1 = port(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let (source, destination) = (SocketAddr::new(source?, ports.0), SocketAddr::new(destination?, ports.1));
    Some((protocol, Tuple { source, destination }))
}

/// An IPv4-mapped address is an IPv4 address.
fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => value.first_chunk::<4>().map(|b| IpAddr::V4(Ipv4Addr::from(*b))),
        16 => value.first_chunk::<16>().map(|b| Ipv6Addr::from(*b).to_canonical()),
        _ => None,
    }
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|b| u32::from_be_bytes(*b))
}

fn count(bytes: &[u8]) -> Counters {
    let mut counters = Counters::default();
    for (kind, value) in attributes(bytes) {
        let number = value.first_chunk().map_or(0, |b| u64::from_be_bytes(*b));
        match kind {
            COUNTER_PACKETS => counters.packets = number,
            COUNTER_BYTES => counters.bytes = number,
            _ => {}
        }
    }
    counters
}
