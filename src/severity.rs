//! How bad a finding is, for all commands that judge.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know before a migration.
    Info,
    /// Will hurt under circumstances, or when kube-proxy goes.
    Warning,
    /// Hurts now, or stands in the way of any change.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}
