//! Messages to ctnetlink (linux/netfilter/nfnetlink_conntrack.h). Numbers are big-endian.

use std::net::{IpAddr, SocketAddr};

use kpx_abi::Stage;
use kpx_abi::packet::proto;

use super::export::Export;
use crate::capture::netlink::{Request, attribute};
use crate::inspect::conntrack::{Status, Tuple};

const CTNETLINK: u8 = 1;
const NEW: u8 = 0;
const GET: u8 = 1;
const DELETE: u8 = 2;
const NESTED: u16 = 0x8000;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
const NAT_SRC: u16 = 6;
const TIMEOUT: u16 = 7;
const ID: u16 = 12;
const NAT_DST: u16 = 13;
const ZONE: u16 = 18;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;

const NAT_PROTO: u16 = 3;
const PORT_MIN: u16 = 1;
const PORT_MAX: u16 = 2;

const PROTOINFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
const TCP_FLAGS: [u16; 2] = [4, 5];

/// `IPS_CONFIRMED`.
const CONFIRMED: u32 = 1 << 3;
/// `IP_CT_TCP_FLAG_BE_LIBERAL`, and the mask of what is set: the kernel has not seen the flow's sequence numbers.
const LIBERAL: [u8; 2] = [8, 8];

// enum tcp_conntrack
const SYN_SENT: u8 = 1;
const ESTABLISHED: u8 = 3;
const FIN_WAIT: u8 = 4;
const TIME_WAIT: u8 = 7;

const fn family(addr: &SocketAddr) -> u8 {
    if addr.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

fn address(out: &mut Vec<u8>, kinds: [u16; 2], ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => attribute(out, kinds[0], &v4.octets()),
        IpAddr::V6(v6) => attribute(out, kinds[1], &v6.octets()),
    }
}

fn tuple(protocol: u8, ends: &Tuple) -> Vec<u8> {
    let (mut network, mut transport, mut out) = (Vec::new(), Vec::new(), Vec::new());
    address(&mut network, [1, 3], ends.source.ip());
    address(&mut network, [2, 4], ends.destination.ip());
    attribute(&mut transport, PROTO_NUM, &[protocol]);
    attribute(&mut transport, PROTO_SRC_PORT, &ends.source.port().to_be_bytes());
    attribute(&mut transport, PROTO_DST_PORT, &ends.destination.port().to_be_bytes());
    attribute(&mut out, NESTED | TUPLE_IP, &network);
    attribute(&mut out, NESTED | TUPLE_PROTO, &transport);
    out
}

/// Exactly this address and port.
fn nat(to: SocketAddr) -> Vec<u8> {
    let (mut ports, mut out) = (Vec::new(), Vec::new());
    address(&mut out, [1, 4], to.ip());
    address(&mut out, [2, 5], to.ip());
    attribute(&mut ports, PORT_MIN, &to.port().to_be_bytes());
    attribute(&mut ports, PORT_MAX, &to.port().to_be_bytes());
    attribute(&mut out, NESTED | NAT_PROTO, &ports);
    out
}

/// Who translates the destination of a flow that is the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// nf_nat, by the entry itself.
    Netfilter,
    /// IPVS, by its own connection; of the entry is the masquerade.
    Ipvs,
}

/// Asks for all entries of both families.
pub(super) fn listing() -> Request {
    Request::netfilter(CTNETLINK, GET, 0)
}

/// The same, in a zone of conntrack.
pub(super) fn in_zone(request: Request, zone: u16) -> Request {
    if zone == 0 { request } else { request.with(ZONE, &zone.to_be_bytes()) }
}

/// Deletes the entry of this direction of a flow; with the kernel's number for it, no later one of the same tuple.
pub(super) fn deletion(protocol: u8, ends: &Tuple, id: Option<u32>) -> Request {
    let request = Request::netfilter(CTNETLINK, DELETE, family(&ends.source));
    let request = request.with(NESTED | TUPLE_ORIG, &tuple(protocol, ends));
    match id {
        Some(id) => request.with(ID, &id.to_be_bytes()),
        None => request,
    }
}

/// Creates the entry of a flow. The answers' tuple is given untranslated, and what is to be translated beside it: so the
/// kernel works out the tuple itself and translates by it. Where IPVS translates the destination, answers come from the server.
pub(super) fn creation(flow: &Export, by: By) -> Request {
    let protocol = flow.id.protocol;
    let original = Tuple { source: flow.id.client, destination: flow.id.frontend };
    let from = match by {
        By::Netfilter => original.destination,
        By::Ipvs => flow.backend,
    };
    let reply = Tuple { source: from, destination: original.source };
    let mut request = renewal(flow).with(NESTED | TUPLE_REPLY, &tuple(protocol, &reply));
    if by == By::Netfilter {
        request = request.with(NESTED | NAT_DST, &nat(flow.backend));
    }
    if let Some(source) = flow.source {
        request = request.with(NESTED | NAT_SRC, &nat(source));
    }
    request
}

/// Tells what a flow has shown; of one that has its entry already, it is what is new.
pub(super) fn renewal(flow: &Export) -> Request {
    let protocol = flow.id.protocol;
    let original = Tuple { source: flow.id.client, destination: flow.id.frontend };
    let answered = if flow.stage == Stage::Opening { 0 } else { Status::SEEN_REPLY | Status::ASSURED };
    let mut request = Request::netfilter(CTNETLINK, NEW, family(&flow.id.client))
        .with(NESTED | TUPLE_ORIG, &tuple(protocol, &original))
        .with(STATUS, &(CONFIRMED | answered).to_be_bytes())
        .with(TIMEOUT, &flow.timeout.to_be_bytes());
    if protocol == proto::TCP {
        let state = match flow.stage {
            Stage::Opening => SYN_SENT,
            Stage::Established => ESTABLISHED,
            Stage::HalfClosed => FIN_WAIT,
            // Nobody would wait for its end any more.
            Stage::Closing | Stage::Closed => TIME_WAIT,
        };
        let (mut inner, mut info) = (Vec::new(), Vec::new());
        attribute(&mut inner, TCP_STATE, &[state]);
        for kind in TCP_FLAGS {
            attribute(&mut inner, kind, &LIBERAL);
        }
        attribute(&mut info, NESTED | PROTOINFO_TCP, &inner);
        request = request.with(NESTED | PROTOINFO, &info);
    }
    request
}
