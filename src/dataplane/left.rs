//! Flows of datagrams that the kernel's rules translate, and that stay theirs: at sockets and at devices.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use kpx_abi::{Flow, Role, Tuple, map_name};

use super::error::DataplaneError;
use super::maps::failed;
use super::{Dataplane, KernelFlow, now, reconcile};
use crate::failpoint;
use crate::inspect::conntrack::Entry;
use crate::model::Protocol;

impl Dataplane {
    /// Leaves the flows of these entries of the kernel's conntrack to the rules for as long as conntrack remembers them:
    /// those of datagrams that it translates, wherever their packets are met. Others are none of these. How many flows.
    ///
    /// `yield_time` is what [`Self::set_yield_time`] was told.
    pub fn leave_to_rules(&mut self, entries: &[Entry], yield_time: Duration) -> Result<usize, DataplaneError> {
        let translated = |e: &&Entry| e.service_protocol() == Some(Protocol::Udp) && e.is_to_backend();
        let entries: Vec<&Entry> = entries.iter().filter(translated).collect();
        let flows: Vec<KernelFlow> = entries.iter().map(|entry| kernel_flow(entry)).collect();
        self.yield_to(&flows)?;
        let now = now();
        for (entry, flow) in entries.iter().zip(&flows) {
            let key = tuple(entry.original.source, entry.original.destination, entry.protocol);
            // What conntrack remembers for less than the whole time has been silent for the rest.
            let last = now.saturating_sub(yield_time.saturating_sub(flow.expires_in));
            let left = Flow {
                last_ns: u64::try_from(last.as_nanos()).unwrap_or(u64::MAX),
                role: Role::Left as u8,
                ..Flow::default()
            };
            if self.maps.flows.get(&key).map_err(failed("read", map_name::CONNTRACK))?.is_none() {
                self.maps.flows.put(&key, &left).map_err(failed("write", map_name::CONNTRACK))?;
            }
        }
        failpoint::changed();
        Ok(flows.len())
    }

    /// Forgets which flows at devices are the rules' ([`Self::leave_to_rules`]), but for those of these entries: once the rules
    /// are gone, nobody would begin them anew.
    pub fn forget_left(&mut self, entries: &[Entry]) -> Result<(), DataplaneError> {
        let known: HashSet<Tuple> =
            entries.iter().map(|e| tuple(e.original.source, e.original.destination, e.protocol)).collect();
        for (key, flow) in self.flows()? {
            if flow.role == Role::Left as u8 && !known.contains(&key) {
                self.maps.flows.delete(&key).map_err(failed("delete from", map_name::CONNTRACK))?;
            }
        }
        Ok(())
    }
}

fn kernel_flow(entry: &Entry) -> KernelFlow {
    KernelFlow {
        frontend: entry.original.destination,
        source_port: entry.original.source.port(),
        expires_in: Duration::from_secs(entry.timeout.unwrap_or(0).into()),
    }
}

fn tuple(source: SocketAddr, destination: SocketAddr, proto: u8) -> Tuple {
    let ((src, sport), (dst, dport)) = (reconcile::endpoint(source), reconcile::endpoint(destination));
    Tuple { src, dst, sport, dport, proto, halfway: 0, pad: [0; 2] }
}
