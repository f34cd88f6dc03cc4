//! `kpx inspect backends`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::cmd::selection::{Page, Selection};
use crate::cmd::watch::Watch;
use crate::cmd::{Context, notices};
use crate::model::{Backend, Protocol, ServiceTable};
use crate::source::{Lifted, Via};
use crate::ui::{Cell, Exit, Failure, Report, Table, count};

const EXAMPLES: &str = "\
Examples:
  Which backends kpx's maps hold, and for which Services
    $ kpx inspect backends

  The backends of one Service as the rules have them
    $ kpx inspect backends --via iptables --service shop/cart";

/// Arguments of `kpx inspect backends`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct BackendsArgs {
    /// What to read [default: api with --services-from, else iptables]
    #[arg(long, value_enum, value_name = "SOURCE")]
    via: Option<Via>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    page: Page,
    #[command(flatten)]
    watch: Watch,
}

pub(super) fn run(context: &mut Context, args: &BackendsArgs) -> Result<Exit, Failure> {
    args.watch.run(context, |context| look(context, args))
}

fn look(context: &mut Context, args: &BackendsArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let lifted = context.lift_named(&node, context.via(args.via))?;
    let table = args.selection.of(lifted.table);
    args.selection.found(table.frontends().len(), &lifted.place)?;
    let lifted = Lifted { table, ..lifted };
    notices::show(context, &lifted);
    context.ui.report(&BackendList::of(&lifted, args))
}

/// Backends with the frontends that may send to them.
struct BackendList<'a> {
    lifted: &'a Lifted,
    /// Those of the page.
    backends: BTreeMap<(SocketAddr, Protocol), Used>,
    total: usize,
    /// What goes around the number of all.
    words: (String, String),
}

/// What is known of one backend.
struct Used {
    backend: Backend,
    /// Names of Service ports, or addresses where the name is not known.
    services: Vec<String>,
}

impl<'a> BackendList<'a> {
    fn of(lifted: &'a Lifted, args: &BackendsArgs) -> Self {
        let all = by_address(&lifted.table, &args.selection);
        Self { lifted, total: all.len(), words: args.page.words(all.len()), backends: args.page.of(all).collect() }
    }
}

/// The backends that are selected themselves, or by a frontend.
fn by_address(table: &ServiceTable, selection: &Selection) -> BTreeMap<(SocketAddr, Protocol), Used> {
    let mut backends: BTreeMap<_, Used> = BTreeMap::new();
    for frontend in table.frontends() {
        let name = frontend.display_name();
        let whole = selection.keeps_one_of([(frontend.key.ip, Some(frontend.key.port))].into_iter());
        let selected = |b: &&Backend| whole || selection.keeps_one_of([(b.ip, Some(b.port))].into_iter());
        for backend in frontend.cluster.iter().chain(&frontend.local).filter(selected) {
            let used = backends
                .entry((backend.addr(), frontend.key.protocol))
                .or_insert_with(|| Used { backend: *backend, services: Vec::new() });
            used.backend.local = used.backend.local.or(backend.local);
            used.backend.state = used.backend.state.or(backend.state);
            if !used.services.contains(&name) {
                used.services.push(name.clone());
            }
        }
    }
    backends
}

fn known(local: Option<bool>) -> String {
    local.map_or_else(|| "unknown".to_owned(), |local| if local { "yes" } else { "no" }.to_owned())
}

fn state(backend: &Backend) -> Value {
    backend.state.map_or(Value::Null, |state| crate::ui::to_value(&state))
}

impl Report for BackendList<'_> {
    fn kind(&self) -> &'static str {
        "BackendList"
    }

    fn items(&self) -> Vec<Value> {
        self.backends
            .iter()
            .map(|((address, protocol), used)| {
                json!({
                    "ip": address.ip(),
                    "port": address.port(),
                    "protocol": protocol,
                    "local": used.backend.local,
                    "state": state(&used.backend),
                    "services": used.services,
                })
            })
            .collect()
    }

    fn extra(&self) -> Map<String, Value> {
        let mut extra = Map::new();
        extra.insert("total".to_owned(), json!(self.total));
        extra.insert("source".to_owned(), json!(self.lifted.via.to_string()));
        extra.insert("read_from".to_owned(), json!(self.lifted.place));
        extra.insert("notices".to_owned(), json!(self.lifted.notices));
        extra
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        let mut table = Table::new(&["BACKEND", "LOCAL", "STATE", "SERVICES"]).whole(&["BACKEND"]);
        for ((address, protocol), used) in &self.backends {
            let services = match used.services.as_slice() {
                [first, rest @ ..] if !wide && !rest.is_empty() => format!("{first},+{}", rest.len()),
                all => all.join(","),
            };
            let state = state(&used.backend).as_str().unwrap_or("unknown").to_owned();
            table.row([format!("{address}/{protocol}"), known(used.backend.local), state, services].map(Cell::from));
        }
        let of = count(self.lifted.table.frontends().len(), "frontend");
        vec![table.footer(format!(
            "{}{} of {of}, read from {}{}",
            self.words.0,
            count(self.total, "backend"),
            self.lifted.place,
            self.words.1
        ))]
    }

    fn names(&self) -> Vec<String> {
        self.backends.keys().map(|(address, protocol)| format!("{address}/{protocol}")).collect()
    }
}
