//! kpx moves Kubernetes nodes from kube-proxy to eBPF without an outage.
//!
//! One idea carries the code: every description of a node's Services (API objects, iptables rules, BPF maps) is
//! *lifted* into one [`model::ServiceTable`], and everything else is a view on such a table or a step between two.
//! `docs/architecture.md` draws the folders and names the invariants.

pub mod agent;
pub mod audit;
pub mod capture;
pub mod cmd;
pub mod dataplane;
pub mod doctor;
pub mod error;
pub mod failpoint;
pub mod inspect;
pub mod kept;
pub mod lab;
pub mod migrate;
pub mod model;
pub mod path;
pub mod preflight;
pub mod rates;
pub mod severity;
pub mod source;
pub mod ui;
