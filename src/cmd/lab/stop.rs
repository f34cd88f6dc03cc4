//! Ctrl-C in a lab: what is under way ends, then the lab is removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::ui::{Exit, Failure};

/// Whether somebody asked to stop, by Ctrl-C or SIGTERM.
#[derive(Clone)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on the first of these signals only asks; a second one ends the process at once.
    pub(super) fn on_signals() -> Result<Self, Failure> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, Arc::clone(&asked))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&asked)))
                .map_err(|error| Failure::new(format!("cannot handle signals: {error}")))?;
        }
        Ok(Self(asked))
    }

    /// Whether somebody did.
    pub(super) fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sleeps, but not beyond the asking.
    pub(super) fn sleep(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.asked() && Instant::now() < end {
            thread::sleep(Duration::from_millis(50).min(end.saturating_duration_since(Instant::now())));
        }
    }
}
