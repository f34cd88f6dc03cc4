//! `kpx preflight`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::Context;
use super::checks::{self, Case, FailOn, FileReport, Outcome};
use crate::capture::Node;
use crate::preflight::{
    self, Advice, Answer, Area, Feature, Judged, Kernel, KernelError, Leaning, Places, Preflight, Sources, Target,
};
use crate::severity::Severity;
use crate::ui::{Annotation, Cell, Exit, Failure, Report, Table, Tone, to_value};

const EXAMPLES: &str = "\
Examples:
  What can this kernel and node do? Root gets more answers
    $ sudo kpx preflight

  Will the kernel of an image do, and has it tcx? For a CI system
    $ kpx preflight --kernel-config config-6.12 --require tcx --report junit=kernel.xml

  The same of a node that was recorded, for Cilium's replacement of kube-proxy
    $ kpx preflight --from node-a.tar.zst --target cilium

Trying makes the kernel load modules of what is tried; --no-try only reads. Nothing is attached to the node and nothing stays.
Exit code 2: something at or above --fail-on is missing. docs/preflight.md has examples for CI.";

/// Arguments of `kpx preflight`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Whose needs to ask for
    #[arg(long, value_enum, default_value_t, value_name = "TARGET")]
    target: Target,
    /// A feature that must be there, by identifier or name; one that cannot be told is not
    #[arg(long, value_name = "FEATURE", num_args = 1.., value_delimiter = ',', value_parser = feature)]
    require: Vec<&'static Feature>,
    /// A kernel's configuration: plain, packed, or in a vmlinuz with CONFIG_IKCONFIG
    #[arg(long, value_name = "FILE")]
    kernel_config: Option<PathBuf>,
    /// That kernel's BTF: of /sys/kernel/btf/vmlinux, or in a vmlinux
    #[arg(long, value_name = "FILE")]
    btf: Option<PathBuf>,
    /// That kernel's version [default: as its configuration says]
    #[arg(long, value_name = "VERSION")]
    kernel_version: Option<String>,
    /// Try nothing: go by what may be read
    #[arg(long)]
    no_try: bool,
    /// Exit with code 2 for what is missing, of this severity and worse
    #[arg(long, value_enum, default_value_t, value_name = "SEVERITY")]
    fail_on: FailOn,
    /// Leave out a feature, by identifier or name
    #[arg(long, value_name = "FEATURE", value_parser = feature)]
    ignore: Vec<&'static Feature>,
    /// Write a report to a file besides: junit or markdown
    #[arg(long, value_name = "FORMAT=FILE", value_parser = FileReport::parse)]
    report: Vec<FileReport>,
}

fn feature(word: &str) -> Result<&'static Feature, String> {
    preflight::find(word).ok_or_else(|| {
        let near = preflight::all().find(|feature| feature.name.contains(word) || word.contains(feature.name));
        let near = near.map(|feature| format!("; {} is ({})", feature.name, feature.id)).unwrap_or_default();
        format!("no feature is called {word}{near}")
    })
}

impl Args {
    /// Whether the question is about another kernel than the running one.
    const fn is_offline(&self) -> bool {
        self.kernel_config.is_some() || self.btf.is_some() || self.kernel_version.is_some()
    }

    /// The kernel in question: the node's, if one is looked at, with what the flags tell of it; another one by its version.
    fn kernel(&self, node: Option<&Node>) -> Result<Kernel, KernelError> {
        let mut kernel = match (&self.kernel_version, node) {
            (Some(release), _) => {
                Kernel { version: Some(release.parse()?), release: Some(release.clone()), ..Kernel::default() }
            }
            (None, Some(node)) => Kernel::of(node),
            (None, None) => Kernel::default(),
        };
        if let Some(path) = &self.kernel_config {
            kernel.config = Some(preflight::read_config(path)?);
        }
        if let Some(path) = &self.btf {
            kernel.btf = Some(preflight::read_btf(path)?);
        }
        kernel.version = kernel.version.or_else(|| kernel.config.as_ref()?.version());
        kernel.release = kernel.release.or_else(|| kernel.version.map(|version| version.to_string()));
        Ok(kernel)
    }
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    let recorded = context.globals.from.is_some();
    let node = if args.is_offline() && !recorded { None } else { Some(context.node()?) };
    let live = !recorded && !args.is_offline();
    let kernel = args.kernel(node.as_ref())?;
    let cgroup = preflight::cgroup_root(context.globals.cgroup());
    let cgroup = cgroup.as_deref().map_err(String::as_str);
    let trials = if live && !args.no_try {
        let progress = context.ui.progress(None, "trying the kernel");
        let trials = preflight::try_here(cgroup).map_err(|error| crate::error::with_causes(&error));
        drop(progress);
        trials
    } else {
        Err("not tried".to_owned())
    };
    if let (true, Err(reason)) = (live && !args.no_try, &trials) {
        context.ui.warn(reason);
    }
    let sources = Sources {
        here: live.then_some(Places { cgroup, pins: &context.globals.bpffs }),
        trials: trials.as_ref().map_err(String::as_str),
        node: node.as_ref(),
        kernel: &kernel,
    };
    let Preflight { mut judged, advice } = match &node {
        Some(node) => node.at_one_moment(|_| preflight::judge(&sources, args.target, &args.require)),
        None => preflight::judge(&sources, args.target, &args.require),
    };
    let before = judged.len();
    judged.retain(|j| !args.ignore.iter().any(|ignored| ignored.id == j.feature.id));
    let report = PreflightReport {
        node: node.as_ref().map_or_else(|| "kernel files".to_owned(), crate::capture::Node::label),
        kernel: kernel.release.clone(),
        target: args.target,
        ignored: before - judged.len(),
        judged,
        advice,
        symbols: crate::ui::unicode(),
    };
    let threshold = args.fail_on.threshold();
    context.ui.report(&report)?;
    checks::write(&args.report, &report, || report.junit(threshold))?;
    Ok(if report.judged.iter().any(|j| fails(j, threshold)) { Exit::ActOn } else { Exit::Fine })
}

/// `kpx preflight-trial`: the child process that tries. Not for people.
pub(super) fn trial(context: &mut Context) -> Result<Exit, Failure> {
    let request = std::io::read_to_string(std::io::stdin());
    let request = request.map_err(|e| Failure::new(format!("cannot read the request: {e}")))?;
    let answer = preflight::trial::serve(&request);
    context.ui.raw(&answer.map_err(|e| Failure::new(format!("cannot understand the request: {e}")))?)?;
    Ok(Exit::Fine)
}

/// Whether a feature's absence counts as a failure.
fn fails(judged: &Judged, threshold: Option<Severity>) -> bool {
    judged.fired() && threshold.is_some_and(|threshold| judged.severity >= threshold)
}

struct PreflightReport {
    node: String,
    kernel: Option<String>,
    target: Target,
    judged: Vec<Judged>,
    ignored: usize,
    advice: Advice,
    /// Whether the terminal takes more than ASCII.
    symbols: bool,
}

impl PreflightReport {
    fn with(&self, answer: Answer) -> usize {
        self.judged.iter().filter(|j| j.finding.answer == answer).count()
    }

    fn of_severity(&self, severity: Severity) -> usize {
        self.judged.iter().filter(|j| j.fired() && j.severity == severity).count()
    }

    fn summary(&self) -> String {
        let kernel = self.kernel.as_ref().map(|kernel| format!(", Linux {kernel}")).unwrap_or_default();
        let text = format!(
            "{}{kernel}: {} work, {} do not, {} cannot be told; {}, {}",
            self.node,
            self.with(Answer::Works),
            self.with(Answer::Lacks),
            self.with(Answer::Unknown),
            crate::ui::count(self.of_severity(Severity::Error), "error"),
            crate::ui::count(self.of_severity(Severity::Warning), "warning"),
        );
        match self.ignored {
            0 => text,
            ignored => format!("{text}, {ignored} ignored"),
        }
    }

    /// The answer with its sign.
    fn result(&self, judged: &Judged) -> Cell {
        let (sign, ascii, tone) = match (judged.finding.answer, judged.severity) {
            (Answer::Works, _) => ("√", "+", Tone::Good),
            (Answer::Unknown, _) if !judged.required => ("?", "?", Tone::Quiet),
            (_, Severity::Error) => ("×", "x", Tone::Bad),
            (_, Severity::Warning) => ("‼", "!", Tone::Warning),
            (_, Severity::Info) => ("·", "-", Tone::Quiet),
        };
        Cell::toned(format!("{} {}", if self.symbols { sign } else { ascii }, judged.finding.answer), tone)
    }

    fn junit(&self, threshold: Option<Severity>) -> String {
        let case = |judged: &Judged| {
            let Judged { feature, finding, severity, .. } = judged;
            let outcome = if fails(judged, threshold) {
                Outcome::Failed { message: finding.reason.clone(), severity: *severity, text: explained(judged) }
            } else if finding.answer == Answer::Unknown {
                Outcome::Skipped(finding.reason.clone())
            } else {
                Outcome::Passed(Some(format!("{}: {}", finding.answer, finding.reason)))
            };
            Case {
                name: format!("{} {}", feature.id, feature.title),
                class: format!("kpx.preflight.{}", feature.area),
                outcome,
            }
        };
        let suite = |area: Area| {
            (area.word(), self.judged.iter().filter(|j| j.feature.area == area).map(case).collect::<Vec<_>>())
        };
        checks::junit(&format!("kpx preflight of {}", self.node), Area::ALL.map(suite))
    }
}

/// What is not there, with all there is to say.
fn explained(judged: &Judged) -> String {
    let Judged { feature, finding, .. } = judged;
    let mut lines = vec![feature.title.to_owned(), format!("  {}", finding.reason)];
    if finding.answer == Answer::Lacks || judged.required {
        lines.extend([format!("Without it: {}", feature.without), feature.remedy.to_owned()]);
        lines.push(format!("  $ {}", feature.command));
    }
    lines.join("\n")
}

impl Report for PreflightReport {
    fn kind(&self) -> &'static str {
        "PreflightReport"
    }

    fn items(&self) -> Vec<Value> {
        let item = |judged: &Judged| {
            let mut item = to_value(judged.feature);
            item["severity"] = to_value(&judged.severity);
            item["required"] = json!(judged.required);
            item["answer"] = to_value(&judged.finding.answer);
            item["basis"] = to_value(&judged.finding.basis);
            item["reason"] = json!(judged.finding.reason);
            item
        };
        self.judged.iter().map(item).collect()
    }

    fn extra(&self) -> Map<String, Value> {
        let summary = json!({
            "works": self.with(Answer::Works),
            "doesNot": self.with(Answer::Lacks),
            "cannotTell": self.with(Answer::Unknown),
            "error": self.of_severity(Severity::Error),
            "warning": self.of_severity(Severity::Warning),
            "info": self.of_severity(Severity::Info),
            "ignored": self.ignored,
        });
        Map::from_iter([
            ("node".to_owned(), json!(self.node)),
            ("kernel".to_owned(), json!(self.kernel)),
            ("target".to_owned(), to_value(&self.target)),
            ("summary".to_owned(), summary),
            ("advice".to_owned(), to_value(&self.advice)),
        ])
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        let mut tables = Vec::new();
        for area in Area::ALL {
            let whole = ["CHECK", "RESULT", "BASIS"];
            let mut table = Table::new(&["CHECK", "RESULT", "BASIS", "FINDING"]).whole(&whole).title(area.word());
            let shown = |j: &&Judged| j.feature.area == area && (wide || !j.is_open());
            for judged in self.judged.iter().filter(shown) {
                let Judged { feature, finding, .. } = judged;
                let quiet = finding.answer == Answer::Works && !wide && area != Area::Cluster;
                table.row([
                    Cell::from(feature.id),
                    self.result(judged),
                    Cell::from(finding.basis.map_or_else(|| "<none>".to_owned(), |basis| basis.to_string())),
                    Cell::from(if quiet { feature.title.to_owned() } else { explained(judged) }),
                ]);
            }
            if !table.rows.is_empty() {
                tables.push(table);
            }
        }
        if !wide {
            let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for judged in self.judged.iter().filter(|j| j.is_open()) {
                reasons.entry(&judged.finding.reason).or_default().push(judged.feature.name);
            }
            let mut open = Table::new(&["CANNOT-TELL", "BECAUSE"]);
            for (reason, names) in reasons {
                open.row([names.join(", "), reason.to_owned()]);
            }
            if !open.rows.is_empty() {
                tables.push(open);
            }
        }
        let mut advice = Table::new(&["LEANS", "FACT"]).title("advice");
        for fact in &self.advice.facts {
            let word = match fact.leaning {
                Leaning::Stay => "stay",
                Leaning::Move => "move",
                Leaning::Open => "open",
            };
            advice.row([Cell::from(word), Cell::from(fact.text.clone())]);
        }
        tables.push(advice.footer(format!("{}\nadvice: {}", self.summary(), self.advice.leaning)));
        tables
    }

    fn annotations(&self) -> Option<Vec<Annotation>> {
        let annotation = |judged: &Judged| Annotation {
            severity: judged.severity,
            title: format!("{} {}", judged.feature.id, judged.feature.title),
            text: explained(judged),
        };
        Some(self.judged.iter().filter(|j| j.fired()).map(annotation).collect())
    }

    fn names(&self) -> Vec<String> {
        self.judged.iter().filter(|j| j.finding.answer == Answer::Works).map(|j| j.feature.name.to_owned()).collect()
    }
}
