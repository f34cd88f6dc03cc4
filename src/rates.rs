//! How much each Service and backend is used: two looks at what the programs count and keep, and what lies between them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use kpx_abi::Stats;

use crate::dataplane::{Dataplane, DataplaneError, Paths};
use crate::inspect::entry::{Flow, Frontends};
use crate::model::FrontendKey;

/// The kind of a flow's entry that there is one of for each flow: that of the client's packets to the frontend.
const FORWARD: &str = "forward";

/// A flow of the packet path, told from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct OneFlow {
    protocol: u8,
    client: SocketAddr,
    destination: SocketAddr,
    service: u32,
    backend: Option<SocketAddr>,
}

/// What there was at one moment.
#[derive(Clone, Debug)]
pub struct Look {
    at: Instant,
    frontends: Frontends,
    stats: BTreeMap<u32, Stats>,
    flows: HashSet<OneFlow>,
}

impl Look {
    /// Looks now.
    pub fn take(paths: &Paths) -> Result<Self, DataplaneError> {
        let dataplane = Dataplane::expect(paths)?;
        let (frontends, counters) = (dataplane.frontends()?, dataplane.counters()?);
        let by_key: BTreeMap<FrontendKey, Stats> = counters.services.iter().map(|s| (s.key, s.stats)).collect();
        let stats = frontends
            .iter()
            .filter_map(|(id, keys)| Some((*id, *keys.iter().find_map(|key| by_key.get(key))?)))
            .collect();
        Ok(Self { at: Instant::now(), frontends, stats, flows: forward(dataplane.conntrack()?) })
    }
}

fn forward(flows: Vec<Flow>) -> HashSet<OneFlow> {
    let own = flows.into_iter().filter(|flow| flow.kind == FORWARD);
    own.filter_map(|flow| {
        Some(OneFlow {
            protocol: flow.protocol,
            client: flow.source,
            destination: flow.destination,
            service: flow.service?,
            backend: flow.backend,
        })
    })
    .collect()
}

/// How one Service port, or one backend of it, is used.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// Number of the Service port in the maps.
    pub service: u32,
    /// Its frontends.
    pub frontends: Vec<FrontendKey>,
    /// The backend, where they are told apart.
    pub backend: Option<SocketAddr>,
    /// Flows that the packet path keeps now.
    pub flows: usize,
    /// Of these, those that were not there at the look before, per second.
    pub new_flows: f64,
    /// What the programs have counted for the Service port since its first frontend was written.
    pub total: Stats,
    /// Connections and flows that were begun, per second. Counted by Service port only.
    pub connects: f64,
    /// Datagrams of unconnected sockets, per second.
    pub datagrams: f64,
    /// Refusals for want of a backend, per second.
    pub refused: f64,
    /// Connections and datagrams that were left to the kernel's rules, or would have been translated in shadow mode, per second.
    pub left: f64,
}

/// What lies between two looks.
#[derive(Clone, Debug)]
pub struct Rates {
    /// How long.
    pub over: Duration,
    /// By Service port.
    pub services: Vec<Usage>,
    /// By Service port and backend: those that have flows.
    pub backends: Vec<Usage>,
}

impl Rates {
    /// Compares two looks.
    pub fn between(before: &Look, after: &Look) -> Self {
        let over = after.at.saturating_duration_since(before.at);
        let per_second = |n: u64| if over.is_zero() { 0.0 } else { n as f64 / over.as_secs_f64() };
        let usage = |service: u32, backend: Option<SocketAddr>, flows: Vec<&OneFlow>| {
            let (was, is) = (before.stats.get(&service), after.stats.get(&service).copied().unwrap_or_default());
            // A number that was given to another Service port begins anew; so does a port that was not there.
            let of = |count: fn(&Stats) -> u64| {
                let earlier = was.map_or(0, count);
                per_second(count(&is).checked_sub(earlier).unwrap_or_else(|| count(&is)))
            };
            Usage {
                service,
                frontends: after.frontends.get(&service).cloned().unwrap_or_default(),
                backend,
                flows: flows.len(),
                new_flows: per_second(flows.iter().filter(|flow| !before.flows.contains(flow)).count() as u64),
                total: is,
                connects: of(|stats| stats.connects),
                datagrams: of(|stats| stats.datagrams),
                refused: of(|stats| stats.refused),
                left: of(|stats| stats.passed + stats.shadow),
            }
        };
        let of_service = |id: u32| after.flows.iter().filter(move |flow| flow.service == id);
        let services: Vec<Usage> =
            after.frontends.keys().map(|id| usage(*id, None, of_service(*id).collect())).collect();
        let pairs: BTreeSet<(u32, SocketAddr)> =
            after.flows.iter().filter_map(|flow| Some((flow.service, flow.backend?))).collect();
        let backends = pairs
            .into_iter()
            .map(|(id, at)| usage(id, Some(at), of_service(id).filter(|flow| flow.backend == Some(at)).collect()))
            .collect();
        Self { over, services, backends }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Exposure, Protocol};

    fn look(at: Instant, connects: u64, clients: &[(&str, &str)]) -> Look {
        let key = FrontendKey {
            ip: "10.96.0.10".parse().expect("an address"),
            port: 80,
            protocol: Protocol::Tcp,
            exposure: Exposure::ClusterIp,
        };
        let flow = |(client, backend): &(&str, &str)| OneFlow {
            protocol: 6,
            client: client.parse().expect("an address"),
            destination: "10.96.0.10:80".parse().expect("an address"),
            service: 7,
            backend: Some(backend.parse().expect("an address")),
        };
        Look {
            at,
            frontends: Frontends::from([(7, vec![key])]),
            stats: BTreeMap::from([(7, Stats { connects, refused: 1, ..Stats::default() })]),
            flows: clients.iter().map(flow).collect(),
        }
    }

    #[test]
    fn rates_are_what_came_in_between() {
        let start = Instant::now();
        let before = look(start, 10, &[("10.0.0.1:1", "10.1.0.1:80"), ("10.0.0.1:2", "10.1.0.1:80")]);
        let later = [("10.0.0.1:2", "10.1.0.1:80"), ("10.0.0.1:3", "10.1.0.1:80"), ("10.0.0.1:4", "10.1.0.2:80")];
        let after = look(start + Duration::from_secs(2), 16, &later);
        let rates = Rates::between(&before, &after);
        let [service] = &rates.services[..] else { panic!("{rates:?}") };
        let rates_of = |usage: &Usage| [usage.connects, usage.refused, usage.new_flows].map(|rate| rate.to_string());
        assert_eq!((rates_of(service), service.flows), (["3", "0", "1"].map(str::to_owned), 3));
        assert_eq!(service.total.connects, 16);
        let backend = |at: &str, flows, new: &str| (Some(at.to_owned()), flows, new.to_owned());
        let found: Vec<_> = rates
            .backends
            .iter()
            .map(|b| (b.backend.map(|at| at.to_string()), b.flows, b.new_flows.to_string()))
            .collect();
        assert_eq!(found, [backend("10.1.0.1:80", 2, "0.5"), backend("10.1.0.2:80", 1, "0.5")]);
        // The number belongs to another Service port now.
        let anew = Rates::between(&look(start, 100, &[]), &look(start + Duration::from_secs(1), 4, &[]));
        assert_eq!(anew.services[0].connects.to_string(), "4");
        // No time, no rate.
        assert_eq!(Rates::between(&before, &look(start, 12, &[])).services[0].connects.to_string(), "0");
    }
}
