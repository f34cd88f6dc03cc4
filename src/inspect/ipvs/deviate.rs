//! What becomes of a table in IPVS mode, whose kube-proxy does not do all that the API asks for.

use crate::model::{Frontend, Masquerade, NoBackends, NodePortScope, Policy, ServiceTable};

/// The table as kube-proxy in IPVS mode serves it (`pkg/proxy/ipvs/proxier.go`, syncEndpoint; kube-proxy 1.36).
///
/// A virtual service has one list of servers for all traffic. Under a Local policy it is the node's own endpoints, for pods and
/// the node itself, too; where the node has none, it is those of the Cluster policy, so nothing is ever dropped. The client's
/// address is kept under `externalTrafficPolicy: Local` from wherever it comes. Loopback never serves NodePorts.
#[must_use]
pub fn as_ipvs(table: &ServiceTable) -> ServiceTable {
    let frontends = table.frontends().iter().map(frontend).collect();
    let facts = |facts: &crate::model::NodeFacts| {
        let mut facts = facts.clone();
        if let NodePortScope::All { loopback } = &mut facts.node_ports {
            *loopback = false;
        }
        facts
    };
    let mut out = ServiceTable::new(frontends, facts(&table.v4), facts(&table.v6));
    out.health_checks.clone_from(&table.health_checks);
    out
}

fn frontend(f: &Frontend) -> Frontend {
    let own = f.own_list();
    let cluster = if own.is_empty() { f.cluster.clone() } else { own.to_vec() };
    let keeps_client = f.key.exposure.is_external() && f.external_policy == Policy::Local;
    Frontend {
        no_backends: cluster.is_empty().then_some(NoBackends::Reject),
        cluster,
        local: Vec::new(),
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        masquerade: if keeps_client { Masquerade::Never } else { f.masquerade },
        ..f.clone()
    }
}
