//! API objects → ServiceTable of one node, as kube-proxy would program it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::endpoints::{self, SliceIndex};
use super::notice::Notice;
use super::objects::{Objects, names};
use super::place::Place;
use super::text::{parse_ip, parse_net};
use crate::model::select::{Endpoint, PortPolicy, Selection, select};
use crate::model::{
    BackendSelection, Detector, Exposure, Family, ForwardingMode, Frontend, FrontendKey, Masquerade, Origin, Policy,
    Protocol, Semantics, ServiceName, ServiceTable,
};

/// A field of an object that has a value the API server would not have let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name}: field {field}: {reason}")]
pub struct FieldFault {
    /// Kind.
    pub kind: &'static str,
    /// `namespace/name`.
    pub name: String,
    /// JSON path inside the object.
    pub field: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FieldFault {
    fn of(kind: &'static str, meta: &ObjectMeta, field: String, reason: &'static str) -> Self {
        let (namespace, name) = names(meta);
        Self { kind, name: format!("{namespace}/{name}"), field, reason }
    }

    pub(super) fn slice(slice: &EndpointSlice, field: String, reason: &'static str) -> Self {
        Self::of("EndpointSlice", &slice.metadata, field, reason)
    }

    fn service(service: &Service, field: String, reason: &'static str) -> Self {
        Self::of("Service", &service.metadata, field, reason)
    }
}

const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// How a backend is chosen for the Service's connections: kpx's own annotation.
const SELECTION: &str = "kpx.dev/backend-selection";
/// How clients outside reach the Service's backends on other nodes: kpx's own annotation.
const FORWARDING: &str = "kpx.dev/forwarding-mode";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Labels of an object.
pub(super) struct Labels<'a>(Option<&'a BTreeMap<String, String>>);

impl<'a> Labels<'a> {
    pub(super) fn of(meta: &'a ObjectMeta) -> Self {
        Self(meta.labels.as_ref())
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a str> {
        self.0.and_then(|labels| labels.get(key)).map(String::as_str)
    }

    /// Whether kube-proxy never sees a Service with these labels, whatever their values.
    fn hide_service(&self, semantics: Semantics) -> bool {
        self.get(PROXY_NAME).is_some() || (semantics.labels_hide_both_kinds && self.get(HEADLESS).is_some())
    }

    /// Whether kube-proxy never sees an EndpointSlice with these labels, whatever their values.
    pub(super) fn hide_slice(&self, semantics: Semantics) -> bool {
        self.get(HEADLESS).is_some() || (semantics.labels_hide_both_kinds && self.get(PROXY_NAME).is_some())
    }
}

/// Builds the table of the node that `place` describes.
pub fn lift(objects: &Objects, place: &Place, notices: &mut Vec<Notice>) -> Result<ServiceTable, FieldFault> {
    let slices = SliceIndex::new(&objects.slices, place.semantics);
    let mut frontends = Vec::with_capacity(objects.services.len() + objects.services.len() / 4);
    let mut health_checks: BTreeMap<u16, BTreeSet<ServiceName>> = BTreeMap::new();
    for service in &objects.services {
        let Some(mut lifted) = lift_with(service, &slices, place, notices)? else { continue };
        if let Some(port) = lifted.health_check {
            health_checks.entry(port).or_default().insert(lifted.name);
        }
        frontends.append(&mut lifted.frontends);
    }
    let mut table = ServiceTable::new(frontends, place.facts.v4.clone(), place.facts.v6.clone());
    table.health_checks = Some(health_checks);
    Ok(table)
}

/// What one Service makes a node do.
#[derive(Clone, Debug)]
pub struct LiftedService {
    /// The Service.
    pub name: ServiceName,
    /// Its frontends, in both families.
    pub frontends: Vec<Frontend>,
    /// Its `healthCheckNodePort`, where one is served.
    pub health_check: Option<u16>,
    /// Its ports with all their endpoints, whichever of them the frontends use.
    pub ports: Vec<LiftedPort>,
}

/// One port of a Service, in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiftedPort {
    /// Where clients send to; a NodePort stands at the unspecified address of its family.
    pub addresses: Vec<SocketAddr>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The endpoints in the Service's EndpointSlices, in whatever condition.
    pub endpoints: Vec<Endpoint>,
}

/// The same for one Service alone, given its own EndpointSlices; `None` if kube-proxy leaves the Service alone.
pub fn lift_service<'a>(
    service: &Service,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    place: &Place,
    notices: &mut Vec<Notice>,
) -> Result<Option<LiftedService>, FieldFault> {
    lift_with(service, &SliceIndex::new(slices, place.semantics), place, notices)
}

fn lift_with(
    service: &Service,
    slices: &SliceIndex<'_>,
    place: &Place,
    notices: &mut Vec<Notice>,
) -> Result<Option<LiftedService>, FieldFault> {
    let Some(proxied) = Proxied::of(service, place, notices)? else { return Ok(None) };
    if proxied.needs_health_check && proxied.health_check.is_none() {
        notices.push(Notice::NoHealthCheckPort { service: proxied.name.to_string() });
    }
    let mut lifted = LiftedService {
        name: proxied.name.clone(),
        frontends: Vec::new(),
        health_check: proxied.health_check,
        ports: Vec::new(),
    };
    for family in Family::BOTH {
        proxied.frontends(family, slices, place, &mut lifted)?;
    }
    Ok(Some(lifted))
}

/// An address of the Service and the field it stands in.
struct Address {
    ip: IpAddr,
    field: String,
}

fn of_family(family: Family, list: &[Address]) -> impl Iterator<Item = &Address> {
    list.iter().filter(move |a| Family::of(a.ip) == family)
}

/// A Service that kube-proxy serves.
struct Proxied<'a> {
    service: &'a Service,
    spec: &'a ServiceSpec,
    name: ServiceName,
    cluster_ips: Vec<Address>,
    external_ips: Vec<Address>,
    lb_ips: Vec<Address>,
    source_ranges: Vec<IpNet>,
    internal: Policy,
    external: Policy,
    affinity: Option<u32>,
    needs_health_check: bool,
    health_check: Option<u16>,
    follows_hints: bool,
    selection: Option<BackendSelection>,
    forwarding: Option<ForwardingMode>,
}

impl<'a> Proxied<'a> {
    /// `None` for Services kube-proxy leaves alone: headless, ExternalName, or with an ignore label.
    fn of(service: &'a Service, place: &Place, notices: &mut Vec<Notice>) -> Result<Option<Self>, FieldFault> {
        let Some(spec) = &service.spec else { return Ok(None) };
        let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
        let headless = matches!(spec.cluster_ip.as_deref(), None | Some("" | "None"));
        if headless || kind == "ExternalName" || Labels::of(&service.metadata).hide_service(place.semantics) {
            return Ok(None);
        }
        let address = |field: String, text: &str| match parse_ip(text) {
            Some(ip) => Ok(Address { ip, field }),
            None => Err(FieldFault::service(service, field, "no IP address")),
        };
        let cluster_ips = match spec.cluster_ips.as_deref() {
            None | Some([]) => spec
                .cluster_ip
                .iter()
                .map(|ip| address("spec.clusterIP".to_owned(), ip))
                .collect::<Result<Vec<_>, _>>()?,
            Some(ips) => ips
                .iter()
                .enumerate()
                .map(|(i, ip)| address(format!("spec.clusterIPs[{i}]"), ip))
                .collect::<Result<Vec<_>, _>>()?,
        };
        let external_ips = spec
            .external_ips
            .iter()
            .flatten()
            .enumerate()
            .map(|(i, ip)| address(format!("spec.externalIPs[{i}]"), ip))
            .collect::<Result<Vec<_>, _>>()?;
        let ingress = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_deref());
        let lb_ips = ingress
            .unwrap_or_default()
            .iter()
            .enumerate()
            .filter(|(_, ing)| !place.semantics.lb_ip_mode || ing.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"))
            .filter_map(|(i, ing)| Some((i, ing.ip.as_deref().filter(|ip| !ip.is_empty())?)))
            .map(|(i, ip)| address(format!("status.loadBalancer.ingress[{i}].ip"), ip))
            .collect::<Result<Vec<_>, _>>()?;
        let source_ranges = spec
            .load_balancer_source_ranges
            .iter()
            .flatten()
            .enumerate()
            .map(|(i, net)| {
                let field = || format!("spec.loadBalancerSourceRanges[{i}]");
                parse_net(net.trim()).ok_or_else(|| FieldFault::service(service, field(), "no network"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let policy = |field: &str, word: Option<&str>| match word {
            None | Some("" | "Cluster") => Ok(Policy::Cluster),
            Some("Local") => Ok(Policy::Local),
            Some(_) => Err(FieldFault::service(service, field.to_owned(), "neither Cluster nor Local")),
        };
        let internal = policy("spec.internalTrafficPolicy", spec.internal_traffic_policy.as_deref())?;
        let external = policy("spec.externalTrafficPolicy", spec.external_traffic_policy.as_deref())?;
        let has_external_ips = spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
        let external_counts = match kind {
            "LoadBalancer" | "NodePort" => true,
            _ => has_external_ips && place.semantics.external_policy_of_external_ips,
        };
        let external = if external_counts { external } else { Policy::Cluster };
        let needs_health_check = kind == "LoadBalancer" && external == Policy::Local;
        let health_check = match spec.health_check_node_port.filter(|port| needs_health_check && *port != 0) {
            None => None,
            Some(port) => Some(port_number(port).ok_or_else(|| {
                FieldFault::service(service, "spec.healthCheckNodePort".to_owned(), "no port number")
            })?),
        };
        let affinity = match spec.session_affinity.as_deref() {
            None | Some("" | "None") => None,
            Some("ClientIP") => {
                let seconds = spec
                    .session_affinity_config
                    .as_ref()
                    .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
                    .unwrap_or(10_800);
                let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
                Some(u32::try_from(seconds).map_err(|_| FieldFault::service(service, field.to_owned(), "negative"))?)
            }
            Some(_) => {
                let field = "spec.sessionAffinity".to_owned();
                return Err(FieldFault::service(service, field, "neither ClientIP nor None"));
            }
        };
        let annotation = |key: &str| Some(service.metadata.annotations.as_ref()?.get(key)?.as_str());
        // kpx's own: what nobody has checked when it was written is no reason not to serve.
        let mut unknown = |annotation, value: &str| {
            let (namespace, name) = names(&service.metadata);
            let service = format!("{namespace}/{name}");
            notices.push(Notice::UnknownChoice { service, annotation, value: value.to_owned() });
        };
        let selection = match annotation(SELECTION) {
            None => None,
            Some("random") => Some(BackendSelection::Random),
            Some("maglev") => Some(BackendSelection::Maglev),
            Some(word) => {
                unknown(SELECTION, word);
                None
            }
        };
        let forwarding = match annotation(FORWARDING) {
            None => None,
            Some("snat") => Some(ForwardingMode::Snat),
            Some("dsr") => Some(ForwardingMode::Dsr),
            Some(word) => {
                unknown(FORWARDING, word);
                None
            }
        };
        let follows_hints = place.semantics.follows_hints(
            annotation("service.kubernetes.io/topology-aware-hints"),
            annotation("service.kubernetes.io/topology-mode"),
        );
        let (namespace, name) = names(&service.metadata);
        Ok(Some(Self {
            service,
            spec,
            name: ServiceName { namespace: namespace.to_owned(), name: name.to_owned() },
            cluster_ips,
            external_ips,
            lb_ips,
            source_ranges,
            internal,
            external,
            affinity,
            needs_health_check,
            health_check,
            follows_hints,
            selection,
            forwarding,
        }))
    }

    /// Adds the frontends of one family; none at all if the Service has no ClusterIP in it.
    fn frontends(
        &self,
        family: Family,
        slices: &SliceIndex<'_>,
        place: &Place,
        lifted: &mut LiftedService,
    ) -> Result<(), FieldFault> {
        let out = &mut lifted.frontends;
        if of_family(family, &self.cluster_ips).next().is_none() {
            return Ok(());
        }
        let slices = slices.of(&self.name.namespace, &self.name.name, family);
        for (index, port) in self.spec.ports.iter().flatten().enumerate() {
            let port = Port::of(self.service, index, port)?;
            let endpoints = endpoints::collect(slices, port.name, port.protocol, place)?;
            let reachable = port.on_nodes.is_some()
                || of_family(family, &self.external_ips).next().is_some()
                || of_family(family, &self.lb_ips).next().is_some();
            let policy = PortPolicy {
                internal: self.internal,
                external: self.external,
                external_access: reachable,
                follows_hints: self.follows_hints,
            };
            let chosen = select(&endpoints, policy, place.semantics);
            let build = Build { proxied: self, port: &port, chosen: &chosen, place, family };
            let first = out.len();
            for a in of_family(family, &self.cluster_ips) {
                out.push(build.frontend(Exposure::ClusterIp, a.ip, port.number, &a.field));
            }
            for a in of_family(family, &self.external_ips) {
                out.push(build.frontend(Exposure::ExternalIp, a.ip, port.number, &a.field));
            }
            for a in of_family(family, &self.lb_ips) {
                let mut frontend = build.frontend(Exposure::LoadBalancer, a.ip, port.number, &a.field);
                frontend.sources = self.sources(a.ip, family, place);
                out.push(frontend);
            }
            if let Some(number) = port.on_nodes {
                out.push(build.frontend(Exposure::NodePort, family.unspecified(), number, ""));
            }
            let addresses = out[first..].iter().map(|f| SocketAddr::new(f.key.ip, f.key.port)).collect();
            lifted.ports.push(LiftedPort { addresses, protocol: port.protocol, endpoints });
        }
        Ok(())
    }

    /// Ranges of the family, and the VIP itself if one of them holds the node: then the node can reach the VIP by the VIP.
    fn sources(&self, vip: IpAddr, family: Family, place: &Place) -> Vec<IpNet> {
        let mut sources: Vec<IpNet> =
            self.source_ranges.iter().copied().filter(|net| Family::of(net.addr()) == family).collect();
        if sources.iter().any(|net| net.contains(place.node_ip.of(family))) {
            sources.push(IpNet::from(vip));
        }
        sources.sort_unstable();
        sources.dedup();
        sources
    }
}

/// A port of a Service.
struct Port<'a> {
    index: usize,
    name: &'a str,
    number: u16,
    protocol: Protocol,
    on_nodes: Option<u16>,
}

impl<'a> Port<'a> {
    fn of(service: &Service, index: usize, port: &'a ServicePort) -> Result<Self, FieldFault> {
        let fault = |field: &str, reason| FieldFault::service(service, format!("spec.ports[{index}].{field}"), reason);
        let protocol = match port.protocol.as_deref() {
            None | Some("" | "TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(_) => return Err(fault("protocol", "none of TCP, UDP, SCTP")),
        };
        let on_nodes = match port.node_port {
            None | Some(0) => None,
            Some(number) => Some(port_number(number).ok_or_else(|| fault("nodePort", "no port number"))?),
        };
        Ok(Self {
            index,
            name: port.name.as_deref().unwrap_or_default(),
            number: port_number(port.port).ok_or_else(|| fault("port", "no port number"))?,
            protocol,
            on_nodes,
        })
    }
}

fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}

/// What all frontends of one Service port and family share.
struct Build<'a> {
    proxied: &'a Proxied<'a>,
    port: &'a Port<'a>,
    chosen: &'a Selection,
    place: &'a Place,
    family: Family,
}

impl Build<'_> {
    fn frontend(&self, exposure: Exposure, ip: IpAddr, number: u16, address_field: &str) -> Frontend {
        let Selection { internal, external, .. } = *self.chosen;
        let own = if exposure.is_external() { external } else { internal };
        // Outside traffic to a Local frontend uses the Local list, the node's own and its pods' the Cluster list.
        let uses_cluster = own == Policy::Cluster || exposure.is_external();
        let index = self.port.index;
        let field = match address_field {
            "" => format!("spec.ports[{index}].nodePort"),
            address => format!("{address} spec.ports[{index}]"),
        };
        Frontend {
            key: FrontendKey { ip, port: number, protocol: self.port.protocol, exposure },
            service: Some(self.proxied.name.clone()),
            port_name: Some(self.port.name.to_owned()).filter(|name| !name.is_empty()),
            cluster: if uses_cluster { self.chosen.cluster.clone() } else { Vec::new() },
            local: if own == Policy::Local { self.chosen.local.clone() } else { Vec::new() },
            internal_policy: internal,
            external_policy: external,
            affinity: self.proxied.affinity,
            sources: Vec::new(),
            masquerade: self.masquerade(exposure),
            no_backends: self.chosen.no_backends(own),
            selection: self.proxied.selection,
            forwarding: self.proxied.forwarding,
            origin: Origin::Object { kind: "Service", name: self.proxied.name.clone(), field: field.into() },
        }
    }

    fn masquerade(&self, exposure: Exposure) -> Masquerade {
        let Place { masquerade_all, semantics, .. } = *self.place;
        let blind = self.place.facts.of(self.family).detector == Detector::None;
        match (exposure, self.chosen.external) {
            (Exposure::ClusterIp, _) if masquerade_all => Masquerade::Always,
            (Exposure::ClusterIp, _) if blind => Masquerade::Never,
            (Exposure::ClusterIp, _) => Masquerade::OffCluster,
            (_, Policy::Local) => Masquerade::Never,
            (Exposure::ExternalIp, _) if semantics.external_ips_keep_pods && !blind => Masquerade::OffCluster,
            (_, Policy::Cluster) => Masquerade::Always,
        }
    }
}
