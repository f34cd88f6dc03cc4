//! Progress on stderr: a bar on a terminal after a quarter of a second, plain lines elsewhere, nothing when quiet.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Progress of one long piece of work; cleared when dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn new(len: Option<u64>, message: String, shown: bool) -> Self {
        let bar = match len {
            Some(len) => ProgressBar::new(len),
            None => ProgressBar::new_spinner(),
        };
        bar.set_draw_target(if shown { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() });
        let template = if len.is_some() {
            "{msg} {wide_bar:.cyan} {pos}/{len} {elapsed}"
        } else {
            "{spinner:.cyan} {msg} {elapsed}"
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant that parses"));
        bar.set_message(message);
        if len.is_none() {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self { bar }
    }

    /// Counts work done.
    pub fn inc(&self, delta: u64) {
        self.bar.inc(delta);
    }

    /// Says what is being done now.
    pub fn message(&self, message: impl Into<String>) {
        self.bar.set_message(message.into());
    }

    /// Prints a line above the bar without tearing it.
    pub fn suspend<R>(&self, work: impl FnOnce() -> R) -> R {
        self.bar.suspend(work)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
