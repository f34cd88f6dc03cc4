//! The nftables tables of others, one by one: `nft list ruleset` on a node with many rules of iptables-nft takes seconds.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::Captured;
use super::command::{self, CommandError};
use super::error::CaptureError;
use super::item::Item;
use super::netlink::{Netlink, NetlinkError, Request, attributes};

#[derive(Deserialize)]
struct Document {
    nftables: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    table: Option<Table>,
}

#[derive(Deserialize)]
struct Table {
    family: String,
    name: String,
}

/// Whether other readers have a table: kube-proxy's own, and those that iptables-nft shows.
pub fn nft_table_has_reader(family: &str, table: &str) -> bool {
    matches!(family, "ip" | "ip6") && ["filter", "kube-proxy", "mangle", "nat", "raw", "security"].contains(&table)
}

/// All tables by name, what is in those that no other reader has, and iptables-nft's chains with rules that are not its own.
pub(super) fn others() -> Result<Captured, CaptureError> {
    let item = Item::NftOthers;
    let list = match command::output("nft", ["-j", "list", "tables"], None) {
        Ok(bytes) => bytes,
        Err(e @ CommandError::NotInstalled { .. }) => return Ok(Captured::Absent { reason: e.to_string() }),
        Err(source) => return Err(CaptureError::Command { item, source }),
    };
    // What this cannot read is told by who reads the capture.
    let tables = serde_json::from_slice::<Document>(&list).map(|d| d.nftables).unwrap_or_default();
    let others =
        tables.into_iter().filter_map(|object| object.table).filter(|t| !nft_table_has_reader(&t.family, &t.name));
    let mut lists: Vec<Vec<String>> = others.map(|table| vec!["table".to_owned(), table.family, table.name]).collect();
    let native = native_chains().map_err(|source| CaptureError::Netlink { item, source })?;
    lists.extend(
        native.into_iter().map(|(family, table, chain)| vec!["chain".to_owned(), family.to_owned(), table, chain]),
    );
    let mut documents = vec![list];
    for what in lists {
        let args = ["-j".to_owned(), "list".to_owned()].into_iter().chain(what);
        match command::output("nft", args, None) {
            Ok(bytes) => documents.push(bytes),
            // Gone since it was listed.
            Err(CommandError::Failed { .. }) => {}
            Err(source) => return Err(CaptureError::Command { item, source }),
        }
    }
    Ok(Captured::Present { bytes: join(&documents), place: SOURCE.to_owned() })
}

/// How it is read, for `capture.json`.
pub(super) const SOURCE: &str =
    "nft -j list tables; nft -j list table FAMILY NAME; nft -j list chain FAMILY TABLE CHAIN";

// linux/netfilter/nf_tables.h
const SUBSYSTEM: u8 = 10;
const GET_RULE: u8 = 7;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;

/// Families in netfilter's messages, and what nft calls them.
const FAMILIES: [(u8, &str); 2] = [(2, "ip"), (10, "ip6")];

/// What iptables-nft makes rules of; with each it counts.
const ITS_OWN: [&[u8]; 10] =
    [b"bitwise", b"cmp", b"counter", b"immediate", b"limit", b"log", b"match", b"meta", b"payload", b"target"];

/// Chains in iptables-nft's tables with a rule that it may not have written, so that it may not show it either.
fn native_chains() -> Result<BTreeSet<(&'static str, String, String)>, NetlinkError> {
    let mut found = BTreeSet::new();
    let Some(mut netlink) = Netlink::nf_tables()? else { return Ok(found) };
    for (number, family) in FAMILIES {
        netlink.dump(&Request::netfilter(SUBSYSTEM, GET_RULE, number), |_, message| {
            found.extend(native(message).map(|(table, chain)| (family, table, chain)));
        })?;
    }
    Ok(found)
}

/// Table and chain of a rule (`nfgenmsg` and attributes) that iptables-nft may not have written.
fn native(message: &[u8]) -> Option<(String, String)> {
    let rule = || attributes(message.get(4..).unwrap_or_default());
    let text = |wanted| {
        let (_, bytes) = rule().find(|(kind, _)| *kind == wanted)?;
        Some(std::str::from_utf8(bytes.strip_suffix(b"\0")?).ok()?.to_owned())
    };
    let table = text(RULE_TABLE)?;
    // kube-proxy's own is nobody else's to show.
    if table == "kube-proxy" || !nft_table_has_reader("ip", &table) {
        return None;
    }
    let (mut counted, mut own) = (false, true);
    for (_, expression) in rule().filter(|(kind, _)| *kind == RULE_EXPRESSIONS).flat_map(|(_, list)| attributes(list)) {
        let name = attributes(expression).find(|(kind, _)| *kind == EXPRESSION_NAME).map(|(_, name)| name);
        let name = name.and_then(|name| name.strip_suffix(b"\0")).unwrap_or_default();
        counted |= name == b"counter";
        own &= ITS_OWN.contains(&name);
    }
    if counted && own { None } else { Some((table, text(RULE_CHAIN)?)) }
}

/// Several answers of nft as one.
fn join(documents: &[Vec<u8>]) -> Vec<u8> {
    let inner = |document: &Vec<u8>| {
        let start = memchr::memchr(b'[', document)? + 1;
        let end = memchr::memrchr(b']', document)?;
        document.get(start..end).map(<[u8]>::to_vec)
    };
    let parts: Vec<_> = documents.iter().filter_map(inner).collect();
    [b"{\"nftables\": [", parts.join(&b","[..]).as_slice(), b"]}\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::join;

    #[test]
    fn answers_are_joined() {
        let all = join(&[
            b"{\"nftables\": [{\"metainfo\": {}}]}\n".to_vec(),
            b"{\"nftables\": [{\"table\": {\"a\": [1]}}]}\n".to_vec(),
        ]);
        assert_eq!(all, b"{\"nftables\": [{\"metainfo\": {}},{\"table\": {\"a\": [1]}}]}\n");
    }
}
