//! `kpx inspect programs`, `maps` and `links`: the BPF objects of the host, kpx's own marked.

use clap::Args;
use serde_json::{Map, Value, json};

use crate::capture::{BpfObjects, Captured, Item};
use crate::cmd::Context;
use crate::ui::{Cell, Exit, Failure, Report, Table, Tone, count, to_value};

const PROGRAM_EXAMPLES: &str = "\
Examples:
  kpx's own programs
    $ kpx inspect programs --own

  Every program of a recorded node, as JSON
    $ kpx inspect programs --from node-a.tar.zst -o json";

const MAP_EXAMPLES: &str = "\
Examples:
  kpx's own maps
    $ kpx inspect maps --own

  Ids of all maps, for bpftool
    $ kpx inspect maps -o name";

const LINK_EXAMPLES: &str = "\
Examples:
  Where kpx's programs are attached
    $ kpx inspect links --own

  Who else is attached to this host
    $ kpx inspect links -o wide";

/// Every program, map and (through its program) link of kpx is called so.
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
    own: bool,
}

pub(super) fn programs(context: &mut Context, args: &ProgramsArgs) -> Result<Exit, Failure> {
    list(context, Kind::Program, &args.which)
}

pub(super) fn maps(context: &mut Context, args: &MapsArgs) -> Result<Exit, Failure> {
    list(context, Kind::Map, &args.which)
}

pub(super) fn links(context: &mut Context, args: &LinksArgs) -> Result<Exit, Failure> {
    list(context, Kind::Link, &args.which)
}

fn list(context: &mut Context, kind: Kind, which: &Which) -> Result<Exit, Failure> {
    let node = context.node()?;
    let objects = match node.read(Item::BpfObjects)? {
        Captured::Present { bytes, place } => serde_json::from_slice::<BpfObjects>(&bytes).map_err(|error| {
            let mut failure = Failure::new(format!("{place} is no list of BPF objects"));
            failure.causes.push(error.to_string());
            failure
        })?,
        Captured::Absent { reason } => {
            return Err(Failure::new(format!("no BPF objects of {}: {reason}", node.label())));
        }
    };
    context.ui.report(&Listing { kind, objects, own: which.own, place: node.label() })?;
    Ok(Exit::Fine)
}

#[derive(Clone, Copy)]
enum Kind {
    Program,
    Map,
    Link,
}

/// One kind of BPF object of a host.
struct Listing {
    kind: Kind,
    objects: BpfObjects,
    own: bool,
    place: String,
}

/// One line: id, whether it is kpx's, cells, JSON.
struct Line {
    id: u32,
    own: bool,
    cells: Vec<String>,
    item: Value,
}

impl Listing {
    const fn noun(&self) -> &'static str {
        match self.kind {
            Kind::Program => "program",
            Kind::Map => "map",
            Kind::Link => "link",
        }
    }

    fn program_name(&self, id: u32) -> Option<&str> {
        self.objects.programs.iter().find(|program| program.id == id).map(|program| program.name.as_str())
    }

    fn lines(&self) -> Vec<Line> {
        let all: Vec<Line> = match self.kind {
            Kind::Program => self.objects.programs.iter().map(Self::program).collect(),
            Kind::Map => self.objects.maps.iter().map(Self::map).collect(),
            Kind::Link => self.objects.links.iter().map(|link| self.link(link)).collect(),
        };
        all.into_iter().filter(|line| line.own || !self.own).collect()
    }

    fn program(program: &crate::capture::BpfProgram) -> Line {
        let maps: Vec<String> = program.map_ids.iter().map(u32::to_string).collect();
        Line {
            id: program.id,
            own: program.name.starts_with(PREFIX),
            cells: vec![program.name.clone(), program.kind.clone(), program.tag.clone(), maps.join(",")],
            item: to_value(program),
        }
    }

    fn map(map: &crate::capture::BpfMap) -> Line {
        let numbers = [map.key_size, map.value_size, map.max_entries].map(|number| number.to_string());
        let mut cells = vec![map.name.clone(), map.kind.clone()];
        cells.extend(numbers);
        Line { id: map.id, own: map.name.starts_with(PREFIX), cells, item: to_value(map) }
    }

    fn link(&self, link: &crate::capture::BpfLink) -> Line {
        let program = self.program_name(link.prog_id);
        let mut item = to_value(link);
        item["program"] = json!(program);
        Line {
            id: link.id,
            own: program.is_some_and(|name| name.starts_with(PREFIX)),
            cells: vec![link.kind.clone(), link.prog_id.to_string(), program.unwrap_or_default().to_owned()],
            item,
        }
    }
}

impl Report for Listing {
    fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Program => "BpfProgramList",
            Kind::Map => "BpfMapList",
            Kind::Link => "BpfLinkList",
        }
    }

    fn items(&self) -> Vec<Value> {
        self.lines()
            .into_iter()
            .map(|mut line| {
                line.item["own"] = json!(line.own);
                line.item
            })
            .collect()
    }

    fn extra(&self) -> Map<String, Value> {
        Map::from_iter([("read_from".to_owned(), json!(self.place))])
    }

    fn tables(&self, _wide: bool) -> Vec<Table> {
        let (headings, right): (&[&'static str], &[&str]) = match self.kind {
            Kind::Program => (&["ID", "OWNER", "NAME", "TYPE", "TAG", "MAPS"], &["ID"]),
            Kind::Map => (
                &["ID", "OWNER", "NAME", "TYPE", "KEY", "VALUE", "MAX-ENTRIES"],
                &["ID", "KEY", "VALUE", "MAX-ENTRIES"],
            ),
            Kind::Link => (&["ID", "OWNER", "TYPE", "PROGRAM", "NAME"], &["ID", "PROGRAM"]),
        };
        let mut table = Table::new(headings).right(right);
        let lines = self.lines();
        for line in &lines {
            let owner = if line.own { Cell::toned("kpx", Tone::Good) } else { Cell::toned("other", Tone::Quiet) };
            let cells = line.cells.iter().map(|text| Cell::from(text.as_str()));
            table.row([Cell::from(line.id.to_string()), owner].into_iter().chain(cells));
        }
        let own = lines.iter().filter(|line| line.own).count();
        let total = count(lines.len(), self.noun());
        let of = if self.own { " of kpx".to_owned() } else { format!(", {own} of kpx") };
        vec![table.footer(format!("{total}{of}, read from {}", self.place))]
    }

    fn names(&self) -> Vec<String> {
        self.lines().into_iter().map(|line| format!("{}/{}", self.noun(), line.id)).collect()
    }
}
