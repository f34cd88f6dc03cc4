//! Flows of IPVS that no program can have, since they are of the node's own sockets or end at them: nf_nat carries them in a zone
//! of conntrack of their own, where IPVS does not find their entries when it forgets its connections and drops these.
//!
//! The overlap is that of the packet path: the same translation in the zone, then the flow's packets in the zone, both directions
//! by one transaction of whoever says which packets are, then the old entry away. IPVS, behind nf_nat in each hook, finds
//! packets of the one direction translated already, and translates those of the other to what they become anyway.

use std::collections::{HashMap, HashSet};
use std::io;

use kpx_abi::{Stage, stage};

use super::export::Export;
use super::import::{has_moved_on, id, seen};
use super::{By, Carried, FlowId, HandoverError, REQUESTS, by, carried_now, delete, listed, renew, wire};
use crate::capture::netlink::{Netlink, NetlinkError, Request};
use crate::inspect::conntrack::{Entry, Translator, Tuple as Ends};

/// The flow of an entry, for another one.
fn export(entry: &Entry) -> Export {
    let client = entry.original.source;
    let sees = entry.reply.destination;
    Export {
        id: id(entry),
        translated: Ends { source: sees, destination: entry.reply.source },
        backend: entry.reply.source,
        source: (sees != client).then_some(sees),
        stage: seen(entry).map_or(Stage::Closing, |[there, back]| stage(there, back)),
        timeout: entry.timeout.unwrap_or(0).max(1),
    }
}

fn netlink() -> Result<Netlink, HandoverError> {
    Netlink::conntrack()?.ok_or(HandoverError::NoConntrack)
}

/// Creates entries; those of the flows that have one then.
fn create<'e>(
    netlink: &mut Netlink,
    entries: &'e [Entry],
    request: impl Fn(&Entry) -> Request,
) -> Result<Vec<&'e Entry>, NetlinkError> {
    let mut made = Vec::new();
    for batch in entries.chunks(REQUESTS) {
        let requests: Vec<_> = batch.iter().map(&request).collect();
        for (entry, outcome) in batch.iter().zip(netlink.tell(&requests, true)?) {
            match outcome {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    tracing::debug!(%error, client = %entry.original.source, "no entry could be made");
                }
                _ => made.push(entry),
            }
        }
    }
    Ok(made)
}

/// Makes entries of nf_nat in a zone that translate as IPVS does what these entries are of, in the network namespace of this thread;
/// the flows that have one now. Nothing changes for them until their packets are in the zone.
pub fn go_beside(entries: &[Entry], zone: u16) -> Result<Vec<Entry>, HandoverError> {
    let request = |entry: &Entry| wire::in_zone(wire::creation(&export(entry), By::Netfilter), zone);
    Ok(create(&mut netlink()?, entries, request)?.into_iter().copied().collect())
}

/// Deletes these entries, whose flows have others in `zone` now. What the kernel has seen of a flow until its packets were there counts:
/// it may have ended, or an idle one have spoken.
pub fn leave(entries: &[Entry], zone: u16) -> Result<(), HandoverError> {
    let mut netlink = netlink()?;
    let old: HashMap<(FlowId, u16), &Entry> = entries.iter().map(|entry| ((id(entry), entry.zone), entry)).collect();
    let moved_on = |now: &Entry| old.get(&(id(now), now.zone)).is_some_and(|then| has_moved_on(then, now));
    let latest = listed(&mut netlink)?.into_iter().filter(moved_on);
    renew(&mut netlink, &latest.map(|entry| wire::in_zone(wire::renewal(&export(&entry)), zone)).collect::<Vec<_>>())?;
    let deletion = |entry: &Entry| wire::in_zone(wire::deletion(entry.protocol, &entry.original, None), entry.zone);
    Ok(delete(&mut netlink, &entries.iter().map(deletion).collect::<Vec<_>>())?)
}

/// Makes entries outside of any zone for what these entries of a zone are of; the flows that have one now. It is IPVS's where IPVS has
/// the connection still. Nothing changes for them until their packets are in the zone no more.
pub fn come_back(entries: &[Entry]) -> Result<Vec<Entry>, HandoverError> {
    let mut netlink = netlink()?;
    let ipvs: HashSet<Carried> = carried_now()?;
    let old = |entry: &Entry| wire::deletion(entry.protocol, &entry.original, None);
    delete(&mut netlink, &entries.iter().map(old).collect::<Vec<_>>())?;
    let request = |entry: &Entry| {
        let flow = export(entry);
        wire::creation(&flow, by(&flow, &ipvs))
    };
    Ok(create(&mut netlink, entries, request)?.into_iter().copied().collect())
}

/// Whether an entry is one that [`go_beside`] has made.
pub fn stands_beside(entry: &Entry, zone: u16) -> bool {
    entry.zone == zone && entry.translator() == Some(Translator::Netfilter)
}
