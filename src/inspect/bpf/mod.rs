//! Programs, links and maps of the host, as typed lists, ours marked.

mod names;
mod objects;
mod pinned;
pub(crate) mod sys;

pub(crate) use names::attach_type as attach_type_name;
pub(crate) use objects::program_name;
pub use objects::{BpfError, Link, Map, Program, links, maps, programs};
pub(crate) use pinned::programs as pinned_programs;
