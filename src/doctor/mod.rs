//! From "my Service does not work" to the cause: questions in the order in which a connection would fail, each answered by what
//! the other modules read, walk and count.
//!
//! A [`Check`] is data with one function from the [`Patient`] to a [`Finding`]. The first that fails names the cause; what
//! comes behind it is often no more than its consequence.

mod cause;
mod checks;
mod patient;
pub mod probe;
mod serving;
mod target;

pub use cause::Cause;
pub use checks::CHECKS;
pub use patient::{Asked, Patient};
pub use target::Target;

pub use crate::audit::Evidence;

/// One question.
pub struct Check {
    /// A word for it, stable for scripts.
    pub name: &'static str,
    /// The question.
    pub question: &'static str,
    run: fn(&Patient<'_>) -> Finding,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// All is as it should be; what was seen.
    Passed(String),
    /// As it was asked for, and a usual reason for complaints.
    Remark(Ailment),
    /// Something is wrong.
    Failed(Ailment),
    /// It cannot be told, with the reason.
    Unknown(String),
}

/// What is wrong, or looks so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ailment {
    /// Its name.
    pub cause: Cause,
    /// What was found, in a sentence.
    pub text: String,
    /// The very things that tell.
    pub evidence: Vec<Evidence>,
    /// What to type next.
    pub next: String,
}

impl Ailment {
    fn new(cause: Cause, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self { cause, text: text.into(), evidence: Vec::new(), next: next.into() }
    }

    fn with(mut self, evidence: impl IntoIterator<Item = Evidence>) -> Self {
        self.evidence.extend(evidence);
        self
    }
}

/// What became of one check.
#[derive(Debug)]
pub struct Judged {
    /// The check.
    pub check: &'static Check,
    /// Its answer.
    pub finding: Finding,
}

impl Judged {
    /// What is wrong, if it is.
    pub const fn failed(&self) -> Option<&Ailment> {
        match &self.finding {
            Finding::Failed(ailment) => Some(ailment),
            Finding::Passed(_) | Finding::Remark(_) | Finding::Unknown(_) => None,
        }
    }
}

/// All answers.
#[derive(Debug)]
pub struct Diagnosis {
    /// In the order of the checks.
    pub judged: Vec<Judged>,
}

impl Diagnosis {
    /// The first failure: what is behind it follows from it as a rule.
    pub fn cause(&self) -> Option<(&'static Check, &Ailment)> {
        self.judged.iter().find_map(|judged| Some((judged.check, judged.failed()?)))
    }
}

/// Asks everything.
pub fn examine(patient: &Patient<'_>) -> Diagnosis {
    let judge = |check: &'static Check| Judged { check, finding: (check.run)(patient) };
    Diagnosis { judged: CHECKS.iter().map(judge).collect() }
}
