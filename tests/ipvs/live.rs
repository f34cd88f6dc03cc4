//! The kernel's IPVS in a namespace, with traffic: the screen shows what ipvsadm prints of the same moment.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use kpx::capture::{Captured, Item, Node, NodeOptions, command};
use kpx::inspect::ipvs::parse_connections;

use crate::capture::network::Netns;
use crate::support;

/// Virtual services and servers in ipvsadm's words: schedulers, flags, ways to forward, weights, marks, both families.
const SERVICES: &str = "\
-A -t 10.96.0.10:80 -s wrr
-a -t 10.96.0.10:80 -r 10.244.0.2:8080 -m -w 1
-a -t 10.96.0.10:80 -r 10.244.0.3:8080 -m -w 3
-A -u 10.96.0.10:53 -s rr
-a -u 10.96.0.10:53 -r 10.244.0.2:5353 -m
-A -t 10.96.0.11:80 -s sh -b sh-port -p 600 -M 255.255.255.0
-a -t 10.96.0.11:80 -r 10.244.0.3:8080 -m -w 2
-A -u 10.96.0.12:53 -s lc -o
-a -u 10.96.0.12:53 -r 10.244.0.2:5353 -m
-a -u 10.96.0.12:53 -r 10.244.0.9:53 -i -w 0
-A -t [fd00:96::10]:80 -s rr -p 10800
-a -t [fd00:96::10]:80 -r [fd00:244::2]:8080 -m
-A -t 192.0.2.1:443 -s wlc
-a -t 192.0.2.1:443 -r 10.244.0.3:443 -g -w 7
-A -f 7 -s dh
-a -f 7 -r 10.244.0.3:0 -g
";
/// Those of them that are kube-proxy's: their addresses are on its device.
const OURS: [&str; 5] =
    ["10.96.0.10:80/TCP", "10.96.0.10:53/UDP", "10.96.0.11:80/TCP", "10.96.0.12:53/UDP", "[fd00:96::10]:80/TCP"];

const NETWORK: &str = "\
addr add 10.244.0.1/24 dev node
addr add fd00:244::1/64 dev node nodad
link set node up
link add kube-ipvs0 type dummy
addr add 10.96.0.10/32 dev kube-ipvs0
addr add 10.96.0.11/32 dev kube-ipvs0
addr add 10.96.0.12/32 dev kube-ipvs0
addr add fd00:96::10/128 dev kube-ipvs0 nodad
";
const PODS: &str = "\
addr add 10.244.0.2/24 dev pod
addr add 10.244.0.3/24 dev pod
addr add fd00:244::2/64 dev pod nodad
link set pod up
route add default via 10.244.0.1
-6 route add default via fd00:244::1
";

/// A node with IPVS and the pods behind it, or `None` with the reason printed.
fn node_and_pods() -> Option<(Netns, Netns)> {
    if !support::privileged() {
        return None;
    }
    let (node, pods) = (Netns::with_loopback(), Netns::with_loopback());
    if let Err(error) = command::output("ip", ["netns", "exec", &node.name, "ipvsadm", "-Ln"], None) {
        println!("skipped: no IPVS here ({error})");
        return None;
    }
    node.run("ip", &["link", "add", "node", "type", "veth", "peer", "name", "pod", "netns", &pods.name], None);
    for (netns, lines) in [(&node, NETWORK), (&pods, PODS)] {
        for line in lines.lines() {
            netns.run("ip", &line.split(' ').collect::<Vec<_>>(), None);
        }
    }
    node.run("ipvsadm", &["-R"], Some(SERVICES.as_bytes()));
    node.run("ipvsadm", &["--set", "800", "100", "200"], None);
    Some((node, pods))
}

/// A virtual service or a server of it: its heading, and three lists of numbers: connections, sums, rates.
type Rows = BTreeMap<String, Vec<String>>;

/// The rows of one of ipvsadm's lists: of `TCP 10.96.0.10:80`, and of `TCP 10.96.0.10:80 > 10.244.0.2:8080`.
fn listed(text: &str, rows: &mut Rows) {
    let mut service = String::new();
    for line in text.lines().skip(3) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (key, rest) = if let ["->", server, rest @ ..] = words.as_slice() {
            (format!("{service} > {server}"), rest)
        } else {
            service = words[..2].join(" ");
            (service.clone(), &words[2..])
        };
        rows.entry(key).or_default().extend(rest.iter().map(|word| word.trim_matches(['(', ')']).to_owned()));
    }
}

/// What ipvsadm prints: scheduler and flags or way and weight, then connections, sums, rates.
fn by_tool(node: &Netns) -> Rows {
    let mut rows = Rows::new();
    for list in [&["-Ln"][..], &["-Ln", "--stats", "--exact"], &["-Ln", "--rate", "--exact"]] {
        listed(&node.run("ipvsadm", list, None), &mut rows);
    }
    rows
}

/// The same from the wide screen, whose service rows carry the sum of their servers' connections, which ipvsadm's do not.
fn by_screen(screen: &str) -> Rows {
    let (mut rows, mut service) = (Rows::new(), String::new());
    for line in screen.lines().skip(1) {
        let words: Vec<&str> = line.split_ascii_whitespace().filter(|word| *word != "<none>").collect();
        if let [">", server, rest @ ..] = words.as_slice() {
            rows.insert(format!("{service} > {server}"), rest.iter().map(ToString::to_string).collect());
            continue;
        }
        let address = words.iter().position(|word| word.ends_with("/TCP") || word.ends_with("/UDP"));
        let (key, rest) = match (address, words.iter().position(|word| *word == "mark")) {
            (Some(at), _) => {
                let (address, protocol) = words[at].rsplit_once('/').expect("found by its protocol");
                (format!("{protocol} {address}"), &words[at + 1..])
            }
            (None, Some(at)) => (format!("FWM {}", words[at + 1]), &words[at + 3..]),
            (None, None) => break,
        };
        service = key;
        let [scheduler, _active, _inactive, numbers @ ..] = rest else { panic!("{line}") };
        let (numbers, flags) = numbers.split_at(10);
        let all = std::iter::once(scheduler).chain(flags).chain(numbers);
        rows.insert(service.clone(), all.map(ToString::to_string).collect());
    }
    rows
}

fn screen(node: &Netns, more: &[&str]) -> String {
    node.run(env!("CARGO_BIN_EXE_kpx"), &[&["inspect", "ipvs"], more].concat(), None)
}

/// Traffic of every kind, and what must stay open for its connections to stay.
fn traffic(node: &Netns, pods: &Netns) -> (Vec<TcpListener>, Vec<TcpStream>, Vec<UdpSocket>) {
    let (listeners, servers) = pods.inside(|| {
        let listen = |at: &str| TcpListener::bind(at).expect("the port is free");
        let listeners = ["10.244.0.2:8080", "10.244.0.3:8080", "[fd00:244::2]:8080"].map(listen).into();
        (listeners, UdpSocket::bind("10.244.0.2:5353").expect("the port is free"))
    });
    let (streams, client) = node.inside(|| {
        let connect = |at: &str| TcpStream::connect(at).expect("IPVS passes it on");
        let mut streams: Vec<TcpStream> = (0..8).map(|_| connect("10.96.0.10:80")).collect();
        streams.extend(["10.96.0.11:80", "[fd00:96::10]:80", "[fd00:96::10]:80"].map(connect));
        // These end on the client's side only: no longer established, not yet gone.
        drop(streams.drain(..3));
        let client = UdpSocket::bind("10.244.0.1:0").expect("a port is free");
        for at in ["10.96.0.10:53", "10.96.0.12:53"] {
            for _ in 0..500 {
                client.send_to(b"what is counted", at).expect("IPVS passes it on");
            }
        }
        (streams, client)
    });
    (listeners, streams, vec![servers, client])
}

#[test]
fn the_screen_shows_what_ipvsadm_prints() {
    let Some((node, pods)) = node_and_pods() else { return };
    let _open = traffic(&node, &pods);
    // The kernel sums up every two seconds, and rates fall from then on: kpx reads between two looks of ipvsadm's.
    let counted = |rows: &Rows| rows["UDP 10.96.0.12:53"].iter().any(|word| word == "500");
    let agreed = (0..30).any(|_| {
        let before = by_tool(&node);
        if !counted(&before) {
            sleep(Duration::from_millis(300));
            return false;
        }
        let text = screen(&node, &["-o", "wide"]);
        let (ours, after) = (by_screen(&text), by_tool(&node));
        let keys = |rows: &Rows| rows.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&ours), keys(&before), "{text}");
        for (key, words) in &before {
            let (head, _) = parts(words);
            assert_eq!(parts(&ours[key]).0, head, "{key}\n{text}");
        }
        let rates = &parts(&before["UDP 10.96.0.12:53"]).1[5..];
        assert_ne!(rates[1], 0, "nothing was counted a second: {rates:?}");
        before.iter().all(|(key, words)| {
            let looks = parts(words).1.into_iter().zip(parts(&after[key]).1);
            parts(&ours[key]).1.into_iter().zip(looks).all(|(n, (a, b))| (a.min(b)..=a.max(b)).contains(&n))
        })
    });
    let text = screen(&node, &["-o", "wide"]);
    assert!(agreed, "{text}\n{:#?}", by_tool(&node));
    assert!(text.contains("time-outs: TCP 800 s, after FIN 100 s, UDP 200 s"), "{text}");
    let timeouts = node.run("ipvsadm", &["-Ln", "--timeout"], None);
    assert_eq!(timeouts.trim(), "Timeout (tcp tcpfin udp): 800 100 200");
}

/// The words of a row, which ipvsadm has in an order of its own, and the ten counters after them.
fn parts(row: &[String]) -> (Vec<&str>, Vec<u64>) {
    let (words, counters) = row.split_at(row.len() - 10);
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.sort_unstable();
    (words, counters.iter().map(|number| number.parse().expect("a number")).collect())
}

#[test]
fn what_is_not_kube_proxys_is_told_apart() {
    let Some((node, _pods)) = node_and_pods() else { return };
    let document: serde_json::Value = serde_json::from_str(&screen(&node, &["-o", "json"])).expect("JSON");
    let items = document["items"].as_array().expect("a list");
    let mut ours: Vec<String> = items
        .iter()
        .filter(|item| item["kube_proxy"] == true)
        .map(|item| {
            let ip: std::net::IpAddr = item["ip"].as_str().expect("an address").parse().expect("an address");
            let port = u16::try_from(item["port"].as_u64().expect("a port")).expect("a port");
            format!("{}/{}", std::net::SocketAddr::new(ip, port), item["protocol"].as_str().expect("a protocol"))
        })
        .collect();
    let mut expected = OURS.map(str::to_owned);
    ours.sort();
    expected.sort();
    assert_eq!(ours, expected);
    let foreign = screen(&node, &["--foreign"]);
    assert!(foreign.contains("192.0.2.1:443/TCP") && foreign.contains("mark 7"), "{foreign}");
    assert!(!foreign.contains("10.96.") && foreign.contains("2 not kube-proxy's"), "{foreign}");
}

#[test]
fn connections_are_those_the_kernel_has_now() {
    let Some((node, pods)) = node_and_pods() else { return };
    let _open = traffic(&node, &pods);
    let listed = || super::connections_by_tool(&node.run("ipvsadm", &["-Lnc"], None));
    let same = (0..30).any(|_| {
        let before = listed();
        let read = || Node::open(&NodeOptions::default()).expect("the live node").read(Item::IpvsConnections);
        let Captured::Present { bytes, .. } = node.inside(read).expect("it can be read") else { panic!("no IPVS") };
        let text = screen(&node, &[]);
        if listed() != before {
            return false;
        }
        let connections = parse_connections(&bytes);
        assert_eq!(super::connections_by_kpx(&connections), before);
        let templates = connections.iter().filter(|c| c.is_template()).count();
        assert_eq!(templates, 2, "{before:#?}");
        let told = format!("{} connections, {templates} clients bound by affinity", connections.len() - templates);
        assert!(text.contains(&told), "{told}: {text}");
        true
    });
    assert!(same, "ipvsadm never printed the same twice");
}
