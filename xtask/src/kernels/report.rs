//! docs/kernels.md: what runs on other kernels left in docs/kernels/, as tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::apt::numbers;
use super::kernel::Kernel;
use super::results::Results;
use crate::shell::root;

/// The document, below the project's directory.
pub(crate) const DOCUMENT: &str = "docs/kernels.md";
/// Where runs are kept, one file a kernel.
const RUNS: &str = "docs/kernels";
/// Between these lines of the document are the tables.
const MARKS: [&str; 2] = ["<!-- runs -->\n", "<!-- end of runs -->\n"];

/// What a run left.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    /// The kernel, as `uname -r` says.
    release: String,
    /// Words for the test harness.
    filters: Vec<String>,
    /// What the kernel has of what kpx uses.
    features: Vec<(String, String)>,
    /// How many tests passed.
    passed: usize,
    /// Tests that did not run, with the reason.
    skipped: BTreeMap<String, String>,
    /// Tests that failed.
    failed: Vec<String>,
}

/// Keeps what a run on this kernel left, in place of what one before did, and writes the document anew.
pub(super) fn record(kernel: &Kernel, filters: &[String], results: &Results) -> Result<()> {
    let run = Run {
        release: kernel.release.clone(),
        filters: filters.to_vec(),
        features: results.features.clone(),
        passed: results.passed.len(),
        skipped: results.skipped.clone(),
        failed: results.failed.keys().cloned().collect(),
    };
    let series = numbers(&kernel.release).iter().take(2).map(ToString::to_string).collect::<Vec<_>>().join(".");
    let folder = root().join(RUNS);
    fs_err::create_dir_all(&folder)?;
    fs_err::write(folder.join(format!("{series}.json")), serde_json::to_string_pretty(&run)? + "\n")?;
    Ok(fs_err::write(root().join(DOCUMENT), document()?)?)
}

/// The document with the tables as the runs say.
pub(crate) fn document() -> Result<String> {
    let text = fs_err::read_to_string(root().join(DOCUMENT))?;
    let (before, rest) = text.split_once(MARKS[0]).context("docs/kernels.md has no place for tables")?;
    let (_, after) = rest.split_once(MARKS[1]).context("docs/kernels.md does not say where the tables end")?;
    Ok([before, MARKS[0], &tables(&runs()?), MARKS[1], after].concat())
}

/// All runs, oldest kernel first.
fn runs() -> Result<Vec<Run>> {
    let (folder, mut runs) = (root().join(RUNS), Vec::new());
    if !folder.is_dir() {
        return Ok(runs);
    }
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let run: Run = serde_json::from_slice(&fs_err::read(&path)?)
            .with_context(|| format!("{} is not understood", path.display()))?;
        runs.push(run);
    }
    runs.sort_by_key(|run| numbers(&run.release));
    Ok(runs)
}

fn tables(runs: &[Run]) -> String {
    if runs.is_empty() {
        return "\nNo run is recorded.\n\n".to_owned();
    }
    let mut text = "\n".to_owned();
    let mut row = |head: &str, cells: Vec<String>| {
        writeln!(text, "| {head} | {} |", cells.join(" | ")).expect("a String takes everything");
    };
    let each = |cell: &dyn Fn(&Run) -> String| runs.iter().map(cell).collect::<Vec<_>>();
    row("Linux", each(&|run| format!("`{}`", run.release)));
    row("---", each(&|_| "---".to_owned()));
    row("tests asked for", each(&|run| format!("`{}`", run.filters.join(" "))));
    row("passed", each(&|run| run.passed.to_string()));
    row("skipped", each(&|run| run.skipped.len().to_string()));
    row("failed", each(&|run| run.failed.len().to_string()));
    for (feature, _) in runs.last().map(|run| run.features.as_slice()).unwrap_or_default() {
        let has = |run: &Run| run.features.iter().find(|(name, _)| name == feature).map(|(_, answer)| answer.clone());
        row(feature, each(&|run| has(run).unwrap_or_else(|| "not asked".to_owned())));
    }
    for run in runs {
        let reasons = run.skipped.iter().map(|(name, reason)| format!("- `{name}` skipped: {reason}"));
        let failures = run.failed.iter().map(|name| format!("- `{name}` failed"));
        let lines: Vec<String> = reasons.chain(failures).collect();
        if !lines.is_empty() {
            writeln!(text, "\nOn {}:\n\n{}", run.release, lines.join("\n")).expect("a String takes everything");
        }
    }
    text + "\n"
}
