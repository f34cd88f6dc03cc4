//! `kpx migrate probe`: the child process that connects from inside the cgroup. Not for people.

use std::io::Read as _;

use super::super::Context;
use crate::migrate::probe::{self, ProbeError};
use crate::ui::{Exit, Failure};

/// Arguments of `kpx migrate probe`.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) fn run(context: &mut Context, _args: &Args) -> Result<Exit, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|e| Failure::new(format!("cannot read the request: {e}")))?;
    let request = serde_json::from_str(&text).map_err(ProbeError::from)?;
    let probed = probe::serve(&request)?;
    context.ui.raw(&serde_json::to_string(&probed).map_err(ProbeError::from)?)?;
    Ok(Exit::Fine)
}
