//! kpx's eBPF dataplane: load, attach, fill, switch modes, read back, remove.

mod served;

pub use kpx_abi::Mode;
pub use served::{NotServed, Served, served};
