//! kube-proxy's nftables tables: what is not as kube-proxy writes it, and what is left over.

use super::super::check::{Area, Severity};
use super::{Check, Evidence, Facts, Found, Skip};
use crate::inspect::iptables::ChainPolicy;
use crate::inspect::kube::ProxyMode;
use crate::inspect::nftables::{Notice, without_hairpin};
use crate::model::{Family, KubeVersion};

/// kube-proxy in nftables mode has no canary: only a restart makes it write everything anew at once.
const REBUILD: &str = "kubectl -n kube-system delete pod -l k8s-app=kube-proxy --field-selector spec.nodeName=NODE";

pub(super) const CHECKS: [Check; 14] = [
    Check {
        id: "KPX-A201",
        area: Area::Nftables,
        severity: Severity::Error,
        title: "Unknown rules, elements or objects in kube-proxy's tables",
        why: "kube-proxy takes the table for its own alone and does not look for what others put there. What such a rule does to a Service's \
              packets is somebody's doing, and it stays until the table is written anew.",
        remedy: "Find out who wrote it. Where nobody needs it, restart kube-proxy on the node.",
        command: REBUILD,
        run: |facts| {
            let unknown = |n: &Notice| {
                matches!(n, Notice::UnknownRule { .. } | Notice::UnknownElement { .. } | Notice::UnknownObject { .. })
            };
            noticed(facts, unknown)
        },
    },
    Check {
        id: "KPX-A202",
        area: Area::Nftables,
        severity: Severity::Error,
        title: "Chains, sets or rules that kube-proxy's tables lack",
        why: "Packets that the missing part should translate, mark or refuse go on as they are. kube-proxy does not watch its tables: it notices \
              when a later change fails, or at its hourly full sync.",
        remedy: "Restart kube-proxy on the node, so that it writes its tables anew.",
        command: REBUILD,
        run: |facts| noticed(facts, |n| matches!(n, Notice::IncompleteChain { .. } | Notice::Missing { .. })),
    },
    Check {
        id: "KPX-A203",
        area: Area::Nftables,
        severity: Severity::Error,
        title: "Rules in another order, or chains at another hook, than kube-proxy's",
        why: "The order of rules and the priority of a chain decide who sees a packet first. kube-proxy gives both; another order means that the \
              table was edited or restored by hand.",
        remedy: "Restart kube-proxy on the node, so that it writes its tables anew.",
        command: REBUILD,
        run: |facts| noticed(facts, |n| matches!(n, Notice::Misordered { .. } | Notice::UnusualHook { .. })),
    },
    Check {
        id: "KPX-A204",
        area: Area::Nftables,
        severity: Severity::Warning,
        title: "Chains and sets of kube-proxy's tables that no packet reaches",
        why: "kube-proxy empties a chain first and deletes it a second later or more, so a few of them are normal for a moment. Those that stay \
              were left by something that went wrong.",
        remedy: "Look again in a minute. What stays goes when kube-proxy writes its tables anew.",
        command: REBUILD,
        run: |facts| noticed(facts, |n| matches!(n, Notice::Stale { size: 1.., .. })),
    },
    Check {
        id: "KPX-A205",
        area: Area::Nftables,
        severity: Severity::Error,
        title: "Names in kube-proxy's tables that are not those of their Service port",
        why: "A chain's name tells the Service port that it serves, with a hash. A name that does not fit was written by somebody else, and a \
              chain under a wrong name sends connections to the wrong pods.",
        remedy: "Restart kube-proxy on the node, so that it writes its tables anew.",
        command: REBUILD,
        run: |facts| noticed(facts, |n| matches!(n, Notice::BadName { .. })),
    },
    Check {
        id: "KPX-A206",
        area: Area::Nftables,
        severity: Severity::Error,
        title: "Random numbers that choose no endpoint",
        why: "The rule draws a number and looks it up. Where the map lacks one of the numbers, that share of the connections goes on untranslated \
              and is lost.",
        remedy: "Restart kube-proxy on the node, so that it writes its tables anew.",
        command: REBUILD,
        run: |facts| noticed(facts, |n| matches!(n, Notice::OddBalance { .. })),
    },
    Check {
        id: "KPX-A207",
        area: Area::Nftables,
        severity: Severity::Error,
        title: "Rules of kube-proxy's tables that disagree on how pods are recognised",
        why: "kube-proxy recognises pods in one way. Where rules disagree, some Services masquerade pods' connections and some do not.",
        remedy: "Restart kube-proxy, so that it writes all rules with its present configuration.",
        command: REBUILD,
        run: |facts| noticed(facts, |n| matches!(n, Notice::MixedDetectors { .. })),
    },
    Check {
        id: "KPX-A208",
        area: Area::Nftables,
        severity: Severity::Error,
        title: "Refusals of Services that have endpoints, or none where there are none",
        why: "An element rejects or drops what the chains have endpoints for, or a Service without endpoints is refused by nothing: its \
              packets leave the node untranslated and time out instead of being refused.",
        remedy: "Restart kube-proxy on the node, so that it writes its tables anew.",
        command: REBUILD,
        run: |facts| noticed(facts, |n| matches!(n, Notice::Contradiction { .. } | Notice::Unanswered { .. })),
    },
    Check {
        id: "KPX-A209",
        area: Area::Nftables,
        severity: Severity::Warning,
        title: "Pods that get no answer when they reach themselves through their Service",
        why: "Such a connection must be masqueraded, or the pod sees its own address as the peer and drops the packets. kube-proxy does so by a \
              set of this node's endpoints, and this one is not in it.",
        remedy: "Restart kube-proxy on the node, so that it writes its tables anew.",
        command: REBUILD,
        run: no_hairpin,
    },
    Check {
        id: "KPX-A210",
        area: Area::Nftables,
        severity: Severity::Info,
        title: "Services that this node cannot reach though others have endpoints",
        why: "kube-proxy in nftables mode before 1.35 drops the node's own connections to an externalTrafficPolicy Local frontend without local \
              endpoints before it would send them elsewhere. iptables mode and later versions answer them.",
        remedy: "Expect the node's own connections to these frontends to work after a migration, and not before.",
        command: "kpx diff api nftables",
        run: |facts| noticed(facts, |n| matches!(n, Notice::NodeTrafficRefused { .. })),
    },
    Check {
        id: "KPX-A211",
        area: Area::Nftables,
        severity: Severity::Error,
        title: "nftables tables of kube-proxy although it runs in another mode",
        why: "The table still translates, with the endpoints of then. kube-proxy in iptables or ipvs mode removes it when it starts, so that it \
              is there means that the clean-up failed or that a second kube-proxy ran.",
        remedy: "Delete the tables; the mode in use does without them.",
        command: "nft delete table ip kube-proxy\nnft delete table ip6 kube-proxy",
        run: other_mode,
    },
    Check {
        id: "KPX-A212",
        area: Area::Nftables,
        severity: Severity::Warning,
        title: "An nft on the host that kube-proxy's own nft may not understand",
        why: "nft 1.1.3 and later store rules in a form that older nft, as in kube-proxy's images before 1.37, misread or crash on when they list \
              the ruleset: kube-proxy in nftables mode then fails to start.",
        remedy: "Keep the host's nft at the version of kube-proxy's image, or take a newer kube-proxy.",
        command: "nft --version",
        run: newer_nft,
    },
    Check {
        id: "KPX-A213",
        area: Area::Nftables,
        severity: Severity::Info,
        title: "Firewalls that must let Services' traffic in by themselves",
        why: "kube-proxy in nftables mode accepts nothing: an accept ends one table only. Where another chain drops what it does not know, NodePorts \
              and forwarded connections need a rule of that firewall's own.",
        remedy: "Allow the NodePort range and the pods' networks in that firewall.",
        command: "nft list chains",
        run: dropping_firewalls,
    },
    Check {
        id: "KPX-A214",
        area: Area::Nftables,
        severity: Severity::Error,
        title: "A kernel without what nftables mode writes",
        why: "kube-proxy's first transaction in nftables mode uses expressions (fib, numgen, reject, masquerade) that a kernel may be built without. \
              The kernel then refuses all of it, kube-proxy ends at each start, and no Service of the node is kept.",
        remedy: "Take a kernel with these options, or leave kube-proxy in iptables mode.",
        command: "zgrep -E 'CONFIG_(NF_TABLES|NFT_)' /proc/config.gz /boot/config-$(uname -r)",
        run: nftables_options,
    },
];

fn noticed(facts: &Facts<'_>, wanted: fn(&Notice) -> bool) -> Found {
    let state = facts.nft_tables()?;
    Ok(state.notices.iter().filter(|notice| wanted(notice)).map(evidence).collect())
}

fn evidence(notice: &Notice) -> Evidence {
    let text = notice.to_string();
    // Most begin with their place.
    match text.split_once(": ") {
        Some((at, what)) => Evidence::new(at, what),
        None => Evidence::new("nft kube-proxy", text),
    }
}

/// Endpoints in Local lists are told by the tables; where the others run, only the API knows.
fn no_hairpin(facts: &Facts<'_>) -> Found {
    let mut found = noticed(facts, |n| matches!(n, Notice::NoHairpin { .. }))?;
    if let Ok(kube) = facts.kube() {
        found.extend(without_hairpin(&facts.nft_tables()?.table, &kube.table).iter().map(evidence));
    }
    Ok(found)
}

fn other_mode(facts: &Facts<'_>) -> Found {
    let state = facts.nftables()?;
    if state.ruleset.is_empty() {
        return Ok(Vec::new());
    }
    let mode = facts.mode()?;
    if mode == "nftables" {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (family, word) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
        if let Some(table) = state.ruleset.table(family) {
            if mode.is_empty() {
                return Err(Skip("kube-proxy does not say its mode".to_owned()));
            }
            let text = format!("{} chains, while kube-proxy runs in {mode} mode", table.chains.len());
            found.push(
                Evidence::new(format!("nft {word} kube-proxy"), text)
                    .command(format!("nft delete table {word} kube-proxy")),
            );
        }
    }
    Ok(found)
}

fn newer_nft(facts: &Facts<'_>) -> Found {
    facts.nft_tables()?;
    let Some(version) = &facts.others()?.version else { return Err(Skip("nft did not tell its version".to_owned())) };
    let proxy = facts.kube()?.config.version.value;
    let numbers: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
    let misread = numbers.as_slice() >= &[1, 1, 3][..] && proxy.is_none_or(|proxy| proxy < KubeVersion::v1(37));
    Ok(if misread { vec![Evidence::new("nft", format!("version {version}"))] } else { Vec::new() })
}

fn dropping_firewalls(facts: &Facts<'_>) -> Found {
    facts.nft_tables()?;
    let mut found = Vec::new();
    for table in facts.other_tables()? {
        for (chain, hook) in &table.hooks {
            if !hook.accepts && matches!(&*hook.hook, "input" | "forward") {
                let at = format!("nft {} {} {chain}", table.family, table.name);
                found.push(Evidence::new(at, format!("policy drop at {} {}", hook.hook, hook.priority)));
            }
        }
    }
    if let Ok(iptables) = facts.iptables() {
        for (tool, table) in iptables.tables().filter(|(_, table)| table.name() == b"filter") {
            for chain in table.chains().iter().filter(|c| c.policy == ChainPolicy::Drop && c.name != b"OUTPUT") {
                let at = format!("{tool} filter {}", String::from_utf8_lossy(chain.name));
                found.push(Evidence::new(at, "policy DROP"));
            }
        }
    }
    Ok(found)
}

/// The options behind the expressions of kube-proxy's tables (its documentation of the mode; net/netfilter/Kconfig), those of
/// IPv6 where the kernel has IPv6.
fn nftables_options(facts: &Facts<'_>) -> Found {
    const BOTH: [&str; 9] = [
        "NF_TABLES",
        "NF_TABLES_IPV4",
        "NFT_CT",
        "NFT_FIB",
        "NFT_FIB_IPV4",
        "NFT_MASQ",
        "NFT_NAT",
        "NFT_NUMGEN",
        "NFT_REJECT",
    ];
    const V6: [&str; 2] = ["NF_TABLES_IPV6", "NFT_FIB_IPV6"];
    let mode = &facts.kube()?.config.mode;
    if mode.value != ProxyMode::Nftables {
        return Ok(Vec::new());
    }
    let config = facts.kernel_config()?;
    let wanted = BOTH.iter().chain(V6.iter().filter(|_| config.option("IPV6").is_some()));
    let missing = wanted.filter(|name| config.option(name).is_none());
    Ok(missing
        .map(|name| Evidence::new(format!("CONFIG_{name}"), format!("is not set; mode nftables by {}", mode.source)))
        .collect())
}
