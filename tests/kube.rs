//! The API side: objects and configuration → table, held against what real kube-proxies programmed and who answered.

mod config;
mod lift;
mod objects;
mod traffic;
pub(crate) mod worlds;
