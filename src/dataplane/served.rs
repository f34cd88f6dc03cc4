//! Which frontends the dataplane serves exactly as kube-proxy's rules do, and why the others stay with the rules.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::model::{Family, Frontend, FrontendKey, Protocol, ServiceTable};

/// Most slots that a list may take: the sum of its weights.
const MAX_LIST: usize = 65_536;

/// Why a frontend stays with the kernel's rules.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotServed {
    /// No hook sees such sockets.
    #[error("{0} is not translated at sockets")]
    Protocol(Protocol),
    /// Translation does not change the address family.
    #[error("backend {0} is of another address family")]
    Family(std::net::SocketAddr),
    /// The list does not fit the map's fixed-width counters.
    #[error("{0} weighted backends are more than a list can hold")]
    TooMany(usize),
    /// Which Service the rules choose depends on their order.
    #[error("several Services claim {0}")]
    Conflict(FrontendKey),
}

/// Whether the dataplane can serve this frontend just as kube-proxy's rules do, looked at alone.
///
/// Conflicts between frontends are seen by [`Served::of`] only.
pub fn served(frontend: &Frontend) -> Result<(), NotServed> {
    let lists = || frontend.cluster.iter().chain(&frontend.local);
    if let Some(backend) = lists().find(|b| Family::of(b.ip) != Family::of(frontend.key.ip)) {
        return Err(NotServed::Family(backend.addr()));
    }
    for list in [&frontend.cluster, &frontend.local] {
        let slots = list.iter().map(|b| usize::from(b.weight)).sum();
        if slots > MAX_LIST {
            return Err(NotServed::TooMany(slots));
        }
    }
    Ok(())
}

/// Whether the socket hooks alone can: they see TCP and UDP.
pub fn served_at_sockets(frontend: &Frontend) -> Result<(), NotServed> {
    match frontend.key.protocol {
        Protocol::Sctp => Err(NotServed::Protocol(Protocol::Sctp)),
        Protocol::Tcp | Protocol::Udp => served(frontend),
    }
}

/// A table divided into what the dataplane serves and what stays with the rules.
#[derive(Clone, Debug)]
pub struct Served {
    /// The frontends served, with the facts of the whole table. Health checks are not the dataplane's business.
    pub table: ServiceTable,
    /// The others with the reason, in the order of the table.
    pub others: Vec<(Frontend, NotServed)>,
}

impl Served {
    /// Divides a table.
    pub fn of(table: &ServiceTable) -> Self {
        Self::divide(table, served)
    }

    /// Divides a table where there are the socket hooks only.
    pub fn at_sockets(table: &ServiceTable) -> Self {
        Self::divide(table, served_at_sockets)
    }

    fn divide(table: &ServiceTable, served: fn(&Frontend) -> Result<(), NotServed>) -> Self {
        let contested: BTreeSet<_> = table.conflicts().iter().map(|c| c.frontends[0].key.address()).collect();
        let mut kept = Vec::new();
        let mut others = Vec::new();
        for frontend in table.frontends() {
            let verdict = served(frontend).and_then(|()| {
                if contested.contains(&frontend.key.address()) {
                    Err(NotServed::Conflict(frontend.key))
                } else {
                    Ok(())
                }
            });
            match verdict {
                Ok(()) => kept.push(frontend.clone()),
                Err(reason) => others.push((frontend.clone(), reason)),
            }
        }
        Self { table: ServiceTable::new(kept, table.v4.clone(), table.v6.clone()), others }
    }
}
