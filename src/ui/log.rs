//! The log: tracing events on stderr, by `-v` or `KPX_LOG`.

use tracing_subscriber::EnvFilter;

use super::Ui;

/// Environment variable with tracing directives; overrules `-v` and `-q`.
pub const LOG_VARIABLE: &str = "KPX_LOG";

impl Ui {
    /// Starts logging to stderr: errors only, `-v` info, `-vv` debug, `-vvv` trace, nothing with `-q`.
    ///
    /// The second start in one process does nothing.
    pub fn start_log(&mut self, verbose: u8) {
        let level = match verbose {
            _ if self.is_quiet() => "off",
            0 => "error",
            1 => "info",
            2 => "debug",
            _ => "trace",
        };
        let filter = match std::env::var(LOG_VARIABLE) {
            Ok(directives) if !directives.is_empty() => EnvFilter::try_new(&directives).unwrap_or_else(|error| {
                self.warn(&format!("{LOG_VARIABLE}={directives} is not understood ({error}); logging at {level}"));
                EnvFilter::new(level)
            }),
            _ => EnvFilter::new(level),
        };
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(self.colours_stderr())
            .without_time()
            .with_target(verbose > 1)
            .try_init();
    }
}
