//! The dataplane, with real sockets in a namespace, a cgroup and a BPF filesystem of their own.

mod agent;
mod exposures;
mod features;
mod ground;
mod hours;
mod kernel_flows;
mod lifecycle;
mod live;
mod modes;
mod neighbours;
mod object;
mod packets;
mod server;
mod sockets;
mod worlds;
