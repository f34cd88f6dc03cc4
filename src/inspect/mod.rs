//! Readers: raw state from [`crate::capture`] → typed state → [`crate::model::ServiceTable`]. One folder per source.

pub mod bpf;
pub mod btf;
pub mod cilium;
pub mod conntrack;
pub mod entry;
pub mod ipset;
pub mod iptables;
pub mod ipvs;
pub mod kernel;
pub mod kube;
pub mod nftables;
pub mod proxy_rules;
pub mod recent;
pub mod remembered;
pub mod sockets;
pub mod standing;
pub mod sysctl;
