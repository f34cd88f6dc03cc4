//! The command line: one file per subcommand, arguments on top, one `run` below.

mod agent;
mod audit;
mod checks;
mod completions;
mod config;
mod diff;
mod doctor;
mod inspect;
mod lab;
mod migrate;
mod monitor;
mod names;
mod notices;
mod path;
mod preflight;
mod report;
#[cfg(test)]
mod samples;
mod selection;
mod snapshot;
mod top;
mod version;
mod watch;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::capture::{self, CaptureError, Node, NodeOptions};
use crate::dataplane::Paths;
use crate::inspect::cilium;
use crate::source::{self, Lifted, Places, Remark, Via};
use crate::ui::{ColorChoice, Exit, Failure, Format, Ui, UiOptions};

const EXAMPLES: &str = "\
Examples:
  Compare what the API says with what the rules on this node do
    $ kpx diff api iptables --services-from objects.json

  See the plan for this node, without changing anything
    $ kpx migrate plan

Defaults of options:
  --output is KPX_OUTPUT in the environment and output in /etc/kpx/config.toml; agent --interval is KPX_AGENT_INTERVAL, and
  interval in the table [agent]. A flag goes before a variable, a variable before ~/.config/kpx/config.toml, that before
  /etc/kpx/config.toml. As kubectl-kpx in the PATH, kpx is a plug-in: kubectl kpx inspect services

Exit codes:
  0 fine, 1 kpx failed, 2 there is something to act on, 3 stopped part-way, 64 usage, 130 interrupted";

/// Moves Kubernetes nodes from kube-proxy to eBPF without an outage
#[derive(Debug, Parser)]
#[command(name = "kpx", version, max_term_width = 100, after_long_help = EXAMPLES)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Globals {
    /// Output format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT", global = true, help_heading = "Output")]
    pub output: Format,
    /// When to use colour
    #[arg(long, hide_short_help = true, value_enum, default_value_t, global = true, help_heading = "Output")]
    pub color: ColorChoice,
    /// Leave out the headings of tables
    #[arg(long, hide_short_help = true, global = true, help_heading = "Output")]
    pub no_headers: bool,
    /// Show no progress
    #[arg(long, hide_short_help = true, global = true, help_heading = "Output")]
    pub no_progress: bool,
    /// Never ask; fail instead, naming the flag that answers
    #[arg(long, hide_short_help = true, global = true, help_heading = "Output")]
    pub no_input: bool,
    /// Say less: errors and data only
    #[arg(short, long, global = true, help_heading = "Output")]
    pub quiet: bool,
    /// Say more on stderr: -v info, -vv debug, -vvv trace
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = "Output")]
    pub verbose: u8,

    /// Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)
    #[arg(long, hide_short_help = true, value_name = "FILE", global = true, help_heading = "Output")]
    pub config: Option<PathBuf>,

    /// Read a snapshot (directory or .tar.zst) instead of the live node
    #[arg(long, value_name = "SNAPSHOT", global = true, help_heading = "Node")]
    pub from: Option<PathBuf>,
    /// Network namespace of the node: a name from `ip netns`, or a path
    #[arg(long, value_name = "NAME|PATH", global = true, help_heading = "Node")]
    pub netns: Option<String>,
    /// cgroup2 directory whose sockets the node serves [default: the cgroup2 root]
    #[arg(long, hide_short_help = true, value_name = "PATH", global = true, help_heading = "Node")]
    pub cgroup: Option<PathBuf>,
    /// Directory on a bpf file system for pins
    #[arg(
        long,
        hide_short_help = true,
        value_name = "DIR",
        default_value = "/sys/fs/bpf/kpx",
        global = true,
        help_heading = "Node"
    )]
    pub bpffs: PathBuf,
    /// Directory of the maps that Cilium pins
    #[arg(
        long,
        hide_short_help = true,
        value_name = "DIR",
        default_value = cilium::PINS,
        global = true,
        help_heading = "Node"
    )]
    pub cilium_pins: PathBuf,
    /// Directory for journals, plans and backups
    #[arg(
        long,
        hide_short_help = true,
        value_name = "DIR",
        default_value = "/var/lib/kpx",
        global = true,
        help_heading = "Node"
    )]
    pub state_dir: PathBuf,
    /// Name of the Node object [default: from the snapshot, then the host name]
    #[arg(
        long,
        hide_short_help = true,
        value_name = "NAME",
        env = "KPX_NODE_NAME",
        hide_env_values = true,
        global = true,
        help_heading = "Node"
    )]
    pub node_name: Option<String>,
    /// Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16
    #[arg(
        long,
        hide_short_help = true,
        value_name = "NAME=VALUE",
        value_parser = proxy_flag,
        global = true,
        help_heading = "Node"
    )]
    pub kube_proxy_flag: Vec<(String, String)>,

    /// API objects from a file or folder instead of a cluster
    #[arg(long, value_name = "FILE|DIR", global = true, help_heading = "Cluster")]
    pub services_from: Option<PathBuf>,
    /// kubeconfig file
    #[arg(
        long,
        hide_short_help = true,
        value_name = "FILE",
        env = "KUBECONFIG",
        hide_env_values = true,
        global = true,
        help_heading = "Cluster"
    )]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, hide_short_help = true, value_name = "NAME", global = true, help_heading = "Cluster")]
    pub context: Option<String>,
}

/// Reads `cluster-cidr=10.244.0.0/16`, with or without the dashes.
fn proxy_flag(text: &str) -> Result<(String, String), NoFlag> {
    let (name, value) = text.split_once('=').ok_or(NoFlag)?;
    Ok((name.trim_start_matches('-').to_owned(), value.to_owned()))
}

/// The text is no flag with a value.
#[derive(Debug, thiserror::Error)]
#[error("no flag with a value, such as cluster-cidr=10.244.0.0/16")]
struct NoFlag;

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what serves on this node: Services, backends, flows, BPF objects
    #[command(subcommand)]
    Inspect(inspect::Inspect),
    /// Compare two descriptions of a node's Services
    Diff(diff::Args),
    /// Follow a packet: which rules and maps it meets in each dataplane, and where it ends
    Path(path::Args),
    /// Find out why a Service does not work, from the API to a connection
    Doctor(doctor::Args),
    /// Connect from elsewhere, on behalf of doctor
    #[command(hide = true)]
    DoctorProbe,
    /// Watch how busy each Service and backend is
    Top(top::Args),
    /// See which backend each connection gets, or why none, as it happens
    Monitor(monitor::Args),
    /// Judge what the old dataplanes left on a node: what is wrong, and what to do
    Audit(audit::Args),
    /// Try what this kernel and node can do, or foretell it from a kernel's files
    Preflight(preflight::Args),
    /// Try the running kernel, on behalf of preflight
    #[command(hide = true)]
    PreflightTrial,
    /// Explain a check of audit or preflight
    Explain(audit::ExplainArgs),
    /// Record a node, for reports, tests and reading elsewhere
    Snapshot(snapshot::Args),
    /// Write what is to be known of a node as one page for a browser
    Report(report::Args),
    /// Keep serving this node's Services, as kube-proxy did
    Agent(agent::Args),
    /// Carry this node from kube-proxy to eBPF, and back
    #[command(subcommand)]
    Migrate(migrate::Migrate),
    /// Rehearse on a recorded node, inside network namespaces
    #[command(subcommand)]
    Lab(lab::Lab),
    /// Print the version, the eBPF object's hash and the kernel floor
    Version(version::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Write the man pages
    #[command(hide = true)]
    Man(completions::ManArgs),
    /// Print docs/checks.md
    #[command(hide = true)]
    Checks,
}

/// What a command gets: the terminal and the global options.
pub struct Context {
    /// The terminal.
    pub ui: Ui,
    /// The global options.
    pub globals: Globals,
}

impl Context {
    /// Opens the node that the global options name.
    pub fn node(&self) -> Result<Node, CaptureError> {
        Node::open(&self.globals.node_options())
    }

    /// What to read if the command line does not say: the API's objects where they are given, else the rules.
    fn via(&self, given: Option<Via>) -> Via {
        given.unwrap_or(if self.globals.services_from.is_some() { Via::Api } else { Via::Iptables })
    }

    /// Reads a node's table from one source.
    fn lift(&self, node: &Node, via: Via) -> Result<Lifted, Failure> {
        let progress = self.ui.progress(None, format!("reading {via}"));
        let start = Instant::now();
        let lifted = source::read(via, node, &self.globals.places())?;
        drop(progress);
        let (place, frontends) = (lifted.place.as_str(), lifted.table.frontends().len());
        tracing::info!(%via, place, frontends, took = ?start.elapsed(), "read");
        Ok(lifted)
    }

    /// The same with the names that BPF maps and IPVS do not hold: from the API's objects where they are given, else from the
    /// rules, of which IPVS mode has none that tell.
    fn lift_named(&self, node: &Node, via: Via) -> Result<Lifted, Failure> {
        let mut lifted = self.lift(node, via)?;
        if via.is_nameless() {
            let known = if via == Via::Ipvs { Via::Api } else { self.via(None) };
            match self.lift(node, known) {
                Ok(known) => lifted.table = source::join_names(&lifted.table, &known.table),
                Err(failure) => lifted
                    .notices
                    .push(Remark { code: "no-names", text: format!("no names of Services: {}", failure.message) }),
            }
        }
        Ok(lifted)
    }
}

impl Globals {
    /// The part that concerns reading a node.
    pub fn node_options(&self) -> NodeOptions {
        NodeOptions {
            from: self.from.clone(),
            netns: self.netns.clone(),
            services_from: self.services_from.clone(),
            node_name: self.node_name.clone(),
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            proxy_flags: self.kube_proxy_flag.clone(),
        }
    }

    /// Where the maps of dataplanes would be pinned.
    pub fn places(&self) -> Places {
        // Maps are read through their pins; the cgroup is for those who attach.
        let kpx = Paths { pins: self.bpffs.clone(), cgroup: self.cgroup().unwrap_or_default() };
        Places { kpx, cilium: self.cilium_pins.clone() }
    }

    /// The cgroup2 directory: as given, else the root of the hierarchy.
    pub fn cgroup(&self) -> Result<PathBuf, capture::cgroup::CgroupError> {
        match &self.cgroup {
            Some(path) => capture::cgroup::check(path).map(|()| path.clone()),
            None => capture::cgroup::root(),
        }
    }

    /// The part that concerns output.
    pub const fn ui_options(&self) -> UiOptions {
        UiOptions {
            format: self.output,
            color: self.color,
            no_headers: self.no_headers,
            no_progress: self.no_progress || self.verbose > 0,
            quiet: self.quiet,
            no_input: self.no_input,
        }
    }
}

/// The definition of the command line.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses a command line as it stands, whatever the environment and files say of defaults. The error is help, a version or a
/// mistake, in colour as the line itself asks for it.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    parse_by(coloured(command(), &args), args)
}

/// The same with defaults from the environment and from files, which is how the program itself is called. Its name tells whether
/// kubectl calls it.
pub fn parse_here(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    let program = args.first().and_then(|program| Path::new(program).file_name()?.to_str());
    let command = match program {
        Some(name) if name.starts_with(PLUGIN) => coloured(command().bin_name("kubectl kpx"), &args),
        _ => coloured(command(), &args),
    };
    // Help is given whatever is in files; so are the commands that kpx calls, which are told all they need.
    let Ok(matches) = command.clone().ignore_errors(true).try_get_matches_from(&args) else {
        return parse_by(command, args);
    };
    if is_hidden(&command, &matches) {
        return parse_by(command, args);
    }
    let files =
        config::files(matches.get_one::<PathBuf>("config").map(PathBuf::as_path), |name| std::env::var_os(name));
    let files = files.map_err(|error| config_error(&error))?;
    let with_defaults = config::with_defaults(command, &files).map_err(|error| config_error(&error))?;
    parse_by(with_defaults, args).map_err(|error| told_where(error, &files))
}

/// What kubectl calls its plug-in of this name by.
const PLUGIN: &str = "kubectl-kpx";

fn parse_by(command: clap::Command, args: Vec<OsString>) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&command.try_get_matches_from(args)?)
}

fn coloured(command: clap::Command, args: &[OsString]) -> clap::Command {
    let decide = |terminal| color_of(args).decide(terminal, |name| std::env::var(name).ok());
    command.color(match (decide(false), decide(true)) {
        (true, _) => clap::ColorChoice::Always,
        (false, true) => clap::ColorChoice::Auto,
        (false, false) => clap::ColorChoice::Never,
    })
}

/// Whether a command that is not for people was called.
fn is_hidden(command: &clap::Command, matches: &clap::ArgMatches) -> bool {
    matches.subcommand().is_some_and(|(name, below)| {
        command.find_subcommand(name).is_some_and(|command| command.is_hide_set() || is_hidden(command, below))
    })
}

fn config_error(error: &config::ConfigFileError) -> clap::Error {
    use crate::error::Hinted as _;
    let mut lines = vec![crate::error::with_causes(error)];
    lines.extend(error.hints().iter().map(|hint| format!("hint: {hint}")));
    clap::Error::raw(clap::error::ErrorKind::Io, lines.join("\n") + "\n")
}

/// A value that is wrong may be a file's, which the parser does not know of.
fn told_where(error: clap::Error, files: &[config::File]) -> clap::Error {
    use clap::error::ErrorKind::{InvalidValue, ValueValidation};
    if files.is_empty() || !matches!(error.kind(), InvalidValue | ValueValidation) {
        return error;
    }
    let places: Vec<String> = files.iter().map(|file| file.path().display().to_string()).collect();
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    clap::Error::raw(error.kind(), format!("{text}\nhint: defaults were read from {}\n", places.join(" and ")))
}

/// The colour a command line asks for, found before it is parsed: help and mistakes are printed by the parser.
fn color_of(args: &[OsString]) -> ColorChoice {
    let words = || args.iter().filter_map(|arg| arg.to_str());
    let value = words()
        .find_map(|word| word.strip_prefix("--color="))
        .or_else(|| words().zip(words().skip(1)).find(|(word, _)| *word == "--color").map(|(_, value)| value));
    value.and_then(|value| <ColorChoice as clap::ValueEnum>::from_str(value, false).ok()).unwrap_or_default()
}

/// Runs a parsed command line.
pub fn run(cli: Cli) -> Exit {
    let mut context = Context { ui: Ui::stdio(cli.globals.ui_options()), globals: cli.globals };
    context.ui.start_log(context.globals.verbose);
    match enter_netns(&context.globals).and_then(|()| dispatch(&mut context, cli.command)) {
        Ok(exit) => exit,
        Err(failure) => {
            context.ui.failure(&failure);
            failure.exit
        }
    }
}

/// Moves the process into `--netns` while it has one thread.
fn enter_netns(globals: &Globals) -> Result<(), Failure> {
    match (&globals.netns, &globals.from) {
        (None, _) => Ok(()),
        (Some(_), Some(_)) => {
            Err(Failure::usage("--netns names a live node and --from a recorded one: give one of them"))
        }
        (Some(netns), None) => Ok(capture::netns::enter(netns)?),
    }
}

fn dispatch(context: &mut Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Inspect(command) => inspect::run(context, command),
        Command::Diff(args) => diff::run(context, &args),
        Command::Path(args) => path::run(context, &args),
        Command::Doctor(args) => doctor::run(context, &args),
        Command::DoctorProbe => doctor::probe(context),
        Command::Top(args) => top::run(context, &args),
        Command::Monitor(args) => monitor::run(context, &args),
        Command::Audit(args) => audit::run(context, &args),
        Command::Explain(args) => audit::explain(context, &args),
        Command::Preflight(args) => preflight::run(context, &args),
        Command::PreflightTrial => preflight::trial(context),
        Command::Checks => audit::page(context),
        Command::Snapshot(args) => snapshot::run(context, &args),
        Command::Report(args) => report::run(context, &args),
        Command::Agent(args) => agent::run(context, &args),
        Command::Migrate(command) => migrate::run(context, command),
        Command::Lab(command) => lab::run(context, command),
        Command::Version(args) => version::run(context, &args),
        Command::Completions(args) => completions::run(context, &args),
        Command::Man(args) => completions::man(context, &args),
    }
}
