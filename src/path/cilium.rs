//! The way through Cilium's maps: what becomes of the packet by the table that they lift into, and the entries that say so.

use super::{Around, End, Packet, Path, Step, table};
use crate::inspect::cilium::{State, lookup};
use crate::inspect::entry::MapEntry;
use crate::model::{ServiceTable, TrafficSource};

const HOOK: &str = "lookup";

/// Follows a packet; `table` is what the state lifts into, with the Services' names.
pub fn walk(state: &State, table: &ServiceTable, packet: &Packet, around: &Around) -> Path {
    let mut path = table::walk(table, HOOK, packet, around);
    let inside = packet.origin != TrafficSource::Outside;
    let Some(met) = lookup(state, packet.destination, packet.protocol, inside, packet.source) else { return path };
    for way in &mut path.ways {
        // The table tells whose the frontend is, then what becomes of the packet; a packet that is nobody's it tells nothing of.
        let [found, verdict] = way.steps.as_slice() else { continue };
        let mut steps: Vec<Step> = met.before.iter().map(step).collect();
        if let Some(first) = steps.first_mut() {
            first.does.clone_from(&found.does);
        }
        match way.end {
            End::Backend { to, .. } => {
                let own = met.slots.iter().filter(|(backend, _)| *backend == Some(to));
                steps.extend(own.flat_map(|(_, entries)| entries).map(step));
            }
            End::Refused | End::Dropped | End::Untouched => {
                steps.push(Step { hook: HOOK, at: "lookup".to_owned(), ..verdict.clone() });
            }
        }
        way.compared = steps.len();
        way.steps = steps;
    }
    path
}

fn step(entry: &MapEntry) -> Step {
    Step {
        hook: HOOK,
        at: format!("{} {}", entry.map, entry.key),
        does: entry.value.clone(),
        text: entry.value.clone(),
    }
}
