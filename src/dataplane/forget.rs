//! Which flows are over, and how full the maps are that the programs fill.

use std::collections::HashMap;
use std::os::fd::AsFd as _;

use kpx_abi::{Flow, Role, Timeouts, Tuple, expired, map_name};

use super::error::DataplaneError;
use super::maps::{self, failed};
use super::{Dataplane, Paths};
use crate::inspect::bpf::sys::{self, Entries, Table};
use crate::inspect::conntrack::Limits;

/// What a look through the flows has come to, in entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Those that were forgotten.
    pub forgotten: usize,
    /// Those that are left.
    pub left: usize,
    /// Most that there can be.
    pub size: usize,
}

/// How many elements a map has, and how many it can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapUse {
    /// Its name.
    pub map: &'static str,
    /// Elements in use.
    pub entries: usize,
    /// Most elements.
    pub size: usize,
}

/// Maps that are not arrays, but for the flows, which [`forget_flows`] counts.
const COUNTED: [&str; 8] = [
    map_name::INDEX,
    map_name::YIELD,
    map_name::FRAGMENTS,
    map_name::DEVICES,
    map_name::ADDRESSES,
    map_name::NETWORKS,
    map_name::SOURCES,
    map_name::AFFINITY,
];

impl Dataplane {
    /// Forgets flows of the packet path that are over; how many entries that were.
    pub fn forget_flows(&mut self, timeouts: &Timeouts) -> Result<usize, DataplaneError> {
        Ok(forget(&self.maps.flows, timeouts)?.forgotten)
    }

    /// How much of the arrays is in use that the table is written to.
    pub fn table_use(&self) -> [MapUse; 3] {
        let image = &self.image;
        let slots = |frontend: &kpx_abi::Frontend| (frontend.cluster.count + frontend.local.count) as usize;
        let of = |map, entries, size: u32| MapUse { map, entries, size: size as usize };
        [
            of(map_name::FRONTENDS, image.keys().count(), image.sizes.entries),
            of(map_name::SLOTS, image.entries().map(slots).sum(), image.sizes.slots),
            of(map_name::BACKENDS, image.active_backends(), image.sizes.backends),
        ]
    }
}

/// The time-outs of the kernel's conntrack, as the sysctls have them; its defaults where they do not tell.
pub fn timeouts(limits: &Limits) -> Timeouts {
    let mut timeouts = Timeouts::default();
    for (name, seconds) in [
        ("tcp_timeout_syn_recv", &mut timeouts.opening),
        ("tcp_timeout_established", &mut timeouts.tcp),
        ("sctp_timeout_established", &mut timeouts.sctp),
        ("tcp_timeout_time_wait", &mut timeouts.closing),
        ("tcp_timeout_close", &mut timeouts.closed),
        ("udp_timeout", &mut timeouts.udp),
        ("udp_timeout_stream", &mut timeouts.udp_answered),
    ] {
        *seconds = limits.timeout(name).unwrap_or(*seconds);
    }
    let half_closed = limits.timeout("tcp_timeout_fin_wait").max(limits.timeout("tcp_timeout_close_wait"));
    timeouts.half_closed = half_closed.unwrap_or(timeouts.half_closed);
    timeouts
}

/// Forgets flows of the packet path that are over, whatever thread writes the other maps.
pub fn forget_flows(paths: &Paths, timeouts: &Timeouts) -> Result<Forgotten, DataplaneError> {
    forget(&maps::open(&paths.maps(), map_name::CONNTRACK)?, timeouts)
}

/// Counts the elements of maps that the programs fill, and of others that are no arrays.
pub fn map_use(paths: &Paths) -> Result<Vec<MapUse>, DataplaneError> {
    COUNTED.iter().map(|map| count(paths, map)).collect()
}

fn count(paths: &Paths, map: &'static str) -> Result<MapUse, DataplaneError> {
    let path = paths.maps().join(map);
    let object = |source| DataplaneError::Object { action: "open", path: path.clone(), source };
    let fd = sys::obj_get(&path).map_err(object)?;
    let info = sys::map_info(fd.as_fd()).map_err(object)?;
    let mut walk = Entries::new(fd.as_fd(), &info).map_err(failed("read", map))?;
    let mut entries = 0;
    while let Some(page) = walk.page().map_err(failed("read", map))? {
        entries += page.count();
    }
    Ok(MapUse { map, entries, size: info.max_entries as usize })
}

/// Looks at some thousand entries at a time: the memory that it takes does not depend on how many flows there are.
fn forget(flows: &Table<Tuple, Flow>, timeouts: &Timeouts) -> Result<Forgotten, DataplaneError> {
    let read = || failed("read", map_name::CONNTRACK);
    let now = sys::monotonic_ns();
    let youngest = shortest(timeouts);
    let mut done = Forgotten { size: flows.max_entries() as usize, ..Forgotten::default() };
    flows.walk(|page| {
        done.left += page.len();
        let old = page.into_iter().filter(|(_, flow)| now.saturating_sub(flow.last_ns) >= youngest);
        let mut known = HashMap::new();
        for (key, flow) in old {
            known.insert(key, flow);
            relatives(&key, &flow, &mut known, |key| flows.get(key)).map_err(read())?;
        }
        for key in expired(&known, timeouts, now) {
            // What has been used since it was read lives on.
            let still = flows.get(&key).map_err(read())?;
            if still.is_some_and(|flow| flow.last_ns == known[&key].last_ns)
                && flows.delete(&key).map_err(failed("delete from", map_name::CONNTRACK))?
            {
                done.forgotten += 1;
            }
        }
        Result::<(), Walk>::Ok(())
    })?;
    done.left = done.left.saturating_sub(done.forgotten);
    Ok(done)
}

/// A failure of the walk itself, or of what is done on the way.
struct Walk(DataplaneError);

impl From<std::io::Error> for Walk {
    fn from(source: std::io::Error) -> Self {
        Self(failed("read", map_name::CONNTRACK)(source))
    }
}

impl From<DataplaneError> for Walk {
    fn from(error: DataplaneError) -> Self {
        Self(error)
    }
}

impl From<Walk> for DataplaneError {
    fn from(walk: Walk) -> Self {
        walk.0
    }
}

/// No flow that has been used within this time is over, nanoseconds.
fn shortest(timeouts: &Timeouts) -> u64 {
    let Timeouts { opening, half_closed, closing, closed, udp, .. } = *timeouts;
    [opening, half_closed, closing, closed, udp].into_iter().min().unwrap_or(0).saturating_mul(1_000_000_000)
}

/// The other entries of a flow: each is found by what packets become, and all by that of the answers.
fn relatives<E>(
    key: &Tuple,
    flow: &Flow,
    known: &mut HashMap<Tuple, Flow>,
    mut get: impl FnMut(&Tuple) -> Result<Option<Flow>, E>,
) -> Result<(), E> {
    let mut find = |key: Tuple| -> Result<Option<Flow>, E> {
        if let Some(flow) = known.get(&key) {
            return Ok(Some(*flow));
        }
        let found = get(&key)?;
        known.extend(found.map(|flow| (key, flow)));
        Ok(found)
    };
    let answer = match flow.role {
        role if role == Role::Reply as u8 => *key,
        role if role == Role::Masquerade as u8 || role == Role::Plain as u8 => key.reversed(),
        role if role == Role::Unmasquerade as u8 => flow.to,
        _ => flow.to.reversed(),
    };
    let Some(reply) = find(answer)? else { return Ok(()) };
    find(reply.to.reversed())?;
    // Layout 3 did not tell halves of the way apart.
    for key in [answer.reversed().halfway(), answer.reversed()] {
        if let Some(masquerade) = find(key)? {
            find(masquerade.to.reversed())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_those_of_the_sysctls() {
        assert_eq!(timeouts(&Limits::default()), Timeouts::default());
        let text = b"net.netfilter.nf_conntrack_tcp_timeout_established = 86400\n\
                     net.netfilter.nf_conntrack_tcp_timeout_fin_wait = 120\n\
                     net.netfilter.nf_conntrack_tcp_timeout_close_wait = 3600\n\
                     net.netfilter.nf_conntrack_udp_timeout_stream = 300\n";
        let expected = Timeouts { tcp: 86_400, half_closed: 3600, udp_answered: 300, ..Timeouts::default() };
        assert_eq!(timeouts(&Limits::parse(text)), expected);
    }
}
