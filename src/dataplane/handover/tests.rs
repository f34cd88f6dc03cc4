//! Flows of the kernel as entries of the packet path and back, without either.

use std::collections::HashMap;
use std::net::SocketAddr;

use kpx_abi::packet::proto::{SCTP, TCP, UDP};
use kpx_abi::{AddressFlags, Backend, BackendState, Config, Flow, Frontend, FrontendKey, Hook, Tuple, expired};
use proptest::prelude::*;

use super::super::FlowId;
use super::super::reconcile::{Image, Sizes, addr, endpoint};
use super::export::{Kept, export};
use super::import::{Known, Unfit, import};
use crate::inspect::conntrack::{Entry, Status, Tuple as Ends};
use crate::inspect::ipvs::parse_connections;

const NODE: &str = "192.0.2.1";
const NAT: u32 = Status::DESTINATION_NAT | Status::SEEN_REPLY | Status::ASSURED;
const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_000_000 * SECOND;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

/// Frontends at 10.96.0.10 and NodePorts, with a backend at 10.244.0.5 and one on the node.
fn known() -> Known {
    let (mut index, mut frontends) = (std::collections::BTreeMap::new(), vec![Frontend::default()]);
    let mut backends = vec![Backend::default()];
    for protocol in [TCP, UDP, SCTP] {
        let service = frontends.len() as u32;
        for (ip, port) in [("10.96.0.10", 80), ("10.96.0.11", 80), ("0.0.0.0", 30080)] {
            let key = FrontendKey::new(addr(ip.parse().expect("an address")), u16::to_be(port), protocol);
            index.insert(key, frontends.len() as u32);
            frontends.push(Frontend { key, service, ..Frontend::default() });
        }
        for backend in ["10.244.0.5:8080", "192.0.2.1:8080"] {
            let (addr, port) = endpoint(at(backend));
            let state = BackendState::Active as u8;
            backends.push(Backend { addr, port, proto: protocol, state, service, ..Backend::default() });
        }
    }
    let sizes = Sizes { frontends: 99, entries: 99, services: 99, backends: 99, slots: 99, sources: 99 };
    let image = Image::new(sizes, index, (frontends, Vec::new(), backends), []);
    let own = AddressFlags::LOCAL.with(AddressFlags::NODEPORT, true);
    let config = Config { snat_first: 1024, snat_last: 2047, ..Config::default() };
    Known::new(&image, [(addr(NODE.parse().expect("an address")), own)].into(), config)
}

fn entry(protocol: u8, client: &str, frontend: &str, backend: &str, sees: &str) -> Entry {
    Entry {
        protocol,
        original: Ends { source: at(client), destination: at(frontend) },
        reply: Ends { source: at(backend), destination: at(sees) },
        status: Status::all(NAT),
        state: (protocol != UDP).then_some("ESTABLISHED"),
        timeout: Some(100),
        counters: None,
        mark: 0,
        zone: 0,
        id: Some(1),
    }
}

fn table(parts: &[(FlowId, Vec<(Tuple, Flow)>)]) -> HashMap<Tuple, Flow> {
    parts.iter().flat_map(|(_, part)| part).copied().collect()
}

/// What a packet becomes at both hooks.
fn pass(table: &HashMap<Tuple, Flow>, packet: Tuple) -> Tuple {
    [Hook::Ingress, Hook::Egress].into_iter().fold(packet, |packet, hook| match table.get(&packet) {
        Some(flow) if flow.hook() == Some(hook) => flow.to,
        _ => packet,
    })
}

fn tuple(protocol: u8, ends: &Ends) -> Tuple {
    FlowId { protocol, client: ends.source, frontend: ends.destination }.key()
}

#[test]
fn what_stays_with_the_kernel_says_why() {
    let plain = || entry(TCP, "10.0.0.9:40000", "10.96.0.10:80", "10.244.0.5:8080", "10.0.0.9:40000");
    let with = |change: &dyn Fn(&mut Entry)| {
        let mut entry = plain();
        change(&mut entry);
        let (flows, left) = import(&[entry], &[], &known(), &HashMap::new(), NOW);
        assert_eq!(flows.len() + left.len(), 1);
        left.first().map(|(_, reason)| *reason)
    };
    assert_eq!(with(&|_| {}), None);
    assert_eq!(with(&|e| e.protocol = 47), Some(Unfit::Protocol));
    assert_eq!(with(&|e| e.original.destination = at("10.96.0.99:80")), Some(Unfit::NoService));
    assert_eq!(with(&|e| e.original.destination = at("192.0.2.1:30080")), None);
    assert_eq!(with(&|e| e.original.destination = at("192.0.2.2:30080")), Some(Unfit::NoService));
    assert_eq!(with(&|e| e.status = Status::all(Status::SEEN_REPLY)), Some(Unfit::OtherTranslator));
    assert_eq!(with(&|e| e.status = Status::some(0, 0)), Some(Unfit::OtherTranslator));
    assert_eq!(with(&|e| e.zone = 7), Some(Unfit::Zone));
    for bit in [0, 6, 13] {
        assert_eq!(with(&|e| e.status = Status::all(NAT | 1 << bit)), Some(Unfit::Helper));
    }
    assert_eq!(with(&|e| e.status = Status::all(NAT | Status::OFFLOAD)), Some(Unfit::Offloaded));
    assert_eq!(with(&|e| (e.protocol, e.state) = (SCTP, Some("HEARTBEAT_SENT"))), Some(Unfit::Multihomed));
    assert_eq!(with(&|e| e.state = Some("TIME_WAIT")), Some(Unfit::Ended));
    assert_eq!(with(&|e| e.reply.source = at("192.0.2.1:8080")), Some(Unfit::OwnBackend));
    let own = |e: &mut Entry| (e.original.source, e.reply.destination) = (at("192.0.2.1:4000"), at("192.0.2.1:4000"));
    assert_eq!(with(&own), Some(Unfit::OwnSocket));
    // Not a flow to a Service: nothing is said of it.
    let other = entry(TCP, "10.0.0.9:40000", "10.244.0.5:8080", "10.244.0.5:8080", "10.0.0.9:40000");
    let (flows, left) = import(&[other], &[], &known(), &HashMap::new(), NOW);
    assert_eq!((flows, left), (Vec::new(), Vec::new()));
}

/// Conntrack's entry of a flow of IPVS looks alike whether IPVS translates or nobody does.
#[test]
fn a_flow_of_ipvs_is_taken_where_ipvs_has_the_same_server() {
    let mut flow = entry(TCP, "10.0.0.9:40000", "10.96.0.10:80", "10.244.0.5:8080", "192.0.2.1:5000");
    flow.status = Status::all(Status::SOURCE_NAT | Status::SEEN_REPLY | Status::ASSURED);
    let line = |server: &str| format!("TCP 0A000009 9C40 0A60000A 0050 {server} 1F90 ESTABLISHED     890\n");
    let take = |ipvs: &str| import(&[flow], &parse_connections(ipvs.as_bytes()), &known(), &HashMap::new(), NOW);
    let reason = |ipvs: &str| take(ipvs).1.first().map(|(_, reason)| *reason);
    assert_eq!(reason(""), Some(Unfit::OtherTranslator));
    assert_eq!(reason(&line("0AF40006")), Some(Unfit::OtherTranslator), "another server");
    let (flows, left) = take(&line("0AF40005"));
    assert_eq!((flows.len(), left), (1, Vec::new()));
    let arrives = pass(&table(&flows), tuple(TCP, &flow.original));
    assert_eq!(arrives, tuple(TCP, &Ends { source: at("192.0.2.1:5000"), destination: at("10.244.0.5:8080") }));
    // IPVS's addresses are the node's: its own connections to them have them as sources, too.
    flow.original.source = at("192.0.2.1:40000");
    let own = "TCP C0000201 9C40 0A60000A 0050 0AF40005 1F90 ESTABLISHED     890\n";
    let (_, left) = import(&[flow], &parse_connections(own.as_bytes()), &known(), &HashMap::new(), NOW);
    assert_eq!(left.first().map(|(_, reason)| *reason), Some(Unfit::OwnSocket));
}

#[test]
fn a_flow_is_kept_no_longer_than_the_kernel_would_have() {
    let udp = entry(UDP, "10.0.0.9:40000", "10.96.0.10:80", "10.244.0.5:8080", "192.0.2.1:5000");
    let (flows, _) = import(&[udp], &[], &known(), &HashMap::new(), NOW);
    let table = table(&flows);
    assert_eq!(table.len(), 4);
    let over = |seconds: u64| expired(&table, &kpx_abi::Timeouts::default(), NOW + seconds * SECOND).len();
    assert_eq!((over(99), over(101)), (0, 4));
}

/// A datagram that meets the kernel between the look at its entry and the import: the flow is as fresh as the kernel has it.
#[test]
fn what_the_kernel_has_seen_until_the_end_counts() {
    let first = Entry {
        timeout: Some(10),
        ..entry(UDP, "10.0.0.9:40000", "10.96.0.10:80", "10.244.0.5:8080", "192.0.2.1:5000")
    };
    let (flows, _) = import(&[first], &[], &known(), &HashMap::new(), NOW);
    let mut mine = table(&flows);
    let later = NOW + SECOND / 10;
    let renew = |mine: &mut HashMap<_, Flow>, entry: Entry| {
        let (flows, left) = import(&[entry], &[], &known(), mine, later);
        assert!(left.is_empty(), "{left:?}");
        let mut renewed = 0;
        for (key, latest) in flows.into_iter().flat_map(|(_, part)| part) {
            if let Some(flow) = super::import::renewed(&mine[&key], &latest) {
                mine.insert(key, flow);
                renewed += 1;
            }
        }
        renewed
    };
    let over = |mine: &HashMap<_, Flow>, seconds: u64| {
        expired(mine, &kpx_abi::Timeouts::default(), NOW + seconds * SECOND).len()
    };
    assert_eq!(renew(&mut mine, first), 0, "nothing came");
    assert_eq!((over(&mine, 9), over(&mine, 13)), (0, 4));
    assert_eq!(renew(&mut mine, Entry { timeout: Some(30), ..first }), 4);
    assert_eq!((over(&mine, 29), over(&mine, 33)), (0, 4));
}

#[test]
fn what_is_given_back_is_what_was_taken() {
    let entries = [
        entry(TCP, "10.0.0.9:40000", "10.96.0.10:80", "10.244.0.5:8080", "10.0.0.9:40000"),
        entry(UDP, "10.0.0.9:40000", "10.96.0.11:80", "10.244.0.5:8080", "10.0.0.9:9496"),
        entry(TCP, "10.0.0.9:40001", "192.0.2.1:30080", "10.244.0.5:8080", "192.0.2.1:2000"),
        entry(SCTP, "10.0.0.9:40001", "10.96.0.10:80", "10.244.0.5:8080", "10.0.0.9:40001"),
    ];
    let (flows, left) = import(&entries, &[], &known(), &HashMap::new(), NOW);
    assert!(left.is_empty(), "{left:?}");
    let (mut given, kept) = export(&table(&flows), NOW, |_, _| true);
    given.sort_by_key(|flow| flow.id);
    let told: Vec<_> = given.iter().map(|f| (f.id.client, f.backend, f.source, f.timeout)).collect();
    let backend = at("10.244.0.5:8080");
    // Each has as much time left as it had with the kernel.
    assert_eq!(
        told,
        [
            (at("10.0.0.9:40000"), backend, None, 100),
            (at("10.0.0.9:40001"), backend, Some(at("192.0.2.1:2000")), 100),
            (at("10.0.0.9:40000"), backend, Some(at("10.0.0.9:9496")), 100),
        ]
    );
    assert_eq!(kept.iter().map(|(id, why)| (id.protocol, *why)).collect::<Vec<_>>(), [(SCTP, Kept::Tags)]);
}

/// What a flow shows between the reading of it and its being the kernel's.
#[test]
fn what_a_flow_shows_while_it_is_given_back_is_noticed() {
    use kpx_abi::Stage;
    use kpx_abi::packet::signal;
    let entry = entry(TCP, "10.0.0.9:40000", "10.96.0.10:80", "10.244.0.5:8080", "10.0.0.9:40000");
    let (flows, _) = import(&[entry], &[], &known(), &HashMap::new(), NOW);
    let mut table = table(&flows);
    let now = |table: &HashMap<_, _>| export(table, NOW + SECOND, |_, _| true).0.remove(0);
    let then = now(&table);
    assert!(!now(&table).has_moved_on(&then));
    for flow in table.values_mut() {
        flow.last_ns = NOW + SECOND;
    }
    let spoken = now(&table);
    assert!(spoken.has_moved_on(&then) && spoken.stage == Stage::Established);
    for flow in table.values_mut() {
        flow.seen |= signal::FINISHES;
    }
    assert!(now(&table).has_moved_on(&spoken) && now(&table).stage == Stage::Closing);
}

proptest! {
    /// Clients so few that they clash: every packet becomes what the kernel's entry says, and its answer what undoes it.
    #[test]
    fn an_imported_flow_is_translated_as_the_kernel_did(
        flows in prop::collection::vec((1..3_u8, 1..4_u16, 0..3_usize, any::<bool>(), any::<bool>()), 1..20),
    ) {
        let (mut entries, mut replies): (Vec<Entry>, Vec<Ends>) = (Vec::new(), Vec::new());
        for (n, (client, port, frontend, masquerade, udp)) in (0..).zip(flows) {
            let client = format!("10.0.0.{client}:{}", 40_000 + port);
            let frontend = ["10.96.0.10:80", "10.96.0.11:80", "10.244.0.5:8080"][frontend];
            let sees = if masquerade { format!("{NODE}:{}", 3000 + n) } else { client.clone() };
            let protocol = if udp { UDP } else { TCP };
            let mut entry = entry(protocol, &client, frontend, "10.244.0.5:8080", &sees);
            if replies.contains(&entry.reply) {
                // As nf_nat resolves a clash.
                entry.reply.destination.set_port(20_000 + n);
            }
            if entries.iter().all(|e| (e.original, e.protocol) != (entry.original, protocol)) {
                replies.push(entry.reply);
                entries.push(entry);
            }
        }
        let (flows, left) = import(&entries, &[], &known(), &HashMap::new(), NOW);
        prop_assert_eq!(left, vec![]);
        let table = table(&flows);
        for entry in entries.iter().filter(|e| e.is_to_backend()) {
            let (request, answer) = (tuple(entry.protocol, &entry.original), tuple(entry.protocol, &entry.reply));
            prop_assert_eq!(pass(&table, request), answer.reversed());
            prop_assert_eq!(pass(&table, answer), request.reversed());
        }
        // Nor does it get hold of flows that go without a Service and have their own ports.
        for entry in entries.iter().filter(|e| !e.is_to_backend() && e.original.source == e.reply.destination) {
            let request = tuple(entry.protocol, &entry.original);
            prop_assert_eq!(pass(&table, request), request);
            prop_assert_eq!(pass(&table, request.reversed()), request.reversed());
        }
    }
}
