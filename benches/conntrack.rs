//! Counting connection tracking entries by Service: live, in turn with `conntrack -L` and with a bare receipt of the kernel's answers,
//! and a million from the kernel's own messages.
//!
//! `cargo bench --bench conntrack` needs root and conntrack; it works in a network namespace of its own, with as many entries
//! as fit into a table there. They belong to 10 000 Services with three endpoints each; in a first table they are all alike, so that
//! the kernel cannot tell parts of it apart, in a second one they are as diverse as on a node.

#![allow(clippy::print_stdout, reason = "a benchmark reports on stdout")]

use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use kpx::capture::netlink::{Netlink, Request};
use kpx::capture::{Captured, Item, Node, NodeOptions, command};
use kpx::inspect::conntrack::{Census, read_node, read_recorded};
use kpx::model::{
    Backend, Exposure, Frontend, FrontendKey, Masquerade, NodeFacts, Origin, Policy, Protocol, ServiceTable,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

#[path = "support/memory.rs"]
mod memory;
#[expect(dead_code, reason = "other benchmarks use more of it")]
mod support;

const SERVICES: u32 = 10_000;
/// Below the usual size of a table, 262 144.
const ENTRIES: u32 = 250_000;
/// So many times these are a million.
const TIMES: u64 = 4;
const RUNS: usize = 11;

/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_GET`.
const SUBSYSTEM: u8 = 1;
const GET: u8 = 1;

fn main() -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root (network namespaces, ctnetlink)");
        return Ok(());
    }
    // SAFETY: not one flag that concerns memory or descriptors, and no other thread runs yet.
    #[expect(unsafe_code, reason = "unshare is unsafe for flags that are not used here")]
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    let table = services();
    for (kinds, entries) in [("all alike", alike()), ("diverse", diverse())] {
        let list = tempfile::NamedTempFile::new()?;
        fs_err::write(list.path(), entries)?;
        let path = list.path().to_string_lossy().into_owned();
        command::output("conntrack", ["-F"], None).map_err(io::Error::other)?;
        command::output("conntrack", ["-R", path.as_str()], None).map_err(io::Error::other)?;
        measure(kinds, &table)?;
    }
    in_memory(&table)
}

fn measure(kinds: &str, table: &ServiceTable) -> io::Result<()> {
    let node = Node::open(&NodeOptions::default()).map_err(io::Error::other)?;
    let live = || {
        let mut census = Census::new(table);
        read_node(&node, |entry| census.add(entry)).expect("the kernel tells");
        (census.total(), census.of_services())
    };
    assert_eq!(live(), (u64::from(ENTRIES), u64::from(ENTRIES)), "each entry is one of a Service");

    // Below this nobody comes who asks the kernel: its answers, received and thrown away.
    let received = || {
        let mut netlink = Netlink::conntrack().expect("a socket").expect("ctnetlink");
        let mut count = 0;
        netlink.dump(&Request::netfilter(SUBSYSTEM, GET, 0), |_, _| count += 1).expect("the kernel tells");
        count
    };
    assert_eq!(received(), ENTRIES);

    let (mut ours, mut theirs, mut least) = (Vec::new(), Vec::new(), Vec::new());
    let (mut our_cpu, mut their_cpu, mut least_cpu) = (0.0, 0.0, 0.0);
    for _ in 0..RUNS {
        let busy = support::on_cpu(true);
        let list = || command::output("sh", ["-c", "exec conntrack -L >/dev/null 2>&1"], None);
        let (done, time) = support::timed(list);
        done.map_err(io::Error::other)?;
        theirs.push(time);
        their_cpu += support::on_cpu(true) - busy;
        let busy = support::on_cpu(false);
        ours.push(support::timed(|| black_box(live())).1);
        our_cpu += support::on_cpu(false) - busy;
        let busy = support::on_cpu(false);
        least.push(support::timed(|| black_box(received())).1);
        least_cpu += support::on_cpu(false) - busy;
    }
    let runs = RUNS as f64;
    let [theirs, ours, least] = [theirs, ours, least].map(|mut times| support::percentile(&mut times, 50));
    println!(
        "{ENTRIES} entries of {SERVICES} Services, {kinds}, live, {RUNS} runs of each in turn; medians, and means of \
         processor time"
    );
    println!("  conntrack -L, output thrown away  {theirs:>8.1?}  processor {:>6.1} ms", their_cpu / runs);
    println!(
        "  read and counted by Service       {ours:>8.1?}  processor {:>6.1} ms  {:.1}×, by processor time {:.1}×",
        our_cpu / runs,
        theirs.as_secs_f64() / ours.as_secs_f64(),
        their_cpu / our_cpu
    );
    println!(
        "  received and thrown away          {least:>8.1?}  processor {:>6.1} ms  {:.1}×, by processor time {:.1}×",
        least_cpu / runs,
        theirs.as_secs_f64() / least.as_secs_f64(),
        their_cpu / least_cpu
    );
    println!("  memory at the peak beyond the Services' table: {:.2} MB", memory::peak(live) as f64 / 1e6);
    Ok(())
}

fn in_memory(table: &ServiceTable) -> io::Result<()> {
    let node = Node::open(&NodeOptions::default()).map_err(io::Error::other)?;
    let Captured::Present { bytes, .. } = node.read(Item::Conntrack).map_err(io::Error::other)? else {
        return Err(io::Error::other("the kernel tells by ctnetlink"));
    };
    let million = || {
        let mut census = Census::new(table);
        for _ in 0..TIMES {
            read_recorded(&bytes, |entry| census.add(entry)).expect("whole messages");
        }
        census.total()
    };
    assert_eq!(million(), TIMES * u64::from(ENTRIES));
    let mut times: Vec<Duration> = (0..RUNS).map(|_| support::timed(|| black_box(million())).1).collect();
    let per_entry = bytes.len() / ENTRIES as usize;
    println!("1 000 000 entries from messages in memory ({per_entry} bytes each), decoded and counted");
    println!(
        "  {:>8.1?}, memory at the peak {:.2} MB",
        support::percentile(&mut times, 50),
        memory::peak(million) as f64 / 1e6
    );
    Ok(())
}

const fn cluster_ip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a60_0001 + service)
}

const fn endpoint(service: u32, i: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a80_0000 + 3 * service + i)
}

/// A flow to the next Service, in the form of `conntrack -R`: `kind` is its protocol and state; nf_nat, whoever translates it.
fn flow(n: u32, kind: &str, nat: bool) -> String {
    let (service, client) = (n % SERVICES, Ipv4Addr::from_bits(0xac10_0000 + n / 50_000));
    let (port, backend) = (10_000 + n % 50_000, endpoint(service, n / SERVICES % 3));
    let to = if nat { format!("-g {backend}:8080") } else { String::new() };
    let from = if nat { cluster_ip(service) } else { backend };
    format!(
        "-I {kind} -t 3600 -s {client} -d {} --sport {port} --dport 80 -r {from} -q {client} \
         --reply-port-src {} --reply-port-dst {port} {to}\n",
        cluster_ip(service),
        if nat { 80 } else { 8080 }
    )
}

const ESTABLISHED: &str = "-p tcp --state ESTABLISHED -u ASSURED,SEEN_REPLY";
const ASKED: &str = "-p udp -u SEEN_REPLY";

/// Established connections.
fn alike() -> String {
    (0..ENTRIES).map(|n| flow(n, ESTABLISHED, false)).collect()
}

/// Of five, two are connections that nf_nat translates and one is a connection that it does not, of two short exchanges of datagrams
/// it translates one.
fn diverse() -> String {
    let of = |n: u32| match n / SERVICES % 5 {
        0 | 1 => flow(n, ESTABLISHED, true),
        2 => flow(n, ESTABLISHED, false),
        3 => flow(n, ASKED, true),
        _ => flow(n, ASKED, false),
    };
    (0..ENTRIES).map(of).collect()
}

fn services() -> ServiceTable {
    let backend = |ip| Backend { ip: IpAddr::V4(ip), port: 8080, weight: 1, local: None, state: None };
    let frontend = |n: u32, protocol| Frontend {
        key: FrontendKey { ip: IpAddr::V4(cluster_ip(n)), port: 80, protocol, exposure: Exposure::ClusterIp },
        service: None,
        port_name: None,
        cluster: (0..3).map(|i| backend(endpoint(n, i))).collect(),
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
    };
    let both = |n| [Protocol::Tcp, Protocol::Udp].map(|protocol| frontend(n, protocol));
    ServiceTable::new((0..SERVICES).flat_map(both).collect(), NodeFacts::default(), NodeFacts::default())
}
