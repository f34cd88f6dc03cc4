//! Running flows go from the kernel's rules to the packet path and back: nothing is lost, the server notices nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use kpx::capture::command;
use kpx::capture::netlink::Netlink;
use kpx::dataplane::handover::{give_back, go_beside, leave, take_over};
use kpx::dataplane::{Event, EventKind, Filter, Listener, Mode, Reason};
use kpx::inspect::conntrack::{Entry, walk};
use kpx_abi::packet::proto::TCP;
use kpx_abi::{Exposure, Flags};

use super::frontends::{Tables, Wanted};
use super::peers::{Server, Talk};
use super::services::{PORT, capacity, exposed, serve};
use super::states::{HOLD, MARK, Streams, kernel_entries, nft, pushers};
use super::world::{CLIENT, CLUSTER_IP, POD, REMOTE, VIP, World, at, set, socket};
use crate::support::{in_new_netns, privileged};

/// Of servers that send back everything, as much as one wants.
const BULK: u16 = 8090;

/// What kube-proxy's rules do: ClusterIPs as they are, the load balancer's address masqueraded with random ports.
const RULES: &str = "
table inet rules {
    chain pre {
        type nat hook prerouting priority dstnat;
        ip daddr 10.96.0.10 meta l4proto { tcp, udp } th dport 80 dnat ip to 10.244.2.2:8080
        ip6 daddr fd96::10 meta l4proto { tcp, udp } th dport 80 dnat ip6 to [fd44:2::2]:8080
        ip daddr 10.96.0.10 tcp dport 82 dnat ip to 10.244.2.2:8090
        ip6 daddr fd96::10 tcp dport 82 dnat ip6 to [fd44:2::2]:8090
        ip daddr 203.0.113.10 meta l4proto { tcp, udp } th dport 80 meta mark set 0x4000 dnat ip to 10.244.2.2:8080
        ip6 daddr fd20::10 meta l4proto { tcp, udp } th dport 80 meta mark set 0x4000 dnat ip6 to [fd44:2::2]:8080
        ip daddr 203.0.113.10 tcp dport 82 meta mark set 0x4000 dnat ip to 10.244.2.2:8090
        ip6 daddr fd20::10 tcp dport 82 meta mark set 0x4000 dnat ip6 to [fd44:2::2]:8090
    }
    chain post {
        type nat hook postrouting priority srcnat;
        meta mark & 0x4000 == 0x4000 masquerade fully-random
    }
}";

/// A lost packet costs TCP its least retransmission time-out, 200 ms; what is shorter than this was lost by nobody.
const NOISE: Duration = Duration::from_millis(195);

/// Where nothing happens and a stream waits this long for its turn all the same, gaps tell of the machine.
const BUSY: Duration = Duration::from_millis(60);

/// A connection that carries as much as it can both ways, byte by byte checked.
struct Bulk {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u32>,
}

impl Bulk {
    fn begin(to: &str) -> Self {
        let (mut talk, _) = Talk::to(to).expect("it answers");
        let stop = Arc::new(AtomicBool::new(false));
        let ends = stop.clone();
        let thread = spawn(move || {
            let mut rounds = 0;
            while !ends.load(Ordering::Relaxed) {
                talk.echo(200_000);
                rounds += 1;
                // The machine has other work.
                sleep(Duration::from_millis(20));
            }
            rounds
        });
        Self { stop, thread }
    }

    fn end(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("every byte came back")
    }
}

fn services(tables: &mut Tables) {
    let masqueraded = exposed(Exposure::LoadBalancer).with(Flags::MASQUERADE_ALWAYS, true);
    serve(tables, 1, CLUSTER_IP, 80, exposed(Exposure::ClusterIp), &[REMOTE]);
    serve(tables, 11, VIP, 80, masqueraded, &[REMOTE]);
    for family in [0, 1] {
        for (n, addr, flags) in [(21, CLUSTER_IP, exposed(Exposure::ClusterIp)), (31, VIP, masqueraded)] {
            let backends = vec![(socket(REMOTE[family], BULK), false)];
            let wanted = Wanted { at: socket(addr[family], 82), protocol: TCP, flags, backends };
            tables.put(n + family as u32, &wanted);
        }
    }
}

/// Lets the node's conntrack remember a closed flow of this client through another Service with the same backend: what a client
/// leaves that uses its port again.
fn remember_closed(world: &World, client: SocketAddr) {
    let (other, backend) = if client.is_ipv4() { ("10.96.0.99", "10.244.2.2") } else { ("fd96::99", "fd44:2::2") };
    let (ip, port) = (client.ip().to_string(), client.port().to_string());
    let ends = ["-s", &ip, "-d", other, "-r", backend, "-q", &ip];
    let ports = ["--sport", &port, "--dport", "80", "--reply-port-src", "8080", "--reply-port-dst", &port];
    let closed = ["-I", "-p", "tcp", "--state", "TIME_WAIT", "-t", "100"];
    world.inside("node", || {
        command::output("conntrack", [&closed[..], &ends, &ports].concat(), None).expect("it is remembered");
    });
}

/// Each of the twelve flows was told of; once, unless user space changed an entry at the moment of its packet.
fn assert_all_told(listener: &mut Listener, reason: Reason) {
    let events: Vec<Event> = std::iter::from_fn(|| listener.next_event()).collect();
    assert!(events.iter().all(|event| event.reason == reason), "{events:?}");
    let flows: BTreeSet<_> = events.iter().map(|e| (e.protocol, e.client, e.client_port)).collect();
    assert!(flows.len() == 12 && events.len() <= 13, "{events:?}");
}

#[test]
fn flows_go_over_and_back_and_nothing_is_lost() {
    World::with(|world| {
        let servers = pushers(world, "remote", REMOTE);
        let _bulk: Vec<Server> =
            REMOTE.map(|addr| world.inside("remote", || Server::start("bulk", &at(addr, BULK)))).into();
        let (mut dataplane, mut tables) = world.dataplane(&capacity(), Mode::Shadow);
        services(&mut tables);
        dataplane.set_unseen_mark(MARK).unwrap();
        nft(world, HOLD);
        nft(world, RULES);
        world.inside("node", || set("netfilter/nf_conntrack_tcp_be_liberal", "0"));
        let inside = Streams::begin(world, "pod", POD, CLUSTER_IP, 80);
        let outside = Streams::begin(world, "client", CLIENT, VIP, 80);
        let bulk: Vec<Bulk> = [("pod", CLUSTER_IP), ("client", VIP)]
            .into_iter()
            .flat_map(|(space, addr)| addr.map(|addr| world.inside(space, || Bulk::begin(&at(addr, 82)))))
            .collect();
        let longest = || inside.longest_gaps().chain(outside.longest_gaps()).max().expect("there are streams");
        let alive = || assert_eq!((inside.move_on(), outside.move_on()), (vec![true; 4], vec![true; 4]));
        alive();
        let peers = servers.each_ref().map(super::streams::Pusher::peers);
        let _ = longest();
        sleep(Duration::from_secs(2));
        let idle = longest();
        let within = |gap: Duration, when: &str| {
            println!("{when}: longest gap {gap:?}, idle {idle:?}");
            if idle > BUSY {
                println!("not judged: on a machine this busy a gap says nothing");
                return;
            }
            assert!(gap <= idle.max(NOISE), "{when}: {gap:?}, idle {idle:?}");
        };

        let kinds = BTreeSet::from([EventKind::HandedOver]);
        let mut listener = Listener::start(&world.paths, Filter { kinds, ..Filter::default() }).unwrap();
        let taken = world.inside("node", || take_over(&mut dataplane, |_| true)).unwrap();
        assert_eq!((taken.flows.len(), taken.left.len()), (12, 0), "{taken:?}");
        dataplane.set_mode(Mode::Active).unwrap();
        let again = world.inside("node", || take_over(&mut dataplane, |_| true)).unwrap();
        assert_eq!((again.flows.len(), again.left.len()), (0, 0), "{again:?}");
        nft(world, "delete table inet rules");
        alive();
        assert_eq!(kernel_entries(world, PORT), [""; 0]);
        assert_eq!(kernel_entries(world, BULK), [""; 0]);
        sleep(Duration::from_secs(1));
        within(longest(), "taken over");
        assert_all_told(&mut listener, Reason::TakenOver);
        assert!(dataplane.counters().unwrap().of(Reason::Forwarded) > 100);
        assert_eq!(dataplane.counters().unwrap().of(Reason::FlowOpened), 0);

        dataplane.set_mode(Mode::Drain).unwrap();
        nft(world, RULES);
        for id in inside.ids().iter().filter(|id| id.protocol == TCP) {
            remember_closed(world, id.client);
        }
        listener.renew().unwrap();
        let given = world.inside("node", || give_back(&mut dataplane, |_| true)).unwrap();
        assert_eq!((given.flows.len(), given.kept.len()), (12, 0), "{given:?}");
        alive();
        assert_all_told(&mut listener, Reason::GivenBack);
        assert_eq!(kernel_entries(world, PORT).len(), 8);
        assert_eq!(kernel_entries(world, BULK).len(), 4);
        world.inside("node", || dataplane.detach_devices()).unwrap();
        alive();
        sleep(Duration::from_secs(1));
        within(longest(), "given back");

        assert_eq!(inside.end() + outside.end(), 0, "no datagram is lost");
        for bulk in bulk {
            assert!(bulk.end() > 20);
        }
        for (server, before) in servers.into_iter().zip(peers) {
            assert_eq!(server.trouble(), [""; 0]);
            assert_eq!(server.peers(), before, "the server sees the same addresses and ports all the time");
            assert_eq!(before.len(), 4);
        }
    });
}

/// What kube-proxy in ipvs mode makes of them: virtual services, their addresses on its device, and a mark for what is masqueraded.
const VIRTUAL: &str = "\
-A -t 10.96.0.10:80 -s rr
-a -t 10.96.0.10:80 -r 10.244.2.2:8080 -m
-A -u 10.96.0.10:80 -s rr
-a -u 10.96.0.10:80 -r 10.244.2.2:8080 -m
-A -t [fd96::10]:80 -s rr
-a -t [fd96::10]:80 -r [fd44:2::2]:8080 -m
-A -u [fd96::10]:80 -s rr
-a -u [fd96::10]:80 -r [fd44:2::2]:8080 -m
-A -t 203.0.113.10:80 -s rr
-a -t 203.0.113.10:80 -r 10.244.2.2:8080 -m
-A -u 203.0.113.10:80 -s rr
-a -u 203.0.113.10:80 -r 10.244.2.2:8080 -m
-A -t [fd20::10]:80 -s rr
-a -t [fd20::10]:80 -r [fd44:2::2]:8080 -m
-A -u [fd20::10]:80 -s rr
-a -u [fd20::10]:80 -r [fd44:2::2]:8080 -m
";
const DEVICE: [&str; 5] = [
    "link add kube-ipvs0 type dummy",
    "addr add 10.96.0.10/32 dev kube-ipvs0",
    "addr add 203.0.113.10/32 dev kube-ipvs0",
    "addr add fd96::10/128 dev kube-ipvs0 nodad",
    "addr add fd20::10/128 dev kube-ipvs0 nodad",
];
const MASQUERADE: &str = "
table inet rules {
    chain pre {
        type filter hook prerouting priority dstnat;
        ip daddr 203.0.113.10 meta mark set 0x4000
        ip6 daddr fd20::10 meta mark set 0x4000
    }
    chain post {
        type nat hook postrouting priority srcnat;
        meta mark & 0x4000 == 0x4000 masquerade fully-random
    }
}";

fn ipvs(world: &World) {
    world.ip("node", &DEVICE);
    nft(world, MASQUERADE);
    world.inside("node", || {
        set("ipv4/vs/conntrack", "1");
        set("ipv4/vs/expire_nodest_conn", "1");
        command::output("ipvsadm", ["-R"], Some(VIRTUAL.as_bytes())).expect("the kernel has IPVS");
    });
}

/// From IPVS to the packet path, whereupon all of ipvs mode goes; and back to the kernel, where nf_nat carries them on in front of
/// virtual services that are there again.
#[test]
fn flows_of_ipvs_go_over_and_back_and_nothing_is_lost() {
    World::with(|world| {
        if world.inside("node", || command::output("ipvsadm", ["-Ln"], None).is_err()) {
            println!("skipped: no IPVS here");
            return;
        }
        let servers = pushers(world, "remote", REMOTE);
        let (mut dataplane, mut tables) = world.dataplane(&capacity(), Mode::Shadow);
        services(&mut tables);
        dataplane.set_unseen_mark(MARK).unwrap();
        nft(world, HOLD);
        ipvs(world);
        let inside = Streams::begin(world, "pod", POD, CLUSTER_IP, 80);
        let outside = Streams::begin(world, "client", CLIENT, VIP, 80);
        let alive = || assert_eq!((inside.move_on(), outside.move_on()), (vec![true; 4], vec![true; 4]));
        let gap = |when: &str| {
            let longest = inside.longest_gaps().chain(outside.longest_gaps()).max();
            println!("{when}: longest gap {longest:?}");
        };
        alive();
        let peers = servers.each_ref().map(super::streams::Pusher::peers);
        gap("begun");
        sleep(Duration::from_secs(1));
        gap("idle");

        let taken = world.inside("node", || take_over(&mut dataplane, |_| true)).unwrap();
        assert_eq!((taken.flows.len(), taken.left.len()), (8, 0), "{taken:?}");
        dataplane.set_mode(Mode::Active).unwrap();
        world.inside("node", || command::output("ipvsadm", ["-C"], None)).expect("they go");
        world.ip("node", &["link del kube-ipvs0"]);
        nft(world, "delete table inet rules");
        alive();
        assert_eq!(kernel_entries(world, PORT), [""; 0]);
        sleep(Duration::from_secs(1));
        alive();
        gap("taken over");

        dataplane.set_mode(Mode::Drain).unwrap();
        ipvs(world);
        let given = world.inside("node", || give_back(&mut dataplane, |_| true)).unwrap();
        assert_eq!((given.flows.len(), given.kept.len()), (8, 0), "{given:?}");
        world.inside("node", || dataplane.detach_devices()).unwrap();
        alive();
        assert_eq!(kernel_entries(world, PORT).len(), 8);
        sleep(Duration::from_secs(1));
        alive();
        gap("given back");

        assert_eq!(inside.end() + outside.end(), 0, "no datagram is lost");
        for (server, before) in servers.into_iter().zip(peers) {
            assert_eq!(server.trouble(), [""; 0]);
            assert_eq!(server.peers(), before, "the server sees the same addresses and ports all the time");
            assert_eq!(before.len(), 4);
        }
    });
}

/// What IPVS still has a connection of goes back to IPVS. An entry of nf_nat would be dropped with that connection, which no packet
/// keeps alive.
#[test]
fn flows_that_ipvs_still_has_go_back_to_it_and_outlive_its_time_outs() {
    World::with(|world| {
        if world.inside("node", || command::output("ipvsadm", ["-Ln"], None).is_err()) {
            println!("skipped: no IPVS here");
            return;
        }
        let servers = pushers(world, "remote", REMOTE);
        let (mut dataplane, mut tables) = world.dataplane(&capacity(), Mode::Shadow);
        services(&mut tables);
        dataplane.set_unseen_mark(MARK).unwrap();
        nft(world, HOLD);
        ipvs(world);
        world.inside("node", || command::output("ipvsadm", ["--set", "6", "6", "6"], None)).expect("times are set");
        let inside = Streams::begin(world, "pod", POD, CLUSTER_IP, 80);
        let outside = Streams::begin(world, "client", CLIENT, VIP, 80);
        let alive = || assert_eq!((inside.move_on(), outside.move_on()), (vec![true; 4], vec![true; 4]));
        alive();
        let peers = servers.each_ref().map(super::streams::Pusher::peers);
        let taken = world.inside("node", || take_over(&mut dataplane, |_| true)).unwrap();
        assert_eq!((taken.flows.len(), taken.left.len()), (8, 0), "{taken:?}");
        dataplane.set_mode(Mode::Active).unwrap();
        alive();

        dataplane.set_mode(Mode::Drain).unwrap();
        let given = world.inside("node", || give_back(&mut dataplane, |_| true)).unwrap();
        assert_eq!((given.flows.len(), given.kept.len()), (8, 0), "{given:?}");
        world.inside("node", || dataplane.detach_devices()).unwrap();
        alive();
        let packets = || {
            let listed = world.inside("node", || command::output("ipvsadm", ["-Ln", "--stats", "--exact"], None));
            String::from_utf8(listed.expect("it lists")).expect("text")
        };
        let then = packets();
        // Longer than IPVS keeps a connection without packets.
        for _ in 0..10 {
            sleep(Duration::from_secs(1));
            alive();
        }
        assert_ne!(packets(), then, "IPVS carries them");
        assert_eq!(kernel_entries(world, PORT).len(), 8);
        assert_eq!(inside.end() + outside.end(), 0, "no datagram is lost");
        for (server, before) in servers.into_iter().zip(peers) {
            assert_eq!(server.trouble(), [""; 0]);
            assert_eq!(server.peers(), before, "the server sees the same addresses and ports all the time");
        }
    });
}

/// Without its bit of the mark nothing is begun.
#[test]
fn flows_that_conntrack_would_see_do_not_change_hands() {
    World::with(|world| {
        let (mut dataplane, _tables) = world.dataplane(&capacity(), Mode::Shadow);
        let refused = |error: Result<(), String>| error.expect_err("it is refused");
        let take = |dataplane: &mut _| {
            let taken = world.inside("node", || take_over(dataplane, |_| true));
            taken.map(drop).map_err(|error| error.to_string())
        };
        assert!(refused(take(&mut dataplane)).contains("no bit of the mark"));
        dataplane.set_unseen_mark(MARK).unwrap();
        world.inside("node", || dataplane.detach_devices()).unwrap();
        assert!(refused(take(&mut dataplane)).contains("no network device"));
    });
}

/// What the kernel sees of a flow while it goes into a zone: an idle one speaks, another one ends. The oracle is conntrack.
#[test]
fn what_is_seen_while_flows_go_beside_counts() {
    if !privileged() {
        return;
    }
    in_new_netns(|| {
        let ends = "--src 10.0.0.9 --dst 10.96.0.10 --sport 4000 --dport 53 --reply-src 10.244.0.5 --reply-dst 10.0.0.9 \
                    --reply-port-src 5353 --reply-port-dst 4000";
        let conntrack = |args: &str| {
            let output = command::output("conntrack", args.split_whitespace(), None).unwrap_or_else(|e| panic!("{e}"));
            String::from_utf8(output).expect("text")
        };
        conntrack(&format!("-I -p udp {ends} --timeout 10 --status SEEN_REPLY"));
        conntrack(&format!("-I -p tcp {ends} --timeout 86400 --state ESTABLISHED --status SEEN_REPLY,ASSURED"));
        let mut entries: Vec<Entry> = Vec::new();
        let mut netlink = Netlink::conntrack().expect("it answers").expect("this kernel has conntrack");
        walk(&mut netlink, |entry, _| entries.push(*entry)).expect("it lists");
        let made = go_beside(&entries, 7).expect("they are made");
        assert_eq!(made.len(), 2);
        conntrack(&format!("-U -p udp {ends} --timeout 90"));
        conntrack(&format!("-U -p tcp {ends} --timeout 110 --state TIME_WAIT"));
        leave(&made, 7).expect("they go");
        assert_eq!(conntrack("-L").lines().filter(|line| !line.contains("zone=7")).count(), 0);
        let seconds = |protocol: &str| {
            let listed = conntrack(&format!("-L -p {protocol} --zone 7"));
            let one = listed.lines().next().expect("an entry").split_whitespace().nth(2).expect("its time").to_owned();
            one.parse::<u32>().expect("seconds")
        };
        assert!((80..=90).contains(&seconds("udp")), "{}", seconds("udp"));
        assert!((100..=110).contains(&seconds("tcp")), "{}", seconds("tcp"));
        assert!(conntrack("-L -p tcp").contains("TIME_WAIT"));
    });
}
