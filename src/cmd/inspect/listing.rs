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
    /// Columns that are wrapped last.
    pub(super) whole: &'static [&'static str],
}

/// The heading of the column that says whose an object is.
pub(super) const OWNER: &str = "OWNER";

/// One object: its cells under the headings of its [`Kind`], its JSON, its name.
pub(super) struct Line {
    name: String,
    owner: Option<Owner>,
    ours: bool,
    cells: Vec<String>,
    item: Value,
}

impl Line {
    /// An object that somebody owns.
    pub(super) fn new<T: Serialize>(
        name: String,
        (owner, ours): (Owner, bool),
        object: &T,
        cells: Vec<String>,
    ) -> Self {
        let mut item = to_value(object);
        item["owner"] = to_value(&owner);
        item["ours"] = json!(ours);
        Self { name, owner: Some(owner), ours, cells, item }
    }

    /// An entry of a map.
    pub(super) const fn entry(name: String, item: Value, cells: Vec<String>) -> Self {
        Self { name, owner: None, ours: false, cells, item }
    }

    pub(super) const fn is_ours(&self) -> bool {
        self.ours
    }
}

/// One kind of object.
pub(super) struct Listing {
    kind: &'static Kind,
    lines: Vec<Line>,
    footer: String,
    /// Fields of the JSON beside the items.
    extra: Map<String, Value>,
}

impl Listing {
    /// Objects that have owners, with a count of kpx's; only kpx's with `ours`.
    pub(super) fn of_objects(kind: &'static Kind, lines: Vec<Line>, ours: bool, place: &str) -> Self {
        let total = count(lines.len(), kind.noun);
        let kpx = lines.iter().filter(|line| line.owner == Some(Owner::Kpx)).count();
        let of = if ours { " of kpx".to_owned() } else { format!(", {kpx} of kpx") };
        let extra = Map::from_iter([("read_from".to_owned(), json!(place))]);
        Self { kind, lines, footer: format!("{total}{of}, read from {place}"), extra }
    }

    /// Entries of maps.
    pub(super) const fn of_entries(
        kind: &'static Kind,
        lines: Vec<Line>,
        footer: String,
        extra: Map<String, Value>,
    ) -> Self {
        Self { kind, lines, footer, extra }
    }
}

impl Report for Listing {
    fn kind(&self) -> &'static str {
        self.kind.list
    }

    fn items(&self) -> Vec<Value> {
        self.lines.iter().map(|line| line.item.clone()).collect()
    }

    fn extra(&self) -> Map<String, Value> {
        self.extra.clone()
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        let columns = if wide { self.kind.headings.len() } else { self.kind.narrow };
        let headings = &self.kind.headings[..columns];
        let mut table = Table::new(headings).right(self.kind.right).whole(self.kind.whole);
        for line in &self.lines {
            let tone = if line.owner == Some(Owner::Kpx) { Tone::Good } else { Tone::Quiet };
            table.row(line.cells[..columns].iter().zip(headings).map(|(text, heading)| match *heading {
                OWNER => Cell::toned(text.as_str(), tone),
                _ => Cell::from(text.as_str()),
            }));
        }
        vec![table.footer(self.footer.as_str())]
    }

    fn names(&self) -> Vec<String> {
        self.lines.iter().map(|line| line.name.clone()).collect()
    }
}

/// What stands for what is not known.
pub(super) const UNKNOWN: &str = "-";

/// Something that may not be known.
pub(super) fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}
