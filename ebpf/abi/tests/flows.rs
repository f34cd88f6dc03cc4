//! The packet path's flows on ordinary collections: what one packet becomes, its answer undoes.

use std::collections::HashMap;

use kpx_abi::dsr::accept;
use kpx_abi::packet::{proto, signal};
use kpx_abi::{
    Device, Failure, Flow, Flows, Full, Hook, Opening, PortRange, Role, Room, Stage, Timeouts, Tuple, expired,
    masquerade, open, replaceable, stage,
};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const PORTS: PortRange = PortRange { first: 1024, last: 1055 };

#[derive(Default)]
struct Table {
    entries: HashMap<Tuple, Flow>,
    size: Option<usize>,
    seed: u32,
}

impl Flows for Table {
    fn get(&self, key: &Tuple) -> Option<&Flow> {
        self.entries.get(key)
    }

    fn put(&mut self, key: &Tuple, flow: &Flow) -> Result<(), Full> {
        if !self.entries.contains_key(key) && self.size.is_some_and(|size| self.entries.len() >= size) {
            return Err(Full);
        }
        self.entries.insert(*key, *flow);
        Ok(())
    }

    fn add(&mut self, key: &Tuple, flow: &Flow) -> Result<bool, Full> {
        if self.entries.contains_key(key) {
            return Ok(false);
        }
        self.put(key, flow).map(|()| true)
    }

    fn forget(&mut self, key: &Tuple) {
        self.entries.remove(key);
    }

    fn random(&mut self) -> u32 {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.seed
    }
}

impl Table {
    /// What a packet becomes at a hook.
    fn pass(&self, hook: Hook, packet: Tuple) -> Tuple {
        match self.entries.get(&packet) {
            Some(flow) if flow.hook() == Some(hook) && !flow.undecided() => flow.to,
            _ => packet,
        }
    }

    fn open(&mut self, opening: &Opening) -> Result<Tuple, Failure> {
        let mut to = Tuple::default();
        open(self, opening, PORTS, SECOND, &mut Room::default(), &mut to)?;
        let key = to.halfway();
        if self.entries.get(&key).is_some_and(Flow::undecided) {
            masquerade(self, &key, &addr(250), PORTS, SECOND, &mut Room::default(), &mut to)?;
        }
        Ok(to)
    }
}

fn addr(n: u8) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, n]
}

/// Client 1-9, frontend 100+, backend 200+.
fn opening(client: u8, sport: u16, frontend: u8, backend: u8, masquerade: bool) -> Opening {
    Opening {
        request: Tuple {
            src: addr(client),
            dst: addr(100 + frontend),
            sport: sport.to_be(),
            dport: 80_u16.to_be(),
            proto: proto::TCP,
            halfway: 0,
            pad: [0; 2],
        },
        backend_addr: addr(200 + backend),
        backend_port: 8080_u16.to_be(),
        masquerade,
        apart: false,
        service: 1,
        backend: u32::from(backend),
        device: 0,
        options: 0,
        pad: [0; 3],
    }
}

proptest! {
    /// Clients few enough to clash all the time: no two flows look alike to a backend, and every answer finds home.
    #[test]
    fn what_a_packet_becomes_its_answer_undoes(
        flows in prop::collection::vec((1..4_u8, 1..4_u16, 0..4_u8, 0..2_u8, any::<bool>()), 1..40),
        seed in any::<u32>(),
    ) {
        let mut table = Table { seed, ..Table::default() };
        let mut open = HashMap::new();
        for (client, sport, frontend, backend, masquerade) in flows {
            let opening = opening(client, sport, frontend, backend, masquerade);
            if open.contains_key(&opening.request) {
                continue;
            }
            let reaches = table.open(&opening);
            prop_assume!(reaches.is_ok());
            open.insert(opening.request, (opening, reaches.unwrap()));
        }
        let mut seen = HashMap::new();
        for (request, (opening, reaches)) in &open {
            let arrives = table.pass(Hook::Egress, table.pass(Hook::Ingress, *request));
            prop_assert_eq!(arrives, *reaches);
            prop_assert_eq!((arrives.dst, arrives.dport), (opening.backend_addr, opening.backend_port));
            prop_assert_eq!(arrives.src, if opening.masquerade { addr(250) } else { request.src });
            prop_assert_eq!(seen.insert(arrives, request), None, "two flows are one to the backend");
            let answer = table.pass(Hook::Egress, table.pass(Hook::Ingress, arrives.reversed()));
            prop_assert_eq!(answer, request.reversed());
        }
    }

    /// Whatever is left of flows, all of it goes in time, and nothing of a flow in use.
    #[test]
    fn the_dead_go_and_the_living_stay(
        flows in prop::collection::vec((1..5_u8, 1..4_u16, 0..4_u8, 0..2_u8, any::<bool>(), any::<bool>()), 1..30),
        seed in any::<u32>(),
    ) {
        let mut table = Table { seed, ..Table::default() };
        let now = 1_000_000 * SECOND;
        let mut living = HashMap::new();
        for (client, sport, frontend, backend, masquerade, lives) in flows {
            let opening = opening(client, sport, frontend, backend, masquerade);
            if living.contains_key(&opening.request) {
                continue;
            }
            let Ok(reaches) = table.open(&opening) else { continue };
            let forward = table.entries.get_mut(&opening.request).unwrap();
            let reply = forward.to.reversed();
            forward.last_ns = if lives { now } else { SECOND };
            table.entries.get_mut(&reply).unwrap().seen = signal::OPENS | signal::CARRIES;
            living.insert(opening.request, (reaches, lives));
        }
        for key in expired(&table.entries, &Timeouts::default(), now) {
            table.entries.remove(&key);
        }
        for (request, (reaches, lives)) in &living {
            let arrives = table.pass(Hook::Egress, table.pass(Hook::Ingress, *request));
            prop_assert_eq!(arrives, if *lives { *reaches } else { *request });
            if *lives {
                let answer = table.pass(Hook::Egress, table.pass(Hook::Ingress, arrives.reversed()));
                prop_assert_eq!(answer, request.reversed());
            }
        }
        let later = now + 1_000_000 * SECOND;
        prop_assert_eq!(expired(&table.entries, &Timeouts::default(), later).len(), table.entries.len());
    }
}

#[test]
fn what_looks_like_a_flow_halfway_is_not_taken_for_it() {
    let mut table = Table::default();
    let opening = opening(1, 1, 0, 0, true);
    table.open(&opening).unwrap();
    // Another node masquerades too, and happens to choose the same port for the same backend.
    let straight = table.entries[&opening.request].to.plain();
    for hook in [Hook::Ingress, Hook::Egress] {
        assert_eq!(table.pass(hook, straight), straight);
    }
}

#[test]
fn a_full_table_opens_nothing_and_breaks_nothing() {
    let whole = |masquerade| {
        let mut table = Table::default();
        table.open(&opening(1, 1, 0, 0, masquerade)).unwrap();
        table.entries.len()
    };
    assert_eq!((whole(false), whole(true)), (2, 4));
    for size in 0..4 {
        let mut table = Table { size: Some(size), ..Table::default() };
        assert_eq!(table.open(&opening(1, 1, 0, 0, true)), Err(Failure::Full), "{size}");
    }
}

#[test]
fn a_backend_without_a_free_port_says_so() {
    let mut table = Table::default();
    let failure = (1..200).find_map(|sport| table.open(&opening(1, sport, 0, 0, true)).err());
    assert_eq!(failure, Some(Failure::NoPort));
    // Another backend has all ports free.
    assert!(table.open(&opening(1, 201, 0, 1, true)).is_ok());
}

#[test]
fn a_port_used_again_is_a_new_flow_once_the_old_one_has_ended() {
    assert!(!replaceable(signal::OPENS | signal::CARRIES, signal::CARRIES));
    assert!(replaceable(signal::OPENS | signal::FINISHES, signal::CARRIES));
    assert!(replaceable(signal::OPENS, signal::RESETS));
    // The same client and port again, now not masqueraded: nothing of the former flow gets in the way.
    let mut table = Table::default();
    table.open(&opening(1, 1, 0, 0, true)).unwrap();
    let reaches = table.open(&opening(1, 1, 0, 0, false)).unwrap();
    assert_eq!(reaches.src, addr(1));
    assert_eq!(table.pass(Hook::Egress, table.pass(Hook::Ingress, opening(1, 1, 0, 0, false).request)), reaches);
}

#[test]
fn flows_are_kept_as_long_as_the_kernel_keeps_them() {
    // kube-proxy sets the kernel's CLOSE_WAIT to an hour.
    let timeouts = Timeouts { half_closed: 3600, ..Timeouts::default() };
    let seconds = |protocol, request, reply| timeouts.limit_ns(protocol, stage(request, reply)) / SECOND - 1;
    assert_eq!(seconds(proto::TCP, signal::OPENS, 0), 60);
    assert_eq!(seconds(proto::TCP, signal::OPENS, signal::CARRIES), 432_000);
    // An answer that takes another way is not seen; that the client acknowledges something is.
    assert_eq!(stage(signal::OPENS | signal::CARRIES, 0), Stage::Established);
    assert_eq!(seconds(proto::TCP, signal::OPENS | signal::FINISHES, signal::CARRIES), 3600);
    assert_eq!(seconds(proto::TCP, signal::OPENS, signal::CARRIES | signal::FINISHES), 3600);
    assert_eq!(seconds(proto::TCP, signal::OPENS | signal::FINISHES, signal::CARRIES | signal::FINISHES), 120);
    assert_eq!(seconds(proto::SCTP, signal::OPENS | signal::FINISHES, signal::CARRIES), 120);
    assert_eq!(seconds(proto::TCP, signal::OPENS | signal::FINISHES, signal::RESETS), 10);
    assert_eq!(seconds(proto::UDP, signal::OPENS, 0), 30);
    assert_eq!(seconds(proto::UDP, signal::OPENS, signal::OPENS), 120);
    assert_eq!(seconds(proto::SCTP, signal::OPENS | signal::CARRIES, signal::CARRIES), 210);
}

#[test]
fn the_nodes_own_flows_go_the_other_way_round() {
    let mut table = Table::default();
    let own = Opening { device: 7, masquerade: true, ..opening(1, 1, 0, 0, false) };
    let reaches = table.open(&own).unwrap();
    assert_eq!(reaches.src, own.request.src, "it has an address of the node already");
    assert_eq!(table.pass(Hook::Egress, own.request), reaches);
    assert_eq!(table.pass(Hook::Ingress, reaches.reversed()), own.request.reversed());
    assert!(table.entries.values().all(|flow| flow.role != Role::Masquerade as u8));
}

#[test]
fn ports_stay_in_their_range() {
    for random in [0, 1, u32::MAX / 2, u32::MAX] {
        assert!((1024..=1055).contains(&u16::from_be(PORTS.pick(random))));
    }
    let all = PortRange { first: 0, last: u16::MAX };
    assert_eq!((all.pick(0), all.pick(u32::MAX)), (0, u16::MAX));
}

#[test]
fn a_device_without_an_address_of_a_family_has_none() {
    let device = Device { v4: addr(1), ..Device::default() };
    assert_eq!(device.source(true), Some(&addr(1)));
    assert_eq!(device.source(false), None);
}

#[test]
fn a_flow_without_a_service_is_set_apart_from_one_that_has_its_port() {
    let mut table = Table::default();
    let served = opening(1, 40_000, 0, 0, false);
    let reaches = table.open(&served).unwrap();
    assert_eq!(reaches.sport, served.request.sport, "nothing is in its way");
    let request = Tuple { dst: reaches.dst, dport: reaches.dport, ..served.request };
    let direct = Opening {
        request,
        backend_addr: request.dst,
        backend_port: request.dport,
        apart: true,
        service: 0,
        backend: 0,
        ..served
    };
    let apart = table.open(&direct).unwrap();
    assert_eq!(table.pass(Hook::Ingress, request), apart);
    assert_eq!((apart.src, apart.dst, apart.dport), (request.src, request.dst, request.dport));
    assert!((1024..=1055).contains(&u16::from_be(apart.sport)));
    assert_eq!(table.pass(Hook::Egress, apart.reversed()), request.reversed());
    assert_eq!(table.pass(Hook::Egress, reaches.reversed()), served.request.reversed());
}

#[test]
fn what_answers_no_syn_is_no_answer() {
    let reply = Flow { role: Role::Reply as u8, ..Flow::default() };
    assert!(reply.is_strange(proto::TCP, signal::CARRIES));
    assert!(!reply.is_strange(proto::TCP, signal::ANSWERS) && !reply.is_strange(proto::TCP, signal::RESETS));
    assert!(!reply.is_strange(proto::UDP, signal::OPENS) && !reply.is_strange(proto::SCTP, signal::CARRIES));
    assert!(!Flow { seen: signal::ANSWERS, ..reply }.is_strange(proto::TCP, signal::CARRIES));
    let taken = Flow { seen: signal::ANSWERS, options: Flow::TAKEN, ..reply };
    assert!(taken.is_strange(proto::TCP, signal::ANSWERS));
    assert!(!Flow { role: Role::Unmasquerade as u8, ..reply }.is_strange(proto::TCP, signal::CARRIES));
    // Nobody has that port: a Service's flow that begins again does not take it either.
    let mut table = Table::default();
    let served = opening(1, 40_000, 0, 0, false);
    let reaches = table.open(&served).unwrap();
    table.entries.get_mut(&reaches.reversed()).unwrap().options |= Flow::TAKEN;
    assert_ne!(table.open(&served).unwrap().sport, reaches.sport);
}

#[test]
fn of_few_ports_none_is_missed() {
    let ports = PortRange { first: 5000, last: 5003 };
    for seed in 0..200 {
        let mut table = Table { seed, ..Table::default() };
        for sport in 1..=4 {
            let mut to = Tuple::default();
            let opening = opening(1, sport, 0, 0, true);
            open(&mut table, &opening, ports, SECOND, &mut Room::default(), &mut to).expect("a port is free");
        }
    }
}

/// The node that receives sees requests only, the backend's node both directions: neither forgets what is in use, and
/// neither remembers it for ever.
#[test]
fn flows_answered_directly_end_on_both_nodes() {
    let timeouts = Timeouts { half_closed: 3600, ..Timeouts::default() };
    let after = |table: &Table, seconds: u64| expired(&table.entries, &timeouts, (seconds + 2) * SECOND).len();
    for protocol in [proto::TCP, proto::UDP] {
        let mut direct = Opening { options: Flow::DSR, ..opening(1, 1, 0, 0, false) };
        direct.request.proto = protocol;
        let mut receiver = Table::default();
        let to = receiver.open(&direct).unwrap();
        let announced = Opening { options: Flow::ANNOUNCED, ..direct };
        let mut answerer = Table::default();
        let mut there = Tuple::default();
        accept(&mut answerer, &announced, PORTS, SECOND, &mut Room::default(), &mut there).unwrap();
        assert_eq!(there, to);
        assert_eq!((receiver.entries.len(), answerer.entries.len()), (2, 3));
        let plain = answerer.entries[&to];
        assert_eq!((plain.role, plain.to), (Role::Plain as u8, direct.request));
        if protocol == proto::UDP {
            // No answer is seen, and there may be many.
            assert_eq!((after(&receiver, 100), after(&receiver, 121)), (0, 2));
            assert_eq!((after(&answerer, 29), after(&answerer, 31)), (0, 3));
            answerer.entries.get_mut(&to.reversed()).unwrap().seen = signal::OPENS;
            assert_eq!((after(&answerer, 100), after(&answerer, 121)), (0, 3));
            continue;
        }
        assert_eq!((after(&receiver, 59), after(&receiver, 61)), (0, 2));
        for (table, limit) in [(&mut receiver, 21_600), (&mut answerer, 432_000)] {
            table.entries.get_mut(&direct.request).unwrap().seen |= signal::CARRIES;
            let all = table.entries.len();
            assert_eq!((after(table, limit - 1), after(table, limit + 1)), (0, all));
            table.entries.get_mut(&direct.request).unwrap().seen |= signal::FINISHES;
            // The receiver never sees the server finish: to it, the flow stays half closed.
            assert_eq!((after(table, 3599), after(table, 3601)), (0, all));
        }
    }
}

/// A connection that a backend would take for another one is not taken up; datagrams get another source port.
#[test]
fn announced_flows_that_clash_are_told_apart_or_refused() {
    let mut table = Table::default();
    let flow = |frontend: u8, protocol: u8| {
        let mut opening = Opening { options: Flow::ANNOUNCED, ..opening(1, 1, frontend, 0, false) };
        opening.request.proto = protocol;
        opening
    };
    let mut to = Tuple::default();
    let mut accept = |opening: &Opening| {
        accept(&mut table, opening, PORTS, SECOND, &mut Room::default(), &mut to).map(|()| to.sport)
    };
    let first = flow(0, proto::TCP);
    assert_eq!(accept(&first), Ok(first.request.sport));
    assert_eq!(accept(&first), Ok(first.request.sport), "announced again");
    assert_eq!(accept(&flow(1, proto::TCP)), Err(Failure::NoPort));
    let first = flow(0, proto::UDP);
    assert_eq!(accept(&first), Ok(first.request.sport));
    assert_ne!(accept(&flow(1, proto::UDP)).unwrap(), first.request.sport);
}
