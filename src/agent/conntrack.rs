//! Flows of datagrams in the kernel's conntrack: which the rules of a kube-proxy carry, and the end of those that lead to
//! backends which serve no more.

use std::io;
use std::net::SocketAddr;

use super::table::LiveTable;
use crate::capture::netlink::{Netlink, NetlinkError};
use crate::inspect::conntrack::{Entry, deletion, walk};
use crate::model::{Family, Protocol};

/// Deletions in one batch.
const BATCH: usize = 64;

/// Deletes the stale entries of this network namespace, and returns how many there were.
///
/// The rules made them, and while they are used they never expire. TCP and SCTP entries stay: their ends notice by themselves.
///
/// `is_stale` is asked with where the client sent to and where answers come from, of entries that the kernel has told already.
pub(super) fn clean(is_stale: impl Fn(SocketAddr, SocketAddr) -> bool) -> Result<usize, NetlinkError> {
    let Some(mut netlink) = Netlink::conntrack()? else { return Ok(0) };
    let mut stale = Vec::new();
    walk(&mut netlink, |entry, message| {
        if entry.service_protocol() == Some(Protocol::Udp) && is_stale(entry.original.destination, entry.reply.source) {
            stale.extend(deletion(message));
        }
    })?;
    for batch in stale.chunks(BATCH) {
        match netlink.ask(batch, |_, _| {}) {
            // Some have ended by themselves.
            Err(NetlinkError::Refused(error)) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(stale.len())
}

/// The entries of datagrams that the rules send from a frontend of the table to a backend.
pub(super) fn carried(table: &LiveTable) -> Result<Vec<Entry>, NetlinkError> {
    let Some(mut netlink) = Netlink::conntrack()? else { return Ok(Vec::new()) };
    let mut carried = Vec::new();
    walk(&mut netlink, |entry, _| {
        let to = entry.original.destination;
        // A NodePort is served at whatever address of the node.
        let served = || {
            [to.ip(), Family::of(to.ip()).unspecified()]
                .iter()
                .any(|ip| table.at(&(*ip, to.port(), Protocol::Udp)).is_some())
        };
        if entry.service_protocol() == Some(Protocol::Udp) && entry.is_to_backend() && served() {
            carried.push(*entry);
        }
    })?;
    Ok(carried)
}
