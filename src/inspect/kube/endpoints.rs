//! EndpointSlices, found by Service, port and family.

use std::collections::HashMap;
use std::net::SocketAddr;

use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointPort, EndpointSlice};

use super::lift::{FieldFault, Labels};
use super::objects::names;
use super::place::Place;
use super::text::parse_ip;
use crate::model::select::{Endpoint, Hint};
use crate::model::{Family, Protocol, Semantics};

/// The slices kube-proxy looks at, by Service and family.
pub(super) struct SliceIndex<'a> {
    by_service: HashMap<(&'a str, &'a str, Family), Vec<&'a EndpointSlice>>,
}

impl<'a> SliceIndex<'a> {
    /// Leaves out slices with an ignore label, without a Service, and of the address type FQDN.
    pub(super) fn new(slices: impl IntoIterator<Item = &'a EndpointSlice>, semantics: Semantics) -> Self {
        let slices = slices.into_iter();
        let mut by_service: HashMap<_, Vec<_>> = HashMap::with_capacity(slices.size_hint().0);
        for slice in slices {
            let labels = Labels::of(&slice.metadata);
            let family = match slice.address_type.as_str() {
                "IPv4" => Family::V4,
                "IPv6" => Family::V6,
                _ => continue,
            };
            let Some(service) = labels.get("kubernetes.io/service-name").filter(|name| !name.is_empty()) else {
                continue;
            };
            if labels.hide_slice(semantics) {
                continue;
            }
            by_service.entry((names(&slice.metadata).0, service, family)).or_default().push(slice);
        }
        for of_one in by_service.values_mut() {
            of_one.sort_by_key(|slice| slice.metadata.name.as_deref());
        }
        Self { by_service }
    }

    /// Slices of one Service and family, by name.
    pub(super) fn of<'s>(&'s self, namespace: &'s str, service: &'s str, family: Family) -> &'s [&'s EndpointSlice] {
        self.by_service.get(&(namespace, service, family)).map_or(&[], Vec::as_slice)
    }
}

/// The endpoints of one Service port: ports are matched by name and protocol, never by number; an address in several
/// slices counts once, and the one that is local goes before others.
pub(super) fn collect(
    slices: &[&EndpointSlice],
    port_name: &str,
    protocol: Protocol,
    place: &Place,
) -> Result<Vec<Endpoint>, FieldFault> {
    let mut out: Vec<Endpoint> = Vec::new();
    let mut seen: HashMap<SocketAddr, usize> = HashMap::new();
    for slice in slices {
        for (p, port) in slice.ports.iter().flatten().enumerate() {
            let Some(number) = matching(slice, p, port, port_name, protocol)? else { continue };
            for (e, endpoint) in slice.endpoints.iter().flatten().enumerate() {
                let endpoint = read(slice, e, endpoint, number, place)?;
                match seen.entry(endpoint.addr) {
                    std::collections::hash_map::Entry::Vacant(slot) => {
                        slot.insert(out.len());
                        out.push(endpoint);
                    }
                    std::collections::hash_map::Entry::Occupied(known) if endpoint.local => {
                        out[*known.get()] = endpoint;
                    }
                    std::collections::hash_map::Entry::Occupied(_) => {}
                }
            }
        }
    }
    Ok(out)
}

/// The number of a slice's port if it is the one asked for. A port without a name or a number is nobody's.
fn matching(
    slice: &EndpointSlice,
    index: usize,
    port: &EndpointPort,
    name: &str,
    protocol: Protocol,
) -> Result<Option<u16>, FieldFault> {
    let Some(number) = port.port.filter(|number| *number != 0) else { return Ok(None) };
    if port.name.as_deref() != Some(name)
        || !port.protocol.as_deref().unwrap_or("TCP").eq_ignore_ascii_case(protocol.lower())
    {
        return Ok(None);
    }
    u16::try_from(number)
        .map(Some)
        .map_err(|_| FieldFault::slice(slice, format!("ports[{index}].port"), "no port number"))
}

fn read(
    slice: &EndpointSlice,
    index: usize,
    endpoint: &ApiEndpoint,
    port: u16,
    place: &Place,
) -> Result<Endpoint, FieldFault> {
    let at = || format!("endpoints[{index}].addresses[0]");
    let text = endpoint.addresses.first().ok_or_else(|| FieldFault::slice(slice, at(), "missing"))?;
    let ip = parse_ip(text).ok_or_else(|| FieldFault::slice(slice, at(), "no IP address"))?;
    let family = if slice.address_type == "IPv6" { Family::V6 } else { Family::V4 };
    if Family::of(ip) != family {
        return Err(FieldFault::slice(slice, at(), "not of the slice's addressType"));
    }
    let conditions = endpoint.conditions.as_ref();
    let hints = endpoint.hints.as_ref();
    let zones = hints.and_then(|h| h.for_zones.as_deref()).unwrap_or_default();
    let nodes = hints.and_then(|h| h.for_nodes.as_deref()).unwrap_or_default();
    Ok(Endpoint {
        addr: SocketAddr::new(ip, port),
        ready: conditions.and_then(|c| c.ready).unwrap_or(true),
        serving: conditions.and_then(|c| c.serving).unwrap_or(true),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        local: endpoint.node_name.as_ref().is_some_and(|node| *node == place.name),
        zone_hint: hint(zones.is_empty(), zones.iter().any(|z| Some(&z.name) == place.zone.as_ref())),
        node_hint: hint(nodes.is_empty(), nodes.iter().any(|n| n.name == place.name)),
    })
}

const fn hint(none: bool, here: bool) -> Hint {
    match (none, here) {
        (true, _) => Hint::None,
        (false, true) => Hint::Here,
        (false, false) => Hint::Elsewhere,
    }
}
