//! What a check is, and what it can say.

use std::fmt;

use clap::ValueEnum;
use serde::{Serialize, Serializer};

use super::facts::Facts;
pub use crate::severity::Severity;

/// What part of a node a check looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// iptables rules, legacy and nft, IPv4 and IPv6
    Iptables,
    /// kube-proxy's nftables tables
    Nftables,
    /// kube-ipvs0, KUBE-* ipsets, chains of IPVS mode
    Ipvs,
    /// Connection tracking: who needs it, how large, how long
    Conntrack,
    /// BPF programs of other dataplanes
    Bpf,
    /// kube-proxy itself and the node around it
    Node,
    /// The rules against the API's Services and EndpointSlices
    Services,
}

impl Area {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 7] =
        [Self::Iptables, Self::Nftables, Self::Ipvs, Self::Conntrack, Self::Bpf, Self::Node, Self::Services];

    /// The word on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::Ipvs => "ipvs",
            Self::Conntrack => "conntrack",
            Self::Bpf => "bpf",
            Self::Node => "node",
            Self::Services => "services",
        }
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// The very thing a finding is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Where it is: tool, table, chain and rule; file and line; object and field.
    pub at: String,
    /// What stands there, or what it means.
    pub text: String,
    /// A command that shows or mends this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl Evidence {
    /// Something at a place.
    pub fn new(at: impl Into<String>, text: impl Into<String>) -> Self {
        Self { at: at.into(), text: text.into(), command: None }
    }

    /// The same with a command.
    #[must_use]
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }
}

/// Why a check could not be made: a clause that completes "skipped: ".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip(pub String);

impl Skip {
    /// The same for an error and its causes.
    pub fn because(error: &dyn std::error::Error) -> Self {
        Self(crate::error::with_causes(error))
    }
}

/// What a check found: nothing is good news.
pub type Found = Result<Vec<Evidence>, Skip>;

/// One check, as data.
pub struct Check {
    /// Stable: `KPX-A101`.
    pub id: &'static str,
    /// What it looks at.
    pub area: Area,
    /// Of its findings.
    pub severity: Severity,
    /// What it looks for, as a noun.
    pub title: &'static str,
    /// Why that matters.
    pub why: &'static str,
    /// What to do about it, a sentence or two.
    pub remedy: &'static str,
    /// What to type, with CAPITALS for what the operator knows.
    pub command: &'static str,
    /// The check itself.
    pub run: fn(&Facts<'_>) -> Found,
}

impl Check {
    /// Where the documentation has its section.
    pub fn link(&self) -> String {
        format!("docs/checks.md#{}", self.id.to_ascii_lowercase())
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut out = serializer.serialize_struct("Check", 8)?;
        out.serialize_field("id", self.id)?;
        out.serialize_field("area", &self.area)?;
        out.serialize_field("severity", &self.severity)?;
        out.serialize_field("title", self.title)?;
        out.serialize_field("why", self.why)?;
        out.serialize_field("remedy", self.remedy)?;
        out.serialize_field("command", self.command)?;
        out.serialize_field("link", &self.link())?;
        out.end()
    }
}
