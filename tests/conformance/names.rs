//! Addresses of the recorded cluster, and the short names that behaviours call them by.

use std::net::{IpAddr, SocketAddr};

use kpx::model::Family;

/// Port of an endpoint that is not written.
const PORT: u16 = 8080;

fn parse(text: String) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}

fn number(letter: char) -> u32 {
    u32::from(letter) - u32::from('a') + 1
}

/// The address of a node: `a` is 192.168.50.11.
pub(super) fn node(letter: char, family: Family) -> IpAddr {
    let end = number(letter);
    parse(match family {
        Family::V4 => format!("192.168.50.1{end}"),
        Family::V6 => format!("fd00:50::1{end}"),
    })
}

/// The address of a pod of a node: `a`, `13` is 10.244.1.13. `1` is the node's own address there.
pub(super) fn pod(letter: char, end: &str, family: Family) -> IpAddr {
    let node = number(letter);
    parse(match family {
        Family::V4 => format!("10.244.{node}.{end}"),
        Family::V6 => format!("fd00:10:244:{node}::{end}"),
    })
}

/// The address of an endpoint by its name: `a13`, `node-a:9100`, or the address itself.
pub(super) fn endpoint(name: &str, family: Family) -> (IpAddr, u16) {
    let (host, port) = name.rsplit_once(':').map_or((name, PORT), |(host, port)| (host, port.parse().expect("a port")));
    if let Some(letter) = host.strip_prefix("node-") {
        return (node(letter.chars().next().expect("a letter"), family), port);
    }
    let (letter, end) = host.split_at(1);
    (pod(letter.chars().next().expect("a letter"), end, family), port)
}

/// The name of an endpoint by its address.
pub(super) fn name(addr: SocketAddr) -> String {
    let text = addr.ip().to_string();
    let host = ["a", "b", "c"].into_iter().find_map(|letter| {
        let at = letter.chars().next()?;
        Family::BOTH.into_iter().find_map(|family| {
            if addr.ip() == node(at, family) {
                return Some(format!("node-{letter}"));
            }
            let net = pod(at, "1", family).to_string();
            text.strip_prefix(&net[..net.len() - 1]).map(|end| format!("{letter}{end}"))
        })
    });
    let host = host.unwrap_or(text);
    if addr.port() == PORT { host } else { format!("{host}:{}", addr.port()) }
}

#[test]
fn names_and_addresses_are_each_others() {
    for text in ["a13", "b14:8443", "c11:53", "node-a:9100"] {
        for family in Family::BOTH {
            let (ip, port) = endpoint(text, family);
            assert_eq!(name(SocketAddr::new(ip, port)), text);
        }
    }
    assert_eq!(endpoint("b13", Family::V6).0.to_string(), "fd00:10:244:2::13");
    assert_eq!(name("192.0.2.80:8080".parse().unwrap()), "192.0.2.80");
}
