//! The nftables tables of others, one by one: `nft list ruleset` on a node with many rules of iptables-nft takes seconds.

use serde::Deserialize;

use super::Captured;
use super::command::{self, CommandError};
use super::error::CaptureError;
use super::item::Item;

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

/// All tables by name, and what is in those that no other reader has.
pub(super) fn others() -> Result<Captured, CaptureError> {
    let item = Item::NftOthers;
    let list = match command::output("nft", ["-j", "list", "tables"], None) {
        Ok(bytes) => bytes,
        Err(e @ CommandError::NotInstalled { .. }) => return Ok(Captured::Absent { reason: e.to_string() }),
        Err(source) => return Err(CaptureError::Command { item, source }),
    };
    // What this cannot read is told by who reads the capture.
    let tables = serde_json::from_slice::<Document>(&list).map(|d| d.nftables).unwrap_or_default();
    let mut documents = vec![list];
    for table in
        tables.into_iter().filter_map(|object| object.table).filter(|t| !nft_table_has_reader(&t.family, &t.name))
    {
        match command::output("nft", ["-j", "list", "table", &table.family, &table.name], None) {
            Ok(bytes) => documents.push(bytes),
            // Gone since it was listed.
            Err(CommandError::Failed { .. }) => {}
            Err(source) => return Err(CaptureError::Command { item, source }),
        }
    }
    Ok(Captured::Present { bytes: join(&documents), place: SOURCE.to_owned() })
}

/// How it is read, for `capture.json`.
pub(super) const SOURCE: &str = "nft -j list tables; nft -j list table FAMILY NAME";

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
