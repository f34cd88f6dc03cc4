//! `inspect services` and `diff` on a recorded node: every format, every exit code.

use std::path::Path;

use serde_json::Value;

use super::environment::{finish, kpx, project, run};

/// A node that a kube-proxy 1.36 programmed, with the API objects it did it from.
const NODE: &str = "tests/data/lab/node";

fn node() -> String {
    project(NODE).display().to_string()
}

fn services(via: &str, rest: &[&str]) -> super::environment::Run {
    let node = node();
    run(&[&["inspect", "services", "--from", node.as_str(), "--via", via], rest].concat())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// A copy of the recording with one file changed.
fn changed(file: &str, change: impl Fn(&str) -> String) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for entry in fs_err::read_dir(project(NODE)).expect("the recording is there") {
        let entry = entry.expect("it can be read");
        fs_err::copy(entry.path(), copy.path().join(entry.file_name())).expect("it can be copied");
    }
    let path = copy.path().join(file);
    let text = fs_err::read_to_string(&path).expect("it is text");
    fs_err::write(&path, change(&text)).expect("it can be written");
    copy
}

fn from(directory: &Path, args: &[&str]) -> super::environment::Run {
    finish(kpx().args(args).arg("--from").arg(directory))
}

#[test]
fn the_api_and_the_rules_list_the_same_services() {
    let (api, rules) = (services("api", &["-o", "json"]), services("iptables", &["-o", "json"]));
    assert_eq!((api.code, rules.code), (0, 0), "{}{}", api.err, rules.err);
    let (api, rules) = (json(&api.out), json(&rules.out));
    assert_eq!((&api["kind"], &api["source"]), (&"ServiceList".into(), &"api".into()));
    assert_eq!(rules["source"], "iptables");
    // Not the kind: rules that refuse look the same for a load balancer's address and an external one.
    let names = |list: &Value| -> Vec<String> {
        let item = |i: &Value| format!("{} {} {} {}", i["service"], i["ip"], i["port"], i["protocol"]);
        let mut names: Vec<String> = list["items"].as_array().expect("items").iter().map(item).collect();
        names.sort();
        names
    };
    assert!(names(&api).len() > 100, "the recording has many frontends");
    assert!(names(&api) == names(&rules), "the lists differ");
}

#[test]
fn every_item_has_the_fields_that_scripts_rely_on() {
    let fields = [
        "service",
        "port_name",
        "kind",
        "ip",
        "port",
        "protocol",
        "backends",
        "local_backends",
        "internal_traffic_policy",
        "external_traffic_policy",
        "affinity_seconds",
        "source_ranges",
        "masquerade",
        "no_backends",
        "from",
    ];
    for via in ["api", "iptables"] {
        for item in json(&services(via, &["-o", "json"]).out)["items"].as_array().expect("items") {
            let keys: Vec<&str> = item.as_object().expect("an object").keys().map(String::as_str).collect();
            assert_eq!(keys, fields);
            for backend in item["backends"].as_array().expect("a list") {
                let keys: Vec<&str> = backend.as_object().expect("an object").keys().map(String::as_str).collect();
                assert_eq!(keys, ["ip", "port", "local", "state", "weight"]);
            }
        }
    }
}

#[test]
fn a_table_fits_80_columns_and_wide_has_a_line_for_each_frontend() {
    for via in ["api", "iptables"] {
        let node = node();
        let narrow = finish(kpx().args(["inspect", "services", "--from", &node, "--via", via]).env("COLUMNS", "80"));
        for line in narrow.out.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let wide = services(via, &["-o", "wide", "--no-headers"]);
        let items = json(&services(via, &["-o", "json"]).out)["items"].as_array().expect("items").len();
        assert_eq!(wide.out.lines().count(), items + 1, "a line for each frontend, and one with their number");
    }
}

#[test]
fn yaml_and_names_say_what_json_says() {
    let items = json(&services("iptables", &["-o", "json"]).out)["items"].clone();
    let yaml = services("iptables", &["-o", "yaml"]).out;
    assert_eq!(yaml.matches("\n- service:").count(), items.as_array().expect("items").len());
    let names = services("iptables", &["-o", "name"]).out;
    let mut unique: Vec<&str> = names.lines().collect();
    unique.dedup();
    assert_eq!(unique.len(), names.lines().count(), "each name once");
    for item in items.as_array().expect("items") {
        let service = item["service"].as_str().expect("the rules name their Services");
        assert!(names.contains(service), "{service}");
    }
}

#[test]
fn one_service_or_one_namespace_can_be_chosen() {
    let one = services("iptables", &["--service", "shop/frontend"]);
    insta::assert_snapshot!(one.out.replace(&node(), "NODE"), @r"
    SERVICE             KIND       ADDRESS                BACKENDS
    shop/frontend:http  ClusterIP  10.108.140.169:80/TCP  10.244.1.11:8080,10.244.2.11:8080,10.244.3.11:8080
    1 frontend of 1 Service, read from iptables-nft of NODE
    ");
    let namespace = json(&services("api", &["-n", "shop", "-o", "json"]).out);
    let all = |item: &Value| item["service"].as_str().is_some_and(|name| name.starts_with("shop/"));
    assert!(namespace["items"].as_array().is_some_and(|items| !items.is_empty() && items.iter().all(all)));
    let absent = services("iptables", &["--service", "shop/no-such"]);
    assert_eq!((absent.out.as_str(), absent.code), ("", 1));
    assert!(absent.err.contains("error: no frontend of Service shop/no-such in "), "{}", absent.err);
    assert!(absent.err.contains("hint: "), "{}", absent.err);
}

#[test]
fn equal_tables_exit_0() {
    let node = node();
    let equal = run(&["diff", "api", "iptables", "--from", &node]);
    assert_eq!(equal.code, 0, "{}", equal.out);
    assert!(equal.out.starts_with("0 differences in "), "{}", equal.out);
    let document = json(&run(&["diff", "api", "iptables", "--from", &node, "-o", "json"]).out);
    assert_eq!((&document["kind"], &document["differences"]), (&"ServiceDiff".into(), &0.into()));
    assert_eq!(document["items"], Value::Array(Vec::new()));
}

/// The endpoint is taken out of the rules as a kube-proxy that missed an event would leave them: the last jump of a
/// balancing chain has no probability, so the first one of three goes.
#[test]
fn a_rule_that_is_gone_is_found_and_exits_2() {
    let line = |text: &str| {
        let named = |l: &&str| l.contains("\"shop/frontend:http -> ") && l.contains("0.33333");
        text.lines().find(named).expect("three endpoints balanced").to_owned()
    };
    let node = changed("iptables-save.txt", |text| text.replace(&(line(text) + "\n"), ""));
    let different = from(node.path(), &["diff", "api", "iptables", "-q"]);
    assert_eq!(different.code, 2, "{}", different.err);
    insta::assert_snapshot!(different.out, @r"
    FRONTEND                         FIELD     API                                      IPTABLES
    shop/frontend:http               backends  3 backends, only here: 10.244.1.11:8080  2 backends
    ClusterIP 10.108.140.169:80/TCP
    1 difference in 194 frontends (backends 1)
    ");
    let document = json(&from(node.path(), &["diff", "iptables", "api", "-o", "json"]).out);
    let item = &document["items"][0];
    assert_eq!((&item["difference"], &item["service"]), (&"frontend".into(), &"shop/frontend".into()));
    assert_eq!(item["fields"][0]["field"], "backends");
    assert!(item["from"].as_str().is_some_and(|from| from.starts_with("IPv4 nat KUBE-SERVICES rule ")), "{item}");
    assert!(item["from_b"].as_str().is_some_and(|from| from.starts_with("Service shop/frontend ")), "{item}");
}

#[test]
fn a_malformed_rule_is_an_error_with_file_line_and_column() {
    let line = 40;
    let node = changed("iptables-save.txt", |text| {
        let mut lines: Vec<&str> = text.lines().collect();
        lines.insert(line - 1, "-A KUBE-SERVICES -d \"10.0.0.1");
        lines.join("\n") + "\n"
    });
    let broken = from(node.path(), &["inspect", "services"]);
    assert_eq!((broken.out.as_str(), broken.code), ("", 1));
    insta::assert_snapshot!(broken.err.replace(&node.path().display().to_string(), "NODE"), @r"
    error: cannot parse NODE/iptables-save.txt
      1: line 40, column 21: the quote is never closed
    hint: compare NODE/iptables-save.txt with what iptables-save -c prints on the node
    ");
}

#[test]
fn what_is_no_snapshot_is_an_error_that_says_how_to_make_one() {
    let missing = run(&["inspect", "services", "--from", "/nowhere/at-all"]);
    assert_eq!((missing.out.as_str(), missing.code), ("", 1));
    assert!(missing.err.contains("/nowhere/at-all") && missing.err.contains("hint: "), "{}", missing.err);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let script = "set -o pipefail; \"$0\" inspect services --from \"$1\" -q -o wide | head -n 1";
    let mut shell = assert_cmd::Command::new("bash");
    let head = finish(shell.args(["-c", script, env!("CARGO_BIN_EXE_kpx"), &node()]));
    assert_eq!((head.code, head.err.as_str(), head.out.lines().count()), (0, "", 1));
}

#[test]
fn stderr_is_never_mixed_into_data() {
    let loud = services("iptables", &["-o", "json", "-vvv"]);
    assert_eq!(json(&loud.out)["kind"], "ServiceList");
}
