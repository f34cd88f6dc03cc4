//! The command line: one file per subcommand, arguments on top, one `run` below.

mod completions;
mod diff;
mod inspect;
mod lab;
mod migrate;
mod snapshot;
mod version;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::ui::{ColorChoice, Exit, Failure, Format, Ui, UiOptions};

/// Moves Kubernetes nodes from kube-proxy to eBPF without an outage
#[derive(Debug, Parser)]
#[command(name = "kpx", version, propagate_version = true, max_term_width = 100)]
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
    #[arg(short, long, value_enum, default_value_t, global = true, help_heading = "Output")]
    pub output: Format,
    /// When to use colour
    #[arg(long, value_enum, default_value_t, global = true, help_heading = "Output")]
    pub color: ColorChoice,
    /// Leave out the headings of tables
    #[arg(long, global = true, help_heading = "Output")]
    pub no_headers: bool,
    /// Show no progress
    #[arg(long, global = true, help_heading = "Output")]
    pub no_progress: bool,
    /// Never ask; fail instead, naming the flag that answers
    #[arg(long, global = true, help_heading = "Output")]
    pub no_input: bool,
    /// Say less: errors and data only
    #[arg(short, long, global = true, help_heading = "Output")]
    pub quiet: bool,
    /// Say more on stderr: -v info, -vv debug, -vvv trace
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = "Output")]
    pub verbose: u8,

    /// Read a snapshot (directory or .tar.zst) instead of the live node
    #[arg(long, value_name = "SNAPSHOT", global = true, help_heading = "Node")]
    pub from: Option<PathBuf>,
    /// Network namespace of the node: a name from `ip netns`, or a path
    #[arg(long, value_name = "NAME|PATH", global = true, help_heading = "Node")]
    pub netns: Option<String>,
    /// cgroup2 directory whose sockets the node serves [default: the cgroup2 root]
    #[arg(long, value_name = "PATH", global = true, help_heading = "Node")]
    pub cgroup: Option<PathBuf>,
    /// Directory on a bpf file system for pins
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/kpx", global = true, help_heading = "Node")]
    pub bpffs: PathBuf,
    /// Directory for journals, plans and backups
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kpx", global = true, help_heading = "Node")]
    pub state_dir: PathBuf,
    /// Name of the Node object [default: from the snapshot, then the host name]
    #[arg(long, value_name = "NAME", env = "KPX_NODE_NAME", global = true, help_heading = "Node")]
    pub node_name: Option<String>,

    /// API objects from a file or folder instead of a cluster
    #[arg(long, value_name = "FILE|DIR", global = true, help_heading = "Cluster")]
    pub services_from: Option<PathBuf>,
    /// kubeconfig file
    #[arg(long, value_name = "FILE", env = "KUBECONFIG", global = true, help_heading = "Cluster")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME", global = true, help_heading = "Cluster")]
    pub context: Option<String>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what serves on this node: Services, backends, BPF maps, programs and links
    #[command(subcommand)]
    Inspect(inspect::Inspect),
    /// Compare two descriptions of a node's Services
    Diff(diff::Args),
    /// Record a node, for reports, tests and reading elsewhere
    Snapshot(snapshot::Args),
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
}

/// What a command gets: the terminal and the global options.
pub struct Context {
    /// The terminal.
    pub ui: Ui,
    /// The global options.
    pub globals: Globals,
}

impl Globals {
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

/// Runs a parsed command line.
pub fn run(cli: Cli) -> Exit {
    let mut context = Context { ui: Ui::stdio(cli.globals.ui_options()), globals: cli.globals };
    context.ui.start_log(context.globals.verbose);
    match dispatch(&mut context, cli.command) {
        Ok(exit) => exit,
        Err(failure) => {
            context.ui.failure(&failure);
            failure.exit
        }
    }
}

fn dispatch(context: &mut Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Inspect(command) => inspect::run(context, command),
        Command::Diff(args) => diff::run(context, &args),
        Command::Snapshot(args) => snapshot::run(context, &args),
        Command::Migrate(command) => migrate::run(context, command),
        Command::Lab(command) => lab::run(context, command),
        Command::Version(args) => version::run(context, &args),
        Command::Completions(args) => completions::run(context, &args),
    }
}
