//! Whose chain is it? Told by exact names and by exact prefixes with a hash behind them, never by `KUBE` alone.

use super::hash::HASH_LEN;

/// Kinds of kube-proxy's chains that belong to one Service port or one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hashed {
    /// `KUBE-SVC-`: endpoints for the Cluster policy.
    Svc,
    /// `KUBE-SVL-`: endpoints for the Local policy.
    Svl,
    /// `KUBE-EXT-`: entry for external destinations.
    Ext,
    /// `KUBE-FW-`: loadBalancerSourceRanges.
    Fw,
    /// `KUBE-XLB-`: external destinations under externalTrafficPolicy Local, up to Kubernetes 1.23.
    Xlb,
    /// `KUBE-SEP-`: one endpoint.
    Sep,
}

/// Whose a chain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The kernel's.
    Builtin,
    /// kube-proxy's, with a fixed name.
    KubeProxy,
    /// kube-proxy's, with a hash in its name.
    Hashed(Hashed),
    /// kube-proxy's proof that nobody flushed the tables.
    Canary,
    /// kube-proxy's, of ipvs mode only.
    Ipvs,
    /// kube-proxy's, of the userspace mode that Kubernetes 1.26 removed.
    Userspace,
    /// The kubelet's: must survive kube-proxy.
    Kubelet,
    /// Somebody else's.
    Foreign,
}

impl Owner {
    /// Whether kube-proxy, of any mode or version, made the chain.
    pub const fn is_kube_proxy(self) -> bool {
        !matches!(self, Self::Builtin | Self::Kubelet | Self::Foreign)
    }
}

/// The owner of a user-defined chain.
pub fn owner(name: &[u8]) -> Owner {
    if let Some((kind, _)) = hashed(name) {
        return Owner::Hashed(kind);
    }
    match name {
        b"KUBE-SERVICES"
        | b"KUBE-EXTERNAL-SERVICES"
        | b"KUBE-NODEPORTS"
        | b"KUBE-FORWARD"
        | b"KUBE-PROXY-FIREWALL"
        | b"KUBE-POSTROUTING"
        | b"KUBE-MARK-MASQ" => Owner::KubeProxy,
        b"KUBE-PROXY-CANARY" => Owner::Canary,
        b"KUBE-FIREWALL" | b"KUBE-KUBELET-CANARY" | b"KUBE-IPTABLES-HINT" | b"KUBE-MARK-DROP" => Owner::Kubelet,
        b"KUBE-NODE-PORT"
        | b"KUBE-LOAD-BALANCER"
        | b"KUBE-SOURCE-RANGES-FIREWALL"
        | b"KUBE-IPVS-FILTER"
        | b"KUBE-IPVS-OUT-FILTER" => Owner::Ipvs,
        b"KUBE-PORTALS-HOST"
        | b"KUBE-PORTALS-CONTAINER"
        | b"KUBE-NODEPORT-HOST"
        | b"KUBE-NODEPORT-CONTAINER"
        | b"KUBE-NODEPORT-NON-LOCAL" => Owner::Userspace,
        _ => Owner::Foreign,
    }
}

/// Kind and hash of a chain of one Service port or endpoint.
pub fn hashed(name: &[u8]) -> Option<(Hashed, &[u8])> {
    let (kind, hash) = match name.strip_prefix(b"KUBE-")? {
        [b'S', b'E', b'P', b'-', hash @ ..] => (Hashed::Sep, hash),
        [b'S', b'V', b'C', b'-', hash @ ..] => (Hashed::Svc, hash),
        [b'S', b'V', b'L', b'-', hash @ ..] => (Hashed::Svl, hash),
        [b'E', b'X', b'T', b'-', hash @ ..] => (Hashed::Ext, hash),
        [b'F', b'W', b'-', hash @ ..] => (Hashed::Fw, hash),
        [b'X', b'L', b'B', b'-', hash @ ..] => (Hashed::Xlb, hash),
        _ => return None,
    };
    let is_hash = hash.len() == HASH_LEN && hash.iter().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'));
    is_hash.then_some((kind, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_names_only() {
        assert_eq!(owner(b"KUBE-SERVICES"), Owner::KubeProxy);
        assert_eq!(owner(b"KUBE-SVC-NPX46M4PTMTKRN6Y"), Owner::Hashed(Hashed::Svc));
        assert_eq!(owner(b"KUBE-FIREWALL"), Owner::Kubelet);
        assert_eq!(owner(b"KUBE-MARK-DROP"), Owner::Kubelet);
        assert_eq!(owner(b"KUBE-NODE-PORT"), Owner::Ipvs);
        for foreign in [
            "KUBE-SERVICES-2",
            "KUBE-SVC-NPX46M4PTMTKRN6",
            "KUBE-SVC-npx46m4ptmtkrn6y",
            "KUBE-SVC-NPX46M4PTMTKRN68",
            "KUBE-HOSTPORTS",
            "KUBE-HP-NPX46M4PTMTKRN6Y",
            "KUBE-ROUTER-FORWARD",
            "KUBE-NWPLCY-NPX46M4PTMTKRN6Y",
            "KUBE-POD-FW-NPX46M4PTMTKRN6Y",
            "CILIUM_POST_nat",
            "DOCKER",
        ] {
            assert_eq!(owner(foreign.as_bytes()), Owner::Foreign, "{foreign}");
        }
    }
}
