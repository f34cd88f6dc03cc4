//! Preflight: the running kernel tried, kernels foretold from recorded configurations, and both against each other.

mod offline;
mod tried;

use serde_json::Value;

use crate::cli::environment::{Run, run};
use crate::cli::schema::conforms;

/// Runs preflight for JSON.
fn preflight(args: &[&str]) -> (Run, Value) {
    let run = run(&[&["preflight", "-o", "json"], args].concat());
    let value = serde_json::from_str(&run.out).unwrap_or_else(|e| panic!("{e}: {}{}", run.out, run.err));
    (run, value)
}

/// The item of a feature.
fn feature<'v>(report: &'v Value, name: &str) -> &'v Value {
    let items = report["items"].as_array().expect("a list");
    items.iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("{name} is a feature"))
}

/// Here and not beside the trials, which run on kernels in machines that do not have the schemas.
#[test]
fn the_report_of_this_node_is_what_its_schema_says() {
    conforms(&preflight(&[]).1);
    conforms(&preflight(&["--no-try"]).1);
}
