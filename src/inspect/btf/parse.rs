//! Bytes → types.

use thiserror::Error;

/// Why bytes are no BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BtfError {
    /// They end too early.
    #[error("BTF is cut short")]
    Short,
    /// They do not start as BTF of this machine's byte order does.
    #[error("no BTF of this machine's byte order")]
    Magic,
    /// A version that is not known.
    #[error("BTF of version {0}")]
    Version(u8),
    /// A kind of type that is not known, so that its length is not either.
    #[error("BTF type {id} is of the unknown kind {kind}")]
    Kind {
        /// The type's number.
        id: u32,
        /// `BTF_KIND_…`.
        kind: u32,
    },
}

/// The types of one BTF object.
#[derive(Clone, Debug, Default)]
pub struct Btf {
    /// Type `n` is at `n - 1`: 0 is void.
    types: Vec<Type>,
    strings: Vec<u8>,
}

/// One type.
#[derive(Clone, Debug)]
pub(super) struct Type {
    name: u32,
    pub(super) kind: Kind,
}

/// What a type is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Int {
        size: u32,
        signed: bool,
        boolean: bool,
    },
    Float {
        size: u32,
    },
    Pointer,
    Array {
        element: u32,
        count: u32,
    },
    /// A struct or a union.
    Composite {
        size: u32,
        union: bool,
        members: Vec<Member>,
    },
    Enum {
        size: u32,
        signed: bool,
        values: Vec<(u32, i128)>,
    },
    Typedef(u32),
    /// const, volatile, restrict, type tag: the same value by another name.
    Modifier(u32),
    /// What no value has: functions, variables, sections, forward declarations.
    NoValue,
}

/// A member of a struct or union.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) name: u32,
    pub(super) of: u32,
    /// From the start of the struct, in bits.
    pub(super) offset: u32,
    /// Width of a bit field.
    pub(super) bits: Option<u32>,
}

const MAGIC: u16 = 0xeb9f;

impl Btf {
    /// Reads a BTF object, in this machine's byte order.
    pub fn parse(bytes: &[u8]) -> Result<Self, BtfError> {
        let mut head = Reader(bytes);
        if head.u16()? != MAGIC {
            return Err(BtfError::Magic);
        }
        let [version, _flags] = head.take()?;
        if version != 1 {
            return Err(BtfError::Version(version));
        }
        let length = head.u32()? as usize;
        let [type_at, type_len, string_at, string_len] = [head.u32()?, head.u32()?, head.u32()?, head.u32()?];
        let body = bytes.get(length..).ok_or(BtfError::Short)?;
        let part = |at: u32, len: u32| {
            body.get(at as usize..).and_then(|rest| rest.get(..len as usize)).ok_or(BtfError::Short)
        };
        let strings = part(string_at, string_len)?.to_vec();
        let mut reader = Reader(part(type_at, type_len)?);
        let mut types = Vec::new();
        while !reader.0.is_empty() {
            let id = u32::try_from(types.len() + 1).map_err(|_| BtfError::Short)?;
            types.push(reader.one(id)?);
        }
        Ok(Self { types, strings })
    }

    /// Whether anything has this name: a type, a function, a member, a value of an enum.
    pub fn names(&self, name: &str) -> bool {
        let wanted = [b"\0", name.as_bytes(), b"\0"].concat();
        memchr::memmem::find(&self.strings, &wanted).is_some()
    }

    pub(super) fn get(&self, id: u32) -> Option<&Type> {
        self.types.get(usize::try_from(id).ok()?.checked_sub(1)?)
    }

    /// The string at an offset; empty where there is none.
    pub(super) fn string(&self, at: u32) -> String {
        let rest = self.strings.get(at as usize..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        String::from_utf8_lossy(&rest[..end]).into_owned()
    }

    /// The name of a type; empty for one without.
    pub fn name(&self, id: u32) -> String {
        self.get(id).map(|found| self.string(found.name)).unwrap_or_default()
    }

    /// The number of the first struct with this name.
    pub fn find_struct(&self, name: &str) -> Option<u32> {
        let found = |t: &Type| matches!(t.kind, Kind::Composite { union: false, .. }) && self.string(t.name) == name;
        let at = self.types.iter().position(found)?;
        u32::try_from(at + 1).ok()
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BtfError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(BtfError::Short)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn u16(&mut self) -> Result<u16, BtfError> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, BtfError> {
        self.take().map(u32::from_ne_bytes)
    }

    /// `count` records of so many words each.
    fn records<const N: usize>(&mut self, count: u32) -> Result<Vec<[u32; N]>, BtfError> {
        // A count that the bytes cannot hold must not reserve memory.
        if self.0.len() / (4 * N) < count as usize {
            return Err(BtfError::Short);
        }
        (0..count)
            .map(|_| {
                let mut words = [0; N];
                for word in &mut words {
                    *word = self.u32()?;
                }
                Ok(words)
            })
            .collect()
    }

    /// `struct btf_type` and what follows it.
    fn one(&mut self, id: u32) -> Result<Type, BtfError> {
        let [name, info, size_or_type] = [self.u32()?, self.u32()?, self.u32()?];
        let (count, kind, flag) = (info & 0xffff, info >> 24 & 0x1f, info >> 31 == 1);
        let kind = match kind {
            1 => {
                let encoding = self.u32()?;
                Kind::Int { size: size_or_type, signed: encoding >> 24 & 1 != 0, boolean: encoding >> 24 & 4 != 0 }
            }
            2 => Kind::Pointer,
            3 => {
                let [element, _index, count] = [self.u32()?, self.u32()?, self.u32()?];
                Kind::Array { element, count }
            }
            4 | 5 => Kind::Composite { size: size_or_type, union: kind == 5, members: self.members(count, flag)? },
            6 => {
                let value = |[name, value]: [u32; 2]| {
                    let value = if flag { i128::from(value.cast_signed()) } else { i128::from(value) };
                    (name, value)
                };
                let values = self.records(count)?.into_iter().map(value).collect();
                Kind::Enum { size: size_or_type, signed: flag, values }
            }
            8 => Kind::Typedef(size_or_type),
            9..=11 | 18 => Kind::Modifier(size_or_type),
            // Forward declaration, function.
            7 | 12 => Kind::NoValue,
            // Prototype: parameters.
            13 => {
                self.records::<2>(count)?;
                Kind::NoValue
            }
            // Variable, declaration tag: one word.
            14 | 17 => {
                self.u32()?;
                Kind::NoValue
            }
            15 => {
                self.records::<3>(count)?;
                Kind::NoValue
            }
            16 => Kind::Float { size: size_or_type },
            19 => {
                let value = |[name, low, high]: [u32; 3]| {
                    let value = u64::from(high) << 32 | u64::from(low);
                    (name, if flag { i128::from(value.cast_signed()) } else { i128::from(value) })
                };
                let values = self.records(count)?.into_iter().map(value).collect();
                Kind::Enum { size: size_or_type, signed: flag, values }
            }
            kind => return Err(BtfError::Kind { id, kind }),
        };
        Ok(Type { name, kind })
    }

    /// With `flag`, an offset holds the width of a bit field in its top byte.
    fn members(&mut self, count: u32, flag: bool) -> Result<Vec<Member>, BtfError> {
        let member = |[name, of, offset]: [u32; 3]| {
            let (offset, bits) = if flag { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
            Member { name, of, offset, bits: Some(bits).filter(|bits| *bits > 0) }
        };
        Ok(self.records(count)?.into_iter().map(member).collect())
    }
}
