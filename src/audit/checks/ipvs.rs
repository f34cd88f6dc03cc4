//! What IPVS mode leaves: its device, its ipsets, its chains.

use std::collections::BTreeMap;

use super::super::check::{Area, Severity};
use super::{Check, Evidence, Facts, Found, Skip, tool};
use crate::inspect::iptables::{Notice, Owner, owner};
use crate::inspect::ipvs::{self, DEVICE};

pub(super) const CHECKS: [Check; 9] = [
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
        remedy: "Plan the change: kpx migrate carries connections over. Any other way needs a drain of the node, or an announced interruption.",
        command: "kpx migrate plan",
        run: deprecated,
    },
    Check {
        id: "KPX-A306",
        area: Area::Ipvs,
        severity: Severity::Error,
        title: "Virtual services of kube-proxy although it is not in ipvs mode",
        why: "IPVS takes packets to these addresses as soon as the node has them, with the servers of then. What other rules say of them does \
              not count.",
        remedy: "Delete these virtual services by name; ipvsadm --clear, as kube-proxy --cleanup does it, takes those of others too.",
        command: "ipvsadm -D -t ADDRESS:PORT",
        run: virtual_services,
    },
    Check {
        id: "KPX-A307",
        area: Area::Ipvs,
        severity: Severity::Warning,
        title: "Virtual services of IPVS that are not kube-proxy's",
        why: "kube-proxy --cleanup flushes the whole IPVS table, whoever made it, and kube-proxy in ipvs mode deletes at each sync what its \
              ipvs.excludeCIDRs do not keep.",
        remedy: "Find out whose they are; do not run --cleanup or ipvsadm --clear on this node.",
        command: "ipvsadm -Ln",
        run: others_services,
    },
    Check {
        id: "KPX-A308",
        area: Area::Ipvs,
        severity: Severity::Warning,
        title: "Connections that end when their virtual service goes",
        why: "IPVS keeps its connections with the virtual service: with net.ipv4.vs.expire_nodest_conn, which kube-proxy sets, a connection dies \
              at its next packet once the service is deleted. Conntrack does not carry it on as it does for rules.",
        remedy: "Let kpx migrate take them over. Before any other change drain the node, or announce an interruption.",
        command: "kpx inspect ipvs",
        run: connections,
    },
    Check {
        id: "KPX-A309",
        area: Area::Ipvs,
        severity: Severity::Error,
        title: "Virtual services, ipsets, addresses and rules that do not fit together",
        why: "In ipvs mode a Service works only if its virtual service, its entries in kube-proxy's sets, its address on kube-ipvs0 and the rules \
              around them are all there.",
        remedy: "Restart kube-proxy on the node: it writes everything anew at its start.",
        command: "kubectl -n kube-system delete pod -l k8s-app=kube-proxy --field-selector spec.nodeName=NODE",
        run: damage,
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

fn device(facts: &Facts<'_>) -> Found {
    let Some(addresses) = &facts.addresses()?.services else { return Ok(Vec::new()) };
    if !not_ipvs(facts)? {
        return Ok(Vec::new());
    }
    let shown = addresses.iter().take(8).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let more = addresses.len().saturating_sub(8);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    Ok(vec![
        Evidence::new(DEVICE, format!("{} addresses: {shown}{rest}", addresses.len()))
            .command(format!("ip link delete {DEVICE}")),
    ])
}

fn sets(facts: &Facts<'_>) -> Found {
    let sets: Vec<_> = facts.ipsets()?.iter().filter(|(name, _)| name.starts_with("KUBE-")).collect();
    if sets.is_empty() || !not_ipvs(facts)? {
        return Ok(Vec::new());
    }
    let evidence = |(name, set): (&String, &crate::inspect::ipset::Set)| {
        Evidence::new(format!("ipset {name}"), format!("{} entries", set.entries.len()))
            .command(format!("ipset destroy {name}"))
    };
    Ok(sets.into_iter().map(evidence).collect())
}

fn virtual_services(facts: &Facts<'_>) -> Found {
    let state = &facts.ipvs()?.state;
    let own: Vec<_> = state.ipvs.services.iter().filter(|service| !state.exposures(service).is_empty()).collect();
    if own.is_empty() || !not_ipvs(facts)? {
        return Ok(Vec::new());
    }
    Ok(own
        .into_iter()
        .map(|service| {
            let text = format!("{}, {} servers", service.scheduler, service.servers.len());
            Evidence::new(format!("IPVS {}", service.key), text)
        })
        .collect())
}

fn others_services(facts: &Facts<'_>) -> Found {
    let foreign = |notice: &&ipvs::Notice| matches!(notice, ipvs::Notice::Foreign { .. });
    let notices = &facts.ipvs()?.notices;
    Ok(notices.iter().filter(foreign).map(|notice| Evidence::new("IPVS", notice.to_string())).collect())
}

fn connections(facts: &Facts<'_>) -> Found {
    let mut by_service: BTreeMap<_, usize> = BTreeMap::new();
    for connection in facts.ipvs()?.connections.iter().filter(|connection| !connection.is_template()) {
        *by_service.entry((connection.virtual_address, connection.protocol)).or_default() += 1;
    }
    let mut counts: Vec<_> = by_service.into_iter().collect();
    counts.sort_by_key(|(address, count)| (std::cmp::Reverse(*count), *address));
    let evidence = |((address, protocol), count)| {
        Evidence::new(format!("IPVS {address}/{protocol}"), format!("connections: {count}"))
    };
    Ok(counts.into_iter().map(evidence).collect())
}

fn damage(facts: &Facts<'_>) -> Found {
    let state = facts.ipvs()?;
    if not_ipvs(facts)? {
        return Err(Skip("kube-proxy is not in ipvs mode".to_owned()));
    }
    Ok(state.damage().map(|notice| Evidence::new("IPVS", notice.to_string())).collect())
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
