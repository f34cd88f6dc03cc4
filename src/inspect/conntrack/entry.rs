//! One entry of the table.

use std::fmt;
use std::net::SocketAddr;

use crate::model::Protocol;

/// One direction of a flow. Ports are 0 for protocols without any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Who sends.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
}

/// Bits of an entry's status (`enum ip_conntrack_status` in linux/netfilter/nf_conntrack_common.h), as far as the source tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    bits: u32,
    known: u32,
}

impl Status {
    /// Packets went both ways.
    pub const SEEN_REPLY: u32 = 1 << 1;
    /// Never dropped early.
    pub const ASSURED: u32 = 1 << 2;
    /// nf_nat changes the source.
    pub const SOURCE_NAT: u32 = 1 << 4;
    /// nf_nat changes the destination.
    pub const DESTINATION_NAT: u32 = 1 << 5;
    /// Packets bypass the rules by a flowtable.
    pub const OFFLOAD: u32 = 1 << 14;

    /// Every bit, as ctnetlink gives them.
    pub const fn all(bits: u32) -> Self {
        Self { bits, known: u32::MAX }
    }

    /// Only the bits in `known`, as a text tells them.
    pub const fn some(bits: u32, known: u32) -> Self {
        Self { bits: bits & known, known }
    }

    /// Whether all of `bits` are set; `None` where the source does not tell.
    pub const fn has(self, bits: u32) -> Option<bool> {
        if self.known & bits == bits { Some(self.bits & bits == bits) } else { None }
    }
}

/// What the tuples say of translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nat {
    /// Addresses and ports stay.
    None,
    /// Another destination.
    Destination,
    /// Another source.
    Source,
    /// Both.
    Both,
}

impl fmt::Display for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Destination => "DNAT",
            Self::Source => "SNAT",
            Self::Both => "DNAT+SNAT",
        })
    }
}

/// Who translates the packets of an entry.
///
/// The tuples alone do not tell: IPVS writes the server into the reply tuple and translates by its own table, and an entry
/// that was made with translated tuples but without the status bits translates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Translator {
    /// nf_nat, by the status bits.
    Netfilter,
    /// Not nf_nat, though the tuples differ: IPVS, or nobody.
    Other,
    /// The source tells no status bits.
    Unknown,
}

impl fmt::Display for Translator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Netfilter => "nf_nat",
            Self::Other => "not nf_nat",
            Self::Unknown => "unknown",
        })
    }
}

/// Packets and bytes of one direction; kept only with `net.netfilter.nf_conntrack_acct`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// IANA number of the transport protocol.
    pub protocol: u8,
    /// From the client.
    pub original: Tuple,
    /// The answers.
    pub reply: Tuple,
    /// Status bits.
    pub status: Status,
    /// State of a protocol that has states, such as `ESTABLISHED`.
    pub state: Option<&'static str>,
    /// Seconds until it goes if no packet comes; `None` for an entry that a flowtable carries.
    pub timeout: Option<u32>,
    /// Of the original direction and of the reply; `None` where nothing counts.
    pub counters: Option<[Counters; 2]>,
    /// `ctmark`.
    pub mark: u32,
    /// Zone.
    pub zone: u16,
    /// The kernel's number for it; texts have none.
    pub id: Option<u32>,
}

impl Entry {
    /// The protocol, if a Service can have it.
    pub const fn service_protocol(&self) -> Option<Protocol> {
        Protocol::from_number(self.protocol)
    }

    /// What the tuples say of translation.
    pub fn nat(&self) -> Nat {
        match (self.original.destination != self.reply.source, self.original.source != self.reply.destination) {
            (false, false) => Nat::None,
            (true, false) => Nat::Destination,
            (false, true) => Nat::Source,
            (true, true) => Nat::Both,
        }
    }

    /// Whether the destination is translated, as it is on the way to a Service.
    pub fn is_to_backend(&self) -> bool {
        self.original.destination != self.reply.source
    }

    /// Who translates the destination, or the source where only that changes; `None` for an entry whose tuples agree.
    pub fn translator(&self) -> Option<Translator> {
        let bit = match self.nat() {
            Nat::None => return None,
            Nat::Destination | Nat::Both => Status::DESTINATION_NAT,
            Nat::Source => Status::SOURCE_NAT,
        };
        Some(match self.status.has(bit) {
            Some(true) => Translator::Netfilter,
            Some(false) => Translator::Other,
            None => Translator::Unknown,
        })
    }

    /// The state; for protocols without states, how far it got: `UNREPLIED`, `REPLIED` or `ASSURED`.
    pub fn phase(&self) -> &'static str {
        match self.state {
            Some(state) => state,
            None if self.status.has(Status::ASSURED) == Some(true) => "ASSURED",
            None if self.status.has(Status::SEEN_REPLY) == Some(false) => "UNREPLIED",
            None => "REPLIED",
        }
    }
}

/// `enum tcp_conntrack`, by number.
pub(super) const TCP_STATES: [&str; 10] = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
];

/// `enum sctp_conntrack`, by number.
pub(super) const SCTP_STATES: [&str; 10] = [
    "NONE",
    "CLOSED",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "ESTABLISHED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
    "HEARTBEAT_ACKED",
];

/// The states of a protocol.
pub(super) const fn states(protocol: u8) -> &'static [&'static str] {
    match protocol {
        6 => &TCP_STATES,
        132 => &SCTP_STATES,
        _ => &[],
    }
}
