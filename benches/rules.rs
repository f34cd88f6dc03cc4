//! New connections and requests through kpx beside kube-proxy's recorded rules, in one run.
//!
//! `cargo bench --bench rules` needs root, a cgroup2 mount, the recordings beside the project (`KPX_FIXTURES`), iptables (both
//! variants) and nft. Each subject has a node and a far side of its own, in network namespaces joined by a wire; on the far side
//! one server answers for all pods. A process for each subject measures when told to, a block at a time, and the subjects take
//! turns, so that a noisy machine is equally noisy to all. What comes out goes to `target/bench/rules.json` too.

#![allow(clippy::print_stdout, reason = "a benchmark reports on stdout")]

#[path = "rules/worker.rs"]
mod worker;
#[path = "rules/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use kpx::capture::Variant;
use kpx::dataplane::{Capacity, Dataplane, Mode, Paths, Served, XdpMode, node_addresses};
use kpx::inspect::bpf;
use kpx::inspect::iptables::{lift, parse};
use kpx::model::{
    Backend, Exposure, Frontend, FrontendKey, Masquerade, NodeFacts, Origin, Policy, Protocol, ServiceTable,
};
use serde_json::{Value, json};
use world::World;

/// Blocks of connects for each subject and target, and connects in a block.
const BLOCKS: usize = 40;
const BLOCK: usize = 100;
/// Requests of a connection that is kept, in a block.
const REQUESTS: usize = 1_000;
/// How long connections a second are counted, in a block.
const COUNTING: Duration = Duration::from_millis(250);
/// Blocks of those two.
const FEWER_BLOCKS: usize = 12;
/// Changes of one endpoint.
const CHANGES: u16 = 2_000;

/// The node's address in the recordings, where nftables' rules serve NodePorts at no other.
const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 60, 11);

fn main() -> io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some(worker::WORD) {
        return worker::work();
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root (network namespaces, BPF)");
        return Ok(());
    }
    let root = std::env::var_os("KPX_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures"), PathBuf::from);
    if !root.is_dir() {
        println!("skipped: no recordings at {} (set KPX_FIXTURES)", root.display());
        return Ok(());
    }
    let sizes = std::env::var("KPX_BENCH_SIZES").unwrap_or_else(|_| "100,1000,10000,100000".to_owned());
    let mut results = Vec::new();
    for size in sizes.split(',').filter_map(|size| size.trim().parse().ok()) {
        results.push(measure(&root, size)?);
    }
    let load = fs_err::read_to_string("/proc/loadavg")?;
    let release = fs_err::read_to_string("/proc/sys/kernel/osrelease")?;
    let all = json!({ "kernel": release.trim(), "load": load.trim(), "sizes": results });
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs_err::create_dir_all(&target)?;
    fs_err::write(target.join("rules.json"), format!("{all:#}\n"))
}

/// What a subject has to do with the packets of Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// Nothing: connections go straight to a pod.
    Direct,
    Iptables(Variant),
    Nftables,
    Kpx(Reach),
}

/// How much of kpx is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// The hooks of sockets only.
    Sockets,
    /// The packet path on the device too: what replaces kube-proxy.
    Packets,
    /// The short cut in the driver too.
    ShortCut,
}

impl Subject {
    const ALL: [Self; 7] = [
        Self::Direct,
        Self::Iptables(Variant::Legacy),
        Self::Iptables(Variant::Nft),
        Self::Nftables,
        Self::Kpx(Reach::Sockets),
        Self::Kpx(Reach::Packets),
        Self::Kpx(Reach::ShortCut),
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Iptables(Variant::Legacy) => "iptables-legacy",
            Self::Iptables(Variant::Nft) => "iptables-nft",
            Self::Nftables => "nftables",
            Self::Kpx(Reach::Sockets) => "kpx-sockets",
            Self::Kpx(Reach::Packets) => "kpx",
            Self::Kpx(Reach::ShortCut) => "kpx-xdp",
        }
    }
}

/// Which Services are asked for.
struct Targets {
    /// ClusterIPs of the first, middle and last Service of the rules.
    places: [(&'static str, SocketAddr); 3],
    node_port: SocketAddr,
    /// A pod behind one of them.
    pod: SocketAddr,
}

fn measure(root: &Path, size: usize) -> io::Result<Value> {
    let recording = root.join("scale").join(size.to_string());
    let recorded = recording.is_dir();
    let rules = if recorded { Some(world::text(&recording.join("iptables-save.txt"))?) } else { None };
    let table = match &rules {
        Some(text) => lift(Some(&parse(text).map_err(io::Error::other)?), None).table,
        None => generated(size),
    };
    let targets = targets(&table)?;
    println!("\n{size} Services with 3 endpoints each");
    let mut running: Vec<(Subject, World, worker::Worker, worker::Worker)> = Vec::new();
    let mut kpx: Vec<(Reach, Kpx)> = Vec::new();
    for subject in Subject::ALL {
        let world = World::new(subject.name())?;
        let start = Instant::now();
        match subject {
            Subject::Direct => {}
            Subject::Kpx(reach) => kpx.push((reach, Kpx::new(&world, &table, reach)?)),
            _ if !recorded => continue,
            Subject::Iptables(variant) => world.load_iptables(variant, rules.as_deref().unwrap_or_default())?,
            Subject::Nftables => match world::text(&recording.join("nft-ruleset.txt")) {
                Ok(text) => world.load_nftables(&text)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            },
        }
        println!("  {:<16} set up in {:.2} s", subject.name(), start.elapsed().as_secs_f64());
        let own = kpx.iter().find(|(reach, _)| subject == Subject::Kpx(*reach));
        let cgroup = own.map(|(_, kpx)| kpx.paths.cgroup.as_path());
        let (inside, outside) = (World::worker(&world.node(), cgroup)?, World::worker(&world.far(), None)?);
        running.push((subject, world, inside, outside));
    }
    let mut found: BTreeMap<String, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
    for block in 0..BLOCKS {
        for (subject, world, inside, outside) in &mut running {
            let refused = |error: io::Error| io::Error::other(format!("{}: {error}", subject.name()));
            let mut add = |what: &str, values: Vec<f64>| {
                found.entry(what.to_owned()).or_default().entry(subject.name()).or_default().extend(values);
            };
            let straight = |to: SocketAddr| if *subject == Subject::Direct { targets.pod } else { to };
            for (place, address) in targets.places {
                add(
                    &format!("connect, {place} Service"),
                    world.quiet(|| inside.ask(&format!("connect {} {BLOCK}", straight(address)))).map_err(refused)?,
                );
            }
            if block >= FEWER_BLOCKS {
                continue;
            }
            // From outside straight to a pod is no comparison: NodePorts cross the node.
            let millis = COUNTING.as_millis();
            add(
                "requests kept alive, ClusterIP",
                inside.ask(&format!("request {} {REQUESTS}", straight(targets.places[2].1))).map_err(refused)?,
            );
            add(
                "connections a second, ClusterIP",
                inside.ask(&format!("rate {} {millis}", straight(targets.places[2].1))).map_err(refused)?,
            );
            if !matches!(subject, Subject::Direct | Subject::Kpx(Reach::Sockets)) {
                add(
                    "requests kept alive, NodePort",
                    outside.ask(&format!("request {} {REQUESTS}", targets.node_port)).map_err(refused)?,
                );
                add(
                    "connections a second, NodePort",
                    outside.ask(&format!("rate {} {millis}", targets.node_port)).map_err(refused)?,
                );
            }
        }
    }
    let mut rows = Vec::new();
    for (what, by_subject) in &mut found {
        let direct = by_subject.get_mut("direct").map(|values| median(values));
        for (subject, values) in by_subject.iter_mut() {
            let middle = median(values);
            let ratio = direct.map(|direct| middle / direct);
            let against = ratio.map_or(String::new(), |ratio| format!("{ratio:.3}× direct"));
            let unit = if what.contains("a second") { "/s" } else { "µs" };
            println!("  {what:<34} {subject:<16} {middle:>10.2} {unit:<3} {against}");
            rows.push(
                json!({ "what": what, "subject": subject, "median": middle, "unit": unit, "against_direct": ratio }),
            );
        }
    }
    let all = || io::Error::other("kpx was among the subjects");
    let (_, whole) = kpx.iter_mut().find(|(reach, _)| *reach == Reach::Packets).ok_or_else(all)?;
    let its = running.iter_mut().find(|(subject, ..)| *subject == Subject::Kpx(Reach::Packets));
    let (_, world, _, outside) = its.ok_or_else(all)?;
    let own = whole.measure(world, outside, &table, size, targets.node_port)?;
    // Before kpx goes, since a cgroup with processes cannot be removed.
    drop(running);
    Ok(json!({ "services": size, "recorded_rules": recorded, "rows": rows, "kpx": own }))
}

/// The dataplane under test.
struct Kpx {
    paths: Paths,
    dataplane: Option<Dataplane>,
    filled: Duration,
    mount: tempfile::TempDir,
}

impl Kpx {
    fn new(world: &World, table: &ServiceTable, reach: Reach) -> io::Result<Self> {
        let (paths, mount) = world.ground()?;
        let served = Served::of(table).table;
        let made = World::inside(&world.node(), || -> Result<_, kpx::dataplane::DataplaneError> {
            let mut dataplane = Dataplane::install(&paths, &Capacity::for_table(&served))?;
            let start = Instant::now();
            dataplane.fill(&served)?;
            let filled = start.elapsed();
            dataplane.set_addresses(&node_addresses(&served, &[NODE.into()].into()))?;
            dataplane.set_rules_gone(true)?;
            dataplane.attach()?;
            if reach != Reach::Sockets {
                dataplane.attach_devices(|device| device.name == world::WIRE, |_| false)?;
            }
            if reach == Reach::ShortCut {
                dataplane.attach_xdp(|device| device.name == world::WIRE, XdpMode::Native)?;
            }
            dataplane.set_mode(Mode::Active)?;
            Ok((dataplane, filled))
        });
        let (dataplane, filled) = made.map_err(io::Error::other)?;
        if reach == Reach::ShortCut {
            world.take_frames(&paths.pins.join("programs/kpx_xdp"))?;
        }
        Ok(Self { paths, dataplane: Some(dataplane), filled, mount })
    }

    /// What only kpx has: times of its programs, of a fill and of a change; memory.
    fn measure(
        &mut self,
        world: &World,
        outside: &mut worker::Worker,
        table: &ServiceTable,
        size: usize,
        node_port: SocketAddr,
    ) -> io::Result<Value> {
        let dataplane = self.dataplane.as_mut().ok_or_else(|| io::Error::other("it is there until the end"))?;
        let maps = World::inside(&world.node(), || bpf::maps(&self.paths.pins)).map_err(io::Error::other)?;
        // What grows with Services; room for flows is the same for any number of them.
        let growing =
            ["kpx_index", "kpx_frontends", "kpx_slots", "kpx_backends", "kpx_stats", "kpx_addresses", "kpx_sources"];
        let of = |wanted: &dyn Fn(&str) -> bool| -> u64 {
            maps.iter().filter(|map| map.ours && wanted(&map.name)).filter_map(|map| map.memory).sum()
        };
        let (services, all) = (of(&|name| growing.contains(&name)), of(&|_| true));
        let per_service = services as f64 / size as f64;
        // By number, since another dataplane on this machine has programs of the same names.
        let runs = || -> BTreeMap<(String, u32), (u64, Duration)> {
            let programs = loaded_programs().filter_map(Result::ok);
            let ours = programs.filter_map(|program| Some((program.name_as_str()?.to_owned(), program)));
            ours.filter(|(name, _)| name.starts_with("kpx_"))
                .map(|(name, program)| ((name, program.id()), (program.run_count(), program.run_time())))
                .collect()
        };
        let counting = enable_stats(Stats::RunTime).map_err(io::Error::other)?;
        let before = runs();
        outside.ask(&format!("request {node_port} 5000"))?;
        let after = runs();
        drop(counting);
        let mut packets = BTreeMap::new();
        for ((name, id), (count, time)) in after {
            let (earlier, spent) = before.get(&(name.clone(), id)).copied().unwrap_or_default();
            if count - earlier >= 5000 {
                packets.insert(name, time.saturating_sub(spent).as_nanos() as f64 / (count - earlier) as f64);
            }
        }
        let mut times = changes(dataplane, table)?;
        let (half, most) = (percentile(&mut times, 50), percentile(&mut times, 99));
        println!(
            "  first fill {:.1} ms; one endpoint changed: {half:.1} µs p50, {most:.1} µs p99",
            self.filled.as_secs_f64() * 1e3
        );
        println!(
            "  memory of what grows with Services: {:.2} MB, {per_service:.0} B a Service; of all maps {:.2} MB",
            services as f64 / 1e6,
            all as f64 / 1e6
        );
        for (name, nanos) in &packets {
            println!("  {name}: {nanos:.0} ns a packet");
        }
        Ok(json!({
            "first_fill_ms": self.filled.as_secs_f64() * 1e3,
            "change_p50_us": half,
            "change_p99_us": most,
            "bytes_a_service": per_service,
            "bytes_of_all_maps": all,
            "nanoseconds_a_packet": packets,
        }))
    }
}

impl Drop for Kpx {
    fn drop(&mut self) {
        drop(self.dataplane.take());
        let _ = Dataplane::remove(&self.paths);
        world::leave_ground(&self.paths, self.mount.path());
    }
}

/// Times of changes of one endpoint, µs; a Service is changed once.
fn changes(dataplane: &mut Dataplane, table: &ServiceTable) -> io::Result<Vec<f64>> {
    let simple: Vec<&Frontend> = table
        .frontends()
        .iter()
        .filter(|f| f.key.exposure == Exposure::ClusterIp && f.cluster.len() == 3 && f.affinity.is_none())
        .filter(|f| table.frontends().len() > 5_000 || f.service.is_some())
        .collect();
    let mut times = Vec::new();
    for round in 0..CHANGES {
        let mut changed = simple[usize::from(round) % simple.len()].clone();
        // A Service port's frontends go together; those that have only one are changed here.
        if table.frontends().iter().filter(|f| f.service == changed.service).count() > 1 && changed.service.is_some() {
            continue;
        }
        changed.cluster[2].port = 10_000 + round;
        let start = Instant::now();
        dataplane.update(&[changed], &[]).map_err(io::Error::other)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

fn targets(table: &ServiceTable) -> io::Result<Targets> {
    let number = |f: &Frontend| match &f.origin {
        Origin::Rule { number, .. } => *number,
        Origin::MapEntry { id, .. } => *id,
        _ => 0,
    };
    let plain = |f: &&Frontend| f.key.protocol == Protocol::Tcp && !f.cluster.is_empty() && f.affinity.is_none();
    let mut cluster_ips: Vec<&Frontend> =
        table.frontends().iter().filter(|f| f.key.exposure == Exposure::ClusterIp).filter(plain).collect();
    cluster_ips.sort_by_key(|f| number(f));
    let node_port = table.frontends().iter().filter(|f| f.key.exposure == Exposure::NodePort).find(plain);
    let (Some(first), Some(last), Some(node_port)) = (cluster_ips.first(), cluster_ips.last(), node_port) else {
        return Err(io::Error::other("the recording has ClusterIPs and NodePorts"));
    };
    let address = |f: &Frontend| SocketAddr::new(f.key.ip, f.key.port);
    Ok(Targets {
        places: [
            ("first", address(first)),
            ("middle", address(cluster_ips[cluster_ips.len() / 2])),
            ("last", address(last)),
        ],
        node_port: SocketAddr::from((NODE, node_port.key.port)),
        pod: last.cluster[0].addr(),
    })
}

/// As many Services as nobody recorded.
fn generated(size: usize) -> ServiceTable {
    let size = u32::try_from(size).expect("a number of Services");
    let backend = |n: u32, i: u32| {
        let ip = IpAddr::V4(Ipv4Addr::from_bits(0x0a80_0000 + (3 * n + i) % 0x3_ffff + 1));
        Backend { ip, port: 8080, weight: 1, local: None, state: None }
    };
    let frontend = |n: u32, key| Frontend {
        key,
        service: None,
        port_name: None,
        cluster: (0..3).map(|i| backend(n, i)).collect(),
        local: Vec::new(),
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity: None,
        sources: Vec::new(),
        masquerade: Masquerade::Always,
        no_backends: None,
        selection: None,
        forwarding: None,
        origin: Origin::MapEntry { map: "bench", id: n },
    };
    let key = |ip, port, exposure| FrontendKey { ip, port, protocol: Protocol::Tcp, exposure };
    let mut frontends: Vec<Frontend> = (0..size)
        .map(|n| {
            let ip = IpAddr::V4(Ipv4Addr::from_bits(0x0a60_0001 + n));
            frontend(n, key(ip, 80, Exposure::ClusterIp))
        })
        .collect();
    frontends.push(frontend(size, key(Ipv4Addr::UNSPECIFIED.into(), 30_080, Exposure::NodePort)));
    let facts = NodeFacts { node_ports: kpx::model::NodePortScope::All { loopback: false }, ..NodeFacts::default() };
    ServiceTable::new(frontends, facts, NodeFacts::default())
}

fn percentile(values: &mut [f64], share: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    if values.is_empty() { f64::NAN } else { values[(values.len() - 1) * share / 100] }
}

fn median(values: &mut [f64]) -> f64 {
    percentile(values, 50)
}
