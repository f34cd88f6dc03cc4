//! `kpx agent`: a fake API server on one side, the kernel's maps and real connections on the other.

mod answers;
mod api;
mod cleaning;
mod following;
mod manifests;
mod repair;
mod rig;
