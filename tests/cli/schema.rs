//! The committed JSON schema, against what kpx prints.

use serde_json::Value;

use super::environment::{project, run};

/// Checks the words of JSON Schema that the committed schemas use; returns where and what is wrong.
fn check(root: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    for (word, rule) in schema.as_object().expect("a schema is an object") {
        let fine = match word.as_str() {
            "$ref" => {
                let pointer = rule.as_str().and_then(|r| r.strip_prefix('#')).expect("references stay inside");
                check(root, root.pointer(pointer).expect("it leads somewhere"), value, at, wrong);
                true
            }
            "type" => match rule {
                Value::Array(types) => types.iter().any(|name| is(value, name)),
                name => is(value, name),
            },
            "const" => rule == value,
            "enum" => rule.as_array().expect("a list").contains(value),
            "minimum" => value.is_null() || value.as_i64() >= rule.as_i64(),
            "maximum" => value.is_null() || value.as_i64() <= rule.as_i64(),
            "required" if value.is_null() => true,
            "required" => {
                let there = |key: &Value| key.as_str().is_some_and(|key| value.get(key).is_some());
                rule.as_array().expect("a list").iter().all(there)
            }
            "properties" => {
                for (key, below) in value.as_object().into_iter().flatten() {
                    match rule.get(key) {
                        Some(schema) => check(root, schema, below, &format!("{at}/{key}"), wrong),
                        None => wrong.push(format!("{at}/{key} is not in the schema")),
                    }
                }
                true
            }
            "items" => {
                for (i, below) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, below, &format!("{at}/{i}"), wrong);
                }
                true
            }
            "$schema" | "$id" | "$defs" | "title" | "description" => true,
            other => panic!("the schema uses {other}, which this check does not know"),
        };
        if !fine {
            wrong.push(format!("{at}: {value} is not {word} {rule}"));
        }
    }
}

fn is(value: &Value, name: &Value) -> bool {
    match name.as_str().expect("types are names") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the schema has type {other}, which this check does not know"),
    }
}

/// Checks a document against the schema of its kind: `BpfMap` against `bpf-map.json`.
pub(crate) fn conforms(document: &Value) {
    let kind = document["kind"].as_str().expect("every document has a kind");
    let words =
        kind.chars().map(|c| if c.is_ascii_uppercase() { format!("-{}", c.to_ascii_lowercase()) } else { c.into() });
    conforms_to(words.collect::<String>().trim_start_matches('-'), document);
}

/// Checks a line of the events of a migration.
pub(crate) fn is_event(line: &Value) {
    conforms_to("migration-event", line);
}

fn conforms_to(name: &str, document: &Value) {
    let path = project("docs/schema").join(format!("{name}.json"));
    let schema: Value = serde_json::from_slice(&fs_err::read(path).expect("every kind has a schema")).expect("JSON");
    let mut wrong = Vec::new();
    check(&schema, &schema, document, "", &mut wrong);
    assert!(wrong.is_empty(), "{name}: {wrong:#?}");
}

#[test]
fn the_list_of_services_is_what_its_schema_says() {
    let text = fs_err::read_to_string(project("docs/schema/service-list.json")).expect("it is committed");
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    let node = project("tests/data/lab/node").display().to_string();
    for via in ["api", "iptables"] {
        let printed = run(&["inspect", "services", "--from", &node, "--via", via, "-o", "json"]).out;
        let value: Value = serde_json::from_str(&printed).expect("JSON");
        let mut wrong = Vec::new();
        check(&schema, &schema, &value, "", &mut wrong);
        assert!(wrong.is_empty(), "{wrong:#?}");
        let mut damaged = value.clone();
        damaged["items"][0]["port"] = "http".into();
        check(&schema, &schema, &damaged, "", &mut wrong);
        let seen = wrong.iter().any(|line| line.starts_with("/items/0/port: \"http\" is not type "));
        assert!(seen, "a port that is no number is wrong: {wrong:#?}");
    }
}

#[test]
fn the_report_of_an_audit_is_what_its_schema_says() {
    let text = fs_err::read_to_string(project("docs/schema/audit-report.json")).expect("it is committed");
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    let node = project("tests/data/lab/node").display().to_string();
    let value: Value = serde_json::from_str(&run(&["audit", "--from", &node, "-o", "json"]).out).expect("JSON");
    let mut wrong = Vec::new();
    check(&schema, &schema, &value, "", &mut wrong);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let results: std::collections::BTreeSet<_> =
        value["items"].as_array().expect("a list").iter().filter_map(|item| item["result"].as_str()).collect();
    assert_eq!(results.into_iter().collect::<Vec<_>>(), ["found", "passed", "skipped"]);
    assert!(value["costs"][0]["places"].as_array().is_some_and(|places| places.len() > 100));
    let mut damaged = value.clone();
    damaged["items"][0]["severity"] = "fatal".into();
    check(&schema, &schema, &damaged, "", &mut wrong);
    assert!(wrong.iter().any(|line| line.starts_with("/items/0/severity: ")), "{wrong:#?}");
}

fn json(args: &[&str]) -> Value {
    let ended = run(&[args, &["-o", "json"]].concat());
    serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("{args:?}: {e}\n{}", ended.err))
}

#[test]
fn explanations_and_the_version_are_what_their_schemas_say() {
    for id in ["KPX-A101", "KPX-P301"] {
        conforms(&json(&["explain", id]));
    }
    conforms(&json(&["version"]));
}

#[test]
fn differences_of_every_sort_are_what_their_schema_says() {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in fs_err::read_dir(project("tests/data/lab/node")).expect("it is there") {
        let path = entry.expect("it can be read").path();
        fs_err::copy(&path, folder.path().join(path.file_name().expect("a name"))).expect("copied");
    }
    let services = folder.path().join("services.json");
    let mut list: Value = serde_json::from_slice(&fs_err::read(&services).expect("read")).expect("JSON");
    let items = list["items"].as_array_mut().expect("a list");
    let by_name = |items: &mut Vec<Value>, name: &str| {
        items.iter().position(|item| item["metadata"]["name"] == name).unwrap_or_else(|| panic!("{name} is there"))
    };
    // One that the rules lack, one with other backends than they have, and one with another health check.
    let at = by_name(items, "kube-dns");
    items[at]["spec"]["ports"][0]["port"] = 5353.into();
    let at = by_name(items, "session");
    items[at]["spec"]["sessionAffinity"] = "None".into();
    for item in items {
        if item["spec"]["healthCheckNodePort"].is_u64() {
            item["spec"]["healthCheckNodePort"] = 30_999.into();
        }
    }
    fs_err::write(&services, list.to_string()).expect("written");
    let from = folder.path().display().to_string();
    let document = json(&["diff", "api", "iptables", "--from", &from]);
    conforms(&document);
    let sorts: std::collections::BTreeSet<_> =
        document["items"].as_array().expect("a list").iter().filter_map(|item| item["difference"].as_str()).collect();
    assert_eq!(sorts.into_iter().collect::<Vec<_>>(), ["frontend", "health-check", "only-in-a", "only-in-b"]);
    let Some(small) = crate::support::recordings().map(|folder| folder.join("small")) else { return };
    let (node, api) = (small.join("ipvs/running").display().to_string(), small.join("api").display().to_string());
    let document = json(&["diff", "api", "ipvs", "--from", &node, "--services-from", &api]);
    conforms(&document);
    assert!(document["by_ipvs_mode"].as_array().is_some_and(|list| !list.is_empty()));
}
