//! Which entries of Cilium's maps a packet to a frontend meets, in the order of `lb4_local` (`bpf/lib/lb.h`).

use std::net::{IpAddr, SocketAddr};

use super::layout::{ServiceKey, ServiceValue, flag};
use super::lift::{INTERNAL_SCOPE, slot_entry};
use super::read::{AFFINITY, BACKENDS, RANGES, State};
use crate::inspect::entry::MapEntry;
use crate::model::{Family, Protocol};

/// What is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// The frontend's entry, its entry for traffic from inside where that is another, and who is let in or remembered.
    pub before: Vec<MapEntry>,
    /// The entries of each slot that may be chosen, and the backend they lead to.
    pub slots: Vec<(Option<SocketAddr>, Vec<MapEntry>)>,
}

/// Looks a destination up; `inside` is whether the packet comes from a pod or from the node. `None` if no entry is for it.
pub fn lookup(
    state: &State,
    destination: SocketAddr,
    protocol: Protocol,
    inside: bool,
    client: Option<IpAddr>,
) -> Option<Met> {
    let family = Family::of(destination.ip());
    let at = usize::from(family == Family::V6);
    let (key, value) = frontend(state, destination, protocol)?;
    let mut before = vec![slot_entry(state, &key, value)];
    let (mut key, mut value) = (key, value);
    if inside && value.has(flag::TWO_SCOPES) {
        let internal = ServiceKey { scope: INTERNAL_SCOPE, ..key };
        if let Some(found) = state.services.get(&internal) {
            (key, value) = (internal, found);
            before.push(slot_entry(state, &key, value));
        }
    }
    let who = client.map_or_else(|| "the client".to_owned(), |ip| ip.to_string());
    let of_client = |map, value: String, id: u16| MapEntry { map, key: format!("service {id}, {who}"), value };
    if value.has(flag::SOURCE_RANGES) {
        let does = if value.has(flag::QUARANTINED_OR_DENY) { "a match keeps out" } else { "a match lets in" };
        before.push(of_client(RANGES[at], does.to_owned(), value.id));
    }
    if let Some(seconds) = value.affinity() {
        before.push(of_client(AFFINITY[at], format!("the backend of the last {seconds} s, if any"), value.id));
    }
    let slot = |slot| {
        let key = ServiceKey { slot, ..key };
        let named = state.services.get(&key)?;
        let mut entries = vec![slot_entry(state, &key, named)];
        let backend = state.backends.get(&(family, named.union));
        entries.extend(backend.map(|backend| MapEntry {
            map: BACKENDS[at],
            key: named.union.to_string(),
            value: format!("{}, {:?}", backend.addr, backend.state).to_lowercase(),
        }));
        Some((backend.map(|backend| backend.addr), entries))
    };
    Some(Met { before, slots: (1..=value.count).filter_map(slot).collect() })
}

/// The entry of a frontend: of its protocol or, as up to Cilium 1.16, of any; of its address or, for a NodePort, of any.
fn frontend(state: &State, destination: SocketAddr, protocol: Protocol) -> Option<(ServiceKey, &ServiceValue)> {
    let (own, any) = (destination.ip(), Family::of(destination.ip()).unspecified());
    let keys = [own, any].into_iter().flat_map(|address| {
        let key = move |protocol| ServiceKey { address, port: destination.port(), protocol, scope: 0, slot: 0 };
        [key(protocol.number()), key(0)]
    });
    keys.into_iter().find_map(|key| state.services.get(&key).map(|value| (key, value)))
}
