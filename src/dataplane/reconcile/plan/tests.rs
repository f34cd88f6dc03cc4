//! What a plan promises, tried on arbitrary tables.

use kpx_abi::{Flags, Origin, Request, Verdict, lookup};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::super::image::Sizes;
use super::*;

type Tables = Vec<BTreeMap<FrontendKey, Wanted>>;

const ROOMY: Sizes = Sizes { entries: 4000, services: 2000, backends: 20_000, slots: 20_000 };

fn key(n: u8) -> FrontendKey {
    FrontendKey::new([n; 16], u16::from(n), if n.is_multiple_of(2) { 6 } else { 17 })
}

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    vec((0_u8..12).prop_map(|n| ([100 + n; 16], u16::from(n))), 0..6).prop_map(|mut list| {
        list.sort_unstable();
        list
    })
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (0_u32..32, endpoints(), endpoints(), any::<bool>()).prop_map(|(flags, cluster, local, both)| Wanted {
        flags: Flags(flags << 1),
        affinity: 0,
        local: if both { local } else { Vec::new() },
        cluster,
    })
}

fn tables() -> impl Strategy<Value = Tables> {
    vec(btree_map((0_u8..8).prop_map(key), wanted(), 0..8), 1..6)
}

/// What the maps serve, as plainly as possible.
fn serves(image: &Image) -> BTreeMap<FrontendKey, Wanted> {
    let entry = |key: &FrontendKey| {
        let (_, frontend) = image.current(key).expect("the index names entries of its own");
        Wanted {
            flags: frontend.flags,
            affinity: frontend.affinity,
            cluster: image.endpoints(frontend.cluster, frontend.service).expect("every slot leads to a backend"),
            local: image.endpoints(frontend.local, frontend.service).expect("every slot leads to a backend"),
        }
    };
    image.index.keys().map(|key| (*key, entry(key))).collect()
}

/// Every frontend leads, whatever the random number, to what either the old or the new table has for it.
fn no_hole(image: &Image, old: &BTreeMap<FrontendKey, Wanted>, new: &BTreeMap<FrontendKey, Wanted>) {
    for key in old.keys().chain(new.keys()) {
        for random in [0, u32::MAX / 3, u32::MAX / 2, u32::MAX] {
            let known = |endpoint: &Endpoint| {
                [old, new]
                    .iter()
                    .filter_map(|t| t.get(key))
                    .any(|w| w.cluster.iter().chain(&w.local).any(|e| e == endpoint))
            };
            let request = Request { key: *key, origin: Origin::Pod, client: [1; 16], random, hash: random, now_ns: 0 };
            match lookup(image, &request, || panic!("an attempt met a hole")) {
                Verdict::Backend { backend, .. } => assert!(known(&(backend.addr, backend.port))),
                Verdict::NotService => assert!(!old.contains_key(key) || !new.contains_key(key)),
                Verdict::Reject { .. } | Verdict::Drop { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

proptest! {
    /// After each single write no reader meets a hole; at the end the maps serve what was wanted; then there is nothing
    /// left to do; and a planner that takes up the maps anywhere half-way gets to the same end.
    #[test]
    fn every_step_is_whole_and_the_end_is_what_was_wanted(tables in tables(), cut in any::<prop::sample::Index>()) {
        let mut image = Image::empty(ROOMY);
        let mut now = Duration::from_secs(1);
        let mut planner = Planner::adopt(&image, now);
        let mut before = BTreeMap::new();
        for wanted in &tables {
            now += Duration::from_millis(300);
            let (ops, changes) = planner.plan(&image, wanted, now).unwrap();
            prop_assert_eq!(changes.writes, ops.len());
            let cut = cut.index(ops.len() + 1);
            for (done, op) in ops.iter().enumerate() {
                if done == cut {
                    let mut killed = image.clone();
                    let mut successor = Planner::adopt(&killed, now);
                    let (rest, _) = successor.plan(&killed, wanted, now).unwrap();
                    for op in &rest {
                        killed.apply(op);
                        no_hole(&killed, &before, wanted);
                    }
                    prop_assert_eq!(&serves(&killed), wanted);
                    let (nothing, _) = successor.plan(&killed, wanted, now).unwrap();
                    prop_assert!(nothing.is_empty());
                    let active = killed.backends.iter().filter(|b| b.state == BackendState::Active as u8).count();
                    let named: BTreeSet<u32> = killed.index.keys().filter_map(|k| killed.current(k))
                        .flat_map(|(_, f)| [f.cluster, f.local]).flat_map(|l| killed.ids(l).to_vec()).collect();
                    prop_assert_eq!(active, named.len(), "no backend is left that nothing names");
                }
                image.apply(op);
                no_hole(&image, &before, wanted);
            }
            prop_assert_eq!(&serves(&image), wanted);
            let (nothing, changes) = planner.plan(&image, wanted, now).unwrap();
            prop_assert!(nothing.is_empty() && changes.is_empty());
            before.clone_from(wanted);
        }
    }

    /// A number that a reader may hold is not written to for the time of grace: neither backends nor entries, and slots
    /// only with backends of the same frontend's service.
    #[test]
    fn numbers_rest_before_they_are_used_again(tables in tables()) {
        let mut image = Image::empty(ROOMY);
        let now = Duration::from_secs(1);
        let mut planner = Planner::adopt(&image, now);
        let mut written = BTreeSet::new();
        for wanted in &tables {
            let (ops, _) = planner.plan(&image, wanted, now).unwrap();
            for op in &ops {
                let fresh = match op {
                    Op::PutBackend { id, .. } => written.insert((0, *id)),
                    Op::PutFrontend { entry, .. } => written.insert((1, *entry)),
                    Op::PutSlots { base, ids } => (*base..).zip(ids).all(|(slot, _)| written.insert((2, slot))),
                    Op::ResetStats { service } => written.insert((3, *service)),
                    _ => true,
                };
                prop_assert!(fresh, "{op:?} writes what was in use a moment ago");
                image.apply(op);
            }
        }
    }
}

fn one(endpoints: &[u8]) -> BTreeMap<FrontendKey, Wanted> {
    let cluster = endpoints.iter().map(|n| ([*n; 16], 80)).collect();
    BTreeMap::from([(key(1), Wanted { flags: Flags::default(), affinity: 0, cluster, local: Vec::new() })])
}

fn put_in_place(
    image: &mut Image,
    planner: &mut Planner,
    wanted: &BTreeMap<FrontendKey, Wanted>,
    now: Duration,
) -> Changes {
    let (ops, changes) = planner.plan(image, wanted, now).unwrap();
    for op in &ops {
        image.apply(op);
    }
    changes
}

#[test]
fn one_endpoint_changed_takes_five_writes_and_keeps_the_other_backends() {
    let mut image = Image::empty(ROOMY);
    let mut planner = Planner::adopt(&image, Duration::ZERO);
    put_in_place(&mut image, &mut planner, &one(&[1, 2, 3]), Duration::ZERO);
    let (ops, changes) = planner.plan(&image, &one(&[1, 3, 4]), Duration::ZERO).unwrap();
    assert!(matches!(
        ops.as_slice(),
        [
            Op::PutBackend { .. },
            Op::PutSlots { .. },
            Op::PutFrontend { .. },
            Op::PutIndex { .. },
            Op::RetireBackend { .. }
        ]
    ));
    assert_eq!((changes.backends_added, changes.backends_removed, changes.frontends_changed), (1, 1, 1));
}

#[test]
fn a_full_map_is_told_and_nothing_is_lost_by_it() {
    let mut image = Image::empty(Sizes { backends: 5, ..ROOMY });
    let mut planner = Planner::adopt(&image, Duration::ZERO);
    put_in_place(&mut image, &mut planner, &one(&[1, 2, 3]), Duration::ZERO);
    let full = planner.plan(&image, &one(&[4, 5, 6]), Duration::ZERO).unwrap_err();
    assert_eq!(full, Full { map: "kpx_backends", size: 5, resting: false });
    put_in_place(&mut image, &mut planner, &one(&[1, 4]), Duration::ZERO);
    let full = planner.plan(&image, &one(&[5, 6]), Duration::ZERO).unwrap_err();
    assert!(full.resting, "two backends are at rest");
    put_in_place(&mut image, &mut planner, &one(&[5, 6]), Duration::from_secs(2));
    assert_eq!(serves(&image), one(&[5, 6]));
}

#[test]
fn an_index_that_contradicts_its_entry_is_put_right() {
    let mut image = Image::empty(ROOMY);
    let mut planner = Planner::adopt(&image, Duration::ZERO);
    put_in_place(&mut image, &mut planner, &one(&[1]), Duration::ZERO);
    image.index.insert(key(7), 1);
    image.index.insert(key(1), 999);
    let mut planner = Planner::adopt(&image, Duration::ZERO);
    put_in_place(&mut image, &mut planner, &one(&[1]), Duration::ZERO);
    assert_eq!(serves(&image), one(&[1]));
}
