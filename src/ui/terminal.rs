//! The terminal: where output goes, in which format, with or without colour.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde_json::Value;

use super::{Failure, Progress, Report, report::envelope};

/// Output format, the same for every command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people, about 80 wide.
    #[default]
    Table,
    /// All columns.
    Wide,
    /// One JSON document (or one object a line, for commands that stream).
    Json,
    /// The same as YAML.
    Yaml,
    /// Names only, one a line.
    Name,
}

impl Format {
    /// Whether the output is for programs.
    pub const fn is_data(self) -> bool {
        matches!(self, Self::Json | Self::Yaml | Self::Name)
    }
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What the command line says about output.
#[derive(Clone, Copy, Debug, Default)]
pub struct UiOptions {
    /// `-o`.
    pub format: Format,
    /// `--color`.
    pub color: ColorChoice,
    /// `--no-headers`.
    pub no_headers: bool,
    /// `--no-progress`.
    pub no_progress: bool,
    /// `-q`.
    pub quiet: bool,
    /// `--no-input`.
    pub no_input: bool,
}

/// The one owner of stdout and stderr.
pub struct Ui {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    options: UiOptions,
    width: Option<u16>,
    color_out: bool,
    color_err: bool,
    terminal_err: bool,
}

impl Ui {
    /// The real terminal.
    pub fn stdio(options: UiOptions) -> Self {
        let env_set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let color = |terminal: bool| match options.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                let forced = env_set("FORCE_COLOR") || env_set("CLICOLOR_FORCE");
                !env_set("NO_COLOR") && (forced || terminal)
            }
        };
        let (stdout, stderr) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            options,
            width: terminal_width(stdout),
            color_out: color(stdout),
            color_err: color(stderr),
            terminal_err: stderr,
        }
    }

    /// A terminal that writes elsewhere: no colour, `width` columns.
    pub fn to(out: Box<dyn Write>, err: Box<dyn Write>, options: UiOptions, width: Option<u16>) -> Self {
        Self { out, err, options, width, color_out: false, color_err: false, terminal_err: false }
    }

    /// The chosen format.
    pub const fn format(&self) -> Format {
        self.options.format
    }

    /// Whether a question may be asked: a terminal, and no `--no-input`.
    pub fn interactive(&self) -> bool {
        !self.options.no_input && io::stdin().is_terminal() && self.terminal_err
    }

    /// Prints a report in the chosen format.
    pub fn report(&mut self, report: &dyn Report) -> Result<(), Failure> {
        let text = match self.options.format {
            Format::Table | Format::Wide => {
                let wide = self.options.format == Format::Wide;
                let width = if wide { None } else { self.width };
                let tables = report.tables(wide);
                let parts: Vec<String> =
                    tables.iter().map(|t| t.render(width, !self.options.no_headers, self.color_out)).collect();
                parts.join("\n")
            }
            Format::Json => pretty(&envelope(report)),
            Format::Yaml => yaml(&envelope(report)),
            Format::Name => report.names().into_iter().map(|n| n + "\n").collect(),
        };
        self.write(&text)
    }

    /// Prints one object a line (JSON) for a command that streams; ignored in other formats.
    pub fn event(&mut self, event: &Value) -> Result<(), Failure> {
        if self.options.format == Format::Json {
            self.write(&format!("{event}\n"))?;
            self.out.flush().ok();
        }
        Ok(())
    }

    /// Prints text for people to stdout; ignored when the output is for programs.
    pub fn say(&mut self, text: &str) -> Result<(), Failure> {
        if self.options.format.is_data() {
            return Ok(());
        }
        self.write(&format!("{text}\n"))
    }

    /// Prints raw bytes to stdout: completions, man pages.
    pub fn raw(&mut self, text: &str) -> Result<(), Failure> {
        self.write(text)
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(format!("cannot write output: {e}"))),
            // A reader that has seen enough (`| head`) is no error.
            _ => Ok(()),
        }
    }

    /// A remark on stderr; silent with `-q`.
    pub fn note(&mut self, text: &str) {
        if !self.options.quiet {
            self.stderr_line("", anstyle::Style::new(), text);
        }
    }

    /// A warning on stderr.
    pub fn warn(&mut self, text: &str) {
        self.stderr_line("warning: ", anstyle::AnsiColor::Yellow.on_default().bold(), text);
    }

    /// A hint on stderr: what to type next; silent with `-q`.
    pub fn hint(&mut self, text: &str) {
        if !self.options.quiet {
            self.stderr_line("hint: ", anstyle::AnsiColor::Cyan.on_default().bold(), text);
        }
    }

    /// The error that ends the command, with its causes and hints.
    pub fn failure(&mut self, failure: &Failure) {
        self.stderr_line("error: ", anstyle::AnsiColor::Red.on_default().bold(), &failure.message);
        for (i, cause) in failure.causes.iter().enumerate() {
            self.stderr_line("", anstyle::Style::new(), &format!("  {}: {cause}", i + 1));
        }
        for hint in &failure.hints {
            self.stderr_line("hint: ", anstyle::AnsiColor::Cyan.on_default().bold(), hint);
        }
    }

    fn stderr_line(&mut self, label: &str, style: anstyle::Style, text: &str) {
        // Nothing is left to tell anybody when stderr itself is gone.
        let _ = if self.color_err && !label.is_empty() {
            writeln!(self.err, "{style}{label}{style:#}{text}")
        } else {
            writeln!(self.err, "{label}{text}")
        };
    }

    /// Starts a progress display of `len` steps, or a spinner without a length.
    pub fn progress(&self, len: Option<u64>, message: impl Into<String>) -> Progress {
        let shown = self.terminal_err && !self.options.no_progress && !self.options.quiet;
        Progress::new(len, message.into(), shown)
    }

    /// Asks on stderr and reads one line from stdin; `None` when asking is not possible.
    pub fn ask(&mut self, question: &str) -> Option<String> {
        if !self.interactive() {
            return None;
        }
        let _ = write!(self.err, "{question} ");
        let _ = self.err.flush();
        let mut line = String::new();
        io::stdin().read_line(&mut line).ok()?;
        Some(line.trim().to_owned())
    }
}

fn terminal_width(stdout_is_terminal: bool) -> Option<u16> {
    let from_env = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
    if from_env.is_some() {
        return from_env;
    }
    if !stdout_is_terminal {
        return None;
    }
    rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col).filter(|c| *c > 0)
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("a Value always serialises");
    text.push('\n');
    text
}

fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).expect("a Value always serialises")
}
