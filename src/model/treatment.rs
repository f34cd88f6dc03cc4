//! What a new connection meets: the unit of a table's equality.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::{Backend, Detector, Frontend, Masquerade, NoBackends, Policy};

/// Where a packet comes from, as far as kube-proxy treats it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TrafficSource {
    /// From outside the node and the cluster.
    Outside,
    /// From a pod, as the [`Detector`] sees it.
    Pod,
    /// From a socket of the node itself.
    Node,
}

impl TrafficSource {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Outside, Self::Pod, Self::Node];
}

/// What happens to a new connection from one [`TrafficSource`]: the unit of a table's equality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Treatment {
    /// Backends it may reach, each once, sorted; weights in lowest terms.
    pub backends: Vec<(SocketAddr, u16)>,
    /// What happens if there is none; `None` when there are backends.
    pub no_backends: Option<NoBackends>,
    /// Whether the backend sees the node's address instead of the client's.
    pub masquerade: bool,
    /// ClientIP affinity, seconds.
    pub affinity: Option<u32>,
    /// Source addresses let in, as the fewest networks that cover them; empty: all.
    pub sources: Vec<IpNet>,
}

impl Frontend {
    /// What a new connection from `source` meets, given the node's way to recognise pods.
    ///
    /// Rules of kube-proxy, Kubernetes 1.36 (`pkg/proxy/iptables`): with externalTrafficPolicy Local, pods and the node
    /// itself use the Cluster list, and only the node's own traffic is masqueraded; without a detector pods count as
    /// outside.
    pub fn treatment(&self, source: TrafficSource, detector: &Detector) -> Treatment {
        let source = match source {
            TrafficSource::Pod if *detector == Detector::None => TrafficSource::Outside,
            other => other,
        };
        let local_external = self.key.exposure.is_external() && self.external_policy == Policy::Local;
        let short_circuit = local_external && source != TrafficSource::Outside;
        let list = if short_circuit { &self.cluster[..] } else { self.own_list() };
        let no_backends = match list.iter().all(|b| b.weight == 0) {
            false => None,
            true if short_circuit => Some(NoBackends::Reject),
            true => Some(self.no_backends.unwrap_or(NoBackends::Reject)),
        };
        let masquerade = match self.masquerade {
            Masquerade::Always => true,
            // Without a way to recognise pods kube-proxy writes no rule for the others either.
            Masquerade::OffCluster => source != TrafficSource::Pod && *detector != Detector::None,
            Masquerade::Never => local_external && source == TrafficSource::Node,
        };
        Treatment {
            // Whether a refused packet would have been masqueraded is nothing anybody can see.
            masquerade: masquerade && no_backends.is_none(),
            affinity: if no_backends.is_none() { self.affinity } else { None },
            sources: if no_backends.is_none() { covered(&self.sources) } else { Vec::new() },
            backends: shares(list),
            no_backends,
        }
    }
}

/// Backends with their share of new connections, in the one form equal shares have.
fn shares(list: &[Backend]) -> Vec<(SocketAddr, u16)> {
    let mut out: Vec<_> = list.iter().filter(|b| b.weight != 0).map(|b| (b.addr(), b.weight)).collect();
    out.sort_unstable();
    out.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 = kept.1.saturating_add(next.1);
        }
        same
    });
    let divisor = out.iter().fold(0, |divisor, (_, weight)| gcd(divisor, *weight));
    if divisor > 1 {
        for (_, weight) in &mut out {
            *weight /= divisor;
        }
    }
    out
}

const fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The fewest networks that cover the same addresses; none where every address is covered.
fn covered(sources: &[IpNet]) -> Vec<IpNet> {
    if sources.is_empty() {
        return Vec::new();
    }
    let nets = IpNet::aggregate(&sources.to_vec());
    if nets.iter().any(|net| net.prefix_len() == 0) { Vec::new() } else { nets }
}
