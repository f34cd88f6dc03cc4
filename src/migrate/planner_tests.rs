use std::path::PathBuf;

use super::super::driver::Found;
use super::super::plan::NodeId;
use super::super::proxy::{Healthz, ProxyHealth};
use super::super::survey::{Host, Lifted, OpenMigration};
use super::*;
use crate::dataplane::ForeignHook;
use crate::inspect::proxy_rules::RulesMode;
use crate::model::{
    Backend, Exposure, Family, FrontendKey, Masquerade, NodeFacts, Origin, Policy, Protocol, ServiceName,
};

fn frontend(name: &str, ip: &str, exposure: Exposure, backend: &str) -> Frontend {
    let backend = Backend { ip: backend.parse().unwrap(), port: 8080, weight: 1, local: None, state: None };
    Frontend {
        key: FrontendKey { ip: ip.parse().unwrap(), port: 80, protocol: Protocol::Tcp, exposure },
        service: Some(ServiceName { namespace: "shop".into(), name: name.into() }),
        port_name: Some("http".into()),
        cluster: vec![backend],
        local: vec![],
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity: None,
        sources: vec![],
        masquerade: Masquerade::OffCluster,
        no_backends: None,
        selection: None,
        forwarding: None,
        origin: Origin::Object {
            kind: "Service",
            name: ServiceName { namespace: "shop".into(), name: name.into() },
            field: "spec.ports[0]".into(),
        },
    }
}

fn table(frontends: Vec<Frontend>) -> ServiceTable {
    ServiceTable::new(frontends, NodeFacts::default(), NodeFacts::default())
}

/// The same, where no hook sees its sockets.
fn sctp(mut frontend: Frontend) -> Frontend {
    frontend.key.protocol = Protocol::Sctp;
    frontend
}

fn two() -> ServiceTable {
    table(vec![
        frontend("web", "10.96.0.1", Exposure::ClusterIp, "10.244.1.2"),
        sctp(frontend("web", "192.0.2.1", Exposure::ExternalIp, "10.244.1.2")),
    ])
}

/// Its plan, with nothing wished for.
fn planned(survey: &Survey) -> Plan {
    plan(survey, &Wishes::default())
}

/// A node on which nothing stands in the way.
fn survey() -> Survey {
    Survey {
        node: NodeId { name: "node-a".into(), boot_id: Some("boot".into()), netns: Some(4_026_531_840) },
        api: Ok(Lifted { table: two(), notices: vec![] }),
        rules: Ok(Rules {
            mode: RulesMode::IptablesNft,
            table: two(),
            counts: [(Family::V4, 30), (Family::V6, 4)].into(),
            blocking: vec![],
            notices: vec![],
        }),
        used_marks: 0,
        forward_drops_in_nftables: false,
        hashes: [("rules iptables-nft IPv4".to_owned(), "aa".to_owned())].into(),
        proxy: ProxyHealth {
            mode: Some("iptables".into()),
            healthz: Some(Healthz { ok: true, status: "HTTP/1.1 200 OK".into(), now: None }),
            ..ProxyHealth::default()
        },
        run_by: Found::default(),
        host: Some(Host::default()),
        cgroup: "/sys/fs/cgroup".into(),
        pins: "/sys/fs/bpf/kpx".into(),
        open_migration: None,
    }
}

/// The one blocker that a change to a good survey brings.
fn only_blocker(change: impl FnOnce(&mut Survey)) -> Blocker {
    let mut survey = survey();
    change(&mut survey);
    let mut blockers = planned(&survey).blockers;
    assert_eq!(blockers.len(), 1, "{blockers:?}");
    blockers.remove(0)
}

fn rules(survey: &mut Survey) -> &mut Rules {
    survey.rules.as_mut().unwrap()
}

#[test]
fn a_good_node_gets_a_plan_that_may_be_applied() {
    let plan = planned(&survey());
    assert_eq!(plan.blockers, []);
    assert_eq!(
        plan.counts_line(),
        "Plan: 1 frontends to eBPF sockets and 1 to the packet path alone, 10 programs to attach to sockets, 34 rules to delete"
    );
    let fates: Vec<_> = plan
        .frontends
        .iter()
        .map(|f| (f.exposure, f.served_by[&PhaseName::Shadow], f.served_by[&PhaseName::Sockets]))
        .collect();
    assert_eq!(
        fates,
        [(Exposure::ClusterIp, Server::Rules, Server::Ebpf), (Exposure::ExternalIp, Server::Rules, Server::Rules)]
    );
    assert!(plan.frontends[1].reason.as_deref().is_some_and(|r| r.contains("sockets")));
    assert!(plan.coexistence[0].starts_with("34 rules of kube-proxy stand on this node now (IPv4 30, IPv6 4)"));
}

#[test]
fn two_plans_of_one_node_are_equal_and_a_plan_survives_its_file() {
    let (a, b) = (planned(&survey()), planned(&survey()));
    assert_eq!(a, b);
    assert_eq!(a.to_json(), b.to_json());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node-a.plan");
    a.write(&file).unwrap();
    assert_eq!(Plan::read(&file).unwrap(), a);
    fs_err::write(&file, a.to_json().replace("\"version\": 2", "\"version\": 99")).unwrap();
    let refused = Plan::read(&file).unwrap_err().to_string();
    assert!(refused.contains("version 99") && refused.contains("version 2"), "{refused}");
}

#[test]
fn what_changed_since_a_plan_is_named() {
    let then = planned(&survey());
    let mut later = survey();
    later.node.boot_id = Some("other".into());
    later.hashes.insert("rules iptables-nft IPv4".into(), "bb".into());
    let mut frontends = two().frontends().to_vec();
    frontends[0].cluster[0].port = 9090;
    later.api = Ok(Lifted { table: table(frontends), notices: vec![] });
    let changes = then.changes(&planned(&later));
    assert_eq!(
        changes,
        [
            "boot: boot then, other now",
            "API objects: changed",
            "rules iptables-nft IPv4: changed",
            "shop/web:http ClusterIP 10.96.0.1:80/TCP: changed",
        ]
    );
    assert_eq!(then.changes(&planned(&survey())), Vec::<String>::new());
}

#[test]
fn differing_tables_block_and_each_difference_is_named() {
    let blocker = only_blocker(|s| {
        let mut frontends = two().frontends().to_vec();
        frontends[0].cluster[0].port = 9090;
        rules(s).table = table(frontends);
    });
    assert_eq!(blocker.id, BlockerId::TablesDiffer);
    assert_eq!(blocker.details.len(), 1);
    assert!(blocker.details[0].contains("shop/web ClusterIP 10.96.0.1:80/TCP"), "{:?}", blocker.details);
    assert!(blocker.details[0].contains("10.244.1.2:9090"), "{:?}", blocker.details);
}

#[test]
fn services_that_the_rules_lack_block_and_long_lists_are_cut() {
    let blocker = only_blocker(|s| {
        let many =
            (1..=20).map(|i| frontend(&format!("s{i}"), &format!("10.96.1.{i}"), Exposure::ClusterIp, "10.1.1.1"));
        s.api = Ok(Lifted { table: table(two().frontends().iter().cloned().chain(many).collect()), notices: vec![] });
    });
    assert_eq!(blocker.id, BlockerId::TablesDiffer);
    assert_eq!(blocker.reason, "API objects and rules differ in 20 places");
    assert_eq!(blocker.details.last().unwrap(), "and 15 more differences");
    assert!(blocker.details[0].ends_with("in the API, not in the rules"));
}

#[test]
fn a_program_that_runs_first_blocks_and_one_behind_is_a_warning() {
    let hook = |position| ForeignHook {
        hook: "connect4".into(),
        cgroup: PathBuf::from("/sys/fs/cgroup"),
        program_id: 7,
        name: "cil_sock4_connect".into(),
        position,
    };
    let blocker = only_blocker(|s| s.host.as_mut().unwrap().foreign_hooks = vec![hook(Position::Before)]);
    assert_eq!(blocker.id, BlockerId::ForeignHook);
    assert!(blocker.details[0].contains("cil_sock4_connect"));
    let mut behind = survey();
    behind.host.as_mut().unwrap().foreign_hooks = vec![hook(Position::After)];
    let plan = planned(&behind);
    assert_eq!(plan.blockers, []);
    assert!(plan.warnings.iter().any(|w| w.details.iter().any(|d| d.contains("cil_sock4_connect"))));
}

#[test]
fn a_proxy_that_is_behind_or_unwell_blocks() {
    let blocker = only_blocker(|s| {
        s.proxy.healthz = Some(Healthz { ok: false, status: "HTTP/1.1 503 Service Unavailable".into(), now: None });
    });
    assert_eq!(blocker.id, BlockerId::ProxyStale);
    assert_eq!(blocker.details, ["/healthz answers HTTP/1.1 503 Service Unavailable"]);
}

#[test]
fn each_remark_on_the_rules_blocks_under_its_own_name() {
    for id in [BlockerId::UnknownRules, BlockerId::OtherVariant, BlockerId::Mode, BlockerId::ConflictingAddresses] {
        let blocker = only_blocker(|s| rules(s).blocking = vec![(id, "IPv4 nat KUBE-SVC-X rule 1".into())]);
        assert_eq!(blocker.id, id);
        assert_eq!(blocker.details, ["IPv4 nat KUBE-SVC-X rule 1"]);
    }
}

#[test]
fn another_mode_blocks_and_says_what_to_do() {
    let blocker = only_blocker(|s| s.proxy.mode = Some("userspace".into()));
    assert_eq!(blocker.id, BlockerId::Mode);
    assert!(blocker.reason.contains("userspace") && blocker.remedy.contains("nftables"), "{blocker:?}");
}

#[test]
fn a_mode_that_is_not_the_rules_blocks() {
    let blocker = only_blocker(|s| s.proxy.mode = Some("nftables".into()));
    assert_eq!(blocker.id, BlockerId::Mode);
    assert!(blocker.reason.contains("the rules on this node are of iptables mode"), "{blocker:?}");
}

#[test]
fn a_node_of_nftables_mode_gets_a_plan() {
    let mut survey = survey();
    survey.proxy.mode = Some("nftables".into());
    rules(&mut survey).mode = RulesMode::Nftables;
    let plan = planned(&survey);
    assert_eq!(plan.blockers, []);
    assert_eq!((plan.source.dataplane.as_str(), plan.source.mode), ("kube-proxy nftables", Some(RulesMode::Nftables)));
    let steps = plan.phases.iter().flat_map(|phase| &phase.steps);
    let accept = steps.filter(|step| step.step == "accept-forwarded").map(|step| step.text.as_str()).next();
    // kube-proxy's tables accept nothing.
    assert!(accept.is_some_and(|text| text.contains("taken over") && !text.contains("established")), "{accept:?}");
}

/// In ipvs mode a Local policy without an endpoint here is served from other nodes.
fn ipvs() -> Survey {
    let local = Frontend {
        external_policy: Policy::Local,
        no_backends: Some(crate::model::NoBackends::Drop),
        ..frontend("edge", "192.0.2.9", Exposure::LoadBalancer, "10.244.2.9")
    };
    let asked = table(two().frontends().iter().cloned().chain([local]).collect());
    let mut survey = survey();
    survey.proxy.mode = Some("ipvs".into());
    let made = RulesMode::Ipvs.made_of(&asked).into_owned();
    *rules(&mut survey) = Rules { mode: RulesMode::Ipvs, table: made, ..rules(&mut survey).clone() };
    survey.api = Ok(Lifted { table: asked, notices: vec![] });
    survey
}

#[test]
fn what_ipvs_mode_does_otherwise_blocks_until_it_is_accepted() {
    let survey = ipvs();
    let plan = planned(&survey);
    let ids: Vec<_> = plan.blockers.iter().map(|blocker| blocker.id).collect();
    assert_eq!(ids, [BlockerId::IpvsPolicies], "{:?}", plan.blockers);
    let details = plan.blockers[0].details.join("\n");
    assert!(details.contains("shop/edge") && details.contains("eBPF drop"), "{details}");
    let wishes = Wishes { accept: vec![Accept::IpvsPolicies], ..Wishes::default() };
    let plan = super::plan(&survey, &wishes);
    assert_eq!(plan.blockers, []);
    assert_eq!((plan.source.dataplane.as_str(), plan.source.mode), ("kube-proxy ipvs", Some(RulesMode::Ipvs)));
    assert!(plan.warnings.iter().any(|w| w.details.iter().any(|detail| detail.contains("shop/edge"))));
    // And what the rules lack still blocks.
    let mut lacking = survey;
    rules(&mut lacking).table = two();
    assert_eq!(super::plan(&lacking, &wishes).blockers[0].id, BlockerId::TablesDiffer);
}

#[test]
fn in_ipvs_mode_servers_are_drained_before_anything_goes_and_the_end_of_patience_is_said() {
    let remove = |accept: Vec<Accept>| {
        let plan = super::plan(&ipvs(), &Wishes { accept, ..Wishes::default() });
        let phase = plan.phases.into_iter().find(|phase| phase.phase == PhaseName::Remove).unwrap();
        phase.steps.into_iter().map(|step| (step.step, step.text)).collect::<Vec<_>>()
    };
    let steps = remove(vec![]);
    let ids: Vec<_> = steps.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["drain-servers", "remove-rules"]);
    let whole = super::plan(&ipvs(), &Wishes::default()).phases;
    assert!(whole.iter().any(|phase| phase.phase == PhaseName::Handover && phase.steps[1].step == "carry-sockets"));
    assert!(steps[1].1.contains("--drain-timeout") && steps[1].1.contains("stop here"), "{steps:?}");
    let steps = remove(vec![Accept::CutConnections]);
    assert!(steps[1].1.contains("is cut"), "{steps:?}");
    let others = planned(&survey()).phases;
    assert!(others.iter().flat_map(|phase| &phase.steps).all(|step| step.step != "drain-servers"));
}

#[test]
fn what_is_missing_blocks() {
    let host = |s: &mut Survey, change: fn(&mut Host)| change(s.host.as_mut().unwrap());
    assert_eq!(only_blocker(|s| s.api = Err("no kubeconfig".into())).id, BlockerId::NoApi);
    assert_eq!(only_blocker(|s| s.rules = Err("neither variant holds any".into())).id, BlockerId::NoRules);
    let capabilities = only_blocker(|s| host(s, |h| h.missing_capabilities = vec!["CAP_BPF".into()]));
    assert_eq!(
        (capabilities.id, capabilities.reason.as_str()),
        (BlockerId::Capabilities, "this process lacks CAP_BPF")
    );
    let cgroup = only_blocker(|s| host(s, |h| h.cgroup_problem = Some("no cgroup2 hierarchy is mounted".into())));
    assert_eq!(cgroup.id, BlockerId::Cgroup);
    let bpffs = only_blocker(|s| host(s, |h| h.bpffs_problem = Some("/x is not on a bpf file system".into())));
    assert_eq!(bpffs.id, BlockerId::Bpffs);
}

#[test]
fn an_unfinished_migration_blocks_another_one() {
    for (complete, word) in [(false, "unfinished"), (true, "in force")] {
        let blocker = only_blocker(|s| s.open_migration = Some(OpenMigration { id: "20261124".into(), complete }));
        assert_eq!(blocker.id, BlockerId::MigrationOpen);
        assert!(blocker.reason.contains(word) && blocker.remedy.contains("rollback"));
    }
}

#[test]
fn a_contested_cluster_ip_blocks_and_other_contested_addresses_do_not() {
    let contested = |exposure: Exposure| {
        let mut frontends = two().frontends().to_vec();
        let ip = if exposure == Exposure::ClusterIp { "10.96.0.1" } else { "192.0.2.1" };
        let mut thief = frontend("thief", ip, Exposure::LoadBalancer, "10.244.1.9");
        thief.key.protocol = if exposure == Exposure::ClusterIp { Protocol::Tcp } else { Protocol::Sctp };
        frontends.push(thief);
        table(frontends)
    };
    let blocker = only_blocker(|s| {
        s.api = Ok(Lifted { table: contested(Exposure::ClusterIp), notices: vec![] });
        rules(s).table = contested(Exposure::ClusterIp);
    });
    assert_eq!(blocker.id, BlockerId::ConflictingAddresses);
    assert!(blocker.details[0].contains("shop/thief:http (LoadBalancer)"), "{:?}", blocker.details);
    let mut survey = survey();
    survey.api = Ok(Lifted { table: contested(Exposure::ExternalIp), notices: vec![] });
    rules(&mut survey).table = contested(Exposure::ExternalIp);
    let plan = planned(&survey);
    assert_eq!(plan.blockers, []);
    assert!(plan.warnings.iter().any(|w| w.text.contains("more than once")));
}

#[test]
fn every_blocker_has_a_remedy() {
    let mut bad = survey();
    bad.api = Err("x".into());
    bad.rules = Err("x".into());
    bad.proxy.mode = Some("userspace".into());
    bad.open_migration = Some(OpenMigration { id: "1".into(), complete: false });
    let plan = planned(&bad);
    assert!(plan.is_blocked());
    assert!(plan.blockers.iter().all(|b| b.remedy.len() > 10));
}

#[test]
fn a_snapshot_says_what_was_not_looked_at() {
    let mut snapshot = survey();
    snapshot.host = None;
    snapshot.proxy = ProxyHealth::default();
    let plan = planned(&snapshot);
    assert_eq!(plan.blockers, []);
    assert!(plan.warnings[0].text.contains("snapshot"));
    assert!(plan.warnings[1].text.contains("does not answer"));
}

#[test]
fn what_direct_server_return_asks_of_the_network_is_said() {
    let direct = || {
        let vip = Frontend {
            forwarding: Some(ForwardingMode::Dsr),
            ..frontend("web", "192.0.2.1", Exposure::LoadBalancer, "10.244.1.2")
        };
        table(vec![frontend("web", "10.96.0.1", Exposure::ClusterIp, "10.244.1.2"), vip])
    };
    let mut survey = survey();
    survey.api = Ok(Lifted { table: direct(), notices: vec![] });
    // Rules know nothing of it, which is no difference.
    rules(&mut survey).table =
        table(direct().frontends().iter().map(|frontend| Frontend { forwarding: None, ..frontend.clone() }).collect());
    let asks = planned(&survey);
    assert_eq!(asks.blockers, []);
    let warning = asks.warnings.iter().find(|w| w.text.contains("kpx agent --dsr")).unwrap();
    assert_eq!(warning.details[0], "shop/web");
    assert!(warning.details.iter().any(|detail| detail.contains("protocols 4 and 41")));
    assert!(!planned(&self::survey()).warnings.iter().any(|w| w.text.contains("dsr")));
}
