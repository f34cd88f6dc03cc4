//! What the cleaner judges by: the endpoints of the Services that it is to look at, never older than the maps.
//!
//! The worker puts every change of such a Service in here *before* it writes the maps, and the cleaner asks about a flow
//! *after* the kernel has told it of that. So whatever backend the maps have given to a flow, its endpoint is in here, unless
//! it has gone since.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::ports::Ports;
use crate::inspect::kube::LiftedPort;
use crate::model::{Protocol, ServiceName};

/// The Services to look at, shared between the worker, which knows their endpoints, and the cleaner.
#[derive(Debug, Default)]
pub(super) struct Watched {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    services: BTreeMap<ServiceName, Service>,
    ports: Ports,
    /// How often Services were disturbed.
    times: u64,
}

#[derive(Debug)]
struct Service {
    ports: Vec<LiftedPort>,
    /// When it was disturbed last, in [`State::times`].
    disturbed: u64,
}

/// One look through flows and sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// It answers for all that was disturbed until then.
    until: u64,
    protocols: BTreeSet<Protocol>,
}

impl Look {
    /// Whether flows of this protocol have to be looked at.
    pub(super) fn concerns(&self, protocol: Protocol) -> bool {
        self.protocols.contains(&protocol)
    }
}

impl State {
    fn put(&mut self, name: &ServiceName, ports: &[LiftedPort], disturbed: u64) {
        self.remove(name);
        if !ports.is_empty() {
            self.ports.put(ports);
            self.services.insert(name.clone(), Service { ports: ports.to_vec(), disturbed });
        }
    }

    fn remove(&mut self, name: &ServiceName) {
        if let Some(service) = self.services.remove(name) {
            self.ports.remove(&service.ports);
        }
    }
}

impl Watched {
    fn state(&self) -> MutexGuard<'_, State> {
        // A Service that is half put in is not judged, and comes again with its next change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These Services have these ports now, and the maps do not have that yet.
    pub(super) fn renew<'a>(&self, services: impl IntoIterator<Item = (&'a ServiceName, &'a [LiftedPort])>) {
        let mut state = self.state();
        for (name, ports) in services {
            if let Some(disturbed) = state.services.get(name).map(|service| service.disturbed) {
                state.put(name, ports, disturbed);
            }
        }
    }

    /// The maps have these Services so that flows of them may lead to where nobody serves any more.
    pub(super) fn disturb<'a>(&self, services: impl IntoIterator<Item = (&'a ServiceName, &'a [LiftedPort])>) {
        let mut state = self.state();
        state.times += 1;
        let times = state.times;
        for (name, ports) in services {
            state.put(name, ports, times);
        }
        self.news.notify_all();
    }

    /// Waits until there is something to look at, and then for some more of it to come.
    pub(super) fn wait(&self, gather: Duration) -> Look {
        let state = self.state();
        drop(self.news.wait_while(state, |state| state.services.is_empty()).unwrap_or_else(PoisonError::into_inner));
        std::thread::sleep(gather);
        self.look()
    }

    /// All that there is to look at now.
    pub(super) fn look(&self) -> Look {
        let state = self.state();
        let ports = state.services.values().flat_map(|service| &service.ports);
        Look { until: state.times, protocols: ports.map(|port| port.protocol).collect() }
    }

    /// A look came through: what was disturbed before it began needs no other.
    pub(super) fn looked(&self, look: &Look) {
        let mut state = self.state();
        let done: Vec<ServiceName> = state
            .services
            .iter()
            .filter(|(_, service)| service.disturbed <= look.until)
            .map(|(name, _)| name.clone())
            .collect();
        for name in &done {
            state.remove(name);
        }
    }

    /// See [`Ports::is_stale_flow`].
    pub(super) fn is_stale_flow(
        &self,
        sent_to: SocketAddr,
        answers_from: SocketAddr,
        local: &BTreeSet<IpAddr>,
    ) -> bool {
        self.state().ports.is_stale_flow(sent_to, answers_from, local)
    }

    /// See [`Ports::is_stale_socket`].
    pub(super) fn is_stale_socket(
        &self,
        protocol: Protocol,
        sent_to: SocketAddr,
        backend: SocketAddr,
        local: &BTreeSet<IpAddr>,
    ) -> bool {
        self.state().ports.is_stale_socket(protocol, sent_to, backend, local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::select::{Endpoint, Hint};

    const BOTH: [&str; 2] = ["10.244.0.1:80", "10.244.0.2:80"];

    fn ports(endpoints: &[&str]) -> Vec<LiftedPort> {
        let endpoint = |addr: &&str| Endpoint {
            addr: addr.parse().expect("an address"),
            ready: true,
            serving: true,
            terminating: false,
            local: false,
            zone_hint: Hint::None,
            node_hint: Hint::None,
        };
        let addresses = vec!["10.96.0.10:80".parse().expect("an address")];
        vec![LiftedPort { addresses, protocol: Protocol::Tcp, endpoints: endpoints.iter().map(endpoint).collect() }]
    }

    fn name() -> ServiceName {
        ServiceName { namespace: "ns".to_owned(), name: "web".to_owned() }
    }

    fn is_stale(watched: &Watched, backend: &str) -> bool {
        let addr = |text: &str| text.parse().expect("an address");
        watched.is_stale_socket(Protocol::Tcp, addr("10.96.0.10:80"), addr(backend), &BTreeSet::new())
    }

    /// The maps gain a backend while a look is under way, and a socket is connected to it at once.
    #[test]
    fn an_endpoint_that_comes_during_a_look_is_known() {
        let (watched, name) = (Watched::default(), name());
        watched.disturb([(&name, &ports(&BOTH[..1])[..])]);
        let look = watched.wait(Duration::ZERO);
        assert!(look.concerns(Protocol::Tcp) && !look.concerns(Protocol::Udp));
        assert!(is_stale(&watched, BOTH[1]));
        watched.renew([(&name, &ports(&BOTH)[..])]);
        assert!(!is_stale(&watched, BOTH[0]) && !is_stale(&watched, BOTH[1]));
        // A Service that is gone has nobody to judge by.
        watched.renew([(&name, &[][..])]);
        assert!(!is_stale(&watched, BOTH[0]) && watched.look().protocols.is_empty());
    }

    #[test]
    fn a_look_answers_for_what_was_before_it() {
        let (watched, name) = (Watched::default(), name());
        watched.disturb([(&name, &ports(&BOTH)[..])]);
        let first = watched.look();
        watched.disturb([(&name, &ports(&BOTH[1..])[..])]);
        watched.looked(&first);
        assert!(is_stale(&watched, BOTH[0]), "the second time is still to be looked at");
        let second = watched.look();
        // Only what is watched is kept up.
        watched.renew([(&name, &ports(&BOTH[..1])[..])]);
        watched.looked(&second);
        watched.renew([(&name, &ports(&BOTH[..1])[..])]);
        assert!(!is_stale(&watched, BOTH[1]) && watched.look().protocols.is_empty());
    }
}
