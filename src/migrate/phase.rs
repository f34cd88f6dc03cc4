//! What a migration is made of: phases, their steps, and the gate behind each phase.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A phase of the migration of a node, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PhaseName {
    /// The node is recorded; nothing changes.
    Prepare,
    /// Programs and maps are pinned and filled; nothing is attached.
    Load,
    /// The hooks are attached and count what they would do; the rules serve.
    Shadow,
    /// New connections of sockets are served by the hooks; the rules stay for everything else.
    Sockets,
    /// What keeps the kernel's conntrack and NAT at work stands beside the rules.
    Hold,
    /// No kube-proxy writes rules any more.
    Stop,
    /// New flows at network devices are served by the packet path; those that the kernel knows pass.
    Packets,
    /// Running flows have changed hands.
    Handover,
    /// kube-proxy's rules are gone.
    Remove,
    /// Nothing keeps conntrack and NAT at work for kpx's sake any more.
    Release,
}

impl PhaseName {
    /// All phases, in order.
    pub const ALL: [Self; 10] = [
        Self::Prepare,
        Self::Load,
        Self::Shadow,
        Self::Sockets,
        Self::Hold,
        Self::Stop,
        Self::Packets,
        Self::Handover,
        Self::Remove,
        Self::Release,
    ];

    /// What the phase does, for people.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Prepare => "record the node, so that it can be compared with later",
            Self::Load => "pin programs and maps, fill the maps; nothing is attached",
            Self::Shadow => "attach the hooks, which count what they would do; the rules serve",
            Self::Sockets => "serve new connections of this node's sockets; the rules stay",
            Self::Hold => "keep conntrack and NAT at work whatever becomes of the rules",
            Self::Stop => "see to it that no kube-proxy writes rules any more",
            Self::Packets => "serve new flows at network devices; what the kernel knows passes",
            Self::Handover => "take running flows over from the kernel's NAT",
            Self::Remove => "remove kube-proxy's rules, and nothing else",
            Self::Release => "let go of conntrack and NAT once no flow needs them",
        }
    }
}

impl PhaseName {
    /// Who serves new connections behind it, as a clause.
    pub const fn who_serves(self) -> &'static str {
        match self {
            Self::Prepare | Self::Load | Self::Shadow => "the rules serve",
            Self::Sockets | Self::Hold => {
                "the hooks serve new connections of this node's sockets, the rules everything else"
            }
            Self::Stop => {
                "the hooks serve new connections of this node's sockets, the rules everything else, and nobody brings \
                 the rules up to date"
            }
            Self::Packets => "eBPF serves what is new; flows that the kernel knew stay with it",
            Self::Handover => "eBPF serves, and the rules stay",
            Self::Remove | Self::Release => "eBPF serves",
        }
    }
}

impl fmt::Display for PhaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Prepare => "prepare",
            Self::Load => "load",
            Self::Shadow => "shadow",
            Self::Sockets => "sockets",
            Self::Hold => "hold",
            Self::Stop => "stop",
            Self::Packets => "packets",
            Self::Handover => "handover",
            Self::Remove => "remove",
            Self::Release => "release",
        })
    }
}

/// What steps and gates act upon: the real node, or a fake one in tests.
pub trait World {
    /// What can go wrong in a step.
    type Error: std::error::Error + 'static;
    /// What the words of steps depend on; known before anything is done.
    type Facts;

    /// The facts.
    fn facts(&self) -> &Self::Facts;

    /// What the step at hand has found out and wants to be kept; asked once, behind each step.
    fn take_found(&mut self) -> Found {
        Found::default()
    }
}

/// What a step has found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In words, if anything.
    pub note: Option<String>,
    /// How much of what it moved or removed.
    pub counts: BTreeMap<String, u64>,
}

/// Whether a step's effect is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// All of it is.
    Done,
    /// Some or all of it is not; the clause completes "not done: ".
    NotDone(String),
}

impl Check {
    /// Whether all of the effect is there.
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}

/// One change of the node. Every method may be called at any time, in any state a crash can leave behind.
pub trait Step<W: World> {
    /// Stable name, unique in the migration.
    fn id(&self) -> &'static str;

    /// Whether it has to be undone.
    fn lasting(&self) -> Lasting {
        Lasting::Change
    }

    /// What [`Self::perform`] will do, with the objects it touches.
    fn describe(&self, facts: &W::Facts) -> String;

    /// What [`Self::undo`] will do. Never asked of a [`Lasting::Record`].
    fn describe_undo(&self, facts: &W::Facts) -> String {
        format!("undo: {}", self.describe(facts))
    }

    /// Looks at the node: is the effect there?
    fn check(&self, world: &mut W) -> Result<Check, W::Error>;

    /// Why it is too early for this step, and nothing is wrong: the run ends well in front of it and a later one goes on.
    fn waits(&self, _world: &mut W) -> Result<Option<String>, W::Error> {
        Ok(None)
    }

    /// How long such a reason may last before the run ends in front of the step.
    fn patience(&self, _world: &W) -> Duration {
        Duration::ZERO
    }

    /// Whether the step is done all the same once that time is over.
    fn goes_on(&self, _world: &W) -> bool {
        false
    }

    /// Brings the effect about; harmless when it is there already, in whole or in part.
    fn perform(&self, world: &mut W) -> Result<(), W::Error>;

    /// Takes the effect away; harmless when it is not there, or only in part. Never asked of a [`Lasting::Record`].
    fn undo(&self, _world: &mut W) -> Result<(), W::Error> {
        Ok(())
    }

    /// Looks at the node after [`Self::undo`]: is the effect gone?
    fn is_undone(&self, world: &mut W) -> Result<bool, W::Error> {
        Ok(!self.check(world)?.is_done())
    }
}

/// Whether undoing a step is needed to bring the node back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// It changes the node.
    Change,
    /// It changes what others may change as well: it is undone only if the journal says that it was begun.
    IfBegun,
    /// It only writes something down, or into what another step takes away: there is nothing to undo.
    Record,
}

/// One thing a gate looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name of the check.
    pub check: &'static str,
    /// Whether it is as it must be.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
}

impl Finding {
    /// A passed check.
    pub fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, ok: true, detail: detail.into() }
    }

    /// A failed check.
    pub fn fail(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, ok: false, detail: detail.into() }
    }
}

/// What must hold behind a phase before the next may begin. Changes nothing.
pub trait Gate<W: World> {
    /// What is looked at, for people.
    fn describe(&self) -> &'static str;

    /// Looks.
    fn findings(&self, world: &mut W) -> Result<Vec<Finding>, W::Error>;
}

/// One phase: steps in order, then a gate.
pub struct Phase<W: World> {
    /// Its name.
    pub name: PhaseName,
    /// Its steps, in the order they are done; undone in reverse.
    pub steps: Vec<Box<dyn Step<W>>>,
    /// The gate behind it.
    pub gate: Option<Box<dyn Gate<W>>>,
    /// Whether the steps are undone at once when the gate behind them is not passed: for a phase that moves traffic.
    pub undo_on_failed_gate: bool,
}
