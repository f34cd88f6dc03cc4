//! What of connection tracking the checks judge, without the entries themselves.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::inspect::conntrack::{Carried, Census, Entry};
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
    /// Entries by NodePort that were asked for on an address of loopback.
    pub localhost: BTreeMap<(u16, Protocol), u64>,
}

/// [`Flows`] while the entries are read.
pub(super) struct Counter<'t> {
    census: Census<'t>,
    node_ports: BTreeMap<(u16, Protocol), u64>,
}

impl Flows {
    /// Counts entries by the Services of a table.
    pub(super) fn counter(table: &ServiceTable) -> Counter<'_> {
        let node_ports = table.frontends().iter().filter(|f| f.key.exposure == Exposure::NodePort);
        Counter {
            census: Census::new(table),
            node_ports: node_ports.map(|f| ((f.key.port, f.key.protocol), 0)).collect(),
        }
    }
}

impl Counter<'_> {
    pub(super) fn add(&mut self, entry: &Entry) {
        self.census.add(entry);
        let asked = entry.original.destination;
        if asked.ip().is_loopback()
            && let Some(protocol) = entry.service_protocol()
            && let Some(count) = self.node_ports.get_mut(&(asked.port(), protocol))
        {
            *count += 1;
        }
    }

    pub(super) fn finish(mut self) -> Flows {
        let mut by_service: BTreeMap<String, u64> = BTreeMap::new();
        for count in self.census.services() {
            *by_service.entry(count.frontend.display_name()).or_default() += count.open;
        }
        let mut busiest: Vec<_> = by_service.into_iter().filter(|(_, open)| *open > 0).collect();
        busiest.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let (stuck, stuck_count) = self.census.stuck_flows();
        self.node_ports.retain(|_, count| *count > 0);
        Flows {
            total: self.census.total(),
            carried: self.census.carried(),
            busiest,
            stuck: stuck.iter().map(|flow| (flow.frontend.display_name(), flow.client, flow.backend)).collect(),
            stuck_count,
            localhost: self.node_ports,
        }
    }
}
