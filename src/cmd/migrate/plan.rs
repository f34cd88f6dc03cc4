//! `kpx migrate plan`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::super::Context;
use super::{WishArgs, command_line, took};
use crate::migrate::{PhaseName, Plan, Server, Session};
use crate::ui::{Cell, Exit, Failure, Report, Table, Tone, to_value};

const EXAMPLES: &str = "\
Examples:
  See what would change on this node, and keep the plan
    $ kpx migrate plan --out node-a.plan

  Plan with a kube-proxy that is stopped and started by commands
    $ kpx migrate plan --stop-command 'docker stop proxy' --start-command 'docker start proxy'

  Plan for a recorded node, and list each frontend with who serves it
    $ kpx migrate plan --from node-a.tar.zst -o wide";

/// Arguments of `kpx migrate plan`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Write the plan to this file, for kpx migrate apply FILE
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    wishes: WishArgs,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    let session = Session::open(super::session_options(&context.globals))?;
    let spinner = context.ui.progress(None, "reading the node");
    let plan = session.plan(&args.wishes.wishes())?;
    // Not in the plan: it is another number at every moment.
    let alive = session.flows_alive();
    drop(spinner);
    context.ui.report(&PlanReport(&plan, session.removal()))?;
    if let Some(alive) = alive {
        context.ui.note(&format!("{alive} flows to Services are carried by the kernel's NAT at this moment"));
    }
    // Nor is this: it is of the node's past.
    if session.is_live()
        && let Some((there, back)) = session.last_time()?
    {
        context.ui.note(&took::last_time(&there, back.as_ref()));
    }
    if let Some(path) = &args.out {
        plan.write(path)?;
        context.ui.note(&format!("plan written to {}", path.display()));
    }
    if plan.is_blocked() {
        return Ok(Exit::ActOn);
    }
    if session.is_live() {
        let file =
            args.out.as_ref().map(|p| format!(" {}", super::quoted(&p.display().to_string()))).unwrap_or_default();
        context.ui.hint(&command_line(&context.globals, &format!("migrate apply{file}")));
    }
    Ok(Exit::Fine)
}

/// A plan on the terminal.
pub(super) struct PlanReport<'a>(pub(super) &'a Plan, pub(super) Option<String>);

impl Report for PlanReport<'_> {
    fn kind(&self) -> &'static str {
        "MigrationPlan"
    }

    fn items(&self) -> Vec<Value> {
        self.0.frontends.iter().map(to_value).collect()
    }

    fn extra(&self) -> Map<String, Value> {
        let Value::Object(mut map) = to_value(self.0) else { return Map::new() };
        for owned_by_the_envelope in ["apiVersion", "kind", "items"] {
            map.remove(owned_by_the_envelope);
        }
        map
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        let mut tables = vec![node(self.0), phases(self.0, wide)];
        tables.push(if wide { frontends(self.0) } else { summary(self.0) });
        tables.push(driver(self.0));
        tables
            .push(notes("What holds while the rules stand", self.0.coexistence.iter().map(|t| (t.as_str(), &[][..]))));
        if let Some(rules) = self.1.as_ref().filter(|_| wide) {
            tables
                .push(Table::default().title("Rules that phase remove takes away").footer(rules.trim_end().to_owned()));
        }
        if !self.0.warnings.is_empty() {
            let lines = self.0.warnings.iter().map(|w| (w.text.as_str(), &w.details[..]));
            tables.push(notes("Warnings", lines));
        }
        if self.0.is_blocked() {
            tables.push(blockers(self.0));
        }
        let verdict = if self.0.is_blocked() { "\nBlocked: this plan may not be applied." } else { "" };
        let counts = Table::default().footer(format!("{}{verdict}", self.0.counts_line()));
        tables.push(counts);
        tables
    }

    fn names(&self) -> Vec<String> {
        self.0.frontends.iter().filter(|f| f.to_ebpf()).map(crate::migrate::PlannedFrontend::describe).collect()
    }
}

fn node(plan: &Plan) -> Table {
    let mut table = Table::new(&["NODE", "NOW", "THEN", "KUBE-PROXY"]).prose();
    let rules: usize = plan.source.rules.values().sum();
    table.row([
        plan.node.name.clone(),
        format!("{}, {rules} rules", plan.source.dataplane),
        plan.target.dataplane.clone(),
        plan.source.kube_proxy.clone(),
    ]);
    table
}

fn phases(plan: &Plan, wide: bool) -> Table {
    let mut table = Table::new(&["PHASE", "STEP", "WHAT"]).whole(&["STEP"]).prose();
    for phase in &plan.phases {
        for step in &phase.steps {
            table.row([phase.phase.to_string(), format!("+ {}", step.step), step.text.clone()]);
        }
        if let Some(gate) = &phase.gate {
            table.row([phase.phase.to_string(), "~ gate".to_owned(), format!("go on only if {gate}")]);
        }
    }
    if !wide {
        return table;
    }
    table.footer("+ changes the node, ~ looks at it")
}

/// How kube-proxy is stopped and started again, and what shows it.
fn driver(plan: &Plan) -> Table {
    let mut text = wrapped("driver: ", &plan.driver.to_string());
    for clause in &plan.driver_evidence {
        text.push_str(&wrapped("  found: ", clause));
    }
    for detail in plan.driver.details() {
        text.push_str(&wrapped("- ", &detail));
    }
    Table::default().title("How kube-proxy is stopped").footer(text.trim_end().to_owned())
}

/// The phases behind which somebody else serves.
const TURNS: [PhaseName; 3] = [PhaseName::Shadow, PhaseName::Sockets, PhaseName::Packets];

/// Frontends by exposure and fate.
fn summary(plan: &Plan) -> Table {
    let mut table =
        Table::new(&["FRONTENDS", "KIND", "SHADOW", "SOCKETS", "PACKETS", "WHY"]).right(&["FRONTENDS"]).prose();
    let mut groups: BTreeMap<([Server; 3], String, String), usize> = BTreeMap::new();
    for f in &plan.frontends {
        let why = f.reason.clone().unwrap_or_default();
        *groups.entry((TURNS.map(|phase| f.served_by[&phase]), f.exposure.to_string(), why)).or_default() += 1;
    }
    for ((servers, kind, why), n) in groups.into_iter().rev() {
        let mut row = vec![Cell::from(n.to_string()), kind.into()];
        row.extend(servers.map(server));
        row.push(why.into());
        table.row(row);
    }
    table.footer("who serves new connections behind these phases; each frontend: -o wide")
}

fn server(server: Server) -> Cell {
    match server {
        Server::Rules => Cell::toned("rules", Tone::Quiet),
        Server::Ebpf => Cell::toned("eBPF: sockets", Tone::Good),
        Server::EbpfAll => Cell::toned("eBPF", Tone::Good),
    }
}

fn frontends(plan: &Plan) -> Table {
    let mut headings = vec!["SERVICE", "PORT", "KIND", "ADDRESS"];
    headings.extend(["SHADOW", "SOCKETS", "PACKETS", "WHY"]);
    let mut table = Table::new(&headings);
    for f in &plan.frontends {
        let address = format!("{}/{}", std::net::SocketAddr::new(f.ip, f.port), f.protocol);
        let mut row = vec![
            Cell::from(f.service.clone().unwrap_or_default()),
            f.port_name.clone().unwrap_or_default().into(),
            f.exposure.to_string().into(),
            address.into(),
        ];
        row.extend(TURNS.map(|phase| server(f.served_by[&phase])));
        row.push(f.reason.clone().unwrap_or_default().into());
        table.row(row);
    }
    table
}

fn notes<'a>(title: &str, lines: impl Iterator<Item = (&'a str, &'a [String])>) -> Table {
    let mut text = String::new();
    for (line, details) in lines {
        text.push_str(&wrapped("- ", line));
        for detail in details {
            text.push_str(&wrapped("    ", detail));
        }
    }
    Table::default().title(title).footer(text.trim_end().to_owned())
}

fn blockers(plan: &Plan) -> Table {
    let mut text = String::new();
    for blocker in &plan.blockers {
        let id = to_value(&blocker.id);
        text.push_str(&wrapped("- ", &format!("{}: {}", id.as_str().unwrap_or_default(), blocker.reason)));
        for detail in &blocker.details {
            text.push_str(&wrapped("    ", detail));
        }
        text.push_str(&wrapped("  remedy: ", &blocker.remedy));
    }
    Table::default().title("Blockers").footer(text.trim_end().to_owned())
}

/// A paragraph of at most 80 columns, indented by the length of its prefix.
pub(super) fn wrapped(prefix: &str, text: &str) -> String {
    const WIDTH: usize = 80;
    let mut out = String::from(prefix);
    let mut column = prefix.len();
    for (i, word) in text.split(' ').enumerate() {
        let len = word.chars().count();
        if i > 0 && column + 1 + len > WIDTH {
            out.push('\n');
            out.push_str(&" ".repeat(prefix.len()));
            column = prefix.len();
        } else if i > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += len;
    }
    out.push('\n');
    out
}
