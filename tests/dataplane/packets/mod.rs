//! The packet path, with real packets between a client, two nodes and their pods. No kube-proxy is anywhere.

mod apart;
mod crafted;
mod devices;
mod errors;
mod filters;
mod flows;
mod frontends;
mod handover;
mod modes;
mod peers;
mod services;
mod short_cut;
mod sizes;
mod states;
mod streams;
mod ways;
mod world;
