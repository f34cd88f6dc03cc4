//! What `kpx monitor` costs: connect() through the hooks while nobody listens, and while somebody does.
//!
//! `cargo bench --bench monitor` needs root, and a cgroup2 mount; it works in a network namespace, a cgroup and a BPF
//! filesystem of its own. The programs of layout 4, which have no events, serve from the very same maps, and all take turns
//! in one run, so that a noisy machine is equally noisy to all.

#![allow(clippy::print_stdout, reason = "a benchmark reports on stdout")]

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use aya::{Ebpf, EbpfLoader};
use kpx::dataplane::{Capacity, Dataplane, Filter, Listener, Mode, Paths, RENEWAL};
use kpx::model::{
    Backend, Exposure, Frontend, FrontendKey, Masquerade, NodeFacts, Origin, Policy, Protocol, ServiceTable,
};
use kpx_abi::map_name;

#[path = "support/ground.rs"]
mod ground;
#[expect(dead_code, reason = "other benchmarks use more of it")]
mod support;

use ground::Ground;
use support::{percentile, timed};

/// Turns of each subject.
const TURNS: usize = 80;
/// Connects in a turn; the first ones are not counted.
const BLOCK: usize = 500;
const WARM: usize = 20;

/// Maps whose definition has changed since layout 4.
const CHANGED: [&str; 2] = ["kpx_reasons", "kpx_scratch"];

const SUBJECTS: [&str; 4] = ["programs without events", "nobody listens", "listens to another port", "listens to all"];

fn main() -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root (network namespaces, BPF)");
        return Ok(());
    }
    let ground = Ground::new()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let backend = listener.local_addr()?;
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let vip = SocketAddr::from((Ipv4Addr::new(10, 96, 0, 1), 80));
    let table = ServiceTable::new(
        [Protocol::Tcp, Protocol::Udp].map(|protocol| frontend(vip, protocol, backend)).into(),
        NodeFacts::default(),
        NodeFacts::default(),
    );
    let mut dataplane = Dataplane::install(&ground.paths, &Capacity::for_table(&table)).map_err(io::Error::other)?;
    dataplane.fill(&table).map_err(io::Error::other)?;
    dataplane.set_mode(Mode::Active).map_err(io::Error::other)?;
    let mut old = old_program(&ground.paths)?;
    let mut times = [const { [Vec::new(), Vec::new()] }; SUBJECTS.len()];
    let mut lost = 0;
    for _ in 0..TURNS {
        old_turn(&ground.paths, &mut old, vip, &mut times[0])?;
        dataplane.attach().map_err(io::Error::other)?;
        turn(vip, &mut times[1])?;
        for (port, subject) in [(Some(81), 2), (None, 3)] {
            let ear = Ear::start(&ground.paths, port)?;
            turn(vip, &mut times[subject])?;
            lost += ear.end()?;
        }
        dataplane.detach().map_err(io::Error::other)?;
    }
    let medians = times.map(|[mut tcp, mut udp]| [percentile(&mut tcp, 50), percentile(&mut udp, 50)]);
    for (i, protocol) in [(0, "TCP"), (1, "UDP")] {
        println!("{protocol} connect, median of {}", TURNS * BLOCK);
        let first = medians[0][i].as_secs_f64();
        for (name, median) in SUBJECTS.iter().zip(&medians) {
            let median = median[i].as_secs_f64();
            println!("  {name:<26} {:>8.3} µs  {:.3}×", median * 1e6, median / first);
        }
    }
    println!("events lost: {lost}");
    Ok(())
}

fn frontend(at: SocketAddr, protocol: Protocol, backend: SocketAddr) -> Frontend {
    Frontend {
        key: FrontendKey { ip: at.ip(), port: at.port(), protocol, exposure: Exposure::ClusterIp },
        service: None,
        port_name: None,
        cluster: vec![Backend { ip: backend.ip(), port: backend.port(), weight: 1, local: None, state: None }],
        local: Vec::new(),
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity: None,
        sources: Vec::new(),
        masquerade: Masquerade::OffCluster,
        no_backends: None,
        selection: None,
        forwarding: None,
        origin: Origin::MapEntry { map: "bench", id: 0 },
    }
}

/// The program of layout 4 for connect(), which reads and counts in the maps of the present one.
fn old_program(paths: &Paths) -> io::Result<Ebpf> {
    let object = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/dataplane/layout-4.bpf.o.zst");
    let object = zstd::decode_all(fs_err::File::open(object)?)?;
    let mut loader = EbpfLoader::new();
    loader.btf(None).override_global("HAVE_SET_RETVAL", &1_u32, true);
    for name in map_name::ALL.into_iter().filter(|name| !CHANGED.contains(name)) {
        loader.map_pin_path(name, paths.pins.join("maps").join(name));
    }
    let mut object = loader.load(&object).map_err(io::Error::other)?;
    connect4(&mut object)?.load().map_err(io::Error::other)?;
    Ok(object)
}

fn connect4(object: &mut Ebpf) -> io::Result<&mut CgroupSockAddr> {
    let program = object.program_mut("kpx_connect4").ok_or_else(|| io::Error::other("no such program"))?;
    program.try_into().map_err(io::Error::other)
}

fn old_turn(paths: &Paths, old: &mut Ebpf, vip: SocketAddr, times: &mut [Vec<Duration>; 2]) -> io::Result<()> {
    let cgroup = fs_err::File::open(&paths.cgroup)?;
    let program = connect4(old)?;
    let link = program.attach(cgroup, CgroupAttachMode::Single).map_err(io::Error::other)?;
    turn(vip, times)?;
    program.detach(link).map_err(io::Error::other)
}

/// Connects, TCP and UDP in turn.
fn turn(vip: SocketAddr, times: &mut [Vec<Duration>; 2]) -> io::Result<()> {
    for round in 0..BLOCK + WARM {
        let (stream, tcp) = timed(|| TcpStream::connect(vip));
        // No TIME_WAIT: it would use up the ports.
        rustix::net::sockopt::set_socket_linger(&stream?, Some(Duration::ZERO))?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let (done, udp) = timed(|| socket.connect(vip));
        done?;
        if round >= WARM {
            times[0].push(tcp);
            times[1].push(udp);
        }
    }
    Ok(())
}

/// Somebody who listens, in a thread of its own, and reads what comes.
struct Ear {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<u64>>,
}

impl Ear {
    fn start(paths: &Paths, port: Option<u16>) -> io::Result<Self> {
        let mut listener = Listener::start(paths, Filter { port, ..Filter::default() }).map_err(io::Error::other)?;
        let stop = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                while listener.next_event().is_some() {}
                listener.renew().map_err(io::Error::other)?;
                listener.wait(RENEWAL.min(Duration::from_millis(100))).map_err(io::Error::other)?;
            }
            listener.lost().map_err(io::Error::other)
        });
        Ok(Self { stop, thread })
    }

    /// How many events were lost.
    fn end(self) -> io::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the listener panicked"))?
    }
}
