//! `kpx migrate`: the arguments that its subcommands share.

mod apply;
mod list;
mod narrator;
mod plan;
mod probe;
mod rehearse;
mod rollback;
mod status;
mod took;
mod verify;

use std::time::Duration;

pub(super) use narrator::stop_flag;

use super::{Context, Globals};
use crate::migrate::{Accept, Choice, Named, ProxyDriver, SessionOptions, Wishes};
use crate::ui::{Exit, Failure};

/// Subcommands of `kpx migrate`.
#[derive(Debug, clap::Subcommand)]
pub enum Migrate {
    /// Show what a migration of this node would do, and whether it may
    Plan(plan::Args),
    /// Try the migration of a recorded node in network namespaces, there and back, under traffic
    Rehearse(rehearse::Args),
    /// Carry the node over, or go on where an earlier run stopped
    Apply(apply::Args),
    /// Show how far the migration is, looking at the node itself
    Status(status::Args),
    /// Compare API, rules and maps, and try connections
    Verify(verify::Args),
    /// Bring the node back to the rules, from wherever it is
    Rollback(rollback::Args),
    /// List past and present migrations of this node
    List(list::Args),
    /// Make the connections that a request on standard input names
    #[command(hide = true)]
    Probe(probe::Args),
}

pub(super) fn run(context: &mut Context, command: Migrate) -> Result<Exit, Failure> {
    match command {
        Migrate::Plan(args) => plan::run(context, &args),
        Migrate::Rehearse(args) => rehearse::run(context, &args),
        Migrate::Apply(args) => apply::run(context, &args),
        Migrate::Status(args) => status::run(context, &args),
        Migrate::Verify(args) => verify::run(context, &args),
        Migrate::Rollback(args) => rollback::run(context, &args),
        Migrate::List(args) => list::run(context, &args),
        Migrate::Probe(args) => probe::run(context, &args),
    }
}

/// How long to wait for another kpx.
#[derive(Clone, Copy, Debug, clap::Args)]
struct LockArgs {
    /// How long to wait for another kpx that is changing this node
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    lock_timeout: Duration,
}

/// How long to wait for answers.
#[derive(Clone, Copy, Debug, clap::Args)]
struct ProbeArgs {
    /// How long a probe waits for an answer
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    probe_timeout: Duration,
}

/// How long to wait for flows that nobody else can carry.
#[derive(Clone, Copy, Debug, clap::Args)]
struct DrainArgs {
    /// How long to wait for flows that nobody else can carry: UDP sockets on the way back, connections through IPVS on the way there
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    drain_timeout: Duration,
}

/// What is decided when a plan is made.
#[derive(Clone, Debug, clap::Args)]
struct WishArgs {
    /// Who runs kube-proxy on this node, and so how it is stopped [default: what is found]
    ///
    /// daemonset[=NAMESPACE/NAME]: the node gets a label, the DaemonSet an affinity that leaves out labelled nodes.
    /// static-pod[=FILE]: the manifest is taken away. systemd[=UNIT]: the unit is masked or disabled, and stopped. process: it gets
    /// SIGTERM, and is started again with its command line. operator: you stop it yourself before phase stop. The plan says
    /// what was found, and what is done and undone.
    #[arg(long, value_name = "DRIVER", conflicts_with = "stop_command")]
    driver: Option<Named>,
    /// Stop kube-proxy on this node by this command, run by sh, instead
    #[arg(long, value_name = "CMD")]
    stop_command: Option<String>,
    /// Start kube-proxy again by this command on the way back
    #[arg(long, value_name = "CMD", requires = "stop_command")]
    start_command: Option<String>,
    /// Accept what is not as it should be, by name
    #[arg(long, value_enum, value_name = "WHAT")]
    accept: Vec<Accept>,
}

impl WishArgs {
    fn wishes(&self) -> Wishes {
        let driver = match (&self.stop_command, &self.driver) {
            (Some(stop), _) => {
                Choice::Given(ProxyDriver::Commands { stop: stop.clone(), start: self.start_command.clone() })
            }
            (None, Some(named)) => Choice::Named(named.clone()),
            (None, None) => Choice::Evidence,
        };
        Wishes { driver, accept: self.accept.clone() }
    }
}

/// Which node the global options mean.
fn session_options(globals: &Globals) -> SessionOptions {
    SessionOptions {
        node: globals.node_options(),
        cgroup: globals.cgroup.clone(),
        pins: globals.bpffs.clone(),
        state_dir: globals.state_dir.clone(),
    }
}

/// Why a time on the command line is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give a whole number with a unit: 500ms, 10s, 2m, 1h")]
pub(super) struct NotATime;

/// `500ms`, `10s`, `2m`.
pub(super) fn duration(text: &str) -> Result<Duration, NotATime> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or(NotATime)?;
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(NotATime),
    };
    let number: u64 = number.parse().map_err(|_| NotATime)?;
    number.checked_mul(scale).map(Duration::from_millis).ok_or(NotATime)
}

/// A command line of kpx with the options that say which node is meant, to be pasted.
fn command_line(globals: &Globals, command: &str) -> String {
    let defaults = super::parse(["kpx".into(), "version".into()]).ok().map(|cli| cli.globals);
    let mut words = vec!["kpx".to_owned(), command.to_owned()];
    let mut option = |name: &str, value: Option<String>, default: Option<String>| {
        if let Some(value) = value.filter(|v| Some(v) != default.as_ref()) {
            words.push(name.to_owned());
            words.push(quoted(&value));
        }
    };
    let path = |p: &std::path::Path| p.display().to_string();
    let default = |of: fn(&Globals) -> String| defaults.as_ref().map(of);
    option("--netns", globals.netns.clone(), None);
    option("--cgroup", globals.cgroup.as_deref().map(path), None);
    option("--bpffs", Some(path(&globals.bpffs)), default(|g| g.bpffs.display().to_string()));
    option("--state-dir", Some(path(&globals.state_dir)), default(|g| g.state_dir.display().to_string()));
    option("--node-name", globals.node_name.clone(), defaults.as_ref().and_then(|g| g.node_name.clone()));
    option("--services-from", globals.services_from.as_deref().map(path), None);
    let kubeconfig = defaults.as_ref().and_then(|g| g.kubeconfig.as_deref().map(path));
    option("--kubeconfig", globals.kubeconfig.as_deref().map(path), kubeconfig);
    option("--context", globals.context.clone(), None);
    words.join(" ")
}

/// As a POSIX shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        assert!(duration("10").is_err() && duration("s").is_err() && duration("1.5s").is_err());
        assert!(duration("99999999999999999999h").is_err() && duration("18446744073709551615h").is_err());
    }

    #[test]
    fn the_command_to_paste_has_the_options_that_name_the_node() {
        let args = ["kpx", "--netns", "node a", "--state-dir", "/tmp/s", "--bpffs", "/sys/fs/bpf/kpx", "version"];
        let cli = super::super::parse(args.map(Into::into)).unwrap();
        let line = command_line(&cli.globals, "migrate verify");
        assert_eq!(line, "kpx migrate verify --netns 'node a' --state-dir /tmp/s");
    }
}
