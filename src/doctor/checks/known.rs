//! What the API knows.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::super::target::Target;
use super::{Ailment, Cause, Evidence, Finding, Patient};
use crate::inspect::kube::KubeState;
use crate::model::{Backend, Frontend, ServiceName};
use crate::ui::count;

/// The label of Services that are another proxy's.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// The label that says whose an EndpointSlice is.
const OWNER: &str = "kubernetes.io/service-name";

pub(super) fn api(patient: &Patient<'_>) -> Finding {
    let state = match &patient.api {
        Ok(state) => state,
        Err(why) => return Finding::Unknown(why.clone()),
    };
    let frontends = patient.wanted.frontends();
    match &patient.asked.target {
        Target::Node => Finding::Passed(format!("{} for node {}", count(frontends.len(), "frontend"), state.node_name)),
        _ if !frontends.is_empty() => Finding::Passed(listed(frontends)),
        Target::Service(name) => match object(state, name) {
            Some(service) => not_translated(name, service),
            None => Finding::Failed(unknown_service(state, name)),
        },
        Target::Address { ip, port, .. } => {
            let kubectl = format!("kubectl get services -A -o wide | grep -wF {ip}");
            let others: Vec<&Frontend> = state.table.frontends().iter().filter(|f| f.key.ip == *ip).collect();
            let endpoint = state.table.frontends().iter().find(|frontend| {
                frontend.cluster.iter().chain(&frontend.local).any(|b| b.ip == *ip && port.is_none_or(|p| p == b.port))
            });
            let text = match (others.first(), endpoint) {
                (Some(first), _) => format!("{} has {ip}, and not this port", first.display_name()),
                (None, Some(of)) => {
                    format!("{ip} is an endpoint of {}: packets to it meet no Service", of.display_name())
                }
                (None, None) => "no Service has this address".to_owned(),
            };
            let has = others.iter().map(|f| Evidence::new(f.display_name(), format!("{} {}", f.key.exposure, f.key)));
            Finding::Failed(Ailment::new(Cause::NoSuchAddress, text, kubectl).with(has))
        }
    }
}

/// Frontends in a sentence, the first few of them.
fn listed(frontends: &[Frontend]) -> String {
    const FEW: usize = 4;
    let mut all: Vec<String> =
        frontends.iter().take(FEW).map(|f| format!("{} {} of {}", f.key.exposure, f.key, f.display_name())).collect();
    if frontends.len() > FEW {
        all.push(format!("{} more", frontends.len() - FEW));
    }
    all.join(", ")
}

fn is_named(namespace: Option<&str>, name: Option<&str>, wanted: &ServiceName) -> bool {
    namespace == Some(&wanted.namespace) && name == Some(&wanted.name)
}

fn object<'s>(state: &'s KubeState, wanted: &ServiceName) -> Option<&'s Service> {
    state
        .objects
        .services
        .iter()
        .find(|service| is_named(service.metadata.namespace.as_deref(), service.metadata.name.as_deref(), wanted))
}

fn unknown_service(state: &KubeState, wanted: &ServiceName) -> Ailment {
    let names = state
        .objects
        .services
        .iter()
        .filter_map(|s| Some((s.metadata.namespace.as_deref()?, s.metadata.name.as_deref()?)));
    let near = names.filter(|(namespace, name)| {
        *name == wanted.name
            || *namespace == wanted.namespace && (name.contains(&*wanted.name) || wanted.name.contains(*name))
    });
    let near = near.take(5).map(|(namespace, name)| Evidence::new(format!("{namespace}/{name}"), "there is this one"));
    Ailment::new(
        Cause::NoSuchService,
        format!("the API has no Service {wanted}"),
        format!("kubectl get services -n {}", wanted.namespace),
    )
    .with(near)
}

/// Why an object that is there has no frontend.
fn not_translated(name: &ServiceName, service: &Service) -> Finding {
    let spec = service.spec.as_ref();
    let kind = spec.and_then(|spec| spec.type_.as_deref());
    let ip = spec.and_then(|spec| spec.cluster_ip.as_deref());
    let proxy = service.metadata.labels.as_ref().and_then(|labels| labels.get(PROXY_NAME));
    let text = match (proxy, kind, ip) {
        (Some(proxy), ..) => {
            format!("its label {PROXY_NAME} gives it to {proxy}: neither kube-proxy nor kpx serves it")
        }
        (None, Some("ExternalName"), _) => {
            "its type is ExternalName: DNS answers with another name, and nobody translates".to_owned()
        }
        (None, _, Some("None")) => {
            "it is headless (clusterIP None): DNS answers with the endpoints, and nobody translates".to_owned()
        }
        (None, _, None | Some("")) => "it has no address yet: the API server gives it one".to_owned(),
        _ => "it has no port that is served on this node".to_owned(),
    };
    let next = format!("kubectl get service -n {} {} -o yaml", name.namespace, name.name);
    Finding::Failed(Ailment::new(Cause::NotTranslated, text, next))
}

pub(super) fn endpoints(patient: &Patient<'_>) -> Finding {
    let state = match &patient.api {
        Ok(state) => state,
        Err(why) => return Finding::Unknown(why.clone()),
    };
    let empty = |frontend: &&Frontend| frontend.cluster.is_empty() && frontend.local.is_empty();
    let all = patient.wanted.frontends();
    let without: Vec<&Frontend> = all.iter().filter(empty).collect();
    let Some(first) = without.first() else {
        if all.is_empty() {
            return Finding::Unknown("there is no frontend".to_owned());
        }
        let mut serving: Vec<_> =
            all.iter().flat_map(|f| f.cluster.iter().chain(&f.local)).map(Backend::addr).collect();
        serving.sort_unstable();
        serving.dedup();
        return Finding::Passed(format!("{} in use", count(serving.len(), "endpoint")));
    };
    let mut names: Vec<String> = without.iter().map(|f| f.display_name()).collect();
    names.sort();
    names.dedup();
    let next = match &first.service {
        Some(name) => {
            format!("kubectl get endpointslices -n {} -l {OWNER}={} -o yaml", name.namespace, name.name)
        }
        None => "kubectl get endpointslices -A".to_owned(),
    };
    if patient.is_general() {
        let text = format!("{} without an endpoint that serves", count(names.len(), "Service port"));
        let evidence = names.into_iter().take(10).map(|name| Evidence::new(name, "no endpoint serves"));
        return Finding::Remark(Ailment::new(Cause::NoEndpoints, text, next).with(evidence));
    }
    let text = format!("{}: no endpoint serves", names.join(", "));
    let of = first.service.iter().flat_map(|name| state.objects.slices.iter().filter(move |slice| is_of(slice, name)));
    let evidence: Vec<Evidence> = of.map(described).collect();
    let ailment = Ailment::new(Cause::NoEndpoints, text, next);
    Finding::Failed(if evidence.is_empty() {
        ailment.with([Evidence::new(
            "EndpointSlices",
            "there are none: the selector matches no pod, or nobody makes them",
        )])
    } else {
        ailment.with(evidence)
    })
}

fn is_of(slice: &EndpointSlice, name: &ServiceName) -> bool {
    let owner = slice.metadata.labels.as_ref().and_then(|labels| labels.get(OWNER)).map(String::as_str);
    is_named(slice.metadata.namespace.as_deref(), owner, name)
}

/// How the endpoints of a slice are.
fn described(slice: &EndpointSlice) -> Evidence {
    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
    let with = |wanted: fn(&k8s_openapi::api::discovery::v1::EndpointConditions) -> bool| {
        endpoints.iter().filter(|e| e.conditions.as_ref().is_some_and(wanted)).count()
    };
    let not_ready = with(|c| c.ready == Some(false));
    let terminating = with(|c| c.terminating == Some(true));
    let name = slice.metadata.name.as_deref().unwrap_or_default();
    let ports: Vec<String> = slice
        .ports
        .iter()
        .flatten()
        .map(|p| format!("{}:{}", p.name.as_deref().unwrap_or_default(), p.port.unwrap_or_default()))
        .collect();
    Evidence::new(
        format!("EndpointSlice {name}"),
        format!(
            "{}, {not_ready} not ready, {terminating} terminating; ports {}",
            count(endpoints.len(), "endpoint"),
            ports.join(", ")
        ),
    )
}
