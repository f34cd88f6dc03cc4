//! The three answers, and what each rests on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether a thing works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It does.
    Works,
    /// It does not.
    #[serde(rename = "does-not")]
    Lacks,
    /// Nobody can tell from here.
    #[serde(rename = "cannot-tell")]
    Unknown,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Works => "works",
            Self::Lacks => "does not",
            Self::Unknown => "cannot tell",
        })
    }
}

/// What an answer rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// It was done, and seen.
    Tried,
    /// The kernel's configuration, its BTF or the node says so.
    Known,
    /// The version alone says so: kernels with changes of their distributor may differ.
    Inferred,
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tried => "tried",
            Self::Known => "known",
            Self::Inferred => "inferred",
        })
    }
}

/// An answer with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The answer.
    pub answer: Answer,
    /// What it rests on; nothing where nobody can tell.
    pub basis: Option<Basis>,
    /// Why, a clause.
    pub reason: String,
}

impl Finding {
    /// An answer that rests on something.
    pub(super) fn new(answer: Answer, basis: Basis, reason: impl Into<String>) -> Self {
        Self { answer, basis: Some(basis), reason: reason.into() }
    }

    /// Nobody can tell.
    pub(super) fn unknown(reason: impl Into<String>) -> Self {
        Self { answer: Answer::Unknown, basis: None, reason: reason.into() }
    }

    /// What was seen to be so, or not.
    pub(super) fn known(works: bool, reason: impl Into<String>) -> Self {
        Self::new(if works { Answer::Works } else { Answer::Lacks }, Basis::Known, reason)
    }
}
