//! Real tables, read from what real kube-proxies wrote, in real maps.

use kpx::capture::{Node, NodeOptions};
use kpx::dataplane::{Capacity, Dataplane, NotServed, Served};
use kpx::inspect::iptables::read_node;
use kpx::model::{Exposure, ServiceTable, diff};

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
    assert!(served.table.frontends().iter().all(|f| f.key.exposure == Exposure::ClusterIp && f.affinity.is_none()));
    for (frontend, reason) in &served.others {
        let right = match reason {
            NotServed::Exposure(exposure) => *exposure == frontend.key.exposure && *exposure != Exposure::ClusterIp,
            NotServed::Affinity(seconds) => frontend.affinity == Some(*seconds),
            NotServed::Protocol(protocol) => *protocol == frontend.key.protocol,
            NotServed::Conflict(key) => *key == frontend.key,
            other => panic!("{}: {other}", frontend.key),
        };
        assert!(right, "{}: {reason}", frontend.key);
    }
    let has = |wanted: fn(&NotServed) -> bool| served.others.iter().any(|(_, reason)| wanted(reason));
    assert!(has(|r| matches!(r, NotServed::Exposure(_))) && has(|r| matches!(r, NotServed::Affinity(_))));
}
