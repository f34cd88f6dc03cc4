//! From the contents of the maps to a table.

use std::collections::BTreeMap;

use ipnet::IpNet;
use kpx_abi::{BackendFlags, Exposure as AbiExposure, Flags, Frontend as AbiFrontend, FrontendKey as AbiKey, List};

use super::super::maglev;
use super::image::Image;
use super::wanted::{Endpoint, ip, net};
use crate::model::{
    Backend, BackendSelection, Exposure, ForwardingMode, Frontend, FrontendKey, Masquerade, NoBackends, NodeFacts,
    Origin, Policy, Protocol, ServiceTable,
};

/// The table that the maps hold. Frontends whose entry contradicts the index, or whose lists name what is not there, come
/// back in the second place.
pub(in crate::dataplane) fn table(image: &Image) -> (ServiceTable, Vec<AbiKey>) {
    let mut broken = Vec::new();
    let mut frontends = Vec::new();
    for key in image.index.keys() {
        match image.current(key).and_then(|(_, frontend)| lift(image, frontend)) {
            Some(frontend) => frontends.push(frontend),
            None => broken.push(*key),
        }
    }
    (ServiceTable::new(frontends, NodeFacts::default(), NodeFacts::default()), broken)
}

/// The backends of a list with their weights; `None` unless the slots are what these weights make.
fn backends(image: &Image, frontend: &AbiFrontend, list: List) -> Option<Vec<Backend>> {
    let slots = image.endpoints(list, frontend.service)?;
    let mut weights: BTreeMap<Endpoint, u16> = BTreeMap::new();
    for endpoint in &slots {
        let weight = weights.entry(*endpoint).or_default();
        *weight = weight.saturating_add(1);
    }
    let mut flags: BTreeMap<Endpoint, BackendFlags> = BTreeMap::new();
    for backend in image.ids(list).iter().filter_map(|id| image.serving(*id, frontend.service)) {
        flags.insert((backend.addr, backend.port), backend.flags);
    }
    if frontend.flags.has(Flags::MAGLEV) {
        for (endpoint, weight) in &mut weights {
            *weight = flags.get(endpoint)?.weight();
        }
        let known: Vec<_> = weights.iter().map(|(endpoint, weight)| (*endpoint, *weight)).collect();
        if maglev::table(&known, list.count) != slots {
            return None;
        }
    }
    let backend = |((addr, port), weight)| {
        let on_node = flags.get(&(addr, port)).is_some_and(|flags| flags.has(BackendFlags::ON_NODE));
        Backend { ip: ip(addr), port: u16::from_be(port), weight, local: on_node.then_some(true), state: None }
    };
    Some(weights.into_iter().map(backend).collect())
}

/// The key of each frontend that the maps hold, with its service id.
pub(in crate::dataplane) fn services(image: &Image) -> impl Iterator<Item = (FrontendKey, u32)> {
    image.index.keys().filter_map(|key| {
        let (_, frontend) = image.current(key)?;
        Some((model_key(frontend)?, frontend.service))
    })
}

fn model_key(frontend: &AbiFrontend) -> Option<FrontendKey> {
    let exposure = match frontend.flags.exposure() {
        AbiExposure::ClusterIp => Exposure::ClusterIp,
        AbiExposure::NodePort => Exposure::NodePort,
        AbiExposure::LoadBalancer => Exposure::LoadBalancer,
        AbiExposure::ExternalIp => Exposure::ExternalIp,
    };
    Some(FrontendKey {
        ip: ip(frontend.key.addr),
        port: u16::from_be(frontend.key.port),
        protocol: Protocol::from_number(frontend.key.proto)?,
        exposure,
    })
}

fn lift(image: &Image, frontend: &AbiFrontend) -> Option<Frontend> {
    let flags = frontend.flags;
    let policy = |local: Flags| if flags.has(local) { Policy::Local } else { Policy::Cluster };
    let verdict = if flags.has(Flags::EMPTY_DROPS) { NoBackends::Drop } else { NoBackends::Reject };
    let mut sources: Vec<IpNet> = Vec::new();
    if flags.has(Flags::SOURCE_RANGES) {
        sources = image
            .sources(frontend.service)
            .map(|key| net((key.prefix_len.checked_sub(32)?, key.addr)))
            .collect::<Option<_>>()?;
        sources.sort_unstable();
    }
    let masquerade = if flags.has(Flags::MASQUERADE_ALWAYS) {
        Masquerade::Always
    } else if flags.has(Flags::MASQUERADE_OFF_CLUSTER) {
        Masquerade::OffCluster
    } else {
        Masquerade::Never
    };
    let mut lifted = Frontend {
        key: model_key(frontend)?,
        service: None,
        port_name: None,
        cluster: backends(image, frontend, frontend.cluster)?,
        local: backends(image, frontend, frontend.local)?,
        internal_policy: policy(Flags::INTERNAL_LOCAL),
        external_policy: policy(Flags::EXTERNAL_LOCAL),
        affinity: (frontend.affinity != 0).then_some(frontend.affinity),
        sources,
        masquerade,
        no_backends: None,
        selection: Some(if flags.has(Flags::MAGLEV) { BackendSelection::Maglev } else { BackendSelection::Random }),
        forwarding: Some(if flags.has(Flags::DSR) { ForwardingMode::Dsr } else { ForwardingMode::Snat }),
        origin: Origin::MapEntry { map: kpx_abi::map_name::FRONTENDS, id: frontend.service },
    };
    lifted.no_backends = lifted.own_list().is_empty().then_some(verdict);
    Some(lifted)
}
