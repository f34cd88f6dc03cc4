//! `kpx diff`.

use super::Context;
use crate::ui::{Exit, Failure};

/// Arguments of `kpx diff`.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) fn run(_context: &mut Context, _args: &Args) -> Result<Exit, Failure> {
    Err(Failure::new("not built yet"))
}
