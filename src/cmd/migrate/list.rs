//! `kpx migrate list`.

use serde_json::{Value, json};

use super::super::Context;
use crate::migrate::{Store, Summary};
use crate::ui::{Exit, Failure, Report, Table};

const EXAMPLES: &str = "\
Examples:
  What was done to this node, oldest first
    $ kpx migrate list

  The newest migration's id, for a script
    $ kpx migrate list -o name | tail -n 1";

/// Arguments of `kpx migrate list`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {}

pub(super) fn run(context: &mut Context, _args: &Args) -> Result<Exit, Failure> {
    let store = Store::new(&context.globals.state_dir);
    let migrations = store.list()?;
    let summaries = migrations.iter().map(Summary::of).collect::<Result<Vec<_>, _>>()?;
    context.ui.report(&List(summaries))?;
    Ok(Exit::Fine)
}

struct List(Vec<Summary>);

impl Report for List {
    fn kind(&self) -> &'static str {
        "MigrationList"
    }

    fn items(&self) -> Vec<Value> {
        self.0
            .iter()
            .map(|s| {
                json!({
                    "id": s.id, "node": s.node, "source": s.source, "target": s.target, "state": s.state,
                    "began": s.began.map(|t| t.to_string()), "ended": s.last.map(|t| t.to_string()),
                })
            })
            .collect()
    }

    fn tables(&self, _wide: bool) -> Vec<Table> {
        let mut table = Table::new(&["ID", "NODE", "FROM", "TO", "STATE", "LAST-CHANGE"]);
        for s in &self.0 {
            let last = s.last.map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default();
            table.row([s.id.clone(), s.node.clone(), s.source.clone(), s.target.clone(), s.state.clone(), last]);
        }
        if self.0.is_empty() {
            table = table.footer("no migration is recorded in this state directory");
        }
        vec![table]
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|s| s.id.clone()).collect()
    }
}
