//! `kpx report`: what several commands say of a node, as one page.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{Context, dispatch, parse};
use crate::capture::{Captured, Item, Node};
use crate::migrate::Store;
use crate::source::Via;
use crate::ui::{Exit, Failure, Format, Section, Ui, UiOptions, page};

const EXAMPLES: &str = "\
Examples:
  A page of this node: findings, costs, Services, flows, kernel, migrations
    $ sudo kpx report --html node.html

  The same of a recorded node, against the cluster's objects
    $ kpx report --html node-a.html --from node-a.tar.zst --services-from objects.json

The page is one file that fetches nothing; any browser shows it. Reading changes nothing, and nothing is tried.";

/// Arguments of `kpx report`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// File to write; - for stdout
    #[arg(long, value_name = "FILE")]
    html: PathBuf,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    let node = context.node()?;
    let label = node.label();
    let mut sections = Vec::new();
    for (title, command) in commands(context, &node) {
        let progress = context.ui.progress(None, format!("kpx {command}"));
        sections.push(section(context, title, &command));
        drop(progress);
    }
    let about =
        format!("kpx {}, {}", env!("CARGO_PKG_VERSION"), jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC"));
    let text = page(&label, &about, &sections);
    if args.html == Path::new("-") {
        context.ui.raw(&text)?;
        return Ok(Exit::Fine);
    }
    write(&args.html, &text)?;
    context.ui.note(&format!("wrote {}", args.html.display()));
    Ok(Exit::Fine)
}

/// A file is there whole, or as it was before.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("cannot write {}: {e}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As the umask has it: a page is made to be handed on.
    let permissions = std::fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().permissions(permissions).tempfile_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

/// What the page consists of.
fn commands(context: &Context, node: &Node) -> Vec<(&'static str, String)> {
    let via = rules(context, node);
    let mut commands = vec![
        ("Findings", "audit --fail-on never".to_owned()),
        ("The API against the rules", format!("diff api {via}")),
        ("Services", format!("inspect services --via {via}")),
        ("Flows by state", "inspect conntrack --via kernel --by state".to_owned()),
        ("Flows by Service", "inspect conntrack --via kernel --by service".to_owned()),
        ("Kernel and node", "preflight --no-try --fail-on never".to_owned()),
    ];
    let migrated = Store::new(&context.globals.state_dir).list().is_ok_and(|migrations| !migrations.is_empty());
    if node.is_live() && migrated {
        commands.push(("Migration", "migrate status".to_owned()));
        commands.push(("Migrations of this node", "migrate list".to_owned()));
    }
    commands
}

/// Where kube-proxy's rules are, by what it says its mode is.
fn rules(context: &Context, node: &Node) -> Via {
    let said = match node.read(Item::ProxyMode) {
        Ok(Captured::Present { bytes, .. }) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Ok(Captured::Absent { .. }) | Err(_) => String::new(),
    };
    match said.as_str() {
        "nftables" => Via::Nftables,
        "ipvs" => Via::Ipvs,
        "iptables" => Via::Iptables,
        _ => context.via(None),
    }
}

/// Runs a command with a terminal in memory.
fn section(context: &Context, title: &str, command: &str) -> Section {
    let options = UiOptions { format: Format::Html, no_progress: true, no_input: true, ..UiOptions::default() };
    let (ui, out, err) = Ui::buffered(options, None);
    let mut inner = Context { ui, globals: context.globals.clone() };
    let words = std::iter::once("kpx").chain(command.split(' ')).map(Into::into);
    let ended =
        parse(words).map_err(|e| Failure::usage(e.to_string())).and_then(|cli| dispatch(&mut inner, cli.command));
    if let Err(failure) = ended {
        inner.ui.failure(&failure);
    }
    Section {
        title: title.to_owned(),
        command: format!("kpx {command}"),
        body: out.text(),
        remarks: err.text().lines().map(|line| line.trim().to_owned()).collect(),
    }
}
