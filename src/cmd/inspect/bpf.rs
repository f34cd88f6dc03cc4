//! `kpx inspect programs`, `maps` and `links`: the BPF objects of the host, kpx's own marked.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::capture::{BpfObjects, Captured, Item, Node};
use crate::cmd::Context;
use crate::inspect::bpf::{self, Link, Map as BpfMap, Program};
use crate::ui::{Cell, Exit, Failure, Report, Table, Tone, count, to_value};

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

  Ids of all maps, for bpftool
    $ kpx inspect maps -o name";

const LINK_EXAMPLES: &str = "\
Examples:
  Where kpx's programs are attached
    $ kpx inspect links --ours

  Who else is attached to this host
    $ kpx inspect links -o wide";

/// What kpx's own objects are called in a snapshot, which knows no pins.
const PREFIX: &str = "kpx_";

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
    let lines = lines.into_iter().filter(|line| line.ours || !which.ours).collect();
    context.ui.report(&Listing { kind, lines, ours: which.ours, place: node.label() })?;
    Ok(Exit::Fine)
}

/// How one kind of object is listed.
struct Kind {
    list: &'static str,
    noun: &'static str,
    /// Headings; the first so many in a narrow table.
    headings: &'static [&'static str],
    narrow: usize,
    right: &'static [&'static str],
}

const PROGRAMS: Kind = Kind {
    list: "BpfProgramList",
    noun: "program",
    headings: &["NAME", "TYPE", "ATTACHED", "TAG", "MEMORY", "MAPS", "PINNED"],
    narrow: 3,
    right: &["ID", "MEMORY"],
};

const MAPS: Kind = Kind {
    list: "BpfMapList",
    noun: "map",
    headings: &["NAME", "TYPE", "ENTRIES", "MAX", "MEMORY", "KEY", "VALUE", "PINNED"],
    narrow: 5,
    right: &["ID", "ENTRIES", "MAX", "MEMORY", "KEY", "VALUE"],
};

const LINKS: Kind = Kind {
    list: "BpfLinkList",
    noun: "link",
    headings: &["TYPE", "PROGRAM", "HOOK", "CGROUP", "PINNED"],
    narrow: 4,
    right: &["ID"],
};

/// One object: its cells under the headings of its [`Kind`], and its JSON.
struct Line {
    id: u32,
    ours: bool,
    cells: Vec<String>,
    item: Value,
}

impl Line {
    fn new<T: Serialize>(id: u32, ours: bool, object: &T, cells: Vec<String>) -> Self {
        let mut item = to_value(object);
        item["ours"] = json!(ours);
        Self { id, ours, cells, item }
    }
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(",")
}

fn number<N: ToString>(number: Option<N>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

fn joined(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

fn program(p: &Program) -> Line {
    let attached = p.attached.iter().map(|at| at.hook.clone()).collect::<Vec<_>>().join(",");
    let cells = vec![
        p.name.clone(),
        p.kind.clone(),
        attached,
        p.tag.clone(),
        number(p.memory),
        joined(&p.maps),
        paths(&p.pinned),
    ];
    Line::new(p.id, p.ours, p, cells)
}

fn recorded_program(p: &crate::capture::BpfProgram) -> Line {
    let none = String::new;
    let cells = vec![p.name.clone(), p.kind.clone(), none(), p.tag.clone(), none(), joined(&p.map_ids), none()];
    Line::new(p.id, p.name.starts_with(PREFIX), p, cells)
}

fn map(m: &BpfMap) -> Line {
    let cells = vec![
        m.name.clone(),
        m.kind.clone(),
        number(m.entries),
        m.max_entries.to_string(),
        number(m.memory),
        m.key_size.to_string(),
        m.value_size.to_string(),
        paths(&m.pinned),
    ];
    Line::new(m.id, m.ours, m, cells)
}

fn recorded_map(m: &crate::capture::BpfMap) -> Line {
    let none = String::new;
    let [max, key, value] = [m.max_entries, m.key_size, m.value_size].map(|n| n.to_string());
    let cells = vec![m.name.clone(), m.kind.clone(), none(), max, none(), key, value, none()];
    Line::new(m.id, m.name.starts_with(PREFIX), m, cells)
}

fn link(l: &Link) -> Line {
    let hook = l.place.as_ref().map_or_else(String::new, |at| at.hook.clone());
    let cgroup =
        l.place.as_ref().and_then(|at| at.cgroup.as_ref()).map_or_else(String::new, |p| p.display().to_string());
    Line::new(l.id, l.ours, l, vec![l.kind.clone(), l.program.clone(), hook, cgroup, paths(&l.pinned)])
}

fn recorded_link(l: &crate::capture::BpfLink, objects: &BpfObjects) -> Line {
    let program = objects.programs.iter().find(|p| p.id == l.prog_id).map(|p| p.name.clone()).unwrap_or_default();
    let none = String::new;
    let ours = program.starts_with(PREFIX);
    Line::new(l.id, ours, l, vec![l.kind.clone(), program, none(), none(), none()])
}

/// One kind of BPF object of a host.
struct Listing {
    kind: &'static Kind,
    lines: Vec<Line>,
    ours: bool,
    place: String,
}

impl Report for Listing {
    fn kind(&self) -> &'static str {
        self.kind.list
    }

    fn items(&self) -> Vec<Value> {
        self.lines.iter().map(|line| line.item.clone()).collect()
    }

    fn extra(&self) -> Map<String, Value> {
        Map::from_iter([("read_from".to_owned(), json!(self.place))])
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        let columns = if wide { self.kind.headings.len() } else { self.kind.narrow };
        let headings: Vec<&'static str> =
            ["ID", "OWNER"].into_iter().chain(self.kind.headings[..columns].iter().copied()).collect();
        let mut table = Table::new(&headings).right(self.kind.right);
        for line in &self.lines {
            let owner = if line.ours { Cell::toned("kpx", Tone::Good) } else { Cell::toned("other", Tone::Quiet) };
            let cells = line.cells[..columns].iter().map(|text| Cell::from(text.as_str()));
            table.row([Cell::from(line.id.to_string()), owner].into_iter().chain(cells));
        }
        let total = count(self.lines.len(), self.kind.noun);
        let ours = self.lines.iter().filter(|line| line.ours).count();
        let of = if self.ours { " of kpx".to_owned() } else { format!(", {ours} of kpx") };
        vec![table.footer(format!("{total}{of}, read from {}", self.place))]
    }

    fn names(&self) -> Vec<String> {
        self.lines.iter().map(|line| format!("{}/{}", self.kind.noun, line.id)).collect()
    }
}
