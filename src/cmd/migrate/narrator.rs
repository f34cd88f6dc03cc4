//! Tells on the terminal, or as one JSON object a line, what the engine does.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::took;
use crate::migrate::{Action, Notice, PhaseName, Took};
use crate::ui::{Exit, Failure, Progress, Ui, to_value};

/// A flag that the first Ctrl-C (or SIGTERM) sets; the second one ends the process at once.
pub(in crate::cmd) fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the shutdown looks at the flag before the same signal sets it.
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(Exit::Interrupted as u8), Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
            .map_err(|e| Failure::new(format!("cannot watch for signals: {e}")))?;
    }
    Ok(flag)
}

/// Turns notices into lines.
pub(super) struct Narrator<'a> {
    ui: &'a mut Ui,
    spinner: Option<Progress>,
    /// The first line that could not be written, told at the end: the engine is not stopped for it.
    broken: Option<Failure>,
}

impl<'a> Narrator<'a> {
    /// Begins with the line that names the versions.
    pub(super) fn begin(ui: &'a mut Ui, migration: &str) -> Result<Self, Failure> {
        ui.event(&json!({
            "type": "version", "apiVersion": "kpx.dev/v1", "kind": "MigrationEvent",
            "version": env!("CARGO_PKG_VERSION"), "migration": migration,
            "message": format!("kpx {}, migration {migration}", env!("CARGO_PKG_VERSION")),
        }))?;
        Ok(Self { ui, spinner: None, broken: None })
    }

    /// Tells one notice.
    pub(super) fn tell(&mut self, notice: &Notice<'_>) {
        self.spinner = None;
        let event = match notice {
            Notice::Begin { phase, step, action, text } => {
                self.spinner = Some(self.ui.progress(None, format!("{phase}: {text}")));
                step_event(*phase, step, "begin", Some(*action), text)
            }
            Notice::Done { phase, step, action, text, note } => {
                self.ui.note_row(&format!("{phase:<8} {step:<16} {:<6} ", done(*action)), note.unwrap_or(text));
                let mut event = step_event(*phase, step, done(*action), Some(*action), text);
                if let (Some(map), Some(note)) = (event.as_object_mut(), note) {
                    map.insert("note".to_owned(), (*note).into());
                }
                event
            }
            Notice::Skipped { phase, step } => step_event(*phase, step, "skipped", None, "nothing to do"),
            Notice::Waits { phase, step, why, left } => {
                let text = format!("waits for {why}; {} s at most", left.as_secs());
                self.ui.note_row(&format!("{phase:<8} {step:<16} {:<6} ", "waits"), &text);
                self.spinner = Some(self.ui.progress(None, format!("{phase}: {text}")));
                let mut event = step_event(*phase, step, "waiting", Some(Action::Do), &text);
                if let Some(map) = event.as_object_mut() {
                    map.insert("seconds_left".to_owned(), left.as_secs().into());
                }
                event
            }
            Notice::GateBegin { phase, text } => {
                self.spinner = Some(self.ui.progress(None, format!("{phase}: {text}")));
                json!({ "type": "gate", "phase": phase, "state": "begin", "message": text })
            }
            Notice::Gate { phase, findings } => {
                for f in *findings {
                    let word = if f.ok { "ok" } else { "FAIL" };
                    self.ui.note_row(&format!("{phase:<8} {:<16} {word:<6} ", format!("~ {}", f.check)), &f.detail);
                }
                let passed = findings.iter().all(|f| f.ok);
                let message = if passed { "passed" } else { "not passed" };
                json!({
                    "type": "gate", "phase": phase, "state": "done", "passed": passed,
                    "findings": findings, "message": format!("gate after {phase} {message}"),
                })
            }
        };
        if let Err(failure) = self.ui.event(&event) {
            self.broken.get_or_insert(failure);
        }
    }

    /// Ends.
    pub(super) fn finish(self) -> Result<(), Failure> {
        drop(self.spinner);
        self.broken.map_or(Ok(()), Err)
    }
}

const fn done(action: Action) -> &'static str {
    match action {
        Action::Do => "done",
        Action::Undo => "undone",
    }
}

fn step_event(phase: PhaseName, step: &str, state: &str, action: Option<Action>, text: &str) -> Value {
    json!({ "type": "step", "phase": phase, "step": step, "state": state, "action": action, "message": text })
}

/// The last object of a stream that ends by an error; the error itself is told where all errors are.
pub(super) fn close_failed(ui: &mut Ui, failure: Failure) -> Failure {
    let mut message = failure.message.clone();
    for cause in &failure.causes {
        let _ = write!(message, ": {cause}");
    }
    let event = json!({ "type": "end", "exit": failure.exit as u8, "message": message, "hints": failure.hints });
    // The failure at hand is the one to tell.
    let _ = ui.event(&event);
    failure
}

/// The last lines: what each phase took, how it ended and what to type next.
pub(super) fn close(
    ui: &mut Ui,
    exit: Exit,
    text: &str,
    next: &[(&str, String)],
    took: Option<&Took>,
) -> Result<(), Failure> {
    if let Some(took) = took {
        ui.say_table(&took::table(took))?;
    }
    let next_map: serde_json::Map<String, Value> =
        next.iter().map(|(what, command)| ((*what).replace(' ', "_"), to_value(command))).collect();
    ui.event(&json!({ "type": "end", "exit": exit as u8, "message": text, "next": next_map, "took": took }))?;
    ui.say_wrapped(text)?;
    // Not wrapped: these lines are there to be pasted.
    for (what, command) in next {
        ui.say(&format!("  to {what}: {command}"))?;
    }
    Ok(())
}
