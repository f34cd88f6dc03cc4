//! `kpx doctor`.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Context, migrate::duration};
use crate::doctor::{self, Ailment, Asked, Diagnosis, Finding, Judged, Patient, Target, probe};
use crate::preflight;
use crate::severity::Severity;
use crate::ui::{Annotation, Cell, Exit, Failure, Report, Table, Tone, to_value};

const EXAMPLES: &str = "\
Examples:
  Why does this Service not answer?
    $ sudo kpx doctor shop/cart

  Why does this client not get to a NodePort, or with another address than its own?
    $ sudo kpx doctor 192.0.2.7:30080/TCP --from-ip 203.0.113.9

  What can be said of a recorded node
    $ kpx doctor shop/session --from node-a

Questions are asked in the order in which a connection would fail; the first that fails names the cause, and what stands behind it
is often its consequence. TCP connections are made to the Service from the host and from a pod, and closed without a word; UDP
sockets are connected only. Exit code 2: something is wrong.";

/// Arguments of `kpx doctor`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// What is complained of: a Service, or where it should answer [default: all Services]
    #[arg(value_name = "NS/SERVICE|IP[:PORT[/PROTOCOL]]")]
    target: Option<Target>,
    /// The client that complains
    #[arg(long, value_name = "IP")]
    from_ip: Option<IpAddr>,
    /// A process of the pod to connect from [default: any that is found]
    #[arg(long, value_name = "PID")]
    pod_process: Option<u32>,
    /// Make no connections
    #[arg(long)]
    no_connect: bool,
    /// How long to watch the counters of drops
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    listen: Duration,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    let node = context.node()?;
    let asked = Asked {
        target: args.target.clone().unwrap_or_default(),
        client: args.from_ip,
        pod: args.pod_process,
        connect: !args.no_connect,
        listen: args.listen,
    };
    let target = asked.target.to_string();
    let cgroup = preflight::cgroup_root(context.globals.cgroup());
    let progress = context.ui.progress(None, "examining");
    let places = context.globals.places();
    let diagnosis = node
        .at_one_moment(|node| Patient::read(node, &places, cgroup, asked).map(|patient| doctor::examine(&patient)))?;
    drop(progress);
    let report = DoctorReport { node: node.label(), target, diagnosis, symbols: crate::ui::unicode() };
    context.ui.report(&report)?;
    Ok(if report.diagnosis.cause().is_some() { Exit::ActOn } else { Exit::Fine })
}

/// `kpx doctor-probe`: the child process that connects. Not for people.
pub(super) fn probe(context: &mut Context) -> Result<Exit, Failure> {
    let request = std::io::read_to_string(std::io::stdin());
    let request = request.map_err(|e| Failure::new(format!("cannot read the request: {e}")))?;
    let answer = probe::serve(&request);
    context.ui.raw(&answer.map_err(|e| Failure::new(format!("cannot understand the request: {e}")))?)?;
    Ok(Exit::Fine)
}

struct DoctorReport {
    node: String,
    target: String,
    diagnosis: Diagnosis,
    /// Whether the terminal takes more than ASCII.
    symbols: bool,
}

/// The words for an answer: for scripts, its sign, its sign in ASCII, and how it is shown.
const fn words(finding: &Finding) -> (&'static str, &'static str, &'static str, Tone) {
    match finding {
        Finding::Passed(_) => ("passed", "√", "+", Tone::Good),
        Finding::Remark(_) => ("remark", "‼", "!", Tone::Warning),
        Finding::Failed(_) => ("failed", "×", "x", Tone::Bad),
        Finding::Unknown(_) => ("cannot tell", "?", "?", Tone::Quiet),
    }
}

const fn ailment(finding: &Finding) -> Option<&Ailment> {
    match finding {
        Finding::Remark(ailment) | Finding::Failed(ailment) => Some(ailment),
        Finding::Passed(_) | Finding::Unknown(_) => None,
    }
}

fn text(finding: &Finding) -> &str {
    match finding {
        Finding::Passed(text) | Finding::Unknown(text) => text,
        Finding::Remark(ailment) | Finding::Failed(ailment) => &ailment.text,
    }
}

/// An answer with all there is to say.
fn explained(finding: &Finding) -> String {
    let mut lines = vec![text(finding).to_owned()];
    if let Some(ailment) = ailment(finding) {
        let evidence = ailment.evidence.iter().map(|evidence| match evidence.text.as_str() {
            "" => format!("  {}", evidence.at),
            text => format!("  {}: {text}", evidence.at),
        });
        lines.extend(evidence);
        lines.push(format!("  $ {}", ailment.next));
    }
    lines.join("\n")
}

impl DoctorReport {
    fn summary(&self) -> String {
        let count = |wanted: fn(&Finding) -> bool| self.diagnosis.judged.iter().filter(|j| wanted(&j.finding)).count();
        let counts = format!(
            "{}, {}: {} passed, {} failed, {} cannot be told",
            self.node,
            self.target,
            count(|f| matches!(f, Finding::Passed(_) | Finding::Remark(_))),
            count(|f| matches!(f, Finding::Failed(_))),
            count(|f| matches!(f, Finding::Unknown(_))),
        );
        let remark = || {
            let remarks = self.diagnosis.judged.iter().filter(|j| matches!(j.finding, Finding::Remark(_)));
            let causes: Vec<String> = remarks.filter_map(|j| Some(ailment(&j.finding)?.cause.to_string())).collect();
            match causes.as_slice() {
                [] => "nothing wrong was found".to_owned(),
                causes => {
                    format!("nothing wrong was found; as asked for, and often complained of: {}", causes.join(", "))
                }
            }
        };
        match self.diagnosis.cause() {
            Some((_, ailment)) => {
                format!("{counts}\ncause: {} ({})\nnext: {}", ailment.text, ailment.cause, ailment.next)
            }
            None => format!("{counts}\n{}", remark()),
        }
    }
}

impl Report for DoctorReport {
    fn kind(&self) -> &'static str {
        "DoctorReport"
    }

    fn items(&self) -> Vec<Value> {
        let item = |judged: &Judged| {
            let ailment = ailment(&judged.finding);
            json!({
                "check": judged.check.name,
                "question": judged.check.question,
                "result": words(&judged.finding).0.replace(' ', "-"),
                "finding": text(&judged.finding),
                "cause": ailment.map(|ailment| ailment.cause),
                "evidence": ailment.map(|ailment| &ailment.evidence),
                "next": ailment.map(|ailment| &ailment.next),
            })
        };
        self.diagnosis.judged.iter().map(item).collect()
    }

    fn extra(&self) -> Map<String, Value> {
        let cause = self.diagnosis.cause().map(|(check, ailment)| {
            json!({ "check": check.name, "cause": ailment.cause, "finding": ailment.text, "next": ailment.next })
        });
        Map::from_iter([
            ("node".to_owned(), json!(self.node)),
            ("target".to_owned(), json!(self.target)),
            ("cause".to_owned(), to_value(&cause)),
        ])
    }

    fn tables(&self, _wide: bool) -> Vec<Table> {
        let mut table = Table::new(&["QUESTION", "RESULT", "FINDING"]).whole(&["RESULT"]);
        for judged in &self.diagnosis.judged {
            let (word, sign, ascii, tone) = words(&judged.finding);
            table.row([
                Cell::from(judged.check.question),
                Cell::toned(format!("{} {word}", if self.symbols { sign } else { ascii }), tone),
                Cell::from(explained(&judged.finding)),
            ]);
        }
        vec![table.footer(self.summary())]
    }

    fn names(&self) -> Vec<String> {
        let failed = self.diagnosis.judged.iter().filter_map(Judged::failed);
        failed.map(|ailment| ailment.cause.to_string()).collect()
    }

    fn annotations(&self) -> Option<Vec<Annotation>> {
        let annotation = |judged: &Judged| {
            Some(Annotation {
                severity: if judged.failed().is_some() { Severity::Error } else { Severity::Warning },
                title: format!("{} {}", judged.check.name, ailment(&judged.finding)?.cause),
                text: explained(&judged.finding),
            })
        };
        Some(self.diagnosis.judged.iter().filter_map(annotation).collect())
    }
}
