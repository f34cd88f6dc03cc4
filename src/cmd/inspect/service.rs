//! `kpx inspect service`: everything that is known of one Service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use clap::Args as ClapArgs;
use serde::Serialize;
use serde_json::{Value, json};

use super::listing::{UNKNOWN, known};
use crate::cmd::Context;
use crate::cmd::selection::service_name;
use crate::cmd::watch::Watch;
use crate::dataplane::{Dataplane, Stats};
use crate::inspect::conntrack::{self, ConntrackError};
use crate::inspect::entry::{Flow, MapEntry};
use crate::inspect::{cilium, sockets};
use crate::kept::Keeper;
use crate::model::{
    Backend, BackendState, Family, Frontend, FrontendKey, FrontendView, Protocol, ServiceName, ServiceTable,
};
use crate::source::{Lifted, Via, join_names};
use crate::ui::{Cell, Exit, Failure, Report, Table, Tone, count, to_value};

const EXAMPLES: &str = "\
Examples:
  What the API, the rules and the maps say of a Service, and who talks to it
    $ kpx inspect service shop/cart

  The same again and again while it changes
    $ kpx inspect service kube-system/kube-dns --watch";

/// Arguments of `kpx inspect service`.
#[derive(ClapArgs, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The Service
    #[arg(value_name = "NS/NAME", value_parser = service_name)]
    service: ServiceName,
    /// Show so many open connections at most in the table
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    #[command(flatten)]
    watch: Watch,
}

const SOURCES: [Via; 5] = [Via::Api, Via::Iptables, Via::Nftables, Via::Ebpf, Via::Cilium];

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    args.watch.run(context, |context| {
        let report = ServiceReport::read(context, args)?;
        context.ui.report(&report)
    })
}

/// A connection to a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Connection {
    /// Where it was seen: `socket`, `conntrack` (the kernel's), `ebpf`, `cilium`.
    seen: &'static str,
    protocol: Protocol,
    state: Option<String>,
    client: SocketAddr,
    destination: SocketAddr,
    /// Who serves it; null where that is not known.
    backend: Option<SocketAddr>,
}

/// Everything about one Service.
struct ServiceReport {
    service: ServiceName,
    /// What each source says, with this Service's frontends only.
    sources: Vec<Lifted>,
    /// Sources that say nothing, and why.
    missing: Vec<(String, String)>,
    map_entries: Vec<MapEntry>,
    counters: Option<Stats>,
    connections: Vec<Connection>,
    /// Whether anything was there that shows connections.
    looked: bool,
    limit: usize,
}

impl ServiceReport {
    fn read(context: &Context, args: &Args) -> Result<Self, Failure> {
        let node = context.node()?;
        let (mut sources, mut missing): (Vec<Lifted>, _) = (Vec::new(), Vec::new());
        for via in SOURCES {
            match context.lift(&node, via) {
                Ok(lifted) if lifted.table.frontends().is_empty() => {
                    missing.push((via.to_string(), format!("no Services in {}", lifted.place)));
                }
                Ok(mut lifted) => {
                    // Maps hold no names: those of the sources before are joined by address.
                    for known in sources.iter().filter(|_| via.is_nameless()) {
                        lifted.table = join_names(&lifted.table, &known.table);
                    }
                    sources.push(lifted);
                }
                Err(failure) => missing.push((via.to_string(), failure.message)),
            }
        }
        let own = |frontend: &Frontend| frontend.service.as_ref() == Some(&args.service);
        for lifted in &mut sources {
            lifted.table = lifted.table.filter(own);
        }
        let mut report = Self {
            service: args.service.clone(),
            sources,
            missing,
            map_entries: Vec::new(),
            counters: None,
            connections: Vec::new(),
            looked: true,
            limit: args.limit,
        };
        if report.sources.iter().all(|lifted| lifted.table.frontends().is_empty()) {
            return Err(report.not_found());
        }
        report.read_maps(context)?;
        report.read_connections(context, &node)?;
        Ok(report)
    }

    fn not_found(&self) -> Failure {
        let places: Vec<&str> = self.sources.iter().map(|lifted| lifted.place.as_str()).collect();
        let mut failure = Failure::new(if places.is_empty() {
            format!("nothing on this node tells of Service {}", self.service)
        } else {
            format!("no Service {} in {}", self.service, places.join(", "))
        });
        failure.causes.extend(self.missing.iter().map(|(via, why)| format!("{via}: {why}")));
        failure.hint(format!("list what is there: kpx inspect services -n {}", self.service.namespace))
    }

    fn table(&self, via: Via) -> Option<&ServiceTable> {
        self.sources.iter().find(|lifted| lifted.via == via).map(|lifted| &lifted.table)
    }

    /// The frontends of this Service in any source, sorted.
    fn keys(&self) -> BTreeSet<FrontendKey> {
        self.sources.iter().flat_map(|lifted| lifted.table.frontends()).map(|frontend| frontend.key).collect()
    }

    /// Its backends in any source, with what is known of each.
    fn backends(&self) -> BTreeMap<(SocketAddr, Protocol), Backend> {
        let mut found: BTreeMap<_, Backend> = BTreeMap::new();
        for frontend in self.sources.iter().flat_map(|lifted| lifted.table.frontends()) {
            for backend in frontend.cluster.iter().chain(&frontend.local) {
                let known = found.entry((backend.addr(), frontend.key.protocol)).or_insert(*backend);
                known.local = known.local.or(backend.local);
                known.state = known.state.or(backend.state);
            }
        }
        found
    }

    fn read_maps(&mut self, context: &Context) -> Result<(), Failure> {
        let places = context.globals.places();
        if let Some(table) = self.table(Via::Ebpf).filter(|table| !table.frontends().is_empty()) {
            let keys: Vec<FrontendKey> = table.frontends().iter().map(|frontend| frontend.key).collect();
            let dataplane = Dataplane::expect(&places.kpx)?;
            self.map_entries = dataplane.entries_of(&keys)?;
            self.counters = Some(sum(&dataplane, &keys)?);
            let frontends = dataplane.frontends()?;
            let ids = frontends.iter().filter(|(_, own)| own.iter().any(|key| keys.contains(key))).map(|(id, _)| *id);
            self.add_flows("ebpf", "forward", dataplane.conntrack()?, &ids.collect());
        }
        if let Some(table) = self.table(Via::Cilium).filter(|table| !table.frontends().is_empty()) {
            let keys: BTreeSet<FrontendKey> = table.frontends().iter().map(|frontend| frontend.key).collect();
            let state = cilium::Pins::new(&places.cilium).state().map_err(crate::source::SourceError::from)?;
            let (_, _, frontends) = cilium::lift(&state);
            let ids = frontends.iter().filter(|(_, own)| own.iter().any(|key| keys.contains(key)));
            let ids: BTreeSet<u32> = ids.map(|(id, _)| *id).collect();
            self.map_entries.extend(cilium::entries_of(&state, &ids));
            if let Ok(kept) = Keeper::Cilium.conntrack(&places) {
                self.add_flows("cilium", "service", kept.entries, &ids);
            }
        }
        Ok(())
    }

    /// Adds the flows of these services, each by its entry of one kind: that of a client's packets to the frontend.
    fn add_flows(&mut self, seen: &'static str, kind: &str, flows: Vec<Flow>, ids: &BTreeSet<u32>) {
        let own = |flow: &Flow| flow.kind == kind && flow.service.is_some_and(|id| ids.contains(&id));
        self.connections.extend(flows.into_iter().filter(own).filter_map(|flow| {
            Some(Connection {
                seen,
                protocol: Protocol::from_number(flow.protocol)?,
                state: None,
                client: flow.source,
                destination: flow.destination,
                backend: flow.backend,
            })
        }));
    }

    fn read_connections(&mut self, context: &Context, node: &crate::capture::Node) -> Result<(), Failure> {
        let (keys, backends) = (self.keys(), self.backends());
        let to_frontend = |address: SocketAddr, protocol: Protocol| {
            // A NodePort answers on addresses of the node, with a port that no other Service has.
            let ip = |key: &FrontendKey| key.ip == address.ip() || key.ip == Family::of(address.ip()).unspecified();
            keys.iter().any(|key| (key.port, key.protocol) == (address.port(), protocol) && ip(key))
        };
        let connections = &mut self.connections;
        let read = conntrack::read_node(node, |entry| {
            let Some(protocol) = entry.service_protocol() else { return };
            let (asked, answers) = (entry.original.destination, entry.reply.source);
            if to_frontend(asked, protocol) {
                connections.push(Connection {
                    seen: "conntrack",
                    protocol,
                    state: entry.state.map(str::to_owned),
                    client: entry.original.source,
                    destination: asked,
                    backend: entry.is_to_backend().then_some(answers),
                });
            }
        });
        match read {
            Err(error @ ConntrackError::NotCaptured { .. }) => {
                self.missing.push(("conntrack".to_owned(), error.to_string()));
                self.looked = context.globals.from.is_none();
            }
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        if context.globals.from.is_none() {
            let all = sockets::tcp().map_err(|error| Failure::new(format!("cannot list sockets: {error}")))?;
            self.connections.extend(all.into_iter().filter_map(|socket| {
                let backend = backends.contains_key(&(socket.remote, Protocol::Tcp)).then_some(socket.remote);
                (backend.is_some() || to_frontend(socket.remote, Protocol::Tcp)).then(|| Connection {
                    seen: "socket",
                    protocol: Protocol::Tcp,
                    state: Some(socket.state.to_owned()),
                    client: socket.local,
                    destination: socket.remote,
                    backend,
                })
            }));
        }
        self.connections.sort();
        Ok(())
    }

    fn frontend_table(&self) -> Table {
        let headings: Vec<&'static str> =
            ["KIND", "ADDRESS"].into_iter().chain(self.sources.iter().map(|lifted| lifted.via.heading())).collect();
        let mut table = Table::new(&headings).right(&headings[2..]).whole(&["KIND", "ADDRESS"]).title("Frontends");
        for key in self.keys() {
            let mut row = vec![Cell::from(key.exposure.to_string()), Cell::from(key.to_string())];
            row.extend(self.sources.iter().map(|lifted| match lifted.table.get(&key).first() {
                None => Cell::toned(UNKNOWN, Tone::Quiet),
                Some(frontend) => match (frontend.own_list().len(), frontend.no_backends) {
                    (0, Some(verdict)) => Cell::toned(format!("0:{verdict}"), Tone::Warning),
                    (n, _) => Cell::from(n.to_string()),
                },
            }));
            table.row(row);
        }
        table.footer(format!(
            "{} of Service {}, backends by source",
            count(self.keys().len(), "frontend"),
            self.service
        ))
    }

    fn backend_table(&self) -> Table {
        let headings: Vec<&'static str> = ["BACKEND", "LOCAL", "STATE"]
            .into_iter()
            .chain(self.sources.iter().map(|lifted| lifted.via.heading()))
            .chain(["OPEN"])
            .collect();
        let mut table = Table::new(&headings).right(&["OPEN"]).whole(&["BACKEND"]).title("Backends");
        for ((addr, protocol), backend) in self.backends() {
            let local = backend.local.map(|local| if local { "yes" } else { "no" });
            let state = backend.state.map(|state| match state {
                BackendState::Ready => "ready",
                BackendState::Terminating => "terminating",
            });
            let mut row =
                vec![Cell::from(format!("{addr}/{protocol}")), Cell::from(known(local)), Cell::from(known(state))];
            row.extend(self.sources.iter().map(|lifted| {
                let uses = |f: &Frontend| {
                    f.key.protocol == protocol && f.cluster.iter().chain(&f.local).any(|b| b.addr() == addr)
                };
                let used = lifted.table.frontends().iter().any(uses);
                if used { Cell::from("yes") } else { Cell::toned(UNKNOWN, Tone::Quiet) }
            }));
            let open = self.connections.iter().filter(|c| c.backend == Some(addr) && c.protocol == protocol);
            row.push(if self.looked {
                Cell::from(open.count().to_string())
            } else {
                Cell::toned(UNKNOWN, Tone::Quiet)
            });
            table.row(row);
        }
        table
    }

    /// A socket that kpx translated shows its backend only, and with it flows of other Services with that backend.
    fn connection_table(&self, wide: bool) -> Table {
        let headings = ["STATE", "CLIENT", "DESTINATION", "BACKEND", "SEEN"];
        let columns = if wide { 5 } else { 4 };
        let mut table = Table::new(&headings[..columns]).whole(&headings[..4]).title("Open connections");
        for connection in self.connections.iter().take(self.limit) {
            let row = [
                known(connection.state.as_ref()),
                connection.client.to_string(),
                format!("{}/{}", connection.destination, connection.protocol),
                known(connection.backend),
                connection.seen.to_owned(),
            ];
            table.row(row.into_iter().take(columns));
        }
        let total = self.connections.len();
        let shown = total.min(self.limit);
        let first = if shown < total { format!("the first {shown} of ") } else { String::new() };
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for connection in &self.connections {
            *seen.entry(connection.seen).or_default() += 1;
        }
        let seen: Vec<String> = seen.into_iter().map(|(seen, n)| format!("{n} by {seen}")).collect();
        let seen = if seen.is_empty() { String::new() } else { format!(" ({})", seen.join(", ")) };
        table.footer(format!("{first}{}{seen} in this network namespace", count(total, "connection")))
    }
}

/// The counters of the services that these frontends have; frontends of one service share them.
fn sum(dataplane: &Dataplane, keys: &[FrontendKey]) -> Result<Stats, Failure> {
    let counters = dataplane.counters()?;
    let mut sum = Stats::default();
    for own in dataplane.frontends()?.values() {
        let Some(key) = own.iter().find(|key| keys.contains(key)) else { continue };
        let Some(found) = counters.services.iter().find(|service| service.key == *key) else { continue };
        sum.connects += found.stats.connects;
        sum.datagrams += found.stats.datagrams;
        sum.refused += found.stats.refused;
        sum.shadow += found.stats.shadow;
        sum.passed += found.stats.passed;
    }
    Ok(sum)
}

/// Counters by their names.
fn named(stats: &Stats) -> [(&'static str, u64); 5] {
    [
        ("connects", stats.connects),
        ("datagrams", stats.datagrams),
        ("refused", stats.refused),
        ("shadow", stats.shadow),
        ("passed", stats.passed),
    ]
}

impl Report for ServiceReport {
    fn kind(&self) -> &'static str {
        "ServiceReport"
    }

    fn items(&self) -> Vec<Value> {
        let source = |lifted: &Lifted| {
            let frontends: Vec<Value> =
                lifted.table.frontends().iter().map(|f| to_value(&FrontendView::from(f))).collect();
            json!({ "source": lifted.via.to_string(), "read_from": lifted.place, "frontends": frontends })
        };
        let missing = |(source, why): &(String, String)| json!({ "source": source, "reason": why });
        vec![json!({
            "service": self.service.to_string(),
            "sources": self.sources.iter().map(source).collect::<Vec<_>>(),
            "missing": self.missing.iter().map(missing).collect::<Vec<_>>(),
            "map_entries": self.map_entries,
            "counters": self.counters.as_ref().map(|stats| named(stats).into_iter().collect::<BTreeMap<_, _>>()),
            "connections": self.looked.then_some(&self.connections),
        })]
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        let mut tables = vec![self.frontend_table(), self.backend_table()];
        if let Some(stats) = &self.counters {
            let mut table = Table::new(&["CONNECTS", "DATAGRAMS", "REFUSED", "SHADOW", "PASSED"]);
            for column in &mut table.columns {
                column.align = crate::ui::Align::Right;
            }
            table.row(named(stats).map(|(_, n)| n.to_string()));
            tables.push(table.title("Counters of kpx"));
        }
        if !self.map_entries.is_empty() {
            let mut table = Table::new(&["MAP", "KEY", "VALUE"]).whole(&["MAP", "KEY"]).title("Map entries");
            for entry in &self.map_entries {
                table.row([entry.map, &entry.key, &entry.value]);
            }
            tables.push(table);
        }
        if self.looked {
            tables.push(self.connection_table(wide));
        }
        if !self.missing.is_empty() {
            let mut table = Table::new(&["SOURCE", "REASON"]).title("Not read");
            for (source, why) in &self.missing {
                table.row([source, why]);
            }
            tables.push(table);
        }
        tables
    }

    fn names(&self) -> Vec<String> {
        vec![self.service.to_string()]
    }
}
