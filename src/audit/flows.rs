//! What of connection tracking the checks judge, without the entries themselves.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::check::Skip;
use crate::capture::Node;
use crate::inspect::conntrack::{self, Carried, Census, Entry};
use crate::model::{Exposure, Protocol, ServiceTable};

/// Flows counted.
#[derive(Clone, Debug, Default)]
pub struct Flows {
    /// Entries.
    pub total: u64,
    /// Entries of Services that somebody still uses.
    pub carried: Carried,
    /// Services with the most of those: name and number, the most first.
    pub busiest: Vec<(String, u64)>,
    /// UDP flows that go on to backends which no list has: Service, client, backend; the first thousand.
    pub stuck: Vec<(String, SocketAddr, SocketAddr)>,
    /// How many such flows there are.
    pub stuck_count: u64,
    /// Entries by NodePort and the address that it was asked for on: those on loopback, and those that were translated.
    pub node_ports: BTreeMap<(u16, Protocol), BTreeMap<IpAddr, u64>>,
}

/// [`Flows`] while the entries are read.
struct Counter<'t> {
    census: Census<'t>,
    node_ports: BTreeMap<(u16, Protocol), BTreeMap<IpAddr, u64>>,
}

/// Most addresses that are told apart for one NodePort: more than a node has.
const MOST_ADDRESSES: usize = 1000;

impl Flows {
    /// Reads the flows of a node's connection tracking and counts them by the Services of a table.
    pub fn read(node: &Node, table: &ServiceTable) -> Result<Self, Skip> {
        let mut flows = Self::counter(table);
        conntrack::read_node(node, |entry| flows.add(entry)).map_err(|e| Skip::because(&e))?;
        Ok(flows.finish())
    }

    /// Counts entries by the Services of a table.
    fn counter(table: &ServiceTable) -> Counter<'_> {
        let node_ports = table.frontends().iter().filter(|f| f.key.exposure == Exposure::NodePort);
        Counter {
            census: Census::new(table),
            node_ports: node_ports.map(|f| ((f.key.port, f.key.protocol), BTreeMap::new())).collect(),
        }
    }
}

impl Counter<'_> {
    fn add(&mut self, entry: &Entry) {
        self.census.add(entry);
        let asked = entry.original.destination;
        // Others have ports with these numbers, too: what goes there is translated by nobody.
        if (asked.ip().is_loopback() || entry.reply.source != asked)
            && let Some(protocol) = entry.service_protocol()
            && let Some(by_address) = self.node_ports.get_mut(&(asked.port(), protocol))
            && (by_address.len() < MOST_ADDRESSES || by_address.contains_key(&asked.ip()))
        {
            *by_address.entry(asked.ip()).or_default() += 1;
        }
    }

    fn finish(mut self) -> Flows {
        let mut by_service: BTreeMap<String, u64> = BTreeMap::new();
        for count in self.census.services() {
            *by_service.entry(count.frontend.display_name()).or_default() += count.open;
        }
        let mut busiest: Vec<_> = by_service.into_iter().filter(|(_, open)| *open > 0).collect();
        busiest.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let (stuck, stuck_count) = self.census.stuck_flows();
        self.node_ports.retain(|_, by_address| !by_address.is_empty());
        Flows {
            total: self.census.total(),
            carried: self.census.carried(),
            busiest,
            stuck: stuck.iter().map(|flow| (flow.frontend.display_name(), flow.client, flow.backend)).collect(),
            stuck_count,
            node_ports: self.node_ports,
        }
    }
}
