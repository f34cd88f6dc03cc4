//! The dataplane, with real sockets in a namespace, a cgroup and a BPF filesystem of their own.

pub(crate) mod agent;
mod exposures;
pub(crate) mod features;
pub(crate) mod ground;
mod hours;
mod kernel_flows;
mod lifecycle;
mod live;
mod modes;
mod neighbours;
mod object;
mod old;
pub(crate) mod packets;
pub(crate) mod server;
mod sockets;
pub(crate) mod traffic;
mod upgrade;
mod worlds;
