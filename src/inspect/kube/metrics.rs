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
    use super::label;

    #[test]
    fn labels_by_their_whole_name() {
        let labels = r#"not_git_version="a",git_version="v1.23.4",go_version="go1.26.6"} 1"#;
        assert_eq!(label(labels, "git_version"), Some("v1.23.4"));
        assert_eq!(label(labels, "version"), None);
    }
}
