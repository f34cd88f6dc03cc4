//! The dataplane with real sockets: what connect() costs, how long a fill and a change take, what memory it is.
//!
//! `cargo bench --bench dataplane` needs root, and a cgroup2 mount; it works in a network namespace, a cgroup and a BPF
//! filesystem of its own. Connects of all kinds take turns in one run, so that a noisy machine is equally noisy to all.

#![allow(clippy::print_stdout, reason = "a benchmark reports on stdout")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use kpx::dataplane::{Capacity, Dataplane, Mode, Paths};
use kpx::inspect::bpf;
use kpx::model::{
    Backend, Exposure, Frontend, FrontendKey, Masquerade, NodeFacts, Origin, Policy, Protocol, ServiceTable,
};

#[path = "support/ground.rs"]
mod ground;
#[expect(dead_code, reason = "other benchmarks use more of it")]
mod support;

use ground::Ground;
use support::{percentile, timed};

/// Connects of each kind.
const CONNECTS: usize = 20_000;
/// Of these at a time with hooks or without.
const BLOCK: usize = 500;
/// Changes of one endpoint.
const CHANGES: usize = 5_000;
/// Fills of the whole table.
const FILLS: usize = 20;

fn main() -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root (network namespaces, BPF)");
        return Ok(());
    }
    let ground = Ground::new()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let backend = listener.local_addr()?;
    std::thread::spawn(move || listener.incoming().for_each(drop));
    for size in [100, 10_000] {
        println!("\n{size} Services with 3 endpoints each");
        measure(&ground.paths, size, backend)?;
    }
    Ok(())
}

fn frontend(n: u32, protocol: Protocol, backends: [SocketAddr; 3]) -> Frontend {
    let backend = |at: SocketAddr| Backend { ip: at.ip(), port: at.port(), weight: 1, local: None, state: None };
    Frontend {
        key: FrontendKey {
            ip: IpAddr::V4(Ipv4Addr::from_bits(0x0a60_0000 + n)),
            port: 80,
            protocol,
            exposure: Exposure::ClusterIp,
        },
        service: None,
        port_name: None,
        cluster: backends.map(backend).to_vec(),
        local: Vec::new(),
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity: None,
        sources: Vec::new(),
        masquerade: Masquerade::OffCluster,
        no_backends: None,
        selection: None,
        forwarding: None,
        origin: Origin::MapEntry { map: "bench", id: n },
    }
}

/// Endpoints of the `n`th Service, in its `round`th state: one of three changes from round to round.
fn endpoints(n: u32, round: u32) -> [SocketAddr; 3] {
    [0, 1, 2].map(|i| {
        let last = if i == 2 { 2 + round % 50 } else { i };
        SocketAddr::from((Ipv4Addr::from_bits(0x0af4_0000 + n), 8000 + u16::try_from(last).expect("small")))
    })
}

fn services(size: u32, backend: SocketAddr) -> ServiceTable {
    let others = (1..size).map(|n| frontend(n, Protocol::Tcp, endpoints(n, 0)));
    let ours = [Protocol::Tcp, Protocol::Udp].map(|protocol| frontend(size, protocol, [backend; 3]));
    ServiceTable::new(others.chain(ours).collect(), NodeFacts::default(), NodeFacts::default())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn measure(paths: &Paths, size: u32, backend: SocketAddr) -> io::Result<()> {
    let table = services(size, backend);
    let install = |paths| Dataplane::install(paths, &Capacity::for_table(&table)).map_err(io::Error::other);
    let (dataplane, loading) = timed(|| install(paths));
    let mut dataplane = dataplane?;
    let (changes, filling) = timed(|| dataplane.fill(&table));
    let changes = changes.map_err(io::Error::other)?;
    println!("  load and pin            {:>10.1} ms", loading.as_secs_f64() * 1e3);
    println!("  first fill              {:>10.1} ms   {} writes", filling.as_secs_f64() * 1e3, changes.writes);
    let (same, again) = timed(|| dataplane.fill(&table));
    assert!(same.map_err(io::Error::other)?.is_empty());
    println!("  fill, nothing changed   {:>10.1} ms", again.as_secs_f64() * 1e3);

    let maps = bpf::maps(&paths.pins).map_err(io::Error::other)?;
    let memory: u64 = maps.iter().filter(|map| map.ours).filter_map(|map| map.memory).sum();
    for map in maps.iter().filter(|map| map.ours) {
        println!("    {:<16} {:>10} B   {} entries", map.name, map.memory.unwrap_or(0), map.max_entries);
    }
    println!("  memory of all maps      {:>10.2} MB   {} B a Service", memory as f64 / 1e6, memory / u64::from(size));

    dataplane.attach().map_err(io::Error::other)?;
    dataplane.set_mode(Mode::Active).map_err(io::Error::other)?;
    let vip = SocketAddr::from((Ipv4Addr::from_bits(0x0a60_0000 + size), 80));
    let [bare, direct, through] = connects(&mut dataplane, backend, vip)?;
    for (name, bare, direct, through) in
        [("TCP", bare[0], direct[0], through[0]), ("UDP", bare[1], direct[1], through[1])]
    {
        println!(
            "  {name} connect, median      {:>10.2} µs through the frontend, {:.2} µs directly: {:.3}×; {:.2} µs without hooks: {:.3}×",
            micros(through),
            micros(direct),
            through.as_secs_f64() / direct.as_secs_f64(),
            micros(bare),
            through.as_secs_f64() / bare.as_secs_f64(),
        );
    }

    let mut one = Vec::new();
    for round in 1..=u32::try_from(CHANGES).expect("small") {
        let (n, visit) = (1 + round % (size - 1), 1 + round / (size - 1));
        let changed = [frontend(n, Protocol::Tcp, endpoints(n, visit))];
        let (done, time) = timed(|| dataplane.update(&changed, &[]));
        assert!(!done.map_err(io::Error::other)?.is_empty());
        one.push(time);
    }
    println!(
        "  one endpoint changed    {:>10.1} µs p50, {:.1} µs p99 ({CHANGES} changes)",
        micros(percentile(&mut one, 50)),
        micros(percentile(&mut one, 99))
    );
    dataplane.fill(&table).map_err(io::Error::other)?;
    // Numbers given back rest for a second; this is to measure writing, not waiting for room.
    std::thread::sleep(Duration::from_millis(1200));
    let mut whole = Vec::new();
    for round in 1..=u32::try_from(FILLS).expect("small") {
        let mut frontends = table.frontends().to_vec();
        let changed = frontends.len() / 2;
        frontends[changed] = frontend(u32::try_from(changed + 1).expect("small"), Protocol::Tcp, endpoints(1, round));
        let next = ServiceTable::new(frontends, NodeFacts::default(), NodeFacts::default());
        let (done, time) = timed(|| dataplane.fill(&next));
        assert!(!done.map_err(io::Error::other)?.is_empty());
        whole.push(time);
    }
    println!(
        "  the same by whole table {:>10.1} µs p50, {:.1} µs worst ({FILLS} fills)",
        micros(percentile(&mut whole, 50)),
        micros(percentile(&mut whole, 100))
    );
    drop(dataplane);
    Dataplane::remove(paths).map_err(io::Error::other)
}

/// Median times of a TCP and a UDP connect: to the backend with no hook attached, to the backend with hooks, to the
/// frontend. With and without hooks take turns in blocks, the two addresses in turn.
fn connects(dataplane: &mut Dataplane, backend: SocketAddr, vip: SocketAddr) -> io::Result<[[Duration; 2]; 3]> {
    let mut times = [const { [Vec::new(), Vec::new()] }; 3];
    for _ in 0..CONNECTS / BLOCK {
        dataplane.detach().map_err(io::Error::other)?;
        block(&[backend], &mut times[..1])?;
        dataplane.attach().map_err(io::Error::other)?;
        block(&[backend, vip], &mut times[1..])?;
    }
    Ok(times.map(|[mut tcp, mut udp]| [percentile(&mut tcp, 50), percentile(&mut udp, 50)]))
}

fn block(addresses: &[SocketAddr], times: &mut [[Vec<Duration>; 2]]) -> io::Result<()> {
    for round in 0..BLOCK + 20 {
        for (address, times) in addresses.iter().zip(times.iter_mut()) {
            let (stream, tcp) = timed(|| TcpStream::connect(address));
            // No TIME_WAIT: it would use up the ports.
            rustix::net::sockopt::set_socket_linger(&stream?, Some(Duration::ZERO))?;
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            let (done, udp) = timed(|| socket.connect(address));
            done?;
            if round >= 20 {
                times[0].push(tcp);
                times[1].push(udp);
            }
        }
    }
    Ok(())
}
