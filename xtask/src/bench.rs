//! `cargo xtask bench`.

use anyhow::Result;

use crate::shell::cmd;

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Arguments for `cargo bench`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    rest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let words = ["bench", "--locked", "--package", "kpx"].map(str::to_owned);
    cmd("cargo", words.into_iter().chain(args.rest.iter().cloned())).run()
}
