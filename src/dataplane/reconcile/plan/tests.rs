//! What a plan promises, tried on arbitrary tables.

use std::collections::BTreeMap;

use kpx_abi::{Addr, AddressFlags, BackendFlags, DropReason, Exposure, NetworkFlags, Origin, Request, Verdict, lookup};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::super::image::Sizes;
use super::super::reader::{Reader, all_had, inside};
use super::super::wanted::{Face, Network};
use super::*;

const ROOMY: Sizes =
    Sizes { frontends: 2000, entries: 4000, services: 2000, backends: 20_000, slots: 20_000, sources: 2000 };

fn key(n: u8) -> FrontendKey {
    FrontendKey::new([n; 16], u16::from(n), 6)
}

fn client(n: u8) -> Addr {
    let mut addr = [0xfd; 16];
    addr[15] = n;
    addr
}

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    vec((0_u8..12).prop_map(|n| ([100 + n; 16], u16::from(n))), 0..6).prop_map(|mut list| {
        list.sort_unstable();
        list
    })
}

fn face() -> impl Strategy<Value = Face> {
    let exposure = prop_oneof![Just(Exposure::ClusterIp), Just(Exposure::LoadBalancer)];
    (exposure, any::<[bool; 3]>(), 0_u32..2).prop_map(|(exposure, [local, drops, ranges], affinity)| {
        let external = exposure == Exposure::LoadBalancer;
        let flags = Flags::default()
            .with_exposure(exposure)
            .with(if external { Flags::EXTERNAL_LOCAL } else { Flags::INTERNAL_LOCAL }, local)
            .with(Flags::EMPTY_DROPS, drops)
            .with(Flags::SOURCE_RANGES, ranges && external);
        Face { flags, affinity: affinity * 30, uses: [external || !local, local] }
    })
}

fn wanted(faces: BTreeMap<FrontendKey, Face>, lists: [Vec<Endpoint>; 2], sources: BTreeSet<Network>) -> Wanted {
    let mut wanted = Wanted { faces, ..Wanted::default() };
    for (number, list) in lists.into_iter().enumerate() {
        if !wanted.faces.values().any(|face| face.uses[number]) {
            continue;
        }
        let member = if number == CLUSTER { BackendFlags::IN_CLUSTER } else { BackendFlags::IN_LOCAL };
        for endpoint in &list {
            let flags = wanted.backends.entry(*endpoint).or_default();
            *flags = flags.with(member, true).with(BackendFlags::ON_NODE, number == LOCAL);
        }
        wanted.lists[number] = list;
    }
    if wanted.faces.values().any(|face| face.flags.has(Flags::SOURCE_RANGES)) {
        wanted.sources = sources;
    }
    wanted
}

/// Service ports: frontends are dealt out to four of them.
fn table() -> impl Strategy<Value = Vec<Wanted>> {
    let sources = || btree_set((120_u32..=128, (0_u8..8).prop_map(client)), 1..4);
    let faces = btree_map((0_u8..8).prop_map(key), (0_usize..4, face()), 0..8);
    (faces, vec((endpoints(), endpoints(), sources()), 4)).prop_map(|(faces, ports)| {
        let of =
            |port| faces.iter().filter(move |(_, (n, _))| *n == port).map(|(key, (_, face))| (*key, *face)).collect();
        let network = |(prefix_len, addr): (u32, Addr)| {
            let mask = u128::MAX.checked_shl(128 - prefix_len).unwrap_or(0);
            (prefix_len, (u128::from_be_bytes(addr) & mask).to_be_bytes())
        };
        let ports = ports.into_iter().enumerate();
        ports
            .map(|(port, (cluster, local, sources))| {
                wanted(of(port), [cluster, local], sources.into_iter().map(network).collect())
            })
            .filter(|wanted| !wanted.faces.is_empty())
            .collect()
    })
}

/// A frontend with its lists, its ranges, and the frontends it shares a service id with.
type Whole = (Face, [Vec<Endpoint>; 2], BTreeSet<Network>, BTreeSet<FrontendKey>);

/// What the maps serve, as plainly as possible.
fn serves(image: &Image) -> BTreeMap<FrontendKey, Whole> {
    let one = |key: &FrontendKey| {
        let (_, frontend) = image.current(key).expect("the index names entries of its own");
        let flags = frontend.flags;
        let local = flags.has(if flags.exposure() == Exposure::ClusterIp {
            Flags::INTERNAL_LOCAL
        } else {
            Flags::EXTERNAL_LOCAL
        });
        let uses = [flags.exposure() != Exposure::ClusterIp || !local, local];
        let list = |list| image.endpoints(list, frontend.service).expect("every slot leads to a backend");
        let sources = image.sources(frontend.service).map(|key| (key.prefix_len - 32, key.addr)).collect();
        let together = image.members(frontend.service).map(|member| member.key).collect();
        (
            Face { flags, affinity: frontend.affinity, uses },
            [list(frontend.cluster), list(frontend.local)],
            sources,
            together,
        )
    };
    image.index.keys().map(|key| (*key, one(key))).collect()
}

/// The same of what is wanted.
fn wants(table: &[Wanted]) -> BTreeMap<FrontendKey, Whole> {
    let mut out = BTreeMap::new();
    for wanted in table {
        for (key, face) in &wanted.faces {
            let list = |n: usize| if face.uses[n] { wanted.lists[n].clone() } else { Vec::new() };
            let together = wanted.faces.keys().copied().collect();
            out.insert(*key, (*face, [list(CLUSTER), list(LOCAL)], wanted.sources.clone(), together));
        }
    }
    out
}

/// Backends are exactly those that some list names, with the flags that their lists give them.
fn nothing_is_left(image: &Image, table: &[Wanted]) {
    let active = image.backends.iter().filter(|b| b.state == BackendState::Active as u8);
    let mut found: Vec<(Endpoint, u32)> = active.map(|b| ((b.addr, b.port), b.flags.0)).collect();
    let mut wanted: Vec<(Endpoint, u32)> =
        table.iter().flat_map(|w| w.backends.iter().map(|(endpoint, flags)| (*endpoint, flags.0))).collect();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    let ranges: usize = image.sources.values().map(BTreeSet::len).sum();
    assert_eq!(ranges, table.iter().map(|w| w.sources.len()).sum::<usize>(), "source ranges");
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    None,
    Refused,
    Silent,
    To(Endpoint),
}

/// The frontend with its Service port, if the table has it.
fn find<'a>(table: &'a [Wanted], key: &FrontendKey) -> Option<(&'a Wanted, &'a Face)> {
    table.iter().find_map(|wanted| Some((wanted, wanted.faces.get(key)?)))
}

/// Whether a frontend lets the client in, by rules of its own.
fn admits((wanted, face): (&Wanted, &Face), client: &Addr) -> bool {
    !face.flags.has(Flags::SOURCE_RANGES) || wanted.sources.iter().any(|net| inside(net, client))
}

/// Whether the ranges let the client in that the frontend's Service port has in the other table, without this frontend.
fn relatives_let_in(one: &[Wanted], other: &[Wanted], key: &FrontendKey, client: &Addr) -> bool {
    let Some((wanted, _)) = find(one, key) else { return false };
    let relatives = other.iter().filter(|other| wanted.faces.keys().any(|key| other.faces.contains_key(key)));
    relatives.flat_map(|other| &other.sources).any(|net| inside(net, client))
}

/// Whether a frontend may answer so, by rules of its own.
fn may((wanted, face): (&Wanted, &Face), origin: Origin, outcome: &Outcome) -> bool {
    let short = face.uses == [true, true] && origin != Origin::Outside;
    let list = if face.uses[LOCAL] && !short { &wanted.lists[LOCAL] } else { &wanted.lists[CLUSTER] };
    match outcome {
        Outcome::None => false,
        Outcome::Refused => list.is_empty() && (short || !face.flags.has(Flags::EMPTY_DROPS)),
        Outcome::Silent => list.is_empty() && !short && face.flags.has(Flags::EMPTY_DROPS),
        Outcome::To(endpoint) => list.contains(endpoint),
    }
}

/// Every frontend answers, whoever asks, as either the old or the new table would. Only source ranges may change a moment
/// before the lists or after them.
fn no_hole(image: &Image, old: &[Wanted], new: &[Wanted]) {
    answers(image, |_| 0, old, new);
}

/// The same, where clients had the backends that `affinity` chooses by a number.
fn answers(image: &Image, affinity: fn(u32) -> u32, old: &[Wanted], new: &[Wanted]) {
    let keys: BTreeSet<&FrontendKey> = old.iter().chain(new).flat_map(|w| w.faces.keys()).collect();
    for (n, key) in (0_u32..).zip(keys) {
        for (m, origin) in (0_u32..).zip([Origin::Outside, Origin::Pod, Origin::Node]) {
            for random in [0, u32::MAX / 3, u32::MAX / 2, u32::MAX] {
                let client = client(u8::try_from((random ^ n ^ m) % 8).unwrap());
                let request = Request { key: *key, origin, client, random, hash: random, now_ns: 1 };
                let (address, network) =
                    (Box::new(|_: &Addr| AddressFlags::default()), Box::new(|_: &Addr| NetworkFlags::default()));
                let reader = Reader { image, affinity: all_had(affinity(random)), address, network };
                let outcome = match lookup(&reader, &request, || panic!("an attempt met a hole")) {
                    Verdict::Backend { backend, .. } => Outcome::To((backend.addr, backend.port)),
                    Verdict::NotService => Outcome::None,
                    Verdict::Reject { .. } => Outcome::Refused,
                    Verdict::Drop { why: DropReason::NoLocalEndpoint | DropReason::Source, .. } => Outcome::Silent,
                    other => panic!("{other:?}"),
                };
                let both = [find(old, key), find(new, key)];
                let known = || both.iter().flatten().copied();
                let fine = match outcome {
                    Outcome::None => both.iter().any(Option::is_none),
                    Outcome::Silent if known().any(|one| !admits(one, &client)) => true,
                    _ => {
                        let let_in = known().any(|one| admits(one, &client))
                            || relatives_let_in(old, new, key, &client)
                            || relatives_let_in(new, old, key, &client);
                        let_in && known().any(|one| may(one, origin, &outcome))
                    }
                };
                assert!(fine, "{key:?} from {origin:?} {client:?}: {outcome:?}\nold {old:#?}\nnew {new:#?}");
            }
        }
    }
}

proptest! {
    /// After each single write no reader meets a hole; at the end the maps serve what was wanted; then there is nothing
    /// left to do; and a planner that takes up the maps anywhere half-way gets to the same end.
    #[test]
    fn every_step_is_whole_and_the_end_is_what_was_wanted(
        tables in vec(table(), 1..6), cut in any::<prop::sample::Index>(),
    ) {
        let mut image = Image::empty(ROOMY);
        let mut now = Duration::from_secs(1);
        let mut planner = Planner::adopt(&image, now);
        let mut before = Vec::new();
        for table in &tables {
            now += Duration::from_millis(300);
            let (ops, changes) = planner.plan(&image, table, now).unwrap();
            prop_assert_eq!(changes.writes, ops.len());
            let cut = cut.index(ops.len() + 1);
            for (done, op) in ops.iter().enumerate() {
                if done == cut {
                    let mut killed = image.clone();
                    let mut successor = Planner::adopt(&killed, now);
                    let (rest, _) = successor.plan(&killed, table, now).unwrap();
                    for op in &rest {
                        killed.apply(op);
                        no_hole(&killed, &before, table);
                    }
                    prop_assert_eq!(serves(&killed), wants(table));
                    nothing_is_left(&killed, table);
                    let (nothing, _) = successor.plan(&killed, table, now).unwrap();
                    prop_assert!(nothing.is_empty(), "{nothing:?}");
                }
                image.apply(op);
                no_hole(&image, &before, table);
            }
            prop_assert_eq!(serves(&image), wants(table));
            nothing_is_left(&image, table);
            answers(&image, |random| random % 40, table, table);
            let (nothing, changes) = planner.plan(&image, table, now).unwrap();
            prop_assert!(nothing.is_empty() && changes.is_empty(), "{nothing:?}");
            before.clone_from(table);
        }
    }

    /// A number that a reader may hold is not written to for the time of grace: neither entries nor slots, and backends
    /// only with other flags.
    #[test]
    fn numbers_rest_before_they_are_used_again(tables in vec(table(), 1..6)) {
        let mut image = Image::empty(ROOMY);
        let now = Duration::from_secs(1);
        let mut planner = Planner::adopt(&image, now);
        let mut written = BTreeSet::new();
        for table in &tables {
            let (ops, _) = planner.plan(&image, table, now).unwrap();
            for op in &ops {
                let fresh = match op {
                    Op::PutBackend { id, backend } => match image.serving(*id, backend.service) {
                        Some(old) => Backend { flags: backend.flags, ..*old } == *backend,
                        None => written.insert((0, *id)),
                    },
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

    /// One Service port after the other comes to the same as all at once, also where a part of a port's frontends is given.
    #[test]
    fn changes_in_pieces_come_to_the_same(tables in vec(table(), 1..4)) {
        let mut image = Image::empty(ROOMY);
        let mut planner = Planner::adopt(&image, Duration::ZERO);
        for table in &tables {
            let keys: HashSet<&FrontendKey> = table.iter().flat_map(|w| w.faces.keys()).collect();
            let removed: Vec<FrontendKey> = image.index.keys().filter(|key| !keys.contains(key)).copied().collect();
            let mut pieces = vec![(&[][..], removed)];
            pieces.extend(table.chunks(1).map(|one| (one, Vec::new())));
            for (wanted, removed) in pieces {
                let (ops, _) = planner.change(&image, wanted, &removed, Duration::ZERO).unwrap();
                for op in &ops {
                    image.apply(op);
                }
            }
            let served = serves(&image);
            for (key, (face, lists, sources, together)) in wants(table) {
                let found = &served[&key];
                prop_assert_eq!((&found.0, &found.1, &found.3), (&face, &lists, &together));
                prop_assert!(!face.flags.has(Flags::SOURCE_RANGES) || found.2 == sources);
            }
            prop_assert_eq!(served.len(), keys.len());
        }
    }
}

fn one(endpoints: &[u8]) -> Vec<Wanted> {
    let cluster = endpoints.iter().map(|n| ([*n; 16], 80)).collect();
    let face = Face { flags: Flags::default(), affinity: 0, uses: [true, false] };
    vec![wanted(BTreeMap::from([(key(1), face)]), [cluster, Vec::new()], BTreeSet::new())]
}

fn put_in_place(image: &mut Image, planner: &mut Planner, table: &[Wanted], now: Duration) -> Changes {
    let (ops, changes) = planner.plan(image, table, now).unwrap();
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
            Op::TrimBackend { .. }
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
    assert_eq!(serves(&image), wants(&one(&[5, 6])));
}

#[test]
fn an_index_without_room_refuses_the_newest_and_keeps_the_others() {
    let mut image = Image::empty(Sizes { frontends: 1, ..ROOMY });
    let mut planner = Planner::adopt(&image, Duration::ZERO);
    put_in_place(&mut image, &mut planner, &one(&[1]), Duration::ZERO);
    let mut other = one(&[2]);
    other[0].faces = BTreeMap::from([(key(2), one(&[2])[0].faces[&key(1)])]);
    let full = planner.change(&image, &other, &[], Duration::ZERO).unwrap_err();
    assert_eq!(full, Full { map: "kpx_index", size: 1, resting: false });
    assert_eq!(serves(&image), wants(&one(&[1])));
}

#[test]
fn an_index_that_contradicts_its_entry_is_put_right() {
    let mut image = Image::empty(ROOMY);
    let mut planner = Planner::adopt(&image, Duration::ZERO);
    put_in_place(&mut image, &mut planner, &one(&[1]), Duration::ZERO);
    image.index.insert(key(7), 1);
    image.index.insert(key(1), 999);
    let image = &mut Image::new(
        ROOMY,
        image.index.clone(),
        (image.frontends.clone(), image.slots.clone(), image.backends.clone()),
        [],
    );
    let mut planner = Planner::adopt(image, Duration::ZERO);
    put_in_place(image, &mut planner, &one(&[1]), Duration::ZERO);
    assert_eq!(serves(image), wants(&one(&[1])));
}
