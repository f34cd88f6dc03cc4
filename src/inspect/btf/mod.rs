//! BTF, the kernel's description of types: bytes → types → the shape of a value → text or JSON.
//!
//! Pure functions over bytes that anybody may have loaded into the kernel, or recorded: nothing here panics, and no input
//! makes it work longer than a bound that does not depend on the input.
//!
//! The format is Documentation/bpf/btf.rst of Linux.

mod parse;
mod render;
mod shape;
#[cfg(test)]
mod tests;

pub use parse::{Btf, BtfError};
pub use shape::{Field, Hint, Shape};
