//! Building a lab, each thing written down before it is made.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rustix::mount::{MountFlags, mount};

use super::network::{BRIDGE_MAC, Device, Network, Role};
use super::serve::{Pages, Site, Sites};
use super::spec::{Home, Place, Spec};
use super::state::{Names, Process, Record};
use super::{LabError, LeftOut, Target, Unlike, down, netns, sysctl};
use crate::capture::{cgroup, command};
use crate::model::{Family, Protocol};

/// A lab that is up. Dropping it tears it down, unless [`Self::keep`] was called.
#[derive(Debug)]
pub struct Lab {
    names: Names,
    record: Record,
    targets: Vec<(Place, Vec<Target>)>,
    left_out: Vec<LeftOut>,
    /// The kpx program, for the processes of the lab.
    kpx: PathBuf,
    guard: bool,
}

/// How long paths between the namespaces may take to work.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one connect may take meanwhile.
const TRY: Duration = Duration::from_millis(200);

/// From so many TCP endpoints with one port on, one listener for all addresses takes the place of one each.
const MANY: usize = 500;

impl Lab {
    /// Builds the lab. `kpx` is the program whose hidden subcommands are the backends and clients.
    pub fn up(spec: &Spec, kpx: &Path) -> Result<Self, LabError> {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        let names = spec.names.clone();
        fs_err::create_dir_all(super::state::ROOT)?;
        match fs_err::create_dir(names.directory()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(LabError::Exists { name: names.to_string() });
            }
            made => made?,
        }
        let (hierarchy, cgroup_mount) = match cgroup::root() {
            Ok(root) => (root, None),
            Err(_) => (names.directory().join("cgroup2"), Some(names.directory().join("cgroup2"))),
        };
        let record = Record {
            version: 1,
            name: names.to_string(),
            node_name: spec.node_name.clone(),
            from: spec.from.clone(),
            created: jiff::Timestamp::now().to_string(),
            cgroup: hierarchy.join(names.cgroup()),
            cgroup_mount,
            builder: Process::running("builder", std::process::id()),
            processes: Vec::new(),
            complete: false,
        };
        let targets = spec.targets.iter().map(|(place, list)| (*place, list.clone())).collect();
        let left_out = spec.left_out.clone();
        let mut lab = Self { names, record, targets, left_out, kpx: kpx.to_owned(), guard: true };
        lab.record.write(&lab.names)?;
        lab.build(spec)?;
        Ok(lab)
    }

    /// The lab of this name, which somebody brought up before. Dropping it leaves it.
    pub fn open(name: &str, kpx: &Path) -> Result<Self, LabError> {
        let names = Names::new(name)?;
        let record = Record::read(&names)?.filter(|record| record.complete);
        let record = record.ok_or_else(|| LabError::Unknown { name: name.to_owned() })?;
        let path = names.directory().join(TARGETS);
        let targets = serde_json::from_slice(&fs_err::read(&path)?)
            .map_err(|source| LabError::Recorded { place: path.display().to_string(), source })?;
        Ok(Self { names, record, targets, left_out: Vec::new(), kpx: kpx.to_owned(), guard: false })
    }

    /// Leaves the lab up.
    pub fn keep(mut self) -> Record {
        self.guard = false;
        self.record.clone()
    }

    /// Its names.
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// Its record.
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// The cgroup whose sockets are those of the node: what `--cgroup` wants.
    pub fn cgroup(&self) -> &Path {
        &self.record.cgroup
    }

    /// The cgroup of the clients on the node and in its pod.
    pub(super) fn clients(&self) -> PathBuf {
        self.record.cgroup.join(CLIENTS)
    }

    /// The frontends that clients at a place use.
    pub fn targets(&self, place: Place) -> &[Target] {
        self.targets.iter().find(|(p, _)| *p == place).map_or(&[], |(_, list)| list)
    }

    /// What of the node it does not have; empty for a lab that was opened.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// From now on expects of these frontends what they were met with; those that nobody can expect anything of are left alone.
    pub fn expect_what_was_met(&mut self, unlike: &[Unlike]) {
        for (place, targets) in &mut self.targets {
            let of = |target: &Target| {
                let same = |u: &&Unlike| u.addr == target.addr && u.protocol == target.protocol;
                unlike.iter().filter(|u| u.place == place.to_string()).find(same)
            };
            targets.retain_mut(|target| match of(target).map(|unlike| unlike.becomes) {
                None => true,
                Some(None) => false,
                Some(Some(expect)) => {
                    target.expect = expect;
                    true
                }
            });
        }
    }

    pub(super) fn kpx(&self) -> &Path {
        &self.kpx
    }

    /// Writes down a process of the lab.
    pub(super) fn adopt(&mut self, role: &str, pid: u32) -> Result<(), LabError> {
        self.record.processes.retain(Process::alive);
        self.record.processes.extend(Process::running(role, pid));
        self.record.write(&self.names)
    }

    /// The options with which other commands of kpx act on the lab's node.
    pub fn options(&self) -> Vec<String> {
        options(&self.names, &self.record)
    }

    fn build(&mut self, spec: &Spec) -> Result<(), LabError> {
        let names = self.names.clone();
        for directory in [names.bpf_mount(), names.state_dir(), names.api(), names.pages()] {
            fs_err::create_dir(directory)?;
        }
        for (file, bytes) in &spec.api {
            fs_err::write(names.api().join(file), bytes)?;
        }
        for (path, bytes) in &spec.pages {
            fs_err::write(names.pages().join(path.trim_start_matches('/')), bytes)?;
        }
        let targets = serde_json::to_vec(&self.targets).map_err(io::Error::from)?;
        fs_err::write(names.directory().join(TARGETS), targets)?;
        mount_at("bpf", &names.bpf_mount())?;
        if let Some(point) = &self.record.cgroup_mount {
            fs_err::create_dir(point)?;
            mount_at("cgroup2", point)?;
        }
        fs_err::create_dir(&self.record.cgroup)?;
        fs_err::create_dir(self.clients())?;
        self.left_out.extend(build_namespaces(spec)?);
        self.left_out.extend(netns::inside(&names.node(), || spec.recorded.load())?);
        self.start_backends(spec)?;
        self.try_paths(spec);
        self.record.builder = None;
        self.record.complete = true;
        self.record.write(&names)
    }

    /// Connects to one backend of each kind and family, from the node and from its pod, until that works: links and
    /// neighbours of a young namespace take a moment, and the first datagrams would be lost to it. Rules that forbid the way
    /// end the patience, no more.
    fn try_paths(&self, spec: &Spec) {
        let mut samples = Vec::new();
        for home in [Home::Pods, Home::Outside] {
            for family in Family::BOTH {
                let mut of = spec.listeners.get(&home).into_iter().flatten();
                let sample = of.find(|(a, protocol)| Family::of(a.ip()) == family && *protocol == Protocol::Tcp);
                samples.extend(sample.map(|(addr, _)| *addr));
            }
        }
        let deadline = Instant::now() + PATIENCE;
        for name in [self.names.node(), self.names.client()] {
            // A namespace that cannot be entered any more shows itself to whoever uses it next.
            let _ = netns::inside(&name, || {
                for addr in &samples {
                    while TcpStream::connect_timeout(addr, TRY).is_err() && Instant::now() < deadline {
                        thread::sleep(Duration::from_millis(10));
                    }
                }
                Ok(())
            });
        }
    }

    fn start_backends(&mut self, spec: &Spec) -> Result<(), LabError> {
        let names = &self.names;
        let mut sites = Sites::default();
        for (home, addresses) in &spec.listeners {
            let netns = match home {
                Home::Node => names.node(),
                Home::Pods => names.pods(),
                Home::Outside => names.outside(),
            };
            sites.sites.push(site(netns, addresses, *home != Home::Node));
        }
        if !spec.pages.is_empty() {
            let file = |path: &str| (path.to_owned(), names.pages().join(path.trim_start_matches('/')));
            let files = spec.pages.iter().map(|(path, _)| file(path)).collect();
            sites.pages = Some(Pages { netns: names.node(), files });
        }
        let mut line = serde_json::to_vec(&sites).map_err(io::Error::from)?;
        line.push(b'\n');
        let mut child = command::start(&self.kpx.to_string_lossy(), ["lab", "serve"])?;
        self.adopt("backends", child.id())?;
        let mut said = String::new();
        if let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) {
            // A process that has ended already says why on its output.
            let _ = input.write_all(&line);
            BufReader::new(output).read_line(&mut said)?;
        }
        if said.trim() == "ready" {
            return Ok(());
        }
        let _ = child.wait();
        Err(LabError::Helper { role: "backends", message: said.trim().to_owned() })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.guard
            && let Err(error) = down::down(&self.record.name)
        {
            tracing::warn!(%error, lab = self.record.name, "lab not wholly removed");
        }
    }
}

impl Lab {
    /// The commands that stop and start what plays kube-proxy in this lab: its answers go, and come back.
    pub fn proxy_commands(&self) -> [String; 2] {
        let there = self.names.pages().display().to_string();
        let away = format!("{there}.stopped");
        [format!("mv {there} {away}"), format!("mv {away} {there}")]
    }
}

/// File with the targets of the clients.
const TARGETS: &str = "targets.json";
/// Cgroup of the clients, below the lab's.
const CLIENTS: &str = "clients";

/// The options with which other commands of kpx act on a lab's node.
pub(super) fn options(names: &Names, record: &Record) -> Vec<String> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    [
        ("--netns", names.node()),
        ("--cgroup", text(record.cgroup.clone())),
        ("--bpffs", text(names.bpffs())),
        ("--state-dir", text(names.state_dir())),
        ("--services-from", text(names.api())),
        ("--node-name", record.node_name.clone()),
    ]
    .into_iter()
    .flat_map(|(option, value)| [option.to_owned(), value])
    .collect()
}

fn site(netns: String, addresses: &BTreeSet<(SocketAddr, Protocol)>, may_merge: bool) -> Site {
    let of = |protocol| addresses.iter().filter(move |(_, p)| *p == protocol).map(|(addr, _)| *addr);
    let tcp: Vec<SocketAddr> = of(Protocol::Tcp).collect();
    let mut merged = BTreeSet::new();
    for addr in &tcp {
        let family = Family::of(addr.ip());
        let key = SocketAddr::new(family.unspecified(), addr.port());
        let same = tcp.iter().filter(|a| a.port() == addr.port() && Family::of(a.ip()) == family);
        if may_merge && !merged.contains(&key) && same.count() >= MANY {
            merged.insert(key);
        }
    }
    let covered =
        |addr: &SocketAddr| merged.contains(&SocketAddr::new(Family::of(addr.ip()).unspecified(), addr.port()));
    let single = tcp.iter().copied().filter(|addr| !covered(addr));
    let tcp = merged.iter().copied().chain(single).collect();
    Site { netns, tcp, udp: of(Protocol::Udp).collect() }
}

fn mount_at(kind: &'static str, path: &Path) -> Result<(), LabError> {
    mount(kind, path, kind, MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)
        .map_err(|error| LabError::Mount { kind, path: path.to_owned(), source: error.into() })
}

/// Runs lines of `ip -batch`, in a namespace or to make some.
fn ip(namespace: Option<&str>, lines: &str) -> Result<(), LabError> {
    let args = namespace.map(|name| vec!["-n", name]).unwrap_or_default();
    ip_with(args, namespace, lines)
}

/// The same with these options.
fn ip_with(mut args: Vec<&str>, namespace: Option<&str>, lines: &str) -> Result<(), LabError> {
    args.extend(["-batch", "-"]);
    let output = command::run("ip", args, Some(lines.as_bytes()))?;
    if output.status.success() {
        return Ok(());
    }
    // ip says why, and then `Command failed -:LINE`.
    let said = String::from_utf8_lossy(&output.stderr);
    let number = said.lines().find_map(|line| line.strip_prefix("Command failed -:")?.parse::<usize>().ok());
    let line = number.and_then(|number| lines.lines().nth(number - 1)).unwrap_or_default();
    Err(LabError::Tool {
        program: format!("ip {line}"),
        about: format!("in namespace {}", namespace.unwrap_or("of this process")),
        message: said.lines().next().unwrap_or_default().to_owned(),
    })
}

/// Sysctls of every namespace of a lab, before it has interfaces: no waiting for duplicate address detection, and no
/// opinion on the way that packets come.
const QUIET: [(&str, &str); 10] = [
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.all.accept_ra", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
];

/// Makes the namespaces with their links; gives what of the recorded sysctls this kernel does not take.
fn build_namespaces(spec: &Spec) -> Result<Vec<LeftOut>, LabError> {
    let names = &spec.names;
    let namespaces = names.namespaces();
    ip(None, &namespaces.iter().fold(String::new(), |text, name| text + "netns add " + name + "\n"))?;
    for name in &namespaces {
        netns::inside(name, || sysctl::set(QUIET))?;
    }
    let recorded = || spec.sysctls.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    netns::inside(&names.node(), || {
        sysctl::set([("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])?;
        // Clients ask Services without backends more often than the kernel would refuse them by default (once a second
        // and address): a refusal that is only held back would look like silence.
        sysctl::set([("net.ipv4.icmp_ratelimit", "0"), ("net.ipv6.icmp.ratelimit", "0")])?;
        // What is wrong with one of these shows below, where all are set.
        sysctl::try_set(recorded().filter(|(name, _)| name.contains(".conf.all.") || name.contains(".conf.default.")));
        Ok(())
    })?;
    ip(None, &links(&spec.network, names))?;
    ip(Some(&names.node()), &node(&spec.network, &spec.addresses(Home::Pods), &spec.client_pod))?;
    ip(Some(&names.outside()), &outside(spec))?;
    for (family, option) in [(Family::V4, "-4"), (Family::V6, "-6")] {
        let outside = names.outside();
        ip_with(vec![option, "-n", &outside], Some(&outside), &back_by_the_same_way(&spec.network, family))?;
    }
    ip(Some(&names.pods()), &pods(&spec.network, &spec.addresses(Home::Pods), true))?;
    ip(Some(&names.client()), &pods(&spec.network, &spec.client_pod, false))?;
    netns::inside(&names.node(), || Ok(sysctl::try_set(recorded())))
}

impl Spec {
    fn addresses(&self, home: Home) -> Vec<IpAddr> {
        let all: BTreeSet<IpAddr> =
            self.listeners.get(&home).into_iter().flatten().map(|(addr, _)| addr.ip()).collect();
        all.into_iter().collect()
    }
}

fn links(network: &Network, names: &Names) -> String {
    let (node, outside) = (names.node(), names.outside());
    let mut text = String::new();
    for (i, device) in network.with(Role::Uplink).enumerate() {
        let (name, mtu) = (&device.name, mtu(device));
        let _ = writeln!(text, "link add name {name}{mtu} netns {node} type veth peer name up{i}{mtu} netns {outside}");
    }
    let mtu = network.with(Role::Pods).next().map(mtu).unwrap_or_default();
    for ((port, mac), namespace) in [(PODS_PORT, names.pods()), (CLIENT_PORT, names.client())] {
        let peer = format!("peer name eth0{mtu} address {mac} netns {namespace}");
        let _ = writeln!(text, "link add name {port}{mtu} netns {node} type veth {peer}");
    }
    text
}

/// The words that give an interface the size of packets that it was recorded with.
fn mtu(device: &Device) -> String {
    device.mtu.map_or_else(String::new, |mtu| format!(" mtu {mtu}"))
}

/// Ports of the pods' bridge, and the link-layer address at the other end.
const PODS_PORT: (&str, &str) = ("veth-pods", "02:6b:70:78:00:02");
const CLIENT_PORT: (&str, &str) = ("veth-client", "02:6b:70:78:00:03");

fn node(network: &Network, pods: &[IpAddr], client_pod: &[IpAddr]) -> String {
    let mut text = "link set lo up\n".to_owned();
    for device in &network.devices {
        let name = &device.name;
        match device.role {
            Role::Pods => drop(writeln!(text, "link add name {name}{} type bridge", mtu(device))),
            Role::Other => drop(writeln!(text, "link add name {name} type dummy")),
            Role::Uplink | Role::Loopback => {}
        }
        if let Some(mac) = &device.mac {
            let _ = writeln!(text, "link set dev {name} address {mac}");
        }
        for net in &device.addresses {
            address(&mut text, *net, name);
        }
        let _ = writeln!(text, "link set dev {name} up");
    }
    if let Some(bridge) = network.with(Role::Pods).next() {
        for (port, _) in [PODS_PORT, CLIENT_PORT] {
            let _ = writeln!(text, "link set dev {port} master {} up", bridge.name);
        }
        // Pods of a node have talked before: hundreds of flows that begin at once would overflow the queue of datagrams
        // that wait for a neighbour's address.
        for (addresses, (_, mac)) in [(pods, PODS_PORT), (client_pod, CLIENT_PORT)] {
            for ip in addresses {
                let _ = writeln!(text, "neigh replace {ip} lladdr {mac} dev {} nud permanent", bridge.name);
            }
        }
        for ip in client_pod.iter().chain(pods).filter(|ip| !network.in_pod_subnet(**ip)) {
            let _ = writeln!(text, "route replace {} dev {}", IpNet::from(*ip), bridge.name);
        }
    }
    for route in &network.routes {
        let _ = write!(text, "route replace {}", route.destination);
        if let Some(gateway) = route.gateway {
            let beside = network
                .devices
                .iter()
                .any(|d| d.name == route.device && d.addresses.iter().any(|net| net.contains(&gateway)));
            let _ = write!(text, " via {gateway}{}", if beside { "" } else { " onlink" });
        }
        let _ = writeln!(text, " dev {}", route.device);
    }
    text
}

fn address(text: &mut String, net: IpNet, device: &str) {
    let nodad = if net.addr().is_ipv6() { " nodad" } else { "" };
    let _ = writeln!(text, "addr add {net} dev {device}{nodad}");
}

/// The gateway, the other nodes and all their pods.
fn outside(spec: &Spec) -> String {
    let network = &spec.network;
    let mut text = "link set lo up\n".to_owned();
    let gateways = network.gateways();
    let mut own: BTreeSet<IpAddr> = BTreeSet::new();
    for (i, device) in network.with(Role::Uplink).enumerate() {
        let name = format!("up{i}");
        for net in gateways.get(device.name.as_str()).into_iter().flatten() {
            if own.insert(net.addr()) {
                address(&mut text, *net, &name);
            }
        }
        for ip in &spec.beside {
            let net = device.addresses.iter().find(|net| net.contains(ip));
            if let Some(net) = net.and_then(|net| IpNet::new(*ip, net.prefix_len()).ok())
                && own.insert(*ip)
            {
                address(&mut text, net, &name);
            }
        }
        let _ = writeln!(text, "link set dev {name} up");
    }
    let uplinks: Vec<&Device> = network.with(Role::Uplink).collect();
    for ip in spec.addresses(Home::Outside) {
        if own.insert(ip) {
            // A neighbour's address has to be on the interface that is asked for it.
            let beside = uplinks.iter().position(|device| device.addresses.iter().any(|net| net.contains(&ip)));
            endpoint(&mut text, ip, &beside.map_or_else(|| "lo".to_owned(), |i| format!("up{i}")));
        }
    }
    let node_address = |family: Family| {
        let uplink = network.with(Role::Uplink).flat_map(|d| &d.addresses).map(IpNet::addr);
        uplink.into_iter().find(|ip| Family::of(*ip) == family)
    };
    let subnets = network.pod_subnets().into_iter().map(|net| net.trunc());
    let pods = spec.addresses(Home::Pods).into_iter().filter(|ip| !network.in_pod_subnet(*ip));
    let single = spec.client_pod.iter().chain(&spec.via_node).copied().chain(pods).map(IpNet::from);
    for destination in subnets.chain(single) {
        if let Some(node) = node_address(Family::of(destination.addr())) {
            let _ = writeln!(text, "route replace {destination} via {node}");
        }
    }
    text
}

/// What is reached over an interface beside the first (a tunnel's) answers over it too: a node that filters by the reverse path
/// expects that. Of one family, which `ip rule` wants to be told.
fn back_by_the_same_way(network: &Network, family: Family) -> String {
    let mut text = String::new();
    for (i, device) in network.with(Role::Uplink).enumerate().skip(1) {
        let table = 100 + i;
        let Some(node) = device.addresses.iter().map(IpNet::addr).find(|ip| Family::of(*ip) == family) else {
            continue;
        };
        let routes = network.routes.iter().filter(|r| r.device == device.name && r.destination.prefix_len() > 0);
        for destination in routes.map(|r| r.destination).filter(|net| Family::of(net.addr()) == family) {
            let any = family.unspecified();
            let _ = writeln!(text, "rule add from {destination} lookup {table}");
            let _ = writeln!(text, "route replace {any}/0 via {node} dev up{i} onlink table {table}");
        }
    }
    text
}

/// An address to listen on. For IPv4 a local route does (hundreds of addresses on one interface make a list that the
/// kernel walks); IPv6 wants the address itself.
fn endpoint(text: &mut String, ip: IpAddr, device: &str) {
    match ip {
        IpAddr::V4(ip) => drop(writeln!(text, "route replace local {ip}/32 dev lo")),
        IpAddr::V6(_) => address(text, IpNet::from(ip), device),
    }
}

/// The gateway of pods whose node has no address in their subnet.
const fn nobodys(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
    }
}

/// A namespace with pods of the node: whatever they send goes to the node first, as with most network plug-ins, also
/// between two pods of the node.
fn pods(network: &Network, addresses: &[IpAddr], many: bool) -> String {
    let mut text = "link set lo up\nlink set dev eth0 up\n".to_owned();
    for ip in addresses {
        if many {
            endpoint(&mut text, *ip, "eth0");
        } else {
            address(&mut text, IpNet::from(*ip), "eth0");
        }
    }
    let mut done = BTreeSet::new();
    let bridge = network.with(Role::Pods).next().and_then(|bridge| bridge.mac.as_deref()).unwrap_or(BRIDGE_MAC);
    let of_subnets = network.pod_subnets().into_iter().map(|net| (net.addr(), false));
    // Where the node has no address towards its pods, they have one for it all the same.
    let of_pods = addresses.iter().map(|ip| (nobodys(Family::of(*ip)), true));
    for (gateway, told) in of_subnets.chain(of_pods) {
        if !done.insert(gateway.is_ipv4()) {
            continue;
        }
        if told {
            let _ = writeln!(text, "neigh replace {gateway} lladdr {bridge} dev eth0 nud permanent");
        }
        let any: IpAddr = if gateway.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let _ = writeln!(text, "route replace {} dev eth0", IpNet::from(gateway));
        let _ = writeln!(text, "route replace {any}/0 via {gateway} dev eth0");
    }
    text
}
