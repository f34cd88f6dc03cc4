//! `kpx inspect`.

use super::Context;
use crate::ui::{Exit, Failure};

/// Subcommands of `kpx inspect`.
#[derive(Debug, clap::Subcommand)]
pub enum Inspect {}

pub(super) fn run(_context: &mut Context, command: Inspect) -> Result<Exit, Failure> {
    match command {}
}
