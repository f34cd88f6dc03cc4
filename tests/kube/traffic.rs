//! An oracle that is no table: who answered test connections through a real kube-proxy.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use fs_err as fs;
use ipnet::IpNet;
use kpx::model::{Detector, Family, Frontend, NoBackends, NodePortScope, Protocol, ServiceTable, TrafficSource};

use super::worlds::{api, file};
use crate::support::recordings;

/// One line of `traffic.txt`.
struct Attempt<'a> {
    source: TrafficSource,
    protocol: Protocol,
    to: (IpAddr, u16),
    outcome: Outcome<'a>,
}

#[derive(Clone, Copy)]
enum Outcome<'a> {
    /// A pod with this name answered and saw this client.
    Pod { name: &'a str, peer: IpAddr },
    /// Something answered that is no pod of the recording.
    Answered,
    /// curl's status 7.
    Refused,
    /// curl's status 28.
    TimedOut,
}

impl<'a> Attempt<'a> {
    fn read(line: &'a str) -> Self {
        let (asked, answer) = line.split_once(" -> ").expect("an arrow");
        let words: Vec<&str> = asked.split(' ').collect();
        let field = |key: &str| answer.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let source = match words[0] {
            "from=pod-on-node-a" | "from=pod-in-the-service-itself" => TrafficSource::Pod,
            "from=node-a" => TrafficSource::Node,
            "from=outside" => TrafficSource::Outside,
            other => panic!("unknown client {other}"),
        };
        let outcome = match (field("pod"), field("rc")) {
            (Some(name), _) => {
                let peer = field("peer").and_then(|p| p.parse().ok()).expect("the client the pod saw");
                Outcome::Pod { name, peer }
            }
            (None, Some("0")) => Outcome::Answered,
            (None, Some("7")) => Outcome::Refused,
            (None, Some("28")) => Outcome::TimedOut,
            other => panic!("unknown outcome {other:?}"),
        };
        Self {
            source,
            protocol: if words[1] == "udp" { Protocol::Udp } else { Protocol::Tcp },
            to: (words[2].parse().expect("an address"), words[3].parse().expect("a port")),
            outcome,
        }
    }

    /// The address of the client before any translation, as far as source ranges look at it.
    fn client(&self) -> IpAddr {
        let v6 = self.to.0.is_ipv6();
        match self.source {
            TrafficSource::Pod if v6 => "fd00:10:244:1::11",
            TrafficSource::Pod => "10.244.1.11",
            TrafficSource::Node if v6 => "fd00:50::11",
            TrafficSource::Node => "192.168.50.11",
            TrafficSource::Outside if v6 => "fd00:50::1",
            TrafficSource::Outside => "192.168.50.1",
        }
        .parse()
        .expect("an address")
    }
}

/// The frontend that such a packet meets: that of its address, or a NodePort if the address is the node's.
fn met<'t>(table: &'t ServiceTable, attempt: &Attempt<'_>, own: &BTreeSet<IpAddr>) -> Option<&'t Frontend> {
    let (ip, port) = attempt.to;
    if let Some(frontend) = table.at((ip, port, attempt.protocol)).first() {
        return Some(frontend);
    }
    let family = Family::of(ip);
    let served = match &table.facts(family).node_ports {
        NodePortScope::All { loopback } => own.contains(&ip) && (*loopback || !ip.is_loopback()),
        NodePortScope::Addresses(list) => list.contains(&ip),
        NodePortScope::Unknown => panic!("the recording says where NodePorts are served"),
    };
    if served { table.at((family.unspecified(), port, attempt.protocol)).first() } else { None }
}

/// `b11` runs on node-b as 10.244.2.11 and fd00:10:244:2::11.
fn pod_address(name: &str, family: Family) -> IpAddr {
    let (node, host) = name.split_at(1);
    let node = match node {
        "a" => 1,
        "b" => 2,
        "c" => 3,
        other => panic!("no node {other}"),
    };
    match family {
        Family::V4 => format!("10.244.{node}.{host}"),
        Family::V6 => format!("fd00:10:244:{node}::{host}"),
    }
    .parse()
    .expect("an address")
}

fn check(table: &ServiceTable, attempt: &Attempt<'_>, own: &BTreeSet<IpAddr>, line: &str) {
    let family = Family::of(attempt.to.0);
    let Some(frontend) = met(table, attempt, own) else {
        assert!(
            matches!(attempt.outcome, Outcome::Refused | Outcome::TimedOut),
            "no frontend, and yet something answered: {line}"
        );
        return;
    };
    let treatment = frontend.treatment(attempt.source, &table.facts(family).detector);
    let let_in =
        treatment.sources.is_empty() || treatment.sources.iter().any(|net: &IpNet| net.contains(&attempt.client()));
    match attempt.outcome {
        Outcome::Pod { name, peer } => {
            let pod = pod_address(name, family);
            assert!(let_in, "the source ranges keep this client out: {line}");
            assert!(treatment.backends.iter().any(|(addr, _)| addr.ip() == pod), "{pod} is no backend: {line}");
            let hairpin = attempt.source == TrafficSource::Pod
                && frontend.cluster.iter().any(|b| b.ip == pod && b.local == Some(true));
            match attempt.source {
                TrafficSource::Node => assert!(own.contains(&peer), "{line}"),
                _ if treatment.masquerade => assert!(own.contains(&peer), "should be masqueraded: {line}"),
                _ if hairpin => {}
                _ => assert!(!own.contains(&peer), "the client's address should be kept: {line}"),
            }
        }
        Outcome::Answered => assert!(let_in && !treatment.backends.is_empty(), "{line}"),
        Outcome::Refused => assert_eq!(treatment.no_backends, Some(NoBackends::Reject), "{line}"),
        Outcome::TimedOut => {
            assert!(treatment.no_backends == Some(NoBackends::Drop) || !let_in, "{treatment:?}: {line}");
        }
    }
}

fn addresses(world: &Path) -> BTreeSet<IpAddr> {
    let links: serde_json::Value =
        serde_json::from_slice(&file(&world.join("ip-addr.json")).expect("addresses")).expect("JSON");
    let infos =
        links.as_array().expect("links").iter().flat_map(|link| link["addr_info"].as_array().expect("addresses"));
    infos.filter_map(|info| info["local"].as_str()?.parse().ok()).collect()
}

#[test]
fn who_answered_is_who_the_table_says() {
    let Some(root) = recordings() else { return };
    for world in
        ["iptables-nft", "iptables-legacy", "v1.30-iptables-nft", "v1.25-iptables-legacy", "v1.23-iptables-nft"]
    {
        let dir = root.join("small").join(world).join("running");
        let table = api(&dir, &root.join("small/api"), None).table;
        assert!(matches!(table.v4.detector, Detector::Cidr(_)));
        let own = addresses(&dir);
        let lines = fs::read_to_string(dir.join("traffic.txt")).expect("who answered");
        assert_eq!(lines.lines().count(), 42, "{world}");
        for line in lines.lines() {
            check(&table, &Attempt::read(line), &own, &format!("{world}: {line}"));
        }
    }
}
