//! What kpx says of BPF objects, with bpftool as the oracle.

mod attached;
mod cilium;
mod map;
pub(crate) mod raw;
