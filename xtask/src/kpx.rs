//! Building the program itself.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::shell::cmd;

/// Builds kpx and returns the program's path, wherever cargo was told to put it.
///
/// As part of the whole workspace: crates get the features that the tests built them with, and need no second build.
pub(crate) fn build(release: bool) -> Result<PathBuf> {
    let profile = if release { "release" } else { "dev" };
    let message_format = "--message-format=json-render-diagnostics";
    let args = ["build", "--locked", "--workspace", "--bin", "kpx", "--profile", profile, message_format];
    let messages = String::from_utf8(cmd("cargo", args).read_shown()?)?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo build named no executable")
}
