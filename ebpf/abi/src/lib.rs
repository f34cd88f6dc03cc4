//! Map types and the Service lookup, shared by the eBPF programs and user space.
//!
//! Everything here is compiled twice: into the programs that the kernel runs, and into the host library, where tests and
//! tools run the very same code. Layout rules: fixed-width fields, explicit padding, no pointers; addresses and ports in
//! network byte order, everything else in the byte order of the machine.

#![no_std]
#![expect(
    clippy::inline_always,
    reason = "the verifier of older kernels follows no pointer to the stack into a function"
)]

#[cfg(any(test, feature = "user"))]
extern crate std;

/// The methods of a set of bits.
macro_rules! bits {
    ($name:ident) => {
        impl $name {
            /// This with those of `other`, if `on`, and without them otherwise.
            #[must_use]
            #[inline(always)]
            pub const fn with(self, other: Self, on: bool) -> Self {
                if on { Self(self.0 | other.0) } else { Self(self.0 & !other.0) }
            }

            /// Whether all of `other` are set.
            #[inline(always)]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }
        }
    };
}

mod addr;
mod config;
mod conntrack;
mod device;
pub mod dsr;
mod event;
mod flow;
mod lookup;
mod node;
pub mod packet;
mod reason;
pub mod sctp;
mod socket;
mod types;
#[cfg(feature = "user")]
mod user;

pub use addr::{Addr, flow_hash, is_loopback, is_stand_in, is_v4, owner, same, stand_in, unspecified};
pub use config::{Config, LAYOUT_VERSION, Mode, Options, map_name};
pub use conntrack::{
    Failure, Flow, FlowState, Flows, Full, Hook, Opening, PortRange, Role, Room, Stage, TOUCH_NS, TRIES, Timeouts,
    Tuple, masquerade, open, replaceable, stage,
};
#[cfg(any(test, feature = "user"))]
pub use conntrack::{expired, masquerade_of};
pub use device::Device;
pub use event::{Cause, Event, Listener};
pub use flow::{Datagram, Known, datagram};
pub use lookup::{ATTEMPTS, DropReason, Maps, Origin, Request, Verdict, keeps, list, lookup};
pub use node::{AddressFlags, Affinity, AffinityKey, Client, NetworkFlags, NetworkKey, SourceKey};
pub use reason::Reason;
pub use socket::{Entry, EntryState, Socket, bpf_spin_lock};
pub use types::{
    Backend, BackendFlags, BackendState, Exposure, Flags, Frontend, FrontendKey, FrontendRef, List, Peer, Stats,
    YieldKey, YieldUntil,
};
