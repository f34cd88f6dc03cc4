//! From a table of Services to the contents of the maps, and back: all of it pure.
//!
//! [`Image`] is the contents of the maps. [`plan`](plan::Planner::plan) finds the writes that lead from one image to the
//! Service ports wanted, in an order in which no reader ever meets a hole; [`lift`](lift::table) reads an image as a table.

mod alloc;
mod draft;
mod image;
mod lift;
mod plan;
mod reader;
#[cfg(test)]
mod rules_tests;
mod wanted;

pub(super) use draft::Op;
pub use draft::{Changes, Full};
pub(super) use image::{Image, Sizes};
pub(super) use lift::{services, table};
pub(super) use plan::Planner;
pub(super) use reader::{Reader, inside};
pub(super) use wanted::{Endpoint, Node, Wanted, addr, endpoint, ip, key_of, network};
