//! What a command hands to the terminal: one value, seen as a table, as JSON, as YAML or as names.

use serde::Serialize;
use serde_json::{Value, json};

use super::Table;

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
