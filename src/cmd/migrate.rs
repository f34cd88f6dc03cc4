//! `kpx migrate`.

use super::Context;
use crate::ui::{Exit, Failure};

/// Subcommands of `kpx migrate`.
#[derive(Debug, clap::Subcommand)]
pub enum Migrate {}

pub(super) fn run(_context: &mut Context, command: Migrate) -> Result<Exit, Failure> {
    match command {}
}
