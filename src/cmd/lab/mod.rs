//! `kpx lab`: a recorded node in network namespaces.

mod demo;
mod stop;
mod view;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use self::stop::Stop;
use self::view::TrafficView;
use super::Context;
use crate::lab::{self, Lab as Running, LabError, Names, Spec, Traffic, TrafficOptions};
use crate::ui::{Cell, Exit, Failure, Report, Table, Tone};

const UP_EXAMPLES: &str = "\
Examples:
  Bring up the recording that comes with kpx
    $ kpx lab up

  Bring up a snapshot beside it, with API objects from elsewhere
    $ kpx lab up --name mine --from node-a.tar.zst --services-from objects.json";

const DOWN_EXAMPLES: &str = "\
Examples:
  Remove the lab called demo, also if bringing it up was killed
    $ kpx lab down

  Remove all labs of this machine
    $ kpx lab down --all";

const TRAFFIC_EXAMPLES: &str = "\
Examples:
  Run traffic for ten seconds; exit code 2 if anything was lost
    $ kpx lab traffic

  Run more of it for longer, for a program to read
    $ kpx lab traffic mine --seconds 60 --flows 1000 -o json";

const LIST_EXAMPLES: &str = "\
Examples:
  Which labs are up
    $ kpx lab list

  Remove each of them by name
    $ kpx lab list -o name | xargs -n 1 kpx lab down";

/// Options of commands that the demonstration runs: what they print is shown by it.
const EXPORTED: [&str; 2] = ["--no-progress", "--no-input"];

/// Subcommands of `kpx lab`.
#[derive(Debug, clap::Subcommand)]
pub enum Lab {
    /// Watch a recorded node go to eBPF and come back, under live traffic
    Demo(demo::Demo),
    /// Bring a recorded node up in network namespaces
    Up(Up),
    /// Remove a lab and everything it made, also after a crash
    Down(Down),
    /// List the labs of this machine
    #[command(after_long_help = LIST_EXAMPLES)]
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
#[command(after_long_help = UP_EXAMPLES)]
pub struct Up {
    /// Name of the lab
    #[arg(long, default_value = "demo")]
    name: String,
}

/// Arguments of `kpx lab down`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DOWN_EXAMPLES)]
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
#[command(after_long_help = TRAFFIC_EXAMPLES)]
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
        Lab::Demo(args) => demo::run(context, &args),
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
    let stop = Stop::on_signals()?;
    let spec = match context.globals.from {
        Some(_) => Spec::read(&context.node()?, &args.name)?,
        None => Spec::builtin(&args.name)?,
    };
    let progress = context.ui.progress(None, format!("bringing up lab {}", args.name));
    let running = Running::up(&spec, &program()?)?;
    drop(progress);
    if stop.asked() {
        drop(running);
        return Ok(Exit::Interrupted);
    }
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
    let stop = Stop::on_signals()?;
    let mut running = Running::open(&args.name, &program()?)?;
    let progress = context.ui.progress(Some(args.seconds), "traffic");
    let mut traffic = Traffic::start(&mut running, &args.amount.options())?;
    traffic.phase("traffic")?;
    for _ in 0..args.seconds {
        stop.sleep(Duration::from_secs(1));
        progress.inc(1);
    }
    let report = traffic.stop()?;
    drop(progress);
    let exit = if report.clean() { Exit::Fine } else { Exit::ActOn };
    context.ui.report(&TrafficView(&report))?;
    Ok(exit)
}
