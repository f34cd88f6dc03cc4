//! Elements of sets and maps in nf_tables' messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::super::ruleset::{Element, Key, Verdict};
use super::{be32, be64, text};
use crate::capture::netlink::attributes;
use crate::model::{Family, Protocol};

// nft's numbers of data types, six bits each in a concatenation.
const IPV4: u32 = 7;
const IPV6: u32 = 8;
const PROTOCOL: u32 = 12;
const SERVICE: u32 = 13;

/// An element of a named set or map; `None` for the end of an interval and the like, which kube-proxy's sets have not.
pub(super) fn element(bytes: &[u8], key_type: u32, is_map: bool, family: Family) -> Option<Element> {
    let mut element = Element { key: Key::Other("no key".into()), verdict: None, comment: None, expires: None };
    for (attribute, value) in attributes(bytes) {
        match attribute {
            1 => {
                let value = data(value)?;
                element.key = key(value, key_type, family).unwrap_or_else(|| Key::Other(hex(value).into()));
            }
            2 if is_map => element.verdict = verdict(value),
            5 => element.expires = be64(value).map(|milliseconds| milliseconds / 1000),
            6 => element.comment = comment(value),
            _ => {}
        }
    }
    Some(element)
}

fn key(value: &[u8], key_type: u32, family: Family) -> Option<Key> {
    let ip = match family {
        Family::V4 => IPV4,
        Family::V6 => IPV6,
    };
    let end = |rest: &[u8]| rest.is_empty().then_some(());
    if key_type == PROTOCOL << 6 | SERVICE {
        let (protocol, port, rest) = protocol_and_port(value)?;
        end(rest)?;
        return Some(Key::NodePort(protocol, port));
    }
    let (address, rest) = address(value, family)?;
    if key_type == ip {
        end(rest)?;
        return Some(Key::Address(address));
    }
    if key_type == ip << 12 | PROTOCOL << 6 | SERVICE {
        let (protocol, port, rest) = protocol_and_port(rest)?;
        end(rest)?;
        return Some(Key::Service(address, protocol, port));
    }
    if key_type == ip << 18 | ip << 12 | PROTOCOL << 6 | SERVICE {
        let (destination, rest) = self::address(rest, family)?;
        let (protocol, port, rest) = protocol_and_port(rest)?;
        end(rest)?;
        return Some(Key::Hairpin(address, destination, protocol, port));
    }
    None
}

/// An address at the start of a key, and the rest.
pub(super) fn address(value: &[u8], family: Family) -> Option<(IpAddr, &[u8])> {
    Some(match family {
        Family::V4 => {
            let (octets, rest) = value.split_first_chunk::<4>()?;
            (Ipv4Addr::from(*octets).into(), rest)
        }
        Family::V6 => {
            let (octets, rest) = value.split_first_chunk::<16>()?;
            (Ipv6Addr::from(*octets).into(), rest)
        }
    })
}

/// Protocol and port, each in a register of four bytes.
fn protocol_and_port(value: &[u8]) -> Option<(Protocol, u16, &[u8])> {
    let (protocol, rest) = value.split_first_chunk::<4>()?;
    let (port, rest) = rest.split_first_chunk::<4>()?;
    Some((Protocol::from_number(protocol[0])?, u16::from_be_bytes([port[0], port[1]]), rest))
}

/// `NFTA_DATA_VALUE` inside a key or datum.
pub(super) fn data(value: &[u8]) -> Option<&[u8]> {
    attributes(value).find(|(kind, _)| *kind == 1).map(|(_, value)| value)
}

/// `NFTA_DATA_VERDICT` inside a datum.
pub(super) fn verdict(value: &[u8]) -> Option<Verdict> {
    let verdict = attributes(value).find(|(kind, _)| *kind == 2)?.1;
    let (mut code, mut chain) = (None, None);
    for (attribute, value) in attributes(verdict) {
        match attribute {
            1 => code = be32(value).map(u32::cast_signed),
            2 => chain = Some(text(value)),
            _ => {}
        }
    }
    match (code?, chain) {
        (0, None) => Some(Verdict::Drop),
        (1, None) => Some(Verdict::Accept),
        (-1, None) => Some(Verdict::Continue),
        (-5, None) => Some(Verdict::Return),
        (-3, Some(chain)) => Some(Verdict::Jump(chain.into())),
        (-4, Some(chain)) => Some(Verdict::Goto(chain.into())),
        _ => None,
    }
}

/// The comment in user data: fields of type, length and value, of which type 0 is the comment of rules and of elements.
pub(super) fn comment(mut value: &[u8]) -> Option<Box<str>> {
    while let [kind, length, rest @ ..] = value {
        let (field, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == 0 {
            return Some(text(field).into());
        }
        value = rest;
    }
    None
}

/// An element of an anonymous map of numbers: the number, and its datum undecoded.
pub(super) fn choice(bytes: &[u8]) -> Option<(u32, Vec<u8>)> {
    let (mut number, mut datum) = (None, None);
    for (attribute, value) in attributes(bytes) {
        match attribute {
            1 => number = data(value).and_then(|value| value.first_chunk()).map(|b| u32::from_ne_bytes(*b)),
            2 => datum = Some(value.to_vec()),
            _ => {}
        }
    }
    number.zip(datum)
}

/// An element of an anonymous set of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bound {
    at: IpAddr,
    /// First address behind an interval, as against the first inside.
    is_end: bool,
}

/// Reads an element of an anonymous set of addresses.
pub(super) fn bound(bytes: &[u8], family: Family) -> Option<Bound> {
    let (mut at, mut flags) = (None, 0);
    for (attribute, value) in attributes(bytes) {
        match attribute {
            1 => at = data(value).and_then(|value| address(value, family)).map(|(ip, _)| ip),
            3 => flags = be32(value).unwrap_or(0),
            _ => {}
        }
    }
    Some(Bound { at: at?, is_end: flags & 1 != 0 })
}

/// The networks between the bounds; `None` if an interval is not a network. A set without an end among its elements is one of
/// single addresses, unless its last interval is open.
pub(super) fn nets(mut bounds: Vec<Bound>) -> Option<Vec<IpNet>> {
    bounds.sort();
    bounds.dedup();
    let intervals = bounds.iter().any(|bound| bound.is_end);
    let mut nets = Vec::new();
    for (i, start) in bounds.iter().enumerate().filter(|(_, bound)| !bound.is_end) {
        if !intervals {
            nets.push(IpNet::from(start.at));
            continue;
        }
        let end = bounds[i + 1..].iter().find(|bound| bound.at != start.at);
        nets.push(between(start.at, end.map(|bound| bound.at))?);
    }
    Some(nets)
}

/// The network that starts at `start` and ends before `end`, or at the last address.
fn between(start: IpAddr, end: Option<IpAddr>) -> Option<IpNet> {
    let bits = |ip| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    let width: u32 = if start.is_ipv4() { 32 } else { 128 };
    let last = match end {
        Some(end) => bits(end).checked_sub(1)?,
        None => u128::MAX >> (128 - width),
    };
    let host = (bits(start) ^ last).checked_add(1);
    let host_bits = host.map_or(128, u128::trailing_zeros);
    let whole = host.is_none_or(u128::is_power_of_two) && bits(start) & (bits(start) ^ last) == 0;
    if whole { IpNet::new(start, u8::try_from(width.checked_sub(host_bits)?).ok()?).ok() } else { None }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::from("0x"), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bounds: &[(&str, bool)]) -> Option<String> {
        let bounds = bounds.iter().map(|(at, is_end)| Bound { at: at.parse().expect("an address"), is_end: *is_end });
        let nets = nets(bounds.collect())?;
        Some(nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn intervals_are_networks() {
        let got = read(&[("10.1.0.0", true), ("10.0.0.0", false), ("0.0.0.0", true)]);
        assert_eq!(got.as_deref(), Some("10.0.0.0/16"));
        // Two that touch have one bound in common.
        let got = read(&[("10.0.0.0", false), ("10.0.1.0", false), ("10.0.1.0", true), ("10.0.2.0", true)]);
        assert_eq!(got.as_deref(), Some("10.0.0.0/24 10.0.1.0/24"));
        let got = read(&[("fd00::", false), ("fd00::1", true), ("0.0.0.0", true)]);
        assert_eq!(got.as_deref(), Some("fd00::/128"));
        assert_eq!(read(&[("0.0.0.0", true), ("255.255.255.0", false)]).as_deref(), Some("255.255.255.0/24"));
        assert_eq!(read(&[("1.2.3.4", false), ("5.6.7.8", false)]).as_deref(), Some("1.2.3.4/32 5.6.7.8/32"));
        // 10.0.0.1 to 10.0.0.2 is no network.
        assert_eq!(read(&[("10.0.0.1", false), ("10.0.0.3", true)]), None);
    }
}
