//! What serving Services costs on this node: how many rules there are, and how many of them a new connection's first packet is
//! tested against before it has its endpoint.
//!
//! In iptables mode the kernel goes through KUBE-SERVICES from the top, so a Service's place in it is what its connections pay;
//! in nftables and IPVS mode it is a lookup, whatever the number of Services. Counted is the nat table, on the way from PREROUTING: it
//! decides, and it is what grows. (`kpx path` counts one packet's rules in all tables, to the end of its way.) Established connections
//! pay none of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::facts::{Facts, Iptables, tool};
use crate::inspect::iptables::{Dump, Hashed, Owner, Table, owner};
use crate::inspect::ipvs::IpvsState;
use crate::inspect::nftables::{Ruleset, TABLE};
use crate::model::{Family, Frontend, Origin};

/// Rules of the nat table that the first packet of a connection is tested against, until it has its endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Met {
    /// The least, over all Services and endpoints.
    pub best: usize,
    /// Half of the Services' frontends have fewer, with an endpoint in the middle of theirs.
    pub median: usize,
    /// The most.
    pub worst: usize,
    /// What a connection meets that is to no Service at all.
    pub others: usize,
}

/// One frontend's share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// `namespace/name:port`.
    pub service: String,
    /// Address, port and protocol.
    pub frontend: String,
    /// Chain or map that sends its packets on.
    pub chain: String,
    /// Its place in there, from 1; `None` for a lookup.
    pub position: Option<u32>,
    /// Rules met with the first endpoint chosen.
    pub best: usize,
    /// Rules met with the last endpoint chosen.
    pub worst: usize,
}

/// What one family costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// The tool that shows the rules.
    pub tool: String,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Services that have a frontend.
    pub services: usize,
    /// Their frontends.
    pub frontends: usize,
    /// kube-proxy's rules, elements of its maps and sets, virtual services and their servers.
    pub rules: usize,
    /// The same by kind of chain, map or set.
    pub by_chain: BTreeMap<String, usize>,
    /// What a new connection meets.
    pub met: Met,
    /// What 100 more Services like these would add to the rules, and to the median and the worst of what is met.
    pub growth: Growth,
    /// Each frontend, in the order in which packets meet them.
    pub places: Vec<Place>,
}

/// What 100 more Services would add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Growth {
    /// Rules and elements.
    pub rules: usize,
    /// To the median of what is met.
    pub median: usize,
    /// To the worst.
    pub worst: usize,
}

/// Where the number of Services starts to tell, with what that rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// Rules that the median connection meets; from here on.
    pub median: usize,
    /// What that means.
    pub advice: &'static str,
    /// Where it is from.
    pub source: &'static str,
}

/// From the least to the most.
pub const THRESHOLDS: [Threshold; 3] = [
    Threshold {
        median: 0,
        advice: "too few to notice: a change of dataplane will not make connections faster here",
        source: "kube-proxy 1.36 with 1 000 Services: first sync 0.2 s (legacy) and 0.7 s (nft), as recorded",
    },
    Threshold {
        median: 1_000,
        advice: "new connections and syncs begin to pay for the number of Services",
        source: "kube-proxy's own large-cluster mode begins at 1 000 endpoints (largeClusterEndpointsThreshold)",
    },
    Threshold {
        median: 4_000,
        advice: "each new connection pays a multiple of what it would without rules; nftables mode or eBPF pays the same for any number",
        source: "10 000 Services, recorded: connect 3.6 times as long (legacy), 10 times (nft); first sync 2 s and 208 s",
    },
];

impl Cost {
    /// The threshold that has been passed last.
    pub fn threshold(&self) -> Threshold {
        *THRESHOLDS.iter().rfind(|threshold| self.met.median >= threshold.median).unwrap_or(&THRESHOLDS[0])
    }
}

/// The cost of what packets meet, for each family that kube-proxy serves.
pub fn costs(facts: &Facts<'_>) -> Vec<Cost> {
    let mut costs = Vec::new();
    if let Ok(state) = facts.nft_tables() {
        costs.extend(
            Family::BOTH.into_iter().filter_map(|family| of_nftables(&state.ruleset, state.table.frontends(), family)),
        );
    }
    if let Ok(iptables) = facts.iptables() {
        costs.extend(Family::BOTH.into_iter().filter_map(|family| of_iptables(iptables, family)));
    }
    if let (Ok(state), Ok(table)) = (facts.ipvs(), facts.ipvs_table()) {
        let of = |family| of_ipvs(state, table.frontends(), facts.iptables().ok(), family);
        costs.extend(Family::BOTH.into_iter().filter_map(of));
    }
    // A family without Services has the fixed rules only.
    costs.retain(|cost| cost.frontends > 0);
    costs
}

fn services(frontends: &[&Frontend]) -> usize {
    frontends.iter().filter_map(|f| f.service.as_ref()).collect::<BTreeSet<_>>().len()
}

fn of_iptables(iptables: &Iptables<'_>, family: Family) -> Option<Cost> {
    let backend = iptables.kube_proxys()?;
    let i = usize::from(family == Family::V6);
    let nat = backend.dumps[i].as_ref()?.table("nat")?;
    if !backend.lifted.families[i].programmed {
        return None;
    }
    let mut by_chain = BTreeMap::new();
    for table in backend.dumps[i].iter().flat_map(Dump::tables) {
        for (i, chain) in table.chains().iter().enumerate().filter(|(_, chain)| !chain.is_builtin()) {
            if let Some(kind) = kind(chain.name).filter(|_| table.rules_of(i).len() > 0) {
                *by_chain.entry(format!("{} {kind}", String::from_utf8_lossy(table.name()))).or_insert(0) +=
                    table.rules_of(i).len();
            }
        }
    }
    let frontends: Vec<&Frontend> =
        backend.lifted.table.frontends().iter().filter(|f| Family::of(f.key.ip) == family).collect();
    let mut walk = Walk::of(nat)?;
    let mut places: Vec<Place> = frontends.iter().filter_map(|frontend| walk.place(frontend)).collect();
    places.sort_by_key(|place| (place.chain != "KUBE-SERVICES", place.position));
    let mut middles: Vec<usize> = places.iter().map(|place| usize::midpoint(place.best, place.worst)).collect();
    middles.sort_unstable();
    let met = Met {
        best: places.iter().map(|place| place.best).min().unwrap_or(0),
        median: middles.get(middles.len() / 2).copied().unwrap_or(0),
        worst: places.iter().map(|place| place.worst).max().unwrap_or(0),
        others: walk.before + walk.services,
    };
    let services = services(&frontends);
    let rules: usize = by_chain.values().sum();
    let per_100 = |n: usize| (n * 100).checked_div(services).unwrap_or(0);
    let dispatch = per_100(walk.services);
    Some(Cost {
        tool: tool(family, backend.variant).to_owned(),
        family,
        services,
        frontends: frontends.len(),
        rules,
        by_chain,
        met,
        growth: Growth { rules: per_100(rules), median: dispatch / 2, worst: dispatch },
        places,
    })
}

/// Kind of a chain of kube-proxy: its name, or the start of it.
fn kind(chain: &[u8]) -> Option<String> {
    match owner(chain) {
        Owner::Hashed(kind) => Some(
            match kind {
                Hashed::Svc => "KUBE-SVC-*",
                Hashed::Svl => "KUBE-SVL-*",
                Hashed::Ext => "KUBE-EXT-*",
                Hashed::Fw => "KUBE-FW-*",
                Hashed::Xlb => "KUBE-XLB-*",
                Hashed::Sep => "KUBE-SEP-*",
            }
            .to_owned(),
        ),
        of if of.is_kube_proxy() => Some(String::from_utf8_lossy(chain).into_owned()),
        _ => None,
    }
}

/// The way of a packet through the nat table.
struct Walk<'w, 'a> {
    nat: &'w Table<'a>,
    /// Rules of PREROUTING up to the jump to KUBE-SERVICES.
    before: usize,
    /// Rules of KUBE-SERVICES.
    services: usize,
    /// What was found out of chains, by their index.
    known: Vec<Option<(usize, usize)>>,
}

impl<'w, 'a> Walk<'w, 'a> {
    fn of(nat: &'w Table<'a>) -> Option<Self> {
        let prerouting = nat.chain(b"PREROUTING")?;
        let jump = nat.rules_of(prerouting).position(|rule| rule.spec().target_name() == b"KUBE-SERVICES")?;
        let services = nat.rules_of(nat.chain(b"KUBE-SERVICES")?).len();
        Some(Self { nat, before: jump + 1, services, known: vec![None; nat.chains().len()] })
    }

    /// What connections to a frontend meet; `None` for one that is refused, which the filter table does.
    fn place(&mut self, frontend: &Frontend) -> Option<Place> {
        let Origin::Rule { table, chain, number, .. } = &frontend.origin else { return None };
        if &**table != "nat" {
            return None;
        }
        let own = self.nat.chain(chain.as_bytes())?;
        let rule = self.nat.rule(own, *number as usize)?;
        // NodePorts come after all of KUBE-SERVICES.
        let through = if &**chain == "KUBE-SERVICES" { 0 } else { self.services };
        let (least, most) = self.inside(rule.spec().target_name(), 4);
        let reached = self.before + through + *number as usize;
        Some(Place {
            service: frontend.display_name(),
            frontend: frontend.key.to_string(),
            chain: chain.to_string(),
            position: Some(*number),
            best: reached + least,
            worst: reached + most,
        })
    }

    /// The fewest and the most rules met in a chain and those below it. An external entry leads to a balancing chain, that to an
    /// endpoint's; `depth` ends a loop that no kube-proxy makes.
    fn inside(&mut self, chain: &[u8], depth: u8) -> (usize, usize) {
        let Some(at) = self.nat.chain(chain).filter(|_| depth > 0) else { return (0, 0) };
        if let Some(known) = self.known[at] {
            return known;
        }
        let targets: Vec<_> = self.nat.rules_of(at).map(|rule| rule.spec().target_name()).collect();
        let hashed = |name: &&[u8]| matches!(owner(name), Owner::Hashed(_));
        let ends = (targets.iter().position(&hashed), targets.iter().rfind(|name| hashed(name)));
        let met = match ends {
            (Some(first), Some(last)) => {
                let (least, most) = self.inside(last, depth - 1);
                (first + 1 + least, targets.len() + most)
            }
            _ => (targets.len(), targets.len()),
        };
        self.known[at] = Some(met);
        met
    }
}

fn of_nftables(ruleset: &Ruleset, frontends: &[Frontend], family: Family) -> Option<Cost> {
    let table = ruleset.table(family)?;
    let frontends: Vec<&Frontend> = frontends.iter().filter(|f| Family::of(f.key.ip) == family).collect();
    let mut by_chain = BTreeMap::new();
    for (name, chain) in &table.chains {
        // `service-…` and its kin by their first word.
        let kind = if name.contains('/') {
            format!("{}-*", name.split('-').next().unwrap_or_default())
        } else {
            name.to_string()
        };
        *by_chain.entry(format!("chain {kind}")).or_insert(0) += chain.rules.len();
    }
    for (name, set) in &table.sets {
        let kind = if name.contains('/') { "affinity-*" } else { name };
        *by_chain.entry(format!("{} {kind}", if set.is_map { "map" } else { "set" })).or_insert(0) +=
            set.elements.len();
    }
    let length = |chain: &str| table.chains.get(chain).map_or(0, |chain| chain.rules.len());
    let others = length("nat-prerouting") + length("services");
    let services = services(&frontends);
    let rules: usize = by_chain.values().sum();
    // One lookup, then the Service's own chain and, with affinity or in older versions, its endpoint's.
    let longest = table.chains.iter().filter(|(name, _)| name.contains('/')).map(|(_, chain)| chain.rules.len()).max();
    let met = Met { best: others + 1, median: others + 1, worst: others + longest.unwrap_or(1), others };
    Some(Cost {
        tool: format!("nft {} {TABLE}", if family == Family::V4 { "ip" } else { "ip6" }),
        family,
        services,
        frontends: frontends.len(),
        rules,
        by_chain,
        met,
        growth: Growth { rules: (rules * 100).checked_div(services).unwrap_or(0), median: 0, worst: 0 },
        places: Vec::new(),
    })
}

/// IPVS mode: a few rules that look into sets, then one lookup among the virtual services.
fn of_ipvs(state: &IpvsState, frontends: &[Frontend], iptables: Option<&Iptables<'_>>, family: Family) -> Option<Cost> {
    let frontends: Vec<&Frontend> = frontends.iter().filter(|f| Family::of(f.key.ip) == family).collect();
    if frontends.is_empty() {
        return None;
    }
    let mut by_chain = BTreeMap::new();
    let of_family = |ip| Family::of(ip) == family;
    let own = state.state.ipvs.services.iter().filter(|service| {
        service.address().is_some_and(|(ip, ..)| of_family(ip)) && !state.state.exposures(service).is_empty()
    });
    for service in own {
        *by_chain.entry("virtual services".to_owned()).or_insert(0) += 1;
        *by_chain.entry("servers".to_owned()).or_insert(0) += service.servers.len();
    }
    let wide = |name: &str| name.starts_with("KUBE-6-") == (family == Family::V6);
    for (name, set) in state.state.sets.iter().filter(|(name, _)| name.starts_with("KUBE-") && wide(name)) {
        by_chain.insert(format!("set {name}"), set.entries.len());
    }
    let dumps = || {
        iptables
            .into_iter()
            .flat_map(|i| &i.backends)
            .filter_map(|b| b.dumps[usize::from(family == Family::V6)].as_ref())
    };
    let ipvs = |dump: &&Dump<'_>| dump.tables().iter().flat_map(Table::chains).any(|c| owner(c.name) == Owner::Ipvs);
    let dump = dumps().find(ipvs);
    for table in dump.into_iter().flat_map(Dump::tables) {
        for (i, chain) in table.chains().iter().enumerate().filter(|(_, chain)| owner(chain.name).is_kube_proxy()) {
            if !chain.is_builtin() && table.rules_of(i).len() > 0 {
                let of = format!("{} {}", String::from_utf8_lossy(table.name()), String::from_utf8_lossy(chain.name));
                by_chain.insert(of, table.rules_of(i).len());
            }
        }
    }
    let nat = dump.and_then(|dump| dump.table("nat"));
    let rules_in = |chain: &[u8]| nat.and_then(|nat| Some(nat.rules_of(nat.chain(chain)?).len())).unwrap_or(0);
    let before = nat.and_then(|nat| {
        let rules = nat.rules_of(nat.chain(b"PREROUTING")?);
        rules.map(|rule| rule.spec().target_name() == b"KUBE-SERVICES").position(|jumps| jumps)
    });
    let others = before.map_or(0, |before| before + 1) + rules_in(b"KUBE-SERVICES");
    // Addresses of Services are the node's own, so packets to them see the NodePorts' rules too. The lookup that follows is no rule.
    let met = others + rules_in(b"KUBE-NODE-PORT");
    let services = if frontends.iter().all(|f| f.service.is_none()) { frontends.len() } else { services(&frontends) };
    let rules: usize = by_chain.values().sum();
    Some(Cost {
        tool: format!("IPVS {family}"),
        family,
        services,
        frontends: frontends.len(),
        rules,
        by_chain,
        met: Met { best: met, median: met, worst: met + rules_in(b"KUBE-LOAD-BALANCER"), others },
        growth: Growth { rules: (rules * 100).checked_div(services).unwrap_or(0), median: 0, worst: 0 },
        places: Vec::new(),
    })
}
