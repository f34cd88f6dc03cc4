//! What a command hands to the terminal: one value, seen as a table, as JSON, as YAML or as names.

use serde::Serialize;
use serde_json::{Value, json};

use super::Table;
use crate::severity::Severity;

/// The result of a command, in every form it can be printed in.
pub trait Report {
    /// `kind` of the JSON envelope, such as `ServiceList`.
    fn kind(&self) -> &'static str;

    /// The items, stable for scripts.
    fn items(&self) -> Vec<Value>;

    /// Further fields of the envelope, beside `items`.
    fn extra(&self) -> serde_json::Map<String, Value> {
        serde_json::Map::new()
    }

    /// The tables for people; `wide` asks for all columns.
    fn tables(&self, wide: bool) -> Vec<Table>;

    /// One name an item, for `-o name`.
    fn names(&self) -> Vec<String>;

    /// What there is to act on, for `-o github`; `None` for reports that do not judge.
    fn annotations(&self) -> Option<Vec<Annotation>> {
        None
    }
}

/// A remark that a CI system shows beside a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// How bad it is.
    pub severity: Severity,
    /// A heading.
    pub title: String,
    /// What it says, in lines.
    pub text: String,
}

impl Annotation {
    /// A workflow command of GitHub Actions.
    pub(super) fn github(&self) -> String {
        let command = match self.severity {
            Severity::Info => "notice",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let line = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
        let title = line(&self.title).replace(':', "%3A").replace(',', "%2C");
        format!("::{command} title={title}::{}\n", line(&self.text))
    }
}

/// The JSON document of a report: `apiVersion`, `kind`, further fields, `items`.
pub(super) fn envelope(report: &dyn Report) -> Value {
    let mut document = json!({ "apiVersion": "kpx.dev/v1", "kind": report.kind() });
    if let Value::Object(map) = &mut document {
        map.extend(report.extra());
        map.insert("items".to_owned(), Value::Array(report.items()));
    }
    document
}

/// All tables of a report as Markdown.
pub fn markdown(report: &dyn Report) -> String {
    let tables: Vec<_> = report.tables(true).iter().map(Table::markdown).collect();
    tables.join("\n")
}

/// JSON of a value whose serialisation cannot fail.
pub fn to_value<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("kpx's own types have string keys and no failing serialisers")
}
