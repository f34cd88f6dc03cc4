//! Which client stays with which backend, as kube-proxy's dataplanes remember it: xt_recent, affinity sets of nftables, templates of
//! IPVS.

use std::net::{IpAddr, SocketAddr};

use crate::inspect::ipvs::Connection;
use crate::inspect::nftables::{ChainKind, ChainName, Key, Ruleset};
use crate::inspect::recent::{Recent, owners};
use crate::model::{Family, Frontend, ServiceName, ServiceTable};

/// A client that stays with its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The client.
    pub client: IpAddr,
    /// The Service; `None` where nothing tells.
    pub service: Option<ServiceName>,
    /// Name of its port.
    pub port_name: Option<String>,
    /// The backend; `None` for a list that no endpoint has any more.
    pub backend: Option<SocketAddr>,
    /// Seconds since the client's last new connection, where that is known.
    pub idle_seconds: Option<u64>,
    /// The list, set or virtual service that remembers.
    pub place: String,
}

/// From xt_recent, whose lists are named by the endpoints of `table`.
pub fn of_recent(recent: &Recent, table: &ServiceTable) -> Vec<Remembered> {
    let owners = owners(table);
    let one = |client: &crate::inspect::recent::Remembered| {
        let owner = owners.get(&client.list);
        Remembered {
            client: client.client,
            service: owner.and_then(|(frontend, _)| frontend.service.clone()),
            port_name: owner.and_then(|(frontend, _)| frontend.port_name.clone()),
            backend: owner.map(|(_, backend)| *backend),
            idle_seconds: client.idle_seconds,
            place: client.list.clone(),
        }
    };
    recent.clients.iter().map(one).collect()
}

/// From kube-proxy's nftables tables; `table` tells how long clients are remembered.
pub fn of_nftables(ruleset: &Ruleset, table: &ServiceTable) -> Vec<Remembered> {
    let mut found = Vec::new();
    for set in Family::BOTH.into_iter().filter_map(|family| ruleset.table(family)).flat_map(|table| &table.sets) {
        let (name, set) = set;
        let Some(of) = ChainName::parse(name).ok().filter(|of| of.kind == ChainKind::Affinity) else { continue };
        let same = |f: &&Frontend| {
            f.service.as_ref() == Some(&of.service) && f.port_name.as_deref().unwrap_or_default() == of.port_name
        };
        let seconds = table.frontends().iter().find(same).and_then(|f| f.affinity).map(u64::from);
        for element in &set.elements {
            let Key::Address(client) = element.key else { continue };
            found.push(Remembered {
                client,
                service: Some(of.service.clone()),
                port_name: Some(of.port_name.to_owned()).filter(|name| !name.is_empty()),
                backend: of.endpoint.map(SocketAddr::from),
                idle_seconds: seconds.zip(element.expires).map(|(all, left)| all.saturating_sub(left)),
                place: name.to_string(),
            });
        }
    }
    found
}

/// From IPVS, whose virtual services have the names and times that `table` gives.
pub fn of_ipvs(connections: &[Connection], table: &ServiceTable) -> Vec<Remembered> {
    let one = |connection: &Connection| {
        let at = connection.virtual_address;
        let frontends = |ip| table.at((ip, at.port(), connection.protocol)).first();
        // NodePorts stand in the table once for all addresses.
        let frontend = frontends(at.ip()).or_else(|| frontends(Family::of(at.ip()).unspecified()));
        let seconds = frontend.and_then(|f| f.affinity).map(u64::from);
        Remembered {
            client: connection.client.ip(),
            service: frontend.and_then(|f| f.service.clone()),
            port_name: frontend.and_then(|f| f.port_name.clone()),
            backend: Some(connection.server),
            idle_seconds: seconds.map(|all| all.saturating_sub(connection.expires.into())),
            place: format!("{at}/{}", connection.protocol),
        }
    };
    connections.iter().filter(|connection| connection.is_template()).map(one).collect()
}
