//! Hand-made BTF, the kernel's own, and bytes that are none.

use proptest::prelude::*;
use serde_json::json;

use super::{Btf, BtfError, Hint, Shape};

/// Writes BTF.
#[derive(Default)]
struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Writer {
    fn new() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }

    fn name(&mut self, name: &str) -> u32 {
        let at = u32::try_from(self.strings.len()).expect("small");
        self.strings.extend(name.bytes().chain([0]));
        at
    }

    fn add(&mut self, name: &str, kind: u32, count: usize, flag: bool, size: u32, words: &[u32]) -> u32 {
        let name = if name.is_empty() { 0 } else { self.name(name) };
        let info = u32::from(flag) << 31 | kind << 24 | u32::try_from(count).expect("small");
        self.types.extend([name, info, size].iter().chain(words).flat_map(|word| word.to_ne_bytes()));
        self.count += 1;
        self.count
    }

    fn int(&mut self, name: &str, size: u32, encoding: u32) -> u32 {
        self.add(name, 1, 0, false, size, &[encoding << 24 | (size * 8)])
    }

    fn array(&mut self, element: u32, count: u32) -> u32 {
        self.add("", 3, 0, false, 0, &[element, element, count])
    }

    fn typedef(&mut self, name: &str, of: u32) -> u32 {
        self.add(name, 8, 0, false, of, &[])
    }

    /// Members: name, type, offset in bits; with `bits`, widths.
    fn composite(&mut self, name: &str, union: bool, size: u32, members: &[(&str, u32, u32, u32)]) -> u32 {
        let bits = members.iter().any(|(.., bits)| *bits > 0);
        let words: Vec<u32> = members
            .iter()
            .flat_map(|(name, of, offset, bits)| {
                let name = if name.is_empty() { 0 } else { self.name(name) };
                [name, *of, bits << 24 | offset]
            })
            .collect();
        self.add(name, if union { 5 } else { 4 }, members.len(), bits, size, &words)
    }

    fn bytes(&self) -> Vec<u8> {
        let [types, strings] = [&self.types, &self.strings].map(|part| u32::try_from(part.len()).expect("small"));
        let mut out = Vec::new();
        out.extend(0xeb9f_u16.to_ne_bytes());
        out.extend([1, 0]);
        out.extend([24, 0, types, types, strings].iter().flat_map(|word| word.to_ne_bytes()));
        out.extend(&self.types);
        out.extend(&self.strings);
        out
    }

    fn shape(&self, id: u32, hint: Hint) -> Shape {
        Shape::of(&Btf::parse(&self.bytes()).expect("it is BTF"), id, hint).expect("a type with values")
    }
}

const SIGNED: u32 = 1;
const BOOL: u32 = 4;

fn text(shape: &Shape, bytes: &[u8]) -> String {
    let mut out = String::new();
    shape.text(bytes, &mut out);
    out
}

#[test]
fn a_struct_is_shown_by_its_members() {
    let mut w = Writer::new();
    let [u8_, u16_, i32_, bool_, char_] =
        [("u8", 1, 0), ("u16", 2, 0), ("int", 4, SIGNED), ("bool", 1, BOOL), ("char", 1, SIGNED)]
            .map(|(name, size, encoding)| w.int(name, size, encoding));
    let (bytes, name) = (w.array(u8_, 3), w.array(char_, 4));
    let state = {
        let names = [w.name("active"), 0, w.name("gone"), 7];
        w.add("state", 6, 2, false, 4, &names)
    };
    let port = w.typedef("__be16", u16_);
    let inner = w.composite("", true, 4, &[("id", i32_, 0, 0), ("half", u16_, 0, 0)]);
    let all = w.composite(
        "all",
        false,
        24,
        &[
            ("raw", bytes, 0, 0),
            ("on", bool_, 24, 0),
            ("name", name, 32, 0),
            ("state", state, 64, 0),
            ("port", port, 96, 0),
            ("pad", u16_, 112, 0),
            ("n", i32_, 128, 0),
            ("", inner, 160, 0),
        ],
    );
    let shape = w.shape(all, Hint::None);
    let mut value = vec![1, 2, 0xab, 1];
    value.extend(b"eth\0");
    value.extend(7_u32.to_ne_bytes());
    value.extend([0x1f, 0x90, 0, 0]);
    value.extend((-5_i32).to_ne_bytes());
    value.extend(0x0001_0002_u32.to_ne_bytes());
    assert_eq!(shape.size(), 24);
    let half = if cfg!(target_endian = "big") { 1 } else { 2 };
    assert_eq!(
        text(&shape, &value),
        format!("raw=0102ab on=true name=\"eth\" state=gone port=8080 n=-5 id=65538 half={half}")
    );
    assert_eq!(
        shape.json(&value),
        json!({
            "raw": "0102ab", "on": true, "name": "eth", "state": "gone", "port": 8080, "pad": 0, "n": -5,
            "id": 65538, "half": half,
        })
    );
    assert!(text(&shape, &value[..6]).starts_with("raw=0102ab on=true name=? state=? port=?"), "bytes are missing");
}

#[test]
fn bit_fields_are_cut_out() {
    let mut w = Writer::new();
    let (u32_, i32_) = (w.int("u32", 4, 0), w.int("int", 4, SIGNED));
    let flags =
        w.composite("flags", false, 4, &[("a", u32_, 0, 1), ("b", u32_, 1, 3), ("c", i32_, 4, 4), ("d", u32_, 12, 9)]);
    let shape = w.shape(flags, Hint::None);
    if cfg!(target_endian = "little") {
        let value = (1 | 0b101 << 1 | 0b1110 << 4 | 0x1ab_u32 << 12).to_ne_bytes();
        assert_eq!(text(&shape, &value), "a=1 b=5 c=-2 d=427");
    }
}

#[test]
fn addresses_are_such_only_in_maps_that_are_known() {
    let mut w = Writer::new();
    let (u8_, u16_) = (w.int("u8", 1, 0), w.int("u16", 2, 0));
    let addr = w.array(u8_, 16);
    let key = w.composite("key", false, 18, &[("addr", addr, 0, 0), ("port", u16_, 128, 0)]);
    let mut value = vec![0; 10];
    value.extend([0xff, 0xff, 10, 96, 0, 10]);
    value.extend(80_u16.to_be_bytes());
    assert_eq!(text(&w.shape(key, Hint::Network), &value), "addr=10.96.0.10 port=80");
    let swapped = u16::from_ne_bytes(80_u16.to_be_bytes());
    assert_eq!(
        text(&w.shape(key, Hint::None), &value),
        format!("addr=00000000000000000000ffff0a60000a port={swapped}")
    );
}

#[test]
fn arrays_of_structs_are_lists() {
    let mut w = Writer::new();
    let u16_ = w.int("u16", 2, 0);
    let pair = w.composite("pair", false, 4, &[("a", u16_, 0, 0), ("b", u16_, 16, 0)]);
    let list = w.array(pair, 2);
    let value: Vec<u8> = [1_u16, 2, 3, 4].iter().flat_map(|n| n.to_ne_bytes()).collect();
    let shape = w.shape(list, Hint::None);
    assert_eq!(text(&shape, &value), "[{a=1 b=2} {a=3 b=4}]");
    assert_eq!(shape.json(&value), json!([{ "a": 1, "b": 2 }, { "a": 3, "b": 4 }]));
}

#[test]
fn types_that_contain_themselves_have_no_shape() {
    let mut w = Writer::new();
    let own = w.count + 1;
    let list = w.composite("list", false, 8, &[("next", own, 0, 0)]);
    assert_eq!(w.shape(list, Hint::None).size(), 8);
    let loops = w.count + 1;
    w.typedef("loops", loops);
    assert_eq!(Shape::of(&Btf::parse(&w.bytes()).expect("it is BTF"), loops, Hint::None), None);
}

#[test]
fn a_shape_that_names_the_same_bytes_over_and_over_is_cut() {
    let mut w = Writer::new();
    let mut of = w.int("u8", 1, 0);
    for _ in 0..20 {
        let members: Vec<_> = ["a", "b", "c", "d"].iter().map(|name| (*name, of, 0, 0)).collect();
        of = w.composite("wide", false, 1, &members);
    }
    let list = w.array(of, 1 << 20);
    let shape = w.shape(list, Hint::None);
    assert!(text(&shape, &vec![7; 1 << 20]).len() < 1 << 20);
}

#[test]
fn what_is_no_btf_is_told_apart() {
    let good = Writer::new().bytes();
    assert!(Btf::parse(&good).is_ok());
    assert_eq!(Btf::parse(&[]).unwrap_err(), BtfError::Short);
    assert_eq!(Btf::parse(&[0; 24]).unwrap_err(), BtfError::Magic);
    let mut later = good.clone();
    later[2] = 9;
    assert_eq!(Btf::parse(&later).unwrap_err(), BtfError::Version(9));
    let mut w = Writer::new();
    w.add("", 30, 0, false, 0, &[]);
    assert_eq!(Btf::parse(&w.bytes()).unwrap_err(), BtfError::Kind { id: 1, kind: 30 });
    let mut w = Writer::new();
    w.add("", 4, 0xffff, false, 0, &[]);
    assert_eq!(Btf::parse(&w.bytes()).unwrap_err(), BtfError::Short);
}

#[test]
fn the_kernels_own_types_are_understood() {
    let Ok(bytes) = fs_err::read("/sys/kernel/btf/vmlinux") else {
        println!("skipped: this kernel has no BTF");
        return;
    };
    let btf = Btf::parse(&bytes).expect("the kernel's BTF");
    let id = btf.find_struct("sockaddr_in").expect("every kernel has it");
    let shape = Shape::of(&btf, id, Hint::None).expect("it has values");
    let mut value = 2_u16.to_ne_bytes().to_vec();
    value.extend(8080_u16.to_be_bytes());
    value.extend([0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(shape.size(), 16);
    assert!(
        text(&shape, &value).starts_with("sin_family=2 sin_port=8080 sin_addr={s_addr=9}"),
        "{}",
        text(&shape, &value)
    );
    let largest =
        Shape::of(&btf, btf.find_struct("task_struct").expect("it is there"), Hint::None).expect("it has values");
    assert!(largest.size() > 1000);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), value in prop::collection::vec(any::<u8>(), 0..64)) {
        walk(&bytes, &value);
    }

    #[test]
    fn damaged_btf_is_read_without_panic(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), value in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut w = Writer::new();
        let (u8_, u32_) = (w.int("u8", 1, 0), w.int("u32", 4, SIGNED));
        let list = w.array(u32_, 3);
        let inner = w.composite("inner", true, 12, &[("list", list, 0, 0), ("one", u8_, 0, 0)]);
        let bits = w.composite("bits", false, 4, &[("a", u32_, 0, 3), ("b", u32_, 3, 13)]);
        let name = w.typedef("__be32", u32_);
        w.composite("outer", false, 20, &[("in", inner, 0, 0), ("bits", bits, 96, 0), ("addr", name, 128, 0)]);
        let mut bytes = w.bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        walk(&bytes, &value);
    }
}

fn walk(bytes: &[u8], value: &[u8]) {
    let Ok(btf) = Btf::parse(bytes) else { return };
    for id in 0..40 {
        for hint in [Hint::None, Hint::Network] {
            if let Some(shape) = Shape::of(&btf, id, hint) {
                let _ = (text(&shape, value), shape.json(value));
            }
        }
    }
}
