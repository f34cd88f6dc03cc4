//! `kpx migrate plan`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::super::Context;
use super::command_line;
use crate::migrate::{Plan, Server, Session};
use crate::ui::{Cell, Exit, Failure, Report, Table, Tone, to_value};

const EXAMPLES: &str = "\
Examples:
  See what would change on this node, and keep the plan
    $ kpx migrate plan --out node-a.plan

  Plan for a recorded node, and list each frontend with who serves it
    $ kpx migrate plan --from node-a.tar.zst -o wide";

/// Arguments of `kpx migrate plan`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Write the plan to this file, for kpx migrate apply FILE
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    let session = Session::open(super::session_options(&context.globals))?;
    let spinner = context.ui.progress(None, "reading the node");
    let plan = session.plan()?;
    drop(spinner);
    context.ui.report(&PlanReport(&plan))?;
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
pub(super) struct PlanReport<'a>(pub(super) &'a Plan);

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
        tables.push(notes("What holds while the rules stay", self.0.coexistence.iter().map(|t| (t.as_str(), &[][..]))));
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
    let mut table = Table::new(&["NODE", "NOW", "THEN", "KUBE-PROXY"]);
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
    let mut table = Table::new(&["PHASE", "STEP", "WHAT"]);
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

/// Frontends by exposure and fate.
fn summary(plan: &Plan) -> Table {
    let mut table = Table::new(&["FRONTENDS", "KIND", "AFTER", "WHY"]).right(&["FRONTENDS"]);
    let mut groups: BTreeMap<(bool, String, String), usize> = BTreeMap::new();
    for f in &plan.frontends {
        let why = f.reason.clone().unwrap_or_else(|| "new connections from sockets of this node".to_owned());
        *groups.entry((!f.to_ebpf(), f.exposure.to_string(), why)).or_default() += 1;
    }
    for ((stays, kind, why), n) in groups {
        table.row([
            Cell::from(n.to_string()),
            kind.into(),
            server(if stays { Server::Rules } else { Server::Ebpf }),
            why.into(),
        ]);
    }
    table.footer("each of them: -o wide")
}

fn server(server: Server) -> Cell {
    match server {
        Server::Rules => Cell::toned("rules", Tone::Quiet),
        Server::Ebpf => Cell::toned("eBPF", Tone::Good),
    }
}

fn frontends(plan: &Plan) -> Table {
    let mut headings = vec!["SERVICE", "PORT", "KIND", "ADDRESS"];
    headings.extend(["PREPARE", "LOAD", "SHADOW", "SOCKETS", "WHY"]);
    let mut table = Table::new(&headings);
    for f in &plan.frontends {
        let address = format!("{}/{}", std::net::SocketAddr::new(f.ip, f.port), f.protocol);
        let mut row = vec![
            Cell::from(f.service.clone().unwrap_or_default()),
            f.port_name.clone().unwrap_or_default().into(),
            f.exposure.to_string().into(),
            address.into(),
        ];
        row.extend(f.served_by.values().map(|s| server(*s)));
        row.push(f.reason.clone().unwrap_or_else(|| "served at the socket".to_owned()).into());
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
fn wrapped(prefix: &str, text: &str) -> String {
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
