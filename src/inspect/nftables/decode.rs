//! JSON of one statement or element → its typed form. What is not understood is kept as it was read, never dropped.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ruleset::{Addresses, Balance, Element, Key, Match, Side, Statement, Verdict};
use super::text::word;
use super::tree::Json;
use crate::model::{Family, Protocol};

/// One statement of a rule.
pub(super) fn statement(expression: &Json<'_>, family: Family) -> Statement {
    known(expression, family).unwrap_or_else(|| Statement::Other(expression.to_string().into()))
}

/// One statement of a rule of somebody else; `None` for one that decides nothing.
pub(super) fn statement_of_others(expression: &Json<'_>, family: Family) -> Option<Statement> {
    let name = expression.only().map_or("", |(name, _)| name);
    match (name, statement(expression, family)) {
        ("counter" | "log", _) => None,
        ("dnat" | "redirect" | "tproxy", Statement::Other(text)) => Some(Statement::Elsewhere(text)),
        (_, statement) => Some(statement),
    }
}

fn known(expression: &Json<'_>, family: Family) -> Option<Statement> {
    let (name, body) = expression.only()?;
    match name {
        "match" => condition(body, family).map(Statement::Match),
        "vmap" => verdict_map(body, family),
        "mangle" => mangle(body),
        "dnat" => dnat(body, family),
        "set" => {
            let same = body.has_only(&["op", "elem", "set"]) && body.get("op")?.str()? == "update";
            let source = payload(body.get("elem")?) == Some((word(family), "saddr"));
            (same && source).then_some(Statement::Remember(reference(body.get("set")?)?.into()))
        }
        "masquerade" => masquerade(body),
        "reject" => reject(body, family),
        _ => verdict(expression).map(Statement::Verdict),
    }
}

/// `{"drop": null}`, `{"goto": {"target": CHAIN}}` and their kin.
fn verdict(json: &Json<'_>) -> Option<Verdict> {
    let (name, body) = json.only()?;
    let target = || body.only_of("target")?.str().map(Box::from);
    match (name, body) {
        ("accept", Json::Null) => Some(Verdict::Accept),
        ("drop", Json::Null) => Some(Verdict::Drop),
        ("continue", Json::Null) => Some(Verdict::Continue),
        ("return", Json::Null) => Some(Verdict::Return),
        ("jump", _) => target().map(Verdict::Jump),
        ("goto", _) => target().map(Verdict::Goto),
        _ => None,
    }
}

fn condition(body: &Json<'_>, family: Family) -> Option<Match> {
    let not = match body.get("op")?.str()? {
        "==" | "in" => false,
        "!=" => true,
        _ => return None,
    };
    let (left, right) = (body.get("left")?, body.get("right")?);
    if !body.has_only(&["op", "left", "right"]) {
        return None;
    }
    let positive = |m: Match| (!not).then_some(m);
    let (kind, what) = left.only()?;
    match kind {
        "payload" => match payload(left)? {
            (protocol, "dport") => positive(Match::Port(protocol_word(protocol)?, port(right)?)),
            (ip, field) if ip == word(family) => {
                let side = side(field)?;
                let among = match right.str().and_then(|text| text.strip_prefix('@')) {
                    Some(set) => Addresses::Set(set.into()),
                    None => Addresses::Nets(nets(right)?),
                };
                Some(Match::Address { side, not, among })
            }
            _ => None,
        },
        "meta" => match what.only_of("key")?.str()? {
            "l4proto" => positive(Match::Protocol(protocol(right)?)),
            key @ ("iif" | "iifname") => {
                Some(Match::Interface { not, by_index: key == "iif", name: right.str()?.into() })
            }
            _ => None,
        },
        "fib" => {
            let local = what.get("result")?.str()? == "type" && right.str()? == "local";
            let flag = one_or_only(what.get("flags")?)?;
            if local { positive(Match::Local(side(flag)?)) } else { None }
        }
        "ct" => match (what.only_of("key")?.str()?, right.str()?) {
            ("state", "new") => positive(Match::New),
            ("status", "dnat") => positive(Match::Translated),
            _ => None,
        },
        "&" => match what.array()? {
            [mark, bits] if is_mark(mark) && right.u64() == Some(0) => {
                Some(Match::Marked { bits: number(bits)?, set: not })
            }
            _ => None,
        },
        "concat" => {
            let ip = word(family);
            let fields = what.array()?;
            let hairpin = matches!(fields, [source, destination, rest @ ..]
                if payload(source) == Some((ip, "saddr")) && payload(destination) == Some((ip, "daddr"))
                    && protocol_and_port(rest));
            if hairpin { positive(Match::Hairpin(reference(right)?.into())) } else { None }
        }
        _ => None,
    }
}

fn verdict_map(body: &Json<'_>, family: Family) -> Option<Statement> {
    let (key, data) = (body.get("key")?, body.get("data")?);
    if let Some(modulus) = random(key) {
        let choices = choices(data, verdict)?;
        return Some(Statement::Spread(Balance { modulus, choices }));
    }
    let map = reference(data)?.into();
    match key.only_of("concat")?.array()? {
        [address, rest @ ..] if payload(address) == Some((word(family), "daddr")) && protocol_and_port(rest) => {
            Some(Statement::ServiceMap(map))
        }
        rest if protocol_and_port(rest) => Some(Statement::NodePortMap(map)),
        _ => None,
    }
}

fn mangle(body: &Json<'_>) -> Option<Statement> {
    if !is_mark(body.get("key")?) {
        return None;
    }
    let (operator, operands) = body.get("value")?.only()?;
    match (operator, operands.array()?) {
        ("|", [mark, bits]) if is_mark(mark) => Some(Statement::MarkOr(number(bits)?)),
        ("^", [mark, bits]) if is_mark(mark) => Some(Statement::MarkXor(number(bits)?)),
        _ => None,
    }
}

fn dnat(body: &Json<'_>, family: Family) -> Option<Statement> {
    if !body.has_only(&["family", "addr", "port"])
        || body.get("family").is_some_and(|named| named.str() != Some(word(family)))
    {
        return None;
    }
    let addr = body.get("addr")?;
    if let Some(text) = addr.str() {
        return Some(Statement::Dnat(text.parse().ok()?, port(body.get("port")?)?));
    }
    let map = addr.only_of("map")?;
    let modulus = random(map.get("key")?)?;
    let choices = choices(map.get("data")?, |choice| match choice.only_of("concat")?.array()? {
        [addr, number] => Some((addr.str()?.parse().ok()?, port(number)?)),
        _ => None,
    })?;
    body.get("port").is_none().then_some(Statement::DnatSpread(Balance { modulus, choices }))
}

fn masquerade(body: &Json<'_>) -> Option<Statement> {
    match body {
        Json::Null => Some(Statement::Masquerade { fully_random: false }),
        _ => (one_or_only(body.only_of("flags")?)? == "fully-random")
            .then_some(Statement::Masquerade { fully_random: true }),
    }
}

fn reject(body: &Json<'_>, family: Family) -> Option<Statement> {
    let icmp = match family {
        Family::V4 => "icmp",
        Family::V6 => "icmpv6",
    };
    let unreachable = *body == Json::Null || {
        let kind = body.get("type")?.str()?;
        (kind == icmp || kind == "icmpx") && body.get("expr")?.str()? == "port-unreachable"
    };
    unreachable.then_some(Statement::Reject)
}

/// An element of a set (a key) or a map (a pair of key and verdict); `None` if it is neither.
pub(super) fn element(json: &Json<'_>, is_map: bool, family: Family) -> Option<Element> {
    let (wrapped, verdict) = match (is_map, json.array()) {
        (true, Some([key, value])) => (key, Some(verdict(value)?)),
        (true, _) => return None,
        (false, _) => (json, None),
    };
    if !matches!(wrapped, Json::String(_) | Json::Number(_) | Json::Object(_)) {
        return None;
    }
    let (value, comment, expires) = match wrapped.only_of("elem") {
        Some(inner) => (
            inner.get("val")?,
            inner.get("comment").and_then(Json::str).map(Box::from),
            inner.get("expires").and_then(Json::u64),
        ),
        None => (wrapped, None, None),
    };
    let key = key(value, family).unwrap_or_else(|| Key::Other(value.to_string().into()));
    Some(Element { key, verdict, comment, expires })
}

fn key(json: &Json<'_>, family: Family) -> Option<Key> {
    let address = |json: &Json<'_>| json.str()?.parse().ok().filter(|ip| Family::of(*ip) == family);
    if json.str().is_some() {
        return address(json).map(Key::Address);
    }
    match json.only_of("concat")?.array()? {
        [proto, number] => Some(Key::NodePort(protocol(proto)?, port(number)?)),
        [ip, proto, number] => Some(Key::Service(address(ip)?, protocol(proto)?, port(number)?)),
        [source, destination, proto, number] => {
            Some(Key::Hairpin(address(source)?, address(destination)?, protocol(proto)?, port(number)?))
        }
        _ => None,
    }
}

/// The modulus of `numgen random`, if that is what it is.
fn random(key: &Json<'_>) -> Option<u32> {
    let numgen = key.only_of("numgen")?;
    let plain = numgen.get("mode")?.str()? == "random" && numgen.get("offset").is_none_or(|o| o.u64() == Some(0));
    if plain { number(numgen.get("mod")?) } else { None }
}

fn choices<T>(data: &Json<'_>, choice: impl Fn(&Json<'_>) -> Option<T>) -> Option<Vec<(u32, T)>> {
    let pair = |json: &Json<'_>| match json.array()? {
        [index, value] => Some((number(index)?, choice(value)?)),
        _ => None,
    };
    data.only_of("set")?.array()?.iter().map(pair).collect()
}

/// `{"payload": {"protocol": P, "field": F}}`.
fn payload<'a>(json: &'a Json<'_>) -> Option<(&'a str, &'a str)> {
    let payload = json.only_of("payload")?;
    Some((payload.get("protocol")?.str()?, payload.get("field")?.str()?))
}

/// `meta l4proto . th dport`.
fn protocol_and_port(fields: &[Json<'_>]) -> bool {
    matches!(fields, [protocol, port]
        if meta_key(protocol) == Some("l4proto") && payload(port) == Some(("th", "dport")))
}

fn meta_key<'a>(json: &'a Json<'_>) -> Option<&'a str> {
    json.only_of("meta")?.only_of("key")?.str()
}

fn is_mark(json: &Json<'_>) -> bool {
    meta_key(json) == Some("mark")
}

/// A word, or the only word of a list: nft prints flags in either form.
fn one_or_only<'a>(json: &'a Json<'_>) -> Option<&'a str> {
    match json.array() {
        Some([only]) => only.str(),
        Some(_) => None,
        None => json.str(),
    }
}

fn side(field: &str) -> Option<Side> {
    match field {
        "saddr" => Some(Side::Source),
        "daddr" => Some(Side::Destination),
        _ => None,
    }
}

/// Name of a set behind `@`.
fn reference<'a>(json: &'a Json<'_>) -> Option<&'a str> {
    json.str()?.strip_prefix('@')
}

fn number(json: &Json<'_>) -> Option<u32> {
    u32::try_from(json.u64()?).ok()
}

fn port(json: &Json<'_>) -> Option<u16> {
    u16::try_from(json.u64()?).ok()
}

/// A protocol by name, or by number where the machine that printed it knew no names.
fn protocol(json: &Json<'_>) -> Option<Protocol> {
    match json.u64() {
        Some(number) => Protocol::from_number(u8::try_from(number).ok()?),
        None => protocol_word(json.str()?),
    }
}

fn protocol_word(word: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|protocol| protocol.lower() == word)
}

/// An address, a prefix, or a set of these.
fn nets(json: &Json<'_>) -> Option<Vec<IpNet>> {
    match json.only_of("set") {
        Some(set) => set.array()?.iter().map(net).collect(),
        None => Some(vec![net(json)?]),
    }
}

fn net(json: &Json<'_>) -> Option<IpNet> {
    if let Some(text) = json.str() {
        return text.parse::<IpAddr>().ok().map(IpNet::from);
    }
    let prefix = json.only_of("prefix")?;
    let length = u8::try_from(prefix.get("len")?.u64()?).ok()?;
    IpNet::new(prefix.get("addr")?.str()?.parse().ok()?, length).ok()
}
