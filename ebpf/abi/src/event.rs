//! Events: what happened to one connection, datagram flow or packet, told to whoever listens.
//!
//! Nothing is told, and next to nothing spent, unless a [`Listener`] asks for it: programs look at one word of
//! `kpx_listener`, on paths that are taken once for a flow and not for each packet.

use crate::{Addr, DropReason, same};

/// Why a lookup came to what is no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cause {
    /// The reason says it all.
    None = 0,
    /// The Service has no usable endpoint.
    NoBackend = 1,
    /// A Local policy, and no endpoint on this node.
    NoLocalBackend = 2,
    /// No source range of the Service holds the client.
    SourceRange = 3,
    /// A ClusterIP, but no port that its Service has.
    UndefinedPort = 4,
    /// An address for ClusterIPs that no Service has.
    Unallocated = 5,
    /// Source ranges, and the client has no address yet.
    NoAddress = 6,
}

impl Cause {
    /// All that are one, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::NoBackend,
        Self::NoLocalBackend,
        Self::SourceRange,
        Self::UndefinedPort,
        Self::Unallocated,
        Self::NoAddress,
    ];

    /// The name, lower case with underscores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NoBackend => "no_backend",
            Self::NoLocalBackend => "no_local_backend",
            Self::SourceRange => "source_range",
            Self::UndefinedPort => "undefined_port",
            Self::Unallocated => "unallocated",
            Self::NoAddress => "no_address",
        }
    }
}

impl From<DropReason> for Cause {
    #[inline(always)]
    fn from(why: DropReason) -> Self {
        match why {
            DropReason::NoLocalEndpoint => Self::NoLocalBackend,
            DropReason::Source => Self::SourceRange,
        }
    }
}

/// A record of `kpx_events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// Id of the cgroup whose process did it; 0 of packets.
    pub cgroup: u64,
    /// Who sends: of a socket that has no address yet the one that its namespace is known by, or a
    /// [`stand_in`](crate::stand_in).
    pub client: Addr,
    /// Where it is sent to.
    pub destination: Addr,
    /// What takes the place: the backend; of [`Reason::Masqueraded`](crate::Reason::Masqueraded) the new source; all zero of neither.
    pub to: Addr,
    /// Service id; 0 of none.
    pub service: u32,
    /// Backend id; 0 of none.
    pub backend: u32,
    /// The process that did it; 0 of packets.
    pub pid: u32,
    /// The device (ifindex) of a packet; 0 of sockets.
    pub device: u32,
    /// Port of the client, network byte order; 0: none yet.
    pub client_port: u16,
    /// Port of the destination, network byte order.
    pub destination_port: u16,
    /// Port of `to`, network byte order.
    pub to_port: u16,
    /// IANA protocol number.
    pub proto: u8,
    /// A [`Reason`](crate::Reason).
    pub reason: u8,
    /// A [`Cause`].
    pub cause: u8,
    /// Zero.
    pub pad: [u8; 7],
}

/// The one element of `kpx_listener`: who listens, and for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Listener {
    /// `CLOCK_MONOTONIC` nanoseconds until which somebody listens: whoever does renews it, so that a listener that was killed
    /// costs nothing for long.
    pub until_ns: u64,
    /// What kinds of events are wanted: bits by [`Reason`](crate::Reason).
    pub kinds: u64,
    /// Of these, for which reasons: bits by [`Reason`](crate::Reason).
    pub reasons: u64,
    /// An address that the client, the destination or what takes its place must have; all zero: any.
    pub addr: Addr,
    /// An ancestor that the cgroup of the process must have, or be; 0: any.
    pub cgroup: u64,
    /// Or for which causes: bits by [`Cause`].
    pub causes: u32,
    /// One event of so many is told; 0 and 1: all.
    pub sample: u32,
    /// The process that listens.
    pub pid: u32,
    /// The port that it must have there, network byte order; 0: any.
    pub port: u16,
    /// Whether only Services in `kpx_listened` are wanted.
    pub services: u8,
    /// Zero.
    pub pad: [u8; 1],
}

impl Listener {
    /// Whether an event of this reason and cause is wanted.
    #[inline(always)]
    pub const fn wants(&self, reason: u32, cause: u32) -> bool {
        let reason = 1_u64 << (reason & 63);
        self.kinds & reason != 0 && (self.reasons & reason != 0 || self.causes & 1 << (cause & 31) != 0)
    }

    /// Whether an endpoint is the one asked for, if one is.
    #[inline(always)]
    pub const fn meets(&self, addr: &Addr, port: u16) -> bool {
        (same(&self.addr, &[0; 16]) || same(&self.addr, addr)) && (self.port == 0 || self.port == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;

    #[test]
    fn an_event_is_wanted_for_its_kind_and_its_reason_or_cause() {
        let bit = |reason: Reason| 1_u64 << reason as u32;
        let kinds = bit(Reason::Refused) | bit(Reason::PacketRefused);
        let by_cause = Listener { kinds, causes: 1 << Cause::NoBackend as u32, ..Listener::default() };
        let wants = |listener: &Listener, reason: Reason, cause: Cause| listener.wants(reason as u32, cause as u32);
        assert!(wants(&by_cause, Reason::Refused, Cause::NoBackend));
        assert!(!wants(&by_cause, Reason::PacketRefused, Cause::UndefinedPort));
        assert!(!wants(&by_cause, Reason::RefusalPassed, Cause::NoBackend), "another kind");
        let by_reason = Listener { kinds, reasons: bit(Reason::Refused), ..Listener::default() };
        assert!(wants(&by_reason, Reason::Refused, Cause::NoBackend));
        assert!(!wants(&by_reason, Reason::PacketRefused, Cause::NoBackend));
    }

    #[test]
    fn address_and_port_belong_to_one_endpoint() {
        let (a, b) = ([1; 16], [2; 16]);
        assert!(Listener::default().meets(&a, 0) && Listener::default().meets(&b, 80));
        let both = Listener { addr: a, port: 80, ..Listener::default() };
        assert!(both.meets(&a, 80) && !both.meets(&a, 81) && !both.meets(&b, 80));
        let port = Listener { port: 80, ..Listener::default() };
        assert!(port.meets(&b, 80) && !port.meets(&b, 81));
    }
}
