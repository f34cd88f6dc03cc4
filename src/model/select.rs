//! Which endpoints kube-proxy uses for a Service port on one node. Pure; the rules differ by kube-proxy's version.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use super::{Backend, BackendState, NoBackends, Policy};

/// Version of a Kubernetes component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KubeVersion {
    /// Major version: 1.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
}

impl KubeVersion {
    /// The newest version whose kube-proxy kpx knows.
    pub const LATEST: Self = Self::v1(37);

    /// Version 1.`minor`.
    pub const fn v1(minor: u16) -> Self {
        Self { major: 1, minor }
    }
}

impl fmt::Display for KubeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}", self.major, self.minor)
    }
}

/// The text is no version such as `v1.36.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no version such as v1.36.2")]
pub struct NoVersion;

impl FromStr for KubeVersion {
    type Err = NoVersion;

    /// Reads `v1.36.2`, `1.36`, `v1.30.5-eks-1` and the like; everything after the minor number is left aside.
    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
        let mut number = || {
            let part = parts.next().ok_or(NoVersion)?;
            let digits = part.find(|c: char| !c.is_ascii_digit()).map_or(part, |end| &part[..end]);
            digits.parse::<u16>().map_err(|_| NoVersion)
        };
        Ok(Self { major: number()?, minor: number()? })
    }
}

/// When topology hints of endpoints are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintRule {
    /// Never.
    Never,
    /// If the Service's annotation says `Auto` or `auto` (1.23–1.26).
    AnnotationAuto,
    /// If the Service's annotation says anything but `Disabled` or `disabled` (1.27–1.30).
    AnnotationPresent,
    /// Whenever endpoints have them (1.31 and later).
    Always,
}

/// Which address kube-proxy takes for the node's own when it compares it with `loadBalancerSourceRanges`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeIpRule {
    /// `bindAddress`, even if that is unspecified (dual-stack kube-proxy up to 1.27; kubernetes/kubernetes#119524).
    BindAddress,
    /// The Node's first address; unspecified in the other family (1.28).
    PrimaryFamily,
    /// The Node's first address of each family (1.29 and later).
    EachFamily,
}

/// What differs between versions of kube-proxy in reading the same objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Semantics {
    /// Whether both ignore labels hide Services and EndpointSlices alike. From 1.36 `service-proxy-name` hides Services
    /// only and `headless` EndpointSlices only (kubernetes/kubernetes#126769).
    pub labels_hide_both_kinds: bool,
    /// Whether the Cluster and the Local list are computed apart (1.24 and later). Before, `internalTrafficPolicy: Local`
    /// narrowed the one list there was, for outside traffic too, unless `externalTrafficPolicy` was Local as well.
    pub separate_lists: bool,
    /// Whether pods keep their address on the way to an external IP under the Cluster policy (up to 1.23).
    pub external_ips_keep_pods: bool,
    /// Whether serving, terminating endpoints are used when none is ready (ProxyTerminatingEndpoints: beta in 1.26).
    pub terminating_fallback: bool,
    /// When zone hints are followed (TopologyAwareHints: on by default from 1.24).
    pub zone_hints: HintRule,
    /// Whether node hints go before zone hints (PreferSameTrafficDistribution: beta in 1.34).
    pub node_hints: bool,
    /// Whether `ipMode: Proxy` keeps a load-balancer IP from being served (LoadBalancerIPMode: beta in 1.30).
    pub lb_ip_mode: bool,
    /// Whether `externalTrafficPolicy` counts for type ClusterIP with externalIPs too.
    pub external_policy_of_external_ips: bool,
    /// Which address is the node's own.
    pub node_ip: NodeIpRule,
}

impl Semantics {
    /// What kube-proxy of this version does with these feature gates set.
    pub fn new(version: KubeVersion, gates: &BTreeMap<String, bool>) -> Self {
        let since = |minor| version >= KubeVersion::v1(minor);
        // A gate counts from the version that knows it until the one that locks it.
        let gate = |name: &str, alpha: u16, on: u16, locked: u16| {
            since(locked) || (since(alpha) && gates.get(name).copied().unwrap_or(since(on)))
        };
        let zone_hints = if !gate("TopologyAwareHints", 21, 24, 33) {
            HintRule::Never
        } else if gate("ServiceTrafficDistribution", 30, 31, 33) {
            HintRule::Always
        } else if since(27) {
            HintRule::AnnotationPresent
        } else {
            HintRule::AnnotationAuto
        };
        Self {
            labels_hide_both_kinds: !since(36),
            separate_lists: since(24),
            external_ips_keep_pods: !since(24),
            terminating_fallback: gate("ProxyTerminatingEndpoints", 22, 26, 28),
            zone_hints,
            node_hints: gate("PreferSameTrafficDistribution", 33, 34, 35),
            lb_ip_mode: gate("LoadBalancerIPMode", 29, 30, 32),
            external_policy_of_external_ips: since(24),
            node_ip: match version.minor {
                0..28 => NodeIpRule::BindAddress,
                28 => NodeIpRule::PrimaryFamily,
                _ => NodeIpRule::EachFamily,
            },
        }
    }

    /// Whether the hints of a Service's endpoints may be followed, given the values of its annotations
    /// `service.kubernetes.io/topology-aware-hints` and `service.kubernetes.io/topology-mode`.
    pub fn follows_hints(&self, aware_hints: Option<&str>, mode: Option<&str>) -> bool {
        match self.zone_hints {
            HintRule::Never => false,
            HintRule::AnnotationAuto => matches!(aware_hints, Some("Auto" | "auto")),
            HintRule::AnnotationPresent => !matches!(aware_hints.or(mode), None | Some("" | "Disabled" | "disabled")),
            HintRule::Always => true,
        }
    }
}

/// A hint of an endpoint, seen from this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hint {
    /// It has none.
    #[default]
    None,
    /// It names this node (or its zone).
    Here,
    /// It names others only.
    Elsewhere,
}

/// One endpoint of a Service port, in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address and port.
    pub addr: SocketAddr,
    /// Condition `ready`.
    pub ready: bool,
    /// Condition `serving`.
    pub serving: bool,
    /// Condition `terminating`.
    pub terminating: bool,
    /// Whether it runs on this node.
    pub local: bool,
    /// `hints.forZones`.
    pub zone_hint: Hint,
    /// `hints.forNodes`.
    pub node_hint: Hint,
}

impl Endpoint {
    const fn draining(&self) -> bool {
        !self.ready && self.serving && self.terminating
    }
}

/// What a Service port asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPolicy {
    /// `internalTrafficPolicy`.
    pub internal: Policy,
    /// `externalTrafficPolicy`, where it counts; Cluster otherwise.
    pub external: Policy,
    /// Whether the port can be reached by a NodePort, a load-balancer IP or an external IP.
    pub external_access: bool,
    /// [`Semantics::follows_hints`] of the Service.
    pub follows_hints: bool,
}

/// The lists of one Service port on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// For traffic under the Cluster policy; empty too where no traffic is.
    pub cluster: Vec<Backend>,
    /// For traffic under the Local policy; empty too where no traffic is.
    pub local: Vec<Backend>,
    /// Policy that internal traffic follows in effect.
    pub internal: Policy,
    /// Policy that external traffic follows in effect.
    pub external: Policy,
    /// Whether a usable endpoint exists on any node.
    pub anywhere: bool,
}

impl Selection {
    /// The list of a policy.
    pub fn list(&self, policy: Policy) -> &[Backend] {
        match policy {
            Policy::Cluster => &self.cluster,
            Policy::Local => &self.local,
        }
    }

    /// What traffic under `policy` meets if its list is empty; `None` if it is not.
    pub fn no_backends(&self, policy: Policy) -> Option<NoBackends> {
        match (self.list(policy).is_empty(), self.anywhere) {
            (false, _) => None,
            (true, true) => Some(NoBackends::Drop),
            (true, false) => Some(NoBackends::Reject),
        }
    }
}

/// Chooses the lists. `endpoints` has each address once; the lists are sorted by address.
pub fn select(endpoints: &[Endpoint], port: PortPolicy, semantics: Semantics) -> Selection {
    let mut selection = if semantics.separate_lists {
        separate(endpoints, port, semantics)
    } else {
        narrowed(endpoints, port, semantics)
    };
    selection.cluster.sort_unstable();
    selection.local.sort_unstable();
    selection
}

/// 1.24 and later.
fn separate(endpoints: &[Endpoint], port: PortPolicy, semantics: Semantics) -> Selection {
    let uses_cluster = port.internal == Policy::Cluster || port.external_access;
    let uses_local = port.internal == Policy::Local || (port.external == Policy::Local && port.external_access);
    let usable = |e: &Endpoint| e.ready || (semantics.terminating_fallback && e.draining());
    let mut out = Selection {
        internal: port.internal,
        external: port.external,
        anywhere: endpoints.iter().any(usable),
        ..Selection::default()
    };
    if uses_cluster {
        let topology = Topology::of(endpoints, port, semantics);
        out.cluster = ready(endpoints, |e| topology.allows(e));
        if out.cluster.is_empty() && semantics.terminating_fallback {
            out.cluster = draining(endpoints, |_| true);
        }
    }
    if uses_local {
        out.local = ready(endpoints, |e| e.local);
        if out.local.is_empty() && semantics.terminating_fallback {
            out.local = draining(endpoints, |e| e.local);
        }
    }
    out
}

/// Up to 1.23.
fn narrowed(endpoints: &[Endpoint], port: PortPolicy, semantics: Semantics) -> Selection {
    if port.external == Policy::Local {
        // The internal policy is not looked at, nor are hints; draining endpoints stand in on this node only.
        let drains = |e: &Endpoint| semantics.terminating_fallback && e.draining();
        let mut local = ready(endpoints, |e| e.local);
        if local.is_empty() && semantics.terminating_fallback {
            local = draining(endpoints, |e| e.local);
        }
        return Selection {
            cluster: ready(endpoints, |_| true),
            local,
            internal: Policy::Cluster,
            external: Policy::Local,
            anywhere: endpoints.iter().any(|e| e.ready || drains(e)),
        };
    }
    let list = if port.internal == Policy::Local {
        ready(endpoints, |e| e.local)
    } else {
        let topology = Topology::of(endpoints, port, semantics);
        ready(endpoints, |e| topology.allows(e))
    };
    let local = if port.internal == Policy::Local { list.clone() } else { Vec::new() };
    Selection { anywhere: !list.is_empty(), cluster: list, local, internal: port.internal, external: Policy::Cluster }
}

fn ready(endpoints: &[Endpoint], keep: impl Fn(&Endpoint) -> bool) -> Vec<Backend> {
    list(endpoints, BackendState::Ready, |e| e.ready && keep(e))
}

fn draining(endpoints: &[Endpoint], keep: impl Fn(&Endpoint) -> bool) -> Vec<Backend> {
    list(endpoints, BackendState::Terminating, |e| e.draining() && keep(e))
}

fn list(endpoints: &[Endpoint], state: BackendState, keep: impl Fn(&Endpoint) -> bool) -> Vec<Backend> {
    let backend = |e: &Endpoint| Backend {
        ip: e.addr.ip(),
        port: e.addr.port(),
        weight: 1,
        local: Some(e.local),
        state: Some(state),
    };
    endpoints.iter().filter(|e| keep(e)).map(backend).collect()
}

/// Which hints narrow the Cluster list. One ready endpoint without a hint switches them off for the whole port.
#[derive(Clone, Copy)]
enum Topology {
    Off,
    Node,
    Zone,
}

impl Topology {
    fn of(endpoints: &[Endpoint], port: PortPolicy, semantics: Semantics) -> Self {
        if !port.follows_hints {
            return Self::Off;
        }
        let usable = |hint: fn(&Endpoint) -> Hint| {
            let mut here = false;
            // Up to 1.23 endpoints that are not ready had a say too.
            for e in endpoints.iter().filter(|e| e.ready || !semantics.separate_lists) {
                match hint(e) {
                    Hint::None => return false,
                    Hint::Here => here = true,
                    Hint::Elsewhere => {}
                }
            }
            here
        };
        if semantics.node_hints && usable(|e| e.node_hint) {
            Self::Node
        } else if usable(|e| e.zone_hint) {
            Self::Zone
        } else {
            Self::Off
        }
    }

    fn allows(self, e: &Endpoint) -> bool {
        match self {
            Self::Off => true,
            Self::Node => e.node_hint == Hint::Here,
            Self::Zone => e.zone_hint == Hint::Here,
        }
    }
}
