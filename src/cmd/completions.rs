//! `kpx completions`.

use super::Context;
use crate::ui::{Exit, Failure};

/// Arguments of `kpx completions`.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) fn run(_context: &mut Context, _args: &Args) -> Result<Exit, Failure> {
    Err(Failure::new("not built yet"))
}
