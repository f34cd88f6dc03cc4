//! The registry: every check, by area.
//!
//! Numbers: 1 iptables, 2 nftables, 3 ipvs, 4 conntrack, 5 BPF, 6 kube-proxy and the node, 7 the rules against the API.

mod agreement;
mod bpf;
mod conntrack;
mod damage;
mod firewall;
mod foreign;
mod ipvs;
mod leftovers;
mod node;
mod proxy;
mod tables;

use super::check::{Check, Evidence, Found, Skip};
use super::facts::{Facts, Iptables, rule_at, tool};

const REGISTRY: [&[Check]; 11] = [
    &foreign::CHECKS,
    &leftovers::CHECKS,
    &damage::CHECKS,
    &firewall::CHECKS,
    &tables::CHECKS,
    &ipvs::CHECKS,
    &conntrack::CHECKS,
    &bpf::CHECKS,
    &proxy::CHECKS,
    &node::CHECKS,
    &agreement::CHECKS,
];

/// Packets of one counter, from `{ pkts = 0, bytes = 0 } = name;`.
fn counted(listed: &str, name: &str) -> Option<u64> {
    let line = listed.lines().find(|line| line.trim_end_matches(';').ends_with(&format!("= {name}")))?;
    line.split_once("pkts = ")?.1.split(',').next()?.trim().parse().ok()
}

/// Every check, in the order of the report.
pub fn all() -> impl Iterator<Item = &'static Check> {
    static CHECKS: [&[Check]; 11] = REGISTRY;
    CHECKS.iter().copied().flatten()
}

/// The check with this identifier, in any case.
pub fn find(id: &str) -> Option<&'static Check> {
    all().find(|check| check.id.eq_ignore_ascii_case(id))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::all;

    #[test]
    fn identifiers_are_unique_and_belong_to_their_area() {
        let mut seen = BTreeSet::new();
        for check in all() {
            assert!(seen.insert(check.id), "{} is there twice", check.id);
            let number: u32 = check.id.strip_prefix("KPX-A").and_then(|n| n.parse().ok()).expect("KPX-A and a number");
            assert_eq!(number / 100, check.area as u32 + 1, "{}", check.id);
        }
    }

    #[test]
    fn every_check_says_what_why_and_what_to_type() {
        for check in all() {
            let id = check.id;
            assert!(!check.title.ends_with('.') && check.title.len() <= 72, "{id}: {}", check.title);
            for text in [check.why, check.remedy] {
                assert!(text.ends_with('.') && text.len() > 40, "{id}: {text}");
            }
            assert!(!check.command.is_empty() && check.command.lines().all(|line| line == line.trim()), "{id}");
        }
    }
}
