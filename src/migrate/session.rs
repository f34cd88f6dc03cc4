//! One command at work on one node: where it is read, where its state is kept, and what may be done with it.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::driver::{self, Choice, ProxyDriver, Verdict};
use super::engine::{Engine, EngineError, Notice, Outcome};
use super::gates;
use super::journal::{Direction, Journal, Mark, Progress};
use super::marks::Marks;
use super::phase::{Finding, Found, Phase, PhaseName};
use super::plan::{Accept, BlockerId, NodeId, Plan, Target, Wishes};
use super::planner;
use super::removal::{Removal, State};
use super::status::{self, Serving, Standing, StepStatus};
use super::steps::{self, Facts};
use super::store::{Lock, Migration, Store, StoreError};
use super::survey::{self, OpenMigration, ReadError, Survey};
use super::switch::{SERVE_PACKETS, STOP};
use super::took::Took;
use super::world::{NodeWorld, RunOptions, StepError};
use crate::capture::{self, Node, NodeOptions};
use crate::dataplane::{Mode, Paths};
use crate::error::Hinted;
use crate::inspect::proxy_rules::RulesMode;
use crate::inspect::standing::{StandingError, standing};
use crate::model::ServiceTable;

/// Which node, and where its state is.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// How the node is read.
    pub node: NodeOptions,
    /// cgroup whose sockets are served; `None`: the cgroup2 root.
    pub cgroup: Option<PathBuf>,
    /// Directory of the pins.
    pub pins: PathBuf,
    /// State directory.
    pub state_dir: PathBuf,
}

/// One command at work on one node.
pub struct Session {
    node: Node,
    cgroup: Result<PathBuf, String>,
    pins: PathBuf,
    store: Store,
}

/// Why a migration cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Reading the node.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The state directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A step, or a look at the node.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError<StepError>),
    /// A snapshot cannot be changed.
    #[error("{label} is a snapshot; only a live node can be migrated")]
    Snapshot {
        /// Which.
        label: String,
    },
    /// The saved plan is of another node, or the node has changed.
    #[error("the plan no longer matches this node: {}", .changes.join("; "))]
    PlanStale {
        /// What changed.
        changes: Vec<String>,
    },
    /// A saved plan is given while another one is being carried out.
    #[error("migration {id} is under way with another plan")]
    OtherPlan {
        /// The migration.
        id: String,
    },
    /// The state directory's migration is of another node.
    #[error("migration {id} in {state_dir} belongs to another node: {changes}")]
    OtherNode {
        /// The migration.
        id: String,
        /// Where it is recorded.
        state_dir: PathBuf,
        /// What tells them apart.
        changes: String,
    },
    /// kube-proxy cannot be stopped as the operator says.
    #[error("kube-proxy cannot be stopped so: {why}")]
    Driver {
        /// Why.
        why: String,
        /// What to do about it.
        remedy: String,
    },
    /// There is nothing to verify.
    #[error("nothing is migrated on this node")]
    Nothing,
}

impl Hinted for SessionError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Read(source) => source.hints(),
            Self::Store(source) => source.hints(),
            Self::Step(source) => source.hints(),
            Self::Engine(source) => source.hints(),
            Self::Snapshot { .. } => {
                vec!["leave out --from, or rehearse on the snapshot: kpx migrate rehearse --from SNAPSHOT".to_owned()]
            }
            Self::PlanStale { .. } => vec!["make a new plan: kpx migrate plan --out FILE".to_owned()],
            Self::OtherPlan { .. } => {
                vec!["finish it with kpx migrate apply, or go back with kpx migrate rollback".to_owned()]
            }
            Self::OtherNode { .. } => vec!["give each node a state directory of its own: --state-dir DIR".to_owned()],
            Self::Driver { remedy, .. } => vec![remedy.clone()],
            Self::Nothing => vec!["kpx migrate plan".to_owned()],
        }
    }
}

impl SessionError {
    /// Whether a step only waits for UDP sockets.
    pub const fn is_waiting(&self) -> bool {
        matches!(self, Self::Engine(EngineError::Step { source, .. }) if source.is_waiting())
    }

    /// Whether a signal ended the waiting.
    pub const fn is_interrupted(&self) -> bool {
        matches!(self, Self::Engine(EngineError::Step { source: StepError::Interrupted, .. }))
    }

    /// Whether the engine had begun, so that the node may be part-way.
    pub const fn is_part_way(&self) -> bool {
        matches!(self, Self::Engine(_))
    }
}

/// What `kpx migrate status` shows.
#[derive(Clone, Debug)]
pub struct Status {
    /// The migration; `None` where there is none.
    pub id: Option<String>,
    /// Name of the node.
    pub node: String,
    /// Where it stands.
    pub standing: Option<Standing>,
    /// Its steps.
    pub steps: Vec<StepStatus>,
    /// What steps found out.
    pub notes: Vec<(&'static str, String)>,
    /// Who serves.
    pub serving: Serving,
    /// What the latest way there took.
    pub there: Option<Took>,
    /// What the latest way back took.
    pub back: Option<Took>,
}

impl Status {
    /// One sentence.
    pub fn describe(&self) -> String {
        match (&self.id, &self.standing) {
            (Some(id), Some(standing)) => {
                let nobody = if self.serving == Serving::Nobody { "; NOBODY SERVES" } else { "" };
                format!("Migration {id} of {}: {}{nobody}", self.node, standing.describe())
            }
            _ => format!("No migration of {} is under way or in force; the rules serve", self.node),
        }
    }

    /// What to do next.
    pub fn next(&self) -> Vec<(&'static str, &'static str)> {
        let Some(standing) = &self.standing else { return vec![("plan", "see what a migration would do")] };
        let mut next = standing.next().to_vec();
        let behind = |s: &StepStatus| s.is_record && s.journal == Mark::Done && s.on_node == Some(false);
        let stands = matches!(standing, Standing::InForce | Standing::Waiting { .. } | Standing::Stopped { .. });
        if stands && self.steps.iter().any(behind) {
            next.insert(0, ("apply", "bring the maps up to date"));
        }
        next
    }
}

impl Session {
    /// Opens a node; nothing is read yet.
    pub fn open(options: SessionOptions) -> Result<Self, SessionError> {
        let node = Node::open(&options.node).map_err(ReadError::from)?;
        let cgroup = match options.cgroup {
            Some(path) => Ok(path),
            // What this machine has says nothing about the recorded one.
            None if !node.is_live() => Ok(PathBuf::from("/sys/fs/cgroup")),
            None => capture::cgroup::root().map_err(|e| e.to_string()),
        };
        Ok(Self { node, cgroup, pins: options.pins, store: Store::new(options.state_dir) })
    }

    /// Whether the node is live.
    pub const fn is_live(&self) -> bool {
        self.node.is_live()
    }

    /// Takes the lock of the node.
    pub fn lock(&self, timeout: Duration) -> Result<Lock, SessionError> {
        if !self.is_live() {
            return Err(SessionError::Snapshot { label: self.node.label() });
        }
        Ok(self.store.lock(timeout)?)
    }

    /// Reads everything a plan is made from.
    fn survey(&self, driver: &Choice) -> Result<Survey, SessionError> {
        let open = if self.is_live() { self.store.current()? } else { None };
        let kept = open.as_ref().map(Migration::recorded).transpose().map_err(ReadError::from)?.flatten();
        let mut survey = survey::read(&self.node, kept.as_ref(), &self.cgroup, &self.pins, driver)?;
        if let Some(open) = open {
            let complete = open.progress()?.end == Some(super::End::Complete);
            survey.open_migration = Some(OpenMigration { id: open.id, complete });
        }
        Ok(survey)
    }

    /// Makes a plan of the node as it is now.
    pub fn plan(&self, wishes: &Wishes) -> Result<Plan, SessionError> {
        Ok(planner::plan(&self.survey(&wishes.driver)?, wishes))
    }

    /// Why a migration that is under way cannot go on, as the node is now.
    pub fn blockers(&self, migration: &Migration) -> Result<Plan, SessionError> {
        let wishes = migration.plan()?.wishes();
        let mut survey = self.survey(&wishes.driver)?;
        survey.open_migration = None;
        let mut plan = planner::plan(&survey, &wishes);
        let progress = migration.progress()?;
        if progress.mark(SERVE_PACKETS) == Mark::Done {
            // The rules serve nothing new any more: what they are, and whether they are, is no reason to stop.
            plan.blockers.retain(|blocker| !blocker.id.is_about_rules());
        } else if progress.mark(STOP) == Mark::Done {
            // Nobody brings them in step any more, until the packet path serves.
            plan.blockers.retain(|blocker| !matches!(blocker.id, BlockerId::TablesDiffer | BlockerId::ProxyStale));
        }
        Ok(plan)
    }

    /// Decides anew what the operator decides about a migration that is under way.
    pub fn amend(&self, migration: &Migration, wishes: &Wishes) -> Result<(), SessionError> {
        let driver = match &wishes.driver {
            Choice::Evidence => None,
            choice => {
                let found = driver::find(&self.node, choice);
                match found.verdict {
                    Verdict::Unknown { why, remedy } | Verdict::Refused { why, remedy } => {
                        return Err(SessionError::Driver { why, remedy });
                    }
                    Verdict::Reverted { by } if !wishes.accept.contains(&Accept::ManagedDaemonset) => {
                        return Err(SessionError::Driver { why: reverted(&by), remedy: REVERTED.to_owned() });
                    }
                    Verdict::Reverted { .. } | Verdict::Fine => Some(found.driver),
                }
            }
        };
        Ok(migration.amend(driver, &wishes.accept)?)
    }

    /// Every rule and chain of kube-proxy's that would go, as text; `None` where that cannot be told.
    pub fn removal(&self) -> Option<String> {
        let now = State::read(&self.node).ok()?;
        Some(Removal::of(&now, None).ok()?.to_string())
    }

    /// How many flows to Services the kernel's NAT carries now; `None` where that cannot be told.
    pub fn flows_alive(&self) -> Option<usize> {
        let mut flows = 0;
        let read = crate::inspect::conntrack::read_node(&self.node, |entry| {
            flows += usize::from(entry.is_to_backend() && entry.service_protocol().is_some());
        });
        read.ok().map(|_| flows)
    }

    /// The migration that is under way or in force, if it is of this node.
    pub fn current(&self) -> Result<Option<Migration>, SessionError> {
        let Some(migration) = self.store.current()? else { return Ok(None) };
        let (recorded, here) = (migration.plan()?.node, self.node_id()?);
        // A boot gives namespaces new numbers: then the name must do. It may be known from kube-proxy alone, which has gone.
        let same =
            if recorded.boot_id == here.boot_id { recorded.netns == here.netns } else { recorded.name == here.name };
        if !same {
            let word = |id: &NodeId| match id.netns {
                Some(netns) => format!("{} in network namespace {netns}", id.name),
                None => id.name.clone(),
            };
            return Err(SessionError::OtherNode {
                id: migration.id,
                state_dir: self.store.dir().to_owned(),
                changes: format!("{}, this is {}", word(&recorded), word(&here)),
            });
        }
        Ok(Some(migration))
    }

    /// Which node this is.
    pub fn node_id(&self) -> Result<NodeId, SessionError> {
        Ok(survey::node_id(&self.node)?)
    }

    /// Records a new migration.
    pub fn create(&self, plan: &Plan) -> Result<Migration, SessionError> {
        Ok(self.store.create(plan)?)
    }

    /// Where a migration stands, by the node itself.
    pub fn status(&self) -> Result<Status, SessionError> {
        if !self.is_live() {
            return Err(SessionError::Snapshot { label: self.node.label() });
        }
        let here = self.node_id()?;
        let Some(migration) = self.current()? else {
            let node = here.name;
            let (steps, notes, serving) = (Vec::new(), Vec::new(), Serving::Rules);
            let (there, back) = self.last_time()?.map_or((None, None), |(there, back)| (Some(there), back));
            return Ok(Status { id: None, node, standing: None, steps, notes, serving, there, back });
        };
        let records = Journal::read(&migration.dir).map_err(StoreError::from)?;
        let progress = Progress::of(&records);
        let stop = AtomicBool::new(false);
        let phases = steps::phases(migration.plan()?.source.mode);
        let mut world = self.world(&migration, RunOptions::default(), &stop)?;
        // Without API objects the maps cannot be compared; everything else can still be looked at.
        let _ = world.read_api();
        let steps = status::steps(&phases, &mut world, &progress);
        let same_boot = progress.boot_id == here.boot_id;
        let standing = Standing::of(&progress, &steps, same_boot);
        let notes = steps.iter().filter_map(|s| Some((s.step, progress.note(s.step)?.to_owned()))).collect();
        let serving = match world.mode() {
            Ok(Some(Mode::Active)) => Serving::Ebpf,
            // Where the kernel does not tell, nothing was removed.
            _ if !rules_stand().unwrap_or(true) => Serving::Nobody,
            _ => Serving::Rules,
        };
        let [there, back] = [Direction::Forward, Direction::Backward].map(|way| Took::of(&records, way));
        let (id, standing) = (Some(migration.id.clone()), Some(standing));
        Ok(Status { id, node: here.name, standing, steps, notes, serving, there, back })
    }

    /// What the latest whole way there took on this node, and the way back behind it.
    pub fn last_time(&self) -> Result<Option<(Took, Option<Took>)>, SessionError> {
        let name = self.node_id()?.name;
        for migration in self.store.list()?.into_iter().rev() {
            let records = Journal::read(&migration.dir).map_err(StoreError::from)?;
            let [there, back] = [Direction::Forward, Direction::Backward].map(|way| Took::of(&records, way));
            if let Some(there) = there.filter(|took| took.ended)
                && migration.plan()?.node.name == name
            {
                let back = back.filter(|back| back.ended && back.began > there.began);
                return Ok(Some((there, back)));
            }
        }
        Ok(None)
    }

    /// What the latest way in this direction took, of a migration.
    pub fn took(&self, migration: &Migration, direction: Direction) -> Result<Option<Took>, SessionError> {
        let records = Journal::read(&migration.dir).map_err(StoreError::from)?;
        Ok(Took::of(&records, direction))
    }

    /// Runs the engine forward.
    pub fn forward(
        &self,
        migration: &Migration,
        until: Option<PhaseName>,
        options: RunOptions,
        stop: &AtomicBool,
        notify: &mut dyn FnMut(&Notice<'_>),
    ) -> Result<Outcome, SessionError> {
        let mut world = self.world(migration, options, stop)?;
        world.read_api()?;
        let plan = migration.plan()?;
        world.facts = facts(&world.served, &Agreed::of(&plan));
        self.engine(migration, stop, notify, |engine| engine.forward(&mut world, until))
    }

    /// Runs the engine backward.
    pub fn backward(
        &self,
        migration: &Migration,
        options: RunOptions,
        stop: &AtomicBool,
        notify: &mut dyn FnMut(&Notice<'_>),
    ) -> Result<Outcome, SessionError> {
        let mut world = self.world(migration, options, stop)?;
        self.engine(migration, stop, notify, |engine| engine.backward(&mut world))
    }

    fn engine<'a>(
        &self,
        migration: &Migration,
        stop: &AtomicBool,
        notify: &mut dyn FnMut(&Notice<'_>),
        run: impl FnOnce(&mut Engine<'_, NodeWorld<'a>>) -> Result<Outcome, EngineError<StepError>>,
    ) -> Result<Outcome, SessionError> {
        let phases: Vec<Phase<NodeWorld<'a>>> = steps::phases(migration.plan()?.source.mode);
        let mut journal = Journal::open(&migration.dir).map_err(StoreError::from)?;
        let boot_id = self.node_id()?.boot_id.unwrap_or_default();
        let mut engine = Engine { phases: &phases, journal: &mut journal, stop, boot_id: &boot_id, notify };
        Ok(run(&mut engine)?)
    }

    /// Compares API, rules and maps, looks at the hooks, and tries connections.
    pub fn verify(&self, options: RunOptions) -> Result<Vec<Finding>, SessionError> {
        let Some(migration) = self.current()? else { return Err(SessionError::Nothing) };
        let stop = AtomicBool::new(false);
        let mut world = self.world(&migration, options, &stop)?;
        Ok(gates::verify(&mut world)?)
    }

    fn world<'a>(
        &'a self,
        migration: &'a Migration,
        options: RunOptions,
        stop: &'a AtomicBool,
    ) -> Result<NodeWorld<'a>, SessionError> {
        let plan = migration.plan()?;
        let paths = Paths { pins: PathBuf::from(&plan.target.pins), cgroup: PathBuf::from(&plan.target.cgroup) };
        let served = ServiceTable::default();
        let marks = plan.marks.unwrap_or_default();
        Ok(NodeWorld {
            node: &self.node,
            facts: facts(&served, &Agreed::of(&plan)),
            paths,
            marks,
            no_agent: plan.accept.contains(&Accept::NoAgent),
            cut: plan.accept.contains(&Accept::CutConnections),
            driver: plan.driver,
            unserved: Vec::new(),
            found: Found::default(),
            served,
            addresses: BTreeMap::new(),
            migration,
            options,
            stop,
            recorded: OnceCell::new(),
        })
    }
}

/// Whether anything of kube-proxy's rules stands.
fn rules_stand() -> Result<bool, StandingError> {
    Ok(!standing()?.is_empty())
}

/// Somebody undoes what kpx does to a DaemonSet.
pub(super) fn reverted(by: &str) -> String {
    format!("{by} would take kpx's change of kube-proxy's DaemonSet back, and kube-proxy would write rules again")
}

/// What to do about that.
pub(super) const REVERTED: &str = "have the affinity written where the DaemonSet is managed (kpx.dev/dataplane DoesNotExist), or switch kube-proxy off there; or \
                                   accept it: --accept managed-daemonset";

/// What the words of the steps depend on.
pub(super) fn facts(served: &ServiceTable, plan: &Agreed<'_>) -> Facts {
    let frontends = served.frontends();
    Facts {
        pins: plan.target.pins.clone(),
        cgroup: plan.target.cgroup.clone(),
        frontends: frontends.len(),
        backends: frontends.iter().map(|f| f.own_list().len()).sum(),
        mode: plan.mode,
        rules: plan.rules,
        marks: plan.marks,
        driver: plan.driver.clone(),
        cut: plan.cut,
    }
}

/// What was agreed to, as far as the words of steps depend on it.
pub(super) struct Agreed<'p> {
    pub(super) target: &'p Target,
    pub(super) mode: Option<RulesMode>,
    pub(super) rules: usize,
    pub(super) marks: Marks,
    pub(super) driver: &'p ProxyDriver,
    pub(super) cut: bool,
}

impl<'p> Agreed<'p> {
    fn of(plan: &'p Plan) -> Self {
        let rules = plan.counts.rules_to_delete;
        let marks = plan.marks.unwrap_or_default();
        let cut = plan.accept.contains(&Accept::CutConnections);
        Self { target: &plan.target, mode: plan.source.mode, rules, marks, driver: &plan.driver, cut }
    }
}
