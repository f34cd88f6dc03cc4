//! Damaged rulesets: text that is no JSON, and JSON that is no ruleset.

use std::error::Error as _;

use kpx::inspect::nftables::{ParseError, lift, parse};
use proptest::prelude::*;

use super::{json_of, samples};

#[test]
fn errors_name_the_element() {
    let text = |json: &str| {
        let error = parse(json.as_bytes()).expect_err("malformed");
        format!("{error}: {}", error.source().expect("a reason"))
    };
    let table = r#"{"table": {"family": "ip", "name": "kube-proxy"}}"#;
    let chain = r#"{"chain": {"family": "ip", "table": "kube-proxy", "name": "services"}}"#;
    let cases = [
        String::new(),
        "[]".to_owned(),
        r#"{"nftables": 3}"#.to_owned(),
        r#"{"other": []}"#.to_owned(),
        format!(
            r#"{{"nftables": [{table}, {{"set": {{"family": "ip", "name": "cluster-ips", "table": "kube-proxy", "elem": ["10.96.0.1", 10.}}}}]}}"#
        ),
        format!(
            r#"{{"nftables": [{table}, {{"map": {{"family": "ip", "name": "service-ips", "table": "kube-proxy", "elem": ["10.96.0.1"]}}}}]}}"#
        ),
        format!(
            r#"{{"nftables": [{table}, {{"rule": {{"family": "ip", "table": "kube-proxy", "chain": "services", "handle": 7, "expr": []}}}}]}}"#
        ),
        format!(
            r#"{{"nftables": [{chain}, {{"rule": {{"family": "ip", "table": "kube-proxy", "chain": "services", "handle": 7, "expr": 3}}}}]}}"#
        ),
        format!(
            r#"{{"nftables": [{chain}, {{"rule": {{"family": "ip", "table": "kube-proxy", "handle": 7, "expr": []}}}}]}}"#
        ),
        format!(
            r#"{{"nftables": [{chain}, {{"rule": {{"family": "inet", "table": "kube-proxy", "chain": 3, "handle": 7}}}}]}}"#
        ),
        format!(r#"{{"nftables": [{chain}"#),
    ];
    let errors: Vec<_> = cases.iter().map(|case| text(case)).collect();
    insta::assert_snapshot!(errors.join("\n"), @r#"
    cannot read the nft ruleset at the document: EOF while parsing a value at line 1 column 0
    cannot read the nft ruleset at the document: invalid type: sequence, expected an object with the member "nftables" at line 1 column 0
    cannot read the nft ruleset at the document: invalid type: integer `3`, expected a list of objects at line 1 column 14
    cannot read the nft ruleset at the document: missing field `nftables` at line 1 column 13
    cannot read the nft ruleset at element 2 of set cluster-ips: invalid number at line 1 column 162
    cannot read the nft ruleset at element 1 of map service-ips: neither a key nor a pair of key and verdict at line 1 column 157
    cannot read the nft ruleset at chain services rule handle 7: a rule of a chain that was not listed at line 1 column 159
    cannot read the nft ruleset at chain services rule handle 7: invalid type: integer `3`, expected a sequence at line 1 column 178
    cannot read the nft ruleset at object 2: missing field `chain` at line 1 column 159
    cannot read the nft ruleset at object 2: invalid type: integer `3`, expected a string at line 1 column 147
    cannot read the nft ruleset at object 2: EOF while parsing a list at line 1 column 84
    "#);
}

/// Nesting is bounded: a document cannot exhaust the stack.
#[test]
fn deep_nesting_is_an_error() {
    let open = r#"{"nftables": [{"rule": {"family": "ip", "table": "kube-proxy", "chain": "c", "handle": 1, "expr": "#;
    let text = format!("{open}{}", "[".repeat(100_000));
    let error: ParseError = parse(text.as_bytes()).expect_err("too deep");
    assert!(error.to_string().contains("chain c rule handle 1"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever bytes are put anywhere, the reader and the lift end without a panic.
    #[test]
    fn damaged_text_never_panics(at in 0.0..1.0, cut in 0_usize..40, put in "[\\[\\]{}\",:@a-z0-9./ -]{0,12}") {
        for sample in samples() {
            let mut json = json_of(&sample);
            let start = (at * json.len() as f64) as usize;
            let end = (start + cut).min(json.len());
            json.splice(start..end, put.bytes());
            if let Ok(ruleset) = parse(&json) {
                let lifted = lift(&ruleset);
                prop_assert!(lifted.table.frontends().len() > 100);
            }
        }
    }
}
