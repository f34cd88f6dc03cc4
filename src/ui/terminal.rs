//! The terminal: where output goes, in which format, with or without colour.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::rc::Rc;

use clap::ValueEnum;
use serde_json::Value;

use super::layout::hang;
use super::report::{envelope, markdown};
use super::{Cell, Failure, Progress, Report, Stream, Table};

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
    /// Tables as Markdown, for issues and job summaries.
    Markdown,
    /// What there is to act on as annotations of GitHub Actions.
    Github,
    /// Tables as parts of a page: see [`super::page`]. Not for the command line.
    #[value(skip)]
    Html,
}

impl Format {
    /// Whether the output is for programs.
    pub const fn is_data(self) -> bool {
        matches!(self, Self::Json | Self::Yaml | Self::Name | Self::Markdown | Self::Github | Self::Html)
    }
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// Whether to use colour on a stream that is a terminal or not, in an environment.
    pub fn decide(self, terminal: bool, env: impl Fn(&str) -> Option<String>) -> bool {
        let set = |name| env(name).is_some_and(|value| !value.is_empty());
        let forced = |name| env(name).is_some_and(|value| !value.is_empty() && value != "0");
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto if set("NO_COLOR") => false,
            Self::Auto if forced("FORCE_COLOR") || forced("CLICOLOR_FORCE") => true,
            Self::Auto => terminal && env("CLICOLOR").as_deref() != Some("0"),
        }
    }
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

/// Bytes written to a [`Ui::buffered`] terminal.
#[derive(Clone, Debug, Default)]
pub struct Buffer(Rc<RefCell<Vec<u8>>>);

impl Buffer {
    /// What was written so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.borrow()).into_owned()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
    terminal_out: bool,
    /// Whether reports follow each other, and how many did.
    watching: Option<u64>,
    /// Whether the reader of stdout is gone.
    closed: bool,
}

impl Ui {
    /// The real terminal.
    pub fn stdio(options: UiOptions) -> Self {
        let color = |terminal| options.color.decide(terminal, |name| std::env::var(name).ok());
        let (stdout, stderr) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            options,
            width: terminal_width(stdout),
            color_out: color(stdout),
            color_err: color(stderr),
            terminal_err: stderr,
            terminal_out: stdout,
            watching: None,
            closed: false,
        }
    }

    /// A terminal that writes elsewhere: no colour, `width` columns.
    pub fn to(out: Box<dyn Write>, err: Box<dyn Write>, options: UiOptions, width: Option<u16>) -> Self {
        Self {
            out,
            err,
            options,
            width,
            color_out: false,
            color_err: false,
            terminal_err: false,
            terminal_out: false,
            watching: None,
            closed: false,
        }
    }

    /// A terminal that writes to memory: its stdout and its stderr besides.
    pub fn buffered(options: UiOptions, width: Option<u16>) -> (Self, Buffer, Buffer) {
        let (out, err) = (Buffer::default(), Buffer::default());
        (Self::to(Box::new(out.clone()), Box::new(err.clone()), options, width), out, err)
    }

    /// Whether `-q` was given.
    pub const fn is_quiet(&self) -> bool {
        self.options.quiet
    }

    /// Whether stderr has colour.
    pub(super) const fn colours_stderr(&self) -> bool {
        self.color_err
    }

    /// The chosen format.
    pub const fn format(&self) -> Format {
        self.options.format
    }

    /// Whether a question may be asked: a terminal, and no `--no-input`.
    pub fn interactive(&self) -> bool {
        !self.options.no_input && io::stdin().is_terminal() && self.terminal_err
    }

    /// From now on reports follow each other: a terminal shows the latest, JSON is one object a line.
    pub const fn watch(&mut self) {
        self.watching = Some(0);
    }

    /// Whether the reader of stdout is gone, so that going on is for nothing.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Prints a report in the chosen format.
    pub fn report(&mut self, report: &dyn Report) -> Result<(), Failure> {
        if self.options.format == Format::Github && report.annotations().is_none() {
            return Err(Failure::usage(
                "-o github is for commands that judge: audit, doctor, preflight and migrate rehearse",
            ));
        }
        let frame = self.watching;
        if frame.is_some() && self.terminal_out {
            self.width = terminal_width(true);
        }
        let text = self.rendered(report);
        let text = match frame {
            Some(_) if self.terminal_out && !self.options.format.is_data() => self.frame(&text),
            Some(frame) if frame > 0 && !matches!(self.options.format, Format::Json | Format::Yaml) => {
                format!("\n{text}")
            }
            _ => text,
        };
        self.watching = frame.map(|frame| frame + 1);
        self.write(&text)
    }

    /// A screenful that takes the place of the one before.
    fn frame(&self, text: &str) -> String {
        let height = rustix::termios::tcgetwinsize(io::stdout()).map_or(24, |size| usize::from(size.ws_row).max(2));
        let lines: Vec<&str> = text.lines().collect();
        let mut out = if self.watching == Some(0) { String::from("\x1b[2J\x1b[H") } else { String::from("\x1b[H") };
        let shown = if lines.len() < height { lines.len() } else { height - 2 };
        for line in &lines[..shown] {
            out.push_str(line);
            out.push_str("\x1b[K\n");
        }
        if shown < lines.len() {
            let _ = writeln!(out, "… {} more lines\x1b[K", lines.len() - shown);
        }
        out.push_str("\x1b[J");
        out
    }

    fn rendered(&self, report: &dyn Report) -> String {
        match self.options.format {
            Format::Table | Format::Wide => {
                let wide = self.options.format == Format::Wide;
                let width = if wide { None } else { self.width };
                let tables = report.tables(wide);
                let parts: Vec<String> =
                    tables.iter().map(|t| t.render(width, !self.options.no_headers, self.color_out)).collect();
                parts.join("\n")
            }
            Format::Json if self.watching.is_some() => format!("{}\n", envelope(report)),
            Format::Json => pretty(&envelope(report)),
            Format::Yaml if self.watching.is_some() => format!("---\n{}", yaml(&envelope(report))),
            Format::Yaml => yaml(&envelope(report)),
            Format::Name => report.names().into_iter().map(|n| n + "\n").collect(),
            Format::Markdown => markdown(report),
            Format::Html => report.tables(false).iter().map(super::html::table).collect(),
            Format::Github => report.annotations().unwrap_or_default().iter().map(super::Annotation::github).collect(),
        }
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

    /// Prints a table for people to stdout, with a line between it and what is around it; ignored when the output is for programs.
    pub fn say_table(&mut self, table: &Table) -> Result<(), Failure> {
        let text = table.render(self.width, !self.options.no_headers, self.color_out);
        self.say(&format!("\n{text}"))
    }

    /// Prints the headings of a table whose rows come one by one; ignored when the output is for programs.
    pub fn say_stream_headings(&mut self, stream: &Stream) -> Result<(), Failure> {
        if self.options.no_headers { Ok(()) } else { self.say(&stream.headings()) }
    }

    /// Prints a row of such a table.
    pub fn say_stream_row(&mut self, stream: &Stream, cells: &[Cell]) -> Result<(), Failure> {
        let row = stream.row(cells, self.color_out);
        self.say(&row)
    }

    /// Prints raw bytes to stdout: completions, man pages.
    pub fn raw(&mut self, text: &str) -> Result<(), Failure> {
        self.write(text)
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(format!("cannot write output: {e}"))),
            // A reader that has seen enough (`| head`) is no error.
            Err(_) => {
                self.closed = true;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// A remark on stderr; silent with `-q`.
    pub fn note(&mut self, text: &str) {
        if !self.options.quiet {
            self.stderr_line("", anstyle::Style::new(), text);
        }
    }

    /// A remark of fixed columns and one text, which wraps below itself; silent with `-q`.
    pub fn note_row(&mut self, lead: &str, text: &str) {
        self.note(&hang(lead, text, self.width.map(usize::from)));
    }

    /// Prints a text for people to stdout, wrapped at the terminal's width; ignored when the output is for programs.
    pub fn say_wrapped(&mut self, text: &str) -> Result<(), Failure> {
        let text = hang("", text, self.width.map(usize::from));
        self.say(&text)
    }

    /// A warning on stderr; silent with `-q`, and from the second look of a watch on.
    pub fn warn(&mut self, text: &str) {
        if !self.options.quiet && self.watching.is_none_or(|frame| frame == 0) {
            self.stderr_line("warning: ", anstyle::AnsiColor::Yellow.on_default().bold(), text);
        }
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

#[cfg(test)]
mod tests {
    use std::io;

    use serde_json::{Value, json};

    use super::{ColorChoice, Format, Ui, UiOptions};
    use crate::ui::{Failure, Report, Table};

    struct Fruit;

    impl Report for Fruit {
        fn kind(&self) -> &'static str {
            "FruitList"
        }

        fn items(&self) -> Vec<Value> {
            vec![json!({ "name": "apple", "grams": 180 })]
        }

        fn extra(&self) -> serde_json::Map<String, Value> {
            serde_json::Map::from_iter([("basket".to_owned(), json!("round"))])
        }

        fn tables(&self, wide: bool) -> Vec<Table> {
            let mut table = Table::new(if wide { &["NAME", "GRAMS"] } else { &["NAME"] }).footer("1 fruit");
            table.row(["apple", "180"].into_iter().take(if wide { 2 } else { 1 }));
            vec![table]
        }

        fn names(&self) -> Vec<String> {
            vec!["apple".to_owned()]
        }
    }

    fn printed(format: Format) -> String {
        let (mut ui, out, err) = Ui::buffered(UiOptions { format, ..UiOptions::default() }, Some(80));
        ui.report(&Fruit).expect("memory takes everything");
        assert_eq!(err.text(), "");
        out.text()
    }

    #[test]
    fn one_report_prints_in_every_format() {
        insta::assert_snapshot!(printed(Format::Table), @"
        NAME
        apple
        1 fruit
        ");
        insta::assert_snapshot!(printed(Format::Wide), @"
        NAME   GRAMS
        apple  180
        1 fruit
        ");
        insta::assert_snapshot!(printed(Format::Json), @r#"
        {
          "apiVersion": "kpx.dev/v1",
          "kind": "FruitList",
          "basket": "round",
          "items": [
            {
              "name": "apple",
              "grams": 180
            }
          ]
        }
        "#);
        insta::assert_snapshot!(printed(Format::Yaml), @r"
        apiVersion: kpx.dev/v1
        kind: FruitList
        basket: round
        items:
        - name: apple
          grams: 180
        ");
        insta::assert_snapshot!(printed(Format::Name), @"apple");
    }

    #[test]
    fn a_failure_tells_its_causes_and_what_to_type() {
        let (mut ui, out, err) = Ui::buffered(UiOptions::default(), None);
        let mut failure =
            Failure::new("cannot read the rules of node-a").hint("run as root: sudo kpx diff api iptables");
        failure.causes = vec!["iptables-save: permission denied".to_owned(), "needs CAP_NET_ADMIN".to_owned()];
        ui.failure(&failure);
        assert_eq!(out.text(), "");
        insta::assert_snapshot!(err.text(), @r"
        error: cannot read the rules of node-a
          1: iptables-save: permission denied
          2: needs CAP_NET_ADMIN
        hint: run as root: sudo kpx diff api iptables
        ");
    }

    #[test]
    fn quiet_leaves_errors_and_data() {
        let (mut ui, out, err) = Ui::buffered(UiOptions { quiet: true, ..UiOptions::default() }, None);
        ui.note("a remark");
        ui.warn("a warning");
        ui.hint("a hint");
        ui.report(&Fruit).expect("memory takes everything");
        assert_eq!(err.text(), "");
        assert!(out.text().contains("apple"));
        ui.failure(&Failure::new("it broke"));
        assert_eq!(err.text(), "error: it broke\n");
    }

    #[test]
    fn colour_follows_the_flag_then_the_environment_then_the_terminal() {
        let decide = |choice: ColorChoice, terminal, env: &[(&str, &str)]| {
            choice.decide(terminal, |name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        let auto = ColorChoice::Auto;
        assert!(decide(auto, true, &[]));
        assert!(!decide(auto, false, &[]));
        assert!(!decide(auto, true, &[("NO_COLOR", "1")]));
        assert!(decide(auto, true, &[("NO_COLOR", "")]));
        assert!(!decide(auto, true, &[("CLICOLOR", "0")]));
        assert!(decide(auto, false, &[("FORCE_COLOR", "1")]));
        assert!(decide(auto, false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!decide(auto, false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!decide(auto, false, &[("FORCE_COLOR", "1"), ("NO_COLOR", "1")]));
        assert!(decide(ColorChoice::Always, false, &[("NO_COLOR", "1")]));
        assert!(!decide(ColorChoice::Never, true, &[("FORCE_COLOR", "1")]));
    }

    #[test]
    fn a_closed_pipe_is_no_error_but_a_full_disk_is() {
        struct Broken(io::ErrorKind);
        impl io::Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let to = |kind| Ui::to(Box::new(Broken(kind)), Box::new(io::sink()), UiOptions::default(), None);
        assert!(to(io::ErrorKind::BrokenPipe).report(&Fruit).is_ok());
        assert!(to(io::ErrorKind::StorageFull).report(&Fruit).is_err());
    }
}
