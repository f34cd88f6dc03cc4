//! `kpx lab`.

use super::Context;
use crate::ui::{Exit, Failure};

/// Subcommands of `kpx lab`.
#[derive(Debug, clap::Subcommand)]
pub enum Lab {}

pub(super) fn run(_context: &mut Context, command: Lab) -> Result<Exit, Failure> {
    match command {}
}
