//! A table's frontends by Service port, which is how kube-proxy writes them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::inspect::iptables::chain_hash;
use crate::model::{Backend, Exposure, Family, Frontend, NoBackends, Policy, Protocol, ServiceTable};

/// One Service port with all its frontends of one family.
pub(super) struct Port<'t> {
    /// `namespace/name:port`, or `namespace/name`.
    pub(super) name: String,
    pub(super) protocol: Protocol,
    pub(super) frontends: Vec<&'t Frontend>,
    /// Chains' common suffix.
    pub(super) hash: String,
}

impl Port<'_> {
    pub(super) fn at(&self, exposure: Exposure) -> impl Iterator<Item = &Frontend> {
        self.frontends.iter().copied().filter(move |frontend| frontend.key.exposure == exposure)
    }

    pub(super) fn external(&self) -> bool {
        self.frontends.iter().any(|frontend| frontend.key.exposure.is_external())
    }

    /// A list, from whichever frontend has it.
    pub(super) fn list(&self, policy: Policy) -> &[Backend] {
        let of = |frontend: &&Frontend| !list_of(frontend, policy).is_empty();
        self.frontends.iter().find(|frontend| of(frontend)).map_or(&[], |frontend| list_of(frontend, policy))
    }

    /// Whether there is an endpoint anywhere, used on this node or not.
    pub(super) fn has_endpoints(&self) -> bool {
        !self.frontends.iter().any(|frontend| frontend.no_backends == Some(NoBackends::Reject))
    }

    pub(super) fn policy(&self, external: bool) -> Policy {
        self.frontends
            .first()
            .map_or(Policy::Cluster, |first| if external { first.external_policy } else { first.internal_policy })
    }

    /// Whether traffic under a policy has a backend.
    pub(super) fn served(&self, policy: Policy) -> bool {
        self.has_endpoints() && (policy == Policy::Cluster || !self.list(Policy::Local).is_empty())
    }

    /// The chain of a list.
    pub(super) fn chain(&self, policy: Policy) -> String {
        let kind = if policy == Policy::Cluster { "SVC" } else { "SVL" };
        format!("KUBE-{kind}-{}", self.hash)
    }

    /// The chain of an endpoint.
    pub(super) fn endpoint_chain(&self, endpoint: &SocketAddr) -> String {
        format!("KUBE-SEP-{}", hash(&[&self.name, self.protocol.lower(), &endpoint.to_string()]))
    }

    pub(super) fn affinity(&self) -> Option<u32> {
        self.frontends.iter().find_map(|frontend| frontend.affinity)
    }
}

const fn list_of(frontend: &Frontend, policy: Policy) -> &Vec<Backend> {
    match policy {
        Policy::Cluster => &frontend.cluster,
        Policy::Local => &frontend.local,
    }
}

/// The Service ports of one family, by name and protocol.
pub(super) fn ports(table: &ServiceTable, family: Family) -> Vec<Port<'_>> {
    let mut ports: BTreeMap<(String, Protocol), Vec<&Frontend>> = BTreeMap::new();
    for frontend in table.frontends() {
        if Family::of(frontend.key.ip) == family && frontend.service.is_some() {
            ports.entry((frontend.display_name(), frontend.key.protocol)).or_default().push(frontend);
        }
    }
    let port = |((name, protocol), frontends): ((String, Protocol), _)| {
        let hash = hash(&[&name, protocol.lower()]);
        Port { name, protocol, frontends, hash }
    };
    ports.into_iter().map(port).collect()
}

fn hash(parts: &[&str]) -> String {
    let parts: Vec<_> = parts.iter().map(|part| part.as_bytes()).collect();
    chain_hash(&parts).iter().map(|byte| char::from(*byte)).collect()
}
