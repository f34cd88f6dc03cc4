//! Real tables, read from what real kube-proxies wrote, in real maps.

use kpx::capture::{Node, NodeOptions};
use kpx::dataplane::{Capacity, Dataplane, NotServed, Served};
use kpx::inspect::iptables::read_node;
use kpx::model::{ServiceTable, diff};

use super::ground::Ground;
use crate::support;

const WORLDS: [&str; 5] = [
    "small/iptables-nft/running",
    "small/iptables-legacy/running",
    "small/v1.25-iptables-legacy/running",
    "stale/upgraded-from-v1.30",
    "scale/1000",
];

fn table(world: &str) -> Option<ServiceTable> {
    let from = support::recordings()?.join(world);
    let node =
        Node::open(&NodeOptions { from: Some(from), ..NodeOptions::default() }).expect("a recording is a snapshot");
    Some(read_node(&node).unwrap_or_else(|e| panic!("{world}: {e}")).table)
}

/// One after the other into the same maps, there and back: each is a change from the one before.
#[test]
fn recorded_tables_are_read_back_from_the_maps_as_they_are() {
    let Some(tables) = WORLDS.iter().map(|world| table(world)).collect::<Option<Vec<_>>>() else { return };
    Ground::with(|ground| {
        let largest = tables.iter().max_by_key(|t| t.frontends().len()).unwrap();
        let mut dataplane = Dataplane::install(&ground.paths, &Capacity::for_table(largest)).unwrap();
        for (world, table) in WORLDS.iter().zip(&tables).chain(WORLDS.iter().zip(&tables).rev()) {
            dataplane.fill(table).unwrap();
            let served = Served::of(table);
            assert!(served.table.frontends().len() > 50, "{world}");
            let differences = diff(&served.table, &dataplane.table().unwrap());
            assert!(differences.is_empty(), "{world}: {differences:#?}");
            assert!(dataplane.fill(table).unwrap().is_empty(), "{world}");
            // Whoever takes the maps up finds nothing to do either.
            let mut next = Dataplane::adopt(&ground.paths).unwrap().unwrap();
            assert!(next.fill(table).unwrap().is_empty(), "{world}");
        }
    });
}

#[test]
fn what_stays_with_the_rules_has_a_reason() {
    let Some(table) = table(WORLDS[0]) else { return };
    let served = Served::of(&table);
    assert_eq!(served.table.frontends().len() + served.others.len(), table.frontends().len());
    for (frontend, reason) in &served.others {
        assert!(matches!(reason, NotServed::Conflict(key) if *key == frontend.key), "{}: {reason}", frontend.key);
    }
    // Which of several Services has an address is not for us to say; everything else is served.
    let conflicts: usize = table.conflicts().iter().map(|conflict| conflict.frontends.len()).sum();
    assert_eq!(served.others.len(), conflicts);
}
