//! The flows of the packet path, as entries.

use std::collections::HashMap;
use std::net::SocketAddr;

use kpx_abi::packet::signal;
use kpx_abi::{Addr, Flow as AbiFlow, Role, Timeouts, Tuple, map_name, stage};

use super::error::DataplaneError;
use super::maps::failed;
use super::reconcile::{self, Image};
use super::{Dataplane, now};
use crate::inspect::entry::{Flow, Nat, Translation};

/// Roles by their numbers, with their names.
const ROLES: [(Role, &str); 5] = [
    (Role::Forward, "forward"),
    (Role::Masquerade, "masquerade"),
    (Role::Unmasquerade, "unmasquerade"),
    (Role::Reply, "reply"),
    (Role::Left, "left"),
];

/// Names of the bits of what a direction has shown.
const SIGNALS: [(u8, &str); 4] =
    [(signal::OPENS, "opened"), (signal::FINISHES, "finished"), (signal::RESETS, "reset"), (signal::CARRIES, "data")];

fn at(addr: Addr, port: u16) -> SocketAddr {
    SocketAddr::new(reconcile::ip(addr), u16::from_be(port))
}

impl Dataplane {
    fn flows(&self) -> Result<HashMap<Tuple, AbiFlow>, DataplaneError> {
        let flows = self.maps.flows.dump().map_err(failed("read", map_name::CONNTRACK))?;
        Ok(flows.into_iter().collect())
    }

    /// Flows of the packet path: one entry for each translation of each direction.
    pub fn conntrack(&self) -> Result<Vec<Flow>, DataplaneError> {
        let (flows, image) = (self.flows()?, self.maps.image()?);
        let now = u64::try_from(now().as_nanos()).unwrap_or(u64::MAX);
        Ok(flows.iter().map(|(key, flow)| entry(&flows, &image, key, flow, now)).collect())
    }

    /// Source addresses that the packet path replaces, and their way back.
    pub fn nat(&self) -> Result<Vec<Nat>, DataplaneError> {
        let translation = |(key, flow): (&Tuple, &AbiFlow)| {
            let (kind, becomes) = match flow.role {
                role if role == Role::Masquerade as u8 => (Translation::Source, at(flow.to.src, flow.to.sport)),
                role if role == Role::Unmasquerade as u8 => (Translation::Destination, at(flow.to.dst, flow.to.dport)),
                _ => return None,
            };
            // Before its first packet has left, a flow has no source to leave with.
            (!flow.undecided()).then(|| Nat {
                protocol: key.proto,
                kind,
                source: at(key.src, key.sport),
                destination: at(key.dst, key.dport),
                becomes,
                service: Some(flow.service),
                age_seconds: None,
            })
        };
        Ok(self.flows()?.iter().filter_map(translation).collect())
    }
}

fn entry(flows: &HashMap<Tuple, AbiFlow>, image: &Image, key: &Tuple, flow: &AbiFlow, now: u64) -> Flow {
    // A packet's answer is what its translation reversed names.
    let other = flows.get(&flow.to.reversed());
    let last = other.map_or(flow.last_ns, |other| other.last_ns.max(flow.last_ns));
    let stage = stage(flow.seen, other.map_or(0, |other| other.seen));
    let limit = Timeouts::default().limit_ns(key.proto, stage);
    let seconds = |ns: u64| i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX);
    Flow {
        protocol: key.proto,
        kind: ROLES.iter().find(|(role, _)| *role as u8 == flow.role).map_or("unknown", |(_, name)| name),
        source: at(key.src, key.sport),
        destination: at(key.dst, key.dport),
        service: Some(flow.service).filter(|service| *service != 0),
        backend: image.address_of(flow.backend, flow.service),
        packets: None,
        bytes: None,
        expires_seconds: Some(seconds(limit) - seconds(now.saturating_sub(last))),
        flags: SIGNALS.iter().filter(|(bit, _)| flow.seen & bit != 0).map(|(_, name)| *name).collect(),
    }
}
