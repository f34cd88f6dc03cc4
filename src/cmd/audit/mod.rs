//! `kpx audit` and `kpx explain`.

mod cost;
mod explain;
mod files;
mod measure;
mod report;

use clap::ValueEnum;

pub(super) use self::explain::{Args as ExplainArgs, page, run as explain};
use self::report::AuditReport;
use super::Context;
use super::checks::{self, FailOn, FileReport};
use crate::audit::{self, Area, Audit, Check, Judged, Severity};
use crate::ui::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  What did the old dataplanes leave on this node, and what of it is wrong?
    $ sudo kpx audit

  The same of a recorded node, against the cluster's objects, for a CI system
    $ kpx audit --from node-a.tar.zst --services-from objects.json --report junit=audit.xml

  Warnings and worse about iptables, but not those of Docker's rules
    $ kpx audit iptables --min-severity warning --ignore KPX-A102=DOCKER

  How long a full sync takes with these rules, tried apart from the node's own
    $ sudo kpx audit iptables --measure

Reading changes nothing: no table is created and no module loaded by looking.
Exit code 2: something at or above --fail-on was found. docs/checks.md lists the checks.";

/// Arguments of `kpx audit`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// What to look at
    #[arg(value_enum, default_value_t, value_name = "AREA")]
    scope: Scope,
    /// Show findings of this severity and worse
    #[arg(long, value_enum, default_value = "info", value_name = "SEVERITY")]
    min_severity: Severity,
    /// Exit with code 2 for findings of this severity and worse
    #[arg(long, value_enum, default_value_t, value_name = "SEVERITY")]
    fail_on: FailOn,
    /// Leave out a check, or only its evidence with a text in it
    #[arg(long, value_name = "ID[=TEXT]", value_parser = Ignore::parse)]
    ignore: Vec<Ignore>,
    /// Measure how long the iptables rules take to load, in a network namespace of its own
    #[arg(long)]
    measure: bool,
    /// Write a report to a file besides: junit or markdown
    #[arg(long, value_name = "FORMAT=FILE", value_parser = FileReport::parse)]
    report: Vec<FileReport>,
}

/// What to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Scope {
    /// Everything
    #[default]
    All,
    /// iptables rules, legacy and nft, IPv4 and IPv6
    Iptables,
    /// kube-proxy's nftables tables
    Nftables,
    /// What IPVS mode leaves
    Ipvs,
    /// Connection tracking
    Conntrack,
    /// BPF programs of others
    Bpf,
    /// kube-proxy itself and the node around it
    Node,
    /// The rules against the API
    Services,
}

impl Scope {
    fn areas(self) -> Vec<Area> {
        let of =
            |area: &Area| self == Self::All || self.to_possible_value().is_some_and(|v| v.matches(area.word(), false));
        Area::ALL.into_iter().filter(of).collect()
    }
}

/// `KPX-A102` or `KPX-A102=DOCKER`.
#[derive(Clone, Debug)]
struct Ignore {
    check: &'static Check,
    text: Option<String>,
}

impl Ignore {
    fn parse(value: &str) -> Result<Self, String> {
        let (id, text) = match value.split_once('=') {
            Some((id, text)) => (id, Some(text.to_owned())),
            None => (value, None),
        };
        let check = audit::find(id).ok_or_else(|| explain::unknown(id))?;
        Ok(Self { check, text })
    }

    /// Takes out of the evidence what is ignored, and tells how much.
    fn apply(&self, judged: &mut [Judged]) -> usize {
        let Some(found) = judged.iter_mut().find(|j| j.check.id == self.check.id).and_then(|j| j.found.as_mut().ok())
        else {
            return 0;
        };
        let before = found.len();
        match &self.text {
            None => found.clear(),
            Some(text) => found.retain(|e| !e.at.contains(text) && !e.text.contains(text)),
        }
        before - found.len()
    }
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    let node = context.node()?;
    let progress = context.ui.progress(None, format!("reading {}", node.label()));
    let Audit { mut judged, costs, lock } = audit::audit(&node, &args.scope.areas());
    drop(progress);
    let loads = args.measure.then(|| {
        let _progress = context.ui.progress(None, "loading the rules apart".to_owned());
        measure::measure(&node)
    });
    let loads = loads.transpose()?;
    let ignored = args.ignore.iter().map(|ignore| ignore.apply(&mut judged)).sum();
    let threshold = args.fail_on.threshold();
    let fails = |j: &&Judged| j.fired() && threshold.is_some_and(|threshold| j.check.severity >= threshold);
    let failing = judged.iter().filter(fails).count();
    let report =
        AuditReport { node: node.label(), judged, costs, lock, loads, ignored, min_severity: args.min_severity };
    context.ui.report(&report)?;
    checks::write(&args.report, &report, || files::junit(&report, threshold))?;
    Ok(if failing > 0 { Exit::ActOn } else { Exit::Fine })
}
