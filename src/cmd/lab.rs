//! `kpx lab`: a recorded node in network namespaces.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Context;
use crate::lab::{self, Lab as Running, LabError, Names, Spec, Traffic, TrafficOptions, TrafficReport};
use crate::ui::{Cell, Exit, Failure, Report, Table, Tone, to_value};

/// Subcommands of `kpx lab`.
#[derive(Debug, clap::Subcommand)]
pub enum Lab {
    /// Bring a recorded node up in network namespaces
    Up(Up),
    /// Remove a lab and everything it made, also after a crash
    Down(Down),
    /// List the labs of this machine
    List,
    /// Run traffic through the Services of a lab and report what it went through
    Traffic(TrafficArgs),
    /// Be the backends of a lab
    #[command(hide = true)]
    Serve,
    /// Be a client of a lab
    #[command(hide = true)]
    Client(Client),
}

/// Arguments of `kpx lab up`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kpx lab up --from node-a.tar.zst\n  kpx lab up --from small/iptables-nft/running --services-from small/api --name nft"
)]
pub struct Up {
    /// Name of the lab
    #[arg(long, default_value = "demo")]
    name: String,
}

/// Arguments of `kpx lab down`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kpx lab down\n  kpx lab down --all")]
pub struct Down {
    /// Name of the lab
    #[arg(default_value = "demo")]
    name: String,
    /// Remove all labs
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

/// Arguments of `kpx lab traffic`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kpx lab traffic\n  kpx lab traffic nft --seconds 30 --flows 400 -o json")]
pub struct TrafficArgs {
    /// Name of the lab
    #[arg(default_value = "demo")]
    name: String,
    /// How long to run
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How much traffic.
    #[command(flatten)]
    amount: Amount,
}

/// How much traffic.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Amount {
    /// Flows that stay open all the time
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    flows: u32,
    /// Time between two records of a flow, milliseconds
    #[arg(long, default_value_t = 20, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=1000))]
    interval: u64,
    /// Short connections per second
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=5000))]
    connects: u32,
}

/// Arguments of `kpx lab client`.
#[derive(Debug, clap::Args)]
pub struct Client {
    /// cgroup to join
    #[arg(long, value_name = "DIR")]
    join: Option<PathBuf>,
}

impl Amount {
    fn options(self) -> TrafficOptions {
        TrafficOptions {
            flows: self.flows,
            interval: Duration::from_millis(self.interval),
            connects_per_second: self.connects,
            ..TrafficOptions::default()
        }
    }
}

pub(super) fn run(context: &mut Context, command: Lab) -> Result<Exit, Failure> {
    match command {
        Lab::Up(args) => up(context, &args),
        Lab::Down(args) => down(context, &args),
        Lab::List => list(context),
        Lab::Traffic(args) => traffic(context, &args),
        Lab::Serve => Ok(lab::serve::run().map(|()| Exit::Fine)?),
        Lab::Client(args) => {
            if let Some(cgroup) = args.join {
                fs_err::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).map_err(LabError::File)?;
            }
            Ok(lab::client::run().map(|()| Exit::Fine)?)
        }
    }
}

/// This program, for the processes of a lab.
fn program() -> Result<PathBuf, LabError> {
    Ok(std::env::current_exe()?)
}

fn up(context: &mut Context, args: &Up) -> Result<Exit, Failure> {
    if context.globals.from.is_none() {
        return Err(Failure::usage("a lab needs a recorded node: give --from SNAPSHOT")
            .hint("record one with: kpx snapshot DIR"));
    }
    let spec = Spec::read(&context.node()?, &args.name)?;
    let progress = context.ui.progress(None, format!("bringing up lab {}", args.name));
    let running = Running::up(&spec, &program()?)?;
    drop(progress);
    let options = running.options().join(" ");
    let name = running.names().to_string();
    running.keep();
    context.ui.note(&format!(
        "lab {name} plays node {}: {} frontends, {} backends",
        spec.node_name, spec.frontends, spec.backends
    ));
    context.ui.report(&UpReport { name: name.clone(), node_name: spec.node_name, options })?;
    context.ui.hint(&format!("remove it with: kpx lab down {name}"));
    Ok(Exit::Fine)
}

/// What `kpx lab up` made.
struct UpReport {
    name: String,
    node_name: String,
    options: String,
}

impl Report for UpReport {
    fn kind(&self) -> &'static str {
        "Lab"
    }

    fn items(&self) -> Vec<Value> {
        let options: Vec<&str> = self.options.split(' ').collect();
        vec![json!({ "name": self.name, "node": self.node_name, "options": options })]
    }

    fn tables(&self, _wide: bool) -> Vec<Table> {
        vec![Table::default().footer(format!("kpx {}", self.options))]
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

fn down(context: &mut Context, args: &Down) -> Result<Exit, Failure> {
    let names = if args.all {
        lab::list()?.into_iter().map(|lab| lab.names.to_string()).collect()
    } else {
        vec![args.name.clone()]
    };
    let mut failed = None;
    for name in names {
        match lab::down(&name) {
            Ok(()) => context.ui.note(&format!("lab {name} is removed")),
            // The others are still to be removed.
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(Exit::Fine),
    }
}

fn list(context: &mut Context) -> Result<Exit, Failure> {
    context.ui.report(&Labs(lab::list()?))?;
    Ok(Exit::Fine)
}

struct Labs(Vec<lab::Listed>);

impl Report for Labs {
    fn kind(&self) -> &'static str {
        "LabList"
    }

    fn items(&self) -> Vec<Value> {
        let item = |lab: &lab::Listed| {
            json!({
                "name": lab.names.to_string(),
                "whole": lab.whole,
                "node": lab.record.as_ref().map(|r| r.node_name.clone()),
                "from": lab.record.as_ref().map(|r| r.from.clone()),
                "created": lab.record.as_ref().map(|r| r.created.clone()),
                "netns": lab.names.node(),
                "options": lab.options(),
            })
        };
        self.0.iter().map(item).collect()
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        let mut headings = vec!["NAME", "STATE", "NODE", "NETNS"];
        if wide {
            headings.push("FROM");
        }
        let mut table = Table::new(&headings);
        for lab in &self.0 {
            let state = if lab.whole { Cell::toned("up", Tone::Good) } else { Cell::toned("broken", Tone::Warning) };
            let record = lab.record.as_ref();
            let mut row: Vec<Cell> = vec![
                lab.names.to_string().into(),
                state,
                record.map(|r| r.node_name.clone()).unwrap_or_default().into(),
                lab.names.node().into(),
            ];
            if wide {
                row.push(record.map(|r| r.from.clone()).unwrap_or_default().into());
            }
            table.row(row);
        }
        if self.0.is_empty() {
            table = table.footer("no labs");
        }
        vec![table]
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|lab| lab.names.to_string()).collect()
    }
}

fn traffic(context: &mut Context, args: &TrafficArgs) -> Result<Exit, Failure> {
    Names::new(&args.name)?;
    let mut running = Running::open(&args.name, &program()?)?;
    let progress = context.ui.progress(Some(args.seconds), "traffic");
    let mut traffic = Traffic::start(&mut running, &args.amount.options())?;
    traffic.phase("traffic")?;
    for _ in 0..args.seconds {
        thread::sleep(Duration::from_secs(1));
        progress.inc(1);
    }
    let report = traffic.stop()?;
    drop(progress);
    let exit = if report.clean() { Exit::Fine } else { Exit::ActOn };
    context.ui.report(&TrafficView(&report))?;
    Ok(exit)
}

/// A traffic report as the commands print it.
pub(super) struct TrafficView<'a>(pub(super) &'a TrafficReport);

impl Report for TrafficView<'_> {
    fn kind(&self) -> &'static str {
        "TrafficReport"
    }

    fn items(&self) -> Vec<Value> {
        self.0.phases.iter().map(to_value).collect()
    }

    fn extra(&self) -> Map<String, Value> {
        match to_value(self.0) {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    fn tables(&self, _wide: bool) -> Vec<Table> {
        let mut tables = vec![self.phases(), self.classes()];
        if !self.0.troubles.is_empty() {
            tables.push(self.troubles());
        }
        tables
    }

    fn names(&self) -> Vec<String> {
        self.0.phases.iter().map(|phase| phase.phase.clone()).collect()
    }
}

/// More troubles than these say nothing new on a screen; `-o json` has them all.
const TROUBLES: usize = 12;

impl TrafficView<'_> {
    fn phases(&self) -> Table {
        let headings =
            ["PHASE", "SECONDS", "OPEN", "OPENED", "LOST", "GAP-MS", "CONNECTS", "FAILED", "P50-US", "P99-US"];
        let mut table = Table::new(&headings).right(&headings[1..]);
        for phase in &self.0.phases {
            let latency = |pick: fn(&lab::Latency) -> u32| phase.connect.as_ref().map(pick).map(|us| us.to_string());
            table.row([
                Cell::from(phase.phase.as_str()),
                format!("{:.1}", phase.seconds).into(),
                phase.flows_open.to_string().into(),
                phase.flows_opened.to_string().into(),
                count(phase.flows_lost),
                format!("{:.1}", phase.longest_gap_ms).into(),
                phase.connects.to_string().into(),
                count(phase.connects_failed),
                latency(|l| l.p50_us).unwrap_or_default().into(),
                latency(|l| l.p99_us).unwrap_or_default().into(),
            ]);
        }
        table
    }

    fn classes(&self) -> Table {
        let report = self.0;
        let headings = ["FLOWS", "TOTAL", "LOST", "GAP-MS", "IDLE-GAP-MS"];
        let mut table = Table::new(&headings).right(&headings[1..]);
        for class in &report.classes {
            table.row([
                Cell::from(class.class.name()),
                class.flows_total.to_string().into(),
                count(class.flows_lost),
                format!("{:.1}", class.longest_gap_ms).into(),
                format!("{:.1}", class.idle_gap_ms).into(),
            ]);
        }
        table.footer(format!(
            "flows: {} of {} lost, records lost: {}, connects: {} of {} failed, probes of Services without backends: {} of {} unexpected",
            report.flows_lost,
            report.flows_total,
            report.records_lost,
            report.connects_failed,
            report.connects_total,
            report.probes_unexpected,
            report.probes_total,
        ))
    }

    fn troubles(&self) -> Table {
        let mut table = Table::new(&["WHAT", "FROM", "SERVICE", "ADDRESS", "PHASE", "REASON"]);
        for trouble in self.0.troubles.iter().take(TROUBLES) {
            table.row([
                trouble.what.as_str(),
                trouble.place.as_str(),
                trouble.service.as_str(),
                trouble.addr.as_str(),
                trouble.phase.as_str(),
                trouble.reason.as_str(),
            ]);
        }
        match self.0.troubles.len().saturating_sub(TROUBLES) {
            0 => table,
            more => table.footer(format!("and {more} more; -o json lists them")),
        }
    }
}

/// A number of things gone wrong.
fn count(number: u64) -> Cell {
    Cell::toned(number.to_string(), if number == 0 { Tone::Good } else { Tone::Bad })
}
