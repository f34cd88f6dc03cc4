//! Who serves Services on this node.

use std::path::PathBuf;

use crate::capture::Node;
use crate::dataplane::{Dataplane, Mode, Paths};
use crate::error::with_causes;
use crate::inspect::standing::{Standing, standing};
use crate::model::ServiceTable;
use crate::source::{self, Lifted, Places, Via};

/// Who serves.
pub(super) enum Serving {
    /// kpx, as far as its mode and its hooks go.
    Kpx(Box<Kpx>),
    /// kube-proxy's rules.
    Rules(Box<Lifted>),
    /// Nobody.
    Nobody,
    /// It cannot be told.
    Unknown(String),
}

/// kpx's dataplane.
pub(super) struct Kpx {
    pub(super) dataplane: Dataplane,
    pub(super) paths: Paths,
    pub(super) mode: Mode,
    /// What the maps hold.
    pub(super) table: ServiceTable,
    /// Rules of kube-proxy beside it.
    pub(super) rules: Result<Vec<Standing>, String>,
    /// The cgroup that the hooks should be attached to.
    pub(super) cgroup: Result<PathBuf, String>,
}

impl Kpx {
    /// Whether rules of kube-proxy take what kpx leaves alone.
    pub(super) fn beside_rules(&self) -> bool {
        self.rules.as_ref().is_ok_and(|rules| !rules.is_empty())
    }
}

impl Serving {
    pub(super) fn find(node: &Node, places: &Places, cgroup: Result<PathBuf, String>) -> Self {
        let found = if node.is_live() { Dataplane::adopt(&places.kpx) } else { Ok(None) };
        match found {
            Ok(Some(dataplane)) => Self::kpx(dataplane, places, cgroup),
            Ok(None) => Self::rules(node, places),
            Err(error) => Self::Unknown(with_causes(&error)),
        }
    }

    fn kpx(dataplane: Dataplane, places: &Places, cgroup: Result<PathBuf, String>) -> Self {
        match (dataplane.mode(), dataplane.table()) {
            (Ok(mode), Ok(table)) => Self::Kpx(Box::new(Kpx {
                dataplane,
                paths: places.kpx.clone(),
                mode,
                table,
                rules: standing().map_err(|error| with_causes(&error)),
                cgroup,
            })),
            (Err(error), _) | (_, Err(error)) => Self::Unknown(with_causes(&error)),
        }
    }

    fn rules(node: &Node, places: &Places) -> Self {
        let mut reasons = Vec::new();
        for via in [Via::Iptables, Via::Nftables, Via::Ipvs] {
            match source::read(via, node, places) {
                Ok(lifted) if lifted.table.frontends().is_empty() => {}
                Ok(lifted) => return Self::Rules(Box::new(lifted)),
                Err(error) => reasons.push(with_causes(&error)),
            }
        }
        if reasons.is_empty() { Self::Nobody } else { Self::Unknown(reasons.join("; ")) }
    }

    pub(super) const fn as_kpx(&self) -> Option<&Kpx> {
        match self {
            Self::Kpx(kpx) => Some(kpx),
            Self::Rules(_) | Self::Nobody | Self::Unknown(_) => None,
        }
    }

    /// What is served.
    pub(super) const fn table(&self) -> Option<&ServiceTable> {
        match self {
            Self::Kpx(kpx) => Some(&kpx.table),
            Self::Rules(lifted) => Some(&lifted.table),
            Self::Nobody | Self::Unknown(_) => None,
        }
    }
}
