//! Every statement and element of kube-proxy's tables, altered: the lift says so, and names the chain or the Service.

use std::net::IpAddr;

use kpx::inspect::nftables::{Element, Key, Match, Statement, Verdict};
use kpx::model::Protocol;

use super::damage::Undamaged;

/// The same statement, wrong in one way or another. Nothing for what kpx does not know, which is an unknown rule as it is.
fn wrong(statement: &Statement) -> Vec<Statement> {
    match statement.clone() {
        Statement::MarkOr(bits) => vec![Statement::MarkOr(bits << 1)],
        Statement::MarkXor(bits) => vec![Statement::MarkXor(bits << 1)],
        Statement::ServiceMap(name) => vec![Statement::ServiceMap(format!("{name}-2").into())],
        Statement::NodePortMap(name) => vec![Statement::NodePortMap(format!("{name}-2").into())],
        Statement::Spread(balance) => {
            let mut more = balance.clone();
            more.modulus += 1;
            let mut other = balance;
            other.choices[0].1 = Verdict::Accept;
            vec![Statement::Spread(more), Statement::Spread(other)]
        }
        Statement::DnatSpread(balance) => {
            let (mut more, mut port, mut address) = (balance.clone(), balance.clone(), balance);
            more.modulus += 1;
            port.choices[0].1.1 ^= 1;
            address.choices[0].1.0 = other_ip(address.choices[0].1.0);
            [more, port, address].map(Statement::DnatSpread).into()
        }
        Statement::Dnat(ip, port) => vec![Statement::Dnat(other_ip(ip), port), Statement::Dnat(ip, port ^ 1)],
        Statement::Remember(set) => vec![Statement::Remember(format!("{set}-2").into())],
        Statement::Reject => vec![Statement::Verdict(Verdict::Accept), Statement::Verdict(Verdict::Drop)],
        Statement::Masquerade { .. } | Statement::Verdict(Verdict::Drop) => vec![Statement::Verdict(Verdict::Accept)],
        Statement::Verdict(_) => vec![Statement::Verdict(Verdict::Drop), Statement::Verdict(Verdict::Return)],
        Statement::Match(condition) => wrong_match(condition).into_iter().map(Statement::Match).collect(),
        Statement::Other(_) => Vec::new(),
    }
}

fn wrong_match(condition: Match) -> Vec<Match> {
    match condition {
        Match::Address { side, not, among } => vec![Match::Address { side, not: !not, among }],
        Match::Local(_) | Match::New | Match::Translated => Vec::new(),
        Match::Protocol(_) => vec![Match::Protocol(Protocol::Sctp)],
        Match::Port(protocol, port) => vec![Match::Port(protocol, port ^ 1)],
        Match::Interface { not, by_index, name } => vec![Match::Interface { not: !not, by_index, name }],
        Match::Marked { bits, set } => vec![Match::Marked { bits: bits << 1, set }, Match::Marked { bits, set: !set }],
        Match::Hairpin(set) => vec![Match::Hairpin(format!("{set}-2").into())],
    }
}

fn other_ip(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) ^ 0x100).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) ^ 0x100).into()),
    }
}

/// A chain of one Service port by the Service in its name, which reports may give instead of the chain's.
fn names(chain: &str) -> Vec<String> {
    let mut names = vec![chain.to_owned()];
    if let Some((_, base)) = chain.split_once('-').and_then(|(_, rest)| rest.split_once('-')) {
        let mut parts = base.split('/');
        if let (Some(namespace), Some(service)) = (parts.next(), parts.next()) {
            names.push(format!("{namespace}/{service}"));
        }
    }
    names
}

#[test]
fn every_altered_statement_is_named() {
    let (mut tried, mut unnoticed) = (0, Vec::new());
    for base in Undamaged::all() {
        for (i, (name, chain)) in base.table().chains.iter().enumerate() {
            // Chains of endpoints are many, and all alike.
            if name.starts_with("endpoint-") && i % 5 != 0 {
                continue;
            }
            for (j, rule) in chain.rules.iter().enumerate() {
                for (k, statement) in rule.statements.iter().enumerate() {
                    for other in wrong(statement).into_iter().filter(|other| other != statement) {
                        tried += 1;
                        let said = base.said(|table| {
                            table.chains.get_mut(name).expect("the chain").rules[j].statements[k] = other.clone();
                        });
                        let names = names(name);
                        if !said.iter().any(|text| names.iter().any(|name| text.contains(name.as_str()))) {
                            unnoticed.push(format!("{name} rule {}: {statement:?} as {other:?}: {said:?}", j + 1));
                        }
                    }
                }
            }
        }
    }
    println!("{tried} statements altered, {} unnamed", unnoticed.len());
    assert!(tried > 1000, "{tried}");
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

#[test]
fn every_altered_element_is_named() {
    let (mut tried, mut unnoticed) = (0, Vec::new());
    for base in Undamaged::all() {
        for (name, set) in base.table().sets.iter().filter(|(name, _)| !name.starts_with("affinity-")) {
            for (i, element) in set.elements.iter().enumerate() {
                for other in wrong_elements(element) {
                    tried += 1;
                    let said = base.said(|table| {
                        let elements = &mut table.sets.get_mut(name).expect("the set").elements;
                        elements[i] = other.clone();
                        elements.sort_by(|a, b| a.key.cmp(&b.key));
                    });
                    if said.is_empty() {
                        unnoticed.push(format!("{name}: {} as {other:?}", element.key));
                    }
                }
            }
        }
    }
    println!("{tried} elements altered, {} unnoticed", unnoticed.len());
    assert!(tried > 500, "{tried}");
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

fn wrong_elements(element: &Element) -> Vec<Element> {
    let mut all = Vec::new();
    if let Key::Service(ip, protocol, port) = element.key {
        all.push(Element { key: Key::Service(ip, protocol, port ^ 1), ..element.clone() });
    }
    if let Key::NodePort(protocol, port) = element.key {
        all.push(Element { key: Key::NodePort(protocol, port ^ 1), ..element.clone() });
    }
    if element.verdict.is_some() {
        all.push(Element { verdict: Some(Verdict::Accept), ..element.clone() });
    }
    all
}
