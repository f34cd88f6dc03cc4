//! Lists of BPF objects: one line an object, whose it is among the columns.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::inspect::bpf::Owner;
use crate::ui::{Cell, Report, Table, Tone, count, to_value};

/// How one kind of object is listed.
pub(super) struct Kind {
    /// `kind` of the JSON.
    pub(super) list: &'static str,
    pub(super) noun: &'static str,
    /// Headings, the owner's among them; the first so many in a narrow table.
    pub(super) headings: &'static [&'static str],
    pub(super) narrow: usize,
    pub(super) right: &'static [&'static str],
}

/// The heading of the column that says whose an object is.
pub(super) const OWNER: &str = "OWNER";

/// One object: its cells under the headings of its [`Kind`], its JSON, its name.
pub(super) struct Line {
    name: String,
    owner: Owner,
    ours: bool,
    cells: Vec<String>,
    item: Value,
}

impl Line {
    pub(super) fn new<T: Serialize>(
        name: String,
        (owner, ours): (Owner, bool),
        object: &T,
        cells: Vec<String>,
    ) -> Self {
        let mut item = to_value(object);
        item["owner"] = to_value(&owner);
        item["ours"] = json!(ours);
        Self { name, owner, ours, cells, item }
    }

    pub(super) const fn is_ours(&self) -> bool {
        self.ours
    }
}

/// One kind of BPF object of a host.
pub(super) struct Listing {
    pub(super) kind: &'static Kind,
    pub(super) lines: Vec<Line>,
    /// Whether only kpx's own are listed.
    pub(super) ours: bool,
    pub(super) place: String,
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
        let headings = &self.kind.headings[..columns];
        let mut table = Table::new(headings).right(self.kind.right);
        for line in &self.lines {
            let tone = if line.owner == Owner::Kpx { Tone::Good } else { Tone::Quiet };
            table.row(line.cells[..columns].iter().zip(headings).map(|(text, heading)| match *heading {
                OWNER => Cell::toned(text.as_str(), tone),
                _ => Cell::from(text.as_str()),
            }));
        }
        let total = count(self.lines.len(), self.kind.noun);
        let ours = self.lines.iter().filter(|line| line.owner == Owner::Kpx).count();
        let of = if self.ours { " of kpx".to_owned() } else { format!(", {ours} of kpx") };
        vec![table.footer(format!("{total}{of}, read from {}", self.place))]
    }

    fn names(&self) -> Vec<String> {
        self.lines.iter().map(|line| line.name.clone()).collect()
    }
}
