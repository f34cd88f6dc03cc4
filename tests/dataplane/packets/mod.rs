//! The packet path, with real packets between a client, two nodes and their pods. No kube-proxy is anywhere.

mod apart;
mod crafted;
mod devices;
pub(crate) mod dsr;
mod errors;
mod filters;
mod flows;
mod frontends;
mod handover;
mod modes;
pub(crate) mod peers;
mod sctp;
pub(crate) mod services;
mod short_cut;
mod sizes;
pub(super) mod states;
mod streams;
mod upgrade;
mod ways;
pub(crate) mod world;
