//! `inspect map` on maps of others, against bpftool.

use std::collections::BTreeMap;
use std::path::Path;

use kpx::capture::command;
use serde_json::Value;

use super::raw::{self, Bpffs, Btf, Map, Types};
use crate::cli::environment::{Run, finish, kpx, run};
use crate::cli::schema;
use crate::support;

fn inspect(args: &[&str], pin: &Path) -> Run {
    finish(kpx().args(["inspect", "map"]).arg(pin).args(args))
}

fn items(run: &Run) -> Vec<Value> {
    assert_eq!(run.code, 0, "{}", run.err);
    let document: Value = serde_json::from_str(&run.out).expect("JSON");
    schema::conforms(&document);
    document["items"].as_array().expect("items").clone()
}

/// What bpftool prints of a map, as JSON, or `None` with the reason printed.
fn bpftool(pin: &Path) -> Option<Vec<Value>> {
    match command::output("bpftool", ["-j", "map", "dump", "pinned", pin.to_str().expect("UTF-8")], None) {
        Ok(out) => Some(serde_json::from_slice(&out).expect("JSON")),
        Err(error) => {
            println!("skipped: no bpftool ({error})");
            None
        }
    }
}

/// Entries by the JSON of their keys.
fn by_key(entries: impl IntoIterator<Item = (Value, Value)>) -> BTreeMap<String, Value> {
    entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

/// A map with a struct of all sorts as value.
fn typed(kind: u32, most: u64) -> Map {
    let mut btf = Btf::new();
    let (number, short, byte) = (btf.int("u32", 4, false), btf.int("s16", 2, true), btf.int("u8", 1, false));
    let state = btf.enumeration("state", &[("ACTIVE", 0), ("GONE", 3)]);
    let list = btf.array(short, number, 3);
    let inner = btf.structure("inner", 4, &[("low", number, 0, 5), ("high", number, 5, 27)]);
    let key = btf.structure("key", 8, &[("id", number, 0, 0), ("port", short, 32, 0), ("proto", byte, 48, 0)]);
    let members = [
        ("state", state, 0, 0),
        ("list", list, 32, 0),
        ("last", short, 80, 0),
        ("inner", inner, 96, 0),
        ("n", number, 128, 0),
    ];
    let value = btf.structure("value", 20, &members);
    let fd = btf.load();
    let (key, size) = if kind == raw::HASH { (key, 8) } else { (number, 4) };
    Map::new(kind, "kpxtest_map", size, 20, most, Types { btf: Some(&fd), key, value })
}

fn value(n: u32) -> Vec<u8> {
    let mut bytes = (n % 4).to_ne_bytes().to_vec();
    bytes.extend([-1_i16, 2, -30_000, 7].iter().flat_map(|short| short.to_ne_bytes()));
    bytes.extend((n << 5 | 9).to_ne_bytes());
    bytes.extend(n.wrapping_mul(0x9e37_79b9).to_ne_bytes());
    bytes
}

#[test]
fn entries_are_what_bpftool_says() {
    if !support::privileged() {
        return;
    }
    let (bpffs, map) = (Bpffs::new(), typed(raw::HASH, 12_000));
    for n in 0..9_000_u32 {
        let key: Vec<u8> = n.to_ne_bytes().into_iter().chain([1, 0xff, 6, 0]).collect();
        map.put(&key, &value(n));
    }
    let pin = bpffs.path("typed");
    map.pin(&pin);
    let ours = items(&inspect(&["-o", "json"], &pin));
    assert_eq!(ours.len(), 9_000, "more than one batch");
    let Some(theirs) = bpftool(&pin) else { return };
    let ours = by_key(ours.into_iter().map(|item| (item["key"].clone(), item["value"].clone())));
    let theirs = by_key(theirs.into_iter().map(|item| {
        let (key, mut value) = (item["formatted"]["key"].clone(), item["formatted"]["value"].clone());
        // bpftool prints bit fields as texts of hexadecimal digits.
        for bits in value["inner"].as_object_mut().expect("a struct").values_mut() {
            let digits = bits.as_str().and_then(|text| text.strip_prefix("0x")).expect("hexadecimal");
            *bits = u32::from_str_radix(digits, 16).expect("hexadecimal").into();
        }
        (key, value)
    }));
    assert_eq!(ours.len(), theirs.len());
    let differing = ours.iter().find(|(key, value)| theirs.get(*key) != Some(value));
    assert_eq!(differing, None, "bpftool says {:?}", differing.and_then(|(key, _)| theirs.get(key)));
}

#[test]
fn arrays_show_what_is_in_use() {
    if !support::privileged() {
        return;
    }
    let (bpffs, map) = (Bpffs::new(), typed(raw::ARRAY, 10));
    map.put(&3_u32.to_ne_bytes(), &value(5));
    map.put(&8_u32.to_ne_bytes(), &value(3));
    let pin = bpffs.path("array");
    map.pin(&pin);
    let shown = inspect(&[], &pin).out;
    assert!(shown.contains("state=1 list=[-1 2 -30000] last=7 inner={low=9 high=5}"), "{shown}");
    assert!(shown.contains("state=GONE list"), "an enum by its name: {shown}");
    assert!(
        shown.contains("2 entries of map kpxtest_map (id ") && shown.contains(", 8 all zero and not shown"),
        "{shown}"
    );
    assert_eq!(items(&inspect(&["--zeros", "-o", "json"], &pin)).len(), 10);
    let first = inspect(&["--limit", "1"], &pin).out;
    assert!(first.contains("the first 1 entry of map kpxtest_map"), "{first}");
    assert_eq!(inspect(&["-o", "name"], &pin).out, "3\n8\n");
}

#[test]
fn copies_of_processors_are_told_apart() {
    if !support::privileged() {
        return;
    }
    let bpffs = Bpffs::new();
    let map = Map::new(raw::PERCPU_ARRAY, "kpxtest_percpu", 4, 4, 2, Types::default());
    let processors = aya::util::nr_cpus().expect("the kernel tells");
    let copies: Vec<u8> =
        (0..processors).flat_map(|n| u64::try_from(n * 2 + 1).expect("small").to_ne_bytes()).collect();
    map.put(&1_u32.to_ne_bytes(), &copies);
    let pin = bpffs.path("percpu");
    map.pin(&pin);
    let shown = items(&inspect(&["-o", "json"], &pin));
    let values: Vec<String> = (0..processors).map(|n| format!("{:02x}000000", n * 2 + 1)).collect();
    if cfg!(target_endian = "little") && processors < 128 {
        assert_eq!(shown[0]["values"], serde_json::json!(values));
    }
}

#[test]
fn what_cannot_be_shown_is_named_with_what_to_do() {
    if !support::privileged() {
        return;
    }
    let absent = run(&["inspect", "map", "no-such-map"]);
    assert_eq!((absent.out.as_str(), absent.code), ("", 1));
    assert_eq!(absent.err, "error: no BPF map no-such-map on this host\nhint: list what there is: kpx inspect maps\n");
    let bpffs = Bpffs::new();
    let title = format!("kpxt{}", std::process::id());
    let twins = [0, 1].map(|_| Map::new(raw::HASH, &title, 4, 4, 1, Types::default()));
    let both = run(&["inspect", "map", &title]);
    assert_eq!(both.code, 1);
    assert!(
        both.err.starts_with(&format!("error: 2 BPF maps are called {title}\nhint: show one of them: ")),
        "{}",
        both.err
    );
    drop(twins);
    let program = raw::program(raw::SCHED_CLS, "kpxtest_prog", 0, 0);
    let pin = bpffs.path("program");
    raw::pin(&program, &pin);
    let other = inspect(&[], &pin);
    assert!(other.err.contains("pins something else than a map"), "{}", other.err);
    let queue = Map::new(22, "kpxtest_queue", 0, 4, 4, Types::default());
    let pin = bpffs.path("queue");
    queue.pin(&pin);
    let none = inspect(&[], &pin);
    assert_eq!(none.err, "error: the entries of a queue map cannot be listed\n");
}
