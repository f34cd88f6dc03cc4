//! Connection tracking: who keeps it alive, and how full it is.

use super::super::check::{Area, Severity};
use super::{Check, Evidence, Facts, Found, Skip, tool};
use crate::inspect::iptables::{Dump, Owner, Rule, Table, owner};
use crate::model::Family;

pub(super) const CHECKS: [Check; 4] = [
    Check {
        id: "KPX-A401",
        area: Area::Conntrack,
        severity: Severity::Warning,
        title: "kube-proxy as the last user of connection tracking",
        why: "The kernel tracks connections in a network namespace only while some rule asks for it. When the last such rule goes, every flow \
              that kube-proxy's rules translated hangs, though conntrack -L still lists it.",
        remedy: "Before the rules go, put a table in place that holds conntrack: a filter chain with a ct state rule. kpx does so.",
        command: "nft 'table inet hold { chain tracked { type filter hook prerouting priority 0; ct state new accept; }; }'",
        run: last_user,
    },
    Check {
        id: "KPX-A402",
        area: Area::Conntrack,
        severity: Severity::Warning,
        title: "kube-proxy's tables as the last that hold the nat hooks",
        why: "Translation needs a nat-type base chain of the family, be it an empty one. Deleting the only table with such chains, as the table \
              ip kube-proxy of nftables mode can be, makes every translated flow hang at once.",
        remedy: "Before the table goes, put one in place with an empty nat chain for each family. kpx does so.",
        command: "nft 'table inet hold { chain nat { type nat hook prerouting priority -100; }; }'",
        run: last_nat,
    },
    Check {
        id: "KPX-A403",
        area: Area::Conntrack,
        severity: Severity::Warning,
        title: "A connection table that is nearly full",
        why: "When it is full, new connections are dropped (nf_conntrack: table full, dropping packet). kube-proxy is often the one who raised the \
              limit, by cores.",
        remedy: "Raise the limit, and write it to sysctl.d so that it lasts.",
        command: "sysctl -w net.netfilter.nf_conntrack_max=NUMBER",
        run: nearly_full,
    },
    Check {
        id: "KPX-A404",
        area: Area::Conntrack,
        severity: Severity::Info,
        title: "Packets out of window count as invalid",
        why: "With nf_conntrack_tcp_be_liberal off, packets that conntrack cannot place are INVALID. kube-proxy in iptables mode drops those in \
              KUBE-FORWARD; in nftables mode nothing does, and they leave untranslated and make the peer reset the connection.",
        remedy: "Before a change to nftables mode, set conntrack.tcpBeLiberal of kube-proxy where connections have been seen to be reset.",
        command: "sysctl net.netfilter.nf_conntrack_tcp_be_liberal",
        run: not_liberal,
    },
];

/// What makes the kernel track connections: matches and targets of iptables, as saved.
const TRACKS: [&[u8]; 12] = [
    b"-m conntrack",
    b"-m state ",
    b"-m connmark",
    b"-m connbytes",
    b"-m connlimit",
    b"-m helper",
    b"-j MASQUERADE",
    b"-j DNAT",
    b"-j SNAT",
    b"-j REDIRECT",
    b"-j CONNMARK",
    b"-j NETMAP",
];

fn tracks(rule: &Rule<'_>) -> bool {
    TRACKS.iter().any(|word| memchr::memmem::find(rule.body(), word).is_some())
}

/// Whether a rule stays when kube-proxy's chains and the jumps to them go.
fn stays(table: &Table<'_>, rule: &Rule<'_>) -> bool {
    let chain = table.chains()[rule.chain()];
    let of = if chain.is_builtin() { Owner::Builtin } else { owner(chain.name) };
    !of.is_kube_proxy() && !owner(rule.spec().target_name()).is_kube_proxy()
}

fn last_user(facts: &Facts<'_>) -> Found {
    let programmed = facts.programmed()?;
    let iptables = facts.iptables()?;
    let mut found = Vec::new();
    for (i, family) in Family::BOTH.into_iter().enumerate() {
        let dumps = || iptables.backends.iter().filter_map(|backend| backend.dumps[i].as_ref());
        let ours = match programmed.backend {
            Some(backend) => backend.lifted.families[i].programmed,
            None => facts.nftables()?.ruleset.table(family).is_some(),
        };
        let others = || dumps().flat_map(Dump::tables).any(|t| t.rules().iter().any(|r| stays(t, r) && tracks(r)));
        if ours && !others() && !facts.other_tables()?.iter().any(|table| table.serves(family) && table.tracks) {
            found.push(Evidence::new(family.to_string(), "no rule of anybody else needs conntrack"));
        }
    }
    Ok(found)
}

fn last_nat(facts: &Facts<'_>) -> Found {
    let state = facts.nft_tables()?;
    let iptables = facts.iptables()?;
    let mut found = Vec::new();
    for (i, family) in Family::BOTH.into_iter().enumerate() {
        let saved =
            iptables.backends.iter().filter_map(|b| b.dumps[i].as_ref()).any(|dump| dump.table("nat").is_some());
        let tables = facts.other_tables()?.iter().any(|table| table.serves(family) && table.translates);
        if state.ruleset.table(family).is_some() && !saved && !tables {
            found.push(Evidence::new(family.to_string(), "no nat chain but those of kube-proxy's table"));
        }
    }
    Ok(found)
}

fn number(facts: &Facts<'_>, key: &str) -> Result<u64, Skip> {
    let value = facts.sysctls()?.get(key).and_then(|value| value.parse().ok());
    value.ok_or_else(|| Skip(format!("{key} is not known")))
}

fn nearly_full(facts: &Facts<'_>) -> Found {
    let count = number(facts, "net.netfilter.nf_conntrack_count")?;
    let max = number(facts, "net.netfilter.nf_conntrack_max")?;
    // Zero is no limit.
    if max == 0 || count * 5 < max * 4 {
        return Ok(Vec::new());
    }
    let text = format!("{count} of {max} entries ({} %)", count * 100 / max);
    Ok(vec![Evidence::new("net.netfilter.nf_conntrack_count", text)])
}

fn not_liberal(facts: &Facts<'_>) -> Found {
    if number(facts, "net.netfilter.nf_conntrack_tcp_be_liberal")? != 0 {
        return Ok(Vec::new());
    }
    let Some(backend) = facts.programmed()?.backend else {
        let text = "0, while kube-proxy is in nftables mode, which drops no INVALID packets";
        return Ok(vec![Evidence::new("net.netfilter.nf_conntrack_tcp_be_liberal", text)]);
    };
    let mut found = Vec::new();
    for (family, dump) in Family::BOTH.into_iter().zip(&backend.dumps) {
        let filter = dump.iter().find_map(|dump| dump.table("filter"));
        let Some((filter, chain)) = filter.and_then(|t| Some((t, t.chain(b"KUBE-FORWARD")?))) else { continue };
        if !filter.rules_of(chain).any(|rule| rule.spec().ctstate == Some(b"INVALID")) {
            let at = format!("{} filter KUBE-FORWARD", tool(family, backend.variant));
            found.push(Evidence::new(at, "no rule drops INVALID packets, though be_liberal is 0"));
        }
    }
    Ok(found)
}
