//! What eBPF dataplanes keep besides Services, by the name an operator types.

use std::fmt;

use clap::ValueEnum;

use crate::dataplane::{Dataplane, DataplaneError};
use crate::inspect::cilium::{self, Pins};
use crate::inspect::entry::{Affinity, Flow, Frontends, Maglev, Nat};
use crate::source::{Places, Remark, SourceError};

/// A dataplane that keeps flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Keeper {
    /// kpx's own pinned BPF maps
    Ebpf,
    /// Cilium's pinned BPF maps
    Cilium,
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ebpf => "ebpf",
            Self::Cilium => "cilium",
        })
    }
}

/// Entries of one sort, with what is needed to name their services.
#[derive(Debug)]
pub struct Kept<T> {
    /// Who keeps them.
    pub keeper: Keeper,
    /// What exactly was read.
    pub place: String,
    /// The entries.
    pub entries: Vec<T>,
    /// The frontends of each service id.
    pub frontends: Frontends,
    /// What the reader met and did not take for granted.
    pub notices: Vec<Remark>,
}

impl Keeper {
    /// Who keeps flows on this node if nobody is named: Cilium where only its maps are pinned, else kpx.
    pub fn find(places: &Places) -> Self {
        let kpx = places.kpx.pins.is_dir();
        if !kpx && cilium::is_there(&places.cilium).unwrap_or(false) { Self::Cilium } else { Self::Ebpf }
    }

    fn read<T>(
        self,
        places: &Places,
        own: impl FnOnce(&Dataplane) -> Result<Vec<T>, DataplaneError>,
        ciliums: impl FnOnce(&Pins, &cilium::State) -> Result<(Vec<T>, Vec<cilium::Notice>), cilium::CiliumError>,
    ) -> Result<Kept<T>, SourceError> {
        match self {
            Self::Ebpf => {
                let dataplane = Dataplane::expect(&places.kpx)?;
                let place = format!("BPF maps in {}", places.kpx.pins.display());
                let (entries, frontends) = (own(&dataplane)?, dataplane.frontends()?);
                Ok(Kept { keeper: self, place, entries, frontends, notices: Vec::new() })
            }
            Self::Cilium => {
                let pins = Pins::new(&places.cilium);
                let state = pins.state()?;
                let (entries, notices) = ciliums(&pins, &state)?;
                let (_, _, frontends) = cilium::lift(&state);
                let remark = |notice: &cilium::Notice| Remark { code: notice.code(), text: notice.to_string() };
                let notices = notices.iter().map(remark).collect();
                let place = format!("Cilium's maps in {}", places.cilium.display());
                Ok(Kept { keeper: self, place, entries, frontends, notices })
            }
        }
    }

    /// Clients that stay with their backends.
    pub fn affinity(self, places: &Places) -> Result<Kept<Affinity>, SourceError> {
        self.read(places, Dataplane::affinity, Pins::affinity)
    }

    /// Flows that the packet path knows.
    pub fn conntrack(self, places: &Places) -> Result<Kept<Flow>, SourceError> {
        self.read(places, Dataplane::conntrack, Pins::conntrack)
    }

    /// Translations of addresses.
    pub fn nat(self, places: &Places) -> Result<Kept<Nat>, SourceError> {
        self.read(places, Dataplane::nat, |pins, _| pins.nat())
    }

    /// Maglev tables.
    pub fn maglev(self, places: &Places) -> Result<Kept<Maglev>, SourceError> {
        self.read(places, Dataplane::maglev, Pins::maglev)
    }
}
