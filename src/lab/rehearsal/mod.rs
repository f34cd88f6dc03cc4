//! A rehearsal: a recorded node, rebuilt, goes to eBPF and comes back by kpx's own commands, and its traffic says what breaks.
//!
//! First every frontend is asked what it does as the node is: a firewall of the node may well keep clients from some. Then traffic runs
//! while nothing is done, which is the measure for everything after. Then plan, apply, verify and rollback, each as the operator would
//! type it, with every phase of the migration a phase of the traffic.

mod breaks;
mod drops;
mod state;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::breaks::FailedCheck;
pub use self::breaks::{Break, BreakKind};
use self::drops::Drops;
pub use self::drops::Suspect;
use self::state::State;
use super::report::QUIET;
use super::{Lab, LabError, Place, Traffic, TrafficOptions, TrafficReport, Unlike};
use crate::capture::command;
use crate::migrate::{Blocker, PhaseName, Plan};

/// How a rehearsal is carried out.
#[derive(Clone, Debug)]
pub struct RehearsalOptions {
    /// Flows that stay open all the time.
    pub flows: u32,
    /// Short connections per second, which go round all frontends.
    pub rate: u32,
    /// Time that traffic runs before, between and after, at least.
    pub hold: Duration,
    /// Options for `kpx migrate plan`, such as what is accepted.
    pub plan: Vec<String>,
    /// Options for every command on the node.
    pub node: Vec<String>,
}

/// How far a rehearsal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Came {
    /// There and back.
    Whole,
    /// The plan is blocked: nothing was done.
    Refused,
    /// Not all the way there, or not all the way back.
    Partway,
    /// Somebody stopped it.
    Interrupted,
}

/// A command that was run on the node.
#[derive(Clone, Debug, Serialize)]
pub struct Ran {
    /// Its words.
    pub command: String,
    /// Its exit code; null if it was killed.
    pub exit_code: Option<i32>,
    /// How long it took.
    pub seconds: f64,
}

/// What a rehearsal found.
#[derive(Clone, Debug, Serialize)]
pub struct Rehearsed {
    /// How far it came.
    pub came: Came,
    /// What would break; empty: nothing.
    pub breaks: Vec<Break>,
    /// Rules that dropped packets under eBPF and none before, where traffic was hurt.
    pub suspects: Vec<Suspect>,
    /// Frontends that do something else than the table says before anything is done, and are expected to go on doing it.
    pub unlike: Vec<Unlike>,
    /// Frontends that clients use, each place counted by itself.
    pub frontends: u64,
    /// What the traffic went through.
    pub traffic: TrafficReport,
    /// The commands.
    pub commands: Vec<Ran>,
}

impl Rehearsed {
    /// Whether nothing would break, and all of it was tried.
    pub const fn lossless(&self) -> bool {
        matches!(self.came, Came::Whole) && self.breaks.is_empty()
    }

    /// What a snapshot alone tells: its plan is blocked.
    pub fn refused(blockers: &[Blocker]) -> Self {
        let breaks = blockers.iter().map(|blocker| breaks::of_blocker(blocker, PLAN)).collect();
        Self {
            came: Came::Refused,
            breaks,
            suspects: Vec::new(),
            unlike: Vec::new(),
            frontends: 0,
            traffic: TrafficReport::default(),
            commands: Vec::new(),
        }
    }
}

/// Phase in which nothing is done.
pub const IDLE: &str = QUIET[1];
/// Phase in which eBPF serves.
pub const SERVED: &str = "ebpf";
/// Phase after the way back.
pub const AFTER: &str = "rules again";
const PLAN: &str = "plan";

/// A rehearsal under way.
pub struct Rehearsal<'a> {
    lab: &'a mut Lab,
    options: RehearsalOptions,
    stop: &'a AtomicBool,
    tell: &'a mut dyn FnMut(&str),
    commands: Vec<Ran>,
    breaks: Vec<Break>,
    /// What rules had dropped by the start of the idle phase, its end, the start of the served phase, and its end.
    drops: Vec<Drops>,
}

/// A line of `kpx migrate apply -o json`.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    Step {
        phase: PhaseName,
        message: String,
    },
    Gate {
        phase: PhaseName,
        message: String,
        #[serde(default)]
        findings: Vec<FailedCheck>,
    },
    End {
        exit: i32,
        message: String,
        #[serde(default)]
        hints: Vec<String>,
    },
    #[serde(other)]
    Else,
}

impl<'a> Rehearsal<'a> {
    /// A rehearsal in a lab that is up. `stop` ends it early, `tell` is told what is being done.
    pub fn new(
        lab: &'a mut Lab,
        options: RehearsalOptions,
        stop: &'a AtomicBool,
        tell: &'a mut dyn FnMut(&str),
    ) -> Self {
        Self { lab, options, stop, tell, commands: Vec::new(), breaks: Vec::new(), drops: Vec::new() }
    }

    /// Carries it out.
    pub fn run(mut self) -> Result<Rehearsed, LabError> {
        let frontends: usize = Place::ALL.into_iter().map(|place| self.lab.targets(place).len()).sum();
        let unlike = self.ask_everyone(frontends)?;
        self.lab.expect_what_was_met(&unlike);
        let before = State::read(self.lab.names())?;
        let hold = self.options.hold.max(self.round(frontends));
        (self.tell)("starting traffic");
        let options = TrafficOptions {
            flows: self.options.flows,
            connects_per_second: 0,
            rounds_per_second: self.options.rate,
            ..TrafficOptions::default()
        };
        let mut traffic = Traffic::start(self.lab, &options)?;
        traffic.phase(IDLE)?;
        self.read_drops()?;
        self.hold(hold, "traffic runs, and nothing is done");
        self.read_drops()?;
        let mut came = self.there(&mut traffic, hold)?;
        if !matches!(came, Came::Refused) {
            let back = self.migrate(&mut traffic, &["rollback"], "rollback")?;
            traffic.phase(AFTER)?;
            self.hold(hold, "traffic runs, by the rules again");
            self.remains(&before, back)?;
            if !back && matches!(came, Came::Whole) {
                came = Came::Partway;
            }
        }
        (self.tell)("ending the flows, comparing both ends' accounts");
        let traffic = traffic.stop()?;
        self.breaks.extend(breaks::of_traffic(&traffic));
        if self.stopped() {
            came = Came::Interrupted;
        }
        let (breaks, commands) = (self.breaks, self.commands);
        let hurt = breaks.iter().any(|b| matches!(b.kind, BreakKind::Flows | BreakKind::Connects));
        let suspects = match &self.drops[..] {
            [start, idle, served, end] if hurt => drops::suspects([start, idle], [served, end]),
            _ => Vec::new(),
        };
        Ok(Rehearsed { came, breaks, suspects, unlike, frontends: frontends as u64, traffic, commands })
    }

    /// Plan, apply and verify.
    fn there(&mut self, traffic: &mut Traffic, hold: Duration) -> Result<Came, LabError> {
        let file = self.lab.names().state_dir().join("rehearsal-plan.json");
        let Some(plan) = self.plan(traffic, file.clone())? else { return Ok(Came::Refused) };
        if plan.is_blocked() {
            self.breaks.extend(plan.blockers.iter().map(|blocker| breaks::of_blocker(blocker, PLAN)));
            return Ok(Came::Refused);
        }
        if self.stopped() {
            return Ok(Came::Interrupted);
        }
        let file = file.to_string_lossy().into_owned();
        if !self.migrate(traffic, &["apply", &file, "--yes"], "apply")? {
            return Ok(Came::Partway);
        }
        traffic.phase(SERVED)?;
        let began = Instant::now();
        self.read_drops()?;
        if !self.stopped() {
            self.verify()?;
        }
        self.hold(hold.saturating_sub(began.elapsed()), "traffic runs, served by eBPF");
        self.read_drops()?;
        Ok(Came::Whole)
    }

    fn read_drops(&mut self) -> Result<(), LabError> {
        self.drops.push(Drops::read(self.lab.names())?);
        Ok(())
    }

    /// Makes the plan; `None` if there is none, which is written down.
    fn plan(&mut self, traffic: &mut Traffic, file: PathBuf) -> Result<Option<Plan>, LabError> {
        traffic.phase(PLAN)?;
        // What plays kube-proxy in a lab is its recorded answers.
        let [stop, start] = self.lab.proxy_commands();
        let path = file.to_string_lossy().into_owned();
        let mut words = vec!["migrate", "plan", "--out", &path, "--stop-command", &stop, "--start-command", &start];
        let more = self.options.plan.clone();
        words.extend(more.iter().map(String::as_str));
        let (code, said) = self.kpx(&words, "migrate plan", |_, _| {})?;
        let plan = matches!(code, Some(0 | 2)).then(|| Plan::read(&file));
        if let Some(Ok(plan)) = plan {
            return Ok(Some(plan));
        }
        self.breaks.push(Break::new(BreakKind::Failed, PLAN, format!("kpx migrate plan failed: {said}")));
        Ok(None)
    }

    /// Runs `apply` or `rollback`, each of its phases a phase of the traffic; whether it came to its end.
    fn migrate(&mut self, traffic: &mut Traffic, words: &[&str], way: &str) -> Result<bool, LabError> {
        let words: Vec<&str> = ["migrate"].into_iter().chain(words.iter().copied()).collect();
        let (mut now, mut failed, mut end, mut broken) = (None, Vec::new(), None, None);
        let (code, said) = self.kpx(&words, &format!("migrate {way}"), |tell, line| {
            let Ok(line) = serde_json::from_str::<Line>(line) else { return };
            let (phase, message) = match line {
                Line::Step { phase, message } => (phase, message),
                Line::Gate { phase, message, findings } => {
                    failed.extend(findings.into_iter().filter(|finding| !finding.ok));
                    (phase, message)
                }
                Line::End { exit, message, hints } => return end = Some((exit, message, hints)),
                Line::Else => return,
            };
            if now != Some(phase) {
                now = Some(phase);
                if let Err(error) = traffic.phase(&format!("{way} {phase}")) {
                    broken.get_or_insert(error);
                }
            }
            tell(&format!("{way} {phase}: {message}"));
        })?;
        if let Some(error) = broken {
            return Err(error);
        }
        let fine = code == Some(0);
        if !fine && !self.stopped() {
            let phase = now.map_or_else(|| way.to_owned(), |phase| format!("{way} {phase}"));
            let (message, hints) = end.map_or((said, Vec::new()), |(_, message, hints)| (message, hints));
            if failed.is_empty() {
                // The options that name the lab's node say nothing to an operator.
                let named = self.lab.options().chunks(2).map(|pair| format!(" {}", pair.join(" "))).collect::<Vec<_>>();
                let plain = |hint: String| named.iter().fold(hint, |hint, option| hint.replace(option, ""));
                let hints: Vec<String> = hints.into_iter().map(plain).collect();
                let remedy = (!hints.is_empty()).then(|| hints.join("; "));
                let what = format!("kpx migrate {way} failed: {message}");
                self.breaks.push(Break { remedy, ..Break::new(BreakKind::Failed, &phase, what) });
            } else {
                self.breaks.push(breaks::of_findings(BreakKind::Gate, &phase, message, &failed));
            }
        }
        Ok(fine)
    }

    /// Has API, rules and maps compared while eBPF serves.
    fn verify(&mut self) -> Result<(), LabError> {
        #[derive(Deserialize)]
        struct Verdict {
            items: Vec<FailedCheck>,
        }
        let mut text = String::new();
        let (code, said) = self.kpx(&["migrate", "verify"], "migrate verify", |_, line| text.push_str(line))?;
        if code == Some(0) || self.stopped() {
            return Ok(());
        }
        let failed = serde_json::from_str::<Verdict>(&text).map(|verdict| verdict.items).unwrap_or_default();
        let failed: Vec<FailedCheck> = failed.into_iter().filter(|check| !check.ok).collect();
        let what = if failed.is_empty() { said } else { "kpx migrate verify finds differences".to_owned() };
        self.breaks.push(breaks::of_findings(BreakKind::Verify, SERVED, what, &failed));
        Ok(())
    }

    /// Compares the node with what it was.
    fn remains(&mut self, before: &State, back: bool) -> Result<(), LabError> {
        if !back || self.stopped() {
            return Ok(());
        }
        let differences = before.differences(&State::read(self.lab.names())?);
        if !differences.is_empty() {
            let what = "the node is not as it was";
            let remains = Break::new(BreakKind::Remains, AFTER, what);
            self.breaks.push(Break { details: differences, ..remains });
        }
        Ok(())
    }

    /// Runs a command of kpx on the lab's node, with JSON on its output; its exit code and what it said last on standard error.
    fn kpx(
        &mut self,
        words: &[&str],
        name: &str,
        mut line: impl FnMut(&mut dyn FnMut(&str), &str),
    ) -> Result<(Option<i32>, String), LabError> {
        (self.tell)(&format!("kpx {name}"));
        let program = self.lab.kpx().to_string_lossy().into_owned();
        let options = self.lab.options().into_iter().chain(self.options.node.iter().cloned());
        let quiet = ["--no-progress", "--no-input", "-o", "json"].map(str::to_owned);
        let args: Vec<OsString> =
            options.chain(quiet).chain(words.iter().map(|&word| word.to_owned())).map(OsString::from).collect();
        let began = Instant::now();
        let (lab, tell) = (&mut *self.lab, &mut *self.tell);
        let mut adopted = Ok(());
        let output =
            command::follow(&program, args, self.stop, |pid| adopted = lab.adopt("kpx", pid), |text| line(tell, text))?;
        adopted?;
        let exit_code = output.status.code();
        self.commands.push(Ran { command: format!("kpx {name}"), exit_code, seconds: began.elapsed().as_secs_f64() });
        let said = String::from_utf8_lossy(&output.stderr);
        let error = said.lines().find_map(|line| line.strip_prefix("error: "));
        let last = said.lines().rfind(|line| !line.starts_with("hint: ") && !line.trim().is_empty());
        Ok((exit_code, error.or(last).unwrap_or_default().to_owned()))
    }

    /// Asks every frontend at least twice, before anything is done: those that always do the same, and not what the table says.
    fn ask_everyone(&mut self, frontends: usize) -> Result<Vec<Unlike>, LabError> {
        let options = TrafficOptions {
            flows: 0,
            timed_per_second: 0,
            connects_per_second: 0,
            rounds_per_second: self.options.rate,
            ..TrafficOptions::default()
        };
        (self.tell)("asking every frontend");
        let traffic = Traffic::start(self.lab, &options)?;
        self.hold(self.round(frontends) * 2, "asking every frontend");
        Ok(traffic.stop()?.unlike)
    }

    /// How long it takes to go round all frontends once.
    fn round(&self, frontends: usize) -> Duration {
        Duration::from_millis(500)
            + Duration::from_secs_f64(frontends as f64 * 1.2 / f64::from(self.options.rate.max(1)))
    }

    /// Lets traffic run for a while, unless somebody wants to stop.
    fn hold(&mut self, time: Duration, what: &str) {
        let end = Instant::now() + time;
        let mut told = None;
        while !self.stopped() && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            if told != Some(left.as_secs()) {
                told = Some(left.as_secs());
                (self.tell)(&format!("{what}: {} s to go", left.as_secs() + 1));
            }
            thread::sleep(Duration::from_millis(50).min(left));
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
