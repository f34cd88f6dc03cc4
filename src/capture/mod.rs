//! The one door to raw state: a live node, or a snapshot of one on disk.
//!
//! Everything raw (the bytes of `iptables-save`, netlink dumps, /proc files, API lists) is an [`Item`] and comes through
//! [`Node::read`]; nothing else touches the host for reading. A snapshot is that door recorded.

use std::path::PathBuf;

use crate::model::Family;

/// Backend of the iptables tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// x_tables in the kernel.
    Legacy,
    /// nf_tables in the kernel.
    Nft,
}

/// One kind of raw state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// `iptables-save -c` of one backend and family.
    IptablesSave(Family, Variant),
    /// `nft -j list ruleset`.
    NftRuleset,
    /// `nfacct list`.
    Nfacct,
    /// `ipset save`.
    Ipset,
    /// `ip -j -d addr`.
    Addresses,
    /// `ip -j route show table all` of both families in one array.
    Routes,
    /// `ip -j rule`.
    RouteRules,
    /// The networking lines of `sysctl -a`.
    Sysctl,
    /// `/proc/net/nf_conntrack`, or what stands for it.
    Conntrack,
    /// kube-proxy's `/proxyMode`.
    ProxyMode,
    /// kube-proxy's `/configz`.
    Configz,
    /// kube-proxy's `/healthz` on port 10256, with headers.
    Healthz,
    /// kube-proxy's `/metrics`.
    Metrics,
    /// kube-proxy's log, flags included.
    ProxyLog,
    /// kube-proxy's ConfigMap.
    ProxyConfigMap,
    /// Services, as an API LIST answer.
    Services,
    /// EndpointSlices, as an API LIST answer.
    EndpointSlices,
    /// Nodes, as an API LIST answer.
    Nodes,
    /// BPF programs, links and maps.
    BpfObjects,
    /// Kernel release, boot id, host name.
    Host,
}

/// Raw state, or why there is none.
#[derive(Clone, Debug)]
pub enum Captured {
    /// The bytes, and where they come from (a path or a command line).
    Present {
        /// The bytes, unpacked.
        bytes: Vec<u8>,
        /// A path or a command line, for messages.
        place: String,
    },
    /// Nothing, with the reason.
    Absent {
        /// The reason, a clause that completes "not captured: ".
        reason: String,
    },
}

/// Where a node is read from and acted upon: the global options of the command line.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// A snapshot to read instead of the live node.
    pub from: Option<PathBuf>,
    /// API objects from a file or folder.
    pub services_from: Option<PathBuf>,
    /// Name of the Node object.
    pub node_name: Option<String>,
    /// kubeconfig and context for the API.
    pub kubeconfig: Option<PathBuf>,
    /// Context inside the kubeconfig.
    pub context: Option<String>,
}
