//! Types → shapes: typedefs followed, sizes known, names joined; what a renderer needs and nothing else.

use super::parse::{Btf, Kind};

/// Deepest nesting that is followed.
const DEEPEST: usize = 24;
/// Most parts of one shape.
const MOST_PARTS: usize = 4096;

/// How the bytes of a value are to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An integer of at most 16 bytes, in the machine's byte order.
    Int {
        /// Bytes.
        size: usize,
        /// Whether the highest bit is a sign.
        signed: bool,
    },
    /// An integer in network byte order.
    Network {
        /// Bytes.
        size: usize,
    },
    /// An IP address in network byte order: 4 bytes, or 16 with IPv4 as v4-mapped.
    Address {
        /// Bytes.
        size: usize,
    },
    /// True or false.
    Bool {
        /// Bytes.
        size: usize,
    },
    /// A number with names.
    Enum {
        /// Bytes.
        size: usize,
        /// Whether the highest bit is a sign.
        signed: bool,
        /// Names by value.
        names: Vec<(i128, String)>,
    },
    /// An address in memory.
    Pointer,
    /// A text that ends at the first zero.
    Text {
        /// Bytes.
        size: usize,
    },
    /// Bytes without further meaning, such as an array of them.
    Bytes {
        /// How many.
        size: usize,
    },
    /// Elements of one shape, one after the other.
    Array {
        /// Of each.
        element: Box<Self>,
        /// How many.
        count: usize,
        /// Bytes from one to the next.
        stride: usize,
    },
    /// A struct, or a union: members at offsets.
    Fields {
        /// The members.
        fields: Vec<Field>,
        /// Bytes.
        size: usize,
    },
}

/// A member of a struct or union.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name; empty for an anonymous struct or union, whose members count as the outer one's.
    pub name: String,
    /// Bits from the start.
    pub offset: usize,
    /// Width of a bit field.
    pub bits: Option<u32>,
    /// What it is.
    pub shape: Shape,
}

/// What is known of a map beyond its types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hint {
    /// Nothing.
    #[default]
    None,
    /// Four or sixteen bytes called an address are one, and a port is in network byte order: maps of kpx and Cilium.
    Network,
}

impl Shape {
    /// The shape of a type; `None` if no value can have it.
    pub fn of(btf: &Btf, id: u32, hint: Hint) -> Option<Self> {
        Builder { btf, hint, left: MOST_PARTS }.build(id, "", DEEPEST)
    }

    /// Bytes that a value takes.
    pub fn size(&self) -> usize {
        match self {
            Self::Int { size, .. }
            | Self::Network { size }
            | Self::Address { size }
            | Self::Bool { size }
            | Self::Enum { size, .. }
            | Self::Text { size }
            | Self::Bytes { size }
            | Self::Fields { size, .. } => *size,
            Self::Pointer => 8,
            Self::Array { count, stride, .. } => count.saturating_mul(*stride),
        }
    }
}

struct Builder<'a> {
    btf: &'a Btf,
    hint: Hint,
    left: usize,
}

/// What kpx and Cilium call an address in their maps.
fn is_address(name: &str) -> bool {
    matches!(name, "addr" | "address" | "saddr" | "daddr" | "to_addr" | "to_saddr" | "to_daddr" | "ip" | "v4" | "v6")
}

fn is_port(name: &str) -> bool {
    name.ends_with("port")
}

impl Builder<'_> {
    /// `name` is that of the member or typedef that leads here: it tells network byte order and characters.
    fn build(&mut self, id: u32, name: &str, deep: usize) -> Option<Shape> {
        self.left = self.left.checked_sub(1)?;
        let deep = deep.checked_sub(1)?;
        let found = self.btf.get(id)?;
        Some(match &found.kind {
            Kind::Int { size: 0, .. } | Kind::NoValue => return None,
            Kind::Int { size, boolean: true, .. } => Shape::Bool { size: *size as usize },
            Kind::Int { size, signed, .. } => self.int(*size as usize, *signed, name),
            Kind::Float { size } => Shape::Bytes { size: *size as usize },
            Kind::Pointer => Shape::Pointer,
            Kind::Array { element, count } => self.array(*element, *count as usize, name, deep)?,
            Kind::Composite { size, members, .. } => {
                let size = *size as usize;
                if self.hint == Hint::Network && size == 16 && is_address(name) {
                    return Some(Shape::Address { size });
                }
                let field = |member: &super::parse::Member| {
                    let name = self.btf.string(member.name);
                    let shape = self.build(member.of, &name, deep)?;
                    Some(Field { name, offset: member.offset as usize, bits: member.bits, shape })
                };
                match members.iter().map(field).collect::<Option<Vec<_>>>() {
                    // A struct of one nameless number is that number: how Rust describes a newtype.
                    Some(mut fields) if fields.len() == 1 && fields[0].name == "__0" => fields.remove(0).shape,
                    Some(fields) => Shape::Fields { fields, size },
                    // Too deep or too much: still so many bytes.
                    None => Shape::Bytes { size },
                }
            }
            Kind::Enum { size, signed, values } => Shape::Enum {
                size: *size as usize,
                signed: *signed,
                names: values.iter().map(|(name, value)| (*value, self.btf.string(*name))).collect(),
            },
            Kind::Typedef(of) => {
                let typedef = self.btf.name(id);
                match self.build(*of, name, deep)? {
                    Shape::Int { size, .. } if matches!(typedef.as_str(), "__be16" | "__be32" | "__be64") => {
                        if self.hint == Hint::Network && size == 4 && is_address(name) {
                            Shape::Address { size }
                        } else {
                            Shape::Network { size }
                        }
                    }
                    shape => shape,
                }
            }
            Kind::Modifier(of) => self.build(*of, name, deep)?,
        })
    }

    fn int(&self, size: usize, signed: bool, name: &str) -> Shape {
        match (self.hint, size) {
            (Hint::Network, 2) if is_port(name) => Shape::Network { size },
            (_, 1..=16) => Shape::Int { size, signed },
            _ => Shape::Bytes { size },
        }
    }

    fn array(&mut self, element: u32, count: usize, name: &str, deep: usize) -> Option<Shape> {
        let shape = self.build(element, "", deep)?;
        let stride = shape.size();
        let size = count.checked_mul(stride)?;
        if let Shape::Int { size: 1, .. } = shape {
            let addresses = self.hint == Hint::Network && is_address(name) && matches!(count, 4 | 16);
            return Some(if addresses {
                Shape::Address { size }
            } else if self.btf.name(element) == "char" {
                Shape::Text { size }
            } else {
                Shape::Bytes { size }
            });
        }
        Some(Shape::Array { element: Box::new(shape), count, stride })
    }
}
