//! Every recorded text and world; the oracles are the raw text and kube-proxy's own metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use kpx::inspect::iptables::{Hashed, Notice, Owner, Table, hashed, owner, parse};
use kpx::model::{Exposure, Family};

use super::{blocking, lifted, text};
use crate::support;

/// Worlds with a whole set of rules, by the version that wrote them.
const LIVE: [(&str, &str); 18] = [
    ("small/iptables-nft/running", "v1.36"),
    ("small/iptables-nft/stopped", "v1.36"),
    ("small/iptables-legacy/running", "v1.36"),
    ("small/v1.30-iptables-nft/running", "v1.30"),
    ("small/v1.25-iptables-legacy/running", "v1.25"),
    ("small/v1.23-iptables-nft/running", "v1.23"),
    ("stale/conflicting-addresses/iptables", "v1.36"),
    ("stale/docker-flannel-iptables", "v1.36"),
    ("stale/upgraded-from-v1.23", "v1.36"),
    ("stale/upgraded-from-v1.30", "v1.36"),
    ("stale/legacy-then-nft", "v1.36"),
    ("stale/switch-legacy-to-nftables", "other backend"),
    ("stale/switch-iptables-to-nftables/before", "v1.36"),
    ("stale/switch-nftables-to-iptables/after", "v1.36"),
    ("scale/100", "v1.36"),
    ("scale/1000", "v1.36"),
    ("scale/5000", "v1.36"),
    ("scale/10000", "v1.36"),
];

fn live_worlds(root: &Path) -> impl Iterator<Item = (PathBuf, &'static str)> + '_ {
    LIVE.iter().filter(|(_, version)| version.starts_with('v')).map(|(world, version)| (root.join(world), *version))
}

/// Every recorded iptables-save text.
fn texts(root: &Path) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of recordings") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|n| n.to_str()).expect("a UTF-8 name").to_owned();
            let unpacked = name.strip_suffix(".gz").unwrap_or(&name);
            if path.is_dir() {
                folders.push(path);
            } else if unpacked.contains("tables-") && unpacked.ends_with("save.txt") {
                found.insert(path.with_file_name(unpacked));
            }
        }
    }
    found.into_iter().collect()
}

/// Lines of a table in the text.
fn lines_of<'t>(text: &'t str, table: &str) -> impl Iterator<Item = &'t str> {
    let start = format!("*{table}");
    text.lines().skip_while(move |line| *line != start).skip(1).take_while(|line| *line != "COMMIT")
}

/// The chain and the rest of a rule's line.
fn rule_of(line: &str) -> Option<(&str, &str)> {
    let (_, rule) = line.split_once("-A ").filter(|(before, _)| before.is_empty() || before.starts_with('['))?;
    Some(rule.split_once(' ').unwrap_or((rule, "")))
}

#[test]
fn every_text_prints_back_byte_by_byte() {
    let Some(root) = support::recordings() else { return };
    let texts = texts(&root);
    assert!(texts.len() > 60, "only {} texts found", texts.len());
    for path in texts {
        let text = text(&path).expect("readable");
        let dump = parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(dump.to_bytes() == text, "{} does not print back", path.display());
    }
}

#[test]
fn every_rule_and_chain_of_a_text_is_there() {
    let Some(root) = support::recordings() else { return };
    for path in texts(&root) {
        let bytes = text(&path).expect("readable");
        let dump = parse(&bytes).expect("parses");
        let raw = std::str::from_utf8(&bytes).expect("the recordings are ASCII");
        for table in dump.tables() {
            let name = std::str::from_utf8(table.name()).expect("ASCII");
            let mut by_chain: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (chain, rule) in lines_of(raw, name).filter_map(rule_of) {
                by_chain.entry(chain).or_default().push(rule);
            }
            let chains: Vec<_> = lines_of(raw, name).filter_map(|l| l.strip_prefix(':')?.split(' ').next()).collect();
            assert_eq!(table.chains().len(), chains.len(), "{} {name}", path.display());
            for chain in chains {
                let index = table.chain(chain.as_bytes()).expect("declared");
                let read: Vec<String> = table.rules_of(index).map(ToString::to_string).collect();
                assert_eq!(read, by_chain.remove(chain).unwrap_or_default(), "{} {name} {chain}", path.display());
            }
            assert!(by_chain.is_empty());
        }
    }
}

#[test]
fn every_version_lifts_without_a_blocking_notice() {
    let Some(root) = support::recordings() else { return };
    for (world, _) in live_worlds(&root) {
        let lifted = lifted(&world);
        let blocking = blocking(&lifted.notices);
        assert!(blocking.is_empty(), "{}: {blocking:#?}", world.display());
        assert!(lifted.families[0].programmed && lifted.families[1].programmed, "{}", world.display());
    }
}

/// Each dispatch rule is a frontend, each refusal is one unless the dispatch has it: counted in the text, as grep would.
#[test]
fn as_many_frontends_as_rules_that_dispatch_or_refuse() {
    let Some(root) = support::recordings() else { return };
    for (world, _) in live_worlds(&root) {
        let lifted = lifted(&world);
        for (i, family) in Family::BOTH.into_iter().enumerate() {
            let name = if family == Family::V4 { "iptables-save.txt" } else { "ip6tables-save.txt" };
            let raw = String::from_utf8(text(&world.join(name)).expect("readable")).expect("ASCII");
            // Address (or nothing), protocol and port of a rule, as written.
            let key = |rule: &str| {
                let after =
                    |option: &str| rule.split_once(option).map(|(_, rest)| rest.split(' ').next().unwrap_or(""));
                let own = after("-d ").filter(|d| !d.starts_with("127."));
                (own.map(str::to_owned), after("-p ").map(str::to_owned), after("--dport ").map(str::to_owned))
            };
            let mut dispatched = Vec::new();
            for (chain, rule) in lines_of(&raw, "nat").filter_map(rule_of) {
                let to_service = ["-j KUBE-SVC-", "-j KUBE-SVL-", "-j KUBE-EXT-", "-j KUBE-FW-", "-j KUBE-XLB-"]
                    .iter()
                    .any(|target| rule.contains(target));
                let loopback = rule.contains("-d 127.0.0.0/8");
                if matches!(chain, "KUBE-SERVICES" | "KUBE-NODEPORTS") && to_service && !loopback {
                    dispatched.push(key(rule));
                }
            }
            let mut wanted = dispatched.len();
            for (chain, rule) in lines_of(&raw, "filter").filter_map(rule_of) {
                let refuses = rule.contains("-j REJECT") || rule.contains("-j DROP");
                if matches!(chain, "KUBE-SERVICES" | "KUBE-EXTERNAL-SERVICES") && refuses {
                    wanted += usize::from(!dispatched.contains(&key(rule)));
                }
            }
            let of_family = lifted.table.frontends().iter().filter(|f| Family::of(f.key.ip) == family).count();
            assert_eq!(of_family, wanted, "{} {family}", world.display());
            assert_eq!(lifted.families[i].frontends, wanted);
        }
    }
}

/// Backends over all lists are as many as jumps to endpoint chains, affinity's left out.
#[test]
fn as_many_backends_as_jumps_to_endpoints() {
    let Some(root) = support::recordings() else { return };
    for (world, version) in live_worlds(&root) {
        let lifted = lifted(&world);
        let raw = String::from_utf8(text(&world.join("iptables-save.txt")).expect("readable")).expect("ASCII");
        // ClusterIP frontends only: each balancing chain once, whether or not it serves external frontends too.
        let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
        for (chain, rule) in lines_of(&raw, "nat").filter_map(rule_of) {
            if rule.contains("-j KUBE-SEP-") && !rule.contains("--rcheck") {
                *wanted.entry(chain).or_default() += 1;
            }
        }
        let cluster_ips = lifted.table.frontends().iter().filter(|f| f.key.exposure == Exposure::ClusterIp);
        let lists: BTreeMap<(IpAddr, u16, &str), usize> =
            cluster_ips.map(|f| ((f.key.ip, f.key.port, f.key.protocol.lower()), f.own_list().len())).collect();
        let mut compared = 0;
        for (chain, rule) in lines_of(&raw, "nat").filter_map(rule_of) {
            let Some((_, target)) = rule.split_once(" cluster IP\"").and_then(|(_, r)| r.split_once("-j ")) else {
                continue;
            };
            if chain != "KUBE-SERVICES" {
                continue;
            }
            let ip = rule.split_once("-d ").and_then(|(_, r)| r.split_once('/')).expect("an address").0;
            let port = rule.split_once("--dport ").and_then(|(_, r)| r.split_once(' ')).expect("a port").0;
            let protocol = rule.split_once("-p ").and_then(|(_, r)| r.split_once(' ')).expect("a protocol").0;
            let found = lists.get(&(ip.parse().expect("an address"), port.parse().expect("a port"), protocol)).copied();
            assert_eq!(found, Some(wanted[target]), "{} {ip}:{port} by {target}", world.display());
            compared += 1;
        }
        assert!(compared > 60, "{} {version}", world.display());
    }
}

/// `sync_proxy_rules_iptables_total` counts the rules kube-proxy owns, the jumps from built-in chains left out.
#[test]
fn as_many_rules_as_kube_proxy_counts() {
    let Some(root) = support::recordings() else { return };
    let mut compared = 0;
    for (world, version) in live_worlds(&root) {
        let Some(metrics) = text(&world.join("metrics.txt")).or_else(|| text(&world.join("metrics-iptables-nft.txt")))
        else {
            continue;
        };
        let metrics = String::from_utf8(metrics).expect("ASCII");
        let lifted = lifted(&world);
        for line in metrics.lines().filter(|l| l.starts_with("kubeproxy_sync_proxy_rules_iptables_total{")) {
            // Before 1.34 both families wrote one gauge, and IPv6's value stayed.
            let family = usize::from(!line.contains("IPv4"));
            let table = if line.contains("table=\"nat\"") { "nat" } else { "filter" };
            let wanted: usize = line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number");
            let summary = &lifted.families[family];
            // The kubelet's KUBE-FIREWALL has one rule in IPv4, which kube-proxy of 1.28 and later writes too.
            let firewall = usize::from(table == "filter" && family == 0 && version == "v1.36");
            let stale = stale_rules(&world, &lifted.notices, Family::BOTH[family], table);
            let found = summary.rules.get(table).copied().unwrap_or_default() + firewall - stale;
            assert_eq!(found, wanted, "{} {table} {line}", world.display());
            compared += 1;
        }
    }
    assert!(compared > 40, "only {compared} gauges compared");
}

/// Rules in chains that kube-proxy no longer counts as its own: leftovers, which large clusters keep for a while.
fn stale_rules(world: &Path, notices: &[Notice], family: Family, table: &str) -> usize {
    let name = if family == Family::V4 { "iptables-save.txt" } else { "ip6tables-save.txt" };
    let raw = text(&world.join(name)).expect("readable");
    let dump = parse(&raw).expect("parses");
    let table_read = dump.table(table).expect("the table");
    let rules_of = |chain: &str| table_read.rules_of(table_read.chain(chain.as_bytes()).expect("declared")).len();
    let stale = notices.iter().filter_map(|n| match n {
        Notice::StaleChain { chain } if chain.family == family && &*chain.table == table => {
            Some(rules_of(&chain.chain))
        }
        _ => None,
    });
    stale.sum()
}

#[test]
fn after_cleanup_no_frontend_is_left_and_the_rest_is_told_apart() {
    let Some(root) = support::recordings() else { return };
    let worlds = [
        // World, and kube-proxy's chains left in IPv4.
        ("small/iptables-nft/after-cleanup", 0),
        ("small/iptables-legacy/after-cleanup", 0),
        ("small/v1.30-iptables-nft/after-cleanup", 4),
        ("small/v1.25-iptables-legacy/after-cleanup", 4),
        ("small/v1.23-iptables-nft/after-cleanup", 4),
        ("stale/docker-flannel-iptables-after-cleanup", 0),
        ("stale/legacy-then-nft-after-cleanup", 0),
    ];
    for (name, left) in worlds {
        let world = root.join(name);
        let lifted = lifted(&world);
        assert!(lifted.table.frontends().is_empty() && !lifted.families[0].programmed, "{name}");
        assert_eq!(lifted.table.health_checks, None, "{name}");
        assert_eq!(lifted.families[0].all_chains(), left, "{name}");
        let stale: Vec<_> = lifted.notices.iter().filter(|n| n.code() == "stale-chain").collect();
        assert_eq!(stale.len(), left * 2, "{name}: {stale:?}");
        assert!(blocking(&lifted.notices).is_empty(), "{name}: {:?}", lifted.notices);

        let raw = text(&world.join("iptables-save.txt")).expect("readable");
        let dump = parse(&raw).expect("parses");
        let owners: BTreeSet<_> = dump
            .tables()
            .iter()
            .flat_map(Table::chains)
            .filter(|c| c.name.starts_with(b"KUBE-"))
            .map(|c| (String::from_utf8_lossy(c.name).into_owned(), owner(c.name).is_kube_proxy()))
            .collect();
        for (chain, of_kube_proxy) in owners {
            let kubelets = matches!(chain.as_str(), "KUBE-FIREWALL" | "KUBE-MARK-DROP");
            assert_ne!(kubelets, of_kube_proxy, "{name} {chain}");
        }
    }
}

#[test]
fn ipvs_mode_is_named_and_not_guessed_at() {
    let Some(root) = support::recordings() else { return };
    for world in
        ["small/ipvs/running", "small/ipvs/stopped", "small/ipvs-strict-arp/running", "small/ipvs-kernel-6.12/running"]
    {
        let lifted = lifted(&root.join(world));
        assert!(lifted.table.frontends().is_empty());
        let codes: Vec<_> = lifted.notices.iter().map(Notice::code).collect();
        assert_eq!(codes, ["ipvs-mode", "ipvs-mode"], "{world}");
        assert!(lifted.notices.iter().all(Notice::blocks_migration));
    }
    assert!(lifted(&root.join("small/ipvs/after-cleanup")).notices.is_empty());
}

/// v1.23's chains stay for good after an upgrade; all of them are known as left over, and nothing else is.
#[test]
fn leftovers_of_an_upgrade_are_exactly_the_old_chains() {
    let Some(root) = support::recordings() else { return };
    let lifted = lifted(&root.join("stale/upgraded-from-v1.23"));
    let mut wanted = Vec::new();
    for name in ["iptables-save.txt", "ip6tables-save.txt"] {
        let raw = text(&root.join("stale/upgraded-from-v1.23").join(name)).expect("readable");
        let dump = parse(&raw).expect("parses");
        let nat = dump.table("nat").expect("nat");
        let old = nat.chains().iter().filter(|c| matches!(hashed(c.name), Some((Hashed::Xlb, _))));
        wanted.extend(old.map(|c| String::from_utf8_lossy(c.name).into_owned()));
        assert_eq!(owner(b"KUBE-MARK-DROP"), Owner::Kubelet);
    }
    assert_eq!(wanted.len(), 12);
    let found: Vec<String> = lifted.notices.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    for (notice, chain) in found.iter().zip(&wanted) {
        assert!(notice.contains(chain.as_str()), "{notice}");
    }
}

/// Two external IPs and a load balancer's share one address and port; another load balancer has the cluster DNS address.
#[test]
fn conflicting_addresses_are_all_kept_and_named() {
    let Some(root) = support::recordings() else { return };
    let world = root.join("stale/conflicting-addresses/iptables");
    let lifted = lifted(&world);
    let codes: Vec<_> = lifted.notices.iter().map(Notice::code).collect();
    assert_eq!(codes, ["conflict", "conflict"]);
    let raw = String::from_utf8(text(&world.join("iptables-save.txt")).expect("readable")).expect("ASCII");
    let dispatch = |vip: &str| {
        let rules = lines_of(&raw, "nat").filter_map(rule_of).filter(|(chain, _)| *chain == "KUBE-SERVICES");
        let numbers = rules.enumerate().filter(|(_, (_, rule))| rule.contains(vip) && rule.contains("-j KUBE-"));
        numbers.map(|(i, _)| i + 1).collect::<Vec<_>>()
    };
    let shared = dispatch("-d 198.51.100.60/32");
    assert_eq!(shared.len(), 3);
    let message = lifted.notices.iter().map(ToString::to_string).find(|n| n.starts_with("198.51.100.60:8080"));
    let message = message.expect("a notice for the shared address");
    let at = |n: usize| format!("IPv4 nat KUBE-SERVICES rule {n}");
    assert!(message.contains(&format!("packets follow {};", at(shared[0]))), "{message}");
    assert!(message.contains(&at(shared[1])) && message.contains(&at(shared[2])), "{message}");
    assert_eq!(lifted.table.conflicts().len(), 2);
}
