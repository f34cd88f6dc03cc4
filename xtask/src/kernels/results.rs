//! What the test harness printed, taken apart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::kernel::{Kernel, store};

/// How each test of a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Results {
    /// Tests that ran and held.
    pub(super) passed: Vec<String>,
    /// Tests that said why they cannot run there, with that reason.
    pub(super) skipped: BTreeMap<String, String>,
    /// Tests that failed, with what they printed.
    pub(super) failed: BTreeMap<String, String>,
    /// What tests found out about the kernel, in their order: `feature NAME: ANSWER`.
    pub(super) features: Vec<(String, String)>,
    /// Whether the harness came to its end.
    pub(super) complete: bool,
    /// The commit that was tested.
    pub(super) commit: String,
    /// How long it took on the machine's clock, seconds.
    pub(super) seconds: u64,
}

impl Results {
    /// Whether all tests ran, and none failed.
    pub(super) fn good(&self) -> bool {
        self.complete && self.failed.is_empty() && self.passed.len() + self.skipped.len() > 0
    }

    /// The tests that were skipped and those that failed, with what they said.
    pub(super) fn told(&self) -> String {
        let skipped = self.skipped.iter().map(|(name, reason)| format!("skipped {name}: {reason}\n"));
        let failed = self.failed.iter().map(|(name, printed)| format!("FAILED {name}\n{printed}\n"));
        skipped.chain(failed).collect()
    }

    /// In a line.
    pub(super) fn summary(&self) -> String {
        let (passed, skipped, failed) = (self.passed.len(), self.skipped.len(), self.failed.len());
        let end = if self.complete { "" } else { ", did not come to their end" };
        format!("{passed} passed, {skipped} skipped, {failed} failed in {} s{end}", self.seconds)
    }

    /// Keeps them, for a run that goes on where this one stops.
    pub(super) fn keep(&self, kernel: &Kernel, shard: &str) -> Result<()> {
        let file = file(kernel, shard);
        fs_err::create_dir_all(file.parent().unwrap_or(&file))?;
        Ok(fs_err::write(file, serde_json::to_vec(self)?)?)
    }

    /// What was kept, if all went well and the tests have not been built anew since.
    pub(super) fn kept(kernel: &Kernel, shard: &str, tests: &Path) -> Option<Self> {
        let file = file(kernel, shard);
        let time = |path: &Path| fs_err::metadata(path).and_then(|data| data.modified()).ok();
        let fresh = time(&file)? > time(tests)?;
        let results: Self = serde_json::from_slice(&fs_err::read(&file).ok()?).ok()?;
        (fresh && results.good()).then_some(results)
    }

    /// Reads the output of a run with `--show-output`.
    pub(super) fn read(output: &str) -> Self {
        let mut results = Self::default();
        let mut printed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut speaker = None;
        for line in output.lines() {
            if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
                speaker = Some(name);
            } else if matches!(line, "successes:" | "failures:") || line.starts_with("test result: ") {
                speaker = None;
                if let Some((_, end)) = line.rsplit_once("; finished in ") {
                    results.complete = true;
                    results.seconds = end.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or_default();
                }
            } else if let Some(name) = speaker {
                let feature = line.strip_prefix("feature ").and_then(|rest| rest.rsplit_once(": "));
                results.features.extend(feature.map(|(what, answer)| (what.to_owned(), answer.to_owned())));
                printed.entry(name).or_default().push(line);
            } else if let Some((name, verdict)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
                match verdict {
                    // None: the machine ended in the middle of it.
                    "FAILED" | "" => drop(results.failed.insert(name.to_owned(), String::new())),
                    "ok" => results.passed.push(name.to_owned()),
                    other => drop(results.skipped.insert(name.to_owned(), other.to_owned())),
                }
            }
        }
        for (name, text) in &mut results.failed {
            *text = printed.get(name.as_str()).map(|lines| lines.join("\n")).unwrap_or_default();
        }
        let reason = |name: &String| printed.get(name.as_str())?.iter().find_map(|line| line.strip_prefix("skipped: "));
        results.skipped.extend(results.passed.iter().filter_map(|name| Some((name.clone(), reason(name)?.to_owned()))));
        results.passed.retain(|name| !results.skipped.contains_key(name));
        results
    }
}

fn file(kernel: &Kernel, shard: &str) -> PathBuf {
    store().join(&kernel.release).join("results").join(format!("{}.json", shard.replace("::", "-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_skipped_and_failed_are_told_apart() {
        let output = "\nrunning 3 tests\ntest a::one ... ok\ntest a::two ... FAILED\ntest b ... ok\n\nsuccesses:\n\n\
            ---- b stdout ----\nfeature tcx: no\nskipped: no such thing\n\n\nsuccesses:\n    a::one\n    b\n\nfailures:\n\n\
            ---- a::two stdout ----\n\nthread 'a::two' panicked\n\nfailures:\n    a::two\n\n\
            test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out; finished in 15.42s\n";
        let results = Results::read(output);
        assert_eq!(results.passed, ["a::one"]);
        assert_eq!(results.skipped, BTreeMap::from([("b".to_owned(), "no such thing".to_owned())]));
        assert_eq!(results.features, [("tcx".to_owned(), "no".to_owned())]);
        assert_eq!(results.failed["a::two"].trim(), "thread 'a::two' panicked");
        assert!(results.complete);
        assert_eq!(results.seconds, 15);
        assert!(!Results::read(&output[..output.len() / 2]).complete, "a run that was cut off");
        let cut = Results::read("test a::one ... ok\ntest a::two ... ");
        assert_eq!(
            (cut.passed, cut.failed.into_keys().collect()),
            (vec!["a::one".to_owned()], vec!["a::two".to_owned()])
        );
    }
}
