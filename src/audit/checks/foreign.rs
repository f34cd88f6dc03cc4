//! What others have built on kube-proxy's chains, and what a text filter would take from them.

use super::super::check::{Area, Severity};
use super::{Check, Evidence, Facts, Found, Iptables, Skip, rule_at, tool};
use crate::capture::Variant;
use crate::inspect::iptables::{Notice, Owner, Parts, Rule, Table, owner};
use crate::model::Family;

pub(super) const CHECKS: [Check; 7] = [
    Check {
        id: "KPX-A101",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "Rules of others that depend on kube-proxy's chains",
        why: "A chain cannot be deleted while a rule refers to it. One such rule makes kube-proxy --cleanup fail for the whole table \
              after its jumps are gone, and takes hostPorts (CNI portmap, CRI-O) down when the chain does go.",
        remedy: "Before kube-proxy is removed, give the owner of each rule a mark of its own, or keep the chain it names. kpx keeps \
                 what is referred to.",
        command: "iptables-save | grep -n -- '-j KUBE-'",
        run: references,
    },
    Check {
        id: "KPX-A102",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "Rules that a text filter (grep -v KUBE) would wrongly delete",
        why: "iptables-save | grep -v KUBE | iptables-restore takes away every line that holds the word: rules of others that mention \
              it, and the kubelet's chains, without which packets to 127.0.0.0/8 may come in from outside. It also rewrites all tables \
              from an old copy, and what iptables-nft-save cannot show is lost.",
        remedy: "Do not filter by text. Remove kube-proxy's chains by their exact names, in one transaction for each table.",
        command: "kpx migrate plan",
        run: text_filter,
    },
    Check {
        id: "KPX-A103",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "Rules of others about a ClusterIP",
        why: "Who serves such an address cannot be told from kube-proxy's rules alone. Rules of NodeLocal DNS are of this kind. A dataplane \
              that translates at the socket goes past them.",
        remedy: "Find out who owns the rules and what they are for; for NodeLocal DNS, let pods ask its own address.",
        command: "kubectl get pods -A -o wide | grep -i nodelocaldns",
        run: cluster_ips,
    },
    Check {
        id: "KPX-A104",
        area: Area::Iptables,
        severity: Severity::Error,
        title: "Unconditional verdicts in front of kube-proxy's jumps",
        why: "A rule that accepts, drops or returns every packet before the jump to kube-proxy's chain takes that chain out of service.",
        remedy: "Move the rule behind kube-proxy's jumps, or give it a condition.",
        command: "iptables -t TABLE -D CHAIN NUMBER",
        run: shadows,
    },
    Check {
        id: "KPX-A105",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "Tables that iptables-save does not show in full",
        why: "A table that holds certain native nft rules is left out as incompatible, with all its rules. A table that is there twice was \
              edited by hand. iptables-restore of this text is no way back.",
        remedy: "Look at the table with nft, and move native rules into a table of their own.",
        command: "nft list ruleset",
        run: lossy,
    },
    Check {
        id: "KPX-A106",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "Native nft rules that iptables-save loses or cannot print",
        why: "iptables-nft-save passes over conditions that it does not know: a rule that drops what a set holds is printed as one that drops \
              everything, and whoever saves, edits and restores such a text drops or accepts more than before. At other native rules it stops, \
              and nobody can read the rest: kube-proxy neither.",
        remedy: "Move native rules into a table of their own before anybody restores a saved text.",
        command: "nft -a list chain ip TABLE CHAIN",
        run: native,
    },
    Check {
        id: "KPX-A107",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "Rules of others that ask conntrack how a packet was translated",
        why: "An eBPF dataplane translates without conntrack: to it the packets of Services are what they look like, of states DNAT and SNAT \
              none, and their original address is the translated one. A rule that accepts what was translated, as firewalld's does (ct status \
              dnat), accepts it no longer; one that drops it lets it through.",
        remedy: "Before the node is carried over, say in those rules what is meant: addresses of pods, ports of backends, devices. A rehearsal \
                 shows which of them Services' packets meet.",
        command: "kpx migrate rehearse --from SNAPSHOT",
        run: translations,
    },
];

fn references(facts: &Facts<'_>) -> Found {
    let mut found = Vec::new();
    for backend in &facts.iptables()?.backends {
        for notice in &backend.lifted.notices {
            if let Notice::ForeignReference { at, .. } = notice {
                found.push(rule_at(backend, at));
            }
        }
    }
    Ok(found)
}

/// Rules that are not kube-proxy's own but hold its word. Chains of the kubelet count as one piece of evidence each.
fn text_filter(facts: &Facts<'_>) -> Found {
    let mut found = Vec::new();
    for (tool, table) in facts.iptables()?.tables() {
        let name = String::from_utf8_lossy(table.name());
        for (i, chain) in table.chains().iter().enumerate() {
            let of = if chain.is_builtin() { Owner::Builtin } else { owner(chain.name) };
            let chain_name = String::from_utf8_lossy(chain.name);
            if of == Owner::Kubelet {
                let rules = table.rules_of(i).len();
                let at = format!("{tool} {name} {chain_name}");
                found.push(Evidence::new(at, format!("the kubelet's chain (rules inside: {rules})")));
                continue;
            }
            if of.is_kube_proxy() {
                continue;
            }
            let mentions = table.rules_of(i).enumerate().filter(|(_, rule)| mentions_wrongly(rule));
            found.extend(mentions.map(|(n, rule)| {
                Evidence::new(format!("{tool} {name} {chain_name} rule {}", n + 1), rule.to_string())
            }));
        }
    }
    Ok(found)
}

/// Whether a rule outside of kube-proxy's and the kubelet's chains holds the word without being a jump of theirs.
fn mentions_wrongly(rule: &Rule<'_>) -> bool {
    if memchr::memmem::find(rule.body(), b"KUBE").is_none() {
        return false;
    }
    let spec = rule.spec();
    let target = owner(spec.target_name());
    let plain = spec.parts.without(Parts::COMMENT.and(Parts::CTSTATE)) == Parts::TARGET;
    let jump = plain && (target.is_kube_proxy() || target == Owner::Kubelet);
    !(jump && spec.plain_comment().is_none_or(|comment| comment.starts_with("kube")))
}

fn cluster_ips(facts: &Facts<'_>) -> Found {
    let mut found = Vec::new();
    for backend in &facts.iptables()?.backends {
        for notice in &backend.lifted.notices {
            if let Notice::ForeignService { at, service, .. } = notice {
                let mut evidence = rule_at(backend, at);
                evidence.text = format!("about {service}: {}", evidence.text);
                found.push(evidence);
            }
        }
    }
    Ok(found)
}

fn shadows(facts: &Facts<'_>) -> Found {
    let iptables = facts.iptables()?;
    let (mut found, mut jumps) = (Vec::new(), false);
    for (tool, table) in iptables.tables() {
        for (i, chain) in table.chains().iter().enumerate().filter(|(_, chain)| chain.is_builtin()) {
            let Some(last) = last_jump(table, i) else { continue };
            jumps = true;
            found.extend(shadow(table, i, last).map(|(number, rule)| {
                let (table, chain) = (String::from_utf8_lossy(table.name()), String::from_utf8_lossy(chain.name));
                Evidence::new(format!("{tool} {table} {chain} rule {number}"), rule.to_string())
                    .command(format!("{tool} -t {table} -D {chain} {number}"))
            }));
        }
    }
    if jumps { Ok(found) } else { Err(Skip("there are no jumps to chains of kube-proxy in iptables".to_owned())) }
}

/// Number, from 0, of the last rule of a chain that jumps to one of kube-proxy's.
fn last_jump(table: &Table<'_>, chain: usize) -> Option<usize> {
    let jumps = |(_, rule): &(usize, &Rule<'_>)| owner(rule.spec().target_name()).is_kube_proxy();
    table.rules_of(chain).enumerate().filter(jumps).last().map(|(number, _)| number)
}

/// The first rule of a built-in chain that decides about every packet before the last jump of kube-proxy.
fn shadow<'t, 'a>(table: &'t Table<'a>, chain: usize, last: usize) -> Option<(usize, &'t Rule<'a>)> {
    let decides = |rule: &Rule<'_>| {
        let spec = rule.spec();
        let verdict = matches!(
            spec.target_name(),
            b"ACCEPT" | b"DROP" | b"RETURN" | b"REJECT" | b"DNAT" | b"REDIRECT" | b"MASQUERADE" | b"SNAT" | b"QUEUE"
        );
        verdict && spec.parts.without(Parts::COMMENT.and(Parts::OTHER)) == Parts::TARGET && !has_match(rule)
    };
    table.rules_of(chain).enumerate().take(last).find(|(_, rule)| decides(rule)).map(|(n, rule)| (n + 1, rule))
}

/// Whether a rule has a condition, be it one without a type here.
fn has_match(rule: &Rule<'_>) -> bool {
    let words: Vec<_> = rule.words().map(|word| word.text().into_owned()).collect();
    let before: Vec<_> = words.iter().take_while(|word| *word != "-j" && *word != "-g").collect();
    let mut rest = before.as_slice();
    loop {
        rest = match rest {
            [] => return false,
            [m, comment, option, _, after @ ..] if *m == "-m" && *comment == "comment" && *option == "--comment" => {
                after
            }
            _ => return true,
        };
    }
}

fn lossy(facts: &Facts<'_>) -> Found {
    let mut found = Vec::new();
    for backend in &facts.iptables()?.backends {
        for notice in backend.remarks.iter().chain(&backend.lifted.notices) {
            let (family, table) = match notice {
                Notice::Incompatible { family, table, .. } | Notice::RepeatedTable { family, table } => {
                    (*family, table)
                }
                _ => continue,
            };
            let word = if family == Family::V4 { "ip" } else { "ip6" };
            found.push(
                Evidence::new(format!("{} {table}", tool(family, backend.variant)), notice.to_string())
                    .command(format!("nft list table {word} {table}")),
            );
        }
    }
    Ok(found)
}

/// Rules of iptables-nft's tables that its own tool shows otherwise than nft.
fn native(facts: &Facts<'_>) -> Found {
    let listed = &facts.others()?.iptables;
    let iptables = match facts.iptables() {
        Ok(iptables) => iptables,
        Err(skip) => {
            let native = listed.iter().filter(|(_, listed)| listed.native > 0);
            let found: Vec<_> = native
                .map(|((family, name, chain), listed)| {
                    let word = if *family == Family::V4 { "ip" } else { "ip6" };
                    let text = format!("{} rules that iptables-nft did not write; {}", listed.native, skip.0);
                    Evidence::new(format!("{} {name} {chain}", tool(*family, Variant::Nft)), text)
                        .command(format!("nft -a list chain {word} {name} {chain}"))
                })
                .collect();
            return if found.is_empty() { Err(skip) } else { Ok(found) };
        }
    };
    let Some(backend) = iptables.backends.iter().find(|backend| backend.variant == Variant::Nft) else {
        return Err(Skip("there are no rules of iptables-nft".to_owned()));
    };
    let mut found = Vec::new();
    for ((family, name, chain), listed) in listed {
        let dump = backend.dumps[usize::from(*family == Family::V6)].as_ref();
        // A table that is not shown at all is another finding.
        let Some(table) = dump.and_then(|dump| dump.table(name)) else { continue };
        let printed: Vec<_> = table.chain(chain.as_bytes()).map(|i| table.rules_of(i).collect()).unwrap_or_default();
        let at = format!("{} {name} {chain}", tool(*family, backend.variant));
        let word = if *family == Family::V4 { "ip" } else { "ip6" };
        let command = || format!("nft -a list chain {word} {name} {chain}");
        // With a rule left out, numbers are not the same.
        if listed.rules > printed.len() {
            let text = format!("nft lists {} rules, iptables-nft-save prints {}", listed.rules, printed.len());
            found.push(Evidence::new(at, text).command(command()));
            continue;
        }
        found.extend(listed.losing.iter().filter_map(|(number, loss)| {
            let rule = printed.get(number.checked_sub(1)?)?;
            let text = format!("{rule} (in nft it asks {loss}, too)");
            Some(Evidence::new(format!("{at} rule {number}"), text).command(command()))
        }));
    }
    Ok(found)
}

fn translations(facts: &Facts<'_>) -> Found {
    let mut found = Vec::new();
    match facts.other_tables() {
        Ok(tables) => {
            for table in tables {
                let at = |chain: &str| format!("nftables {} {} {chain}", table.family, table.name);
                found.extend(table.ask_translation.iter().map(|(chain, handle)| {
                    Evidence::new(at(chain), format!("rule with handle {handle}"))
                        .command(format!("nft -a list chain {} {} {chain}", table.family, table.name))
                }));
            }
        }
        // What iptables has is worth telling by itself.
        Err(skip) => drop(facts.iptables().map_err(|_| skip)?),
    }
    let Ok(iptables) = facts.iptables() else { return Ok(found) };
    for (tool, table) in iptables.tables() {
        let name = String::from_utf8_lossy(table.name());
        for (i, chain) in table.chains().iter().enumerate() {
            // The kubelet's rule is about packets to 127.0.0.0/8, which eBPF sends nowhere else.
            if owner(chain.name).is_kube_proxy() || owner(chain.name) == Owner::Kubelet {
                continue;
            }
            let chain = String::from_utf8_lossy(chain.name);
            let asks = table.rules_of(i).enumerate().filter(|(_, rule)| rule.asks_translation());
            found.extend(
                asks.map(|(n, rule)| Evidence::new(format!("{tool} {name} {chain} rule {}", n + 1), rule.to_string())),
            );
        }
    }
    Ok(found)
}

/// The rules of a backend that kube-proxy's notices of one kind are about.
pub(super) fn noticed(iptables: &Iptables<'_>, wanted: fn(&Notice) -> bool) -> Vec<Evidence> {
    let Some(backend) = iptables.kube_proxys() else { return Vec::new() };
    let notices = backend.lifted.notices.iter().filter(|notice| wanted(notice));
    notices
        .map(|notice| match notice.origin() {
            Some(at) => {
                let rule = rule_at(backend, at);
                Evidence::new(rule.at, format!("{} ({})", rule.text, what(notice)))
            }
            None => Evidence::new(tool_of(notice, backend.variant), what(notice)),
        })
        .collect()
}

/// The notice without its place in front.
fn what(notice: &Notice) -> String {
    let text = notice.to_string();
    match notice.origin() {
        Some(at) => {
            let own = text.strip_prefix(&format!("{at}: ")).unwrap_or(&text).to_owned();
            // The rule's text stands in the evidence already.
            own.split_once(": -").map_or(own.clone(), |(start, _)| start.to_owned())
        }
        None => text.split_once(": ").map_or(text.clone(), |(_, rest)| rest.to_owned()),
    }
}

fn tool_of(notice: &Notice, variant: Variant) -> String {
    match notice {
        Notice::IncompleteChain { chain, .. }
        | Notice::OddProbabilities { chain }
        | Notice::MissingJump { from: chain, .. } => {
            format!("{} {} {}", tool(chain.family, variant), chain.table, chain.chain)
        }
        Notice::InertDropMark { family } | Notice::MissingCanary { family } => tool(*family, variant).to_owned(),
        _ => format!("iptables-{variant}"),
    }
}
