//! kube-proxy's IPVS mode: recorded worlds, with what ipvsadm printed as the oracle.

mod damage;
mod hostile;
mod live;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kpx::capture::{Captured, Item, Node, NodeOptions};
use kpx::inspect::ipvs::{
    Connection, Flags, Ipvs, IpvsState, Stats, VirtualService, decode, parse_connections, read_node,
};
use kpx::model::Exposure;

use crate::cli::environment::{Run, run};
use crate::cli::schema::conforms;
use crate::support;

/// Recorded nodes in IPVS mode.
const WORLDS: [&str; 4] = ["ipvs/running", "ipvs/stopped", "ipvs-strict-arp/running", "ipvs-kernel-6.12/running"];

fn small() -> Option<PathBuf> {
    Some(support::recordings()?.join("small"))
}

fn open(path: &Path) -> Node {
    Node::open(&NodeOptions { from: Some(path.to_owned()), ..NodeOptions::default() }).expect("a snapshot")
}

fn state(path: &Path) -> IpvsState {
    read_node(&open(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// `kpx diff api ipvs` of a recorded node, the objects being those of all worlds.
fn diff(node: &Path, small: &Path) -> Run {
    let (from, api) = (node.display().to_string(), small.join("api").display().to_string());
    run(&["diff", "api", "ipvs", "--from", &from, "--services-from", &api, "--node-name", "node-a", "-o", "json"])
}

/// Lines of one of ipvsadm's lists as words: of each virtual service, then of its servers.
fn listed(path: &Path) -> BTreeMap<String, Vec<String>> {
    let text = fs_err::read_to_string(path).expect("recorded");
    let mut lists: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines().skip(3) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if let ["->", rest @ ..] = words.as_slice() {
            lists.entry(current.clone()).or_default().push(rest.join(" "));
        } else {
            current = words.join(" ");
            lists.entry(current.clone()).or_default();
        }
    }
    for list in lists.values_mut() {
        list.sort();
    }
    lists
}

/// The same of what kpx read.
fn lines(
    ipvs: &Ipvs,
    of_service: impl Fn(&VirtualService) -> String,
    of_server: impl Fn(&kpx::inspect::ipvs::RealServer) -> String,
) -> BTreeMap<String, Vec<String>> {
    let list = |service: &VirtualService| {
        let (ip, port, protocol) = service.address().expect("kube-proxy has no marks");
        let address = std::net::SocketAddr::new(ip, port);
        let mut servers: Vec<String> =
            service.servers.iter().map(|s| format!("{} {}", s.address, of_server(s))).collect();
        servers.sort();
        (format!("{protocol} {address} {}", of_service(service)).trim_end().to_owned(), servers)
    };
    ipvs.services.iter().map(list).collect()
}

fn sums(s: &Stats) -> String {
    format!("{} {} {} {} {}", s.connections, s.in_packets, s.out_packets, s.in_bytes, s.out_bytes)
}

#[test]
fn the_messages_tell_what_ipvsadm_prints() {
    let Some(small) = small() else { return };
    for world in WORLDS {
        let path = small.join(world);
        let ipvs = state(&path).state.ipvs;
        let scheduled = |s: &VirtualService| {
            let persistent = s.affinity().map_or_else(String::new, |seconds| format!(" persistent {seconds}"));
            format!("{}{persistent}", s.scheduler)
        };
        let served =
            |s: &kpx::inspect::ipvs::RealServer| format!("{} {} {} {}", s.forward, s.weight, s.active, s.inactive);
        assert_eq!(lines(&ipvs, scheduled, served), listed(&path.join("ipvsadm-Ln.txt")), "{world}");
        // The node still worked between the two recordings.
        let (ours, theirs) =
            (lines(&ipvs, |s| sums(&s.stats), |s| sums(&s.stats)), listed(&path.join("ipvsadm-stats.txt")));
        let differ: Vec<_> = theirs.iter().filter(|(key, servers)| ours.get(*key) != Some(*servers)).collect();
        assert!(ours.len() == theirs.len() && differ.len() <= 3, "{world}: {differ:?}");
        let timeouts = fs_err::read_to_string(path.join("ipvsadm-timeout.txt")).expect("recorded");
        let [tcp, fin, udp] = ipvs.timeouts.expect("the kernel told");
        assert_eq!(timeouts.trim_end(), format!("Timeout (tcp tcpfin udp): {tcp} {fin} {udp}"));
        let heading = fs_err::read_to_string(path.join("ipvsadm-Ln.txt")).expect("recorded");
        let version = ipvs.version.map(|v| v.to_string()).unwrap_or_default();
        let size = ipvs.table_size.unwrap_or_default();
        assert!(heading.starts_with(&format!("IP Virtual Server version {version} (size={size})\n")), "{heading}");
    }
}

/// Connections in order: protocol, state, client, what it asked for, who serves.
fn connections_by_kpx(connections: &[Connection]) -> Vec<String> {
    let line = |c: &Connection| format!("{} {} {} {} {}", c.protocol, c.state, c.client, c.virtual_address, c.server);
    let mut lines: Vec<String> = connections.iter().map(line).collect();
    lines.sort();
    lines
}

/// The same of what `ipvsadm -Lnc` printed, which has the time left as well.
fn connections_by_tool(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        [&words[..1], &words[2..]].concat().join(" ")
    };
    let mut lines: Vec<String> = text.lines().skip(2).map(line).collect();
    lines.sort();
    lines
}

#[test]
fn connections_are_those_ipvsadm_prints() {
    let Some(small) = small() else { return };
    for world in WORLDS {
        let path = small.join(world);
        let connections = parse_connections(&fs_err::read(path.join("proc-net-ip_vs_conn.txt")).expect("recorded"));
        let ours = connections_by_kpx(&connections);
        let text = fs_err::read_to_string(path.join("ipvsadm-Lnc.txt")).expect("recorded");
        let theirs = connections_by_tool(&text);
        assert!(!ours.is_empty(), "{world}");
        // The lists are not of one moment: connections close and go.
        let gone = theirs.iter().filter(|line| !ours.contains(line)).count();
        assert!(gone <= 5, "{world}: {gone} of {} are not there", theirs.len());
    }
}

#[test]
fn ipvs_mode_does_what_the_api_asks_for() {
    let Some(small) = small() else { return };
    for world in WORLDS {
        let run = diff(&small.join(world), &small);
        let document: serde_json::Value = serde_json::from_str(&run.out).expect("JSON");
        assert_eq!((run.code, document["differences"].as_u64()), (0, Some(0)), "{world}: {}", run.out);
        assert_eq!(document["b"]["notices"].as_array().map(Vec::len), Some(0), "{world}: {}", document["b"]["notices"]);
        assert_eq!(document["b"]["frontends"], 194, "{world}");
        // What the mode does otherwise is told, not hidden: a Service under the Local policy without an endpoint here.
        let by_mode = document["by_ipvs_mode"].as_array().expect("a list");
        assert!(by_mode.len() > 10 && by_mode.iter().all(|d| d["difference"] != "only-in-a"), "{by_mode:#?}");
    }
}

#[test]
fn the_table_is_what_ipvs_holds() {
    let Some(small) = small() else { return };
    let state = state(&small.join("ipvs/running"));
    assert_eq!(state.damage().count(), 0, "{:?}", state.notices);
    let all = &state.state.ipvs.services;
    assert!(all.iter().all(|s| !state.state.exposures(s).is_empty()), "all are kube-proxy's");
    let affinity = state.table.frontends().iter().filter(|f| f.affinity.is_some()).count();
    let persistent = all.iter().filter(|s| s.flags.has(Flags::PERSISTENT)).count();
    assert!(affinity > 0 && persistent >= affinity, "{affinity} frontends, {persistent} virtual services");
    let node_port = state.table.frontends().iter().filter(|f| f.key.exposure == Exposure::NodePort);
    assert!(node_port.clone().count() > 30 && node_port.clone().all(|f| f.key.ip.is_unspecified()));
}

#[test]
fn after_cleanup_nothing_is_left_but_sets() {
    let Some(small) = small() else { return };
    let path = small.join("ipvs/after-cleanup");
    let state = state(&path);
    assert_eq!(state.table.frontends().len(), 0);
    // kube-proxy --cleanup destroys sets by their IPv4 names only.
    assert!(!state.state.sets.is_empty() && state.state.sets.keys().all(|name| name.starts_with("KUBE-6-")));
    assert!(state.notices.iter().all(|n| n.code() == "no-virtual-service"), "{:?}", state.notices);
}

#[test]
fn a_kernel_without_ipvs_is_no_error() {
    let empty = decode(b"").expect("nothing is no error");
    assert_eq!((empty.version, empty.services.len()), (None, 0));
}

#[test]
fn the_screen_names_services() {
    let Some(small) = small() else { return };
    let (from, api) = (small.join("ipvs/running").display().to_string(), small.join("api").display().to_string());
    let screen = |more: &[&str]| {
        let args = ["inspect", "ipvs", "--from", &from, "--services-from", &api];
        run(&[&args[..], more].concat()).out
    };
    let dns = screen(&["--service", "kube-system/kube-dns"]);
    assert!(dns.contains("kube-system/kube-dns:dns") && dns.contains("> 10.244.1.12:53"), "{dns}");
    assert!(dns.contains("time-outs: TCP 900 s, after FIN 120 s, UDP 300 s"), "{dns}");
    let all: serde_json::Value = serde_json::from_str(&screen(&["-o", "json"])).expect("JSON");
    conforms(&all);
    let items = all["items"].as_array().expect("a list");
    assert_eq!(items.len(), 248);
    assert!(items.iter().all(|item| item["service"].is_string() && item["kube_proxy"] == true));
    assert!(screen(&["--foreign"]).starts_with("0 virtual services"));
}

/// The bytes of an item.
fn bytes(node: &Path, item: Item) -> Vec<u8> {
    match open(node).read(item).expect("it can be read") {
        Captured::Present { bytes, .. } => bytes,
        Captured::Absent { reason } => panic!("{item}: {reason}"),
    }
}
