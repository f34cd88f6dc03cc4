//! The stable JSON of a frontend: the fields scripts may rely on.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::{Backend, BackendState, Exposure, Frontend, Masquerade, NoBackends, Policy, Protocol};

/// One item of `kpx inspect services -o json`.
#[derive(Debug, Serialize)]
pub struct FrontendView {
    /// `namespace/name`; null where the source cannot know.
    pub service: Option<String>,
    /// Name of the Service port; null where it has none or the source cannot know.
    pub port_name: Option<String>,
    /// ClusterIP, NodePort, LoadBalancer or ExternalIP.
    pub kind: Exposure,
    /// Destination address; `0.0.0.0` or `::` for a NodePort, which is served on addresses of the node.
    pub ip: IpAddr,
    /// Destination port.
    pub port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The list for the Cluster policy.
    pub backends: Vec<BackendView>,
    /// The list used where a Local policy applies.
    pub local_backends: Vec<BackendView>,
    /// `internalTrafficPolicy`.
    pub internal_traffic_policy: Policy,
    /// `externalTrafficPolicy`.
    pub external_traffic_policy: Policy,
    /// ClientIP affinity in seconds, or null.
    pub affinity_seconds: Option<u32>,
    /// Source ranges let in; empty: all.
    pub source_ranges: Vec<IpNet>,
    /// always, off-cluster or never.
    pub masquerade: Masquerade,
    /// reject, drop, or null when there are backends.
    pub no_backends: Option<NoBackends>,
    /// Where it was read.
    pub from: String,
}

/// One backend in the JSON of a frontend.
#[derive(Debug, Serialize)]
pub struct BackendView {
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// Whether it runs on this node; null where the source cannot know.
    pub local: Option<bool>,
    /// ready or terminating; null where the source cannot know.
    pub state: Option<BackendState>,
    /// Relative share of new connections.
    pub weight: u16,
}

impl From<&Backend> for BackendView {
    fn from(b: &Backend) -> Self {
        Self { ip: b.ip, port: b.port, local: b.local, state: b.state, weight: b.weight }
    }
}

impl From<&Frontend> for FrontendView {
    fn from(f: &Frontend) -> Self {
        Self {
            service: f.service.as_ref().map(ToString::to_string),
            port_name: f.port_name.clone(),
            kind: f.key.exposure,
            ip: f.key.ip,
            port: f.key.port,
            protocol: f.key.protocol,
            backends: f.cluster.iter().map(Into::into).collect(),
            local_backends: f.local.iter().map(Into::into).collect(),
            internal_traffic_policy: f.internal_policy,
            external_traffic_policy: f.external_policy,
            affinity_seconds: f.affinity,
            source_ranges: f.sources.clone(),
            masquerade: f.masquerade,
            no_backends: f.no_backends,
            from: f.origin.to_string(),
        }
    }
}
