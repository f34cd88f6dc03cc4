//! `kpx agent`: a fake API server on one side, the kernel's maps and real connections on the other.

mod answers;
pub(crate) mod api;
mod cleaning;
mod devices;
mod dsr;
mod duties;
mod following;
mod manifests;
mod repair;
pub(crate) mod rig;
mod rules;
pub(crate) mod serving;
mod streams;
mod upgrade;
mod xdp;
