//! The steps that carry a node all the way from kube-proxy's rules to eBPF, beyond its sockets.
//!
//! At every moment of it somebody translates each flow, and never two of them: what the kernel knows stays the kernel's under
//! [`hold`] until the packet path has taken it over, and the way back gives it back before the packet path goes.

mod carry;
mod drain;
mod forward;
mod generate;
mod handover;
mod hold;
mod packets;
mod proxy;
mod release;
mod remove;
mod stop;

pub(super) use carry::CarrySockets;
pub(super) use drain::DrainServers;
pub use forward::ForwardError;
pub(super) use handover::{Handed, TakeOver};
pub(super) use hold_steps::{ACCEPT_FORWARDED, AcceptForwarded, HoldTable, Standing};
pub(super) use packets::{PacketsServe, SERVE_PACKETS, ServePackets, devices};
pub use proxy::ProxyError;
pub(super) use release::Release;
pub(super) use remove::{RemoveRules, Removed};
pub(super) use stop::{STOP, Stop, Stopped};

mod hold_steps;
