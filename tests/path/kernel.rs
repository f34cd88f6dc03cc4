//! The kernel as the oracle: packets are sent through recorded rules, and end where the walk said, by the rules that it named.
//!
//! Rule counters are the witnesses of iptables' steps, connection tracking those of where packets end.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use kpx::capture::{Node, NodeOptions, Variant, command};
use kpx::inspect::ipset::Sets;
use kpx::inspect::iptables::{lift, parse};
use kpx::inspect::ipvs::{self, Addresses, DEVICE};
use kpx::inspect::nftables::NftablesState;
use kpx::lab::{Rules, load_rules};
use kpx::model::{Backend, Family, Frontend, Protocol, TrafficSource};
use kpx::path::{Around, End, Packet, Path, through_iptables, through_ipvs, through_nftables};

use super::{node_address, to, to_nobody};
use crate::capture::network::Netns;
use crate::iptables::text;
use crate::support;

/// Packets to each destination: each from a source port, and from outside from an address, of its own.
const PACKETS: u16 = 24;
const FIRST_PORT: u16 = 20_000;

/// A node with the addresses that the recorded one had, and a world outside that sends to it. What the node sends on leaves by
/// devices behind which nobody is, and no address has to be asked for: errors that come seconds later would be counted.
struct World {
    node: Netns,
    outside: Netns,
}

impl World {
    fn new() -> Self {
        let world = Self { node: Netns::with_loopback(), outside: Netns::with_loopback() };
        let lines = format!(
            "link add eth0 type veth peer name eth1 netns {0}\nlink add cni0 type veth peer name cni1 netns {0}\n\
             link add far type veth peer name far1 netns {0}\nlink set eth0 up\nlink set cni0 up arp off\nlink set far up arp off\n\
             addr add 192.168.50.11/32 dev eth0\naddr add 10.244.1.1/24 dev cni0\n\
             route add 10.244.1.77/32 dev far\nroute add default dev far\n",
            world.outside.name
        );
        world.node.run("ip", &["-batch", "-"], Some(lines.as_bytes()));
        let lines =
            "link set eth1 up\naddr add 203.0.113.1/32 dev eth1\nroute add default via 192.168.50.11 dev eth1 onlink\n";
        world.outside.run("ip", &["-batch", "-"], Some(lines.as_bytes()));
        world.node.inside(|| {
            for (name, value) in [
                ("ipv4/ip_forward", "1"),
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/eth0/rp_filter", "0"),
                ("ipv4/conf/cni0/rp_filter", "0"),
                ("ipv4/conf/far/rp_filter", "0"),
                ("ipv6/conf/all/disable_ipv6", "1"),
                // Answers to a packet of before would be counted with the next one's.
                ("ipv4/tcp_synack_retries", "0"),
            ] {
                std::fs::write(format!("/proc/sys/net/{name}"), value).expect("an own sysctl can be set");
            }
        });
        world
    }

    /// Lets the node's own endpoints answer: a connection that is refused is forgotten at once.
    fn listen(&self, frontends: &[Frontend]) -> Vec<TcpListener> {
        let backends = frontends.iter().flat_map(|frontend| frontend.cluster.iter().chain(&frontend.local));
        let own: BTreeSet<_> =
            backends.map(Backend::addr).filter(|addr| addr.ip() == node_address(Family::V4)).collect();
        self.node.inside(|| own.iter().map(|addr| TcpListener::bind(addr).expect("nobody else is there")).collect())
    }

    fn around(&self) -> Around {
        let ip = |what: &str| self.node.run("ip", &["-j", "-d", what, "show"], None);
        Around::of(Some(ip("addr").as_bytes()), ip("route").as_bytes())
    }

    /// Sends the first packets of as many flows.
    fn send(&self, packets: &[(Packet, u16)]) {
        let from = if packets[0].0.origin == TrafficSource::Node { &self.node } else { &self.outside };
        from.inside(|| {
            let socket = socket();
            for (packet, port) in packets {
                send(&socket, packet, *port);
            }
        });
        // The veth delivers within a softirq of the sender; a moment for one that was deferred.
        std::thread::sleep(std::time::Duration::from_millis(3));
    }

    /// Where the kernel's connection tracking has the flows with these source ports, and whether their source was replaced.
    fn tracked(&self, client: impl Fn(IpAddr) -> bool) -> BTreeMap<u16, (SocketAddr, bool)> {
        let list = self.node.run("conntrack", &["-L", "-o", "extended"], None);
        list.lines().filter_map(|line| flow(line, &client)).collect()
    }
}

/// A line of `conntrack -L`: source port, the address that answers, whether answers go to another than the client.
fn flow(line: &str, client: &impl Fn(IpAddr) -> bool) -> Option<(u16, (SocketAddr, bool))> {
    let values = |name: &str| -> Vec<&str> { line.split(' ').filter_map(|word| word.strip_prefix(name)).collect() };
    let (sources, destinations) = (values("src="), values("dst="));
    let (sports, dports) = (values("sport="), values("dport="));
    let source: IpAddr = sources.first()?.parse().ok()?;
    if !client(source) {
        return None;
    }
    let answers = SocketAddr::new(sources.get(1)?.parse().ok()?, sports.get(1)?.parse().ok()?);
    let replaced = destinations.get(1)? != sources.first()? || dports.get(1)? != sports.first()?;
    Some((sports.first()?.parse().ok()?, (answers, replaced)))
}

fn socket() -> std::os::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketType, ipproto, socket};
    // The header comes with the packet.
    socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).expect("root can open a raw socket")
}

fn sum(bytes: &[u8], from: u32) -> u32 {
    bytes.chunks(2).fold(from, |sum, pair| sum + u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0)))
}

const fn folded(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    !((once & 0xffff) + (once >> 16)) as u16
}

/// Sends an IPv4 packet: a datagram, or a SYN.
fn send(socket: &impl std::os::fd::AsFd, packet: &Packet, port: u16) {
    let (Some(IpAddr::V4(source)), IpAddr::V4(destination)) = (packet.source, packet.destination.ip()) else {
        panic!("IPv4 both");
    };
    let (sport, dport) = (port.to_be_bytes(), packet.destination.port().to_be_bytes());
    let mut body = [sport, dport].concat();
    let checksum_at = match packet.protocol {
        Protocol::Udp => {
            body.extend([0, 8, 0, 0]);
            6
        }
        Protocol::Tcp => {
            body.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
            16
        }
        Protocol::Sctp => panic!("not sent here"),
    };
    let pseudo = sum(&[source.octets(), destination.octets()].concat(), 0);
    let pseudo = pseudo + u32::from(packet.protocol.number()) + body.len() as u32;
    let checksum = folded(sum(&body, pseudo)).to_be_bytes();
    body[checksum_at..checksum_at + 2].copy_from_slice(&checksum);
    let length = (20 + body.len() as u16).to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, packet.protocol.number(), 0, 0];
    header.extend(source.octets());
    header.extend(destination.octets());
    let to = SocketAddr::new(destination.into(), 0);
    let whole = [header, body].concat();
    let parts = [IoSlice::new(&whole)];
    // What the rules refuse or drop on the way out is an error here, and just what is asked about.
    let _ = rustix::net::sendmsg_addr(
        socket,
        &to,
        &parts,
        &mut rustix::net::SendAncillaryBuffer::default(),
        rustix::net::SendFlags::empty(),
    );
}

/// The same packet from as many flows. From outside each has a client that was never seen before: affinity remembers none.
fn flows(packet: &Packet, question: u16) -> Vec<(Packet, u16)> {
    let [high, low] = question.to_be_bytes();
    let flow = |i: u16| {
        let mut packet = packet.clone();
        if packet.origin == TrafficSource::Outside {
            packet.source = Some(Ipv4Addr::new(100, 64 + high, low, 10 + i as u8).into());
        }
        (packet, FIRST_PORT + i)
    };
    (0..PACKETS).map(flow).collect()
}

/// Whether `seen` of as many trials with these probabilities is what chance would give: five standard deviations, and four
/// more where neither is certain, since what is rare is no bell curve.
fn likely(seen: f64, probabilities: &[f64]) -> bool {
    let mean: f64 = probabilities.iter().sum();
    let variance: f64 = probabilities.iter().map(|p| p * (1.0 - p)).sum();
    let spread = if variance > 1e-9 { 5.0 * variance.sqrt() + 4.0 } else { 1e-6 };
    (seen - mean).abs() <= spread
}

/// Packets and bytes by table, chain and rule number, as iptables-save counts.
fn counters(text: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let (mut table, mut numbers) = ("", BTreeMap::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
            numbers.clear();
        } else if let Some((count, rule)) = line.strip_prefix('[').and_then(|rest| rest.split_once("] -A ")) {
            let chain = rule.split(' ').next().expect("a chain");
            let number = numbers.entry(chain).or_insert(0);
            *number += 1;
            let packets = count.split(':').next().and_then(|n| n.parse().ok()).expect("a count");
            counts.insert(format!("{table} {chain} {number}"), packets);
        }
    }
    counts
}

/// What is sent: each frontend that can be, from outside, from a pod and from the node.
fn questions(frontends: &[Frontend]) -> Vec<Packet> {
    let mut all = vec![to_nobody()];
    for frontend in frontends {
        if Family::of(frontend.key.ip) == Family::V6 || frontend.key.protocol == Protocol::Sctp {
            continue;
        }
        for origin in TrafficSource::ALL {
            // From one client a second packet follows the first one's affinity.
            if origin == TrafficSource::Outside || frontend.affinity.is_none() {
                let mut packet = to(frontend, origin);
                // Both come in by the one wire of this world.
                packet.interface = packet.interface.map(|_| "eth0".to_owned());
                all.push(packet);
            }
        }
    }
    all
}

/// Asks the walk, sends, and compares where the kernel's flows went.
fn check(world: &World, packet: &Packet, question: u16, walk: &dyn Fn(&Packet) -> Path) -> Vec<Path> {
    let sent = flows(packet, question);
    let paths: Vec<Path> = sent.iter().map(|(packet, _)| walk(packet)).collect();
    world.node.run("conntrack", &["-F"], None);
    world.send(&sent);
    let seen = world.tracked(|ip| sent.iter().any(|(packet, _)| packet.source == Some(ip)));
    let mut ends: BTreeMap<End, (f64, Vec<f64>)> = BTreeMap::new();
    for path in &paths {
        for (end, probability) in path.ends() {
            ends.entry(end).or_default().1.push(probability);
        }
    }
    let stopped = ends.keys().find(|end| matches!(end, End::Dropped | End::Refused)).copied();
    for (_, port) in &sent {
        let end = match seen.get(port) {
            // What is dropped or refused leaves no entry; which of both it was, the counters tell.
            None => stopped,
            // What the node sends to itself has one when it leaves, and is stopped only when it comes in.
            Some((answers, _)) if *answers == packet.destination && comes_back(packet) && stopped.is_some() => stopped,
            Some((answers, _)) if *answers == packet.destination => Some(End::Untouched),
            Some((to, replaced)) => {
                Some(End::Backend { to: *to, nodes_source: *replaced || packet.origin == TrafficSource::Node })
            }
        };
        let end = end.unwrap_or_else(|| panic!("{packet}: nothing became of port {port}; told {:?}", ends.keys()));
        ends.entry(end).or_default().0 += 1.0;
    }
    for (end, (seen, probabilities)) in &ends {
        assert!(
            likely(*seen, probabilities),
            "{packet}: {seen} of {PACKETS} ended {end:?}, told were {:.1}",
            probabilities.iter().sum::<f64>()
        );
    }
    paths
}

/// Whether the node sends to itself.
fn comes_back(packet: &Packet) -> bool {
    packet.origin == TrafficSource::Node && packet.source == Some(packet.destination.ip())
}

#[test]
fn packets_meet_the_iptables_rules_that_the_walk_names() {
    let Some(root) = support::recordings() else { return };
    if !support::privileged() {
        return;
    }
    for (recording, variant) in [("iptables-legacy", Variant::Legacy), ("iptables-nft", Variant::Nft)] {
        let saved = text(&root.join("small").join(recording).join("running/iptables-save.txt")).expect("the recording");
        let world = World::new();
        let rules = Rules { family: Family::V4, variant, text: saved };
        world.node.inside(|| load_rules(std::slice::from_ref(&rules)).expect("they can be loaded"));
        let around = world.around();
        let save = || world.node.run(&format!("iptables-{variant}-save"), &["-c"], None);
        let text = save();
        let dump = parse(text.as_bytes()).expect("it parses");
        let table = lift(Some(&dump), None).table;
        let _listening = world.listen(table.frontends());
        let mut sent = 0;
        // The nft variant's tools take longer over each reading of the counters.
        let every = if variant == Variant::Nft { 7 } else { 2 };
        for packet in questions(table.frontends()).into_iter().step_by(every) {
            let before = counters(&save());
            let paths = check(&world, &packet, sent, &|packet| through_iptables(&dump, &Sets::new(), packet, &around));
            compare_counters(&packet, &paths, &before, &counters(&save()));
            sent += 1;
        }
        println!("{recording}: {sent} destinations, {PACKETS} packets each, {} rules each", counters(&text).len());
        assert!(sent > 50);
    }
}

/// Each rule counted the packets that the walk says.
fn compare_counters(packet: &Packet, paths: &[Path], before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) {
    let mut told: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for way in paths.iter().flat_map(|path| &path.ways) {
        for step in &way.steps {
            told.entry(&step.at).or_default().push(way.probability);
        }
    }
    // The node answers what it refuses and what reaches it: those answers meet rules too.
    let answers = |end: &End| match end {
        End::Backend { to, .. } => to.ip() == node_address(Family::V4),
        end => matches!(end, End::Refused | End::Untouched),
    };
    let answered = paths.iter().any(|path| path.ends().keys().any(answers));
    for (rule, count) in after {
        let more = (count - before.get(rule).copied().unwrap_or(0)) as f64;
        let probabilities = told.get(rule.as_str()).cloned().unwrap_or_default();
        let least: f64 = probabilities.iter().sum();
        assert!(
            likely(more, &by_packet(&probabilities)) || answered && more >= least,
            "{packet}: {rule} counted {more} packets, told were {least:.1}"
        );
    }
}

/// One packet may come to a rule by several ways: together they are one chance, and never more than certain.
fn by_packet(probabilities: &[f64]) -> Vec<f64> {
    let sum: f64 = probabilities.iter().sum();
    let packets = f64::from(PACKETS);
    // A rule that one packet meets twice is met twice by all.
    let times = (sum / packets).ceil().max(1.0);
    vec![sum / packets / times; (packets * times) as usize]
}

#[test]
fn packets_end_where_the_walk_of_nftables_says() {
    let Some(root) = support::recordings() else { return };
    if !support::privileged() {
        return;
    }
    let recording = root.join("small/nftables/running");
    let world = World::new();
    world.node.run("nft", &["-f", "-"], text(&recording.join("nft-ruleset.txt")).as_deref());
    let state = NftablesState::from(crate::nftables::ruleset_of(&recording));
    let around = world.around();
    let _listening = world.listen(state.table.frontends());
    let mut sent = 0;
    for packet in questions(state.table.frontends()) {
        check(&world, &packet, sent, &|packet| through_nftables(&state.ruleset, packet, &around).expect("a table"));
        sent += 1;
    }
    println!("{sent} destinations, {PACKETS} packets each");
    assert!(sent > 100);
}

/// Which servers IPVS has given these clients for a destination, as ipvsadm lists its connections, and how many times.
fn connections(world: &World, to: SocketAddr, clients: &BTreeSet<IpAddr>) -> BTreeMap<SocketAddr, u16> {
    let list = world.node.run("ipvsadm", &["-Lnc"], None);
    let mut counts = BTreeMap::new();
    for line in list.lines() {
        if let [_, _, _, client, destination, server] = line.split_ascii_whitespace().collect::<Vec<_>>().as_slice()
            && destination.parse() == Ok(to)
            // What affinity remembers a client by has no port of its own.
            && client.parse::<SocketAddr>().is_ok_and(|client| client.port() != 0 && clients.contains(&client.ip()))
        {
            *counts.entry(server.parse().expect("an address")).or_default() += 1;
        }
    }
    counts
}

/// A node in IPVS mode, as recorded: sets, rules, addresses and virtual services of IPv4. `false` where the kernel has no IPVS.
fn load_ipvs(world: &World, recording: &std::path::Path) -> bool {
    if let Err(error) = command::output("ip", ["netns", "exec", &world.node.name, "ipvsadm", "-Ln"], None) {
        println!("skipped: no IPVS here ({error})");
        return false;
    }
    let recorded = |name: &str| text(&recording.join(name)).expect("the recording");
    world.node.run("ipset", &["restore"], Some(&recorded("ipset-save.txt")));
    let rules = Rules { family: Family::V4, variant: Variant::Nft, text: recorded("iptables-save.txt") };
    world.node.inside(|| load_rules(std::slice::from_ref(&rules)).expect("they can be loaded"));
    let addresses = Addresses::parse(&recorded("ip-addr.json")).expect("recorded").services.expect("the device");
    let add = |ip: &IpAddr| format!("addr add {ip}/32 dev {DEVICE}\n");
    let mut lines = format!("link add {DEVICE} type dummy\n");
    lines.extend(addresses.iter().filter(|ip| ip.is_ipv4()).map(add));
    world.node.run("ip", &["-batch", "-"], Some(lines.as_bytes()));
    let services = String::from_utf8(recorded("ipvsadm-Sn.txt")).expect("text");
    let of_v4 = |line: &&str| !line.contains('[');
    let services: String = services.lines().filter(of_v4).flat_map(|line| [line, "\n"]).collect();
    world.node.run("ipvsadm", &["-R"], Some(services.as_bytes()));
    world.node.inside(|| {
        // As kube-proxy sets it: IPVS tells connection tracking where it sends.
        std::fs::write("/proc/sys/net/ipv4/vs/conntrack", "1").expect("an own sysctl can be set");
    });
    true
}

#[test]
fn packets_end_where_the_walk_of_ipvs_says() {
    let Some(root) = support::recordings() else { return };
    if !support::privileged() {
        return;
    }
    let world = World::new();
    if !load_ipvs(&world, &root.join("small/ipvs/running")) {
        return;
    }
    let live =
        || ipvs::read_node(&Node::open(&NodeOptions::default()).expect("the live node")).expect("it can be read");
    let ipvs = world.node.inside(live);
    let around = world.around();
    let save = || world.node.run("iptables-nft-save", &["-c"], None);
    let text = save();
    let dump = parse(text.as_bytes()).expect("it parses");
    let walk = |packet: &Packet| through_ipvs(Some(&dump), &ipvs.state, &ipvs.table, packet, &around);
    let _listening = world.listen(ipvs.table.frontends());
    let mut sent = 0;
    // An emulated machine takes seconds for each.
    for packet in questions(ipvs.table.frontends()).into_iter().step_by(7) {
        let before = counters(&save());
        let paths = check(&world, &packet, sent, &walk);
        compare_counters(&packet, &paths, &before, &counters(&save()));
        let mut told: BTreeMap<SocketAddr, Vec<f64>> = BTreeMap::new();
        for (end, probability) in paths.iter().flat_map(Path::ends) {
            if let End::Backend { to, .. } = end {
                told.entry(to).or_default().push(probability);
            }
        }
        let clients = flows(&packet, sent).into_iter().filter_map(|(packet, _)| packet.source).collect();
        let seen = connections(&world, packet.destination, &clients);
        for server in told.keys().chain(seen.keys()) {
            let (seen, told) =
                (seen.get(server).copied().unwrap_or(0), told.get(server).map_or(&[][..], Vec::as_slice));
            let expected: f64 = told.iter().sum();
            assert!(likely(seen.into(), told), "{packet}: {server} got {seen} connections, told were {expected:.1}");
        }
        sent += 1;
    }
    println!("{sent} destinations, {PACKETS} packets each");
    assert!(sent > 40);
}
