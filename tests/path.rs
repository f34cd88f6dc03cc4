//! Following packets: rules walked one by one against the tables that they lift into, and against what the kernel does.

mod agreement;
mod kernel;
mod maps;

use std::net::SocketAddr;

use kpx::model::{Family, Frontend, Protocol, TrafficSource};
use kpx::path::Packet;

/// An address of the recorded node, on which its NodePorts answer.
fn node_address(family: Family) -> std::net::IpAddr {
    match family {
        Family::V4 => [192, 168, 50, 11].into(),
        Family::V6 => "fd00:50::11".parse().expect("an address"),
    }
}

/// A packet to a frontend: to a NodePort by an address of the node.
fn to(frontend: &Frontend, origin: TrafficSource) -> Packet {
    let family = Family::of(frontend.key.ip);
    let ip = if frontend.key.ip.is_unspecified() { node_address(family) } else { frontend.key.ip };
    let source = |v4: [u8; 4], v6: &str| match family {
        Family::V4 => v4.into(),
        Family::V6 => v6.parse().expect("an address"),
    };
    Packet {
        origin,
        source: Some(match origin {
            TrafficSource::Outside => source([203, 0, 113, 9], "2001:db8::9"),
            TrafficSource::Pod => source([10, 244, 1, 77], "fd00:10:244:1::4d"),
            TrafficSource::Node => node_address(family),
        }),
        destination: SocketAddr::new(ip, frontend.key.port),
        protocol: frontend.key.protocol,
        interface: match origin {
            TrafficSource::Outside => Some("eth0".to_owned()),
            TrafficSource::Pod => Some("cni0".to_owned()),
            TrafficSource::Node => None,
        },
    }
}

/// A packet that is to no Service.
fn to_nobody() -> Packet {
    Packet {
        origin: TrafficSource::Outside,
        source: Some([203, 0, 113, 9].into()),
        destination: SocketAddr::from(([198, 51, 100, 1], 7)),
        protocol: Protocol::Udp,
        interface: Some("eth0".to_owned()),
    }
}
