//! `kpx explain`.

use serde_json::Value;

use crate::audit;
use crate::cmd::Context;
use crate::preflight;
use crate::severity::Severity;
use crate::ui::{Exit, Failure, Report, Table, to_value};

const EXAMPLES: &str = "\
Examples:
  What does a finding mean, and what is to be done?
    $ kpx explain KPX-A101

  All checks there are
    $ kpx explain";

/// Arguments of `kpx explain`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Identifier of a check, such as KPX-A101 or KPX-P101; none: all of them
    #[arg(value_name = "ID")]
    id: Option<String>,
}

pub(in crate::cmd) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    let checks: Vec<Entry> = match &args.id {
        None => all().collect(),
        Some(id) => vec![find(id).ok_or_else(|| Failure::usage(unknown(id)).hint("kpx explain   lists them all"))?],
    };
    if let ([check], false) = (checks.as_slice(), context.ui.format().is_data()) {
        let Entry { id, area, severity, title, texts, command, .. } = check;
        context.ui.say(&format!("{id}  {severity}, {area}"))?;
        for text in std::iter::once(title).chain(texts) {
            context.ui.say("")?;
            context.ui.say_wrapped(text)?;
        }
        context.ui.say("")?;
        for line in command.lines() {
            context.ui.say(&format!("    {line}"))?;
        }
        return Ok(Exit::Fine);
    }
    context.ui.report(&Checks(checks))?;
    Ok(Exit::Fine)
}

/// `docs/checks.md`, for `cargo xtask generate`.
pub(in crate::cmd) fn page(context: &mut Context) -> Result<Exit, Failure> {
    context.ui.raw(&(audit::page() + &preflight::page()))?;
    Ok(Exit::Fine)
}

/// The message for an identifier that no check has, with the one that may be meant.
pub(super) fn unknown(id: &str) -> String {
    let differing = |known: &str| known.bytes().zip(id.bytes()).filter(|(a, b)| !a.eq_ignore_ascii_case(b)).count();
    let near = all().filter(|c| c.id.len() == id.len()).min_by_key(|c| differing(c.id)).filter(|c| differing(c.id) < 3);
    match near {
        Some(check) => format!("no check is called {id}; {} is ({})", check.id, check.title),
        None => format!("no check is called {id}"),
    }
}

/// A check of audit or preflight, as it is explained.
struct Entry {
    id: &'static str,
    severity: Severity,
    area: String,
    title: &'static str,
    texts: Vec<&'static str>,
    command: &'static str,
    value: Value,
}

fn all() -> impl Iterator<Item = Entry> {
    let checks = audit::all().map(|c| Entry {
        id: c.id,
        severity: c.severity,
        area: c.area.to_string(),
        title: c.title,
        texts: vec![c.why, c.remedy],
        command: c.command,
        value: to_value(c),
    });
    let features = preflight::all().map(|f| Entry {
        id: f.id,
        severity: f.severity(),
        area: f.area.to_string(),
        title: f.title,
        texts: vec![f.why, f.remedy, f.without],
        command: f.command,
        value: to_value(f),
    });
    checks.chain(features)
}

fn find(id: &str) -> Option<Entry> {
    all().find(|entry| entry.id.eq_ignore_ascii_case(id))
}

struct Checks(Vec<Entry>);

impl Report for Checks {
    fn kind(&self) -> &'static str {
        "CheckList"
    }

    fn items(&self) -> Vec<Value> {
        self.0.iter().map(|entry| entry.value.clone()).collect()
    }

    fn tables(&self, _: bool) -> Vec<Table> {
        let mut table = Table::new(&["CHECK", "SEVERITY", "LOOKS-FOR"]).whole(&["CHECK"]);
        for check in &self.0 {
            table.row([check.id.to_owned(), check.severity.to_string(), check.title.to_owned()]);
        }
        vec![table.footer(crate::ui::count(self.0.len(), "check"))]
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|check| check.id.to_owned()).collect()
    }
}
