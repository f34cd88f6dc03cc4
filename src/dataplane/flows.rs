//! The flows of the packet path: as entries, and what is to be done with one.

use std::collections::HashMap;
use std::net::SocketAddr;

use kpx_abi::packet::signal;
use kpx_abi::{Addr, Config, Flow as AbiFlow, FlowState, Role, Stage, Timeouts, Tuple, map_name, masquerade_of, stage};

use super::error::DataplaneError;
use super::maps::failed;
use super::reconcile::{self, Image};
use super::{Dataplane, now};
use crate::inspect::entry::{Flow, Nat, Translation};

/// Roles by their numbers, with their names.
const ROLES: [(Role, &str); 6] = [
    (Role::Forward, "forward"),
    (Role::Masquerade, "masquerade"),
    (Role::Unmasquerade, "unmasquerade"),
    (Role::Reply, "reply"),
    (Role::Left, "left"),
    (Role::Plain, "plain"),
];

/// Names of the bits of what a direction has shown.
const SIGNALS: [(u8, &str); 5] = [
    (signal::OPENS, "opened"),
    (signal::ANSWERS, "answered"),
    (signal::FINISHES, "finished"),
    (signal::RESETS, "reset"),
    (signal::CARRIES, "data"),
];

/// Names of an entry's options.
const OPTIONS: [(u8, &str); 5] = [
    (AbiFlow::UNSEEN, "unseen"),
    (AbiFlow::MASQUERADED, "masqueraded"),
    (AbiFlow::TAKEN, "taken"),
    (AbiFlow::DSR, "dsr"),
    (AbiFlow::ANNOUNCED, "announced"),
];

/// Names of states in which an entry does not translate.
const STATES: [(FlowState, &str); 2] = [(FlowState::Pass, "pass"), (FlowState::Frozen, "frozen")];

fn at(addr: Addr, port: u16) -> SocketAddr {
    SocketAddr::new(reconcile::ip(addr), u16::from_be(port))
}

/// A flow of the packet path, by the packets of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId {
    /// IANA protocol number.
    pub protocol: u8,
    /// The client.
    pub client: SocketAddr,
    /// The frontend that it sends to.
    pub frontend: SocketAddr,
}

impl FlowId {
    /// Key of the entry of its client's packets.
    pub(super) fn key(&self) -> Tuple {
        let (src, sport) = reconcile::endpoint(self.client);
        let (dst, dport) = reconcile::endpoint(self.frontend);
        Tuple { src, dst, sport, dport, proto: self.protocol, halfway: 0, pad: [0; 2] }
    }
}

impl Dataplane {
    /// What is done from now on with the packets of these flows, in both directions. [`FlowState::Pass`] may be said of flows
    /// that there are not (yet): they are the kernel's. Returns how many of the flows there are now.
    pub fn set_flow_state(&mut self, flows: &[FlowId], state: FlowState) -> Result<usize, DataplaneError> {
        let found = self.change_flows(flows, |flow| {
            let given_back = state == FlowState::Pass && flow.role == Role::Forward as u8;
            let others = flow.options & !AbiFlow::CHANGED_HANDS;
            flow.options = if given_back { others | AbiFlow::CHANGED_HANDS } else { others };
            flow.state = state as u8;
        })?;
        let left = AbiFlow { role: Role::Left as u8, state: FlowState::Pass as u8, ..AbiFlow::default() };
        let last_ns = u64::try_from(now().as_nanos()).unwrap_or(u64::MAX);
        for (id, found) in flows.iter().zip(&found) {
            let (key, failed) = (id.key(), failed("write", map_name::CONNTRACK));
            match (found, state) {
                (None, FlowState::Pass) => self.maps.flows.put(&key, &AbiFlow { last_ns, ..left }).map_err(failed)?,
                // What was only a note is nothing without it.
                (Some(role), FlowState::Translate) if *role == Role::Left as u8 => {
                    self.maps.flows.delete(&key).map(drop).map_err(failed)?;
                }
                _ => {}
            }
        }
        Ok(found.iter().flatten().count())
    }

    /// Whether packets of these flows get the mark of [`Self::set_unseen_mark`] from now on, in both directions. Returns how
    /// many of the flows there are.
    pub fn set_unseen(&mut self, flows: &[FlowId], unseen: bool) -> Result<usize, DataplaneError> {
        let found = self.change_flows(flows, |flow| {
            flow.options = if unseen { flow.options | AbiFlow::UNSEEN } else { flow.options & !AbiFlow::UNSEEN };
        })?;
        Ok(found.iter().flatten().count())
    }

    /// Sets the bits of the mark by which a `notrack` rule knows packets that the kernel's conntrack is not to see; 0: none.
    pub fn set_unseen_mark(&mut self, mark: u32) -> Result<(), DataplaneError> {
        let config = self.maps.config()?;
        self.maps.set_config(&Config { unseen: mark, ..config })
    }

    /// Sets the bits of the mark by which a rule of the filter knows packets of Services that it is to let through; 0: none.
    pub fn set_accept_mark(&mut self, mark: u32) -> Result<(), DataplaneError> {
        let config = self.maps.config()?;
        self.maps.set_config(&Config { mark, ..config })
    }

    /// The bits of [`Self::set_unseen_mark`] and of [`Self::set_accept_mark`].
    pub fn marks(&self) -> Result<(u32, u32), DataplaneError> {
        let config = self.maps.config()?;
        Ok((config.unseen, config.mark))
    }

    /// How many running flows there are whose packets the kernel's conntrack is not to see.
    pub fn unseen_flows(&self, timeouts: &Timeouts) -> Result<usize, DataplaneError> {
        let flows = self.flows()?;
        let now = u64::try_from(now().as_nanos()).unwrap_or(u64::MAX);
        let runs = |flow: &AbiFlow, proto: u8| {
            let reply = flows.get(&flow.to.reversed());
            let stage = stage(flow.seen, reply.map_or(0, |reply| reply.seen));
            let last = reply.map_or(0, |reply| reply.last_ns).max(flow.last_ns);
            stage != Stage::Closed && now.saturating_sub(last) < timeouts.limit_of(proto, flow.options, stage)
        };
        let unseen = flows.iter().filter(|(_, flow)| {
            let translates = flow.state == FlowState::Translate as u8 && flow.role == Role::Forward as u8;
            translates && flow.has(AbiFlow::UNSEEN)
        });
        Ok(unseen.filter(|(key, flow)| runs(flow, key.proto)).count())
    }

    /// Forgets all flows: for when the packet path is on no device.
    pub fn forget_all_flows(&mut self) -> Result<(), DataplaneError> {
        let flows = self.maps.flows.dump().map_err(failed("read", map_name::CONNTRACK))?;
        for (key, _) in flows {
            self.maps.flows.delete(&key).map_err(failed("delete from", map_name::CONNTRACK))?;
        }
        Ok(())
    }

    /// Changes the entries that the packets of flows meet before routing, all at once; the role of each flow's first entry,
    /// where there is one. What programs note in an entry at that very moment may be lost: a second of its age, a signal.
    pub(super) fn change_flows(
        &self,
        flows: &[FlowId],
        change: impl Fn(&mut AbiFlow),
    ) -> Result<Vec<Option<u8>>, DataplaneError> {
        let get = |key: &Tuple| self.maps.flows.get(key).map_err(failed("read", map_name::CONNTRACK));
        let (mut keys, mut values, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for id in flows {
            let request = id.key();
            let Some(flow) = get(&request)? else {
                found.push(None);
                continue;
            };
            found.push(Some(flow.role));
            let mut part = vec![(request, flow)];
            if flow.role == Role::Forward as u8 {
                // The entry of a source that is still to be chosen is the programs' to write.
                let answers = [Some(flow.to), get(&flow.to)?.filter(|flow| !flow.undecided()).map(|flow| flow.to)];
                for key in answers.into_iter().flatten().map(|to| to.reversed()) {
                    part.extend(get(&key)?.map(|flow| (key, flow)));
                }
            }
            for (key, mut flow) in part {
                change(&mut flow);
                keys.push(key);
                values.push(flow);
            }
        }
        self.maps.flows.put_many(&keys, &values).map_err(failed("write", map_name::CONNTRACK))?;
        Ok(found)
    }

    pub(super) fn flows(&self) -> Result<HashMap<Tuple, AbiFlow>, DataplaneError> {
        let flows = self.maps.flows.dump().map_err(failed("read", map_name::CONNTRACK))?;
        Ok(flows.into_iter().collect())
    }

    /// Flows of the packet path: one entry for each translation of each direction.
    pub fn conntrack(&self) -> Result<Vec<Flow>, DataplaneError> {
        let (flows, image) = (self.flows()?, self.maps.image()?);
        let now = u64::try_from(now().as_nanos()).unwrap_or(u64::MAX);
        Ok(flows.iter().map(|(key, flow)| entry(&flows, &image, key, flow, now)).collect())
    }

    /// Source addresses that the packet path replaces, and their way back.
    pub fn nat(&self) -> Result<Vec<Nat>, DataplaneError> {
        let translation = |(key, flow): (&Tuple, &AbiFlow)| {
            let (kind, becomes) = match flow.role {
                role if role == Role::Masquerade as u8 => (Translation::Source, at(flow.to.src, flow.to.sport)),
                role if role == Role::Unmasquerade as u8 => (Translation::Destination, at(flow.to.dst, flow.to.dport)),
                _ => return None,
            };
            // Before its first packet has left, a flow has no source to leave with.
            (!flow.undecided()).then(|| Nat {
                protocol: key.proto,
                kind,
                source: at(key.src, key.sport),
                destination: at(key.dst, key.dport),
                becomes,
                service: Some(flow.service),
                age_seconds: None,
            })
        };
        Ok(self.flows()?.iter().filter_map(translation).collect())
    }
}

fn entry(flows: &HashMap<Tuple, AbiFlow>, image: &Image, key: &Tuple, flow: &AbiFlow, now: u64) -> Flow {
    // A packet's answer is what its translation reversed names.
    let other = if flow.role == Role::Unmasquerade as u8 {
        masquerade_of(&flow.to, |key| flows.get(key)).map(|(_, other)| other)
    } else {
        flows.get(&flow.to.reversed())
    };
    let last = other.map_or(flow.last_ns, |other| other.last_ns.max(flow.last_ns));
    let stage = stage(flow.seen, other.map_or(0, |other| other.seen));
    let limit = Timeouts::default().limit_of(key.proto, flow.options, stage);
    // Of an announced flow there is no backend in the maps: it is whom the client's packets go to.
    let announced = flow.has(AbiFlow::ANNOUNCED);
    let backend = match flow.role {
        role if announced && role == Role::Forward as u8 => Some(at(flow.to.dst, flow.to.dport)),
        role if announced && role == Role::Plain as u8 => Some(at(key.dst, key.dport)),
        _ if announced => Some(at(key.src, key.sport)),
        _ => image.address_of(flow.backend, flow.service),
    };
    let seconds = |ns: u64| i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX);
    Flow {
        protocol: key.proto,
        kind: ROLES.iter().find(|(role, _)| *role as u8 == flow.role).map_or("unknown", |(_, name)| name),
        source: at(key.src, key.sport),
        destination: at(key.dst, key.dport),
        service: Some(flow.service).filter(|service| *service != 0),
        backend,
        packets: None,
        bytes: None,
        expires_seconds: Some(seconds(limit) - seconds(now.saturating_sub(last))),
        flags: flags(flow),
    }
}

fn flags(flow: &AbiFlow) -> Vec<&'static str> {
    let state = STATES.iter().filter(|(state, _)| *state as u8 == flow.state).map(|(_, name)| *name);
    let seen = SIGNALS.iter().filter(|(bit, _)| flow.seen & bit != 0).map(|(_, name)| *name);
    let options = OPTIONS.iter().filter(|(bit, _)| flow.has(*bit)).map(|(_, name)| *name);
    state.chain(seen).chain(options).collect()
}
