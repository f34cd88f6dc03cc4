//! Carrying a node over: the plan, its steps, the journal, the gates between phases, and the way back.
//!
//! A [`Plan`] is a value made from a [`Survey`] without touching the node. The [`Engine`] runs a list of [`Phase`]s
//! forward and backward; every step can say whether it is done, can be done twice and can be undone, and the
//! [`Journal`] has an intent before and a result after each. So an engine that died anywhere can be run again, in
//! either direction.

mod driver;
mod engine;
mod gates;
mod journal;
mod marks;
mod phase;
mod plan;
mod planner;
pub mod probe;
mod proxy;
pub mod removal;
mod session;
mod status;
mod steps;
mod store;
mod survey;
mod switch;
mod took;
mod world;

pub use driver::{
    Bar, Bare, Choice, ClusterError, DaemonSet, DriverError, Found as FoundDriver, Named, ProxyDriver, StaticPod, Unit,
    Verdict, kube_proxy_runs,
};
pub use engine::{Engine, EngineError, Notice, Outcome};
pub use journal::{Action, Direction, End, Event, Journal, JournalError, Mark, Progress, Record};
pub use marks::Marks;
pub use phase::{Check, Finding, Found, Gate, Lasting, Phase, PhaseName, Step, World};
pub use plan::{
    Accept, Blocker, BlockerId, Counts, Inputs, NodeId, Plan, PlannedFrontend, PlannedPhase, PlannedStep, Server,
    Source, Target, Warning, Wishes,
};
pub use planner::plan;
pub use proxy::{Healthz, ProxyHealth, SyncTimes};
pub use session::{Session, SessionError, SessionOptions, Status};
pub use status::{Serving, Standing, StepStatus, Summary};
pub use steps::Facts;
pub use store::{Holder, Lock, Migration, Store, StoreError};
pub use survey::{Host, Lifted, OpenMigration, ReadError, Rules, Survey, Tables};
pub use switch::{ForwardError, ProxyError};
pub use took::{PhaseTook, Took};
pub use world::{KernelFlows, NodeWorld, RunOptions, StepError};
