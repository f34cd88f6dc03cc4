//! What a reader of the table should know besides the table: where kpx had to assume something.

use std::fmt;

use ipnet::IpNet;

use super::config::Source;
use crate::model::{Family, KubeVersion};

/// How kpx came to the name of the node when nothing said it outright.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameGuess {
    /// The node has an address of this Node object, and of no other.
    Address,
    /// There is only one Node object.
    OnlyNode,
}

/// Something the table rests on that was not read from the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Neither `/configz` nor a log nor a ConfigMap nor the operator tells kube-proxy's configuration.
    NoConfiguration,
    /// A flag given by the operator says something else than the node; the node is believed.
    FlagOverruled {
        /// The setting.
        setting: &'static str,
        /// Where the value in use was read.
        source: Source,
    },
    /// `clusterCIDR` has more than one network of a family; kube-proxy uses the first only.
    ClusterCidrUnused(IpNet),
    /// kube-proxy's version is not known.
    VersionAssumed {
        /// The version whose rules were applied.
        version: KubeVersion,
        /// Whether it is the kubelet's on the Node object, rather than the newest kpx knows.
        from_kubelet: bool,
    },
    /// The node's name was inferred.
    NameGuessed {
        /// The name.
        name: String,
        /// How.
        by: NameGuess,
    },
    /// No Node object has the node's name: zone, addresses and pod CIDRs are not known, and no endpoint may count as local.
    NodeMissing {
        /// The name looked for.
        name: String,
    },
    /// detectLocalMode is NodeCIDR and the Node has no pod CIDR of a family.
    NoPodCidr {
        /// The family.
        family: Family,
    },
    /// NodePorts are limited to some addresses and the node's interfaces were not captured: the Node object's were used.
    AddressesFromNodeObject,
    /// NodePorts are limited to some addresses and none are known.
    AddressesUnknown,
    /// A Service of type LoadBalancer with externalTrafficPolicy Local has no healthCheckNodePort; kube-proxy logs an error
    /// and serves none.
    NoHealthCheckPort {
        /// `namespace/name`.
        service: String,
    },
    /// An annotation of kpx's own at a Service has a value that nothing knows: it counts as not there.
    UnknownChoice {
        /// `namespace/name`.
        service: String,
        /// The annotation.
        annotation: &'static str,
        /// The value.
        value: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConfiguration => f.write_str(
                "kube-proxy's configuration is not known (no /configz, log or ConfigMap): its defaults are assumed, and how \
                 it recognises pods is left open",
            ),
            Self::FlagOverruled { setting, source } => {
                write!(f, "the given {setting} is not used: {source} says otherwise")
            }
            Self::ClusterCidrUnused(net) => {
                write!(f, "clusterCIDR {net} has no effect: kube-proxy uses the first network of each family")
            }
            Self::VersionAssumed { version, from_kubelet: true } => {
                write!(f, "kube-proxy's version is not known: the kubelet's, {version}, is assumed")
            }
            Self::VersionAssumed { version, from_kubelet: false } => {
                write!(f, "kube-proxy's version is not known: endpoints are chosen as {version} does")
            }
            Self::NameGuessed { name, by } => write!(
                f,
                "node name {name} assumed: {} (--node-name says otherwise)",
                match by {
                    NameGuess::Address => "this node has an address of that Node and of no other",
                    NameGuess::OnlyNode => "it is the only Node",
                }
            ),
            Self::NodeMissing { name } => write!(
                f,
                "no Node object is named {name:?}: its zone, addresses and pod CIDRs are not known, and endpoints count as \
                 local only if they name it"
            ),
            Self::NoPodCidr { family } => {
                write!(f, "detectLocalMode is NodeCIDR and the Node has no {family} pod CIDR: pods count as outside")
            }
            Self::AddressesFromNodeObject => f.write_str(
                "the node's interfaces were not captured: nodePortAddresses was matched with the Node object's addresses",
            ),
            Self::AddressesUnknown => {
                f.write_str("the node's addresses are not known: where nodePortAddresses lets NodePorts in is left open")
            }
            Self::NoHealthCheckPort { service } => {
                write!(f, "Service {service} needs a healthCheckNodePort and has none: no health check is served")
            }
            Self::UnknownChoice { service, annotation, value } => {
                write!(f, "Service {service} has the annotation {annotation}: {value:?}, which kpx does not know: it has no effect")
            }
        }
    }
}
