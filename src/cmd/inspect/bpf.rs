//! `kpx inspect programs`, `maps` and `links`: the BPF objects of the host, and whose they are.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;

use super::listing::{Kind, Line, Listing, OWNER, UNKNOWN, known};
use crate::capture::{BpfObjects, Captured, Item, Node};
use crate::cmd::Context;
use crate::inspect::bpf::{self, Link, Map, Owner, Place, Program};
use crate::ui::{Exit, Failure};

const PROGRAM_EXAMPLES: &str = "\
Examples:
  kpx's own programs and where they are attached
    $ kpx inspect programs --ours

  Every program of a recorded node, as JSON
    $ kpx inspect programs --from node-a.tar.zst -o json";

const MAP_EXAMPLES: &str = "\
Examples:
  kpx's own maps, how full they are and what they cost
    $ kpx inspect maps --ours

  Every map of the host, with what its entries are made of
    $ kpx inspect maps -o wide";

const LINK_EXAMPLES: &str = "\
Examples:
  Where kpx's programs are attached
    $ kpx inspect links --ours

  Who else is attached to this host
    $ kpx inspect links -o wide";

/// Arguments of `kpx inspect programs`.
#[derive(Args, Debug)]
#[command(after_long_help = PROGRAM_EXAMPLES)]
pub struct ProgramsArgs {
    #[command(flatten)]
    which: Which,
}

/// Arguments of `kpx inspect maps`.
#[derive(Args, Debug)]
#[command(after_long_help = MAP_EXAMPLES)]
pub struct MapsArgs {
    #[command(flatten)]
    which: Which,
}

/// Arguments of `kpx inspect links`.
#[derive(Args, Debug)]
#[command(after_long_help = LINK_EXAMPLES)]
pub struct LinksArgs {
    #[command(flatten)]
    which: Which,
}

#[derive(Args, Debug)]
struct Which {
    /// Only kpx's own
    #[arg(long)]
    ours: bool,
}

pub(super) fn programs(context: &mut Context, args: &ProgramsArgs) -> Result<Exit, Failure> {
    let node = context.node()?;
    let lines = match recorded(&node)? {
        Some(objects) => objects.programs.iter().map(recorded_program).collect(),
        None => bpf::programs(&context.globals.bpffs, &context.globals.cgroup()?)?.iter().map(program).collect(),
    };
    list(context, &node, &PROGRAMS, &args.which, lines)
}

pub(super) fn maps(context: &mut Context, args: &MapsArgs) -> Result<Exit, Failure> {
    let node = context.node()?;
    let lines = match recorded(&node)? {
        Some(objects) => objects.maps.iter().map(recorded_map).collect(),
        None => bpf::maps(&context.globals.bpffs)?.iter().map(map).collect(),
    };
    list(context, &node, &MAPS, &args.which, lines)
}

pub(super) fn links(context: &mut Context, args: &LinksArgs) -> Result<Exit, Failure> {
    let node = context.node()?;
    let lines = match recorded(&node)? {
        Some(objects) => objects.links.iter().map(|link| recorded_link(link, &objects)).collect(),
        None => bpf::links(&context.globals.bpffs, &context.globals.cgroup()?)?.iter().map(link).collect(),
    };
    list(context, &node, &LINKS, &args.which, lines)
}

/// The objects of a recorded node; `None` on a live one, of which more can be told.
fn recorded(node: &Node) -> Result<Option<BpfObjects>, Failure> {
    if node.is_live() {
        return Ok(None);
    }
    match node.read(Item::BpfObjects)? {
        Captured::Present { bytes, place } => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            let mut failure = Failure::new(format!("{place} is no list of BPF objects"));
            failure.causes.push(error.to_string());
            failure
        }),
        Captured::Absent { reason } => {
            Err(Failure::new(format!("BPF objects of {} were not captured: {reason}", node.label())))
        }
    }
}

fn list(
    context: &mut Context,
    node: &Node,
    kind: &'static Kind,
    which: &Which,
    lines: Vec<Line>,
) -> Result<Exit, Failure> {
    let lines = lines.into_iter().filter(|line| line.is_ours() || !which.ours).collect();
    context.ui.report(&Listing::of_objects(kind, lines, which.ours, &node.label()))?;
    Ok(Exit::Fine)
}

const PROGRAMS: Kind = Kind {
    list: "BpfProgramList",
    noun: "program",
    headings: &["ID", OWNER, "NAME", "TYPE", "ATTACHED", "RUNS", "NS/RUN", "TAG", "MEMORY", "MAPS", "PINNED"],
    narrow: 5,
    right: &["ID", "RUNS", "NS/RUN", "MEMORY"],
    whole: &[],
};

const MAPS: Kind = Kind {
    list: "BpfMapList",
    noun: "map",
    headings: &["ID", OWNER, "NAME", "TYPE", "ENTRIES", "MAX", "MEMORY", "KEY", "VALUE", "PINNED"],
    narrow: 7,
    right: &["ID", "ENTRIES", "MAX", "MEMORY", "KEY", "VALUE"],
    whole: &[],
};

const LINKS: Kind = Kind {
    list: "BpfLinkList",
    noun: "link",
    headings: &["ID", OWNER, "TYPE", "PROGRAM", "HOOK", "ON", "PINNED"],
    narrow: 6,
    right: &["ID"],
    whole: &[],
};

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(",")
}

fn unknown() -> String {
    UNKNOWN.to_owned()
}

fn joined(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// The owner of a recorded object: a snapshot knows no pins.
fn recorded_owner(name: &str) -> Owner {
    Owner::of(name, &[], false)
}

fn program(p: &Program) -> Line {
    let hooks: BTreeSet<&str> = p.attached.iter().map(|at| at.hook.as_str()).collect();
    let cells = vec![
        p.id.to_string(),
        p.owner.to_string(),
        p.name.clone(),
        p.kind.clone(),
        hooks.into_iter().collect::<Vec<_>>().join(","),
        known(p.runs),
        known(p.run_time_ns.zip(p.runs).and_then(|(time, runs)| time.checked_div(runs))),
        p.tag.clone(),
        known(p.memory),
        joined(&p.maps),
        paths(&p.pinned),
    ];
    Line::new(format!("program/{}", p.id), (p.owner, p.ours), p, cells)
}

fn recorded_program(p: &crate::capture::BpfProgram) -> Line {
    let owner = recorded_owner(&p.name);
    let [name, kind, tag] = [&p.name, &p.kind, &p.tag].map(Clone::clone);
    let mut cells = vec![p.id.to_string(), owner.to_string(), name, kind, unknown(), unknown(), unknown(), tag];
    cells.extend([unknown(), joined(&p.map_ids), unknown()]);
    Line::new(format!("program/{}", p.id), (owner, owner == Owner::Kpx), p, cells)
}

fn map(m: &Map) -> Line {
    let cells = vec![
        m.id.to_string(),
        m.owner.to_string(),
        m.name.clone(),
        m.kind.clone(),
        known(m.entries),
        m.max_entries.to_string(),
        known(m.memory),
        m.key_size.to_string(),
        m.value_size.to_string(),
        paths(&m.pinned),
    ];
    Line::new(format!("map/{}", m.id), (m.owner, m.ours), m, cells)
}

fn recorded_map(m: &crate::capture::BpfMap) -> Line {
    let owner = recorded_owner(&m.name);
    let [id, max, key, value] = [m.id, m.max_entries, m.key_size, m.value_size].map(|n| n.to_string());
    let (name, kind) = (m.name.clone(), m.kind.clone());
    let cells = vec![id, owner.to_string(), name, kind, unknown(), max, unknown(), key, value, unknown()];
    Line::new(format!("map/{}", m.id), (owner, owner == Owner::Kpx), m, cells)
}

/// The cgroup or interface of a place.
fn on(place: &Place) -> String {
    let cgroup = place.cgroup.as_ref().map(|path| path.display().to_string());
    cgroup.or_else(|| place.device.clone()).unwrap_or_else(unknown)
}

fn link(l: &Link) -> Line {
    let (hook, on) = l.place.as_ref().map_or_else(|| (unknown(), unknown()), |at| (at.hook.clone(), on(at)));
    let (id, program) = (l.id.to_string(), l.program.clone());
    let cells = vec![id, l.owner.to_string(), l.kind.clone(), program, hook, on, paths(&l.pinned)];
    Line::new(format!("link/{}", l.id), (l.owner, l.ours), l, cells)
}

fn recorded_link(l: &crate::capture::BpfLink, objects: &BpfObjects) -> Line {
    let program = objects.programs.iter().find(|p| p.id == l.prog_id).map(|p| p.name.clone()).unwrap_or_default();
    let owner = recorded_owner(&program);
    let cells = vec![l.id.to_string(), owner.to_string(), l.kind.clone(), program, unknown(), unknown(), unknown()];
    Line::new(format!("link/{}", l.id), (owner, owner == Owner::Kpx), l, cells)
}
