//! Whether a flow may go on where it goes: by the endpoints of the Service port that it was sent to.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use crate::inspect::kube::LiftedPort;
use crate::model::{Family, Protocol};

/// Service ports by where clients send to.
#[derive(Debug, Default)]
pub(super) struct Ports(HashMap<(SocketAddr, Protocol), Ends>);

#[derive(Debug, Default)]
struct Ends {
    serving: BTreeSet<SocketAddr>,
    present: BTreeSet<SocketAddr>,
}

fn keys(ports: &[LiftedPort]) -> impl Iterator<Item = (SocketAddr, Protocol)> {
    ports.iter().flat_map(|port| port.addresses.iter().map(|address| (*address, port.protocol)))
}

impl Ports {
    /// The latest state of these ports.
    pub(super) fn put(&mut self, ports: &[LiftedPort]) {
        for port in ports {
            for address in &port.addresses {
                let present = port.endpoints.iter().map(|e| e.addr).collect();
                let serving = port.endpoints.iter().filter(|e| e.serving).map(|e| e.addr).collect();
                self.0.insert((*address, port.protocol), Ends { serving, present });
            }
        }
    }

    /// Takes these ports out.
    pub(super) fn remove(&mut self, ports: &[LiftedPort]) {
        for key in keys(ports) {
            self.0.remove(&key);
        }
    }

    /// The port behind an address; a NodePort is behind the node's own addresses and no others.
    fn at(&self, sent_to: SocketAddr, protocol: Protocol, local: &BTreeSet<IpAddr>) -> Option<&Ends> {
        self.0.get(&(sent_to, protocol)).or_else(|| {
            let node_port = SocketAddr::new(Family::of(sent_to.ip()).unspecified(), sent_to.port());
            self.0.get(&(node_port, protocol)).filter(|_| local.contains(&sent_to.ip()))
        })
    }

    /// Whether a UDP flow in the kernel's conntrack leads to an endpoint that serves no more (or to none, begun when there
    /// was none), while there is one that does. As kube-proxy judges, but for NodePorts: kube-proxy looks at the port alone
    /// and ends flows to whatever host that happen to have its number.
    pub(super) fn is_stale_flow(
        &self,
        sent_to: SocketAddr,
        answers_from: SocketAddr,
        local: &BTreeSet<IpAddr>,
    ) -> bool {
        let ends = self.at(sent_to, Protocol::Udp, local);
        ends.is_some_and(|ends| !ends.serving.is_empty() && !ends.serving.contains(&answers_from))
    }

    /// Whether a socket is connected to a backend that has gone. A TCP connection lives as long as the endpoint is there in
    /// whatever condition; a UDP socket has no way to notice, so it is enough that the endpoint serves no more and another
    /// one does.
    pub(super) fn is_stale_socket(
        &self,
        protocol: Protocol,
        sent_to: SocketAddr,
        backend: SocketAddr,
        local: &BTreeSet<IpAddr>,
    ) -> bool {
        let Some(ends) = self.at(sent_to, protocol, local) else { return false };
        let replaced = protocol == Protocol::Udp && !ends.serving.is_empty() && !ends.serving.contains(&backend);
        replaced || !ends.present.contains(&backend)
    }
}

/// Whether one of the new ports of a Service has lost an endpoint, or has one that serves after there was none.
pub(super) fn disturbed(before: &[LiftedPort], after: &[LiftedPort]) -> bool {
    let lost = |new: &LiftedPort| {
        let old = before.iter().find(|old| {
            old.protocol == new.protocol && old.addresses.iter().any(|address| new.addresses.contains(address))
        });
        old.is_some_and(|old| {
            let serves = |port: &LiftedPort| port.endpoints.iter().any(|e| e.serving);
            let first = !serves(old) && serves(new);
            first
                || old
                    .endpoints
                    .iter()
                    .any(|e| !new.endpoints.iter().any(|n| n.addr == e.addr && n.serving >= e.serving))
        })
    };
    after.iter().any(lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::select::{Endpoint, Hint};

    fn port(protocol: Protocol, endpoints: &[(&str, bool)]) -> LiftedPort {
        let endpoint = |(addr, serving): &(&str, bool)| Endpoint {
            addr: addr.parse().expect("an address"),
            ready: *serving,
            serving: *serving,
            terminating: false,
            local: false,
            zone_hint: Hint::None,
            node_hint: Hint::None,
        };
        let addresses = ["10.96.0.10:53", "0.0.0.0:30053"].map(|a| a.parse().expect("an address")).to_vec();
        LiftedPort { addresses, protocol, endpoints: endpoints.iter().map(endpoint).collect() }
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn flows_to_endpoints_that_serve_no_more_are_stale() {
        let mut ports = Ports::default();
        ports.put(&[port(Protocol::Udp, &[("10.244.0.1:53", true), ("10.244.0.2:53", false)])]);
        let local = BTreeSet::from([IpAddr::from([192, 168, 0, 1])]);
        let stale = |to: &str, from: &str| ports.is_stale_flow(addr(to), addr(from), &local);
        assert!(!stale("10.96.0.10:53", "10.244.0.1:53"));
        assert!(stale("10.96.0.10:53", "10.244.0.2:53"));
        assert!(stale("10.96.0.10:53", "10.96.0.10:53"), "never translated");
        assert!(stale("192.168.0.1:30053", "10.244.0.9:53"));
        assert!(!stale("198.51.100.7:30053", "198.51.100.7:30053"), "another host's port of that number");
        ports.put(&[port(Protocol::Udp, &[("10.244.0.2:53", false)])]);
        assert!(
            !ports.is_stale_flow(addr("10.96.0.10:53"), addr("10.244.0.1:53"), &local),
            "nobody would take it over"
        );
    }

    #[test]
    fn a_tcp_connection_lives_as_long_as_its_endpoint_is_there() {
        let local = BTreeSet::new();
        let mut ports = Ports::default();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            ports.put(&[port(protocol, &[("10.244.0.1:53", true), ("10.244.0.2:53", false)])]);
        }
        let stale =
            |protocol, backend: &str| ports.is_stale_socket(protocol, addr("10.96.0.10:53"), addr(backend), &local);
        assert!(!stale(Protocol::Tcp, "10.244.0.2:53") && stale(Protocol::Udp, "10.244.0.2:53"));
        assert!(stale(Protocol::Tcp, "10.244.0.3:53") && stale(Protocol::Udp, "10.244.0.3:53"));
        assert!(!ports.is_stale_socket(Protocol::Tcp, addr("10.96.0.11:53"), addr("10.244.0.3:53"), &local));
    }

    #[test]
    fn only_a_loss_or_a_beginning_disturbs() {
        let of = |endpoints: &[(&str, bool)]| vec![port(Protocol::Udp, endpoints)];
        let (none, one) = (of(&[]), of(&[("10.244.0.1:53", true)]));
        let both = of(&[("10.244.0.1:53", true), ("10.244.0.2:53", true)]);
        let leaving = of(&[("10.244.0.1:53", false), ("10.244.0.2:53", true)]);
        assert!(!disturbed(&one, &one) && !disturbed(&one, &both));
        assert!(disturbed(&none, &one) && disturbed(&both, &one) && disturbed(&both, &leaving));
        assert!(!disturbed(&[], &one), "a new port has no flows");
    }
}
