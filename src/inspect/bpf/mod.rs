//! Programs, links and maps of the kernel as typed lists, with their owners; what is on interfaces and cgroups; any map's
//! entries.

mod cgroups;
mod devices;
mod map;
mod names;
mod objects;
mod owner;
mod pinned;
pub(crate) mod sys;

pub use cgroups::{OnCgroup, attached as cgroups, effective};
pub use devices::{Hook, OnDevice, devices};
pub use map::{MapError, OpenMap, Which};
pub(crate) use names::attach_type as attach_type_name;
pub(crate) use objects::program_name;
pub use objects::{BpfError, Link, Map, Place, Program, links, maps, programs};
pub use owner::Owner;
pub(crate) use pinned::programs as pinned_programs;
