//! From a table of Services to the contents of the maps, and back: all of it pure.
//!
//! [`Image`] is the contents of the maps. [`plan`](plan::Planner::plan) finds the writes that lead from one image to the
//! frontends wanted, in an order in which no reader ever meets a hole; [`lift`](lift::table) reads an image as a table.

mod alloc;
mod image;
mod lift;
mod plan;
mod wanted;

pub(super) use image::{Image, Sizes};
pub(super) use lift::{services, table};
pub use plan::{Changes, Full};
pub(super) use plan::{Op, Planner};
pub(super) use wanted::{Wanted, endpoint, ip, key_of};
