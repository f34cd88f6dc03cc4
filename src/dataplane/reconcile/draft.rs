//! A plan in the making: its writes by phase, in the one order in which no reader meets a hole.

use kpx_abi::{Backend, Frontend, FrontendKey, SourceKey};
use serde::Serialize;
use thiserror::Error;

/// One write to the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum Op {
    /// Zeroes the counters of a service id about to be used.
    ResetStats { service: u32 },
    /// Writes a backend that no slot names yet, or gives one further flags.
    PutBackend { id: u32, backend: Backend },
    /// Writes slots that no entry names yet.
    PutSlots { base: u32, ids: Vec<u32> },
    /// Lets a network in.
    PutSource { key: SourceKey },
    /// Writes an entry that the index does not name yet.
    PutFrontend { entry: u32, frontend: Frontend },
    /// Makes a frontend lead to an entry.
    PutIndex { key: FrontendKey, entry: u32 },
    /// Takes a frontend out of service.
    DeleteIndex { key: FrontendKey },
    /// Takes flags from a backend, or marks one that no list names any more.
    TrimBackend { id: u32, backend: Backend },
    /// Lets a network in no more.
    DeleteSource { key: SourceKey },
}

impl Op {
    /// The phase it belongs to. Alike next to alike, so that each kind is one batch.
    const fn phase(&self) -> u8 {
        match self {
            Self::ResetStats { .. } => 0,
            Self::PutBackend { .. } => 1,
            Self::PutSlots { .. } => 2,
            Self::PutSource { .. } => 3,
            Self::PutFrontend { .. } => 4,
            Self::PutIndex { .. } => 5,
            Self::DeleteIndex { .. } => 6,
            Self::TrimBackend { .. } => 7,
            Self::DeleteSource { .. } => 8,
        }
    }
}

/// What a reconcile did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Frontends that were not served before.
    pub frontends_added: usize,
    /// Frontends that are served otherwise than before.
    pub frontends_changed: usize,
    /// Frontends no longer served.
    pub frontends_removed: usize,
    /// Backends written.
    pub backends_added: usize,
    /// Backends retired.
    pub backends_removed: usize,
    /// Writes in all.
    pub writes: usize,
}

impl Changes {
    /// Whether nothing had to be done.
    pub const fn is_empty(&self) -> bool {
        self.writes == 0
    }

    /// Both together.
    pub(in crate::dataplane) const fn plus(&self, other: &Self) -> Self {
        Self {
            frontends_added: self.frontends_added + other.frontends_added,
            frontends_changed: self.frontends_changed + other.frontends_changed,
            frontends_removed: self.frontends_removed + other.frontends_removed,
            backends_added: self.backends_added + other.backends_added,
            backends_removed: self.backends_removed + other.backends_removed,
            writes: self.writes + other.writes,
        }
    }
}

/// A map has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("map {map} is full: {size} entries")]
pub struct Full {
    /// The map.
    pub map: &'static str,
    /// How many entries it has.
    pub size: u32,
    /// Whether some of them are free soon: they rest, lest a running program meet them in a new role.
    pub resting: bool,
}

/// A plan in the making.
#[derive(Default)]
pub(super) struct Draft {
    ops: Vec<Op>,
    pub(super) changes: Changes,
}

impl Draft {
    pub(super) fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// The writes in their order.
    pub(super) fn finish(mut self) -> (Vec<Op>, Changes) {
        self.ops.sort_by_key(Op::phase);
        let changes = Changes { writes: self.ops.len(), ..self.changes };
        (self.ops, changes)
    }
}
