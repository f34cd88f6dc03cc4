//! The one integration binary: one module a domain.

#![allow(clippy::print_stdout, reason = "tests print why they skip")]

mod agent;
mod audit;
mod bpf;
mod capture;
mod cli;
mod conformance;
mod conntrack;
mod dataplane;
mod doctor;
mod hostile;
mod iptables;
mod ipvs;
mod kube;
mod lab;
mod migrate;
mod model;
mod monitor;
mod nftables;
mod path;
mod preflight;
mod support;
mod top;

/// A file that nobody lists would silently never run.
#[test]
fn every_file_is_listed() {
    let listed = include_str!("main.rs");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests")).expect("tests/ is there") {
        let name = entry.expect("tests/ can be read").file_name();
        let Some(module) = name.to_str().and_then(|n| n.strip_suffix(".rs")) else { continue };
        assert!(module == "main" || listed.contains(&format!("mod {module};")), "tests/{module}.rs is not listed");
    }
}
