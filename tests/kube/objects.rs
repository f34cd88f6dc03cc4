//! Documents of API objects: every form they come in, and errors that name the object and field at fault.

use fs_err as fs;
use kpx::inspect::kube::{Objects, ObjectsError};

use super::worlds::file;
use crate::support::recordings;

fn read(json: &str) -> Result<Objects, String> {
    let mut objects = Objects::default();
    objects.add(json.as_bytes(), "objects.json").map(|()| objects).map_err(|e| chain(&e))
}

fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|s| format!(": {}", chain(s))).unwrap_or_default();
    format!("{error}{source}")
}

fn service(ports: &str) -> String {
    format!(r#"{{"metadata":{{"namespace":"shop","name":"cart"}},"spec":{{"ports":{ports}}}}}"#)
}

#[test]
fn lists_mixed_lists_and_single_objects() {
    let list = format!(r#"{{"kind":"ServiceList","apiVersion":"v1","items":[{}]}}"#, service("[]"));
    assert_eq!(read(&list).expect("a list").services.len(), 1);

    let mixed = r#"{"kind":"List","items":[
        {"kind":"Service","apiVersion":"v1","metadata":{"name":"a"}},
        {"metadata":{"name":"b"},"addressType":"IPv4","endpoints":[],"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice"},
        {"kind":"Node","metadata":{"name":"c"}},
        {"kind":"Pod","metadata":{"name":"d"},"spec":"anything"}]}"#;
    let objects = read(mixed).expect("a mixed list");
    assert_eq!((objects.services.len(), objects.slices.len(), objects.nodes.len()), (1, 1, 1));
    assert!(objects.listed.services && objects.listed.slices && objects.listed.nodes);

    let single = read(r#"{"kind":"Node","apiVersion":"v1","metadata":{"name":"node-a"}}"#).expect("an object");
    assert!(single.node("node-a").is_some() && single.node("node-b").is_none());

    let empty = read(r#"{"kind":"ServiceList","items":null}"#).expect("Go writes null for an empty list");
    assert!(empty.listed.services && empty.services.is_empty());
}

#[test]
fn fields_kpx_does_not_know_are_let_through() {
    let json =
        r#"{"kind":"ServiceList","colour":1,"items":[{"metadata":{"name":"a","shade":{}},"spec":{"tint":[1]}}]}"#;
    assert_eq!(read(json).expect("unknown fields").services.len(), 1);
}

#[test]
fn a_field_of_the_wrong_type_is_named_with_its_object() {
    let in_list = |items: &str| format!(r#"{{"kind":"ServiceList","items":[{items}]}}"#);
    let bad = service(r#"[{"port":80},{"port":"eighty"}]"#);
    insta::assert_snapshot!(
        read(&in_list(&format!("{},{bad}", service("[]")))).expect_err("a port that is text"),
        @r#"objects.json: Service shop/cart (items[1]): field spec.ports[1].port: invalid type: string "eighty", expected i32"#
    );
    let slice = r#"{"kind":"EndpointSlice","metadata":{"namespace":"shop","name":"cart-x"},"addressType":"IPv4",
        "endpoints":[{"addresses":["10.0.0.1"]},{"addresses":[7]}]}"#;
    insta::assert_snapshot!(
        read(&format!(r#"{{"kind":"List","items":[{slice}]}}"#)).expect_err("an address that is a number"),
        @"objects.json: EndpointSlice shop/cart-x (items[0]): field endpoints[1].addresses[0]: invalid type: integer `7`, expected a string"
    );
    let old = r#"{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1beta1","metadata":{"name":"old"},"addressType":"IPv4"}"#;
    insta::assert_snapshot!(
        read(&format!(r#"{{"kind":"List","items":[{old}]}}"#)).expect_err("a version without nodeName"),
        @r#"objects.json: EndpointSlice old (items[0]): invalid value: string "discovery.k8s.io/v1beta1", expected discovery.k8s.io/v1"#
    );
    insta::assert_snapshot!(
        read(&in_list(r#"{"metadata":{},"spec":1}"#)).expect_err("a spec that is a number"),
        @"objects.json: Service without a name (items[0]): field spec: invalid type: integer `1`, expected ServiceSpec"
    );
}

#[test]
fn what_is_no_list_of_them_says_what_it_is() {
    insta::assert_snapshot!(read("{").expect_err("half a document"), @"objects.json is no JSON: EOF while parsing an object at line 1 column 1");
    insta::assert_snapshot!(read(r#"{"kind":"PodList","items":[]}"#).expect_err("pods"), @"objects.json holds a PodList, not a list of Services, EndpointSlices or Nodes");
    insta::assert_snapshot!(read(r#"{"items":[]}"#).expect_err("no kind"), @"objects.json holds a JSON value without a kind, not a list of Services, EndpointSlices or Nodes");
    insta::assert_snapshot!(read("[]").expect_err("an array"), @"objects.json holds a JSON value without a kind, not a list of Services, EndpointSlices or Nodes");
}

#[test]
fn recorded_answers_that_are_no_whole_list_are_refused() {
    let Some(root) = recordings() else { return };
    let replay = root.join("small/replay");
    let read = |name: &str| {
        let mut objects = Objects::default();
        objects.add(&file(&replay.join(name)).expect("a recording"), name).map(|()| objects)
    };
    assert!(matches!(read("list-services-page-1.json"), Err(ObjectsError::Page { .. })));
    assert!(matches!(read("error-403.json"), Err(ObjectsError::Refused { code: 403, .. })));
    assert!(matches!(read("table-services.json"), Err(ObjectsError::Kind { kind, .. }) if kind == "Table"));
    assert!(matches!(read("list-services.pb"), Err(ObjectsError::Json { .. })));
    let unfiltered = read("list-services-unfiltered.json").expect("a list");
    let lines = fs::read_to_string(replay.join("list-services-unfiltered.json")).expect("a recording");
    assert!(unfiltered.services.len() > 50 && lines.contains("ServiceList"));
}
