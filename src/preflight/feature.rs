//! What is asked for, as data: why, since when, what mends it, what kpx does without it.

use std::fmt;

use clap::ValueEnum;
use serde::{Serialize, Serializer};

use crate::inspect::kernel::Version;
use crate::severity::Severity;

/// What part of a node or cluster a feature belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// Hooks of sockets
    Sockets,
    /// Maps
    Maps,
    /// Hooks of network devices
    Packets,
    /// The kernel as a whole
    Kernel,
    /// What the migration needs
    Migration,
    /// How the node is set up
    Node,
    /// The cluster around it
    Cluster,
}

impl Area {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 7] =
        [Self::Sockets, Self::Maps, Self::Packets, Self::Kernel, Self::Migration, Self::Node, Self::Cluster];

    /// In one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Maps => "maps",
            Self::Packets => "packets",
            Self::Kernel => "kernel",
            Self::Migration => "migration",
            Self::Node => "node",
            Self::Cluster => "cluster",
        }
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Whose needs are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// kpx's own dataplane and migration
    #[default]
    Kpx,
    /// Cilium's replacement of kube-proxy
    Cilium,
}

/// One feature, as data.
pub struct Feature {
    /// Stable: `KPX-P101`.
    pub id: &'static str,
    /// Where it belongs.
    pub area: Area,
    /// Its name for `--require`.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
    /// What it is for.
    pub why: &'static str,
    /// What to do where it is missing.
    pub remedy: &'static str,
    /// What kpx does without it.
    pub without: &'static str,
    /// What to type to look at it.
    pub command: &'static str,
    /// The first Linux that has it, where versions tell.
    pub since: Option<Version>,
    /// Options of the kernel's configuration that must be on.
    pub config: &'static [&'static str],
    /// A name that the kernel's BTF has if the kernel has the feature.
    pub btf: Option<&'static str>,
    /// How bad its absence is for kpx; `None`: kpx does not need it.
    pub kpx: Option<Severity>,
    /// How bad its absence is for Cilium.
    pub cilium: Option<Severity>,
}

impl Feature {
    /// How bad its absence is; `None` if it is not needed.
    pub const fn need(&self, target: Target) -> Option<Severity> {
        match target {
            Target::Kpx => self.kpx,
            Target::Cilium => self.cilium,
        }
    }

    /// The worse of what its absence is for anybody.
    pub fn severity(&self) -> Severity {
        self.kpx.max(self.cilium).unwrap_or(Severity::Info)
    }

    /// Where the documentation has its section.
    pub fn link(&self) -> String {
        format!("docs/checks.md#{}", self.id.to_ascii_lowercase())
    }
}

impl fmt::Debug for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

impl Serialize for Feature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut out = serializer.serialize_struct("Feature", 9)?;
        out.serialize_field("id", self.id)?;
        out.serialize_field("area", &self.area)?;
        out.serialize_field("name", self.name)?;
        out.serialize_field("title", self.title)?;
        out.serialize_field("why", self.why)?;
        out.serialize_field("remedy", self.remedy)?;
        out.serialize_field("without", self.without)?;
        out.serialize_field("command", self.command)?;
        out.serialize_field("link", &self.link())?;
        out.end()
    }
}
