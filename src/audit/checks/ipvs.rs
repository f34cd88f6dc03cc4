//! What IPVS mode leaves: its device, its ipsets, its chains.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::check::{Area, Severity};
use super::{Check, Evidence, Facts, Found, Skip, tool};
use crate::capture::Item;
use crate::inspect::iptables::{Notice, Owner, owner};

pub(super) const CHECKS: [Check; 5] = [
    Check {
        id: "KPX-A301",
        area: Area::Ipvs,
        severity: Severity::Error,
        title: "Addresses on kube-ipvs0 although kube-proxy is not in ipvs mode",
        why: "Every address on the device is an address of the node: connections to these ClusterIPs are delivered to the node itself and \
              refused, whatever other rules say. This is the classic left-over of ipvs mode.",
        remedy: "Delete the device; all its addresses go with it.",
        command: "ip link delete kube-ipvs0",
        run: device,
    },
    Check {
        id: "KPX-A302",
        area: Area::Ipvs,
        severity: Severity::Warning,
        title: "ipsets of kube-proxy although it is not in ipvs mode",
        why: "They hold the Services of then. kube-proxy --cleanup leaves the IPv6 ones (KUBE-6-*), and cannot destroy a set that a rule of \
              either backend or family still matches.",
        remedy: "Destroy the sets, after the rules that match them are gone.",
        command: "ipset destroy NAME",
        run: sets,
    },
    Check {
        id: "KPX-A303",
        area: Area::Ipvs,
        severity: Severity::Error,
        title: "Chains of ipvs mode although kube-proxy is not in it",
        why: "kube-proxy removes nothing when it changes between ipvs and iptables mode, since the modes share chains. Those of ipvs mode go on \
              marking, accepting and rejecting by the ipsets of then.",
        remedy: "Remove the jumps to them, then the chains.",
        command: "kube-proxy --cleanup",
        run: chains,
    },
    Check {
        id: "KPX-A304",
        area: Area::Ipvs,
        severity: Severity::Warning,
        title: "A clean-up that would fail since rules still match an ipset",
        why: "The kernel refuses to destroy a set that a rule refers to; kube-proxy --cleanup then exits with an error and leaves it. These rules \
              are not kube-proxy's own.",
        remedy: "Remove or rewrite these rules first, then clean up.",
        command: "iptables-save | grep -- '--match-set KUBE-'",
        run: foreign_matches,
    },
    Check {
        id: "KPX-A305",
        area: Area::Ipvs,
        severity: Severity::Warning,
        title: "kube-proxy in ipvs mode, which Kubernetes is giving up",
        why: "ipvs mode is deprecated since 1.35; from 1.40 kube-proxy refuses to start in it. Deleting a virtual service cuts its established \
              connections at once (net.ipv4.vs.expire_nodest_conn), unlike rules of iptables or nftables, whose flows conntrack carries on.",
        remedy: "Plan the change, with a drain of the node or an announced interruption.",
        command: "kubectl drain NODE --ignore-daemonsets",
        run: deprecated,
    },
];

/// Whether kube-proxy is in another mode. Where it does not say, its chains of ipvs mode do: every start in that mode makes them.
fn not_ipvs(facts: &Facts<'_>) -> Result<bool, Skip> {
    match facts.mode() {
        Ok(mode) => Ok(mode != "ipvs"),
        Err(skip) => {
            let ipvs = facts
                .iptables()?
                .tables()
                .any(|(_, table)| table.chains().iter().any(|c| owner(c.name) == Owner::Ipvs));
            if ipvs { Err(skip) } else { Ok(true) }
        }
    }
}

#[derive(Deserialize)]
struct Link {
    #[serde(default)]
    ifname: String,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(default)]
    local: String,
}

fn device(facts: &Facts<'_>) -> Found {
    let text = facts.text(Item::Addresses)?;
    let links: Vec<Link> = serde_json::from_str(&text).map_err(|e| Skip::because(&e))?;
    let Some(link) = links.iter().find(|link| link.ifname == "kube-ipvs0") else { return Ok(Vec::new()) };
    if !not_ipvs(facts)? {
        return Ok(Vec::new());
    }
    let addresses: Vec<_> = link.addr_info.iter().map(|address| address.local.as_str()).collect();
    let shown = addresses.iter().take(8).copied().collect::<Vec<_>>().join(", ");
    let more = addresses.len().saturating_sub(8);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    Ok(vec![
        Evidence::new("kube-ipvs0", format!("{} addresses: {shown}{rest}", addresses.len()))
            .command("ip link delete kube-ipvs0"),
    ])
}

/// kube-proxy's ipsets with the number of their entries, from `ipset save`.
fn kube_sets(text: &str) -> BTreeMap<&str, usize> {
    let mut sets = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("create"), Some(name)) if name.starts_with("KUBE-") => {
                sets.entry(name).or_default();
            }
            (Some("add"), Some(name)) if name.starts_with("KUBE-") => *sets.entry(name).or_default() += 1,
            _ => {}
        }
    }
    sets
}

fn sets(facts: &Facts<'_>) -> Found {
    let text = facts.text(Item::Ipset)?;
    let sets = kube_sets(&text);
    if sets.is_empty() || !not_ipvs(facts)? {
        return Ok(Vec::new());
    }
    let evidence = |(name, entries): (&str, usize)| {
        Evidence::new(format!("ipset {name}"), format!("{entries} entries")).command(format!("ipset destroy {name}"))
    };
    Ok(sets.into_iter().map(evidence).collect())
}

fn chains(facts: &Facts<'_>) -> Found {
    let mut found = Vec::new();
    for (tool, table) in facts.iptables()?.tables() {
        let table_name = String::from_utf8_lossy(table.name());
        for (i, chain) in table.chains().iter().enumerate() {
            if !chain.is_builtin() && owner(chain.name) == Owner::Ipvs {
                let at = format!("{tool} {table_name} {}", String::from_utf8_lossy(chain.name));
                found.push(Evidence::new(at, format!("rules inside: {}", table.rules_of(i).len())));
            }
        }
    }
    if found.is_empty() || !not_ipvs(facts)? { Ok(Vec::new()) } else { Ok(found) }
}

fn foreign_matches(facts: &Facts<'_>) -> Found {
    let mut found = Vec::new();
    for (tool, table) in facts.iptables()?.tables() {
        let table_name = String::from_utf8_lossy(table.name());
        for (i, chain) in table.chains().iter().enumerate() {
            if !chain.is_builtin() && owner(chain.name).is_kube_proxy() {
                continue;
            }
            for (n, rule) in table.rules_of(i).enumerate() {
                if memchr::memmem::find(rule.body(), b"--match-set KUBE-").is_some() {
                    let at = format!("{tool} {table_name} {} rule {}", String::from_utf8_lossy(chain.name), n + 1);
                    found.push(Evidence::new(at, rule.to_string()));
                }
            }
        }
    }
    Ok(found)
}

fn deprecated(facts: &Facts<'_>) -> Found {
    match facts.mode() {
        Ok("ipvs") => Ok(vec![Evidence::new("kube-proxy /proxyMode", "ipvs")]),
        Ok(_) => Ok(Vec::new()),
        Err(skip) => {
            // The rules of ipvs mode alone tell it too.
            for backend in &facts.iptables()?.backends {
                for notice in &backend.lifted.notices {
                    if let Notice::IpvsMode { family } = notice {
                        return Ok(vec![Evidence::new(
                            tool(*family, backend.variant),
                            "the rules are those of ipvs mode",
                        )]);
                    }
                }
            }
            Err(skip)
        }
    }
}
