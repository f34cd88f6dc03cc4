//! What commands that judge have in common: from when on the exit code says so, and reports for other programs.

use std::path::PathBuf;

use clap::ValueEnum;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use crate::severity::Severity;
use crate::ui::{Failure, Report};

/// From which severity on the exit code says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum FailOn {
    /// Everything
    Info,
    /// Warnings and errors
    Warning,
    /// Errors only
    #[default]
    Error,
    /// Nothing
    Never,
}

impl FailOn {
    pub(super) const fn threshold(self) -> Option<Severity> {
        match self {
            Self::Info => Some(Severity::Info),
            Self::Warning => Some(Severity::Warning),
            Self::Error => Some(Severity::Error),
            Self::Never => None,
        }
    }
}

/// `junit=audit.xml`.
#[derive(Clone, Debug)]
pub(super) struct FileReport {
    format: FileFormat,
    path: PathBuf,
}

#[derive(Clone, Copy, Debug)]
enum FileFormat {
    Junit,
    Markdown,
}

impl FileReport {
    pub(super) fn parse(value: &str) -> Result<Self, String> {
        let (format, path) = value.split_once('=').ok_or("no FORMAT=FILE, such as junit=audit.xml")?;
        let format = match format {
            "junit" => FileFormat::Junit,
            "markdown" => FileFormat::Markdown,
            other => return Err(format!("{other} is neither junit nor markdown")),
        };
        Ok(Self { format, path: PathBuf::from(path) })
    }
}

/// Writes the reports that were asked for.
pub(super) fn write(files: &[FileReport], report: &dyn Report, junit: impl Fn() -> String) -> Result<(), Failure> {
    for file in files {
        let text = match file.format {
            FileFormat::Junit => junit(),
            FileFormat::Markdown => crate::ui::markdown(report),
        };
        fs_err::write(&file.path, text).map_err(|e| Failure::new(format!("cannot write the report: {e}")))?;
    }
    Ok(())
}

/// One case of a JUnit report.
pub(super) struct Case {
    /// Identifier and title.
    pub(super) name: String,
    /// Command and area, with dots.
    pub(super) class: String,
    /// How it ended.
    pub(super) outcome: Outcome,
}

/// How a case ended.
pub(super) enum Outcome {
    /// Fine, with something to read if it has something to say.
    Passed(Option<String>),
    /// It counts as a failure.
    Failed {
        /// In short.
        message: String,
        /// How bad.
        severity: Severity,
        /// At length.
        text: String,
    },
    /// Not made, with the reason.
    Skipped(String),
}

/// JUnit XML: suites by name with their cases; those without one are left out.
pub(super) fn junit(title: &str, suites: impl IntoIterator<Item = (&'static str, Vec<Case>)>) -> String {
    let mut report = quick_junit::Report::new(title);
    for (name, cases) in suites {
        if cases.is_empty() {
            continue;
        }
        let mut suite = TestSuite::new(name);
        suite.add_test_cases(cases.into_iter().map(case));
        report.add_test_suite(suite);
    }
    report.to_string().expect("memory takes everything, and all strings are UTF-8")
}

fn case(case: Case) -> TestCase {
    let mut output = None;
    let status = match case.outcome {
        Outcome::Passed(said) => {
            output = said;
            TestCaseStatus::success()
        }
        Outcome::Failed { message, severity, text } => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(message).set_type(severity.to_string()).set_description(text);
            status
        }
        Outcome::Skipped(reason) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason);
            status
        }
    };
    let mut made = TestCase::new(case.name, status);
    made.set_classname(case.class);
    if let Some(output) = output {
        made.set_system_out(output);
    }
    made
}
