//! What the maps have to say of a frontend.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use kpx_abi::{Exposure as AbiExposure, Flags, FrontendKey as AbiKey};

use crate::model::{Exposure, Frontend, FrontendKey, Masquerade, NoBackends, Policy};

/// An endpoint as the maps have it: address in v4-mapped form, port in network byte order.
pub(in crate::dataplane) type Endpoint = ([u8; 16], u16);

/// What the maps have to say of a frontend, apart from numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Wanted {
    /// Policies, exposure and verdict.
    pub(super) flags: Flags,
    /// ClientIP affinity, seconds; 0: none.
    pub(super) affinity: u32,
    /// The Cluster list, sorted; an endpoint appears as often as its weight says.
    pub(super) cluster: Vec<Endpoint>,
    /// The Local list, likewise.
    pub(super) local: Vec<Endpoint>,
}

/// An address in the maps' form.
fn addr(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address of the maps' form.
pub(in crate::dataplane) fn ip(addr: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(addr).to_canonical()
}

/// Address and port as the maps have them.
pub(in crate::dataplane) fn endpoint(socket: SocketAddr) -> Endpoint {
    (addr(socket.ip()), socket.port().to_be())
}

/// The maps' key of a frontend.
pub(in crate::dataplane) fn key_of(key: &FrontendKey) -> AbiKey {
    AbiKey::new(addr(key.ip), key.port.to_be(), key.protocol.number())
}

impl Wanted {
    /// What the maps have to say of this frontend: only the lists that some traffic uses.
    pub(in crate::dataplane) fn of(frontend: &Frontend) -> Self {
        let list = |backends: &[crate::model::Backend]| {
            let mut list: Vec<Endpoint> =
                backends.iter().flat_map(|b| std::iter::repeat_n(endpoint(b.addr()), usize::from(b.weight))).collect();
            list.sort_unstable();
            list
        };
        let external_local = frontend.key.exposure.is_external() && frontend.external_policy == Policy::Local;
        let internal_local = !frontend.key.exposure.is_external() && frontend.internal_policy == Policy::Local;
        let exposure = match frontend.key.exposure {
            Exposure::ClusterIp => AbiExposure::ClusterIp,
            Exposure::NodePort => AbiExposure::NodePort,
            Exposure::LoadBalancer => AbiExposure::LoadBalancer,
            Exposure::ExternalIp => AbiExposure::ExternalIp,
        };
        Self {
            flags: Flags::default()
                .with_exposure(exposure)
                .with(Flags::INTERNAL_LOCAL, frontend.internal_policy == Policy::Local)
                .with(Flags::EXTERNAL_LOCAL, frontend.external_policy == Policy::Local)
                .with(
                    Flags::EMPTY_DROPS,
                    frontend.own_list().is_empty() && frontend.no_backends == Some(NoBackends::Drop),
                )
                .with(Flags::MASQUERADE_OFF_CLUSTER, frontend.masquerade == Masquerade::OffCluster),
            affinity: frontend.affinity.unwrap_or(0),
            cluster: if internal_local { Vec::new() } else { list(&frontend.cluster) },
            local: if internal_local || external_local { list(&frontend.local) } else { Vec::new() },
        }
    }
}
