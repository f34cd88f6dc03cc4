//! Clients that kube-proxy's dataplanes keep with their backends, live or recorded.

use serde_json::{Map, json};

use super::super::kept::{Filter, duration, endpoint};
use super::super::listing::{Kind, Line, Listing, known};
use crate::capture::{Captured, Item, Node};
use crate::cmd::Context;
use crate::inspect::recent::Recent;
use crate::inspect::remembered::{Remembered, of_ipvs, of_nftables, of_recent};
use crate::inspect::{ipvs, nftables};
use crate::source::{Lifted, Via};
use crate::ui::{Exit, Failure, count};

const REMEMBERED: Kind = Kind {
    list: "AffinityList",
    noun: "client",
    headings: &["CLIENT", "SERVICE", "BACKEND", "IDLE", "PLACE"],
    narrow: 4,
    right: &["IDLE"],
    whole: &["CLIENT", "BACKEND"],
};

pub(super) fn run(context: &mut Context, via: Via, filter: &Filter) -> Result<Exit, Failure> {
    filter.watch.run(context, |context| look(context, via, filter))
}

fn look(context: &mut Context, via: Via, filter: &Filter) -> Result<(), Failure> {
    let node = context.node()?;
    let lifted = context.lift_named(&node, via)?;
    let mut clients = read(&node, via, &lifted)?;
    clients.retain(|client| {
        let backend = client.backend.map(|backend| (backend.ip(), Some(backend.port())));
        filter.selection.keeps_name(client.service.as_ref())
            && filter.selection.keeps_one_of(backend.into_iter().chain([(client.client, None)]))
    });
    clients.sort_by_cached_key(|client| (label(client), client.client, client.backend));
    let total = clients.len();
    let (first, next) = filter.page.words(total);
    let footer = format!("{first}{}, read from {}{next}", count(total, REMEMBERED.noun), lifted.place);
    let lines = filter.page.of(clients).map(|client| line(&client)).collect();
    let extra = Map::from_iter([
        ("source".to_owned(), json!(via.to_string())),
        ("read_from".to_owned(), json!(lifted.place)),
        ("total".to_owned(), json!(total)),
        ("notices".to_owned(), json!(lifted.notices)),
    ]);
    context.ui.report(&Listing::of_entries(&REMEMBERED, lines, footer, extra))
}

fn read(node: &Node, via: Via, lifted: &Lifted) -> Result<Vec<Remembered>, Failure> {
    Ok(match via {
        Via::Nftables => of_nftables(&nftables::read_node(node)?.ruleset, &lifted.table),
        Via::Ipvs => of_ipvs(&ipvs::read_node(node)?.connections, &lifted.table),
        _ => match node.read(Item::Recent)? {
            Captured::Present { bytes, .. } => of_recent(&Recent::parse(&bytes), &lifted.table),
            Captured::Absent { reason } => {
                return Err(Failure::new(format!("the lists of xt_recent were not captured: {reason}"))
                    .hint("record them on the node with: kpx snapshot node.tar.zst"));
            }
        },
    })
}

fn label(client: &Remembered) -> Option<String> {
    let service = client.service.as_ref()?;
    Some(match client.port_name.as_deref() {
        Some(port) if !port.is_empty() => format!("{service}:{port}"),
        _ => service.to_string(),
    })
}

fn line(client: &Remembered) -> Line {
    let item = json!({
        "client": client.client,
        "service": client.service.as_ref().map(ToString::to_string),
        "port_name": client.port_name,
        "backend": client.backend.map(endpoint),
        "idle_seconds": client.idle_seconds,
        "place": client.place,
    });
    let cells = vec![
        client.client.to_string(),
        known(label(client).as_ref()),
        client.backend.map_or_else(|| "gone".to_owned(), |backend| backend.to_string()),
        known(client.idle_seconds.map(duration)),
        client.place.clone(),
    ];
    Line::entry(client.client.to_string(), item, cells)
}
