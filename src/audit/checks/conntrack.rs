//! Connection tracking: who keeps it alive, and how full it is.

use super::super::check::{Area, Severity};
use super::super::facts::Rules;
use super::{Check, Evidence, Facts, Found, Skip, tool};
use crate::capture::Item;
use crate::inspect::iptables::{Dump, Owner, Rule, Table, owner};
use crate::model::Family;

pub(super) const CHECKS: [Check; 9] = [
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
    Check {
        id: "KPX-A405",
        area: Area::Conntrack,
        severity: Severity::Warning,
        title: "Packets and connections that connection tracking has lost",
        why: "A drop is a new connection refused for want of room; an early drop is an old one given up to make room; an insert that failed is \
              a packet lost since two of one flow raced, as parallel DNS questions of one socket do. A dataplane that keeps its own table \
              has none of these.",
        remedy: "Where drops or early drops rise, raise the limit; where failed inserts rise, look at UDP clients with many questions at once.",
        command: "conntrack -S",
        run: losses,
    },
    Check {
        id: "KPX-A406",
        area: Area::Conntrack,
        severity: Severity::Info,
        title: "A hash table that is small for the entries it may hold",
        why: "Each entry stands in the hash table twice, and a packet is compared with all that share its bucket. The kernel allows as many \
              entries as buckets, kube-proxy four for each; a limit that was raised alone makes every packet slower as the table fills.",
        remedy: "Raise the number of buckets with the limit.",
        command: "sysctl -w net.netfilter.nf_conntrack_buckets=NUMBER",
        run: buckets,
    },
    Check {
        id: "KPX-A407",
        area: Area::Conntrack,
        severity: Severity::Warning,
        title: "UDP flows that go on to backends which are gone",
        why: "A UDP flow keeps its backend for as long as its entry lives. kube-proxy deletes the entries of endpoints that left; where they are \
              still there, it is stopped, or missed the change, and what these clients send is lost. Nobody deletes them once it is gone.",
        remedy: "Delete these entries; the next datagram is translated anew.",
        command: "conntrack -D -p udp --orig-dst ADDRESS --reply-src BACKEND",
        run: stuck,
    },
    Check {
        id: "KPX-A408",
        area: Area::Conntrack,
        severity: Severity::Info,
        title: "Open flows to Services that a change has to carry on",
        why: "Their translation is in conntrack. Those of iptables and nftables mode go on after the rules are gone as long as conntrack is held and \
              no filter stops them; a dataplane that forwards past netfilter breaks them.",
        remedy: "kpx carries them on. Without it, drain the Services with the most of them first.",
        command: "kpx inspect conntrack",
        run: carried,
    },
    Check {
        id: "KPX-A409",
        area: Area::Conntrack,
        severity: Severity::Info,
        title: "Packets that kube-proxy has dropped as invalid",
        why: "The node relies on the rule in KUBE-FORWARD: without it these packets leave with the backend's own address, and their receiver \
              resets the connection.",
        remedy: "When the rules go, keep such a drop, or let conntrack be liberal.",
        command: "sysctl -w net.netfilter.nf_conntrack_tcp_be_liberal=1",
        run: invalid,
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
        let ours = match programmed.rules {
            Rules::Iptables(backend) => backend.lifted.families[i].programmed,
            Rules::Nftables => facts.nftables()?.ruleset.table(family).is_some(),
            Rules::Ipvs => return Err(Skip("IPVS translates by its own connections".to_owned())),
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
    facts.sysctls()?.number(key).ok_or_else(|| Skip(format!("{key} is not known")))
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
    let backend = match facts.programmed()?.rules {
        Rules::Iptables(backend) => backend,
        Rules::Nftables | Rules::Ipvs => {
            let text = "0, while kube-proxy is in a mode that drops no INVALID packets";
            return Ok(vec![Evidence::new("net.netfilter.nf_conntrack_tcp_be_liberal", text)]);
        }
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

fn losses(facts: &Facts<'_>) -> Found {
    let stats = facts.losses()?;
    let total = stats.total();
    let counters = [
        ("drop", total.drop),
        ("early_drop", total.early_drop),
        ("insert_failed", total.insert_failed),
        ("chaintoolong", total.chaintoolong),
    ];
    let lost = counters.into_iter().filter(|(_, n)| *n > 0);
    let text = |n| format!("{n} since boot, on {} processors", stats.cpus.len());
    Ok(lost.map(|(name, n)| Evidence::new(format!("conntrack statistics {name}"), text(n))).collect())
}

fn buckets(facts: &Facts<'_>) -> Found {
    /// Entries for each bucket with kube-proxy's own settings (cmd/kube-proxy/app/conntrack.go).
    const KUBE_PROXYS: u64 = 4;
    let buckets = number(facts, "net.netfilter.nf_conntrack_buckets")?;
    let max = number(facts, "net.netfilter.nf_conntrack_max")?;
    if buckets == 0 || max <= buckets.saturating_mul(KUBE_PROXYS) {
        return Ok(Vec::new());
    }
    let count = facts.limits()?.count().map_or(String::new(), |n| format!("; {n} entries now"));
    let text = format!("{buckets} buckets for {max} entries: {} to a bucket when full{count}", max.div_ceil(buckets));
    let command = format!("sysctl -w net.netfilter.nf_conntrack_buckets={}", max / KUBE_PROXYS);
    Ok(vec![Evidence::new("net.netfilter.nf_conntrack_buckets", text).command(command)])
}

fn stuck(facts: &Facts<'_>) -> Found {
    let flows = facts.flows()?;
    let mut found: Vec<_> = flows
        .stuck
        .iter()
        .map(|(service, client, backend)| {
            let command = format!("conntrack -D -p udp --orig-src {} --reply-src {}", client.ip(), backend.ip());
            Evidence::new(service.clone(), format!("{client} to {backend}, which is in no list")).command(command)
        })
        .collect();
    let more = flows.stuck_count.saturating_sub(found.len() as u64);
    if more > 0 {
        found.push(Evidence::new("and more", format!("{more} such flows")));
    }
    Ok(found)
}

fn carried(facts: &Facts<'_>) -> Found {
    let flows = facts.flows()?;
    let carried = flows.carried;
    if carried.tcp + carried.udp + carried.sctp == 0 {
        return Ok(Vec::new());
    }
    let all = format!("TCP {}, UDP {}, SCTP {}", carried.tcp, carried.udp, carried.sctp);
    let mut found = vec![Evidence::new(format!("{} entries of connection tracking", flows.total), all)];
    found.extend(
        flows.busiest.iter().take(5).map(|(service, open)| Evidence::new(service.clone(), format!("open: {open}"))),
    );
    Ok(found)
}

fn invalid(facts: &Facts<'_>) -> Found {
    const NAME: &str = "ct_state_invalid_dropped_pkts";
    let listed = facts.text(Item::Nfacct)?;
    let packets = super::counted(&listed, NAME).filter(|packets| *packets > 0);
    Ok(packets
        .map(|n| Evidence::new(format!("nfacct {NAME}"), format!("{n} packets since boot")))
        .into_iter()
        .collect())
}
