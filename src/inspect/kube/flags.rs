//! What kube-proxy's log tells: the flags it started with, and its version.

use std::collections::BTreeMap;

use super::config::{Source, Text};
use super::settings::{SETTINGS, Words};

/// Reads the lines `FLAG: --name="value"` (`-v=1` and above) and `"Version info" version="v1.36.2"`. Of several starts the
/// last one counts. If it started with `--config`, kube-proxy ignored every other flag but `--hostname-override`.
pub(super) fn read(text: Text<'_>) -> Words {
    let mut said: BTreeMap<&str, (String, usize)> = BTreeMap::new();
    let mut version = None;
    let log = String::from_utf8_lossy(text.bytes);
    for (index, line) in log.lines().enumerate() {
        if let Some((_, flag)) = line.split_once(" FLAG: --") {
            if let Some((name, value)) = flag.split_once('=')
                && let Some(value) = unquote(value)
            {
                said.insert(name, (value, index + 1));
            }
        } else if let Some((_, rest)) = line.split_once("\"Version info\" version=\"")
            && let Some(word) = rest.split('"').next()
        {
            version = Some((word.to_owned(), index + 1));
        }
    }
    let configured = said.get("config").is_some_and(|(file, _)| !file.is_empty());
    let source = |line| Source::Log { place: text.place.to_owned(), line };
    let mut words = Words::default();
    for (setting, flag) in SETTINGS {
        // The log has `--version` too, as the request to print it.
        let Some((value, line)) = said.get(flag).filter(|_| flag != "version") else { continue };
        let effective = if flag == "hostname-override" { !value.is_empty() } else { !configured };
        if effective {
            words.set(setting, value.clone(), source(*line));
        }
    }
    if let Some((value, line)) = said.get("feature-gates").filter(|_| !configured) {
        words.gates = Some((gates(value), source(*line)));
    }
    if let Some((value, line)) = version {
        words.set("version", value, source(line));
    }
    words
}

/// Reads `A=true,B=false`.
pub(super) fn gates(text: &str) -> BTreeMap<String, bool> {
    let gate = |gate: &str| {
        let (name, on) = gate.split_once('=')?;
        Some((name.trim().to_owned(), on.trim().parse().ok()?))
    };
    text.split(',').filter_map(gate).collect()
}

/// Undoes Go's `%q` for the characters that occur in flags.
fn unquote(text: &str) -> Option<String> {
    let inner = text.trim_end().strip_prefix('"')?.strip_suffix('"')?;
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next()? } else { c });
    }
    Some(out)
}
