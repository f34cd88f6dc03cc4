//! Two nodes with pods, and the outside: the recorded cluster's addresses in network namespaces.
//!
//! ```text
//!  outside (192.168.50.1, node-c and its pods) ── bridge ──┬── node-a ── cni0 ──┬── client
//!                                                          │                    ├── own (a13)
//!                                                          │                    └── all other pods
//!                                                          └── node-b ── cni0 ── the same
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kpx::capture::{cgroup, command};
use kpx::dataplane::ClientAddresses;
use kpx::model::{Family, Protocol};

use super::behaviour::Place;
use super::client::Client;
use super::names;
use super::netns::Netns;
use super::probe::{Flows, Heard, Request};
use super::server::Servers;
use super::state::Worlds;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Letters of the nodes that have namespaces of their own; all else is outside.
const NODES: [char; 2] = ['a', 'b'];
/// Ends of the addresses of the pod that only asks, and of the one that is an endpoint too.
const CLIENT: &str = "200";
const OWN: &str = "13";
/// The client outside, which is everybody's gateway.
const OUTSIDE: [&str; 2] = ["192.168.50.1", "fd00:50::1"];
/// A client inside the source ranges of `edge/lb-sources-dual`.
const LISTED: [&str; 2] = ["198.51.100.7", "2001:db8:1::7"];

/// One node.
pub(super) struct NodeNet {
    pub(super) name: &'static str,
    pub(super) netns: Arc<Netns>,
    pub(super) cgroup: Cgroup,
    client: Netns,
    _pause: Pause,
    own: Netns,
    others: Netns,
}

/// The cluster: gone with this value.
pub(super) struct Cluster {
    // Clients and servers end before what they stand in.
    clients: [Client; 2],
    here: Client,
    _servers: Vec<Servers>,
    pub(super) nodes: [NodeNet; 2],
    outside: Netns,
}

/// A cgroup of a test's own.
pub(super) struct Cgroup(pub(super) PathBuf);

impl Cgroup {
    fn new(node: &str) -> Self {
        let root = cgroup::root().expect("cgroup2 is mounted");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("kpx-conformance-{}-{number}-{node}", std::process::id()));
        fs_err::create_dir(&path).expect("root can make a cgroup");
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel needs a moment to bury the clients.
        for _ in 0..100 {
            if fs_err::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Cluster {
    /// Builds it, with a server for every endpoint of these worlds.
    pub(super) fn new(worlds: &Worlds) -> Self {
        let endpoints: BTreeSet<_> = worlds.all().flat_map(super::state::World::endpoints).collect();
        let outside = outside(&endpoints);
        let nodes = NODES.map(|letter| NodeNet::new(letter, &outside, &endpoints));
        let mut servers = Vec::new();
        let mut rest = endpoints;
        for (node, letter) in nodes.iter().zip(NODES) {
            let own = Family::BOTH.map(|family| names::pod(letter, OWN, family));
            for (netns, here) in [
                (&*node.netns, &Family::BOTH.map(|family| names::node(letter, family))[..]),
                (&node.own, &own[..]),
                (&node.others, &pods(letter, &rest).into_iter().collect::<Vec<_>>()[..]),
            ] {
                let (at, others) = rest.into_iter().partition(|(addr, _)| here.contains(&addr.ip()));
                rest = others;
                servers.push(Servers::start(netns, &at));
            }
        }
        servers.push(Servers::start(&outside, &rest));
        let clients = [0, 1].map(|i| Client::in_cgroup(&nodes[i].cgroup.0));
        let cluster = Self { clients, here: Client::Here(Flows::default()), _servers: servers, nodes, outside };
        cluster.try_paths();
        cluster
    }

    /// Who asks from there.
    pub(super) fn client(&self, place: Place) -> &Client {
        match place {
            Place::Outside | Place::Listed | Place::Unseen | Place::UnseenOwn => &self.here,
            Place::NodeA | Place::PodA | Place::Own => &self.clients[0],
            Place::NodeB | Place::PodB => &self.clients[1],
        }
    }

    /// The namespace of a place.
    pub(super) fn netns(&self, place: Place) -> PathBuf {
        let [a, b] = &self.nodes;
        let netns = match place {
            Place::Outside | Place::Listed => &self.outside,
            Place::NodeA => &a.netns,
            Place::NodeB => &b.netns,
            Place::PodA | Place::Unseen => &a.client,
            Place::PodB => &b.client,
            Place::Own | Place::UnseenOwn => &a.own,
        };
        netns.path()
    }

    /// The address of a client.
    pub(super) fn address(place: Place, family: Family) -> IpAddr {
        let of = |both: [&str; 2]| both[usize::from(family == Family::V6)].parse().expect("an address");
        match place {
            Place::Outside => of(OUTSIDE),
            Place::Listed => of(LISTED),
            Place::NodeA => names::node('a', family),
            Place::NodeB => names::node('b', family),
            Place::PodA | Place::Unseen => names::pod('a', CLIENT, family),
            Place::PodB => names::pod('b', CLIENT, family),
            Place::Own | Place::UnseenOwn => names::pod('a', OWN, family),
        }
    }

    /// Links and neighbours of a young namespace take a moment: pods are asked without any Service until they answer.
    fn try_paths(&self) {
        let places = [Place::Outside, Place::NodeA, Place::NodeB, Place::PodA, Place::PodB, Place::Own];
        for (place, family) in places.into_iter().flat_map(|place| Family::BOTH.map(|family| (place, family))) {
            for pod in ["a11", "b11", "a13", "b13", "c11"] {
                let (ip, port) = names::endpoint(pod, family);
                let ask = super::probe::Ask {
                    netns: self.netns(place),
                    from: SocketAddr::new(family.unspecified(), 0),
                    to: SocketAddr::new(ip, port),
                    how: super::probe::How::Tcp,
                    count: 1,
                    patience: Duration::from_secs(20),
                };
                let heard = self.client(place).ask(Request::Try(ask));
                assert!(matches!(heard[..], [Heard::Answer { .. }]), "{place:?} to {pod} {family}: {heard:?}");
            }
        }
    }
}

/// The addresses of a node's pods that are nobody else's.
fn pods(letter: char, endpoints: &BTreeSet<(SocketAddr, Protocol)>) -> BTreeSet<IpAddr> {
    let mut found: BTreeSet<IpAddr> = endpoints.iter().map(|(addr, _)| addr.ip()).collect();
    found.retain(|ip| {
        let name = names::name(SocketAddr::new(*ip, 8080));
        name.strip_prefix(letter).is_some_and(|end| end != OWN)
    });
    found
}

fn outside(endpoints: &BTreeSet<(SocketAddr, Protocol)>) -> Netns {
    let netns = Netns::new();
    let mut lines = "link add wire type bridge mcast_snooping 0\nlink set wire up\n".to_owned();
    // The first address is the one that this client speaks with.
    for address in ["192.168.50.1/24", "fd00:50::1/64", "192.168.50.13/24"] {
        add(&mut lines, address, "wire");
    }
    // Of two IPv6 addresses the kernel would choose by itself.
    let _ = writeln!(lines, "addr add fd00:50::13/64 dev wire nodad preferred_lft 0");
    for address in LISTED {
        add(&mut lines, address, "lo");
    }
    for (i, letter) in NODES.into_iter().enumerate() {
        for family in Family::BOTH {
            let node = names::node(letter, family);
            let length = if family == Family::V4 { 24 } else { 64 };
            let _ = writeln!(lines, "route add {}/{length} via {node}", names::pod(letter, "0", family));
            // Services are reached through node-a.
            let services: &[&str] = match family {
                Family::V4 => &["10.96.0.0/12", "203.0.113.0/24", "198.51.100.0/24"],
                Family::V6 => &["fd00:10:96::/112", "fd00:203::/64", "fd00:198::/64"],
            };
            for net in services.iter().filter(|_| i == 0) {
                let _ = writeln!(lines, "route add {net} via {node}");
            }
        }
    }
    let elsewhere: BTreeSet<IpAddr> = endpoints.iter().map(|(addr, _)| addr.ip()).collect();
    for ip in elsewhere {
        let name = names::name(SocketAddr::new(ip, 8080));
        if !name.starts_with('a') && !name.starts_with('b') && !name.starts_with("node-") && !OUTSIDE.contains(&&*name)
        {
            add(&mut lines, &ip.to_string(), "lo");
        }
    }
    // Whatever a node sends here that nobody has is refused by name, unlike what a node drops.
    for any in ["0.0.0.0/0", "::/0"] {
        let _ = writeln!(lines, "rule add to {any} iif wire lookup 100\nroute add unreachable {any} table 100");
    }
    netns.sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]);
    netns.ip(&lines);
    netns
}

fn add(lines: &mut String, address: &str, device: &str) {
    let nodad = if address.contains(':') { " nodad" } else { "" };
    let _ = writeln!(lines, "addr add {address} dev {device}{nodad}");
}

impl NodeNet {
    fn new(letter: char, outside: &Netns, endpoints: &BTreeSet<(SocketAddr, Protocol)>) -> Self {
        let name = if letter == 'a' { "node-a" } else { "node-b" };
        let [netns, client, own, others] = [(); 4].map(|()| Netns::new());
        netns.sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]);
        let mut lines = format!(
            "link add eth0 type veth peer name to-{letter} netns {}\nlink add cni0 type bridge mcast_snooping 0\n\
             link set eth0 up\nlink set cni0 up\n",
            outside.path().display()
        );
        for (port, pod) in [("p0", &client), ("p1", &own), ("p2", &others)] {
            let _ = writeln!(lines, "link add {port} type veth peer name eth0 netns {}", pod.path().display());
            // A pod may reach itself through the node, as network plug-ins for bridges allow.
            let _ = writeln!(lines, "link set {port} master cni0 up\nlink set {port} type bridge_slave hairpin on");
        }
        for family in Family::BOTH {
            let length = if family == Family::V4 { 24 } else { 64 };
            add(&mut lines, &format!("{}/{length}", names::node(letter, family)), "eth0");
            add(&mut lines, &format!("{}/{length}", names::pod(letter, "1", family)), "cni0");
        }
        outside_port(outside, &netns, &lines, letter);
        let mut routes = String::new();
        for family in Family::BOTH {
            let length = if family == Family::V4 { 24 } else { 64 };
            for other in ['a', 'b', 'c'].into_iter().filter(|other| *other != letter) {
                let (net, node) = (names::pod(other, "0", family), names::node(other, family));
                let _ = writeln!(routes, "route add {net}/{length} via {node}");
            }
            let gateway = OUTSIDE[usize::from(family == Family::V6)];
            let _ = writeln!(routes, "route add default via {gateway}");
        }
        netns.ip(&routes);
        let both = |end: &str| Family::BOTH.map(|family| names::pod(letter, end, family));
        join(&client, letter, both(CLIENT));
        join(&own, letter, both(OWN));
        join(&others, letter, pods(letter, endpoints));
        let pause = client.inside(Pause::start);
        Self { name, netns: Arc::new(netns), cgroup: Cgroup::new(name), client, _pause: pause, own, others }
    }
}

impl NodeNet {
    /// `ip -j -d addr` there.
    pub(super) fn addresses(&self) -> Vec<u8> {
        self.netns.inside(|| command::output("ip", ["-j", "-d", "addr"], None)).expect("ip runs")
    }

    /// Whose sockets are in which namespace.
    pub(super) fn clients(&self) -> BTreeMap<u64, ClientAddresses> {
        let letter = if self.name == "node-a" { 'a' } else { 'b' };
        let of = |ips: [IpAddr; 2]| {
            let [IpAddr::V4(v4), IpAddr::V6(v6)] = ips else { panic!("IPv4, then IPv6") };
            ClientAddresses { v4: Some(v4), v6: Some(v6) }
        };
        let node = Family::BOTH.map(|family| names::node(letter, family));
        let [client, own] = [CLIENT, OWN].map(|end| Family::BOTH.map(|family| names::pod(letter, end, family)));
        [(&*self.netns, node), (&self.client, client), (&self.own, own)]
            .into_iter()
            .map(|(netns, ips)| (netns.cookie(), of(ips)))
            .collect()
    }
}

/// The process that every pod has, and by which its network namespace is found.
struct Pause(std::process::Child);

impl Pause {
    fn start() -> Self {
        Self(command::start("sleep", ["infinity"]).expect("sleep starts"))
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn outside_port(outside: &Netns, netns: &Netns, lines: &str, letter: char) {
    netns.ip(lines);
    outside.ip(&format!("link set to-{letter} master wire up\n"));
}

/// Gives a namespace the addresses of pods. Whatever they send goes to the node first, as with most network plug-ins,
/// also between two pods of one node.
fn join(netns: &Netns, letter: char, addresses: impl IntoIterator<Item = IpAddr>) {
    let mut lines = "link set eth0 up\n".to_owned();
    for ip in addresses {
        let length = if ip.is_ipv4() { 32 } else { 128 };
        add(&mut lines, &format!("{ip}/{length}"), "eth0");
    }
    for family in Family::BOTH {
        let gateway = names::pod(letter, "1", family);
        let _ = writeln!(lines, "route add {gateway} dev eth0\nroute add default via {gateway} dev eth0");
    }
    netns.ip(&lines);
}
