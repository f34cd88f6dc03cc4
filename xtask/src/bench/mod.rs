//! `cargo xtask bench`.

mod page;
mod plot;

use anyhow::{Result, ensure};

use crate::shell::{cmd, root, say};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep what the comparison with kube-proxy's rules gave: docs/benchmarks.md and its plot are written anew
    #[arg(long)]
    record: bool,
    /// Arguments for `cargo bench`, such as --bench rules
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    rest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let words = ["bench", "--locked", "--package", "kpx"].map(str::to_owned);
    cmd("cargo", words.into_iter().chain(args.rest.iter().cloned())).run()?;
    if args.record {
        let made = root().join("target/bench/rules.json");
        ensure!(made.exists(), "no comparison was made: {} is not there", made.display());
        let kept = root().join(page::RUN);
        fs_err::create_dir_all(kept.parent().unwrap_or(root()))?;
        fs_err::copy(made, kept)?;
        for (path, text) in page::files()? {
            fs_err::write(root().join(path), text)?;
            say(&format!("wrote {path}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever changes the kept run or how it is shown makes the page anew: `cargo xtask bench --record`.
    #[test]
    fn the_page_shows_the_run_that_is_kept() {
        for (path, text) in page::files().expect("the run can be shown") {
            assert_eq!(fs_err::read_to_string(root().join(path)).expect("it is committed"), text, "{path}");
        }
    }
}
