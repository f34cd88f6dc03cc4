//! From layout 1, which had the socket hooks alone, under traffic; and what an older kpx says of a newer layout.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use kpx::dataplane::{Attachment, Capacity, Dataplane, DataplaneError, Mode, Upgrade};
use kpx_abi::{Flags, Frontend, FrontendKey, FrontendRef, LAYOUT_VERSION, List};

use super::ground::{Ground, table};
use super::old;
use super::traffic::{Backends, Client, Traffic};

/// Layout 1 as its kpx filled it: one frontend for each protocol with two backends.
fn layout_1(ground: &Ground) {
    let paths = &ground.paths;
    old::install(&old::object(1), paths, &[]);
    let mut config = [0_u8; 24];
    config[0] = 1;
    config[4] = Mode::Active as u8;
    config[8..16].copy_from_slice(&120_000_000_000_u64.to_ne_bytes());
    let at = Ipv4Addr::new(10, 96, 0, 10).to_ipv6_mapped().octets();
    for (n, protocol) in [(1_u32, 6_u8), (2, 17)] {
        for m in 0..2 {
            let host = u8::try_from(m).expect("small") + 1;
            let mut backend = [0_u8; 24];
            backend[..16].copy_from_slice(&Ipv4Addr::new(127, 0, 0, host).to_ipv6_mapped().octets());
            backend[16..18].copy_from_slice(&8080_u16.to_be_bytes());
            backend[18..20].copy_from_slice(&[protocol, 1]);
            backend[20..].copy_from_slice(&n.to_ne_bytes());
            old::set(paths, "kpx_backends", 2 * n + m, backend);
            old::set(paths, "kpx_slots", 2 * n + m, 2 * n + m);
        }
        let key = FrontendKey::new(at, 80_u16.to_be(), protocol);
        let (cluster, flags) = (List { base: 2 * n, count: 2 }, Flags::MASQUERADE_OFF_CLUSTER);
        old::set(paths, "kpx_frontends", n, Frontend { key, service: n, cluster, flags, ..Frontend::default() });
        old::put(paths, "kpx_index", key, FrontendRef { entry: n });
    }
    old::set(paths, "kpx_config", 0, config);
}

#[test]
fn layout_1_is_taken_over_under_traffic() {
    Ground::with(|ground| {
        ground.route_frontends();
        layout_1(ground);
        let error = Dataplane::adopt(&ground.paths).expect_err("it is of another layout");
        assert!(matches!(error, DataplaneError::Layout { .. }), "{error}");
        let before = old::links(&ground.paths);
        assert_eq!(before.len(), 8);
        let _backends = Backends::start(&[("/proc/self/ns/net", &["127.0.0.1:8080", "127.0.0.2:8080"])]);
        let cgroup = Some(ground.paths.cgroup.as_path());
        let mut traffic = Traffic::start(&[Client { netns: None, cgroup, targets: &["10.96.0.10:80"] }]);
        // A socket of before, whose memory is in a map that user space cannot read as a whole.
        let mut old_client = ground.agent();
        assert!(old_client.ask("udp u 0.0.0.0:0").starts_with("ok"));
        assert_eq!(old_client.ask("connect u 10.96.0.10:80"), "ok");
        std::thread::sleep(Duration::from_secs(2));
        traffic.phase("change");
        let mut dataplane = Dataplane::install(&ground.paths, &Capacity::for_table(&table([]))).expect("taken over");
        assert_eq!(dataplane.upgraded(), Some(&Upgrade { from: 1, to: LAYOUT_VERSION }));
        assert!(
            matches!(dataplane.attachment().unwrap(), Attachment::Partly(missing) if missing == ["kpx_bind4", "kpx_bind6"])
        );
        dataplane.attach().unwrap();
        assert_eq!(old_client.ask("peer u"), "ok 10.96.0.10:80");
        std::thread::sleep(Duration::from_millis(1500));
        traffic.judge();
        assert_eq!(dataplane.mode().unwrap(), Mode::Active);
        for frontend in dataplane.table().unwrap().frontends() {
            let backends: BTreeSet<String> = frontend.cluster.iter().map(|b| b.ip.to_string()).collect();
            assert_eq!(backends, BTreeSet::from(["127.0.0.1".to_owned(), "127.0.0.2".to_owned()]));
        }
        assert_eq!(dataplane.table().unwrap().frontends().len(), 2);
        // The very links, and none of the programs.
        let after = old::links(&ground.paths);
        for (name, id, program) in &before {
            let now = after.iter().find(|(other, ..)| other == name).expect("it is still there");
            assert_eq!(now.1, *id);
            assert_ne!(now.2, *program);
        }
    });
}

#[test]
fn a_newer_layout_is_refused_and_left_alone() {
    Ground::with(|ground| {
        drop(ground.dataplane(&table([]), Mode::Active));
        let config = kpx_abi::Config { layout_version: LAYOUT_VERSION + 1, ..kpx_abi::Config::default() };
        old::set(&ground.paths, "kpx_config", 0, config);
        let before = old::links(&ground.paths);
        for _ in 0..2 {
            let error = Dataplane::install(&ground.paths, &Capacity::default()).expect_err("it is newer");
            assert!(matches!(error, DataplaneError::Newer { .. }), "{error}");
        }
        assert_eq!(old::links(&ground.paths), before);
    });
}
