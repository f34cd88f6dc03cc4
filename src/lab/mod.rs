//! A recorded node in network namespaces, with backends and clients: for rehearsal, demonstration and tests.
//!
//! [`Spec::read`] takes a snapshot apart, [`Lab::up`] builds what it says: the node's interfaces, routes and sysctls,
//! its rules by the real iptables tools, backends on the real endpoint addresses. [`Traffic`] runs flows through the
//! Services and judges them by what both ends saw. Nothing of the machine's own namespace, cgroup root or global sysctls is
//! touched, and all that is made is written down first, so that [`down`] removes it after a crash too.

mod builtin;
pub mod client;
mod down;
mod error;
mod left_out;
mod netns;
mod network;
mod pages;
mod poll;
mod rehearsal;
mod report;
mod restore;
mod rules;
pub mod serve;
mod spec;
mod state;
mod sysctl;
mod tables;
mod traffic;
mod up;
mod wire;

pub use client::{Class, Expect, Target, Trouble, Unlike};
pub use down::{Listed, down, list};
pub use error::LabError;
pub use left_out::LeftOut;
pub use rehearsal::{
    AFTER, Break, BreakKind, Came, IDLE, Ran, Rehearsal, RehearsalOptions, Rehearsed, SERVED, Suspect,
};
pub use report::{ClassReport, Latency, PhaseReport, TrafficReport};
pub use rules::{Rules, load as load_rules, restore_ipsets};
pub use spec::{Breadth, Place, Spec};
pub use state::{Names, Process, Record};
pub use traffic::{Traffic, TrafficOptions};
pub use up::Lab;
