//! The lookup, on maps of the test's own.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use kpx_abi::{
    ATTEMPTS, Addr, AddressFlags, Affinity, AffinityKey, Backend, BackendFlags, BackendState, DropReason, Exposure,
    Flags, Frontend, FrontendKey, List, Maps, NetworkFlags, Origin, Request, Verdict, keeps, lookup, stand_in,
};
use proptest::prelude::*;

#[derive(Default)]
struct Tables {
    index: HashMap<FrontendKey, u32>,
    /// What the index says at the next readings, before what it says for good.
    stale: Cell<Vec<u32>>,
    frontends: Vec<Frontend>,
    slots: Vec<u32>,
    backends: Vec<Backend>,
    addresses: HashMap<Addr, AddressFlags>,
    networks: HashMap<Addr, NetworkFlags>,
    sources: HashSet<(u32, Addr)>,
    affinity: HashMap<AffinityKey, Affinity>,
}

impl Maps for Tables {
    fn entry(&self, key: &FrontendKey) -> Option<u32> {
        let mut stale = self.stale.take();
        let first = stale.pop();
        self.stale.set(stale);
        first.or_else(|| self.index.get(key).copied())
    }

    fn frontend(&self, entry: u32) -> Option<&Frontend> {
        self.frontends.get(entry as usize)
    }

    fn slot(&self, index: u32) -> u32 {
        self.slots.get(index as usize).copied().unwrap_or(0)
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(id as usize)
    }

    fn address(&self, addr: &Addr) -> AddressFlags {
        self.addresses.get(addr).copied().unwrap_or_default()
    }

    fn network(&self, addr: &Addr) -> NetworkFlags {
        self.networks.get(addr).copied().unwrap_or_default()
    }

    fn source(&self, service: u32, addr: &Addr) -> bool {
        self.sources.contains(&(service, *addr))
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinity.get(key).copied()
    }
}

fn addr(text: &str) -> Addr {
    match text.parse().expect("an address") {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

const SERVICE: u32 = 7;

fn key(port: u16) -> FrontendKey {
    FrontendKey::new([9; 16], port.to_be(), 6)
}

fn backend(n: u8) -> Backend {
    let state = BackendState::Active as u8;
    Backend { addr: [n; 16], port: 80, proto: 6, state, service: SERVICE, flags: BackendFlags::default() }
}

/// A new flow of a pod to this destination.
fn to(key: FrontendKey) -> Request {
    Request { key, origin: Origin::Pod, client: addr("10.244.1.7"), random: 0, hash: 0, now_ns: 0 }
}

/// A frontend on port 80 with so many backends in its lists: ids 1 and up for Cluster, the last ones of them for Local.
fn tables(cluster: u32, local: u32, flags: Flags) -> Tables {
    let lists = (List { base: 1, count: cluster }, List { base: 1 + cluster - local, count: local });
    let frontend = Frontend { key: key(80), service: SERVICE, cluster: lists.0, local: lists.1, flags, affinity: 0 };
    Tables {
        index: HashMap::from([(key(80), 1)]),
        frontends: vec![Frontend::default(), frontend],
        slots: (0..=cluster).collect(),
        backends: (0..=cluster).map(|n| if n == 0 { Backend::default() } else { backend(n as u8) }).collect(),
        ..Tables::default()
    }
}

fn id(verdict: Verdict<'_>) -> u32 {
    match verdict {
        Verdict::Backend { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

fn masqueraded(verdict: Verdict<'_>) -> bool {
    match verdict {
        Verdict::Backend { masquerade, .. } => masquerade,
        other => panic!("{other:?}"),
    }
}

fn never() {
    panic!("nothing to repeat");
}

const EXTERNAL: [Exposure; 3] = [Exposure::NodePort, Exposure::LoadBalancer, Exposure::ExternalIp];

#[test]
fn an_address_that_is_no_frontend_is_none() {
    let maps = tables(3, 0, Flags::default());
    assert!(matches!(lookup(&maps, &to(key(81)), never), Verdict::NotService));
    let udp = FrontendKey::new([9; 16], 80_u16.to_be(), 17);
    assert!(matches!(lookup(&maps, &to(udp), never), Verdict::NotService));
}

#[test]
fn each_exposure_follows_its_own_policy() {
    let local = Flags::INTERNAL_LOCAL.with(Flags::EXTERNAL_LOCAL, true);
    let chosen = |exposure, flags: Flags, origin| {
        let request = Request { origin, ..to(key(80)) };
        id(lookup(&tables(3, 1, flags.with_exposure(exposure)), &request, never))
    };
    for origin in [Origin::Outside, Origin::Pod, Origin::Node] {
        assert_eq!(chosen(Exposure::ClusterIp, Flags::EXTERNAL_LOCAL, origin), 1);
        assert_eq!(chosen(Exposure::ClusterIp, local, origin), 3);
        for exposure in EXTERNAL {
            assert_eq!(chosen(exposure, Flags::INTERNAL_LOCAL, origin), 1);
            // Traffic from inside of the cluster takes the short cut.
            assert_eq!(chosen(exposure, local, origin), if origin == Origin::Outside { 3 } else { 1 });
        }
    }
}

#[test]
fn an_empty_list_is_refused_or_silent_as_the_frontend_says() {
    let verdict = |flags: Flags, origin| match lookup(&tables(0, 0, flags), &Request { origin, ..to(key(80)) }, never) {
        Verdict::Reject { service: SERVICE } => "reject",
        Verdict::Drop { service: SERVICE, why: DropReason::NoLocalEndpoint } => "drop",
        other => panic!("{other:?}"),
    };
    assert_eq!(verdict(Flags::default(), Origin::Pod), "reject");
    assert_eq!(verdict(Flags::EMPTY_DROPS.with(Flags::INTERNAL_LOCAL, true), Origin::Pod), "drop");
    let external = Flags::EMPTY_DROPS.with(Flags::EXTERNAL_LOCAL, true).with_exposure(Exposure::NodePort);
    assert_eq!(verdict(external, Origin::Outside), "drop");
    assert_eq!(verdict(external, Origin::Pod), "reject", "kube-proxy has no rule to drop what takes the short cut");
}

#[test]
fn a_node_port_answers_on_the_nodes_addresses_of_its_family() {
    let mut maps = tables(3, 0, Flags::default().with_exposure(Exposure::NodePort));
    for family in ["0.0.0.0", "::"] {
        maps.frontends.push(Frontend { key: FrontendKey { addr: addr(family), ..key(80) }, ..maps.frontends[1] });
    }
    maps.index = HashMap::from([(maps.frontends[2].key, 2), (maps.frontends[3].key, 3)]);
    for own in ["192.0.2.1", "127.0.0.1", "2001:db8::1"] {
        maps.addresses.insert(addr(own), AddressFlags::NODEPORT.with(AddressFlags::LOCAL, true));
    }
    maps.addresses.insert(addr("192.0.2.2"), AddressFlags::LOCAL);
    let reached = |destination: &str, origin| {
        let key = FrontendKey { addr: addr(destination), ..key(80) };
        matches!(lookup(&maps, &Request { origin, ..to(key) }, never), Verdict::Backend { .. })
    };
    for origin in [Origin::Outside, Origin::Pod, Origin::Node] {
        assert!(reached("192.0.2.1", origin) && reached("2001:db8::1", origin));
        for other in ["192.0.2.2", "192.0.2.3", "2001:db8::2", "::1"] {
            assert!(!reached(other, origin), "{other} is no address that NodePorts answer on");
        }
        assert_eq!(reached("127.5.5.5", origin), origin == Origin::Node, "a pod's loopback address is its own");
    }
    let elsewhere = FrontendKey::new(addr("192.0.2.1"), 81_u16.to_be(), 6);
    assert!(matches!(lookup(&maps, &to(elsewhere), never), Verdict::NotService));
}

#[test]
fn a_frontend_at_an_address_of_the_node_comes_before_a_node_port() {
    let mut maps = tables(3, 1, Flags::default().with_exposure(Exposure::ExternalIp));
    let wildcard = FrontendKey { addr: addr("0.0.0.0"), ..key(80) };
    let own = FrontendKey { addr: addr("192.0.2.1"), ..key(80) };
    maps.frontends[1].key = own;
    let node_port = Flags::default().with_exposure(Exposure::NodePort);
    maps.frontends.push(Frontend {
        key: wildcard,
        flags: node_port,
        cluster: maps.frontends[1].local,
        ..maps.frontends[1]
    });
    maps.index = HashMap::from([(own, 1), (wildcard, 2)]);
    maps.addresses.insert(own.addr, AddressFlags::NODEPORT);
    assert_eq!(id(lookup(&maps, &to(own), never)), 1);
    maps.index.remove(&own);
    assert_eq!(id(lookup(&maps, &to(own), never)), 3);
}

#[test]
fn ports_and_addresses_that_no_service_has_are_told_apart() {
    let mut maps = tables(3, 0, Flags::default());
    maps.addresses.insert(addr("10.96.0.10"), AddressFlags::CLUSTER_IP);
    maps.networks.insert(addr("10.96.0.11"), NetworkFlags::SERVICE);
    maps.networks.insert(addr("10.244.0.11"), NetworkFlags::POD);
    let verdict = |text| lookup(&maps, &to(FrontendKey { addr: addr(text), ..key(80) }), never);
    assert!(matches!(verdict("10.96.0.10"), Verdict::UndefinedPort));
    assert!(matches!(verdict("10.96.0.11"), Verdict::Unallocated));
    assert!(matches!(verdict("10.244.0.11"), Verdict::NotService));
}

#[test]
fn the_client_is_masqueraded_as_the_rules_would() {
    let local = Flags::EXTERNAL_LOCAL;
    for (exposure, flags, expected) in [
        (Exposure::ClusterIp, Flags::default(), [false, false, false]),
        (Exposure::ClusterIp, Flags::MASQUERADE_OFF_CLUSTER, [true, false, true]),
        (Exposure::ClusterIp, Flags::MASQUERADE_ALWAYS, [true, true, true]),
        (Exposure::NodePort, Flags::MASQUERADE_ALWAYS, [true, true, true]),
        (Exposure::LoadBalancer, local, [false, false, true]),
    ] {
        let maps = tables(3, 1, flags.with_exposure(exposure));
        for (origin, expected) in [Origin::Outside, Origin::Pod, Origin::Node].into_iter().zip(expected) {
            let found = masqueraded(lookup(&maps, &Request { origin, ..to(key(80)) }, never));
            assert_eq!(found, expected, "{exposure:?} {flags:?} {origin:?}");
        }
        let hairpin = Request { client: [1; 16], ..to(key(80)) };
        assert!(masqueraded(lookup(&maps, &hairpin, never)), "a client that meets itself");
    }
}

#[test]
fn source_ranges_let_in_whom_they_hold() {
    let mut maps = tables(3, 0, Flags::SOURCE_RANGES.with_exposure(Exposure::LoadBalancer));
    let request = to(key(80));
    let source = Verdict::Drop { service: SERVICE, why: DropReason::Source };
    assert_eq!(format!("{:?}", lookup(&maps, &request, never)), format!("{source:?}"));
    maps.sources.insert((SERVICE + 1, request.client));
    assert!(matches!(lookup(&maps, &request, never), Verdict::Drop { .. }), "another service's range");
    maps.sources.insert((SERVICE, request.client));
    assert_eq!(id(lookup(&maps, &request, never)), 1);
    let unknown = Request { client: stand_in(5), ..request };
    assert!(matches!(lookup(&maps, &unknown, never), Verdict::Defer { service: SERVICE }));
}

#[test]
fn a_client_is_not_turned_away_by_ranges_that_an_older_entry_asked_for() {
    let mut maps = tables(3, 0, Flags::SOURCE_RANGES.with_exposure(Exposure::LoadBalancer));
    maps.frontends.push(Frontend { flags: Flags::default(), ..maps.frontends[1] });
    maps.index.insert(key(80), 2);
    maps.stale.set(vec![1]);
    assert_eq!(id(lookup(&maps, &to(key(80)), || {})), 1);
}

#[test]
fn affinity_lasts_for_its_time_and_while_the_list_has_the_backend() {
    const SECOND: u64 = 1_000_000_000;
    let mut maps = tables(3, 1, Flags::EXTERNAL_LOCAL.with_exposure(Exposure::LoadBalancer));
    maps.frontends[1].affinity = 30;
    maps.backends[2].flags = BackendFlags::IN_CLUSTER;
    let request = Request { now_ns: 100 * SECOND, ..to(key(80)) };
    let had = |last_ns, backend| Affinity { last_ns, backend, pad: 0 };
    let mut chosen = |found, request: &Request| {
        maps.affinity.insert(to(key(80)).affinity_key(SERVICE), found);
        id(lookup(&maps, request, never))
    };
    assert_eq!(chosen(had(71 * SECOND, 2), &request), 2);
    assert_eq!(chosen(had(70 * SECOND, 2), &request), 1, "it is over");
    assert_eq!(chosen(had(101 * SECOND, 2), &request), 2, "another processor's clock is ahead");
    assert_eq!(chosen(had(99 * SECOND, 99), &request), 1, "there is no such backend");
    let outside = Request { origin: Origin::Outside, ..request };
    assert_eq!(chosen(had(99 * SECOND, 2), &outside), 3, "traffic from outside uses the Local list");
    let other = Request { client: addr("10.244.1.8"), ..request };
    assert_eq!(chosen(had(99 * SECOND, 2), &other), 1, "another client");
}

#[test]
fn affinity_is_remembered_where_it_is_asked_for() {
    let mut maps = tables(3, 0, Flags::default());
    let sticky = |maps: &Tables| matches!(lookup(maps, &to(key(80)), never), Verdict::Backend { sticky: true, .. });
    assert!(!sticky(&maps));
    maps.frontends[1].affinity = 1;
    assert!(sticky(&maps));
}

#[test]
fn the_hash_of_the_flow_picks_the_slot_of_a_maglev_table() {
    let maps = tables(4, 0, Flags::MAGLEV);
    let request = Request { hash: u32::MAX, ..to(key(80)) };
    assert_eq!(id(lookup(&maps, &request, never)), 4);
    assert_eq!(id(lookup(&tables(4, 0, Flags::default()), &request, never)), 1);
}

#[test]
fn a_change_met_half_way_is_looked_at_again() {
    let maps = tables(3, 0, Flags::default());
    // Entry 0 belongs to another key, entry 99 does not exist.
    maps.stale.set(vec![0, 99]);
    let repeated = Cell::new(0);
    assert_eq!(id(lookup(&maps, &to(key(80)), || repeated.set(repeated.get() + 1))), 1);
    assert_eq!(repeated.get(), 2);
    maps.stale.set(vec![0; ATTEMPTS as usize]);
    assert!(matches!(lookup(&maps, &to(key(80)), || {}), Verdict::Missed));
}

#[test]
fn a_slot_that_leads_to_another_services_backend_is_not_followed() {
    for broken in [
        Backend { service: SERVICE + 1, ..backend(1) },
        Backend { state: BackendState::Gone as u8, ..backend(1) },
        Backend::default(),
    ] {
        let mut maps = tables(1, 0, Flags::default());
        maps.backends[1] = broken;
        assert!(matches!(lookup(&maps, &to(key(80)), || {}), Verdict::Missed), "{broken:?}");
    }
    let mut maps = tables(1, 0, Flags::default());
    maps.slots.clear();
    assert!(matches!(lookup(&maps, &to(key(80)), || {}), Verdict::Missed));
}

#[test]
fn a_flow_keeps_its_backend_while_that_serves_the_same_service_at_the_same_address() {
    let mut maps = tables(2, 0, Flags::default());
    assert!(keeps(&maps, SERVICE, 2, &[2; 16], 80).is_some());
    assert!(keeps(&maps, SERVICE, 2, &[1; 16], 80).is_none());
    assert!(keeps(&maps, SERVICE, 2, &[2; 16], 81).is_none());
    assert!(keeps(&maps, SERVICE + 1, 2, &[2; 16], 80).is_none());
    assert!(keeps(&maps, SERVICE, 3, &[2; 16], 80).is_none());
    maps.backends[2].state = BackendState::Gone as u8;
    assert!(keeps(&maps, SERVICE, 2, &[2; 16], 80).is_none());
}

proptest! {
    #[test]
    fn the_choice_lies_in_the_list_whatever_the_random_number(
        cluster in 1_u32..40, local in 1_u32..40, inside in any::<bool>(), random in any::<u32>(),
    ) {
        let local = local.min(cluster);
        let flags = if inside { Flags::INTERNAL_LOCAL } else { Flags::default() };
        let request = Request { random, ..to(key(80)) };
        let chosen = id(lookup(&tables(cluster, local, flags), &request, never));
        let first = if inside { 1 + cluster - local } else { 1 };
        prop_assert!((first..=cluster).contains(&chosen));
    }

    #[test]
    fn evenly_spread_numbers_choose_evenly(count in 1_u32..20) {
        let maps = tables(count, 0, Flags::default());
        let mut chosen = vec![0_u32; count as usize + 1];
        let rounds = 100 * count;
        for round in 0..rounds {
            let random = (u64::from(round) * u64::from(u32::MAX) / u64::from(rounds)) as u32;
            let request = Request { random, ..to(key(80)) };
            chosen[id(lookup(&maps, &request, never)) as usize] += 1;
        }
        prop_assert!(chosen[1..].iter().all(|n| n.abs_diff(100) <= 1), "{chosen:?}");
    }
}
