//! What of the node kube-proxy's going would touch: sysctls, localhost, NodePorts.

use std::collections::BTreeMap;

use super::super::check::{Area, Severity};
use super::proxy::is_kube_proxy;
use super::{Check, Evidence, Facts, Found, Skip};
use crate::capture::Item;
use crate::inspect::conntrack::Setting;
use crate::inspect::kube::NodePortAddress;
use crate::inspect::recent;
use crate::model::{Exposure, Family};

pub(super) const CHECKS: [Check; 8] = [
    Check {
        id: "KPX-A607",
        area: Area::Node,
        severity: Severity::Warning,
        title: "Sysctls of kube-proxy that the next boot does not set",
        why: "kube-proxy sets them at start and nothing undoes it, so they outlive kube-proxy until the reboot, and fall back to the kernel's \
              defaults then. A connection table that was large enough is full weeks after the migration.",
        remedy: "Write the values that the node needs to /etc/sysctl.d.",
        command: "echo 'KEY = VALUE' > /etc/sysctl.d/90-conntrack.conf",
        run: unpinned,
    },
    Check {
        id: "KPX-A608",
        area: Area::Node,
        severity: Severity::Warning,
        title: "route_localnet without the rule that guards loopback",
        why: "With route_localnet on, the node takes packets to 127.0.0.0/8 from outside: neighbours on the network reach services that listen on \
              localhost only. The drop rule in KUBE-FIREWALL prevents that, and is not there.",
        remedy: "Turn route_localnet off where no localhost NodePort is in use, or put the rule back; the kubelet does so within a minute.",
        command: "sysctl -w net.ipv4.conf.all.route_localnet=0",
        run: unguarded_loopback,
    },
    Check {
        id: "KPX-A609",
        area: Area::Node,
        severity: Severity::Info,
        title: "route_localnet is on",
        why: "kube-proxy in iptables mode turns it on for NodePorts on localhost, and nothing turns it off again. It is safe only with the \
              kubelet's KUBE-FIREWALL.",
        remedy: "After kube-proxy is gone, turn it off unless something else needs it.",
        command: "sysctl -w net.ipv4.conf.all.route_localnet=0",
        run: route_localnet,
    },
    Check {
        id: "KPX-A610",
        area: Area::Node,
        severity: Severity::Warning,
        title: "Users of NodePorts on localhost",
        why: "Only kube-proxy in iptables mode, and only for IPv4, serves NodePorts on 127.0.0.1. Local registries and probes that use them stop \
              when it goes.",
        remedy: "Let the users ask a ClusterIP or the node's address, or see that the new dataplane serves localhost too.",
        command: "nfacct get localhost_nps_accepted_pkts",
        run: localhost_users,
    },
    Check {
        id: "KPX-A611",
        area: Area::Node,
        severity: Severity::Warning,
        title: "nodePortAddresses of one family only",
        why: "The setting limits NodePorts to some addresses of the families it names. A family that it does not name is not limited at all: its \
              NodePorts answer on every address.",
        remedy: "Name networks of both families, or use primary.",
        command: "kubectl -n kube-system edit configmap kube-proxy",
        run: one_family,
    },
    Check {
        id: "KPX-A618",
        area: Area::Node,
        severity: Severity::Info,
        title: "Users of NodePorts on other addresses than the node's first",
        why: "Where nodePortAddresses is not set, kube-proxy in iptables and ipvs mode serves NodePorts on every address of the node, and in nftables \
              mode on the first one of each family alone: these users get no answer after a change to it.",
        remedy: "Before such a change set nodePortAddresses to the networks that are in use, or have the users ask the node's first address.",
        command: "kubectl get node NODE -o jsonpath='{.status.addresses}'",
        run: other_addresses,
    },
    Check {
        id: "KPX-A614",
        area: Area::Node,
        severity: Severity::Warning,
        title: "Programs that listen on a NodePort",
        why: "kube-proxy holds no socket for a NodePort, so a program can take the port. Connections to it go to the Service; once the rules are \
              gone, or at sockets that are translated elsewhere, they go to the program.",
        remedy: "Move the program to a port outside of the NodePort range.",
        command: "ss -ltnp",
        run: shadowed_listeners,
    },
    Check {
        id: "KPX-A615",
        area: Area::Node,
        severity: Severity::Info,
        title: "Services with session affinity",
        why: "Who was sent where is remembered by the dataplane (xt_recent, affinity sets, IPVS templates) and is lost with it: at a change, a \
              client may be sent to another endpoint once.",
        remedy: "Tell the owners of these Services when the change is due.",
        command: "kubectl get services -A -o json | jq -r '.items[] | select(.spec.sessionAffinity==\"ClientIP\") | .metadata.name'",
        run: affinity,
    },
];

fn unpinned(facts: &Facts<'_>) -> Found {
    let setup = facts.setup()?;
    let pinned = |key: &str| {
        setup.sysctls.iter().rev().find_map(|line| {
            let (name, value) = line.text.trim_start_matches('-').split_once('=')?;
            (name.trim().replace('/', ".") == key).then(|| value.trim().to_owned())
        })
    };
    let mut found = Vec::new();
    // Buckets follow the limit: kube-proxy sets them by the module's parameter.
    let changed = facts.limits()?.changed();
    for Setting { name, now, default } in changed.into_iter().filter(|s| !s.name.ends_with("_buckets")) {
        let text = match pinned(&name) {
            Some(value) if value == now.to_string() => continue,
            Some(value) => format!("{now} now, {value} after a reboot"),
            // The kernel's own limit depends on its memory; kube-proxy says whether it sets one.
            None if default.is_none() && !sets_the_limit(facts) => continue,
            None => {
                let after = default.map_or("what the memory allows".to_owned(), |value| value.to_string());
                format!("{now} now; no file of sysctl.d sets it: {after} after a reboot")
            }
        };
        let command = format!("echo '{name} = {now}' >> /etc/sysctl.d/90-conntrack.conf");
        found.push(Evidence::new(name, text).command(command));
    }
    Ok(found)
}

/// Whether kube-proxy raises nf_conntrack_max; where its configuration is not known, it does so by default.
fn sets_the_limit(facts: &Facts<'_>) -> bool {
    facts.kube().map_or(true, |kube| {
        let conntrack = kube.config.conntrack.value;
        conntrack.max_per_core > 0
    })
}

fn localnet(facts: &Facts<'_>) -> Result<bool, Skip> {
    let value = facts.sysctls()?.get("net.ipv4.conf.all.route_localnet");
    value.map(|value| value != "0").ok_or_else(|| Skip("net.ipv4.conf.all.route_localnet is not known".to_owned()))
}

fn unguarded_loopback(facts: &Facts<'_>) -> Found {
    if !localnet(facts)? {
        return Ok(Vec::new());
    }
    let guarded =
        facts.iptables()?.tables().filter(|(tool, table)| !tool.starts_with("ip6") && table.name() == b"filter").any(
            |(_, table)| {
                let jumps = |chain: &[u8]| {
                    table
                        .chain(chain)
                        .is_some_and(|i| table.rules_of(i).any(|r| r.spec().target_name() == b"KUBE-FIREWALL"))
                };
                let guards = table.chain(b"KUBE-FIREWALL").is_some_and(|i| {
                    table.rules_of(i).any(|rule| {
                        let spec = rule.spec();
                        let loopback = spec.destination.is_some_and(|net| net.to_string() == "127.0.0.0/8");
                        loopback && spec.target_name() == b"DROP"
                    })
                });
                guards && jumps(b"INPUT")
            },
        );
    if guarded {
        return Ok(Vec::new());
    }
    let text = "1, and no KUBE-FIREWALL drops packets to 127.0.0.0/8 in INPUT";
    Ok(vec![Evidence::new("net.ipv4.conf.all.route_localnet", text)])
}

fn route_localnet(facts: &Facts<'_>) -> Found {
    Ok(if localnet(facts)? { vec![Evidence::new("net.ipv4.conf.all.route_localnet", "1")] } else { Vec::new() })
}

fn localhost_users(facts: &Facts<'_>) -> Found {
    const NAME: &str = "localhost_nps_accepted_pkts";
    let mut found = Vec::new();
    let nfacct = facts.text(Item::Nfacct);
    let packets = nfacct.as_ref().ok().and_then(|listed| super::counted(listed, NAME)).filter(|packets| *packets > 0);
    found.extend(packets.map(|n| Evidence::new(format!("nfacct {NAME}"), format!("{n} packets since boot"))));
    for ((port, protocol), by_address) in facts.flows().iter().flat_map(|flows| &flows.node_ports) {
        let count: u64 = by_address.iter().filter(|(ip, _)| ip.is_loopback()).map(|(_, count)| count).sum();
        let text = format!("{count} entries of connection tracking, asked for on an address of loopback");
        found.extend((count > 0).then(|| Evidence::new(format!("NodePort {port}/{protocol}"), text)));
    }
    let setup = facts.setup();
    if let (Ok(setup), Ok(programmed)) = (&setup, facts.programmed()) {
        for line in &setup.localhost_registries {
            let port = line.text.split(['"', '\'', '/', ' ', ',']).find_map(|word| {
                let port = word.strip_prefix("localhost:").or_else(|| word.strip_prefix("127.0.0.1:"))?;
                port.trim_end_matches(']').parse::<u16>().ok()
            });
            let node_port = |port: u16| {
                programmed.table.frontends().iter().any(|f| f.key.exposure == Exposure::NodePort && f.key.port == port)
            };
            if port.is_some_and(node_port) {
                found.push(Evidence::new(format!("{}:{}", line.file, line.line), &*line.text));
            }
        }
    }
    match (nfacct, setup) {
        (Err(skip), Err(_)) => Err(skip),
        _ => Ok(found),
    }
}

fn other_addresses(facts: &Facts<'_>) -> Found {
    let kube = facts.kube()?;
    let flows = facts.flows()?;
    let primary = kube.primary_addresses();
    if primary.is_empty() {
        return Err(Skip("the node's addresses are not among the API's objects".to_owned()));
    }
    if !kube.config.node_port_addresses.value.is_empty() {
        return Ok(Vec::new());
    }
    let all = flows
        .node_ports
        .iter()
        .flat_map(|(port, by_address)| by_address.iter().map(move |(ip, count)| (port, ip, count)));
    let others = all.filter(|(_, ip, _)| !ip.is_loopback() && !primary.contains(ip));
    Ok(others
        .map(|((port, protocol), ip, count)| {
            let at = format!("NodePort {}/{protocol}", std::net::SocketAddr::new(*ip, *port));
            Evidence::new(at, format!("{count} entries of connection tracking"))
        })
        .collect())
}

fn one_family(facts: &Facts<'_>) -> Found {
    let kube = facts.kube()?;
    let setting = &kube.config.node_port_addresses;
    let nets: Vec<_> = setting
        .value
        .iter()
        .filter_map(|address| match address {
            NodePortAddress::Net(net) => Some(*net),
            NodePortAddress::Primary => None,
        })
        .collect();
    if nets.is_empty() || nets.len() < setting.value.len() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for family in Family::BOTH {
        let named = nets.iter().any(|net| Family::of(net.addr()) == family);
        let served =
            |f: &crate::model::Frontend| f.key.exposure == Exposure::NodePort && Family::of(f.key.ip) == family;
        let ports = kube.table.frontends().iter().filter(|f| served(f)).count();
        if !named && ports > 0 {
            let text = format!("names no {family} network: {ports} NodePorts answer on every {family} address");
            found.push(Evidence::new(format!("nodePortAddresses ({})", setting.source), text));
        }
    }
    Ok(found)
}

fn shadowed_listeners(facts: &Facts<'_>) -> Found {
    let programmed = facts.programmed()?;
    let mut found = Vec::new();
    for listener in facts.listeners()? {
        let on = |f: &&crate::model::Frontend| {
            f.key.exposure == Exposure::NodePort
                && f.key.port == listener.port
                && f.key.protocol == crate::model::Protocol::Tcp
                && Family::of(f.key.ip) == Family::of(listener.ip)
        };
        let ours = listener.program.as_deref().is_some_and(is_kube_proxy);
        if let Some(frontend) = programmed.table.frontends().iter().find(on).filter(|_| !ours) {
            let program = listener.program.as_deref().unwrap_or("a program");
            let address = std::net::SocketAddr::new(listener.ip, listener.port);
            found.push(Evidence::new(
                address.to_string(),
                format!("{program} listens on the NodePort of {}", frontend.display_name()),
            ));
        }
    }
    Ok(found)
}

fn affinity(facts: &Facts<'_>) -> Found {
    let table = facts.programmed()?.table;
    let mut clients: BTreeMap<String, usize> = BTreeMap::new();
    if let Ok(recent) = facts.recent() {
        let owners = recent::owners(table);
        for (list, count) in recent.by_list() {
            if let Some((frontend, _)) = owners.get(list) {
                *clients.entry(frontend.display_name()).or_default() += count;
            }
        }
    }
    let sticky = table.frontends().iter().filter(|f| f.affinity.is_some() && f.key.exposure == Exposure::ClusterIp);
    Ok(sticky
        .map(|f| {
            let name = f.display_name();
            let remembered = clients.get(&name).map_or(String::new(), |n| format!(", clients remembered: {n}"));
            Evidence::new(name, format!("{} for {} s{remembered}", f.key, f.affinity.unwrap_or_default()))
        })
        .collect())
}
