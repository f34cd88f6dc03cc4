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

mod flow;
mod lookup;
mod socket;
mod types;
#[cfg(feature = "user")]
mod user;

pub use flow::{Datagram, Known, datagram};
pub use lookup::{ATTEMPTS, Maps, Verdict, keeps, list, lookup};
pub use socket::{Entry, EntryState, Socket, bpf_spin_lock};
pub use types::{
    Backend, BackendState, Config, Exposure, Flags, Frontend, FrontendKey, FrontendRef, LAYOUT_VERSION, List, Mode,
    Peer, Reason, Stats, YieldKey, YieldUntil, map_name,
};
