//! `kpx migrate rehearse`.

use std::time::Duration;

use serde_json::{Map, Value};

use super::super::Context;
use super::WishArgs;
use super::narrator::stop_flag;
use super::plan::wrapped;
use crate::lab::{
    self, AFTER, Breadth, Break, BreakKind, Came, IDLE, Lab, LabError, LeftOut, Rehearsal, RehearsalOptions, Rehearsed,
    SERVED, Spec, Unlike,
};
use crate::migrate::{Accept, Session};
use crate::severity::Severity;
use crate::ui::{Annotation, Cell, Exit, Failure, Report, Table, Tone, to_value};

const EXAMPLES: &str = "\
Examples:
  Would the migration of this node lose anything? Tried on a laptop, from its snapshot
    $ kpx migrate rehearse --from node-a.tar.zst

  With more traffic for longer, for a CI job: exit code 2 and annotations if anything breaks
    $ kpx migrate rehearse --from node-a.tar.zst --flows 1000 --rate 500 --hold 30 -o github

  With API objects from elsewhere, as a document
    $ kpx migrate rehearse --from node-a --services-from objects.json -o json

The node is rebuilt in network namespaces; nothing outside of them is touched, and all of it is
removed at the end, after errors and after Ctrl-C. What cannot be rebuilt here is listed.
Exit codes: 0 nothing would be lost, 2 something breaks or the plan is blocked, 1 the rehearsal failed.";

/// Arguments of `kpx migrate rehearse`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Flows that stay open all the time, spread over the frontends
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    flows: u32,
    /// Connections per second, which go round all frontends
    #[arg(long, default_value_t = 100, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// Seconds that traffic runs before, between and after, at least; longer where a round of all frontends takes longer
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    hold: u64,
    /// Let the node and its pods use addresses for clients outside (NodePorts, load balancers), too
    #[arg(long)]
    everywhere: bool,
    /// Name of the lab in which it happens
    #[arg(long, default_value = "rehearsal")]
    name: String,
    #[command(flatten)]
    wishes: WishArgs,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    let Some(from) = context.globals.from.clone() else {
        return Err(Failure::usage("a rehearsal needs a snapshot of the node: --from SNAPSHOT")
            .hint("record one on the node: sudo kpx snapshot node-a.tar.zst")
            .hint("see one with the node that comes with kpx: kpx lab demo"));
    };
    let stop = stop_flag()?;
    let node = context.node()?;
    let progress = context.ui.progress(None, "reading the snapshot");
    let plan = Session::open(super::session_options(&context.globals))?.plan(&args.wishes.wishes())?;
    let mut report = RehearsalReport {
        node: plan.node.name.clone(),
        from: from.display().to_string(),
        rules: plan.source.dataplane.clone(),
        frontends: plan.frontends.len(),
        left_out: Vec::new(),
        found: Rehearsed::refused(&plan.blockers),
    };
    if !plan.is_blocked() {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::NotRoot.into());
        }
        let breadth = if args.everywhere { Breadth::Everywhere } else { Breadth::Every };
        let spec = Spec::read_for(&node, &args.name, breadth)?;
        if lab::list()?.iter().any(|lab| lab.names == spec.names && !lab.whole) {
            progress.message("removing what is left of an earlier rehearsal");
            lab::down(&args.name)?;
        }
        progress.message("rebuilding the node");
        let mut lab = Lab::up(&spec, &std::env::current_exe().map_err(LabError::File)?)?;
        report.left_out = lab.left_out().to_vec();
        let found = Rehearsal::new(&mut lab, options(context, args), &stop, &mut |doing| progress.message(doing)).run();
        progress.message("removing the lab");
        drop(lab);
        report.found = found?;
    }
    drop(progress);
    context.ui.report(&report)?;
    Ok(match report.found.came {
        Came::Interrupted => Exit::Interrupted,
        _ if report.found.lossless() => Exit::Fine,
        _ => Exit::ActOn,
    })
}

fn options(context: &Context, args: &Args) -> RehearsalOptions {
    // No agent runs in a lab, and no object changes there.
    let accepted = args.wishes.accept.iter().filter(|accept| **accept != Accept::NoAgent);
    let accepted = [Accept::NoAgent].into_iter().chain(accepted.copied());
    let word = |accept: Accept| to_value(&accept).as_str().unwrap_or_default().to_owned();
    let flags = context.globals.kube_proxy_flag.iter();
    RehearsalOptions {
        flows: args.flows,
        rate: args.rate,
        hold: Duration::from_secs(args.hold),
        plan: accepted.flat_map(|accept| ["--accept".to_owned(), word(accept)]).collect(),
        node: flags.flat_map(|(name, value)| ["--kube-proxy-flag".to_owned(), format!("{name}={value}")]).collect(),
    }
}

/// What a rehearsal found, as it is printed.
struct RehearsalReport {
    node: String,
    from: String,
    rules: String,
    frontends: usize,
    left_out: Vec<LeftOut>,
    found: Rehearsed,
}

/// Lists are cut at this length on a screen; `-o json` has all of it.
const FEW: usize = 12;

impl RehearsalReport {
    fn phases(&self) -> Table {
        let headings = ["PHASE", "SECONDS", "OPEN", "LOST", "GAP-MS", "CONN", "FAILED", "ASKED", "P50-US"];
        let mut table = Table::new(&headings).right(&headings[1..]);
        for phase in &self.found.traffic.phases {
            let latency = phase.connect.map(|latency| latency.p50_us.to_string());
            table.row([
                Cell::from(phase.phase.as_str()),
                format!("{:.1}", phase.seconds).into(),
                phase.flows_open.to_string().into(),
                count(phase.flows_lost),
                format!("{:.1}", phase.longest_gap_ms).into(),
                phase.connects.to_string().into(),
                count(phase.connects_failed),
                phase.frontends_asked.to_string().into(),
                latency.unwrap_or_else(|| "-".to_owned()).into(),
            ]);
        }
        table
    }

    fn breaks(&self) -> Table {
        let mut text = String::new();
        for (number, it) in self.found.breaks.iter().enumerate() {
            let times =
                it.count.filter(|count| *count > 1).map_or_else(String::new, |count| format!(" ({count} times)"));
            text.push_str(&wrapped(&format!("{}. ", number + 1), &format!("{}: {}{times}", it.phase, it.what)));
            for detail in &it.details {
                text.push_str(&wrapped("     ", detail));
            }
            if let Some(remedy) = &it.remedy {
                text.push_str(&wrapped("   remedy: ", remedy));
            }
        }
        for it in &self.found.suspects {
            let line = format!("{} ({}): {} packets", it.rule, it.place, it.packets);
            text.push_str(&wrapped("- dropped under eBPF, nothing before: ", &line));
        }
        Table::default().title("What breaks").footer(text.trim_end().to_owned())
    }

    fn unlike(&self) -> Table {
        let mut table = Table::new(&["SERVICE", "ADDRESS", "FROM", "SHOULD", "DOES"]).whole(&["ADDRESS"]);
        for it in self.found.unlike.iter().take(FEW) {
            table.row([
                it.service.clone(),
                format!("{}/{}", it.addr, it.protocol),
                it.place.clone(),
                it.expected.name().to_owned(),
                does(it),
            ]);
        }
        let table = table.title("Before anything is done, these do not do what kube-proxy's rules alone would");
        match self.found.unlike.len().saturating_sub(FEW) {
            0 => table,
            more => table.footer(format!("and {more} more; -o json lists them")),
        }
    }

    fn left_out(&self) -> Table {
        let mut table = Table::new(&["WHAT", "HERE"]).prose();
        for it in &self.left_out {
            table.row([it.what.clone(), it.why.clone()]);
        }
        table.title("What of the node is not here, or not so")
    }

    fn verdict(&self) -> String {
        let (found, traffic) = (&self.found, &self.found.traffic);
        let sums = format!(
            "{} of {} flows lost, longest gap {:.1} ms ({:.1} ms while nothing was done), {} of {} connections failed",
            traffic.flows_lost,
            traffic.flows_total,
            traffic.longest_gap_ms,
            traffic.idle_gap_ms.unwrap_or_default(),
            traffic.connects_failed,
            traffic.connects_total,
        );
        let things = match found.breaks.len() {
            1 => "1 thing breaks".to_owned(),
            n => format!("{n} things break"),
        };
        match found.came {
            Came::Interrupted => "Stopped on request; the lab is removed, and nothing is said of the node.".to_owned(),
            Came::Refused if traffic.phases.is_empty() => {
                "The plan of this node is blocked: kpx migrate apply would refuse, and change nothing.".to_owned()
            }
            Came::Refused => "The plan is blocked in the rebuilt node: nothing was changed in it.".to_owned(),
            Came::Whole if found.lossless() => format!("Lossless, there and back: {sums}."),
            Came::Whole => format!("Not lossless: {things}. {sums}."),
            Came::Partway => format!("Not lossless: the migration did not come through; {things}. {sums}."),
        }
    }

    /// What was asked and what was not.
    fn covered(&self) -> Option<String> {
        let asked = |phase| self.found.traffic.phase(phase).map(|p| p.frontends_asked);
        let (before, served, after) = (asked(IDLE)?, asked(SERVED)?, asked(AFTER)?);
        let all = self.found.frontends;
        let every = [before, served, after].iter().all(|asked| *asked == all);
        let rounds = if every {
            format!(
                "All {all} frontends, each counted for every place of its clients, were asked before, under eBPF and after"
            )
        } else {
            format!(
                "Of {all} frontends {before} were asked before, {served} under eBPF, {after} after (more: --hold, --rate)"
            )
        };
        Some(format!(
            "{rounds}; flows were open to {} of them (more: --flows).",
            self.found.traffic.frontends_with_flows
        ))
    }
}

fn does(it: &Unlike) -> String {
    it.becomes.map_or_else(|| it.met.clone(), |expect| expect.name().to_owned())
}

/// A number of things gone wrong.
fn count(number: u64) -> Cell {
    Cell::toned(number.to_string(), if number == 0 { Tone::Good } else { Tone::Bad })
}

impl Report for RehearsalReport {
    fn kind(&self) -> &'static str {
        "RehearsalReport"
    }

    fn items(&self) -> Vec<Value> {
        self.found.traffic.phases.iter().map(to_value).collect()
    }

    fn extra(&self) -> Map<String, Value> {
        let Value::Object(mut map) = to_value(&self.found) else { return Map::new() };
        // The phases are the items.
        if let Some(Value::Object(traffic)) = map.get_mut("traffic") {
            traffic.remove("phases");
        }
        map.insert("lossless".to_owned(), self.found.lossless().into());
        map.insert("node".to_owned(), self.node.clone().into());
        map.insert("from".to_owned(), self.from.clone().into());
        map.insert("dataplane".to_owned(), self.rules.clone().into());
        map.insert("planned_frontends".to_owned(), self.frontends.into());
        map.insert("left_out".to_owned(), to_value(&self.left_out));
        map.insert("verdict".to_owned(), self.verdict().into());
        map
    }

    fn tables(&self, _wide: bool) -> Vec<Table> {
        let heading = format!("{}: {}, {} frontends, recorded in {}", self.node, self.rules, self.frontends, self.from);
        let mut tables = vec![Table::default().footer(wrapped("", &heading).trim_end().to_owned())];
        if !self.found.traffic.phases.is_empty() {
            tables.push(self.phases());
        }
        if !self.found.unlike.is_empty() {
            tables.push(self.unlike());
        }
        if !self.left_out.is_empty() {
            tables.push(self.left_out());
        }
        if !self.found.breaks.is_empty() {
            tables.push(self.breaks());
        }
        let verdict: String =
            self.covered().into_iter().chain([self.verdict()]).map(|text| wrapped("", &text)).collect();
        tables.push(Table::default().footer(verdict.trim_end().to_owned()));
        tables
    }

    fn names(&self) -> Vec<String> {
        self.found.traffic.phases.iter().map(|phase| phase.phase.clone()).collect()
    }

    fn annotations(&self) -> Option<Vec<Annotation>> {
        let of = |it: &Break| Annotation {
            severity: if it.kind == BreakKind::Baseline { Severity::Warning } else { Severity::Error },
            title: format!("{}: {}", self.node, it.what),
            text: [&[format!("phase {}", it.phase)][..], &it.details].concat().join("\n"),
        };
        let verdict = Annotation { severity: Severity::Info, title: self.node.clone(), text: self.verdict() };
        Some(self.found.breaks.iter().map(of).chain([verdict]).collect())
    }
}
