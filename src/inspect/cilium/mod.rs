//! Cilium's load-balancer, conntrack and NAT maps, as they are pinned.
//!
//! Names and layouts are those of Cilium 1.16 and later; a service's key without a protocol (up to 1.16) is read, too.

pub mod layout;
mod lift;
mod lookup;
mod notice;
mod read;
#[cfg(test)]
mod tests;

pub use lift::{entries_of, lift};
pub use lookup::{Met, lookup};
pub use notice::Notice;
pub use read::{CiliumError, PINS, Pins, State, is_there};
