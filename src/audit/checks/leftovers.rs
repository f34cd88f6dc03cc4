//! What an earlier kube-proxy, mode or iptables backend left.

use std::collections::BTreeMap;

use super::super::check::{Area, Severity};
use super::{Check, Evidence, Facts, Found, Skip, tool};
use crate::capture::Item;
use crate::inspect::iptables::{Notice, Place};
use crate::model::Family;

pub(super) const CHECKS: [Check; 6] = [
    Check {
        id: "KPX-A110",
        area: Area::Iptables,
        severity: Severity::Error,
        title: "Rules of kube-proxy in the iptables backend that it does not use",
        why: "The hooks of both backends run for every packet. The rules in the other one are live, but frozen: Services that were deleted since \
              are still answered there, and endpoints that are gone still get connections.",
        remedy: "Remove kube-proxy's chains from the backend it no longer uses, by exact name.",
        command: "iptables-legacy-save | grep -c KUBE-\niptables-nft-save | grep -c KUBE-",
        run: other_backend,
    },
    Check {
        id: "KPX-A111",
        area: Area::Iptables,
        severity: Severity::Error,
        title: "iptables rules of kube-proxy although it runs in another mode",
        why: "kube-proxy never removes its rules when it stops, and a change between iptables and ipvs mode removes nothing. The rules of the \
              old mode still act on every packet, with the endpoints of then.",
        remedy: "Let kube-proxy of the old mode clean up after itself once no node needs it, or remove its chains by exact name.",
        command: "kube-proxy --cleanup",
        run: other_mode,
    },
    Check {
        id: "KPX-A112",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "Chains of kube-proxy that no packet reaches",
        why: "Left over from Services, endpoints or versions that are gone. They do no harm by themselves, but a chain that is still referred to \
              cannot be deleted, and an incomplete clean-up is a sign that more is left.",
        remedy: "Delete them when kube-proxy no longer runs; a running kube-proxy removes those of its own version.",
        command: "iptables -t TABLE -F CHAIN && iptables -t TABLE -X CHAIN",
        run: stale_chains,
    },
    Check {
        id: "KPX-A113",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "Chains of the userspace mode",
        why: "Kubernetes 1.26 removed that mode: nothing maintains these chains any more, and no kube-proxy removes them.",
        remedy: "Remove the jumps to them, then the chains.",
        command: "iptables -t nat -F CHAIN && iptables -t nat -X CHAIN",
        run: userspace,
    },
    Check {
        id: "KPX-A114",
        area: Area::Iptables,
        severity: Severity::Info,
        title: "nfacct counters that rules need to be restored",
        why: "kube-proxy 1.32 and later counts with nfacct objects, which outlive it. A saved table that names one cannot be restored where the \
              object is missing: iptables-restore fails for the whole table.",
        remedy: "Recreate the objects before such a table is restored.",
        command: "nfacct add ct_state_invalid_dropped_pkts\nnfacct add localhost_nps_accepted_pkts",
        run: nfacct,
    },
    Check {
        id: "KPX-A115",
        area: Area::Iptables,
        severity: Severity::Error,
        title: "nfacct counters that rules name but the kernel does not have",
        why: "The rules as saved cannot be restored: the way back of any change that relies on iptables-restore is closed.",
        remedy: "Create the objects that the rules name, or let kube-proxy make the rules anew.",
        command: "nfacct add NAME",
        run: nfacct_missing,
    },
];

fn other_backend(facts: &Facts<'_>) -> Found {
    let iptables = facts.iptables()?;
    let Some(other) = iptables.other() else {
        return match facts.not_captured().first() {
            Some(reason) => Err(Skip(reason.clone())),
            None => Ok(Vec::new()),
        };
    };
    let families = Family::BOTH.into_iter().zip(&other.lifted.families).filter(|(_, summary)| summary.programmed);
    Ok(families
        .map(|(family, summary)| {
            let tool = tool(family, other.variant);
            let (chains, rules, frontends) = (summary.all_chains(), summary.all_rules(), summary.frontends);
            Evidence::new(tool, format!("{chains} chains, {rules} rules, {frontends} frontends, frozen and active"))
                .command(format!("{tool}-save"))
        })
        .collect())
}

fn other_mode(facts: &Facts<'_>) -> Found {
    let mode = facts.mode()?;
    if mode == "iptables" {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for backend in &facts.iptables()?.backends {
        for (family, summary) in Family::BOTH.into_iter().zip(&backend.lifted.families) {
            if summary.programmed {
                let text = format!(
                    "{} chains and {} rules of iptables mode, while kube-proxy runs in {mode} mode",
                    summary.all_chains(),
                    summary.all_rules()
                );
                found.push(Evidence::new(tool(family, backend.variant), text));
            }
        }
    }
    Ok(found)
}

fn stale_chains(facts: &Facts<'_>) -> Found {
    chains(facts, |notice| match notice {
        Notice::StaleChain { chain } => Some(chain),
        _ => None,
    })
}

fn userspace(facts: &Facts<'_>) -> Found {
    chains(facts, |notice| match notice {
        Notice::UserspaceMode { chain } => Some(chain),
        _ => None,
    })
}

fn chains(facts: &Facts<'_>, wanted: fn(&Notice) -> Option<&Place>) -> Found {
    let mut found = Vec::new();
    for backend in &facts.iptables()?.backends {
        for Place { family, table, chain } in backend.lifted.notices.iter().filter_map(wanted) {
            let tool = tool(*family, backend.variant);
            let dump = backend.dumps[usize::from(*family == Family::V6)].as_ref();
            let saved = dump.and_then(|dump| dump.table(table));
            let rules = saved.and_then(|table| Some(table.rules_of(table.chain(chain.as_bytes())?).len())).unwrap_or(0);
            found.push(
                Evidence::new(format!("{tool} {table} {chain}"), format!("rules inside: {rules}"))
                    .command(format!("{tool} -t {table} -F {chain} && {tool} -t {table} -X {chain}")),
            );
        }
    }
    Ok(found)
}

/// The nfacct objects that rules name, each with the tools whose rules do.
fn named(facts: &Facts<'_>) -> Result<BTreeMap<String, Vec<&'static str>>, Skip> {
    let mut names: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    for backend in &facts.iptables()?.backends {
        for (family, summary) in Family::BOTH.into_iter().zip(&backend.lifted.families) {
            for name in &summary.nfacct {
                names.entry(name.clone()).or_default().push(tool(family, backend.variant));
            }
        }
    }
    Ok(names)
}

fn nfacct(facts: &Facts<'_>) -> Found {
    let evidence =
        |(name, tools): (String, Vec<_>)| Evidence::new(name, format!("named by rules of {}", tools.join(", ")));
    Ok(named(facts)?.into_iter().map(evidence).collect())
}

fn nfacct_missing(facts: &Facts<'_>) -> Found {
    let named = named(facts)?;
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let listed = facts.text(Item::Nfacct)?;
    let missing = named.into_iter().filter(|(name, _)| super::counted(&listed, name).is_none());
    Ok(missing
        .map(|(name, tools)| {
            let command = format!("nfacct add {name}");
            Evidence::new(name, format!("named by rules of {}, not in the kernel", tools.join(", "))).command(command)
        })
        .collect())
}
