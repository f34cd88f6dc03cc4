//! Two readings of the same rules: packets walked through them, and the table that they lift into. Neither knows the other.

use std::path::Path as FilePath;

use kpx::capture::{Node, NodeOptions};
use kpx::inspect::ipset::Sets;
use kpx::inspect::iptables::{lift, parse};
use kpx::inspect::ipvs::read_node;
use kpx::inspect::nftables::NftablesState;
use kpx::model::{Family, Frontend, NoBackends, ServiceTable, TrafficSource};
use kpx::path::{
    Around, End, Packet, Path, origin_of, through_iptables, through_ipvs, through_nftables, through_table,
};

use super::{to, to_nobody};
use crate::iptables::text;
use crate::support;

fn around(world: &FilePath) -> Around {
    let read = |name: &str| text(&world.join(name));
    Around::of(read("ip-addr.json").as_deref(), &read("ip-route.json").unwrap_or_default())
}

/// Every frontend of a table from everywhere, but for some from the node: walked, and as the table says. How many were compared.
fn compare(
    table: &ServiceTable,
    around: &Around,
    walk: impl Fn(&Packet) -> Path,
    but_for: impl Fn(&Frontend, TrafficSource) -> bool,
) -> usize {
    let mut compared = 0;
    for frontend in table.frontends() {
        for origin in TrafficSource::ALL {
            if but_for(frontend, origin) {
                continue;
            }
            let packet = to(frontend, origin);
            let (walked, told) = (walk(&packet), through_table(table, "table", &packet, around));
            let sum: f64 = walked.ways.iter().map(|way| way.probability).sum();
            assert!((sum - 1.0).abs() < 1e-6, "{packet}: {sum}");
            assert!(
                walked.agrees_with(&told),
                "{packet}: walked to {:#?}\n{:#?}, told {:#?}",
                walked.ends(),
                walked.notes,
                told.ends()
            );
            let unknown: Vec<_> = walked.notes.iter().filter(|note| note.starts_with("not")).collect();
            assert!(unknown.is_empty(), "{packet}: {unknown:?}");
            compared += 1;
        }
    }
    compared
}

#[test]
fn iptables_rules_lead_where_their_table_says() {
    let Some(root) = support::recordings() else { return };
    for name in [
        "iptables-nft/running",
        "iptables-legacy/running",
        "v1.30-iptables-nft/running",
        "v1.25-iptables-legacy/running",
        "v1.23-iptables-nft/running",
    ] {
        let world = root.join("small").join(name);
        let texts = ["iptables-save.txt", "ip6tables-save.txt"]
            .map(|name| text(&world.join(name)).unwrap_or_else(|| panic!("{} has {name}", world.display())));
        let [v4, v6] = texts.each_ref().map(|text| parse(text).expect("it parses"));
        let table = lift(Some(&v4), Some(&v6)).table;
        let around = around(&world);
        let compared = compare(
            &table,
            &around,
            |packet| {
                let dump = if packet.family() == Family::V4 { &v4 } else { &v6 };
                through_iptables(dump, &Sets::new(), packet, &around)
                // The node's own packets to addresses outside meet no rule that refuses: OUTPUT has no jump to KUBE-EXTERNAL-SERVICES.
            },
            |frontend, origin| {
                let outward = frontend.no_backends.is_some() && frontend.key.exposure.is_external();
                // Kubernetes 1.23 marked these packets for the kubelet's rules to drop; no kubelet ran where this was recorded.
                let kubelets = frontend.no_backends == Some(NoBackends::Drop) || !frontend.sources.is_empty();
                origin == TrafficSource::Node && outward || name.starts_with("v1.23") && kubelets
            },
        );
        assert!(compared > 200, "{}: {compared}", world.display());
        let nobody = through_iptables(&v4, &Sets::new(), &to_nobody(), &around);
        assert_eq!(nobody.ends().into_keys().collect::<Vec<_>>(), [End::Untouched]);
    }
}

#[test]
fn nftables_rules_lead_where_their_table_says() {
    let Some(root) = support::recordings() else { return };
    for name in ["nftables/running", "v1.30-nftables/running"] {
        let world = root.join("small").join(name);
        let state = NftablesState::from(crate::nftables::ruleset_of(&world));
        let around = around(&world);
        let compared = compare(
            &state.table,
            &around,
            |packet| {
                through_nftables(&state.ruleset, packet, &around).expect("a table")
                // The node was a client when it was recorded: the sets remember it, the table does not.
            },
            |frontend, origin| {
                origin == TrafficSource::Node && frontend.affinity.is_some()
                    // Kubernetes 1.30 dropped these before it looked where they come from.
                    || name.starts_with("v1.30")
                        && origin != TrafficSource::Outside
                        && frontend.no_backends == Some(NoBackends::Drop)
            },
        );
        assert!(compared > 200, "{}: {compared}", world.display());
    }
}

#[test]
fn virtual_services_lead_where_their_table_says_through_rules_and_sets() {
    let Some(root) = support::recordings() else { return };
    for name in ["ipvs/running", "ipvs-strict-arp/running", "ipvs-kernel-6.12/running"] {
        let world = root.join("small").join(name);
        let from = NodeOptions { from: Some(world.clone()), ..NodeOptions::default() };
        let ipvs = read_node(&Node::open(&from).expect("it opens")).expect("it is read");
        let texts = ["iptables-save.txt", "ip6tables-save.txt"].map(|name| text(&world.join(name)).expect("recorded"));
        let [v4, v6] = texts.each_ref().map(|text| parse(text).expect("it parses"));
        let around = around(&world);
        let walk = |packet: &Packet| {
            let dump = if packet.family() == Family::V4 { &v4 } else { &v6 };
            through_ipvs(Some(dump), &ipvs.state, &ipvs.table, packet, &around)
        };
        // A socket of the node that has no address yet gets the one that it sends to, since kube-ipvs0 has it.
        let own = |packet: &Packet| match packet.origin {
            TrafficSource::Node => Packet { source: around.source_to(packet.destination.ip()), ..packet.clone() },
            TrafficSource::Outside | TrafficSource::Pod => packet.clone(),
        };
        let compared = compare(&ipvs.table, &around, |packet| walk(&own(packet)), |_, _| false);
        assert!(compared > 200, "{}: {compared}", world.display());
        let nobody = walk(&to_nobody());
        assert_eq!(nobody.ends().into_keys().collect::<Vec<_>>(), [End::Untouched]);
        // The kernel as the witness: each connection that was open went where the walk says that it may.
        let mut witnesses = 0;
        let local = around.addresses.clone().expect("they were recorded");
        for connection in ipvs.connections.iter().filter(|connection| !connection.is_template()) {
            let client = connection.client.ip();
            let interface = around.interface_to(client).filter(|name| *name != "lo").map(str::to_owned);
            let origin =
                origin_of(client, interface.as_deref(), &local, &ipvs.table).expect("pods are told by network");
            let packet = Packet {
                origin,
                source: Some(client),
                destination: connection.virtual_address,
                protocol: connection.protocol,
                interface: interface.filter(|_| origin != TrafficSource::Node),
            };
            let ends = walk(&packet).ends();
            let went = |end: &End| matches!(end, End::Backend { to, .. } if *to == connection.server);
            assert!(ends.keys().any(went), "{packet}: to {}, said {ends:?}", connection.server);
            witnesses += 1;
        }
        assert!(witnesses > 10, "{}: {witnesses}", world.display());
    }
}
