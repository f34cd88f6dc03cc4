//! Damaged rulesets: text that is no JSON, JSON that is no ruleset, and tables that lack or have something.

use std::collections::BTreeMap;
use std::error::Error as _;

use kpx::inspect::nftables::{
    Element, Key, Lift, ParseError, Rule, Ruleset, Set, Statement, Table, Verdict, lift, parse, without_hairpin,
};
use kpx::model::{Family, diff};
use proptest::prelude::*;

use super::{json_of, ruleset_of, samples};

/// One family of a sample, and what its lift says.
pub(super) struct Undamaged {
    family: Family,
    ruleset: Ruleset,
    lift: Lift,
}

impl Undamaged {
    pub(super) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for sample in samples() {
            let Ruleset { v4, v6 } = ruleset_of(&sample);
            for (family, ruleset) in [(Family::V4, Ruleset { v4, v6: None }), (Family::V6, Ruleset { v4: None, v6 })] {
                let lift = lift(&ruleset);
                all.push(Self { family, ruleset, lift });
            }
        }
        all
    }

    pub(super) fn table(&self) -> &Table {
        self.ruleset.table(self.family).expect("a table")
    }

    /// What is said of the damaged table and was not said of this one: differences and notices.
    pub(super) fn said(&self, damage: impl FnOnce(&mut Table)) -> Vec<String> {
        let mut damaged = self.ruleset.clone();
        match self.family {
            Family::V4 => damaged.v4.as_mut(),
            Family::V6 => damaged.v6.as_mut(),
        }
        .map(damage)
        .expect("a table");
        let damaged = lift(&damaged);
        let differences = diff(&self.lift.table, &damaged.table);
        let notices = damaged.notices.iter().filter(|n| !self.lift.notices.contains(n));
        let hairpins = without_hairpin(&damaged.table, &self.lift.table);
        let notices = notices.chain(&hairpins).map(ToString::to_string);
        differences.iter().map(|difference| format!("{difference:?}")).chain(notices).collect()
    }

    /// Whether the lift tells the damaged table from this one.
    fn noticed(&self, damage: impl FnOnce(&mut Table)) -> bool {
        !self.said(damage).is_empty()
    }
}

#[test]
fn every_rule_that_is_missing_is_noticed() {
    let (mut tried, mut unnoticed) = (0, Vec::new());
    for base in Undamaged::all() {
        for (i, (name, chain)) in base.table().chains.iter().enumerate() {
            // Chains of endpoints are many, and all alike.
            if name.starts_with("endpoint-") && i % 5 != 0 {
                continue;
            }
            for (j, rule) in chain.rules.iter().enumerate() {
                let rule = rule.text(base.family).to_string();
                // kube-proxy writes it only where it knows the ServiceCIDRs, and no Service needs it.
                let unallocated = &**name == "cluster-ips-check" && rule.ends_with(" drop");
                tried += 1;
                let damage = |table: &mut Table| {
                    table.chains.get_mut(name).expect("the chain").rules.remove(j);
                };
                if !unallocated && !base.noticed(damage) {
                    unnoticed.push(format!("{name}: {rule}"));
                }
            }
        }
    }
    println!("{tried} rules deleted, {} unnoticed", unnoticed.len());
    assert!(tried > 800, "{tried}");
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

/// A rule before all others that accepts, returns or drops.
#[test]
fn every_foreign_rule_is_noticed() {
    let (mut tried, mut unnoticed) = (0, Vec::new());
    for base in Undamaged::all() {
        for (i, (name, _)) in base.table().chains.iter().enumerate() {
            if name.starts_with("endpoint-") && i % 5 != 0 {
                continue;
            }
            let verdict = [Verdict::Accept, Verdict::Return, Verdict::Drop][i % 3].clone();
            let rule = Rule { handle: 9999, comment: None, statements: vec![Statement::Verdict(verdict)] };
            tried += 1;
            if !base.noticed(|table| table.chains.get_mut(name).expect("the chain").rules.insert(0, rule)) {
                unnoticed.push(name.to_string());
            }
        }
    }
    println!("{tried} rules added, {} unnoticed", unnoticed.len());
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

#[test]
fn every_element_that_is_missing_is_noticed() {
    let (mut tried, mut unnoticed) = (0, Vec::new());
    for base in Undamaged::all() {
        // Clients come and go in affinity sets without kube-proxy.
        let sets = &base.table().sets;
        for (name, set) in sets.iter().filter(|(name, _)| !name.starts_with("affinity-")) {
            for (i, element) in set.elements.iter().enumerate() {
                tried += 1;
                let harmless = &**name == "cluster-ips" && only_refused(sets, &element.key);
                let damage = |table: &mut Table| {
                    table.sets.get_mut(name).expect("the set").elements.remove(i);
                };
                if !harmless && !base.noticed(damage) {
                    unnoticed.push(format!("{name}: {}", element.key));
                }
            }
        }
    }
    println!("{tried} elements deleted, {} unnoticed", unnoticed.len());
    assert!(tried > 500, "{tried}");
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

/// Whether all ports of a ClusterIP are refused: those that are no Service's then go on untranslated instead of being
/// refused too.
fn only_refused(sets: &BTreeMap<Box<str>, Set>, key: &Key) -> bool {
    let served =
        |element: &Element| matches!((&element.key, key), (Key::Service(ip, ..), Key::Address(vip)) if ip == vip);
    !sets["service-ips"].elements.iter().any(served) && sets["no-endpoint-services"].elements.iter().any(served)
}

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
