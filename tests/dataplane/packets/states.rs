//! Flows that are frozen, passed, or kept from the kernel's conntrack.

use std::time::Duration;

use kpx::capture::command;
use kpx::dataplane::{Dataplane, FlowId, FlowState, Mode, Reason};
use kpx_abi::packet::proto::{TCP, UDP};
use kpx_abi::{Exposure, Flags};

use super::peers::tcp;
use super::services::{PORT, capacity, exposed, serve, servers};
use super::streams::{Pusher, Stream};
use super::world::{CLIENT, CLUSTER_IP, NEIGHBOUR, POD, REMOTE, VIP, World, at};

/// The bit of these tests.
pub(super) const MARK: u32 = 0x0080_0000;

/// What keeps conntrack's hooks and those of nat alive, keeps marked packets from them, and drops what conntrack does not
/// know.
pub(super) const HOLD: &str = "
table inet hold {
    chain raw { type filter hook prerouting priority raw; meta mark & 0x800000 == 0x800000 counter notrack; }
    chain nat { type nat hook prerouting priority dstnat; }
    chain forward { type filter hook forward priority filter; ct state invalid counter drop; }
}";

pub(crate) fn nft(world: &World, text: &str) {
    world.inside("node", || command::output("nft", ["-f", "-"], Some(text.as_bytes()))).expect("rules load");
}

/// The kernel's entries that speak of this port.
pub(crate) fn kernel_entries(world: &World, port: u16) -> Vec<String> {
    let list = |family| {
        let listed = world.inside("node", || command::output("conntrack", ["-L", "-f", family], None));
        String::from_utf8(listed.expect("conntrack lists")).expect("text")
    };
    let listed = ["ipv4", "ipv6"].map(list).concat();
    let port = format!("port={port} ");
    listed.lines().filter(|line| line.contains(&port)).map(str::to_owned).collect()
}

/// Both protocols from a pod or from outside to a service at this port, in both families.
pub(super) struct Streams {
    flows: Vec<(FlowId, Stream)>,
}

impl Streams {
    pub(super) fn begin(world: &World, space: &str, client: [&str; 2], addr: [&str; 2], port: u16) -> Self {
        let begin = |family: usize| {
            let to = at(addr[family], port);
            let client: std::net::IpAddr = client[family].parse().expect("an address");
            let id = |protocol, stream: &Stream| FlowId {
                protocol,
                client: (client, stream.from.port()).into(),
                frontend: to.parse().expect("an address"),
            };
            let (tcp, udp) = (Stream::tcp(&to), Stream::udp(&to));
            [(id(TCP, &tcp), tcp), (id(UDP, &udp), udp)]
        };
        Self { flows: world.inside(space, || [begin(0), begin(1)].into_iter().flatten().collect()) }
    }

    pub(super) fn ids(&self) -> Vec<FlowId> {
        self.flows.iter().map(|(id, _)| *id).collect()
    }

    fn counts(&self) -> Vec<u64> {
        self.flows.iter().map(|(_, stream)| stream.count()).collect()
    }

    /// How long each has stood still.
    pub(super) fn longest_gaps(&self) -> impl Iterator<Item = Duration> {
        self.flows.iter().map(|(_, stream)| stream.longest_gap())
    }

    /// Waits, and says whether each stream has moved meanwhile.
    pub(super) fn move_on(&self) -> Vec<bool> {
        let before = self.counts();
        std::thread::sleep(Duration::from_millis(600));
        before.iter().zip(self.counts()).map(|(before, after)| after > *before).collect()
    }

    /// Ends them; none has broken, and this is how many datagrams were lost.
    pub(super) fn end(self) -> u64 {
        self.flows.into_iter().map(|(id, stream)| stream.end().unwrap_or_else(|e| panic!("{id:?}: {e}"))).sum()
    }
}

/// A pushing server on a pod, in both families.
pub(super) fn pushers(world: &World, space: &str, addr: [&str; 2]) -> [Pusher; 2] {
    addr.map(|addr| world.inside(space, || Pusher::start(&at(addr, PORT))))
}

fn set(dataplane: &mut Dataplane, ids: &[FlowId], state: FlowState) {
    assert_eq!(dataplane.set_flow_state(ids, state).expect("the maps take it"), ids.len());
}

#[test]
fn a_frozen_flow_stands_still_and_goes_on_when_thawed() {
    World::with(|world| {
        let servers = pushers(world, "remote", REMOTE);
        let (mut dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let masqueraded = exposed(Exposure::LoadBalancer).with(Flags::MASQUERADE_ALWAYS, true);
        serve(&mut tables, 1, CLUSTER_IP, 80, exposed(Exposure::ClusterIp), &[REMOTE]);
        serve(&mut tables, 11, VIP, 80, masqueraded, &[REMOTE]);
        let inside = Streams::begin(world, "pod", POD, CLUSTER_IP, 80);
        let outside = Streams::begin(world, "client", CLIENT, VIP, 80);
        assert_eq!(inside.move_on(), [true; 4]);
        set(&mut dataplane, &inside.ids(), FlowState::Frozen);
        set(&mut dataplane, &outside.ids(), FlowState::Frozen);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(inside.move_on(), [false; 4]);
        assert_eq!(outside.move_on(), [false; 4]);
        assert!(dataplane.counters().unwrap().of(Reason::FrozenFlow) > 0);
        set(&mut dataplane, &inside.ids(), FlowState::Translate);
        set(&mut dataplane, &outside.ids(), FlowState::Translate);
        // TCP's own time-outs have grown meanwhile.
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(inside.move_on(), [true; 4]);
        assert_eq!(outside.move_on(), [true; 4]);
        assert!(inside.longest_gaps().all(|gap| gap > Duration::from_millis(500)));
        // Datagrams of the frozen time are lost, a few: each is waited for.
        assert!(inside.end() + outside.end() < 60);
        for server in servers {
            assert_eq!(server.trouble(), [""; 0]);
            assert_eq!(server.peers().len(), 4, "{:?}", server.peers());
        }
    });
}

#[test]
fn a_passed_flow_is_the_kernels() {
    World::with(|world| {
        let _servers = servers(world);
        let (mut dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        serve(&mut tables, 1, CLUSTER_IP, 80, exposed(Exposure::ClusterIp), &[NEIGHBOUR]);
        nft(
            world,
            "table inet rules {
                chain pre {
                    type nat hook prerouting priority dstnat;
                    ip daddr 10.96.0.10 tcp dport 80 dnat ip to 10.244.2.2:8080
                    ip6 daddr fd96::10 tcp dport 80 dnat ip6 to [fd44:2::2]:8080
                }
            }",
        );
        for (family, source) in [(0, "0.0.0.0"), (1, "::")] {
            let to = at(CLUSTER_IP[family], 80);
            let id = FlowId {
                protocol: TCP,
                client: at(POD[family], 45_000).parse().unwrap(),
                frontend: to.parse().unwrap(),
            };
            let ask = || world.inside("pod", || super::peers::tcp_from(&at(source, 45_000), &to)).expect("it answers");
            assert_eq!(dataplane.set_flow_state(&[id], FlowState::Pass).unwrap(), 0);
            assert!(ask().starts_with("remote "), "by the rules");
            assert_eq!(dataplane.counters().unwrap().of(Reason::FlowOpened), family as u64);
            assert!(dataplane.counters().unwrap().of(Reason::PassedFlow) > 0);
            set(&mut dataplane, &[id], FlowState::Translate);
            let answer = world.inside("pod", || tcp(&to)).unwrap();
            assert!(answer.starts_with("neighbour "), "by kpx: {answer}");
        }
    });
}

#[test]
fn an_unseen_flow_is_not_in_the_kernels_conntrack() {
    World::with(|world| {
        let servers = pushers(world, "remote", REMOTE);
        let (mut dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        nft(world, HOLD);
        let masqueraded = exposed(Exposure::LoadBalancer).with(Flags::MASQUERADE_ALWAYS, true);
        serve(&mut tables, 1, CLUSTER_IP, 80, exposed(Exposure::ClusterIp), &[REMOTE]);
        serve(&mut tables, 11, VIP, 80, masqueraded, &[REMOTE]);
        let inside = Streams::begin(world, "pod", POD, CLUSTER_IP, 80);
        let outside = Streams::begin(world, "client", CLIENT, VIP, 80);
        assert_eq!((inside.move_on(), outside.move_on()), (vec![true; 4], vec![true; 4]));
        assert_eq!(kernel_entries(world, PORT).len(), 8, "translated flows are flows to the kernel");
        let ids = [inside.ids(), outside.ids()].concat();
        dataplane.set_unseen_mark(MARK).unwrap();
        assert_eq!(dataplane.set_unseen(&ids, true).unwrap(), 8);
        world.inside("node", || {
            for family in ["ipv4", "ipv6"] {
                command::output("conntrack", ["-D", "-f", family], None).expect("entries can be deleted");
            }
        });
        for _ in 0..3 {
            assert_eq!((inside.move_on(), outside.move_on()), (vec![true; 4], vec![true; 4]));
            assert_eq!(kernel_entries(world, PORT), [""; 0]);
        }
        // Seen again, they are flows like any other.
        assert_eq!(dataplane.set_unseen(&ids, false).unwrap(), 8);
        assert_eq!((inside.move_on(), outside.move_on()), (vec![true; 4], vec![true; 4]));
        assert_eq!(kernel_entries(world, PORT).len(), 8);
        assert_eq!(inside.end() + outside.end(), 0, "no datagram is lost");
        for server in servers {
            assert_eq!(server.trouble(), [""; 0]);
            assert_eq!(server.peers().len(), 4, "{:?}", server.peers());
        }
    });
}
