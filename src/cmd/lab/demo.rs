//! `kpx lab demo`: a recorded node goes from kube-proxy to eBPF and back, under traffic, told with kpx's own commands.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value};

use super::stop::Stop;
use super::view::TrafficView;
use super::{Amount, EXPORTED, program};
use crate::capture::command;
use crate::cmd::Context;
use crate::lab::{self, Class, Lab, Latency, Place, Spec, Traffic, TrafficReport};
use crate::ui::{Exit, Failure, Report, Table, to_value};

const EXAMPLES: &str = "\
Examples:
  Watch the recording that comes with kpx go to eBPF and back
    $ kpx lab demo

  Rehearse with a snapshot of a node, more traffic, and a report for programs
    $ kpx lab demo --from node-a.tar.zst --flows 1000 --hold 20 -o json";

/// Arguments of `kpx lab demo`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Demo {
    /// Name of the lab
    #[arg(long, default_value = "demo")]
    name: String,
    /// Seconds to let traffic run before, between and after the changes
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    hold: u64,
    /// How much traffic.
    #[command(flatten)]
    amount: Amount,
}

/// Phase in which nothing is done yet.
const IDLE: &str = "idle";
/// Phase in which the hooks serve.
const SERVED: &str = "ebpf";
/// Phase after the way back.
const AFTER: &str = "rules-again";
/// Lines of a command's output that are shown; all of it is there for whoever runs the command.
const LINES: usize = 60;
/// The same for lists of many things of one kind.
const FEW: usize = 12;

/// A command that the demonstration ran.
#[derive(Clone, Debug, Serialize)]
struct Ran {
    /// The command line, without the options that name the lab's node.
    command: String,
    /// Its exit code; null if it was killed.
    exit_code: Option<i32>,
    /// How long it took.
    seconds: f64,
}

pub(super) fn run(context: &mut Context, args: &Demo) -> Result<Exit, Failure> {
    let stop = Stop::on_signals()?;
    let spec = match context.globals.from {
        Some(_) => Spec::read(&context.node()?, &args.name)?,
        None => Spec::builtin(&args.name)?,
    };
    if lab::list()?.iter().any(|lab| lab.names == spec.names && !lab.whole) {
        context.ui.note(&format!("removing what is left of an earlier lab {}", args.name));
        lab::down(&args.name)?;
    }
    let progress = context.ui.progress(None, "bringing up the node");
    let lab = Lab::up(&spec, &program()?)?;
    drop(progress);
    let mut story = Story { context, lab, stop, ran: Vec::new() };
    story.introduce(&spec)?;
    let told = story.tell(args);
    let Story { context, lab, ran, stop } = story;
    drop(lab);
    let (traffic, outcome) = told?;
    let report = DemoReport { traffic, ran, outcome, node: spec.node_name, from: spec.from };
    context.ui.say("\nWhat the traffic went through")?;
    context.ui.report(&report)?;
    context.ui.say_wrapped(&format!("\n{}", report.verdict()))?;
    Ok(match report.outcome {
        _ if stop.asked() => Exit::Interrupted,
        Outcome::Failed => Exit::Failed,
        Outcome::Told if report.traffic.clean() => Exit::Fine,
        Outcome::Blocked | Outcome::Told => Exit::ActOn,
        Outcome::Interrupted => Exit::Interrupted,
    })
}

/// How far the story came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// To its end.
    Told,
    /// The plan is blocked: nothing was changed.
    Blocked,
    /// A command failed.
    Failed,
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

struct Story<'a> {
    context: &'a mut Context,
    lab: Lab,
    stop: Stop,
    ran: Vec<Ran>,
}

impl Story<'_> {
    fn introduce(&mut self, spec: &Spec) -> Result<(), Failure> {
        let mut table = Table::new(&["NODE", "FACT"]);
        let targets = |place| {
            let mut by_answer: BTreeMap<&str, usize> = BTreeMap::new();
            for target in self.lab.targets(place) {
                *by_answer.entry(target.expect.name()).or_default() += 1;
            }
            by_answer.iter().map(|(word, number)| format!("{number} {word}")).collect::<Vec<_>>().join(", ")
        };
        table.row(["name", &spec.node_name]);
        table.row(["recorded in", &spec.from]);
        table.row(["rules", &spec.rules_summary()]);
        table.row(["frontends, backends", &format!("{}, {}", spec.frontends, spec.backends)]);
        for place in Place::ALL {
            table.row([format!("clients: {place}"), format!("Services that {}", targets(place))]);
        }
        let text = table.render(None, false, false);
        self.context.ui.say(&format!("The node\n{text}"))?;
        let options = self.lab.options().join(" ");
        self.context.ui.say(&format!("Every command below has these options, which stand for this node:\n  {options}"))
    }

    /// The story, and what the traffic went through meanwhile.
    fn tell(&mut self, args: &Demo) -> Result<(TrafficReport, Outcome), Failure> {
        self.chapter("Do the rules do what the API asks for?")?;
        self.kpx(&["diff", "api", "iptables"], &[0, 2])?;
        self.chapter("Traffic starts, and nothing is done to the node")?;
        let mut traffic = Traffic::start(&mut self.lab, &args.amount.options())?;
        traffic.phase(IDLE)?;
        self.hold(args.hold, "traffic, untouched");
        let outcome = self.migrate(&mut traffic, args)?;
        let progress = self.context.ui.progress(None, "ending the flows, comparing both ends' accounts");
        let report = traffic.stop()?;
        drop(progress);
        Ok((report, outcome))
    }

    fn migrate(&mut self, traffic: &mut Traffic, args: &Demo) -> Result<Outcome, Failure> {
        let plan = self.lab.names().state_dir().join("demo-plan.json");
        let plan = plan.to_string_lossy().into_owned();
        self.chapter("The plan")?;
        traffic.phase("plan")?;
        // What plays kube-proxy in a lab is its recorded answers.
        let [stop, start] = self.lab.proxy_commands();
        let stopping = ["--stop-command", &stop, "--start-command", &start, "--accept", "no-agent"];
        match self.kpx(&[&["migrate", "plan", "--out", &plan][..], &stopping].concat(), &[0, 2])? {
            Some(0) => {}
            Some(2) => return Ok(Outcome::Blocked),
            _ => return Ok(Outcome::Failed),
        }
        if self.stop.asked() {
            return Ok(Outcome::Interrupted);
        }
        self.chapter("Apply: first the sockets of this node, then every packet, then the flows that run already")?;
        traffic.phase("apply")?;
        let applied = self.kpx(&["migrate", "apply", &plan, "--yes"], &[0])? == Some(0);
        if applied {
            self.chapter("Now eBPF serves")?;
            traffic.phase(SERVED)?;
            let began = Instant::now();
            for words in [
                &["migrate", "verify"][..],
                &["inspect", "services", "--via", "ebpf"],
                &["inspect", "programs"],
                &["migrate", "status"],
            ] {
                if !self.stop.asked() {
                    self.kpx(words, &[0])?;
                }
            }
            self.hold(args.hold.saturating_sub(began.elapsed().as_secs()), "traffic, served by eBPF");
        }
        self.chapter("And back: the rules serve again")?;
        traffic.phase("rollback")?;
        let back = self.kpx(&["migrate", "rollback"], &[0])? == Some(0);
        traffic.phase(AFTER)?;
        if !self.stop.asked() {
            self.kpx(&["diff", "api", "iptables"], &[0, 2])?;
        }
        self.hold(args.hold, "traffic, served by the rules again");
        Ok(match self.ran.iter().all(|ran| matches!(ran.exit_code, Some(0 | 2))) {
            _ if self.stop.asked() => Outcome::Interrupted,
            true if applied && back => Outcome::Told,
            _ => Outcome::Failed,
        })
    }

    fn chapter(&mut self, title: &str) -> Result<(), Failure> {
        self.context.ui.say(&format!("\n{title}"))
    }

    /// Runs a command of kpx on the lab's node and shows what it prints; its exit code.
    fn kpx(&mut self, words: &[&str], accepted: &[i32]) -> Result<Option<i32>, Failure> {
        let shown = format!("kpx {}", words.join(" "));
        let options = self.lab.options();
        let args = options.iter().map(String::as_str).chain(EXPORTED).chain(words.iter().copied()).map(OsString::from);
        let progress = self.context.ui.progress(None, shown.clone());
        let began = Instant::now();
        let output = command::run(&program()?.to_string_lossy(), args, None).map_err(lab::LabError::from)?;
        let seconds = began.elapsed().as_secs_f64();
        drop(progress);
        let exit_code = output.status.code();
        self.ran.push(Ran { command: shown.clone(), exit_code, seconds });
        let failed = !exit_code.is_some_and(|code| accepted.contains(&code));
        let limit = match words {
            _ if failed => usize::MAX,
            ["inspect", ..] => FEW,
            _ => LINES,
        };
        let mut lines = vec![format!("$ {shown}")];
        for bytes in [&output.stderr, &output.stdout] {
            lines.extend(told(&String::from_utf8_lossy(bytes), &options, limit));
        }
        self.context.ui.say(&lines.join("\n"))?;
        if failed {
            let code = exit_code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
            self.context.ui.warn(&format!("{shown} ended with {code}"));
        }
        Ok(exit_code)
    }

    /// Lets traffic run for a while, unless somebody wants to stop.
    fn hold(&mut self, seconds: u64, what: &str) {
        let progress = self.context.ui.progress(Some(seconds), what);
        for _ in 0..seconds {
            self.stop.sleep(Duration::from_secs(1));
            progress.inc(1);
        }
    }
}

/// What a command printed, without the options that stand for the lab's node and without hints at what the story does next
/// anyway; of a long list the first lines and the last, which is the sum.
fn told(text: &str, options: &[String], limit: usize) -> Vec<String> {
    let mut text = text.to_owned();
    for pair in options.chunks(2) {
        text = text.replace(&format!(" {}", pair.join(" ")), "");
    }
    let mut lines: Vec<String> =
        text.lines().filter(|line| !line.starts_with("hint: ")).map(|line| line.trim_end().to_owned()).collect();
    if lines.len() > limit.saturating_add(2) {
        let more = lines.len() - limit - 1;
        lines.splice(limit..limit + more, [format!("… {more} lines more …")]);
    }
    lines
}

/// What `kpx lab demo` reports.
struct DemoReport {
    traffic: TrafficReport,
    ran: Vec<Ran>,
    outcome: Outcome,
    node: String,
    from: String,
}

impl DemoReport {
    /// The time of connects in a phase.
    fn connect(&self, phase: &str) -> Option<Latency> {
        self.traffic.phase(phase).and_then(|phase| phase.connect)
    }

    fn verdict(&self) -> String {
        let traffic = &self.traffic;
        let mut lines = vec![format!(
            "flows lost: {} of {}, longest gap: {:.1} ms ({:.1} ms while nothing was done), connects failed: {} of {}",
            traffic.flows_lost,
            traffic.flows_total,
            traffic.longest_gap_ms,
            traffic.idle_gap_ms.unwrap_or_default(),
            traffic.connects_failed,
            traffic.connects_total
        )];
        if let (Some(rules), Some(ebpf)) = (self.connect(IDLE), self.connect(SERVED)) {
            lines.push(format!(
                "connect to a Service, median: {} µs by the rules, {} µs by eBPF",
                rules.p50_us, ebpf.p50_us
            ));
        }
        lines.push(
            match self.outcome {
                Outcome::Told if traffic.clean() => "Nothing was lost, on the way there and on the way back.",
                Outcome::Told => "The migration went through, but traffic was hurt: see above.",
                Outcome::Blocked => "The plan is blocked: nothing was changed on the node.",
                Outcome::Failed => "A command failed: see above.",
                Outcome::Interrupted => "Stopped on request; the lab is removed.",
            }
            .to_owned(),
        );
        lines.join("\n")
    }
}

impl Report for DemoReport {
    fn kind(&self) -> &'static str {
        "DemoReport"
    }

    fn items(&self) -> Vec<Value> {
        TrafficView(&self.traffic).items()
    }

    fn extra(&self) -> Map<String, Value> {
        let mut map = TrafficView(&self.traffic).extra();
        map.insert("node".to_owned(), self.node.clone().into());
        map.insert("from".to_owned(), self.from.clone().into());
        map.insert("outcome".to_owned(), to_value(&self.outcome));
        map.insert("commands".to_owned(), to_value(&self.ran));
        map.insert("connect_before".to_owned(), to_value(&self.connect(IDLE)));
        map.insert("connect_ebpf".to_owned(), to_value(&self.connect(SERVED)));
        map.insert("connect_after".to_owned(), to_value(&self.connect(AFTER)));
        map
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        TrafficView(&self.traffic).tables(wide)
    }

    fn names(&self) -> Vec<String> {
        Class::ALL.iter().map(|class| class.name().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_output_keeps_its_head_and_its_sum_and_loses_the_options() {
        let options = ["--netns", "n", "--state-dir", "/s"].map(str::to_owned);
        let text = "run: kpx diff a b --state-dir /s --netns n -o json\nhint: more\n1\n2\n3\n4\n4 in all\n";
        assert_eq!(told(text, &options, 2), ["run: kpx diff a b -o json", "1", "… 3 lines more …", "4 in all"]);
        assert_eq!(told(text, &options, usize::MAX).len(), 6);
    }
}
