//! kube-proxy's tables of nftables mode as text, which `nft -f` takes back.

use std::io;

use super::Captured;
use super::command::{self, CommandError};
use super::error::CaptureError;
use super::item::Item;
use super::netlink::{Netlink, NetlinkError, Request};
use crate::model::Family;

// linux/netfilter/nfnetlink.h, nf_tables.h
const NF_TABLES: u8 = 10;
const GET_TABLE: u8 = 1;
const TABLE_NAME: u16 = 1;

/// The table of nftables mode.
const TABLE: &str = "kube-proxy";
/// How the tables are read.
pub(super) const SOURCE: &str = "nft list table ip kube-proxy; nft list table ip6 kube-proxy";

const fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// The tables of this network namespace, as far as they are there: nft is not asked for one that is not.
pub(super) fn tables() -> Result<Captured, CaptureError> {
    let item = Item::NftTables;
    let mut listings = Vec::new();
    for family in Family::BOTH {
        if !is_there(family).map_err(|source| CaptureError::Netlink { item, source })? {
            continue;
        }
        match command::output("nft", ["list", "table", word(family), TABLE], None) {
            Ok(listing) => listings.push(listing),
            Err(error @ CommandError::NotInstalled { .. }) => {
                return Ok(Captured::Absent { reason: error.to_string() });
            }
            Err(source) => return Err(CaptureError::Command { item, source }),
        }
    }
    Ok(Captured::Present { bytes: listings.concat(), place: SOURCE.to_owned() })
}

fn is_there(family: Family) -> Result<bool, NetlinkError> {
    let Some(mut netlink) = Netlink::nf_tables()? else { return Ok(false) };
    let number = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    let name = [TABLE.as_bytes(), b"\0"].concat();
    let request = Request::netfilter(NF_TABLES, GET_TABLE, number as u8).with(TABLE_NAME, &name);
    match netlink.ask(&[request], |_, _| {}) {
        Ok(()) => Ok(true),
        Err(NetlinkError::Refused(error)) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// One family's table in [`Item::NftTables`].
pub fn nft_table(listing: &str, family: Family) -> Option<&str> {
    let heading = format!("table {} {TABLE} {{\n", word(family));
    let start =
        listing.match_indices(&heading).map(|(at, _)| at).find(|at| *at == 0 || listing[..*at].ends_with('\n'))?;
    let end = listing[start..].find("\n}\n")?;
    Some(&listing[start..start + end + "\n}\n".len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_found_among_others() {
        let own = "table ip kube-proxy {\n\tchain services {\n\t}\n}\n";
        let text = format!("table inet site {{\n\tcomment \"table ip kube-proxy {{\"\n}}\n{own}table ip nat {{\n}}\n");
        assert_eq!(nft_table(&text, Family::V4), Some(own));
        assert_eq!(nft_table(own, Family::V4), Some(own));
        assert_eq!(nft_table(&text, Family::V6), None);
        assert_eq!(nft_table("table ip kube-proxy {\n", Family::V4), None);
    }
}
