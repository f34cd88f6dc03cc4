//! docs/kernels.md: what runs on other kernels left in docs/kernels/, as tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

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

/// What runs left of a kernel.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    /// The kernel, as `uname -r` says.
    release: String,
    /// What the kernel has of what kpx uses.
    features: Vec<(String, String)>,
    /// What came out, by the modules of tests that were asked for.
    modules: BTreeMap<String, Module>,
}

/// What the last run of a module of tests left.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Module {
    /// How many tests passed.
    passed: usize,
    /// Tests that did not run, with the reason.
    skipped: BTreeMap<String, String>,
    /// Tests that failed.
    failed: Vec<String>,
    /// Whether the run came to its end.
    complete: bool,
    /// The commit that was tested.
    commit: String,
    /// How long it took on the machine's clock.
    seconds: u64,
}

impl Module {
    fn cell(&self) -> String {
        let end = if self.complete { "" } else { "…" };
        format!("{} / {} / {}{end}", self.passed, self.skipped.len(), self.failed.len())
    }
}

/// Keeps what a run on this kernel left, in place of what one before did of the same tests.
pub(super) fn record(kernel: &Kernel, shard: &str, results: &Results) -> Result<()> {
    let series = series(&kernel.release);
    let folder = root().join(RUNS);
    let file = folder.join(format!("{series}.json"));
    fs_err::create_dir_all(&folder)?;
    let before = if file.is_file() { Some(read(&file)?) } else { None };
    // Another release of the series is another kernel.
    let mut run = before.filter(|run| run.release == kernel.release).unwrap_or_else(|| Run {
        release: kernel.release.clone(),
        features: Vec::new(),
        modules: BTreeMap::new(),
    });
    if !results.features.is_empty() {
        run.features.clone_from(&results.features);
    }
    let module = Module {
        passed: results.passed.len(),
        skipped: results.skipped.clone(),
        failed: results.failed.keys().cloned().collect(),
        complete: results.complete,
        commit: results.commit.clone(),
        seconds: results.seconds,
    };
    run.modules.insert(shard.to_owned(), module);
    Ok(fs_err::write(file, serde_json::to_string_pretty(&run)? + "\n")?)
}

/// The two numbers that a kernel's series is called by.
fn series(release: &str) -> String {
    numbers(release).iter().take(2).map(ToString::to_string).collect::<Vec<_>>().join(".")
}

/// Writes the document anew.
pub(super) fn write() -> Result<()> {
    Ok(fs_err::write(root().join(DOCUMENT), document()?)?)
}

fn read(path: &Path) -> Result<Run> {
    serde_json::from_slice(&fs_err::read(path)?).with_context(|| format!("{} is not understood", path.display()))
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
        runs.push(read(&entry?.path())?);
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
    row("", each(&|run| series(&run.release)));
    row("---", each(&|_| "---".to_owned()));
    let mut names: Vec<&String> = runs.iter().flat_map(|run| run.modules.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        row(&format!("`{name}`"), each(&|run| run.modules.get(name).map_or("not run".to_owned(), Module::cell)));
    }
    for (feature, _) in runs.iter().rev().find(|run| !run.features.is_empty()).map_or(&[][..], |run| &run.features) {
        let has = |run: &Run| run.features.iter().find(|(name, _)| name == feature).map(|(_, answer)| answer.clone());
        row(feature, each(&|run| has(run).unwrap_or_else(|| "not asked".to_owned())));
    }
    for run in runs {
        let head = format!("`{}`", run.release);
        writeln!(text, "\n{head}:\n\n{}", list(run)).expect("a String takes everything");
    }
    text + "\n"
}

/// Which rows were obtained at which commit, what was skipped and why, and what failed.
fn list(run: &Run) -> String {
    let mut commits: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, module) in &run.modules {
        commits.entry(&module.commit).or_default().push(format!("`{name}`"));
    }
    let all = || run.modules.values();
    let commits = commits.iter().map(|(commit, names)| format!("- {commit}: {}", names.join(", ")));
    let reasons = all().flat_map(|m| &m.skipped).map(|(name, reason)| format!("- skipped `{name}`: {reason}"));
    let failures = all().flat_map(|m| &m.failed).map(|name| format!("- failed `{name}`"));
    commits.chain(reasons).chain(failures).collect::<Vec<_>>().join("\n")
}
