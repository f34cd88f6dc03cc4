//! What the commands about entries have in common: arguments, names of Services, filters.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use clap::Args;
use serde_json::{Map, Value, json};

use super::attached::live_only;
use super::listing::{Kind, Line, Listing};
use crate::cmd::Context;
use crate::cmd::selection::{Page, Selection};
use crate::cmd::watch::Watch;
use crate::inspect::entry::{Entry, Frontends};
use crate::kept::{Keeper, Kept};
use crate::model::{Frontend, ServiceName, ServiceTable};
use crate::source::{Places, Remark, SourceError};
use crate::ui::{Exit, Failure, count};

/// Arguments of commands about entries.
#[derive(Args, Debug)]
pub(super) struct KeptArgs {
    /// Whose maps to read [default: kpx's; Cilium's where only they are pinned]
    #[arg(long, value_enum, value_name = "SOURCE")]
    pub(super) via: Option<Keeper>,
    #[command(flatten)]
    pub(super) filter: Filter,
}

/// Which entries are shown, and how often.
#[derive(Args, Debug)]
pub(super) struct Filter {
    #[command(flatten)]
    pub(super) selection: Selection,
    #[command(flatten)]
    pub(super) page: Page,
    #[command(flatten)]
    pub(super) watch: Watch,
}

/// Reads, selects, names and shows entries of one sort, in the order of the lines' first cells.
pub(super) fn show<T: Entry>(
    context: &mut Context,
    args: &KeptArgs,
    kind: &'static Kind,
    read: impl Fn(Keeper, &Places) -> Result<Kept<T>, SourceError>,
    lines: impl Fn(&T, &Named) -> Vec<Line>,
) -> Result<Exit, Failure> {
    live_only(context, "what BPF maps hold")?;
    args.filter.watch.run(context, |context| look(context, args, kind, &read, &lines))
}

fn look<T: Entry>(
    context: &mut Context,
    args: &KeptArgs,
    kind: &'static Kind,
    read: impl Fn(Keeper, &Places) -> Result<Kept<T>, SourceError>,
    lines: impl Fn(&T, &Named) -> Vec<Line>,
) -> Result<(), Failure> {
    let places = context.globals.places();
    let keeper = args.via.unwrap_or_else(|| Keeper::find(&places));
    let mut kept = read(keeper, &places)?;
    let names = names(context, &kept.frontends, &mut kept.notices);
    for notice in &kept.notices {
        context.ui.warn(&format!("{keeper}: {}", notice.text));
    }
    let nobody = Named::default();
    let of = |entry: &T| entry.service().and_then(|id| names.get(&id)).unwrap_or(&nobody);
    let selected = |entry: &&T| {
        args.filter.selection.keeps_name(of(entry).service.as_ref())
            && args.filter.selection.keeps_one_of(entry.endpoints().into_iter())
    };
    let mut chosen: Vec<&T> = kept.entries.iter().filter(selected).collect();
    let total = chosen.len();
    chosen.sort_by_cached_key(|entry| (of(entry).label.clone(), entry.endpoints()));
    let (first, next) = args.filter.page.words(total);
    let footer = format!("{first}{}, read from {}{next}", count(total, kind.noun), kept.place);
    let lines = args.filter.page.of(chosen).flat_map(|entry| lines(entry, of(entry))).collect();
    let extra = Map::from_iter([
        ("source".to_owned(), json!(keeper.to_string())),
        ("read_from".to_owned(), json!(kept.place)),
        ("total".to_owned(), json!(total)),
        ("notices".to_owned(), json!(kept.notices)),
    ]);
    context.ui.report(&Listing::of_entries(kind, lines, footer, extra))
}

/// What is known of a service id.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    /// The Service.
    pub(super) service: Option<ServiceName>,
    /// Name of its port.
    pub(super) port_name: Option<String>,
    /// How it is shown: name and port, or a frontend's address where the name is not known.
    pub(super) label: Option<String>,
}

/// Names of services by id, from the API's objects where they are given, else from the rules.
fn names(context: &Context, frontends: &Frontends, notices: &mut Vec<Remark>) -> BTreeMap<u32, Named> {
    let known = match context.node().map_err(Failure::from).and_then(|node| context.lift(&node, context.via(None))) {
        Ok(lifted) => lifted.table,
        Err(failure) => {
            let text = format!("no names of Services: {}", failure.message);
            notices.push(Remark { code: "no-names", text });
            ServiceTable::default()
        }
    };
    let named = |keys: &Vec<crate::model::FrontendKey>| {
        let frontend = keys.iter().flat_map(|key| known.at(key.address())).find(|f| f.service.is_some());
        Named {
            service: frontend.and_then(|f| f.service.clone()),
            port_name: frontend.and_then(|f| f.port_name.clone()),
            label: frontend.map(Frontend::display_name).or_else(|| keys.first().map(ToString::to_string)),
        }
    };
    frontends.iter().map(|(id, keys)| (*id, named(keys))).collect()
}

/// The JSON of an endpoint.
pub(super) fn endpoint(addr: SocketAddr) -> Value {
    json!({ "ip": addr.ip(), "port": addr.port() })
}

/// The JSON fields that say which service an entry is of.
pub(super) fn with_service(id: Option<u32>, named: &Named, mut item: Value) -> Value {
    item["service"] = json!(named.service.as_ref().map(ToString::to_string));
    item["port_name"] = json!(named.port_name);
    item["service_id"] = json!(id);
    item
}

/// Name of a transport protocol, or its number.
pub(super) fn protocol(number: u8) -> String {
    match number {
        1 => "ICMP".to_owned(),
        58 => "ICMPv6".to_owned(),
        _ => crate::model::Protocol::from_number(number).map_or_else(|| number.to_string(), |p| p.to_string()),
    }
}

/// `1h02m`, `3m05s`, `12s`: a time for people.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}
