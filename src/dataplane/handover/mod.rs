//! Running flows change hands between the kernel's nf_nat or IPVS and the packet path, by overlap: the same translation on the other
//! side first, the flow's packets unseen by the kernel's conntrack meanwhile, then the old side away. Nothing is dropped.
//!
//! Needed are the programs on every device, a bit of the mark ([`Dataplane::set_unseen_mark`]), and a table of nftables or
//! iptables that lives through it all: a `notrack` rule for that bit before conntrack (priority −300), a chain of type nat
//! and a rule that asks conntrack for something, so that the kernel keeps both at work in this network namespace.

mod beside;
mod export;
mod import;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use super::error::DataplaneError;
use super::maps::failed;
use super::{Dataplane, FlowId, FlowState, Full, now};
use crate::capture::ipvs_connections;
use crate::capture::netlink::{Netlink, NetlinkError, Request};
use crate::error::Hinted;
use crate::inspect::conntrack::{Entry, Tuple as Ends};
use crate::inspect::ipvs::{Connection, parse_connections};
use kpx_abi::packet::signal;
use kpx_abi::{Flow, Tuple, map_name};

pub use beside::{come_back, go_beside, leave, stands_beside};
use export::Export;
pub use export::Kept;
pub use import::Unfit;
use import::{Carried, Imported, carried, import};
use wire::By;

/// How long packets may be on their way through the stack that met the old side of a flow.
pub const SETTLE: Duration = Duration::from_millis(50);

/// Flows that change hands at a time.
const BATCH: usize = 256;

/// Requests in one batch of netlink.
const REQUESTS: usize = 64;

/// Why no flow can change hands.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The dataplane could not be read or written.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// The kernel's conntrack could not be read or written.
    #[error("cannot speak with the kernel's conntrack")]
    Netlink(#[from] NetlinkError),
    /// IPVS's connections could not be read.
    #[error("cannot read IPVS's connections")]
    Ipvs(#[source] io::Error),
    /// The kernel has no conntrack, or no netlink for it.
    #[error("this kernel's conntrack is not there, or cannot be spoken with")]
    NoConntrack,
    /// Nothing would keep the flows' packets from conntrack.
    #[error("no bit of the mark is set aside for flows that the kernel's conntrack is not to see")]
    NoMark,
    /// Nobody would translate the flows' packets.
    #[error("the packet path is on no network device")]
    NoDevices,
}

impl Hinted for HandoverError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Dataplane(error) => error.hints(),
            Self::Netlink(error) => error.hints(),
            Self::Ipvs(_) => Vec::new(),
            Self::NoConntrack => vec!["see: modprobe -n nf_conntrack_netlink".to_owned()],
            Self::NoMark | Self::NoDevices => vec!["see what is attached: kpx inspect devices".to_owned()],
        }
    }
}

/// What became of the kernel's flows to Services.
#[derive(Clone, Debug, Default)]
pub struct TakenOver {
    /// Flows that the packet path translates now, and the kernel has forgotten.
    pub flows: Vec<FlowId>,
    /// Flows that the kernel keeps, and why.
    pub left: Vec<(Entry, Unfit)>,
}

/// What became of the packet path's flows.
#[derive(Clone, Debug, Default)]
pub struct GivenBack {
    /// Flows that the kernel translates now.
    pub flows: Vec<FlowId>,
    /// Flows that the packet path keeps, and why.
    pub kept: Vec<(FlowId, Kept)>,
}

impl Dataplane {
    /// Translates these flows of the kernel from now on, in both directions and unseen by its conntrack; what became of each.
    /// The kernel's entries stay as they are. `ipvs` are IPVS's connections.
    pub fn import_flows(&mut self, entries: &[Entry], ipvs: &[Connection]) -> Result<TakenOver, DataplaneError> {
        let mine = self.flows()?;
        let (flows, left) = self.imported(entries, ipvs, &mine)?;
        let more: usize = flows.iter().flat_map(|(_, part)| part).filter(|(key, _)| !mine.contains_key(key)).count();
        let size = self.maps.flows.max_entries();
        if mine.len() + more > size as usize {
            return Err(Full { map: map_name::CONNTRACK, size, resting: false }.into());
        }
        for batch in flows.chunks(BATCH) {
            let (keys, values): (Vec<_>, Vec<_>) = batch.iter().flat_map(|(_, part)| part).copied().unzip();
            self.maps.flows.put_many(&keys, &values).map_err(failed("write", map_name::CONNTRACK))?;
        }
        Ok(TakenOver { flows: flows.into_iter().map(|(id, _)| id).collect(), left })
    }

    /// Brings what is known of imported flows up to what their entries of the kernel say by now: packets that met the kernel after
    /// it was asked and before the import have shown signals, and kept the flow from being idle.
    fn renew_flows(&mut self, entries: &[Entry], ipvs: &[Connection]) -> Result<(), DataplaneError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mine = self.flows()?;
        let (flows, left) = self.imported(entries, ipvs, &mine)?;
        // Nothing more will come that would show that they have ended.
        let over = left.iter().filter(|(_, why)| *why == Unfit::Ended).map(|(entry, _)| import::id(entry));
        self.change_flows(&over.collect::<Vec<_>>(), |flow| flow.seen |= signal::FINISHES)?;
        for (key, latest) in flows.into_iter().flat_map(|(_, part)| part) {
            if let Some(renewed) = mine.get(&key).and_then(|known| import::renewed(known, &latest)) {
                self.maps.flows.put(&key, &renewed).map_err(failed("write", map_name::CONNTRACK))?;
            }
        }
        Ok(())
    }

    /// The entries of these flows, as they are now.
    fn flows_of(&self, flows: &[FlowId]) -> Result<HashMap<Tuple, Flow>, DataplaneError> {
        let mut entries = HashMap::new();
        let get = |key: &Tuple| self.maps.flows.get(key).map_err(failed("read", map_name::CONNTRACK));
        for key in flows.iter().map(FlowId::key) {
            let Some(flow) = get(&key)? else { continue };
            for other in [flow.to, flow.to.reversed()] {
                entries.extend(get(&other)?.map(|flow| (other, flow)));
            }
            entries.insert(key, flow);
        }
        Ok(entries)
    }

    /// What [`Self::import_flows`] would make of these flows.
    pub fn importable(&self, entries: &[Entry], ipvs: &[Connection]) -> Result<TakenOver, DataplaneError> {
        let (flows, left) = self.imported(entries, ipvs, &self.flows()?)?;
        Ok(TakenOver { flows: flows.into_iter().map(|(id, _)| id).collect(), left })
    }

    fn imported(
        &self,
        entries: &[Entry],
        ipvs: &[Connection],
        mine: &HashMap<Tuple, Flow>,
    ) -> Result<Imported, DataplaneError> {
        let image = self.maps.image()?;
        let addresses = self.maps.addresses.dump().map_err(failed("read", map_name::ADDRESSES))?;
        let known = import::Known::new(&image, addresses.into_iter().collect(), self.maps.config()?);
        Ok(import(entries, ipvs, &known, mine, now_ns()))
    }
}

fn now_ns() -> u64 {
    u64::try_from(now().as_nanos()).unwrap_or(u64::MAX)
}

fn check(dataplane: &Dataplane) -> Result<Netlink, HandoverError> {
    if dataplane.maps.config()?.unseen == 0 {
        return Err(HandoverError::NoMark);
    }
    if dataplane.devices()?.is_empty() {
        return Err(HandoverError::NoDevices);
    }
    Netlink::conntrack()?.ok_or(HandoverError::NoConntrack)
}

/// Takes over those of the kernel's flows to Services that `wanted` picks, in the network namespace of this thread.
///
/// To be called in shadow or drain mode, where the programs follow their flows and open none, or once the flows of datagrams that
/// the rules have are left to these ([`Dataplane::leave_to_rules`]); and again when the programs are active, which finds what has
/// begun meanwhile. An error leaves flows on either side, each whole.
pub fn take_over(dataplane: &mut Dataplane, wanted: impl Fn(&Entry) -> bool) -> Result<TakenOver, HandoverError> {
    let mut netlink = check(dataplane)?;
    let entries = listed(&mut netlink)?;
    // Flows that go without a Service are looked at as well: they have ports that others must not get.
    let entries: Vec<Entry> = entries.into_iter().filter(|entry| !entry.is_to_backend() || wanted(entry)).collect();
    let ipvs = parse_connections(&ipvs_connections().map_err(HandoverError::Ipvs)?.unwrap_or_default());
    let taken = dataplane.import_flows(&entries, &ipvs)?;
    std::thread::sleep(SETTLE);
    let of: HashSet<&FlowId> = taken.flows.iter().collect();
    let imported: HashMap<FlowId, &Entry> = entries
        .iter()
        .filter(|entry| entry.is_to_backend())
        .map(|entry| (import::id(entry), entry))
        .filter(|(id, _)| of.contains(id))
        .collect();
    // From here on the kernel sees no packet of them: what it says now is the last that it knows.
    let moved_on = |now: &Entry| {
        let then = imported.get(&import::id(now)).filter(|_| now.is_to_backend());
        then.is_some_and(|then| import::has_moved_on(then, now))
    };
    let latest: Vec<Entry> = listed(&mut netlink)?.into_iter().filter(moved_on).collect();
    dataplane.renew_flows(&latest, &ipvs)?;
    let deletions: Vec<_> =
        imported.values().map(|entry| wire::deletion(entry.protocol, &entry.original, entry.id)).collect();
    delete(&mut netlink, &deletions)?;
    Ok(taken)
}

/// All entries of conntrack.
fn listed(netlink: &mut Netlink) -> Result<Vec<Entry>, NetlinkError> {
    let mut entries = Vec::new();
    netlink.dump(&wire::listing(), |kind, body| {
        entries.extend(crate::inspect::conntrack::decode(kind, body));
    })?;
    Ok(entries)
}

fn delete(netlink: &mut Netlink, deletions: &[Request]) -> Result<(), NetlinkError> {
    for batch in deletions.chunks(REQUESTS) {
        for outcome in netlink.tell(batch, false)? {
            match outcome {
                // Some have ended by themselves, or were never there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(NetlinkError::Refused)?,
            }
        }
    }
    Ok(())
}

/// IPVS's connections in the network namespace of this thread.
fn carried_now() -> Result<HashSet<Carried>, HandoverError> {
    let text = ipvs_connections().map_err(HandoverError::Ipvs)?.unwrap_or_default();
    Ok(carried(&parse_connections(&text)))
}

/// Who is to translate a flow that goes to the kernel: IPVS, if it still has the connection, with the same server. An entry of
/// nf_nat would be dropped when IPVS's connection ends, which no packet would keep alive.
fn by(flow: &Export, ipvs: &HashSet<Carried>) -> By {
    let connection = (flow.id.protocol, flow.id.client, flow.id.frontend, flow.backend);
    if ipvs.contains(&connection) { By::Ipvs } else { By::Netfilter }
}

/// Gives those of the packet path's flows to the kernel that `wanted` picks, in the network namespace of this thread: to IPVS what
/// it still has a connection of, the others to nf_nat. Their entries stay, to let their packets pass, until [`Dataplane::forget_flows`] finds them idle.
///
/// To be called in drain mode, where the programs open no flows, with the rules back in place that are to translate new ones.
pub fn give_back(dataplane: &mut Dataplane, wanted: impl Fn(&FlowId) -> bool) -> Result<GivenBack, HandoverError> {
    let mut netlink = check(dataplane)?;
    let is_wanted = |id: &FlowId, state| state != FlowState::Pass && wanted(id);
    let (flows, mut kept) = export::export(&dataplane.flows()?, now_ns(), is_wanted);
    let ipvs = carried_now()?;
    let mut given = Vec::new();
    for batch in flows.chunks(REQUESTS) {
        let ids: Vec<FlowId> = batch.iter().map(|flow| flow.id).collect();
        dataplane.set_unseen(&ids, true)?;
        std::thread::sleep(SETTLE);
        // Flows have gone on meanwhile: what has just opened may be established, or have ended.
        let (batch, ended) = export::export(&dataplane.flows_of(&ids)?, now_ns(), |_, _| true);
        kept.extend(ended);
        // What the kernel has seen of them looks like flows without translation, and would be in the way.
        // So would be what it remembers from before the flow was taken over, and what it remembers for a while of a closed
        // flow through another Service with the same ends: a client's port is soon used again.
        let stale: Vec<_> = batch
            .iter()
            .flat_map(|flow| {
                let old = Ends { source: flow.id.client, destination: flow.id.frontend };
                let answers = Ends { source: flow.backend, destination: flow.source.unwrap_or(flow.id.client) };
                [flow.translated, old, answers].map(|ends| wire::deletion(flow.id.protocol, &ends, None))
            })
            .collect();
        delete(&mut netlink, &stale)?;
        let creations: Vec<_> = batch.iter().map(|flow| wire::creation(flow, by(flow, &ipvs))).collect();
        let mut theirs = Vec::new();
        for (id, outcome) in batch.iter().map(|flow| flow.id).zip(netlink.tell(&creations, true)?) {
            match outcome {
                Ok(()) => theirs.push(id),
                Err(error) => kept.push((id, Kept::Refused(error.raw_os_error().unwrap_or(0)))),
            }
        }
        dataplane.set_flow_state(&theirs, FlowState::Pass)?;
        renew_entries(&mut netlink, &batch, &dataplane.flows_of(&theirs)?)?;
        given.extend(theirs);
    }
    Ok(GivenBack { flows: given, kept })
}

/// Brings what the kernel knows of flows that were given to it up to what they have shown since they were read: packets that were
/// translated in front of it have answered, and kept the flow from being idle.
fn renew_entries(netlink: &mut Netlink, given: &[Export], flows: &HashMap<Tuple, Flow>) -> Result<(), NetlinkError> {
    let (latest, kept) = export::export(flows, now_ns(), |_, _| true);
    let moved_on = |flow: &&Export| given.iter().any(|earlier| flow.has_moved_on(earlier));
    renew(netlink, &latest.iter().filter(moved_on).map(wire::renewal).collect::<Vec<_>>())?;
    let over = kept.iter().filter(|(_, why)| *why == Kept::Ended).map(|(id, _)| {
        let ends = Ends { source: id.client, destination: id.frontend };
        wire::deletion(id.protocol, &ends, None)
    });
    delete(netlink, &over.collect::<Vec<_>>())
}

fn renew(netlink: &mut Netlink, renewals: &[Request]) -> Result<(), NetlinkError> {
    for batch in renewals.chunks(REQUESTS) {
        // An entry that has gone has ended, and one that the kernel refuses to change knows more by itself.
        for error in netlink.tell(batch, false)?.into_iter().filter_map(Result::err) {
            tracing::debug!(%error, "an entry was not renewed");
        }
    }
    Ok(())
}
