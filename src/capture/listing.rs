//! A table of nftables as text, which `nft -f` takes back.

use std::io;

use super::command;
use super::error::CaptureError;
use super::item::Item;
use super::netlink::{Netlink, NetlinkError, Request};
use crate::model::Family;

// linux/netfilter/nfnetlink.h, nf_tables.h
const NF_TABLES: u8 = 10;
const GET_TABLE: u8 = 1;
const TABLE_NAME: u16 = 1;

/// A table of this network namespace as `nft list table` prints it; `None` if there is none.
pub fn nft_table(family: Family, table: &str) -> Result<Option<Vec<u8>>, CaptureError> {
    let item = Item::NftRuleset;
    let refused = |source| CaptureError::Netlink { item, source };
    let Some(mut netlink) = Netlink::nf_tables().map_err(refused)? else { return Ok(None) };
    let (word, number) = match family {
        Family::V4 => ("ip", libc::AF_INET),
        Family::V6 => ("ip6", libc::AF_INET6),
    };
    let name = [table.as_bytes(), b"\0"].concat();
    let request = Request::netfilter(NF_TABLES, GET_TABLE, number as u8).with(TABLE_NAME, &name);
    match netlink.ask(&[request], |_, _| {}) {
        Ok(()) => {}
        Err(NetlinkError::Refused(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(refused(source)),
    }
    let listed = command::output("nft", ["list", "table", word, table], None);
    listed.map(Some).map_err(|source| CaptureError::Command { item, source })
}
