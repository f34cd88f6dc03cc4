//! `cargo xtask bench`.

mod page;
mod plot;
mod switch;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use crate::shell::{cmd, root, say};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep what the benchmarks rules and switch gave: the tables and plots that show it are written anew
    #[arg(long)]
    record: bool,
    /// Arguments for `cargo bench`, such as --bench rules
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    rest: Vec<String>,
}

const BENCHMARKS: &str = "docs/benchmarks.md";

/// How a run that is kept is shown.
struct Shown {
    /// Tables: in which document, between which marks, and the text.
    tables: Vec<(&'static str, &'static str, String)>,
    /// Where the plot is, and the plot; none where the run has nothing to draw.
    plot: Option<(&'static str, String)>,
}

type Show = fn(&str) -> Result<Shown>;

/// Runs that are kept, by the name of their benchmark.
const KEPT: [(&str, Show); 2] = [("rules", page::shown), ("switch", switch::shown)];

pub(crate) fn run(args: &Args) -> Result<()> {
    let words = ["bench", "--locked", "--package", "kpx"].map(str::to_owned);
    cmd("cargo", words.into_iter().chain(args.rest.iter().cloned())).run()?;
    if args.record {
        let mut kept = 0;
        for (name, _) in KEPT {
            let made = root().join(format!("target/bench/{name}.json"));
            if made.exists() {
                fs_err::create_dir_all(root().join("docs/benchmarks"))?;
                fs_err::copy(made, root().join(run_of(name)))?;
                kept += 1;
            }
        }
        ensure!(kept > 0, "no run to keep: target/bench has none");
        for (path, text) in files()? {
            fs_err::write(root().join(&path), text)?;
            say(&format!("wrote {path}"));
        }
    }
    Ok(())
}

fn run_of(name: &str) -> String {
    format!("docs/benchmarks/{name}.json")
}

/// The files that show the runs that are kept, by their paths below the project's directory.
fn files() -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for (name, show) in KEPT {
        let path = run_of(name);
        let Ok(run) = fs_err::read_to_string(root().join(&path)) else { continue };
        let shown = show(&run).with_context(|| path.clone())?;
        for (document, mark, table) in shown.tables {
            let text = match files.get(document) {
                Some(text) => String::clone(text),
                None => fs_err::read_to_string(root().join(document))?,
            };
            let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- end of {mark} -->\n"));
            let (before, rest) = text.split_once(&begin).with_context(|| format!("{document} has no {begin}"))?;
            let (_, after) = rest.split_once(&end).with_context(|| format!("{document} has no {end}"))?;
            files.insert(document.to_owned(), format!("{before}{begin}\n{table}\n{end}{after}"));
        }
        files.extend(shown.plot.map(|(path, plot)| (path.to_owned(), plot)));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever changes a kept run or how it is shown makes the pages anew: `cargo xtask bench --record`.
    #[test]
    fn the_pages_show_the_runs_that_are_kept() {
        for (path, text) in files().expect("the runs can be shown") {
            assert_eq!(fs_err::read_to_string(root().join(&path)).expect("it is committed"), text, "{path}");
        }
    }
}
