//! What the test harness printed, taken apart.

use std::collections::BTreeMap;

/// How each test of a run ended.
#[derive(Debug, Default, PartialEq, Eq)]
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
}

impl Results {
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
                results.complete |= line.starts_with("test result: ");
            } else if let Some(name) = speaker {
                let feature = line.strip_prefix("feature ").and_then(|rest| rest.rsplit_once(": "));
                results.features.extend(feature.map(|(what, answer)| (what.to_owned(), answer.to_owned())));
                printed.entry(name).or_default().push(line);
            } else if let Some((name, verdict)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
                match verdict {
                    "FAILED" => drop(results.failed.insert(name.to_owned(), String::new())),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_skipped_and_failed_are_told_apart() {
        let output = "\nrunning 3 tests\ntest a::one ... ok\ntest a::two ... FAILED\ntest b ... ok\n\nsuccesses:\n\n\
            ---- b stdout ----\nfeature tcx: no\nskipped: no such thing\n\n\nsuccesses:\n    a::one\n    b\n\nfailures:\n\n\
            ---- a::two stdout ----\n\nthread 'a::two' panicked\n\nfailures:\n    a::two\n\n\
            test result: FAILED. 2 passed; 1 failed; 0 ignored\n";
        let results = Results::read(output);
        assert_eq!(results.passed, ["a::one"]);
        assert_eq!(results.skipped, BTreeMap::from([("b".to_owned(), "no such thing".to_owned())]));
        assert_eq!(results.features, [("tcx".to_owned(), "no".to_owned())]);
        assert_eq!(results.failed["a::two"].trim(), "thread 'a::two' panicked");
        assert!(results.complete);
        assert!(!Results::read(&output[..output.len() / 2]).complete, "a run that was cut off");
    }
}
