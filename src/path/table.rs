//! The way by a table of Services: for dataplanes that are lookups, and for what the API asks for.

use super::{Around, End, Packet, Path, Step, Way};
use crate::model::{Exposure, Family, Frontend, NoBackends, NodePortScope, ServiceTable, TrafficSource};

/// Follows a packet by a table that was read from `hook`.
pub fn walk(table: &ServiceTable, hook: &'static str, packet: &Packet, around: &Around) -> Path {
    let mut path = Path::default();
    let Some(frontend) = frontend(table, packet, around, &mut path) else {
        let way = Way { probability: 1.0, steps: Vec::new(), compared: 1, end: End::Untouched };
        return Path { ways: vec![way], notes: path.notes };
    };
    let treatment = frontend.treatment(packet.origin, &table.facts(packet.family()).detector);
    let found = Step {
        hook,
        at: frontend.origin.to_string(),
        does: format!("{} of {}", frontend.key.exposure, frontend.display_name()),
        text: frontend.key.to_string(),
    };
    let ends = |end, probability, step: Step| Way { probability, steps: vec![found.clone(), step], compared: 1, end };
    let step = |does: String, text: String| Step { hook, at: frontend.origin.to_string(), does, text };
    if let Some(source) = packet.source
        && !treatment.sources.is_empty()
        && !treatment.sources.iter().any(|net| net.contains(&source))
    {
        let ranges: Vec<_> = treatment.sources.iter().map(ToString::to_string).collect();
        path.ways.push(ends(
            End::Dropped,
            1.0,
            step("drop: no source range has the client".to_owned(), ranges.join(", ")),
        ));
        return path;
    }
    if !treatment.sources.is_empty() && packet.source.is_none() {
        path.notes.insert("the client was taken to be in loadBalancerSourceRanges; --from-ip tells".to_owned());
    }
    if let Some(verdict) = treatment.no_backends {
        let end = match verdict {
            NoBackends::Reject => End::Refused,
            NoBackends::Drop => End::Dropped,
        };
        path.ways.push(ends(end, 1.0, step(format!("{verdict}: no usable endpoint"), String::new())));
        return path;
    }
    if let Some(seconds) = treatment.affinity {
        path.notes.insert(format!(
            "the client was taken to be new: with affinity its backend of the last {seconds} s is kept"
        ));
    }
    let sum: f64 = treatment.backends.iter().map(|(_, weight)| f64::from(*weight)).sum();
    for (to, weight) in &treatment.backends {
        let hairpin = packet.source == Some(to.ip());
        // What is delivered to the node itself never comes to where sources are replaced.
        let replaced = (treatment.masquerade || hairpin) && around.is_local(to.ip()) != Some(true);
        let nodes_source = replaced || packet.origin == TrafficSource::Node;
        let end = End::Backend { to: *to, nodes_source };
        path.ways.push(ends(end, f64::from(*weight) / sum, step(format!("to {to}"), format!("weight {weight}"))));
    }
    path
}

/// The frontend that a packet is for.
fn frontend<'t>(table: &'t ServiceTable, packet: &Packet, around: &Around, path: &mut Path) -> Option<&'t Frontend> {
    let (ip, port, protocol) = (packet.destination.ip(), packet.destination.port(), packet.protocol);
    if let Some(found) = table.at((ip, port, protocol)).first() {
        return Some(found);
    }
    let node_port = |f: &&Frontend| f.key.exposure == Exposure::NodePort;
    let found = table.at((Family::of(ip).unspecified(), port, protocol)).iter().find(node_port)?;
    let local = around.is_local(ip);
    let served = match &table.facts(packet.family()).node_ports {
        NodePortScope::Addresses(list) => list.contains(&ip),
        // From elsewhere nothing is sent to a loopback address.
        NodePortScope::All { loopback } if ip.is_loopback() => *loopback && packet.origin == TrafficSource::Node,
        NodePortScope::All { .. } | NodePortScope::Unknown => {
            if local.is_none() {
                path.notes.insert(format!("{ip} was taken to be no address of the node: its addresses are not known"));
            }
            local == Some(true)
        }
    };
    served.then_some(found)
}
