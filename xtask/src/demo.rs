//! `cargo xtask demo`: set-up, build, and the demonstration on a recorded world.

use anyhow::{Result, bail};

use crate::shell::{Privilege, cmd, say};
use crate::{kpx, setup};

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build with optimisation; takes longer than the demonstration itself
    #[arg(long)]
    release: bool,
    /// Arguments for `kpx lab demo`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    rest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let privilege = Privilege::find();
    if let Privilege::None(reason) = privilege {
        bail!("the demonstration makes network namespaces and loads eBPF programs, so it needs root: {reason}");
    }
    setup::run(&privilege)?;
    say("building kpx (a few minutes the first time)");
    let kpx = kpx::build(args.release)?;
    let words = ["lab", "demo"].map(str::to_owned);
    cmd(kpx, words.into_iter().chain(args.rest.iter().cloned())).privileged(&privilege).run()
}
