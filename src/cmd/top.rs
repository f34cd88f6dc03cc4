//! `kpx top`.

use std::cmp::Ordering;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::names::Names;
use super::selection::{Page, Selection};
use super::{Context, migrate::duration};
use crate::model::{Exposure, Frontend};
use crate::rates::{Look, Rates, Usage};
use crate::ui::{Cell, Exit, Failure, Report, Table, count};

const EXAMPLES: &str = "\
Examples:
  Which Services are busy, redrawn every two seconds?
    $ sudo kpx top

  One look over ten seconds for a script: the Services with the most refusals first
    $ sudo kpx top --once --interval 10s --sort refused -o json

  Which backends of one Service have how many flows?
    $ sudo kpx top --by backend --service shop/cart

Connections and datagrams are what kpx's programs count by Service port, at sockets and at devices. Flows are those that the packet
path keeps: connections that a hook of a socket translated go straight to their backend, and nobody keeps them.";

/// Arguments of `kpx top`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// What a line is
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    by: By,
    /// What comes first
    #[arg(long, value_enum, default_value_t, value_name = "COLUMN")]
    sort: Sort,
    /// Leave out what was not used
    #[arg(long)]
    active: bool,
    /// Look once and end; so does -o json without --rounds
    #[arg(long, conflicts_with = "rounds")]
    once: bool,
    /// Look so often and end; with -o json each look is a line
    #[arg(long, value_name = "N")]
    rounds: Option<u64>,
    /// Time between two looks, which rates are taken over
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    interval: Duration,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    page: Page,
}

/// What a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum By {
    /// A Service port
    #[default]
    Service,
    /// A backend of a Service port
    Backend,
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Connections and datagrams per second, then flows
    #[default]
    Rate,
    /// Flows
    Flows,
    /// Refusals per second
    Refused,
    /// Connections and datagrams since the Service was first served
    Total,
    /// Names
    Name,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    if context.globals.from.is_some() {
        return Err(
            Failure::new("a snapshot holds no counters of kpx").hint("run it on the node itself, without --from")
        );
    }
    let paths = context.globals.places().kpx;
    let once = args.once || args.rounds.is_none() && context.globals.output.is_data();
    let rounds = if once { Some(1) } else { args.rounds };
    if !once {
        context.ui.watch();
    }
    let mut names = Names::read(context);
    let mut before = Look::take(&paths)?;
    let mut round = 0;
    while rounds.is_none_or(|rounds| round < rounds) && !context.ui.is_closed() {
        std::thread::sleep(args.interval.max(Duration::from_millis(10)));
        let after = Look::take(&paths)?;
        let rates = Rates::between(&before, &after);
        if rates.services.iter().any(|usage| names.of(&usage.frontends).is_none()) {
            names.refresh(context);
        }
        context.ui.report(&TopReport::new(args, rates, &names))?;
        (before, round) = (after, round + 1);
    }
    Ok(Exit::Fine)
}

/// One line.
struct Line {
    usage: Usage,
    /// The Service port's name, or its first address.
    name: String,
    /// Its first address: the ClusterIP, where it has one.
    address: String,
    namespaced: Option<(String, Option<String>)>,
}

struct TopReport {
    by: By,
    over: Duration,
    lines: Vec<Line>,
    total: usize,
    shown: (String, String),
}

impl TopReport {
    fn new(args: &Args, rates: Rates, names: &Names) -> Self {
        let all = match args.by {
            By::Service => rates.services,
            By::Backend => rates.backends,
        };
        let mut lines: Vec<Line> = all
            .into_iter()
            .filter(|usage| keeps(&args.selection, usage, names.of(&usage.frontends)))
            .filter(|usage| !args.active || is_active(usage))
            .map(|usage| line(usage, names))
            .collect();
        lines.sort_by(|a, b| order(args.sort, a, b));
        let (total, shown) = (lines.len(), args.page.words(lines.len()));
        Self { by: args.by, over: rates.over, lines: args.page.of(lines).collect(), total, shown }
    }
}

fn keeps(selection: &Selection, usage: &Usage, known: Option<&Frontend>) -> bool {
    let frontends = usage.frontends.iter().map(|key| (key.ip, Some(key.port)));
    let backends = usage.backend.iter().map(|at| (at.ip(), Some(at.port())));
    selection.keeps_name(known.and_then(|frontend| frontend.service.as_ref()))
        && selection.keeps_one_of(frontends.chain(backends))
}

fn is_active(usage: &Usage) -> bool {
    usage.flows > 0 || [usage.connects, usage.datagrams, usage.refused, usage.left].iter().any(|rate| *rate > 0.0)
}

fn line(usage: Usage, names: &Names) -> Line {
    let first = usage.frontends.iter().find(|key| key.exposure == Exposure::ClusterIp).or(usage.frontends.first());
    let address = first.map_or_else(|| format!("service {}", usage.service), ToString::to_string);
    let known = names.of(&usage.frontends);
    let name = known.map_or_else(|| address.clone(), Frontend::display_name);
    let namespaced = known.and_then(|f| Some((f.service.as_ref()?.to_string(), f.port_name.clone())));
    Line { usage, name, address, namespaced }
}

/// The busiest first; what is equal, by name.
fn order(sort: Sort, a: &Line, b: &Line) -> Ordering {
    let total = |line: &Line| line.usage.total.connects + line.usage.total.datagrams;
    let rate = |line: &Line| line.usage.connects + line.usage.datagrams + line.usage.new_flows;
    let first = match sort {
        Sort::Rate => rate(b).total_cmp(&rate(a)).then(b.usage.flows.cmp(&a.usage.flows)),
        Sort::Flows => b.usage.flows.cmp(&a.usage.flows),
        Sort::Refused => b.usage.refused.total_cmp(&a.usage.refused),
        Sort::Total => total(b).cmp(&total(a)),
        Sort::Name => Ordering::Equal,
    };
    first.then_with(|| (&a.name, &a.address, a.usage.backend).cmp(&(&b.name, &b.address, b.usage.backend)))
}

fn rate(rate: f64) -> Cell {
    if rate == 0.0 { Cell::toned("0", crate::ui::Tone::Quiet) } else { Cell::from(format!("{rate:.1}")) }
}

impl Report for TopReport {
    fn kind(&self) -> &'static str {
        "TopReport"
    }

    fn items(&self) -> Vec<Value> {
        let item = |line: &Line| {
            let usage = &line.usage;
            let mut item = json!({
                "service": line.namespaced.as_ref().map(|(name, _)| name),
                "port_name": line.namespaced.as_ref().and_then(|(_, port)| port.as_ref()),
                "address": line.address,
                "flows": usage.flows,
                "new_flows_per_second": usage.new_flows,
            });
            let more = match self.by {
                By::Backend => json!({ "backend": usage.backend.map(|at| at.to_string()) }),
                By::Service => json!({
                    "connects_per_second": usage.connects,
                    "datagrams_per_second": usage.datagrams,
                    "refused_per_second": usage.refused,
                    "left_per_second": usage.left,
                    "connects": usage.total.connects,
                    "datagrams": usage.total.datagrams,
                    "refused": usage.total.refused,
                    "left": usage.total.passed + usage.total.shadow,
                }),
            };
            if let (Value::Object(item), Value::Object(more)) = (&mut item, more) {
                item.extend(more);
            }
            item
        };
        self.lines.iter().map(item).collect()
    }

    fn extra(&self) -> Map<String, Value> {
        Map::from_iter([
            ("over_seconds".to_owned(), json!(self.over.as_secs_f64())),
            ("total".to_owned(), json!(self.total)),
        ])
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        let mut table = match self.by {
            By::Service => {
                let right = ["CONN/S", "DGRAM/S", "REFUSED/S", "LEFT/S", "FLOWS", "TOTAL"];
                let headings: Vec<&'static str> =
                    ["SERVICE"].into_iter().chain(wide.then_some("ADDRESS")).chain(right).collect();
                Table::new(&headings).right(&right)
            }
            By::Backend => {
                Table::new(&["SERVICE", "BACKEND", "NEW/S", "FLOWS"]).right(&["NEW/S", "FLOWS"]).whole(&["BACKEND"])
            }
        };
        for Line { usage, name, address, .. } in &self.lines {
            let mut row = vec![Cell::from(name.clone())];
            match self.by {
                By::Service => {
                    row.extend(wide.then(|| Cell::from(address.clone())));
                    row.extend([usage.connects, usage.datagrams, usage.refused, usage.left].map(rate));
                    row.push(Cell::from(usage.flows.to_string()));
                    row.push(Cell::from((usage.total.connects + usage.total.datagrams).to_string()));
                }
                By::Backend => {
                    row.push(Cell::from(usage.backend.map_or_else(String::new, |at| at.to_string())));
                    row.push(rate(usage.new_flows));
                    row.push(Cell::from(usage.flows.to_string()));
                }
            }
            table.row(row);
        }
        let what = match self.by {
            By::Service => "Service port",
            By::Backend => "backend",
        };
        let (first, next) = &self.shown;
        vec![table.footer(format!("{first}{}, over {:.1} s{next}", count(self.total, what), self.over.as_secs_f64()))]
    }

    fn names(&self) -> Vec<String> {
        self.lines.iter().map(|line| line.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use kpx_abi::Stats;

    use super::*;
    use crate::model::{FrontendKey, Protocol};

    fn usage(service: u32, connects: f64, flows: usize, total: u64) -> Usage {
        Usage {
            service,
            frontends: vec![FrontendKey {
                ip: std::net::Ipv4Addr::new(10, 96, 0, service as u8).into(),
                port: 443,
                protocol: Protocol::Tcp,
                exposure: Exposure::ClusterIp,
            }],
            backend: None,
            flows,
            new_flows: 0.0,
            total: Stats { connects: total, ..Stats::default() },
            connects,
            datagrams: 0.0,
            refused: 0.25,
            left: 0.0,
        }
    }

    fn names(sort: Sort) -> Vec<String> {
        let none = Names::none();
        let mut lines: Vec<Line> = [usage(1, 2.5, 9, 40), usage(2, 0.0, 120, 70), usage(3, 3.0, 0, 3)]
            .into_iter()
            .map(|usage| line(usage, &none))
            .collect();
        lines.sort_by(|a, b| order(sort, a, b));
        lines.into_iter().map(|line| line.address).collect()
    }

    #[test]
    fn the_busiest_come_first() {
        let address = |n: u8| format!("10.96.0.{n}:443/TCP");
        for (sort, expected) in [
            (Sort::Rate, [3, 1, 2]),
            (Sort::Flows, [2, 1, 3]),
            (Sort::Total, [2, 1, 3]),
            (Sort::Refused, [1, 2, 3]),
            (Sort::Name, [1, 2, 3]),
        ] {
            assert_eq!(names(sort), expected.map(address), "{sort:?}");
        }
    }
}
