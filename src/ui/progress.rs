//! Progress on stderr: on a terminal, for work that takes longer than a blink, nowhere else.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work that is done sooner shows no progress.
const DELAY: Duration = Duration::from_millis(250);

/// Progress of one long piece of work; cleared when dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    /// Shows the bar after [`DELAY`], unless the sender is dropped before.
    starter: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    pub(super) fn new(len: Option<u64>, message: String, shown: bool) -> Self {
        let hidden = ProgressDrawTarget::hidden();
        let bar = ProgressBar::with_draw_target(len, hidden);
        let template = if len.is_some() {
            "{msg} {wide_bar:.cyan} {pos}/{len} {elapsed}"
        } else {
            "{spinner:.cyan} {wide_msg} {elapsed}"
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant that parses"));
        bar.set_message(message);
        let starter = shown.then(|| {
            let (done, waiting) = mpsc::channel();
            let bar = bar.clone();
            let thread = thread::spawn(move || {
                if waiting.recv_timeout(DELAY) == Err(RecvTimeoutError::Timeout) {
                    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
                    bar.enable_steady_tick(Duration::from_millis(120));
                }
            });
            (done, thread)
        });
        Self { bar, starter }
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
        if let Some((done, thread)) = self.starter.take() {
            drop(done);
            // A starter that panicked has shown nothing: there is nothing to clear.
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}
