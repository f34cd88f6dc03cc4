//! Who else filters on this node, and what of it collides with kube-proxy or with its going.

use std::collections::BTreeMap;

use super::super::check::{Area, Severity};
use super::{Check, Evidence, Facts, Found, Skip, tool};
use crate::capture::Variant;
use crate::inspect::iptables::{Action, Backend, ChainPolicy, Dump, Owner, Parts, Remark, Rule, Table, owner};
use crate::inspect::recent;
use crate::model::Family;

pub(super) const CHECKS: [Check; 12] = [
    Check {
        id: "KPX-A130",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "FORWARD that drops what kube-proxy's rules do not accept",
        why: "kube-proxy's KUBE-FORWARD accepts marked and established packets. Where the chain drops the rest, NodePort connections and the \
              replies of long-lived flows stop when KUBE-FORWARD goes. An accept in another nft table does not help: each base chain judges on \
              its own.",
        remedy: "Before KUBE-FORWARD is removed, put an accept for established packets into the very chain that drops.",
        command: "iptables -I FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        run: forward_drops,
    },
    Check {
        id: "KPX-A131",
        area: Area::Iptables,
        severity: Severity::Error,
        title: "A KUBE-FIREWALL that drops every packet",
        why: "iptables 1.8.7 and 1.8.8 read each other's mark matches wrongly: when kubelet and kube-proxy (or the host) bring different \
              versions, a rewrite loses the match and the drop rule takes all traffic of the node.",
        remedy: "Delete the rule, and bring the iptables of the host and of the images to 1.8.9 or later.",
        command: "iptables -D KUBE-FIREWALL NUMBER",
        run: firewall_without_match,
    },
    Check {
        id: "KPX-A132",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "Rules that stand twice in KUBE-FIREWALL",
        why: "kubelet and kube-proxy look for the rule before they add it. That it is there twice means that one of them reads the other's rules \
              wrongly, as iptables tools of different versions do.",
        remedy: "Bring the iptables of the host and of the images to one version, then delete the copies.",
        command: "iptables -S KUBE-FIREWALL",
        run: firewall_twice,
    },
    Check {
        id: "KPX-A133",
        area: Area::Iptables,
        severity: Severity::Info,
        title: "No hint of the kubelet about the iptables backend",
        why: "Images choose between iptables-legacy and iptables-nft by the kubelet's KUBE-IPTABLES-HINT or KUBE-KUBELET-CANARY. Without either \
              they fall back to a guess, and may write into the other backend than the host's tools show.",
        remedy: "Leave makeIPTablesUtilChains of the kubelet on, or pin the backend in the images.",
        command: "iptables -t mangle -S KUBE-IPTABLES-HINT",
        run: no_hint,
    },
    Check {
        id: "KPX-A134",
        area: Area::Iptables,
        severity: Severity::Info,
        title: "Other programs with iptables rules on this node",
        why: "Their rules stay when kube-proxy goes. It is good to know who they are before anything is changed: a CNI's policies, hostPorts, \
              container engines and firewalls each have their own way of putting rules back.",
        remedy: "Nothing needs to be done; see the other findings for those that collide.",
        command: "iptables-save",
        run: neighbours,
    },
    Check {
        id: "KPX-A135",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "Rules of others with kube-proxy's packet mark",
        why: "kube-proxy marks packets that it wants masqueraded with one bit (masqueradeBit, 0x4000 by default). Who else sets, clears or \
              tests that bit makes packets masquerade that should not, or loses the mark. Cilium beside ipvs mode fails so for pod to NodePort.",
        remedy: "Give one of the two another bit: iptables.masqueradeBit of kube-proxy, or the other program's mark.",
        command: "kubectl -n kube-system edit configmap kube-proxy",
        run: mark_collisions,
    },
    Check {
        id: "KPX-A136",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "A firewall that flushes all rules when it is reloaded",
        why: "After a reload of firewalld kube-proxy puts its own rules back within seconds, thanks to its canary, but hostPorts of the CNI stay \
              away. What replaces kube-proxy may have no canary.",
        remedy: "Do not reload it during a change, and restart the CNI's pods after a reload.",
        command: "systemctl is-active firewalld ufw",
        run: flushing_firewalls,
    },
    Check {
        id: "KPX-A137",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "iptables tools of a version that others misread",
        why: "iptables-nft 1.8.8 stores rules in a form that 1.8.7 and older read with matches lost; a rewrite by the older tool can then drop all \
              traffic of the node. Releases of kube-proxy and CNI images carry either.",
        remedy: "Install iptables 1.8.9 or later on the host.",
        command: "iptables --version",
        run: misread_version,
    },
    Check {
        id: "KPX-A138",
        area: Area::Iptables,
        severity: Severity::Info,
        title: "Tables of iptables-legacy beside those of iptables-nft",
        why: "The hooks of both run for every packet. Tables of iptables-legacy appear as soon as somebody runs that tool, and its rules are not \
              shown by the other: whoever looks for a packet's fate in one of them sees half of it.",
        remedy: "Find out which program still uses iptables-legacy. Its tables go with their modules, at the next boot at the latest.",
        command: "iptables-legacy-save; ip6tables-legacy-save",
        run: legacy_beside_nft,
    },
    Check {
        id: "KPX-A139",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "kube-proxy in another iptables backend than the kubelet",
        why: "Images choose their backend by the kubelet's hint. kube-proxy's rules are in the other one: it came to another result, as old \
              images do, and the next restart may change it, which leaves frozen rules behind.",
        remedy: "Bring kube-proxy's image to the kubelet's version, and clean the backend that it leaves.",
        command: "kubectl -n kube-system get daemonset kube-proxy -o wide",
        run: other_than_hinted,
    },
    Check {
        id: "KPX-A140",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "iptables-legacy's lock is held, or cannot be taken",
        why: "Whoever changes rules of iptables-legacy locks /run/xtables.lock, and kube-proxy gives up after five seconds. A program that \
              holds it for long stops all others; a folder in its place lets nobody lock at all.",
        remedy: "Look again; where the same process is still there, find out what it waits for. Remove a folder while nobody changes rules.",
        command: "fuser -v /run/xtables.lock",
        run: lock,
    },
    Check {
        id: "KPX-A141",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "Session affinity that forgets clients",
        why: "xt_recent keeps so many clients for each endpoint (ip_list_tot, 100 by default); with one more it forgets the oldest, whatever \
              the Service's timeout. Such a client may be sent to another endpoint.",
        remedy: "Load the module with a larger ip_list_tot, or move to a dataplane whose memory is not bounded so.",
        command: "echo 'options xt_recent ip_list_tot=NUMBER' > /etc/modprobe.d/xt_recent.conf",
        run: forgetful,
    },
];

fn name(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The filter tables, with their tools.
fn filters<'f>(facts: &'f Facts<'_>) -> Result<impl Iterator<Item = (&'static str, &'f Table<'f>)>, Skip> {
    Ok(facts.iptables()?.tables().filter(|(_, table)| table.name() == b"filter"))
}

fn forward_drops(facts: &Facts<'_>) -> Found {
    let mut found = Vec::new();
    for (tool, table) in filters(facts)? {
        let Some(forward) = table.chain(b"FORWARD") else { continue };
        let jumps = table.rules_of(forward).any(|rule| rule.spec().target_name() == b"KUBE-FORWARD");
        if !jumps {
            continue;
        }
        let accept = format!("{tool} -I FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
        if table.chains()[forward].policy == ChainPolicy::Drop {
            found.push(Evidence::new(format!("{tool} filter FORWARD"), "policy DROP").command(accept.clone()));
        }
        let last = table.rules_of(forward).enumerate().last();
        if let Some((n, rule)) = last
            && matches!(rule.spec().target_name(), b"DROP" | b"REJECT")
            && rule.spec().parts.without(Parts::COMMENT) == Parts::TARGET
        {
            let at = format!("{tool} filter FORWARD rule {}", n + 1);
            found.push(Evidence::new(at, rule.to_string()).command(accept));
        }
    }
    Ok(found)
}

fn firewall_without_match(facts: &Facts<'_>) -> Found {
    let mut found = Vec::new();
    for (tool, table) in filters(facts)? {
        let Some(chain) = table.chain(b"KUBE-FIREWALL") else { continue };
        for (n, rule) in table.rules_of(chain).enumerate() {
            let spec = rule.spec();
            if spec.target_name() == b"DROP" && spec.parts.without(Parts::COMMENT) == Parts::TARGET {
                found.push(
                    Evidence::new(format!("{tool} filter KUBE-FIREWALL rule {}", n + 1), rule.to_string())
                        .command(format!("{tool} -D KUBE-FIREWALL {}", n + 1)),
                );
            }
        }
    }
    Ok(found)
}

fn firewall_twice(facts: &Facts<'_>) -> Found {
    let mut found = Vec::new();
    for (tool, table) in filters(facts)? {
        let Some(chain) = table.chain(b"KUBE-FIREWALL") else { continue };
        let rules: Vec<_> = table.rules_of(chain).collect();
        for (n, rule) in rules.iter().enumerate() {
            if rules[..n].iter().any(|earlier| earlier.body() == rule.body()) {
                found.push(Evidence::new(format!("{tool} filter KUBE-FIREWALL rule {}", n + 1), rule.to_string()));
            }
        }
    }
    Ok(found)
}

fn no_hint(facts: &Facts<'_>) -> Found {
    let iptables = facts.iptables()?;
    if iptables.backends.iter().any(|backend| backend.hinted) {
        return Ok(Vec::new());
    }
    Ok(vec![Evidence::new("mangle", "neither KUBE-IPTABLES-HINT nor KUBE-KUBELET-CANARY is in any mangle table")])
}

/// Programs by the starts of their chains' names.
const NEIGHBOURS: [(&str, &[&str]); 17] = [
    ("Antrea", &["ANTREA-"]),
    ("Calico", &["cali-"]),
    ("Cilium", &["CILIUM_", "OLD_CILIUM_"]),
    ("CNI portmap (hostPorts)", &["CNI-HOSTPORT-", "CNI-DN-", "CNI-SN-"]),
    ("CNI bridge masquerade", &["CNI-"]),
    ("CRI-O or kubenet (hostPorts)", &["KUBE-HOSTPORTS", "KUBE-HP-", "CRIO-HOSTPORTS", "CRIO-MASQ-"]),
    ("Docker", &["DOCKER"]),
    ("fail2ban", &["f2b-"]),
    ("firewalld", &["FWDI_", "FWDO_", "IN_public", "INPUT_ZONES", "INPUT_direct", "PRE_public"]),
    ("flannel", &["FLANNEL-"]),
    ("Istio", &["ISTIO_"]),
    ("kube-router", &["KUBE-ROUTER-", "KUBE-NWPLCY-", "KUBE-POD-FW-"]),
    ("libvirt", &["LIBVIRT_"]),
    ("Podman (netavark)", &["NETAVARK"]),
    ("Tailscale", &["ts-"]),
    ("ufw", &["ufw-", "ufw6-"]),
    ("Weave", &["WEAVE"]),
];

/// Programs by the starts of their nftables tables' names.
const NFT_NEIGHBOURS: [(&str, &[&str]); 11] = [
    ("Calico", &["calico"]),
    ("CNI portmap (hostPorts)", &["cni_hostport"]),
    ("CNI bridge masquerade", &["cni_plugins_masquerade"]),
    ("Docker", &["docker-bridges"]),
    ("fail2ban", &["f2b-"]),
    ("firewalld", &["firewalld"]),
    ("flannel", &["flannel"]),
    ("kube-router", &["kube-router"]),
    ("libvirt", &["libvirt_network"]),
    ("kindnet", &["kindnet", "kube-network-policies"]),
    ("Podman (netavark)", &["netavark"]),
];

/// Whose chain this is, as far as its name tells.
fn program(chain: &str) -> Option<&'static str> {
    let of = |(program, starts): &(&'static str, &[&str])| {
        starts.iter().any(|start| chain.starts_with(start)).then_some(*program)
    };
    NEIGHBOURS.iter().find_map(of)
}

/// By program and tool: how many chains, and the first of them.
type Programs = BTreeMap<(&'static str, &'static str), (usize, String)>;

/// Programs with chains here.
fn programs(facts: &Facts<'_>) -> Result<Programs, Skip> {
    let mut found = Programs::new();
    for (tool, table) in facts.iptables()?.tables() {
        for chain in table.chains().iter().filter(|chain| !chain.is_builtin()) {
            let chain = name(chain.name);
            if let Some(program) = program(&chain) {
                let first = || (0, format!("{} {chain}", name(table.name())));
                found.entry((program, tool)).or_insert_with(first).0 += 1;
            }
        }
    }
    for table in facts.other_tables().unwrap_or_default() {
        let starts = |(_, names): &&(&str, &[&str])| names.iter().any(|name| table.name.starts_with(name));
        if let Some((program, _)) = NFT_NEIGHBOURS.iter().find(starts) {
            let first = (table.hooks.len(), format!("{} {}", table.family, table.name));
            found.insert((program, "nft"), first);
        }
    }
    Ok(found)
}

fn neighbours(facts: &Facts<'_>) -> Found {
    let evidence = |((program, tool), (chains, first))| {
        Evidence::new(format!("{tool} {first}"), format!("{program}: {chains} chains"))
    };
    Ok(programs(facts)?.into_iter().map(evidence).collect())
}

fn flushing_firewalls(facts: &Facts<'_>) -> Found {
    let flushes = |program: &str| matches!(program, "firewalld" | "ufw");
    let evidence = |((program, tool), (_, first)): ((&'static str, &'static str), (usize, String))| {
        Evidence::new(format!("{tool} {first}"), format!("{program} is active"))
            .command(format!("systemctl status {program}"))
    };
    Ok(programs(facts)?.into_iter().filter(|((program, _), _)| flushes(program)).map(evidence).collect())
}

fn mark_collisions(facts: &Facts<'_>) -> Found {
    let iptables = facts.iptables()?;
    let marks = iptables.backends.iter().flat_map(|b| &b.lifted.families).filter_map(|f| f.masquerade_mark);
    // In IPVS mode this chain is all that is left of it in iptables.
    let chains = iptables.tables().filter_map(|(_, table)| {
        let mark = |rule: &Rule<'_>| match rule.spec().target?.action {
            Action::Mark { value, .. } => Some(value),
            _ => None,
        };
        table.rules_of(table.chain(b"KUBE-MARK-MASQ")?).find_map(mark)
    });
    let nft = facts.nftables().ok().into_iter().flat_map(|state| state.masquerade_marks.into_iter().flatten());
    let mark = marks.chain(chains).chain(nft).fold(0, |all, mark| all | mark);
    if mark == 0 {
        return Err(Skip("there are no rules of kube-proxy that mark packets".to_owned()));
    }
    let mut found = Vec::new();
    for (tool, table) in iptables.tables() {
        for (i, chain) in table.chains().iter().enumerate() {
            let of = if chain.is_builtin() { Owner::Builtin } else { owner(chain.name) };
            if of.is_kube_proxy() || of == Owner::Kubelet {
                continue;
            }
            for (n, rule) in table.rules_of(i).enumerate() {
                let spec = rule.spec();
                let set = match spec.target.map(|target| target.action) {
                    // `--set-xmark VALUE/MASK` clears the mask's bits and flips the value's.
                    Some(Action::Mark { value, mask }) => value | mask,
                    _ => 0,
                };
                if (set | spec.mark.map_or(0, |(_, mask)| mask)) & mark != 0 {
                    let at = format!("{tool} {} {} rule {}", name(table.name()), name(chain.name), n + 1);
                    found.push(Evidence::new(at, rule.to_string()));
                }
            }
        }
    }
    Ok(found)
}

fn misread_version(facts: &Facts<'_>) -> Found {
    let mut found = Vec::new();
    for backend in &facts.iptables()?.backends {
        for (family, dump) in Family::BOTH.into_iter().zip(&backend.dumps) {
            let generated = dump.iter().flat_map(Dump::remarks).find_map(|remark| match remark {
                Remark::Generated(by) if by.contains(" v1.8.8 ") => Some(by.to_owned()),
                _ => None,
            });
            found.extend(generated.map(|by| Evidence::new(tool(family, backend.variant), by)));
        }
    }
    Ok(found)
}

fn legacy_beside_nft(facts: &Facts<'_>) -> Found {
    let backends = &facts.iptables()?.backends;
    let in_use = |backend: &&Backend<'_>| backend.dumps.iter().flatten().any(|dump| !dump.tables().is_empty());
    let of = |variant| backends.iter().filter(in_use).find(|backend| backend.variant == variant);
    let (Some(legacy), Some(_)) = (of(Variant::Legacy), of(Variant::Nft)) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (family, dump) in Family::BOTH.into_iter().zip(&legacy.dumps) {
        for table in dump.iter().flat_map(Dump::tables) {
            let at = format!("{} {}", tool(family, Variant::Legacy), name(table.name()));
            found.push(Evidence::new(at, format!("rules inside: {}", table.rules().len())));
        }
    }
    Ok(found)
}

fn other_than_hinted(facts: &Facts<'_>) -> Found {
    let iptables = facts.iptables()?;
    let (Some(ours), Some(other)) = (iptables.kube_proxys(), iptables.other()) else { return Ok(Vec::new()) };
    if ours.hinted || !other.hinted {
        return Ok(Vec::new());
    }
    let text = format!("kube-proxy's rules; the kubelet's hint is in iptables-{}", other.variant);
    Ok(vec![Evidence::new(format!("iptables-{}", ours.variant), text)])
}

fn lock(facts: &Facts<'_>) -> Found {
    let lock = facts.lock()?;
    let mut found = Vec::new();
    if lock.is_folder {
        found.push(Evidence::new("/run/xtables.lock", "a folder, not a file: nobody can lock it"));
    }
    found.extend(lock.holders.iter().map(|holder| {
        let program = holder.program.as_deref().unwrap_or("a program");
        let does = if holder.waits { "waits for it" } else { "holds it" };
        Evidence::new("/run/xtables.lock", format!("{program} (process {}) {does}", holder.pid))
    }));
    Ok(found)
}

fn forgetful(facts: &Facts<'_>) -> Found {
    let recent = facts.recent()?;
    let Some(limit) = recent.limit else { return Ok(Vec::new()) };
    let programmed = facts.programmed().ok();
    let owners = programmed.map(|programmed| recent::owners(programmed.table)).unwrap_or_default();
    let full = recent.by_list().into_iter().filter(|(_, clients)| *clients >= limit);
    Ok(full
        .map(|(list, clients)| {
            let of = owners.get(list).map(|(f, backend)| format!(" of {} at {backend}", f.display_name()));
            Evidence::new(
                format!("xt_recent {list}"),
                format!("{clients} clients{}, no room for more", of.unwrap_or_default()),
            )
        })
        .collect())
}
