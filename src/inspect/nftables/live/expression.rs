//! Expressions of a rule in nf_tables' messages → statements.
//!
//! The kernel keeps a rule as a small program over registers. Each register's content is followed until something compares it,
//! looks it up or acts on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::super::ruleset::{Addresses, Match, Side, Statement};
use super::{be32, element, text};
use crate::capture::netlink::attributes;
use crate::model::{Family, Protocol};

/// A statement whose content is not in the rule.
#[derive(Clone, Debug)]
pub(super) struct Gap {
    pub(super) chain: Box<str>,
    /// Index of the rule in its chain.
    pub(super) rule: usize,
    /// Index of the statement in its rule.
    pub(super) statement: usize,
    pub(super) need: Need,
}

/// What must still be asked for.
#[derive(Clone, Debug)]
pub(super) enum Need {
    /// What the numbers of an anonymous map choose: verdicts, or endpoints of a translation.
    Choices { set: String, modulus: u32, dnat: bool },
    /// The addresses in an anonymous set.
    Addresses { set: String, side: Side, not: bool },
    /// The name of an interface.
    Interface { index: u32, not: bool },
}

/// What a register holds.
#[derive(Clone, Debug, PartialEq)]
enum Content {
    /// The first so many bits of an address.
    Address(Side, u8),
    Protocol,
    Port,
    Mark,
    MarkAnd(u32),
    MarkOr(u32),
    MarkXor(u32),
    State,
    StateAnd(u32),
    Status,
    StatusAnd(u32),
    AddressType(Side),
    InterfaceIndex,
    InterfaceName,
    Random(u32),
    /// What an anonymous map has for a random number.
    Chosen {
        set: String,
        modulus: u32,
    },
    Constant(Vec<u8>),
}

/// Reads the expressions of one rule.
pub(super) struct RuleReader {
    family: Family,
    /// By register of four bytes.
    registers: Vec<Option<Content>>,
    statements: Vec<Statement>,
    needs: Vec<(usize, Need)>,
    names: Vec<String>,
    understood: bool,
}

/// Attributes of an expression by number.
struct Fields<'a>(Vec<(u16, &'a [u8])>);

impl<'a> Fields<'a> {
    fn get(&self, number: u16) -> Option<&'a [u8]> {
        self.0.iter().find(|(kind, _)| *kind == number).map(|(_, value)| *value)
    }

    fn u32(&self, number: u16) -> Option<u32> {
        self.get(number).and_then(be32)
    }

    fn text(&self, number: u16) -> Option<String> {
        self.get(number).map(text)
    }

    /// The register named by an attribute, counted in units of four bytes: `NFT_REG_1` to `4` are sixteen bytes long,
    /// `NFT_REG32_00` and following four.
    fn register(&self, number: u16) -> Option<usize> {
        match self.u32(number)? {
            wide @ 1..=4 => Some((wide as usize - 1) * 4),
            narrow @ 8..=23 => Some(narrow as usize - 8),
            _ => None,
        }
    }
}

impl RuleReader {
    pub(super) fn new(family: Family) -> Self {
        Self {
            family,
            registers: vec![None; 20],
            statements: Vec::new(),
            needs: Vec::new(),
            names: Vec::new(),
            understood: true,
        }
    }

    /// Reads `NFTA_RULE_EXPRESSIONS`.
    pub(super) fn read(&mut self, expressions: &[u8]) {
        for (_, expression) in attributes(expressions) {
            let (mut name, mut fields) = (String::new(), Fields(Vec::new()));
            for (attribute, value) in attributes(expression) {
                match attribute {
                    1 => name = text(value),
                    2 => fields = Fields(attributes(value).collect()),
                    _ => {}
                }
            }
            if self.understood {
                self.understood = self.expression(&name, &fields).is_some();
            }
            self.names.push(name);
        }
    }

    /// The statements, and what must still be asked for by index of the statement.
    pub(super) fn finish(self) -> (Vec<Statement>, Vec<(usize, Need)>) {
        if self.understood {
            (self.statements, self.needs)
        } else {
            let text = format!("a rule of the expressions {}", self.names.join(", "));
            (vec![Statement::Other(text.into())], Vec::new())
        }
    }

    fn push(&mut self, statement: Statement) {
        self.statements.push(statement);
    }

    fn push_match(&mut self, condition: Match) {
        self.push(Statement::Match(condition));
    }

    /// Leaves a place for a statement that needs more.
    fn push_need(&mut self, need: Need) {
        self.needs.push((self.statements.len(), need));
        self.push(Statement::Other("not read yet".into()));
    }

    fn load(&mut self, register: usize, content: Content) -> Option<()> {
        *self.registers.get_mut(register)? = Some(content);
        Some(())
    }

    fn content(&self, register: usize) -> Option<&Content> {
        self.registers.get(register)?.as_ref()
    }

    /// Registers that an address takes.
    const fn words(&self) -> usize {
        match self.family {
            Family::V4 => 1,
            Family::V6 => 4,
        }
    }

    fn expression(&mut self, name: &str, fields: &Fields<'_>) -> Option<()> {
        match name {
            "payload" => self.payload(fields),
            "meta" => self.meta(fields),
            "ct" => {
                let content = match fields.u32(2)? {
                    0 => Content::State,
                    2 => Content::Status,
                    _ => return None,
                };
                self.load(fields.register(1)?, content)
            }
            "fib" => {
                let side = match (fields.u32(2)?, fields.u32(3)?) {
                    (3, 1) => Side::Source,
                    (3, 2) => Side::Destination,
                    _ => return None,
                };
                self.load(fields.register(1)?, Content::AddressType(side))
            }
            "numgen" => match (fields.u32(3)?, fields.u32(4).unwrap_or(0)) {
                (1, 0) => self.load(fields.register(1)?, Content::Random(fields.u32(2)?)),
                _ => None,
            },
            "bitwise" => self.bitwise(fields),
            "cmp" => self.compare(fields),
            "lookup" => self.lookup(fields),
            "immediate" => self.immediate(fields),
            "nat" => self.nat(fields),
            "masq" => {
                const FULLY_RANDOM: u32 = 1 << 4;
                let fully_random = match fields.u32(1).unwrap_or(0) {
                    0 => false,
                    FULLY_RANDOM => true,
                    _ => return None,
                };
                let plain = fields.get(2).is_none();
                self.push(Statement::Masquerade { fully_random });
                plain.then_some(())
            }
            "reject" => {
                // ICMP, or the kind that fits the packet, with the code for "port unreachable".
                let code = fields.get(2).and_then(<[u8]>::first).copied();
                match (fields.u32(1)?, code?, self.family) {
                    (0, 3, Family::V4) | (0, 4, Family::V6) | (2, 1, _) => self.push(Statement::Reject),
                    _ => return None,
                }
                Some(())
            }
            "dynset" => {
                const UPDATE: u32 = 1;
                let whole = u8::try_from(self.words() * 32).ok()?;
                let source = self.content(fields.register(4)?) == Some(&Content::Address(Side::Source, whole));
                // The set's own time-out, nothing stored or counted with the element.
                let plain = fields.u32(3)? == UPDATE
                    && fields.get(6).and_then(super::be64).unwrap_or(0) == 0
                    && [5, 7].iter().all(|field| fields.get(*field).is_none());
                if !source || !plain {
                    return None;
                }
                self.push(Statement::Remember(fields.text(1)?.into()));
                Some(())
            }
            _ => None,
        }
    }

    fn payload(&mut self, fields: &Fields<'_>) -> Option<()> {
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        let register = fields.register(1)?;
        let (base, offset, length) = (fields.u32(2)?, fields.u32(3)?, fields.u32(4)?);
        let (source, destination, whole) = match self.family {
            Family::V4 => (12, 16, 4),
            Family::V6 => (8, 24, 16),
        };
        let content = match (base, offset) {
            (TRANSPORT, 2) if length == 2 => Content::Port,
            (NETWORK, offset) if length <= whole && (offset == source || offset == destination) => {
                let side = if offset == source { Side::Source } else { Side::Destination };
                Content::Address(side, u8::try_from(length * 8).ok()?)
            }
            _ => return None,
        };
        self.load(register, content)
    }

    fn meta(&mut self, fields: &Fields<'_>) -> Option<()> {
        const MARK: u32 = 3;
        let key = fields.u32(2)?;
        if let Some(register) = fields.register(3) {
            let statement = match (key, self.content(register)?) {
                (MARK, Content::MarkOr(bits)) => Statement::MarkOr(*bits),
                (MARK, Content::MarkXor(bits)) => Statement::MarkXor(*bits),
                _ => return None,
            };
            self.push(statement);
            return Some(());
        }
        let content = match key {
            MARK => Content::Mark,
            4 => Content::InterfaceIndex,
            6 => Content::InterfaceName,
            16 => Content::Protocol,
            _ => return None,
        };
        self.load(fields.register(1)?, content)
    }

    /// `(register & mask) ^ xor`.
    fn bitwise(&mut self, fields: &Fields<'_>) -> Option<()> {
        const MASK_XOR: u32 = 0;
        if fields.u32(6).unwrap_or(MASK_XOR) != MASK_XOR {
            return None;
        }
        let (mask, xor) = (element::data(fields.get(4)?)?, element::data(fields.get(5)?)?);
        let number = |bytes: &[u8]| bytes.first_chunk().map(|b| u32::from_ne_bytes(*b));
        let content = match self.content(fields.register(1)?)? {
            Content::Address(side, _) => {
                let bits: u32 = mask.iter().map(|byte| byte.leading_ones()).sum();
                let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
                let leading = mask.iter().take_while(|byte| **byte == 0xff).count() * 8;
                let plain = bits == ones && leading + 8 > bits as usize && xor.iter().all(|byte| *byte == 0);
                if !plain {
                    return None;
                }
                Content::Address(*side, u8::try_from(bits).ok()?)
            }
            Content::Mark => match (number(mask)?, number(xor)?) {
                (u32::MAX, xor) => Content::MarkXor(xor),
                (mask, 0) => Content::MarkAnd(mask),
                (mask, xor) if mask == !xor => Content::MarkOr(xor),
                _ => return None,
            },
            Content::State if number(xor)? == 0 => Content::StateAnd(number(mask)?),
            Content::Status if number(xor)? == 0 => Content::StatusAnd(number(mask)?),
            _ => return None,
        };
        self.load(fields.register(2)?, content)
    }

    fn compare(&mut self, fields: &Fields<'_>) -> Option<()> {
        let not = match fields.u32(2)? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let value = element::data(fields.get(3)?)?;
        let number = value.first_chunk().map(|b| u32::from_ne_bytes(*b));
        let content = self.content(fields.register(1)?)?.clone();
        let condition = match content {
            Content::Address(side, bits) => {
                let net = IpNet::new(prefix(value, self.family)?, bits).ok()?;
                Match::Address { side, not, among: Addresses::Nets(vec![net]) }
            }
            Content::Protocol if !not => Match::Protocol(Protocol::from_number(*value.first()?)?),
            Content::Port if !not => {
                // The protocol is compared just before, so that the port is known to be there.
                let Some(Statement::Match(Match::Protocol(protocol))) = self.statements.pop() else { return None };
                Match::Port(protocol, u16::from_be_bytes(*value.first_chunk()?))
            }
            Content::MarkAnd(bits) if number == Some(0) => Match::Marked { bits, set: not },
            Content::StateAnd(8) if not && number == Some(0) => Match::New,
            Content::StatusAnd(0x20) if not && number == Some(0) => Match::Translated,
            // RTN_LOCAL
            Content::AddressType(side) if !not && number == Some(2) => Match::Local(side),
            Content::InterfaceIndex => {
                self.push_need(Need::Interface { index: number?, not });
                return Some(());
            }
            Content::InterfaceName => {
                // A name is compared with its end; without one, as much as there is of it must be the same.
                let rest = if value.contains(&0) { "" } else { "*" };
                let name = format!("{}{rest}", text(value));
                Match::Interface { not, by_index: false, name: name.into() }
            }
            _ => return None,
        };
        self.push_match(condition);
        Some(())
    }

    fn lookup(&mut self, fields: &Fields<'_>) -> Option<()> {
        const INVERTED: u32 = 1;
        const VERDICT: u32 = 0;
        let set = fields.text(1)?;
        let from = fields.register(2)?;
        let not = fields.u32(5).unwrap_or(0) & INVERTED != 0;
        let anonymous = set.starts_with("__set") || set.starts_with("__map");
        let whole = u8::try_from(self.words() * 32).ok()?;
        let words = self.words();
        let holds = |register: usize, content: &Content| self.content(register) == Some(content);
        let protocol_and_port =
            |register: usize| holds(register, &Content::Protocol) && holds(register + 1, &Content::Port);
        match (fields.u32(3), self.content(from)?) {
            (Some(VERDICT), Content::Random(modulus)) if anonymous => {
                let need = Need::Choices { set, modulus: *modulus, dnat: false };
                self.push_need(need);
            }
            (Some(VERDICT), Content::Address(Side::Destination, bits))
                if *bits == whole && protocol_and_port(from + words) =>
            {
                self.push(Statement::ServiceMap(set.into()));
            }
            (Some(VERDICT), Content::Protocol) if protocol_and_port(from) => {
                self.push(Statement::NodePortMap(set.into()));
            }
            (Some(_), Content::Random(modulus)) if anonymous => {
                let content = Content::Chosen { set, modulus: *modulus };
                self.load(fields.register(3)?, content)?;
            }
            (None, Content::Address(Side::Source, bits))
                if *bits == whole
                    && !not
                    && holds(from + words, &Content::Address(Side::Destination, whole))
                    && protocol_and_port(from + 2 * words) =>
            {
                self.push_match(Match::Hairpin(set.into()));
            }
            (None, Content::Address(side, bits)) if *bits == whole => {
                let side = *side;
                if anonymous {
                    self.push_need(Need::Addresses { set, side, not });
                } else {
                    self.push_match(Match::Address { side, not, among: Addresses::Set(set.into()) });
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn immediate(&mut self, fields: &Fields<'_>) -> Option<()> {
        const VERDICT: u32 = 0;
        let datum = fields.get(2)?;
        if fields.u32(1)? == VERDICT {
            self.push(Statement::Verdict(element::verdict(datum)?));
            return Some(());
        }
        self.load(fields.register(1)?, Content::Constant(element::data(datum)?.to_vec()))
    }

    fn nat(&mut self, fields: &Fields<'_>) -> Option<()> {
        const DNAT: u32 = 1;
        if fields.u32(1)? != DNAT || fields.u32(2)? != u32::from(super::number(self.family)) {
            return None;
        }
        let (first, last) = (fields.register(3)?, fields.register(4));
        let port = fields.register(5)?;
        // A range of addresses would end elsewhere than it starts.
        if last.is_some_and(|last| last != first) {
            return None;
        }
        match (self.content(first)?, self.content(port)) {
            (Content::Chosen { set, modulus }, _) => {
                let need = Need::Choices { set: set.clone(), modulus: *modulus, dnat: true };
                self.push_need(need);
            }
            (Content::Constant(ip), Some(Content::Constant(port))) => {
                let (ip, _) = element::address(ip, self.family)?;
                let port = u16::from_be_bytes(*port.first_chunk()?);
                self.push(Statement::Dnat(ip, port));
            }
            _ => return None,
        }
        Some(())
    }
}

/// The address that starts with these bytes.
fn prefix(value: &[u8], family: Family) -> Option<IpAddr> {
    Some(match family {
        Family::V4 => {
            let mut octets = [0; 4];
            octets.get_mut(..value.len())?.copy_from_slice(value);
            Ipv4Addr::from(octets).into()
        }
        Family::V6 => {
            let mut octets = [0; 16];
            octets.get_mut(..value.len())?.copy_from_slice(value);
            Ipv6Addr::from(octets).into()
        }
    })
}
