//! From a survey to a plan. Pure: what is not in the survey does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::driver::Verdict;
use super::gates::describe_hook;
use super::marks::Marks;
use super::phase::PhaseName;
use super::plan::{
    Accept, Blocker, BlockerId, Counts, Inputs, Plan, PlannedFrontend, Server, Source, Target, Warning, Wishes,
    first_few,
};
use super::session::{Agreed, REVERTED, facts, reverted};
use super::steps;
use super::survey::{Rules, Survey};
use crate::capture::Variant;
use crate::dataplane::{DSR_NEEDS, Position, Served, served_at_sockets};
use crate::inspect::proxy_rules::RulesMode;
use crate::model::{Difference, Exposure, ForwardingMode, Frontend, FrontendView, ServiceTable, diff};

/// Makes the plan of a surveyed node.
pub fn plan(survey: &Survey, wishes: &Wishes) -> Plan {
    let empty = ServiceTable::default();
    let table = survey.api.as_ref().map_or(&empty, |lifted| &lifted.table);
    let (divided, all) = (Served::at_sockets(table), Served::of(table));
    let frontends = frontends(table, &divided, &all);
    let to_ebpf = divided.table.frontends().len();
    let counts = Counts {
        to_ebpf,
        stay: frontends.len() - to_ebpf,
        programs: steps::PROGRAMS,
        rules_to_delete: survey.rules.as_ref().map_or(0, |rules| rules.counts.values().sum()),
    };
    let marks = Marks::choose(survey.used_marks);
    let mut inputs = survey.hashes.clone();
    if survey.api.is_ok() {
        inputs.insert("API objects".to_owned(), hash_table(table));
    }
    if let Some(host) = &survey.host {
        inputs.insert("hooks of the cgroup".to_owned(), digest(format!("{:?}", host.foreign_hooks).as_bytes()));
    }
    let target = Target {
        dataplane: "eBPF".to_owned(),
        cgroup: survey.cgroup.display().to_string(),
        pins: survey.pins.display().to_string(),
    };
    let rules = counts.rules_to_delete;
    let source = source(survey);
    let agreed = Agreed {
        target: &target,
        mode: source.mode,
        rules,
        marks: marks.unwrap_or_default(),
        driver: &survey.run_by.driver,
        cut: wishes.accept.contains(&Accept::CutConnections),
    };
    let facts = facts(&all.table, &agreed);
    Plan {
        api_version: "kpx.dev/v1".to_owned(),
        kind: "MigrationPlan".to_owned(),
        version: 2,
        node: survey.node.clone(),
        inputs: Inputs(inputs),
        source,
        target,
        marks,
        driver: survey.run_by.driver.clone(),
        driver_evidence: survey.run_by.evidence.clone(),
        accept: wishes.accept.clone(),
        counts,
        blockers: blockers(survey, wishes),
        warnings: warnings(survey, wishes),
        coexistence: coexistence(survey),
        frontends,
        phases: steps::planned(&facts),
    }
}

/// Each frontend with who serves it; both parts of the divided table are in the table's order.
fn frontends(table: &ServiceTable, divided: &Served, all: &Served) -> Vec<PlannedFrontend> {
    let (mut others, mut unserved) = (divided.others.iter().peekable(), all.others.iter().peekable());
    table
        .frontends()
        .iter()
        .map(|f| {
            let reason = others.next_if(|(other, _)| other == f).map(|(_, reason)| reason.to_string());
            let served = unserved.next_if(|(other, _)| other == f).is_none();
            frontend(f, reason, served)
        })
        .collect()
}

/// `reason` says why the socket hooks do not serve it, `served` whether the packet path does.
fn frontend(f: &Frontend, reason: Option<String>, served: bool) -> PlannedFrontend {
    let served_by = PhaseName::ALL
        .map(|phase| {
            let server = match phase {
                _ if phase >= PhaseName::Packets && served => Server::EbpfAll,
                _ if phase >= PhaseName::Sockets && reason.is_none() => Server::Ebpf,
                _ => Server::Rules,
            };
            (phase, server)
        })
        .into();
    PlannedFrontend {
        service: f.service.as_ref().map(ToString::to_string),
        port_name: f.port_name.clone(),
        exposure: f.key.exposure,
        ip: f.key.ip,
        port: f.key.port,
        protocol: f.key.protocol,
        served_by,
        reason,
        hash: hash_frontend(f)[..16].to_owned(),
    }
}

/// SHA-256 in hex.
pub(super) fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn hash_frontend(f: &Frontend) -> String {
    let mut view = serde_json::to_value(FrontendView::from(f)).expect("a view has string keys only");
    // Where a frontend was read says nothing about what happens to its packets.
    if let Some(map) = view.as_object_mut() {
        map.remove("from");
    }
    digest(view.to_string().as_bytes())
}

pub(super) fn hash_table(table: &ServiceTable) -> String {
    let mut text: String = table.frontends().iter().map(hash_frontend).collect();
    let _ = write!(text, "{:?}{:?}{:?}", table.v4, table.v6, table.health_checks);
    digest(text.as_bytes())
}

fn source(survey: &Survey) -> Source {
    let word = survey.proxy.mode.as_deref().unwrap_or("iptables");
    let (dataplane, mode, rules) = match &survey.rules {
        Ok(rules) => (format!("kube-proxy {}", rules.mode), Some(rules.mode), by_family_names(rules)),
        Err(_) => (format!("kube-proxy {word}"), None, BTreeMap::new()),
    };
    Source { dataplane, mode, rules, kube_proxy: survey.proxy.describe() }
}

fn by_family_names(rules: &Rules) -> BTreeMap<String, usize> {
    rules.counts.iter().map(|(family, n)| (family.to_string(), *n)).collect()
}

const MODE_REMEDY: &str = "let kube-proxy run in nftables or iptables mode first";
const POLICIES_REMEDY: &str = "change externalTrafficPolicy or internalTrafficPolicy of these Services to what they get now, or accept \
                               what they ask for: --accept ipvs-policies";
const CONFLICT_REMEDY: &str = "give one of the Services another address; which of them wins with kube-proxy depends on \
                               the order of its rules";

fn blockers(survey: &Survey, wishes: &Wishes) -> Vec<Blocker> {
    let mut out: Vec<Blocker> = Vec::new();
    // One cause may show in several places: its first reason leads.
    let mut block = |id, reason: String, details: Vec<String>, remedy: &str| match out.iter_mut().find(|b| b.id == id) {
        Some(Blocker { details: known, .. }) => {
            known.push(reason);
            known.extend(details);
        }
        None => out.push(Blocker { id, reason, details, remedy: remedy.to_owned() }),
    };
    if let Some(open) = &survey.open_migration {
        let (reason, remedy) = if open.complete {
            (
                format!("migration {} is in force: sockets are served by eBPF already", open.id),
                "look at it with kpx migrate status, or go back with kpx migrate rollback",
            )
        } else {
            (
                format!("migration {} is unfinished", open.id),
                "finish it with kpx migrate apply, or go back with kpx migrate rollback",
            )
        };
        block(BlockerId::MigrationOpen, reason, Vec::new(), remedy);
    }
    match &survey.run_by.verdict {
        Verdict::Refused { why, remedy } => block(BlockerId::KubeProxy, why.clone(), Vec::new(), remedy),
        Verdict::Reverted { by } if !wishes.accept.contains(&Accept::ManagedDaemonset) => {
            block(BlockerId::KubeProxy, reverted(by), Vec::new(), REVERTED);
        }
        Verdict::Reverted { .. } | Verdict::Unknown { .. } | Verdict::Fine => {}
    }
    if Marks::choose(survey.used_marks).is_none() {
        block(
            BlockerId::Marks,
            format!("rules of this node use nearly every bit of the mark ({:#x})", survey.used_marks),
            Vec::new(),
            "kpx needs two bits for packets of Services; see nft list ruleset and iptables-save for those in use",
        );
    }
    match (survey.proxy.mode.as_deref(), &survey.rules) {
        (Some("iptables" | "nftables" | "ipvs") | None, Err(_)) | (None, Ok(_)) => {}
        (Some(word), Ok(rules)) if word == rules.mode.word() => {}
        (Some(word @ ("iptables" | "nftables" | "ipvs")), Ok(rules)) => block(
            BlockerId::Mode,
            format!("kube-proxy runs in {word} mode, and the rules on this node are of {} mode", rules.mode.word()),
            Vec::new(),
            "see in kube-proxy's log why it writes none; what an earlier one left goes with its --cleanup",
        ),
        (Some(word), _) => block(
            BlockerId::Mode,
            format!(
                "kube-proxy runs in {word} mode; this release moves nodes from iptables, nftables and ipvs mode only"
            ),
            Vec::new(),
            MODE_REMEDY,
        ),
    }
    if let Err(reason) = &survey.api {
        block(
            BlockerId::NoApi,
            format!("there are no API objects to compare the rules with: {reason}"),
            Vec::new(),
            "give a kubeconfig with --kubeconfig, or the objects with --services-from FILE|DIR (kubectl get \
             svc,endpointslices,nodes -A -o json)",
        );
    }
    match &survey.rules {
        Err(reason) => block(
            BlockerId::NoRules,
            format!("there are no rules of kube-proxy: {reason}"),
            Vec::new(),
            "check that kube-proxy runs on this node in iptables, nftables or ipvs mode, and that --netns names the \
             node's namespace",
        ),
        Ok(rules) => rule_blockers(rules, &mut block),
    }
    let stale = survey.proxy.stale();
    if !stale.is_empty() {
        block(
            BlockerId::ProxyStale,
            "kube-proxy's rules may be behind the API".to_owned(),
            stale,
            "read kube-proxy's log on this node and let it finish a sync, then plan again",
        );
    }
    if let (Ok(api), Ok(rules)) = (&survey.api, &survey.rules) {
        let differences: Vec<String> =
            rules.mode.differences(&api.table, &rules.table).iter().map(describe_difference).collect();
        if !differences.is_empty() {
            block(
                BlockerId::TablesDiffer,
                format!("API objects and rules differ in {} places", differences.len()),
                first_few(differences, "differences"),
                &format!(
                    "see all of them with kpx diff api {}; kube-proxy on this node must come in step first",
                    rules.mode.word()
                ),
            );
        }
    }
    let policies = policies(survey);
    if !policies.is_empty() && !wishes.accept.contains(&Accept::IpvsPolicies) {
        block(
            BlockerId::IpvsPolicies,
            format!("eBPF would serve {} frontends as the API asks for, which ipvs mode does not", policies.len()),
            first_few(policies, "frontends"),
            POLICIES_REMEDY,
        );
    }
    if let Ok(api) = &survey.api {
        let conflicts = conflicts(&api.table, |group| group.iter().any(|f| blocks(f)));
        if !conflicts.is_empty() {
            block(
                BlockerId::ConflictingAddresses,
                "a ClusterIP is claimed more than once".to_owned(),
                first_few(conflicts, "addresses"),
                CONFLICT_REMEDY,
            );
        }
    }
    if let Some(host) = &survey.host {
        let first: Vec<String> =
            host.foreign_hooks.iter().filter(|h| h.position == Position::Before).map(describe_hook).collect();
        if !first.is_empty() {
            block(
                BlockerId::ForeignHook,
                "another owner's programs run before kpx's and could translate first".to_owned(),
                first_few(first, "programs"),
                "find the owner (bpftool cgroup tree; Cilium and Calico attach such programs) and remove its \
                 socket load balancing, or give another cgroup with --cgroup",
            );
        }
        if !host.missing_capabilities.is_empty() {
            block(
                BlockerId::Capabilities,
                format!("this process lacks {}", host.missing_capabilities.join(", ")),
                Vec::new(),
                "run as root, or give these capabilities",
            );
        }
        if let Some(problem) = &host.cgroup_problem {
            block(
                BlockerId::Cgroup,
                problem.clone(),
                Vec::new(),
                "give a directory of a cgroup2 file system with --cgroup; to mount one: mount -t cgroup2 none DIR",
            );
        }
        if let Some(problem) = &host.bpffs_problem {
            block(
                BlockerId::Bpffs,
                problem.clone(),
                Vec::new(),
                "mount one: mount -t bpf bpf /sys/fs/bpf; or give a directory on one with --bpffs",
            );
        }
    }
    out.sort_by_key(|b| b.id);
    out
}

fn rule_blockers(rules: &Rules, block: &mut impl FnMut(BlockerId, String, Vec<String>, &str)) {
    let mut by_id: BTreeMap<BlockerId, Vec<String>> = BTreeMap::new();
    for (id, text) in &rules.blocking {
        by_id.entry(*id).or_default().push(text.clone());
    }
    for (id, details) in by_id {
        let (reason, remedy) = match id {
            BlockerId::OtherVariant => (
                "rules of an earlier kube-proxy stand as well; both sets act on every packet".to_owned(),
                match rules.mode.variant().map(Variant::other) {
                    Some(other) => format!(
                        "look with iptables-{other}-save, and with nft list table ip kube-proxy; remove them with the \
                         kube-proxy --cleanup that uses iptables-{other}"
                    ),
                    None if rules.mode == RulesMode::Ipvs => {
                        "look with iptables-save and nft list table ip kube-proxy; delete its chains (KUBE-SVC-, KUBE-SEP- and \
                         their like) or tables, but not by kube-proxy --cleanup, which empties IPVS too"
                            .to_owned()
                    }
                    None => "look with iptables-legacy-save and iptables-nft-save; remove them with the kube-proxy \
                             --cleanup that uses that iptables"
                        .to_owned(),
                },
            ),
            BlockerId::Mode => {
                ("the rules are not (only) those of kube-proxy in this mode".to_owned(), MODE_REMEDY.to_owned())
            }
            BlockerId::ConflictingAddresses => {
                ("a ClusterIP is hidden by another Service's rules".to_owned(), CONFLICT_REMEDY.to_owned())
            }
            _ => (
                "rules in kube-proxy's chains are not as any known kube-proxy writes them".to_owned(),
                "find out who wrote them: what kpx does not understand it cannot serve the same way".to_owned(),
            ),
        };
        block(id, reason, first_few(details, "remarks"), &remedy);
    }
}

fn conflicts(table: &ServiceTable, keep: impl Fn(&[&Frontend]) -> bool) -> Vec<String> {
    let groups = table.conflicts().into_iter().filter(|c| keep(&c.frontends));
    groups
        .map(|c| {
            let names: Vec<_> =
                c.frontends.iter().map(|f| format!("{} ({})", f.display_name(), f.key.exposure)).collect();
            format!("{}: {}", c.frontends[0].key, names.join(", "))
        })
        .collect()
}

/// The frontends whose packets eBPF would treat otherwise than kube-proxy's mode does, each in a line.
fn policies(survey: &Survey) -> Vec<String> {
    let (Ok(api), Ok(rules)) = (&survey.api, &survey.rules) else { return Vec::new() };
    let made = rules.mode.made_of(&api.table);
    let differences = diff(&api.table, &made);
    let of_frontends = |difference: &&Difference| matches!(difference, Difference::Frontend { .. });
    let mut found: Vec<&Difference> = differences.iter().filter(of_frontends).collect();
    // First those that would serve nobody.
    found.sort_by_key(|difference| match difference {
        Difference::Frontend { fields, .. } => !fields.iter().any(|field| field.field == "no_backends"),
        _ => true,
    });
    found.into_iter().map(|difference| describe(difference, "eBPF", "ipvs mode")).collect()
}

/// One line for a difference between the API (A) and the rules (B).
pub(super) fn describe_difference(difference: &Difference) -> String {
    describe(difference, "API", "rules")
}

fn describe(difference: &Difference, a: &str, b: &str) -> String {
    let side = |s: &crate::model::Side| {
        let name = s.service.as_deref().unwrap_or("<unknown>");
        format!("{name} {} {}/{}", s.kind, std::net::SocketAddr::new(s.ip, s.port), s.protocol)
    };
    let fields = |fields: &[crate::model::FieldDifference]| {
        let parts: Vec<_> = fields.iter().map(|f| format!("{}: {a} {}, {b} {}", f.field, f.a, f.b)).collect();
        parts.join("; ")
    };
    match difference {
        Difference::OnlyInA(s) => format!("{}: in the {a}, not in the {b}", side(s)),
        Difference::OnlyInB(s) => format!("{}: in the {b} ({}), not in the {a}", side(s), s.from),
        Difference::Frontend { side: s, fields: f, .. } => format!("{}: {}", side(s), fields(f)),
        Difference::Node { family, field } => {
            format!("{family}: {}", fields(std::slice::from_ref(field)))
        }
        Difference::HealthCheck { port, field } => {
            format!("health check port {port}: {}", fields(std::slice::from_ref(field)))
        }
    }
}

fn warnings(survey: &Survey, wishes: &Wishes) -> Vec<Warning> {
    let mut out = Vec::new();
    let mut warn = |text: String, details: Vec<String>| out.push(Warning { text, details });
    if survey.host.is_none() {
        warn("this is a snapshot: capabilities, cgroup, hooks and bpf file system were not looked at".into(), vec![]);
    }
    if !survey.proxy.is_alive() {
        warn(
            "kube-proxy does not answer here: if it is gone, nothing keeps the rules in step with the API".into(),
            vec![],
        );
    }
    if wishes.accept.contains(&Accept::IpvsPolicies) {
        let policies = policies(survey);
        if !policies.is_empty() {
            let text =
                format!("accepted: {} frontends are served as the API asks for, not as ipvs mode does", policies.len());
            warn(text, first_few(policies, "frontends"));
        }
    }
    if let Verdict::Unknown { why, remedy } = &survey.run_by.verdict {
        warn(format!("kpx does not know how to stop kube-proxy here: {why}"), vec![remedy.clone()]);
    }
    warn(
        "endpoints that change after apply reach eBPF by the agent (kpx agent), which has to run before kube-proxy is \
         stopped: phase stop looks whether it does"
            .into(),
        vec![],
    );
    if survey.forward_drops_in_nftables {
        warn(
            "an nftables table drops what it does not accept in hook forward: it has to accept packets that conntrack \
             does not track (ct state untracked) as well, or flows that change hands are dropped there"
                .into(),
            vec![],
        );
    }
    if let Ok(api) = &survey.api {
        let harmless = conflicts(&api.table, |group| !group.iter().any(|f| blocks(f)));
        if !harmless.is_empty() {
            warn("addresses claimed more than once; they stay with the rules".into(), first_few(harmless, "addresses"));
        }
        let direct: BTreeSet<String> = api
            .table
            .frontends()
            .iter()
            .filter(|f| f.forwarding == Some(ForwardingMode::Dsr))
            .filter_map(|f| f.service.as_ref().map(ToString::to_string))
            .collect();
        if !direct.is_empty() {
            let names = first_few(direct.into_iter().collect(), "Services");
            warn(
                "Services with kpx.dev/forwarding-mode: dsr: it has no effect before kpx agent --dsr, and the network must \
                 then allow"
                    .into(),
                names.into_iter().chain(DSR_NEEDS.map(|need| format!("needed: {need}"))).collect(),
            );
        }
        if !api.notices.is_empty() {
            warn("remarks on the API objects".into(), first_few(api.notices.clone(), "remarks"));
        }
    }
    if let Ok(rules) = &survey.rules
        && !rules.notices.is_empty()
    {
        warn("remarks on the rules".into(), first_few(rules.notices.clone(), "remarks"));
    }
    let behind: Vec<String> = survey
        .host
        .iter()
        .flat_map(|h| &h.foreign_hooks)
        .filter(|h| h.position == Position::After)
        .map(describe_hook)
        .collect();
    if !behind.is_empty() {
        warn(
            "other owners' programs run behind kpx's and see translated addresses".into(),
            first_few(behind, "programs"),
        );
    }
    out
}

/// Whether a contested address stands in the way if this frontend is one of those that claim it: a ClusterIP never should
/// be contested. Other contested addresses simply stay with the rules.
fn blocks(f: &Frontend) -> bool {
    f.key.exposure == Exposure::ClusterIp && served_at_sockets(f).is_ok()
}

fn coexistence(survey: &Survey) -> Vec<String> {
    let mut out = Vec::new();
    if let Ok(rules) = &survey.rules {
        let total: usize = rules.counts.values().sum();
        let parts: Vec<_> = rules.counts.iter().map(|(family, n)| format!("{family} {n}")).collect();
        let what = if rules.mode == RulesMode::Ipvs { "virtual services and rules" } else { "rules" };
        out.push(format!(
            "{total} {what} of kube-proxy stand on this node now ({}); phase remove takes them away",
            parts.join(", ")
        ));
    }
    out.push(
        "before phase packets, traffic that does not come from a socket of the cgroup (from outside, forwarded) stays with \
         the rules"
            .to_owned(),
    );
    out.push(
        "before phase handover, connections that are open stay as they are; only new ones are served by eBPF"
            .to_owned(),
    );
    if survey.rules.as_ref().is_ok_and(|rules| rules.mode == RulesMode::Ipvs) {
        out.push(
            "packets to Services pass this node's INPUT rules now; with eBPF they pass its FORWARD rules, as in kube-proxy's \
             other modes"
                .to_owned(),
        );
    }
    out.push(
        "while the rules stand, every new connection of this node still walks them, also to addresses that are no \
         Service"
            .to_owned(),
    );
    if survey.rules.as_ref().is_ok_and(|rules| rules.mode.variant().is_some()) {
        out.push(
            "measured elsewhere, not on this node: with the rules of 10 000 Services a new connection takes \
             149–312 µs, without them 31 µs"
                .to_owned(),
        );
    }
    out
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
