//! `kpx migrate verify`.

use serde_json::Value;

use super::super::Context;
use super::ProbeArgs;
use crate::migrate::{Finding, RunOptions, Session};
use crate::ui::{Cell, Exit, Failure, Report, Table, Tone, to_value};

const EXAMPLES: &str = "\
Examples:
  Is what the hooks serve what the API says and the rules do?
    $ kpx migrate verify

  Fail a script if anything is wrong (exit code 2)
    $ kpx migrate verify -o json | jq '.items[] | select(.ok | not)'";

/// Arguments of `kpx migrate verify`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    probe: ProbeArgs,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    let session = Session::open(super::session_options(&context.globals))?;
    let spinner = context.ui.progress(None, "comparing API, rules and maps, and trying connections");
    let options = RunOptions { probe_timeout: args.probe.probe_timeout, ..RunOptions::default() };
    let findings = session.verify(options)?;
    drop(spinner);
    let failed = findings.iter().any(|f| !f.ok);
    context.ui.report(&Verdict(findings))?;
    Ok(if failed { Exit::ActOn } else { Exit::Fine })
}

/// Findings on the terminal.
struct Verdict(Vec<Finding>);

impl Report for Verdict {
    fn kind(&self) -> &'static str {
        "MigrationVerification"
    }

    fn items(&self) -> Vec<Value> {
        self.0.iter().map(to_value).collect()
    }

    fn tables(&self, _wide: bool) -> Vec<Table> {
        let mut table = Table::new(&["CHECK", "RESULT", "DETAIL"]);
        for f in &self.0 {
            let result = if f.ok { Cell::toned("ok", Tone::Good) } else { Cell::toned("FAIL", Tone::Bad) };
            table.row([f.check.into(), result, f.detail.as_str().into()]);
        }
        let failed = self.0.iter().filter(|f| !f.ok).count();
        vec![table.footer(format!("{} checks, {failed} failed", self.0.len()))]
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().filter(|f| !f.ok).map(|f| f.check.to_owned()).collect()
    }
}
