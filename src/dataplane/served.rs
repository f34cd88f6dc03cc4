//! Which frontends the socket hooks serve exactly as kube-proxy's rules do, and why the others stay with the rules.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::model::{Exposure, Family, Frontend, FrontendKey, Masquerade, Protocol, ServiceTable};

/// Most slots that a list may take: the sum of its weights.
const MAX_LIST: usize = 65_536;

/// Why a frontend stays with the kernel's rules.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotServed {
    /// Only ClusterIPs are served from sockets; other exposures take traffic that no socket of this node sends.
    #[error("{0} traffic stays with the rules")]
    Exposure(Exposure),
    /// The hooks see TCP and UDP.
    #[error("{0} is not translated at sockets")]
    Protocol(Protocol),
    /// Affinity is by client address in the rules; a socket has none yet when it connects.
    #[error("session affinity ({0} s) stays with the rules")]
    Affinity(u32),
    /// A socket's own address always reaches the backend.
    #[error("every client is masqueraded (masqueradeAll), which sockets cannot do")]
    MasqueradeAll,
    /// The rules let only some sources in.
    #[error("source ranges stay with the rules")]
    SourceRanges,
    /// A socket cannot change its address family.
    #[error("backend {0} is of another address family")]
    Family(std::net::SocketAddr),
    /// The list does not fit the map's fixed-width counters.
    #[error("{0} weighted backends are more than a list can hold")]
    TooMany(usize),
    /// Which Service the rules choose depends on their order.
    #[error("several Services claim {0}")]
    Conflict(FrontendKey),
}

/// Whether the socket hooks can serve this frontend just as kube-proxy's rules do, looked at alone.
///
/// Conflicts between frontends are seen by [`Served::of`] only.
pub fn served(frontend: &Frontend) -> Result<(), NotServed> {
    let key = frontend.key;
    if key.exposure != Exposure::ClusterIp {
        return Err(NotServed::Exposure(key.exposure));
    }
    if key.protocol == Protocol::Sctp {
        return Err(NotServed::Protocol(key.protocol));
    }
    if let Some(seconds) = frontend.affinity {
        return Err(NotServed::Affinity(seconds));
    }
    if frontend.masquerade == Masquerade::Always {
        return Err(NotServed::MasqueradeAll);
    }
    if !frontend.sources.is_empty() {
        return Err(NotServed::SourceRanges);
    }
    let list = frontend.own_list();
    if let Some(backend) = list.iter().find(|b| Family::of(b.ip) != Family::of(key.ip)) {
        return Err(NotServed::Family(backend.addr()));
    }
    let slots = list.iter().map(|b| usize::from(b.weight)).sum();
    if slots > MAX_LIST {
        return Err(NotServed::TooMany(slots));
    }
    Ok(())
}

/// A table divided into what the socket hooks serve and what stays with the rules.
#[derive(Clone, Debug)]
pub struct Served {
    /// The frontends served, with the facts of the whole table. Health checks are not the hooks' business.
    pub table: ServiceTable,
    /// The others with the reason, in the order of the table.
    pub others: Vec<(Frontend, NotServed)>,
}

impl Served {
    /// Divides a table.
    pub fn of(table: &ServiceTable) -> Self {
        let address = |f: &Frontend| (f.key.ip, f.key.port, f.key.protocol);
        let contested: BTreeSet<_> = table.conflicts().iter().map(|c| address(c.frontends[0])).collect();
        let mut kept = Vec::new();
        let mut others = Vec::new();
        for frontend in table.frontends() {
            let verdict = served(frontend).and_then(|()| {
                if contested.contains(&address(frontend)) { Err(NotServed::Conflict(frontend.key)) } else { Ok(()) }
            });
            match verdict {
                Ok(()) => kept.push(frontend.clone()),
                Err(reason) => others.push((frontend.clone(), reason)),
            }
        }
        Self { table: ServiceTable::new(kept, table.v4.clone(), table.v6.clone()), others }
    }
}
