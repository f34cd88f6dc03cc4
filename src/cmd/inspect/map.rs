//! `kpx inspect map`: the entries of one BPF map.

use std::fmt::Write as _;

use clap::Args as ClapArgs;
use serde_json::{Map, Value, json};

use super::attached::live_only;
use crate::cmd::Context;
use crate::cmd::watch::Watch;
use crate::inspect::bpf::{MapError, OpenMap, Which};
use crate::inspect::btf::Shape;
use crate::ui::{Exit, Failure, Report, Table, count};

const EXAMPLES: &str = "\
Examples:
  What is in one of kpx's maps
    $ kpx inspect map kpx_backends

  The first ten entries of somebody else's map, by its pin, as JSON
    $ kpx inspect map /sys/fs/bpf/tc/globals/cilium_lxc --limit 10 -o json";

/// Arguments of `kpx inspect map`.
#[derive(ClapArgs, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Name, id or pin of the map; of several with one name, kpx's own
    #[arg(value_name = "NAME|ID|PIN")]
    map: Which,
    /// Show so many entries at most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Show the entries of an array that are all zero, too
    #[arg(long)]
    zeros: bool,
    #[command(flatten)]
    watch: Watch,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    live_only(context, "what maps hold")?;
    args.watch.run(context, |context| look(context, args))
}

fn look(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let map = OpenMap::open(&args.map, Some(&context.globals.places().kpx.maps()))?;
    let progress = context.ui.progress(None, format!("reading {}", map.name));
    let dump = Dump::read(map, args)?;
    drop(progress);
    context.ui.report(&dump)
}

/// Entries of a map, as their bytes.
struct Dump {
    map: OpenMap,
    keys: Vec<u8>,
    values: Vec<u8>,
    entries: usize,
    /// Entries of an array left out because they are all zero.
    zeros: usize,
    /// Whether `--limit` cut the list.
    cut: bool,
}

impl Dump {
    fn read(map: OpenMap, args: &Args) -> Result<Self, MapError> {
        let mut dump = Self { map, keys: Vec::new(), values: Vec::new(), entries: 0, zeros: 0, cut: false };
        let hide = dump.map.is_array() && !args.zeros;
        let Self { map, keys, values, entries, zeros, cut } = &mut dump;
        map.each(|key, value| {
            if hide && value.iter().all(|byte| *byte == 0) {
                *zeros += 1;
                return true;
            }
            if args.limit.is_some_and(|limit| *entries >= limit) {
                *cut = true;
                return false;
            }
            keys.extend(key);
            values.extend(value);
            *entries += 1;
            true
        })?;
        Ok(dump)
    }

    fn each(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let size = |bytes: &[u8]| (bytes.len() / self.entries.max(1)).max(1);
        self.keys.chunks(size(&self.keys)).zip(self.values.chunks(size(&self.values)))
    }

    fn key(&self, key: &[u8]) -> String {
        let mut text = String::new();
        self.map.key().text(key, &mut text);
        text
    }

    /// The value; of a per-CPU map, one line for each processor whose copy is not zero.
    fn value(&self, value: &[u8]) -> String {
        let mut text = String::new();
        let shape = self.map.value();
        let Some(copies) = self.map.copies(value) else {
            shape.text(value, &mut text);
            return text;
        };
        for (processor, copy) in copies.enumerate().filter(|(_, copy)| copy.iter().any(|byte| *byte != 0)) {
            if !text.is_empty() {
                text.push('\n');
            }
            let _ = write!(text, "cpu{processor} ");
            shape.text(copy, &mut text);
        }
        if text.is_empty() { "0".to_owned() } else { text }
    }

    fn footer(&self) -> String {
        let map = &self.map;
        let first = if self.cut { "the first " } else { "" };
        let entries = count(self.entries, "entry");
        let zeros = match self.zeros {
            0 => String::new(),
            zeros => format!(", {zeros} all zero and not shown"),
        };
        let (name, id, kind, most) = (&map.name, map.id(), &map.kind, map.max_entries());
        format!("{first}{entries} of map {name} (id {id}, {kind}, room for {most}){zeros}")
    }
}

fn type_name(name: Option<&str>, shape: &Shape) -> String {
    name.map_or_else(|| format!("{} bytes", shape.size()), str::to_owned)
}

impl Report for Dump {
    fn kind(&self) -> &'static str {
        "BpfMap"
    }

    fn items(&self) -> Vec<Value> {
        let (key, value) = (self.map.key(), self.map.value());
        self.each()
            .map(|(k, v)| match self.map.copies(v) {
                Some(copies) => {
                    json!({ "key": key.json(k), "values": copies.map(|v| value.json(v)).collect::<Vec<_>>() })
                }
                None => json!({ "key": key.json(k), "value": value.json(v) }),
            })
            .collect()
    }

    fn extra(&self) -> Map<String, Value> {
        let map = &self.map;
        let Value::Object(extra) = json!({
            "id": map.id(),
            "name": map.name,
            "type": map.kind,
            "key_size": map.key_size(),
            "value_size": map.value_size(),
            "max_entries": map.max_entries(),
            "key_type": map.key_type,
            "value_type": map.value_type,
            "complete": !self.cut,
        }) else {
            return Map::new();
        };
        extra
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        let map = &self.map;
        let mut table = Table::new(&["KEY", "VALUE"]);
        for (key, value) in self.each() {
            table.row([self.key(key), self.value(value)]);
        }
        if wide {
            let (key, value) = (map.key_type.as_deref(), map.value_type.as_deref());
            table = table.title(format!("{} → {}", type_name(key, map.key()), type_name(value, map.value())));
        }
        vec![table.footer(self.footer())]
    }

    fn names(&self) -> Vec<String> {
        self.each().map(|(key, _)| self.key(key)).collect()
    }
}
