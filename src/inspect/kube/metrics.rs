//! What kube-proxy's `/metrics` tell about itself: its version and its feature gates.

use std::collections::BTreeMap;

use super::config::{Source, Text};
use super::settings::Words;

/// Reads `kubernetes_build_info` and `kubernetes_feature_enabled` (1.26 and later).
pub(super) fn read(text: Text<'_>, words: &mut Words) {
    let source = || Source::Answer { place: text.place.to_owned() };
    let mut gates = BTreeMap::new();
    for line in String::from_utf8_lossy(text.bytes).lines() {
        if let Some(labels) = line.strip_prefix("kubernetes_build_info{") {
            if let Some(version) = label(labels, "git_version") {
                words.set("version", version.to_owned(), source());
            }
        } else if let Some(labels) = line.strip_prefix("kubernetes_feature_enabled{")
            && let Some(name) = label(labels, "name")
        {
            gates.insert(name.to_owned(), line.ends_with(" 1"));
        }
    }
    if !gates.is_empty() {
        words.gates = Some((gates, source()));
    }
}

/// The sum of a metric's samples over all its labels; `None` if there is none.
pub fn metric(text: &str, name: &str) -> Option<f64> {
    let sample = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.trim().parse::<f64>().ok()
    };
    text.lines().filter_map(sample).fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// The value of one label; none of those read here holds a quote.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let start = labels.match_indices(name).find_map(|(at, _)| {
        let preceded = at == 0 || labels[..at].ends_with(',');
        let value = labels[at + name.len()..].strip_prefix("=\"")?;
        preceded.then_some(value)
    })?;
    start.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::{label, metric};

    #[test]
    fn samples_of_a_metric_are_summed() {
        let text = "# HELP a x\na{code=\"200\"} 2\na{code=\"503\"} 1e+00\na_total 7\nb 3\n";
        assert_eq!((metric(text, "a"), metric(text, "b"), metric(text, "c")), (Some(3.0), Some(3.0), None));
    }

    #[test]
    fn labels_by_their_whole_name() {
        let labels = r#"not_git_version="a",git_version="v1.23.4",go_version="go1.26.6"} 1"#;
        assert_eq!(label(labels, "git_version"), Some("v1.23.4"));
        assert_eq!(label(labels, "version"), None);
    }
}
