//! The lookup, on maps of the test's own.

use std::cell::Cell;
use std::collections::HashMap;

use kpx_abi::{
    ATTEMPTS, Backend, BackendState, Exposure, Flags, Frontend, FrontendKey, List, Maps, Verdict, keeps, lookup,
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
}

const SERVICE: u32 = 7;

fn key(port: u16) -> FrontendKey {
    FrontendKey::new([9; 16], port.to_be(), 6)
}

fn backend(n: u8) -> Backend {
    Backend { addr: [n; 16], port: 80, proto: 6, state: BackendState::Active as u8, service: SERVICE }
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

fn never() {
    panic!("nothing to repeat");
}

#[test]
fn an_address_that_is_no_frontend_is_none() {
    let maps = tables(3, 0, Flags::default());
    assert!(matches!(lookup(&maps, &key(81), 0, never), Verdict::NotService));
    let udp = FrontendKey::new([9; 16], 80_u16.to_be(), 17);
    assert!(matches!(lookup(&maps, &udp, 0, never), Verdict::NotService));
}

#[test]
fn each_exposure_follows_its_own_policy() {
    let local = Flags::INTERNAL_LOCAL.with(Flags::EXTERNAL_LOCAL, true);
    for (exposure, flags, expected) in [
        (Exposure::ClusterIp, Flags::default(), 1),
        (Exposure::ClusterIp, Flags::EXTERNAL_LOCAL, 1),
        (Exposure::ClusterIp, Flags::INTERNAL_LOCAL, 3),
        // Traffic from inside of the cluster takes the short cut.
        (Exposure::NodePort, local, 1),
        (Exposure::LoadBalancer, local, 1),
        (Exposure::ExternalIp, Flags::INTERNAL_LOCAL, 1),
    ] {
        let maps = tables(3, 1, flags.with_exposure(exposure));
        assert_eq!(id(lookup(&maps, &key(80), 0, never)), expected, "{exposure:?} {flags:?}");
    }
}

#[test]
fn an_empty_list_is_refused_or_silent_as_the_frontend_says() {
    let verdict = |flags: Flags| match lookup(&tables(0, 0, flags), &key(80), 0, never) {
        Verdict::Reject { service: SERVICE } => "reject",
        Verdict::Drop { service: SERVICE } => "drop",
        other => panic!("{other:?}"),
    };
    assert_eq!(verdict(Flags::default()), "reject");
    assert_eq!(verdict(Flags::EMPTY_DROPS.with(Flags::INTERNAL_LOCAL, true)), "drop");
    let external = Flags::EMPTY_DROPS.with(Flags::EXTERNAL_LOCAL, true).with_exposure(Exposure::NodePort);
    assert_eq!(verdict(external), "reject", "a short cut to nothing is refused: kube-proxy has no rule to drop it");
}

#[test]
fn a_change_met_half_way_is_looked_at_again() {
    let maps = tables(3, 0, Flags::default());
    // Entry 0 belongs to another key, entry 99 does not exist.
    maps.stale.set(vec![0, 99]);
    let repeated = Cell::new(0);
    assert_eq!(id(lookup(&maps, &key(80), 0, || repeated.set(repeated.get() + 1))), 1);
    assert_eq!(repeated.get(), 2);
    maps.stale.set(vec![0; ATTEMPTS as usize]);
    assert!(matches!(lookup(&maps, &key(80), 0, || {}), Verdict::Missed));
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
        assert!(matches!(lookup(&maps, &key(80), 0, || {}), Verdict::Missed), "{broken:?}");
    }
    let mut maps = tables(1, 0, Flags::default());
    maps.slots.clear();
    assert!(matches!(lookup(&maps, &key(80), 0, || {}), Verdict::Missed));
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
        let chosen = id(lookup(&tables(cluster, local, flags), &key(80), random, never));
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
            chosen[id(lookup(&maps, &key(80), random, never)) as usize] += 1;
        }
        prop_assert!(chosen[1..].iter().all(|n| n.abs_diff(100) <= 1), "{chosen:?}");
    }
}
