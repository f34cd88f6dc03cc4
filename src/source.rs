//! Where a [`ServiceTable`] can come from, by the name an operator types.

use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;

use crate::capture::Node;
use crate::dataplane::{Dataplane, DataplaneError, Paths};
use crate::error::Hinted;
use crate::inspect::cilium::{self, CiliumError};
use crate::inspect::iptables::{self, IptablesError};
use crate::inspect::ipvs::{self, IpvsError};
use crate::inspect::kube::{self, KubeError};
use crate::inspect::nftables::{self, NftablesError};
use crate::model::ServiceTable;
pub use crate::model::join_names;

/// A description of a node's Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Via {
    /// Services, EndpointSlices and Nodes of the Kubernetes API
    Api,
    /// The rules kube-proxy wrote, legacy or nft
    Iptables,
    /// The tables kube-proxy wrote in nftables mode
    Nftables,
    /// The virtual services, sets and rules kube-proxy wrote in IPVS mode
    Ipvs,
    /// kpx's own pinned BPF maps
    Ebpf,
    /// Cilium's pinned BPF maps
    Cilium,
}

impl Via {
    /// Whether names of Services are not in there, and have to come from elsewhere.
    pub const fn is_nameless(self) -> bool {
        matches!(self, Self::Ipvs | Self::Ebpf | Self::Cilium)
    }

    /// The heading of a column of what was read there.
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Api => "API",
            Self::Iptables => "IPTABLES",
            Self::Nftables => "NFTABLES",
            Self::Ipvs => "IPVS",
            Self::Ebpf => "EBPF",
            Self::Cilium => "CILIUM",
        }
    }
}

/// Where dataplanes pin their maps.
#[derive(Clone, Debug)]
pub struct Places {
    /// kpx's.
    pub kpx: Paths,
    /// Cilium's maps.
    pub cilium: PathBuf,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Api => "api",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::Ipvs => "ipvs",
            Self::Ebpf => "ebpf",
            Self::Cilium => "cilium",
        })
    }
}

/// A table with what its reader had to say.
#[derive(Clone, Debug)]
pub struct Lifted {
    /// The source.
    pub via: Via,
    /// What exactly was read, such as `iptables (legacy) of node-a`.
    pub place: String,
    /// The table.
    pub table: ServiceTable,
    /// What the reader met and did not take for granted.
    pub notices: Vec<Remark>,
}

/// Something a reader met that the table alone does not tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// A word for its kind, stable for scripts.
    pub code: &'static str,
    /// One sentence.
    pub text: String,
}

/// Why there is no table from a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The API's.
    #[error(transparent)]
    Api(#[from] KubeError),
    /// The rules'.
    #[error(transparent)]
    Iptables(#[from] IptablesError),
    /// The tables'.
    #[error(transparent)]
    Nftables(#[from] NftablesError),
    /// IPVS's.
    #[error(transparent)]
    Ipvs(#[from] IpvsError),
    /// The maps'.
    #[error(transparent)]
    Ebpf(#[from] DataplaneError),
    /// Cilium's.
    #[error(transparent)]
    Cilium(#[from] CiliumError),
    /// A snapshot lists maps, but not what is in them.
    #[error("{label} is a snapshot, and what BPF maps hold is not in one")]
    NoMaps {
        /// The snapshot.
        label: String,
    },
}

impl Hinted for SourceError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Api(error) => error.hints(),
            Self::Iptables(error) => error.hints(),
            Self::Nftables(error) => error.hints(),
            Self::Ipvs(error) => error.hints(),
            Self::Ebpf(error) => error.hints(),
            Self::Cilium(error) => error.hints(),
            Self::NoMaps { .. } => vec!["run it on the node itself, without --from".to_owned()],
        }
    }
}

/// Reads the table of a node from one source; `places` is where the maps of dataplanes would be.
pub fn read(via: Via, node: &Node, places: &Places) -> Result<Lifted, SourceError> {
    Ok(match via {
        Via::Api => {
            let state = kube::read_node(node)?;
            let remark = |notice: &kube::Notice| Remark { code: "assumed", text: notice.to_string() };
            Lifted {
                via,
                place: format!("API objects for node {}", state.node_name),
                notices: state.notices.iter().map(remark).collect(),
                table: state.table,
            }
        }
        Via::Iptables => {
            let state = iptables::read_node(node)?;
            let place = match state.variant {
                Some(variant) => format!("iptables-{variant} of {}", node.label()),
                None => format!("iptables of {} (no rules of kube-proxy)", node.label()),
            };
            let remark = |notice: &iptables::Notice| Remark { code: notice.code(), text: notice.to_string() };
            Lifted { via, place, notices: state.notices.iter().map(remark).collect(), table: state.table }
        }
        Via::Nftables => {
            let state = nftables::read_node(node)?;
            let none = if state.ruleset.is_empty() { " (no tables of kube-proxy)" } else { "" };
            let place = format!("nftables of {}{none}", node.label());
            let remark = |notice: &nftables::Notice| Remark { code: notice.code(), text: notice.to_string() };
            Lifted { via, place, notices: state.notices.iter().map(remark).collect(), table: state.table }
        }
        Via::Ipvs => {
            let state = ipvs::read_node(node)?;
            let none = if state.state.ipvs.version.is_none() { " (the kernel has none)" } else { "" };
            let place = format!("IPVS of {}{none}", node.label());
            let remark = |notice: &ipvs::Notice| Remark { code: notice.code(), text: notice.to_string() };
            Lifted { via, place, notices: state.notices.iter().map(remark).collect(), table: state.table }
        }
        Via::Ebpf | Via::Cilium if !node.is_live() => return Err(SourceError::NoMaps { label: node.label() }),
        Via::Ebpf => Lifted {
            via,
            place: format!("BPF maps in {}", places.kpx.pins.display()),
            table: Dataplane::expect(&places.kpx)?.table()?,
            notices: Vec::new(),
        },
        Via::Cilium => {
            let (table, notices, _) = cilium::lift(&cilium::Pins::new(&places.cilium).state()?);
            let remark = |notice: &cilium::Notice| Remark { code: notice.code(), text: notice.to_string() };
            let place = format!("Cilium's maps in {}", places.cilium.display());
            Lifted { via, place, table, notices: notices.iter().map(remark).collect() }
        }
    })
}
