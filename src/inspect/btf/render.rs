//! Shape and bytes → text, JSON.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use super::shape::{Field, Shape};

/// Most parts of one value that are shown: a shape may name the same bytes over and over.
const MOST_PARTS: usize = 65_536;

impl Shape {
    /// The value as one line: `addr=10.96.0.10 port=80`, `[1 2 3]`, `{…}` for structs within. What the bytes are too few
    /// for is `?`.
    pub fn text(&self, bytes: &[u8], out: &mut String) {
        let mut left = MOST_PARTS;
        text(self, bytes, true, &mut left, out);
    }

    /// The value as JSON: structs are objects, bytes hexadecimal strings. What the bytes are too few for is null.
    pub fn json(&self, bytes: &[u8]) -> Value {
        let mut left = MOST_PARTS;
        value(self, bytes, &mut left)
    }
}

/// A value without parts.
enum Leaf<'a> {
    Unsigned(u128),
    Signed(i128),
    Bool(bool),
    Name(&'a str),
    Address(IpAddr),
    Pointer(u64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Missing,
}

/// Reads what has no parts; `None` for what has.
fn leaf<'a>(shape: &'a Shape, bytes: &'a [u8]) -> Option<Leaf<'a>> {
    let Some(own) = bytes.get(..shape.size()) else {
        return match shape {
            Shape::Array { .. } | Shape::Fields { .. } => None,
            _ => Some(Leaf::Missing),
        };
    };
    Some(match shape {
        Shape::Int { signed, .. } => number(native(own), own.len() * 8, *signed),
        Shape::Network { .. } => Leaf::Unsigned(own.iter().fold(0, |n, byte| n << 8 | u128::from(*byte))),
        Shape::Address { .. } => address(own).map_or(Leaf::Bytes(own), Leaf::Address),
        Shape::Bool { .. } => Leaf::Bool(own.iter().any(|byte| *byte != 0)),
        Shape::Enum { signed, names, .. } => {
            let leaf = number(native(own), own.len() * 8, *signed);
            let value = match leaf {
                Leaf::Unsigned(n) => i128::try_from(n).ok(),
                Leaf::Signed(n) => Some(n),
                _ => None,
            };
            names.iter().find(|(n, _)| Some(*n) == value).map_or(leaf, |(_, name)| Leaf::Name(name))
        }
        Shape::Pointer => Leaf::Pointer(u64::try_from(native(own)).unwrap_or(0)),
        Shape::Text { .. } => {
            let end = own.iter().position(|byte| *byte == 0).unwrap_or(own.len());
            match std::str::from_utf8(&own[..end]) {
                Ok(text) if !text.chars().any(char::is_control) => Leaf::Text(text),
                _ => Leaf::Bytes(own),
            }
        }
        Shape::Bytes { .. } => Leaf::Bytes(own),
        Shape::Array { .. } | Shape::Fields { .. } => return None,
    })
}

fn native(bytes: &[u8]) -> u128 {
    let fold = |n: u128, byte: &u8| n << 8 | u128::from(*byte);
    if cfg!(target_endian = "big") { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) }
}

fn number<'a>(value: u128, bits: usize, signed: bool) -> Leaf<'a> {
    if signed && bits > 0 && bits <= 128 {
        let unused = 128 - bits;
        return Leaf::Signed((value << unused).cast_signed() >> unused);
    }
    Leaf::Unsigned(value)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).to_canonical())
}

/// The number in a bit field; `None` where it is not inside the bytes.
fn bit_field<'a>(field: &Field, bits: u32, bytes: &[u8]) -> Option<Leaf<'a>> {
    let width = usize::try_from(bits).ok().filter(|width| *width <= 64)?;
    let own = bytes.get(field.offset / 8..(field.offset + width).div_ceil(8))?;
    let skip = field.offset % 8;
    // Bits count from the least significant end on little-endian machines, from the other one on big-endian ones.
    let skip = if cfg!(target_endian = "big") { own.len() * 8 - width - skip } else { skip };
    let value = native(own) >> skip & ((1 << width) - 1);
    let signed = matches!(field.shape, Shape::Int { signed: true, .. });
    Some(number(value, width, signed))
}

/// The shape and the bytes of a member, or its value where it is a bit field.
enum Part<'a> {
    Bits(Leaf<'a>),
    Whole(&'a Shape, &'a [u8]),
}

fn part<'a>(field: &'a Field, bytes: &'a [u8]) -> Part<'a> {
    match field.bits {
        Some(bits) => Part::Bits(bit_field(field, bits, bytes).unwrap_or(Leaf::Missing)),
        None => Part::Whole(&field.shape, bytes.get(field.offset / 8..).unwrap_or_default()),
    }
}

/// Elements that the bytes hold.
fn elements(bytes: &[u8], count: usize, stride: usize) -> impl Iterator<Item = &[u8]> {
    let count = if stride == 0 { 0 } else { count };
    bytes.chunks(stride.max(1)).take(count)
}

fn text(shape: &Shape, bytes: &[u8], top: bool, left: &mut usize, out: &mut String) {
    *left = left.saturating_sub(1);
    if *left == 0 {
        out.push('…');
        return;
    }
    match shape {
        Shape::Array { element, count, stride } => {
            out.push('[');
            for (i, one) in elements(bytes, *count, *stride).enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                text(element, one, false, left, out);
                if *left == 0 {
                    break;
                }
            }
            out.push(']');
        }
        Shape::Fields { fields, .. } => {
            if !top {
                out.push('{');
            }
            let mut first = true;
            members(fields, bytes, left, &mut first, out);
            if !top {
                out.push('}');
            }
        }
        _ => {
            if let Some(leaf) = leaf(shape, bytes) {
                leaf_text(&leaf, out);
            }
        }
    }
}

fn members(fields: &[Field], bytes: &[u8], left: &mut usize, first: &mut bool, out: &mut String) {
    for field in fields {
        *left = left.saturating_sub(1);
        if *left == 0 {
            return;
        }
        match part(field, bytes) {
            Part::Whole(Shape::Fields { fields, .. }, own) if field.name.is_empty() => {
                members(fields, own, left, first, out);
            }
            _ if is_padding(field) => {}
            part => {
                if !std::mem::take(first) {
                    out.push(' ');
                }
                out.push_str(&field.name);
                out.push('=');
                match part {
                    Part::Bits(leaf) => leaf_text(&leaf, out),
                    Part::Whole(shape, own) => text(shape, own, false, left, out),
                }
            }
        }
    }
}

/// Nobody wants to see padding; in JSON it is there.
fn is_padding(field: &Field) -> bool {
    let number = field.name.trim_start_matches('_').strip_prefix("pad");
    field.name.is_empty() || number.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

fn leaf_text(leaf: &Leaf<'_>, out: &mut String) {
    // Writing to a String does not fail.
    let _ = match leaf {
        Leaf::Unsigned(n) => write!(out, "{n}"),
        Leaf::Signed(n) => write!(out, "{n}"),
        Leaf::Bool(b) => write!(out, "{b}"),
        Leaf::Name(name) => write!(out, "{name}"),
        Leaf::Address(ip) => write!(out, "{ip}"),
        Leaf::Pointer(at) => write!(out, "{at:#x}"),
        Leaf::Text(text) => write!(out, "\"{text}\""),
        Leaf::Bytes(bytes) => {
            hex(bytes, out);
            Ok(())
        }
        Leaf::Missing => write!(out, "?"),
    };
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

fn value(shape: &Shape, bytes: &[u8], left: &mut usize) -> Value {
    *left = left.saturating_sub(1);
    if *left == 0 {
        return Value::Null;
    }
    match shape {
        Shape::Array { element, count, stride } => {
            let mut all = Vec::new();
            for one in elements(bytes, *count, *stride) {
                all.push(value(element, one, left));
                if *left == 0 {
                    break;
                }
            }
            Value::Array(all)
        }
        Shape::Fields { fields, .. } => {
            let mut object = Map::new();
            object_of(fields, bytes, left, &mut object);
            Value::Object(object)
        }
        _ => leaf(shape, bytes).map_or(Value::Null, |leaf| leaf_json(&leaf)),
    }
}

fn object_of(fields: &[Field], bytes: &[u8], left: &mut usize, object: &mut Map<String, Value>) {
    for field in fields {
        *left = left.saturating_sub(1);
        if *left == 0 {
            return;
        }
        let part = match part(field, bytes) {
            Part::Whole(Shape::Fields { fields, .. }, own) if field.name.is_empty() => {
                object_of(fields, own, left, object);
                continue;
            }
            Part::Bits(leaf) => leaf_json(&leaf),
            Part::Whole(shape, own) => value(shape, own, left),
        };
        if !field.name.is_empty() {
            object.insert(field.name.clone(), part);
        }
    }
}

fn leaf_json(leaf: &Leaf<'_>) -> Value {
    match leaf {
        // JSON numbers end where 64 bits do.
        Leaf::Unsigned(n) => u64::try_from(*n).map_or_else(|_| json!(n.to_string()), Value::from),
        Leaf::Signed(n) => i64::try_from(*n).map_or_else(|_| json!(n.to_string()), Value::from),
        Leaf::Bool(b) => Value::from(*b),
        Leaf::Name(name) => Value::from(*name),
        Leaf::Address(ip) => json!(ip),
        Leaf::Pointer(at) => Value::from(format!("{at:#x}")),
        Leaf::Text(text) => Value::from(*text),
        Leaf::Bytes(bytes) => {
            let mut text = String::new();
            hex(bytes, &mut text);
            Value::from(text)
        }
        Leaf::Missing => Value::Null,
    }
}
