//! Carrying a node over: the plan, its steps, the journal, the gates between phases, and the way back.
//!
//! A [`Plan`] is a value made from a [`Survey`] without touching the node. The [`Engine`] runs a list of [`Phase`]s
//! forward and backward; every step can say whether it is done, can be done twice and can be undone, and the
//! [`Journal`] has an intent before and a result after each. So an engine that died anywhere can be run again, in
//! either direction.

mod engine;
pub mod flows;
mod journal;
mod phase;
mod plan;
mod planner;
mod proxy;
mod store;
mod survey;

pub use engine::{Engine, EngineError, Notice, Outcome};
pub use journal::{Action, Event, Failpoint, Journal, JournalError, Mark, Progress, Record};
pub use journal::{Direction, End};
pub use phase::{Check, Finding, Gate, Phase, PhaseName, Step, World};
pub use plan::{Blocker, BlockerId, Counts, NodeId, Plan, PlannedFrontend, PlannedPhase, PlannedStep, Server, Warning};
pub use planner::Planner;
pub use proxy::ProxyHealth;
pub use store::{Holder, Lock, Migration, Store, StoreError};
pub use survey::{ForeignHook, Host, Lifted, OpenMigration, Rules, Survey};
