//! `inspect service` and `--watch` on a recorded node.

use kpx::capture::command;
use serde_json::{Value, json};

use super::environment::{finish, kpx, project, run};
use super::schema;

const NODE: &str = "tests/data/lab/node";

fn node() -> String {
    project(NODE).display().to_string()
}

#[test]
fn one_service_is_joined_from_all_sources() {
    let printed = run(&["inspect", "service", "shop/frontend", "--from", &node(), "-o", "json"]);
    assert_eq!(printed.code, 0, "{}", printed.err);
    let document: Value = serde_json::from_str(&printed.out).expect("JSON");
    schema::conforms(&document);
    let item = &document["items"][0];
    assert_eq!(item["service"], "shop/frontend");
    let sources: Vec<&Value> = item["sources"].as_array().expect("a list").iter().map(|s| &s["source"]).collect();
    assert_eq!(sources, ["api", "iptables"]);
    for source in item["sources"].as_array().expect("a list") {
        assert_eq!(source["frontends"][0]["backends"].as_array().map(Vec::len), Some(3), "{source}");
    }
    let missing: Vec<&Value> = item["missing"].as_array().expect("a list").iter().map(|m| &m["source"]).collect();
    assert_eq!(missing, ["nftables", "ebpf", "cilium", "conntrack"]);
    assert_eq!((&item["counters"], &item["map_entries"]), (&Value::Null, &json!([])));
}

#[test]
fn the_screen_of_a_service_fits_80_columns() {
    let mut command = kpx();
    command.args(["inspect", "service", "shop/frontend", "--from"]).arg(project(NODE)).env("COLUMNS", "80");
    let printed = finish(&mut command);
    let screen = printed.out.split("\nNot read\n").next().expect("there is a first part").to_owned();
    insta::assert_snapshot!(screen, @r"
    Frontends
    KIND       ADDRESS                API  IPTABLES
    ClusterIP  10.108.140.169:80/TCP    3         3
    1 frontend of Service shop/frontend, backends by source

    Backends
    BACKEND               LOCAL  STATE  API  IPTABLES  OPEN
    10.244.1.11:8080/TCP  yes    ready  yes  yes          -
    10.244.2.11:8080/TCP  no     ready  yes  yes          -
    10.244.3.11:8080/TCP  no     ready  yes  yes          -
    ");
    assert!(printed.out.lines().all(|line| line.chars().count() <= 80), "{}", printed.out);
}

#[test]
fn a_service_that_is_nowhere_is_an_error_that_says_where_it_was_sought() {
    let none = run(&["inspect", "service", "shop/nothing", "--from", &node()]);
    assert_eq!((none.out.as_str(), none.code), ("", 1));
    assert!(none.err.starts_with("error: no Service shop/nothing in API objects for node "), "{}", none.err);
    assert!(none.err.ends_with("hint: list what is there: kpx inspect services -n shop\n"), "{}", none.err);
}

#[test]
fn a_watch_is_one_object_a_line_and_ends_with_its_reader() {
    let looks = "\"$0\" inspect services --from \"$1\" --watch --interval 1 -o json | head -n 2";
    let node = node();
    let args = ["-c", looks, env!("CARGO_BIN_EXE_kpx"), &node];
    let printed = command::output("sh", args, None).expect("a shell");
    let lines: Vec<Value> = String::from_utf8(printed)
        .expect("UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], lines[1], "nothing changed between two looks");
    schema::conforms(&lines[0]);
}

#[test]
fn an_address_and_a_port_select_what_takes_part() {
    let listed = |words: &[&str]| run(&[words, &["--from", &node(), "-o", "name"]].concat()).out;
    assert_eq!(listed(&["inspect", "services", "--address", "10.108.140.169", "--port", "80"]), "shop/frontend:http\n");
    assert_eq!(listed(&["inspect", "services", "--address", "10.108.140.169", "--port", "81"]), "");
    let one = listed(&["inspect", "backends", "--address", "10.244.2.11", "--port", "8443"]);
    assert_eq!(one, "10.244.2.11:8443/TCP\n");
}
