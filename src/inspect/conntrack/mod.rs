//! The kernel's connection tracking: its entries as a stream, its limits and losses, and views that join both with Services.
//!
//! Entries are folded, never kept: a table of a million takes no more memory than one of ten.

mod census;
mod decode;
mod entry;
mod limits;
mod read;
mod stats;
mod text;

pub use census::{BackendCount, Carried, Census, ServiceCount, StateCount, StuckFlow};
pub use decode::{decode, replay};
pub use entry::{Counters, Entry, Nat, Status, Translator, Tuple};
pub use limits::{Limits, Setting};
pub use read::{ConntrackError, Form, deletion, read_node, read_recorded, walk};
pub use stats::{Cpu, Stats};
pub use text::{parse, parse_line};
