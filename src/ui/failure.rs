//! How a command ends: its exit code, and the one error type of the edge.

use std::error::Error;
use std::process::ExitCode;

use crate::error::Hinted;

/// How a command that did its work ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Fine.
    Fine = 0,
    /// kpx failed.
    Failed = 1,
    /// It worked and there is something to act on: differences, findings, a blocked plan.
    ActOn = 2,
    /// Stopped part-way; the state is kept and the command can be run again.
    Partial = 3,
    /// The command line is wrong.
    Usage = 64,
    /// Interrupted.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error at the edge: what failed, why, and what to type next.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The failed action and its object, lower case.
    pub message: String,
    /// Causes, outermost first.
    pub causes: Vec<String>,
    /// Lines for `hint:`.
    pub hints: Vec<String>,
}

impl Failure {
    /// A failure with this message and exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    /// A wrong command line (exit code 64).
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(message) }
    }

    /// The same with another exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The same with one more hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl<E: Hinted> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut causes: Vec<String> = Vec::new();
        let message = error.to_string();
        let mut source: Option<&dyn Error> = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Some libraries repeat the cause in their own message; once is enough.
            if !causes.last().unwrap_or(&message).ends_with(&text) {
                causes.push(text);
            }
            source = cause.source();
        }
        Self { exit: Exit::Failed, message, causes, hints: error.hints() }
    }
}
