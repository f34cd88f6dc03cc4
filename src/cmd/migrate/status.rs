//! `kpx migrate status`.

use serde_json::{Map, Value, json};

use super::super::Context;
use super::{command_line, took};
use crate::migrate::{Mark, Session, Status, StepStatus};
use crate::ui::{Cell, Exit, Failure, Report, Table, Tone, to_value};

const EXAMPLES: &str = "\
Examples:
  How far is the migration, and what may be done next
    $ kpx migrate status

  The state in one word, for a script
    $ kpx migrate status -o json | jq -r .state";

/// Arguments of `kpx migrate status`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {}

pub(super) fn run(context: &mut Context, _args: &Args) -> Result<Exit, Failure> {
    let session = Session::open(super::session_options(&context.globals))?;
    let status = session.status()?;
    context.ui.report(&StatusReport(&status))?;
    for (command, why) in status.next() {
        context.ui.hint(&format!("{why}: {}", command_line(&context.globals, &format!("migrate {command}"))));
    }
    Ok(Exit::Fine)
}

struct StatusReport<'a>(&'a Status);

impl Report for StatusReport<'_> {
    fn kind(&self) -> &'static str {
        "MigrationStatus"
    }

    fn items(&self) -> Vec<Value> {
        self.0.steps.iter().map(to_value).collect()
    }

    fn extra(&self) -> Map<String, Value> {
        let standing = self.0.standing.as_ref().map_or_else(|| json!({ "state": "none" }), to_value);
        let Value::Object(mut map) = standing else { return Map::new() };
        map.insert("migration".to_owned(), json!(self.0.id));
        map.insert("node".to_owned(), json!(self.0.node));
        map.insert("serving".to_owned(), to_value(&self.0.serving));
        let notes: Map<String, Value> = self.0.notes.iter().map(|(step, n)| ((*step).to_owned(), json!(n))).collect();
        map.insert("notes".to_owned(), Value::Object(notes));
        for (way, took) in [("apply", &self.0.there), ("rollback", &self.0.back)] {
            map.insert(format!("{way}_took"), to_value(took));
        }
        map.insert("message".to_owned(), json!(self.0.describe()));
        map
    }

    fn tables(&self, _wide: bool) -> Vec<Table> {
        let mut tables = Vec::new();
        if !self.0.steps.is_empty() {
            let mut table = Table::new(&["PHASE", "STEP", "JOURNAL", "NODE"]);
            for s in &self.0.steps {
                let tone = if s.journal == Mark::Done { Tone::Plain } else { Tone::Quiet };
                table.row([
                    s.phase.to_string().into(),
                    s.step.into(),
                    Cell::toned(to_value(&s.journal).as_str().unwrap_or_default(), tone),
                    on_node(s),
                ]);
            }
            tables.push(table);
        }
        tables.extend([&self.0.there, &self.0.back].into_iter().flatten().map(took::table));
        tables.push(Table::default().footer(self.0.describe()).prose());
        tables
    }

    fn names(&self) -> Vec<String> {
        self.0.id.iter().cloned().collect()
    }
}

fn on_node(step: &StepStatus) -> Cell {
    match (step.on_node, step.journal) {
        (Some(true), _) => Cell::toned("done", Tone::Good),
        (Some(false), Mark::Done) if step.is_record => Cell::toned(format!("BEHIND: {}", step.detail), Tone::Warning),
        (Some(false), Mark::Done) => Cell::toned(format!("GONE: {}", step.detail), Tone::Bad),
        (Some(false), _) => Cell::toned("not there", Tone::Quiet),
        (None, _) => Cell::toned(format!("unknown: {}", step.detail), Tone::Warning),
    }
}
