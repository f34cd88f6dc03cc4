//! The kernel's entries, counted by Service and the like.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::capture::{CaptureError, Captured, Item, Node};
use crate::cmd::Context;
use crate::cmd::inspect::kept::{Filter, protocol};
use crate::cmd::selection::{Page, Selection};
use crate::inspect::conntrack::{self, BackendCount, Census, Limits, ServiceCount, Setting, Stats};
use crate::model::Frontend;
use crate::source::{Lifted, Via};
use crate::ui::{Cell, Exit, Failure, Report, Table, Tone, to_value};

/// What concerns the kernel's table only.
#[derive(Args, Debug)]
pub(super) struct Counting {
    /// Count the kernel's entries by this [default: service]
    #[arg(long, value_enum, value_name = "WHAT")]
    by: Option<By>,
    /// Where Services and their backends are read [default: api with --services-from, else the rules]
    #[arg(long, value_enum, value_name = "SOURCE")]
    names: Option<Via>,
}

impl Counting {
    /// Whether the operator asks for the kernel's table by what only it can do.
    pub(super) const fn is_given(&self) -> bool {
        self.by.is_some() || self.names.is_some()
    }
}

/// What entries are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// Frontend of a Service
    Service,
    /// Backend of a Service
    Backend,
    /// Protocol and state
    State,
    /// What is translated, and by whom
    Nat,
}

pub(super) fn run(context: &mut Context, args: &Counting, filter: &Filter) -> Result<Exit, Failure> {
    filter.watch.run(context, |context| look(context, args, filter))
}

fn look(context: &mut Context, args: &Counting, filter: &Filter) -> Result<(), Failure> {
    let node = context.node()?;
    let lifted = services(context, &node, args.names)?;
    let mut census = Census::new(&lifted.table);
    let progress = context.ui.progress(None, "reading connection tracking".to_owned());
    conntrack::read_node(&node, |entry| census.add(entry))?;
    drop(progress);
    let limits = optional(&node, Item::Sysctl)?.map(|bytes| Limits::parse(&bytes)).unwrap_or_default();
    let stats = optional(&node, Item::ConntrackStats)?.and_then(|bytes| Stats::parse(&bytes));
    let (selection, page) = (&filter.selection, filter.page);
    context.ui.report(&Counts {
        by: args.by.unwrap_or(By::Service),
        selection,
        page,
        census,
        lifted: &lifted,
        limits,
        stats,
    })
}

/// The Services: from where the operator says, else from the API's objects where they are given, else from whichever rules
/// there are.
fn services(context: &Context, node: &Node, given: Option<Via>) -> Result<Lifted, Failure> {
    let lifted = context.lift_named(node, context.via(given))?;
    if given.is_none() && lifted.via == Via::Iptables && lifted.table.frontends().is_empty() {
        return context.lift_named(node, Via::Nftables);
    }
    Ok(lifted)
}

fn optional(node: &Node, item: Item) -> Result<Option<Vec<u8>>, CaptureError> {
    Ok(match node.read(item)? {
        Captured::Present { bytes, .. } => Some(bytes),
        Captured::Absent { .. } => None,
    })
}

/// Entries counted, the state of the table, and the flows that are stuck.
struct Counts<'a> {
    by: By,
    selection: &'a Selection,
    /// Most rows of the main table.
    page: Page,
    census: Census<'a>,
    lifted: &'a Lifted,
    limits: Limits,
    stats: Option<Stats>,
}

impl Counts<'_> {
    fn services(&self) -> Vec<ServiceCount<'_>> {
        self.page.of(self.census.services().into_iter().filter(|c| self.selection.keeps(c.frontend))).collect()
    }

    fn backends(&self) -> Vec<BackendCount<'_>> {
        self.page.of(self.census.backends().into_iter().filter(|c| self.selection.keeps(c.frontend))).collect()
    }

    /// Entries in percent of what the table may hold.
    fn used(&self) -> Option<u64> {
        self.limits.max().filter(|max| *max > 0).map(|max| self.census.total().saturating_mul(100) / max)
    }

    fn footer(&self) -> String {
        let of = match (self.limits.max(), self.used()) {
            (Some(max), Some(percent)) => format!(" ({percent} % of {max})"),
            _ => String::new(),
        };
        let carried = self.census.carried();
        let stuck = match self.census.stuck_flows().1 {
            0 => String::new(),
            n => format!("; {n} of UDP stuck to backends that are gone"),
        };
        format!(
            "{} entries{of}, {} of Services as {} has them; open: {} of TCP, {} of UDP, {} of SCTP{stuck}",
            self.census.total(),
            self.census.of_services(),
            self.lifted.via,
            carried.tcp,
            carried.udp,
            carried.sctp,
        )
    }

    fn main_table(&self, wide: bool) -> Table {
        match self.by {
            By::Service => {
                let mut table = Table::new(&["SERVICE", "KIND", "ADDRESS", "FLOWS", "OPEN", "STRAY"])
                    .right(&["FLOWS", "OPEN", "STRAY"])
                    .whole(&["KIND", "ADDRESS"]);
                for count in self.services() {
                    table.row([
                        name(count.frontend),
                        Cell::from(count.frontend.key.exposure.to_string()),
                        Cell::from(count.frontend.key.to_string()),
                        Cell::from(count.flows.to_string()),
                        Cell::from(count.open.to_string()),
                        stray(count.to_strangers),
                    ]);
                }
                table
            }
            By::Backend => {
                let mut table = Table::new(&["BACKEND", "SERVICE", "LISTED", "FLOWS", "OPEN"])
                    .right(&["FLOWS", "OPEN"])
                    .whole(&["BACKEND"]);
                for count in self.backends() {
                    let listed = if count.listed { Cell::from("yes") } else { Cell::toned("no", Tone::Warning) };
                    let service = if wide {
                        format!("{} {}", count.frontend.display_name(), count.frontend.key)
                    } else {
                        count.frontend.display_name()
                    };
                    table.row([
                        Cell::from(count.backend.to_string()),
                        Cell::from(service),
                        listed,
                        Cell::from(count.flows.to_string()),
                        Cell::from(count.open.to_string()),
                    ]);
                }
                table
            }
            By::State => {
                let mut table = Table::new(&["PROTOCOL", "STATE", "FLOWS"]).right(&["FLOWS"]);
                for count in self.census.states() {
                    table.row([protocol(count.protocol), count.state.to_owned(), count.flows.to_string()]);
                }
                table
            }
            By::Nat => {
                let mut table = Table::new(&["TRANSLATION", "BY", "FLOWS"]).right(&["FLOWS"]);
                for ((nat, by), flows) in self.census.translations() {
                    let by = by.map_or_else(String::new, |by| by.to_string());
                    table.row([nat.to_string(), by, flows.to_string()]);
                }
                table
            }
        }
        .footer(self.footer())
    }

    /// What the table lost since boot.
    fn losses(&self) -> Option<Table> {
        let total = self.stats.as_ref()?.total();
        let lost = |n: u64| if n == 0 { Cell::from("0") } else { Cell::toned(n.to_string(), Tone::Warning) };
        let mut table =
            Table::new(&["DROP", "EARLY-DROP", "INSERT-FAILED", "CHAIN-TOO-LONG", "INVALID", "CLASH-RESOLVED"])
                .right(&["DROP", "EARLY-DROP", "INSERT-FAILED", "CHAIN-TOO-LONG", "INVALID", "CLASH-RESOLVED"])
                .title("Packets and entries lost since boot");
        table.row([
            lost(total.drop),
            lost(total.early_drop),
            lost(total.insert_failed),
            lost(total.chaintoolong),
            Cell::from(total.invalid.to_string()),
            Cell::from(total.clash_resolve.to_string()),
        ]);
        Some(match (self.limits.buckets(), self.census.total()) {
            (Some(buckets), entries) if buckets > 0 => table.footer(format!(
                "{buckets} buckets, on average {}.{:02} entries in each",
                entries / buckets,
                entries * 100 / buckets % 100
            )),
            _ => table,
        })
    }

    fn stuck(&self) -> Option<Table> {
        const SHOWN: usize = 20;
        let (flows, all) = self.census.stuck_flows();
        let mut table = Table::new(&["CLIENT", "SERVICE", "BACKEND", "EXPIRES"])
            .right(&["EXPIRES"])
            .whole(&["CLIENT", "BACKEND"])
            .title("UDP flows stuck to backends that no list has");
        let shown = flows.iter().filter(|flow| self.selection.keeps(flow.frontend)).take(SHOWN);
        for flow in shown {
            let expires = flow.timeout.map_or_else(String::new, |seconds| format!("{seconds}s"));
            table.row([flow.client.to_string(), flow.frontend.display_name(), flow.backend.to_string(), expires]);
        }
        let more = all.saturating_sub(table.rows.len() as u64);
        if more > 0 {
            table = table.footer(format!("{more} more"));
        }
        (all > 0).then_some(table)
    }

    fn changed(&self) -> Option<Table> {
        let changed = self.limits.changed();
        let mut table = Table::new(&["SYSCTL", "NOW", "AFTER-REBOOT"])
            .right(&["NOW", "AFTER-REBOOT"])
            .title("Settings that kube-proxy makes, unlike the kernel's own: none is kept by a reboot without it");
        for Setting { name, now, default } in &changed {
            let default = default.map_or_else(|| "by memory".to_owned(), |value| value.to_string());
            table.row([name.clone(), now.to_string(), default]);
        }
        (!changed.is_empty()).then_some(table)
    }
}

/// Flows to backends that no list has.
fn stray(flows: u64) -> Cell {
    if flows == 0 { Cell::from("0") } else { Cell::toned(flows.to_string(), Tone::Warning) }
}

fn name(frontend: &Frontend) -> Cell {
    match &frontend.service {
        Some(_) => Cell::from(frontend.display_name()),
        None => Cell::default(),
    }
}

fn frontend(frontend: &Frontend) -> Map<String, Value> {
    let Value::Object(map) = json!({
        "service": frontend.service.as_ref().map(ToString::to_string),
        "port_name": frontend.port_name,
        "kind": frontend.key.exposure,
        "ip": frontend.key.ip,
        "port": frontend.key.port,
        "protocol": frontend.key.protocol,
    }) else {
        return Map::new();
    };
    map
}

fn with(mut map: Map<String, Value>, more: Value) -> Value {
    if let Value::Object(more) = more {
        map.extend(more);
    }
    Value::Object(map)
}

impl Report for Counts<'_> {
    fn kind(&self) -> &'static str {
        "ConntrackCounts"
    }

    fn items(&self) -> Vec<Value> {
        match self.by {
            By::Service => self
                .services()
                .iter()
                .map(|c| {
                    let counts = json!({ "flows": c.flows, "open": c.open, "stray": c.to_strangers });
                    with(frontend(c.frontend), counts)
                })
                .collect(),
            By::Backend => self
                .backends()
                .iter()
                .map(|c| {
                    let backend = json!({
                        "backend_ip": c.backend.ip(), "backend_port": c.backend.port(), "listed": c.listed,
                        "flows": c.flows, "open": c.open,
                    });
                    with(frontend(c.frontend), backend)
                })
                .collect(),
            By::State => self
                .census
                .states()
                .iter()
                .map(|c| json!({ "protocol": protocol(c.protocol), "state": c.state, "flows": c.flows }))
                .collect(),
            By::Nat => self
                .census
                .translations()
                .iter()
                .map(|((nat, by), flows)| {
                    json!({ "translation": nat.to_string(), "by": by.map(|by| by.to_string()), "flows": flows })
                })
                .collect(),
        }
    }

    fn extra(&self) -> Map<String, Value> {
        let (stuck, stuck_count) = self.census.stuck_flows();
        let stuck: Vec<Value> = stuck
            .iter()
            .filter(|flow| self.selection.keeps(flow.frontend))
            .map(|flow| {
                let more = json!({ "client": flow.client, "backend": flow.backend, "expires_seconds": flow.timeout });
                with(frontend(flow.frontend), more)
            })
            .collect();
        let mut extra = Map::new();
        extra.insert("services_from".to_owned(), json!(self.lifted.place));
        extra.insert("entries".to_owned(), json!(self.census.total()));
        extra.insert("entries_of_services".to_owned(), json!(self.census.of_services()));
        extra.insert("open".to_owned(), to_value(&self.census.carried()));
        extra.insert("max".to_owned(), json!(self.limits.max()));
        extra.insert("buckets".to_owned(), json!(self.limits.buckets()));
        extra.insert("statistics".to_owned(), self.stats.as_ref().map_or(Value::Null, |s| to_value(&s.total())));
        extra.insert("settings_changed".to_owned(), to_value(&self.limits.changed()));
        extra.insert("stuck_udp_flows".to_owned(), json!(stuck_count));
        extra.insert("stuck_udp".to_owned(), json!(stuck));
        extra
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        [Some(self.main_table(wide)), self.stuck(), self.losses(), self.changed()].into_iter().flatten().collect()
    }

    fn names(&self) -> Vec<String> {
        match self.by {
            By::Service => self.services().iter().map(|c| c.frontend.display_name()).collect(),
            By::Backend => self.backends().iter().map(|c| c.backend.to_string()).collect(),
            By::State => self.census.states().iter().map(|c| format!("{}/{}", protocol(c.protocol), c.state)).collect(),
            By::Nat => self.census.translations().keys().map(|(nat, _)| nat.to_string()).collect(),
        }
    }
}
