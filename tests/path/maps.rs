//! kpx's maps: the lookup that the programs run, asked for each number that chooses, against the table that was filled in.

use kpx::capture::{Node, NodeOptions};
use kpx::dataplane::{Capacity, Dataplane, Served, node_addresses};
use kpx::inspect::iptables::read_node;
use kpx::model::{NodePortScope, TrafficSource};
use kpx::path::{Around, through_maps, through_table};

use super::to;
use crate::dataplane::ground::Ground;
use crate::iptables::text;
use crate::support;

#[test]
fn maps_lead_where_the_table_in_them_says() {
    let Some(root) = support::recordings() else { return };
    let world = root.join("small/iptables-nft/running");
    let node = Node::open(&NodeOptions { from: Some(world.clone()), ..NodeOptions::default() }).expect("a snapshot");
    let table = Served::of(&read_node(&node).expect("rules").table).table;
    let around = Around::of(text(&world.join("ip-addr.json")).as_deref(), b"[]");
    Ground::with(|ground| {
        let mut dataplane =
            Dataplane::install(&ground.paths, &Capacity::for_table(&table)).expect("it can be installed");
        dataplane.fill(&table).expect("it can be filled");
        let local = around.addresses.clone().expect("they were recorded");
        dataplane.set_addresses(&node_addresses(&table, &local)).expect("it can be told");
        let mut compared = 0;
        for frontend in table.frontends() {
            for origin in TrafficSource::ALL {
                let packet = to(frontend, origin);
                let asked = through_maps(&dataplane, &packet, &around).expect("maps can be read");
                let told = through_table(&table, "table", &packet, &around);
                assert!(asked.agrees_with(&told), "{packet}: {:#?}, told {:#?}", asked.ends(), told.ends());
                compared += 1;
            }
        }
        assert!(compared > 200, "{compared}");
        assert!(matches!(table.v4.node_ports, NodePortScope::All { .. }), "NodePorts were among them");
    });
}
