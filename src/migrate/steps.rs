//! The phases of a node's way from kube-proxy's rules to eBPF, and the steps as far as the socket hooks.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::driver::ProxyDriver;
use super::gates::{Equality, HooksSee, Probes};
use super::journal::Mark;
use super::marks::Marks;
use super::phase::{Check, Lasting, Phase, PhaseName, Step};
use super::plan::{PlannedPhase, PlannedStep};
use super::switch::{
    AcceptForwarded, CarrySockets, DrainServers, Handed, HoldTable, PacketsServe, Release, RemoveRules, Removed,
    SERVE_PACKETS, ServePackets, Standing, Stop, Stopped, TakeOver,
};
use super::world::{NodeWorld, StepError};
use crate::dataplane::{Attachment, Capacity, Dataplane, Mode, pod_networks};
use crate::inspect::proxy_rules::RulesMode;

/// What the words of a step depend on.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Directory of the pins.
    pub pins: String,
    /// cgroup whose sockets are served.
    pub cgroup: String,
    /// Frontends to fill in.
    pub frontends: usize,
    /// Backends to fill in.
    pub backends: usize,
    /// The mode of kube-proxy's rules.
    pub mode: Option<RulesMode>,
    /// Rules of kube-proxy that were there when the plan was made.
    pub rules: usize,
    /// Bits of the mark that are set aside.
    pub marks: Marks,
    /// How kube-proxy is stopped and started.
    pub driver: ProxyDriver,
    /// Whether connections through IPVS may be cut that do not end.
    pub cut: bool,
}

/// Number of programs that are attached.
pub(super) const PROGRAMS: usize = 10;

/// The phases in order, for a node whose kube-proxy's rules are of this mode.
pub(super) fn phases<'a>(mode: Option<RulesMode>) -> Vec<Phase<NodeWorld<'a>>> {
    let mut remove: Vec<Box<dyn Step<_>>> = vec![Box::new(RemoveRules)];
    let mut handover: Vec<Box<dyn Step<_>>> = vec![Box::new(TakeOver)];
    if mode == Some(RulesMode::Ipvs) {
        handover.push(Box::new(CarrySockets));
        remove.insert(0, Box::new(DrainServers));
    }
    let phase = |name, steps, gate| Phase {
        name,
        steps,
        gate,
        undo_on_failed_gate: matches!(name, PhaseName::Sockets | PhaseName::Packets),
    };
    vec![
        phase(PhaseName::Prepare, vec![Box::new(Backup) as Box<dyn Step<_>>], None),
        phase(PhaseName::Load, vec![Box::new(Install), Box::new(Fill)], Some(Box::new(Equality))),
        phase(PhaseName::Shadow, vec![Box::new(Attach), Box::new(Watch)], Some(Box::new(HooksSee))),
        phase(PhaseName::Sockets, vec![Box::new(Yield), Box::new(Activate)], Some(Box::new(Probes))),
        phase(PhaseName::Hold, vec![Box::new(HoldTable), Box::new(AcceptForwarded)], Some(Box::new(Standing))),
        phase(PhaseName::Stop, vec![Box::new(Stop)], Some(Box::new(Stopped))),
        phase(PhaseName::Packets, vec![Box::new(ServePackets)], Some(Box::new(PacketsServe))),
        phase(PhaseName::Handover, handover, Some(Box::new(Handed))),
        phase(PhaseName::Remove, remove, Some(Box::new(Removed))),
        phase(PhaseName::Release, vec![Box::new(Release)], None),
    ]
}

/// The phases, for a plan.
pub(super) fn planned(facts: &Facts) -> Vec<PlannedPhase> {
    phases(facts.mode)
        .iter()
        .map(|phase| PlannedPhase {
            phase: phase.name,
            summary: phase.name.summary().to_owned(),
            steps: phase
                .steps
                .iter()
                .map(|step| PlannedStep { step: step.id().to_owned(), text: step.describe(facts) })
                .collect(),
            gate: phase.gate.as_ref().map(|gate| gate.describe().to_owned()),
        })
        .collect()
}

/// Records the node as a snapshot.
struct Backup;

impl Step<NodeWorld<'_>> for Backup {
    fn id(&self) -> &'static str {
        "backup"
    }

    fn lasting(&self) -> Lasting {
        Lasting::Record
    }

    fn describe(&self, _facts: &Facts) -> String {
        "record the node as a snapshot beside the journal".to_owned()
    }

    fn check(&self, world: &mut NodeWorld<'_>) -> Result<Check, StepError> {
        Ok(done(world.migration.backup().is_dir(), "there is no snapshot"))
    }

    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        // A record made on an earlier way forward is of the node before anything was changed: that one counts.
        if world.migration.backup().is_dir() { Ok(()) } else { world.backup() }
    }
}

/// Loads and pins programs and maps.
struct Install;

impl Step<NodeWorld<'_>> for Install {
    fn id(&self) -> &'static str {
        "install"
    }

    fn describe(&self, facts: &Facts) -> String {
        format!("load {PROGRAMS} programs and their maps, pinned in {}", facts.pins)
    }

    fn describe_undo(&self, facts: &Facts) -> String {
        format!("remove programs, maps and their pins in {}", facts.pins)
    }

    fn check(&self, world: &mut NodeWorld<'_>) -> Result<Check, StepError> {
        Ok(done(world.dataplane()?.is_some(), "programs and maps are not pinned"))
    }

    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        let capacity = Capacity::for_table(&world.served).with_flows(world.kernel_flows()?.len());
        Dataplane::install(&world.paths, &capacity)?;
        Ok(())
    }

    fn undo(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        Ok(Dataplane::remove(&world.paths)?)
    }
}

/// Writes the API's table into the maps.
struct Fill;

impl Step<NodeWorld<'_>> for Fill {
    fn id(&self) -> &'static str {
        "fill"
    }

    fn lasting(&self) -> Lasting {
        Lasting::Record
    }

    fn describe(&self, facts: &Facts) -> String {
        format!("fill the maps with {} frontends and {} backends", facts.frontends, facts.backends)
    }

    fn check(&self, world: &mut NodeWorld<'_>) -> Result<Check, StepError> {
        if world.dataplane()?.is_none() {
            return Ok(Check::NotDone(NO_MAPS.to_owned()));
        }
        let differences = world.map_differences()?.len() + world.address_differences()?;
        Ok(done(differences == 0, &format!("maps and API differ in {differences} places")))
    }

    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        let mut dataplane = world.installed()?;
        dataplane.set_addresses(&world.addresses)?;
        dataplane.set_networks(&pod_networks(&world.served))?;
        dataplane.fill(&world.served)?;
        Ok(())
    }
}

/// Attaches the programs.
struct Attach;

impl Step<NodeWorld<'_>> for Attach {
    fn id(&self) -> &'static str {
        "attach"
    }

    fn describe(&self, facts: &Facts) -> String {
        format!("attach the {PROGRAMS} programs to {}: recvmsg and getpeername, sendmsg, connect, bind", facts.cgroup)
    }

    fn describe_undo(&self, facts: &Facts) -> String {
        format!("detach the {PROGRAMS} programs from {}: bind, connect, sendmsg, recvmsg and getpeername", facts.cgroup)
    }

    fn check(&self, world: &mut NodeWorld<'_>) -> Result<Check, StepError> {
        Ok(match world.attachment()? {
            Attachment::Attached => Check::Done,
            Attachment::Detached => Check::NotDone("no program is attached".to_owned()),
            Attachment::Partly(missing) => Check::NotDone(format!("not attached: {}", missing.join(", "))),
        })
    }

    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        Ok(world.installed()?.attach()?)
    }

    fn undo(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        if let Some(mut dataplane) = world.dataplane()? {
            dataplane.detach()?;
        }
        Ok(())
    }
}

/// Lets the programs count.
struct Watch;

impl Step<NodeWorld<'_>> for Watch {
    fn id(&self) -> &'static str {
        "watch"
    }

    fn describe(&self, _facts: &Facts) -> String {
        "switch the hooks from off to shadow: they count, and remember UDP flows of the rules".to_owned()
    }

    fn describe_undo(&self, _facts: &Facts) -> String {
        "switch the hooks off".to_owned()
    }

    fn check(&self, world: &mut NodeWorld<'_>) -> Result<Check, StepError> {
        Ok(match world.mode()? {
            Some(Mode::Shadow | Mode::Active | Mode::Drain) => Check::Done,
            Some(Mode::Off) => Check::NotDone("the mode is off".to_owned()),
            None => Check::NotDone(NO_MAPS.to_owned()),
        })
    }

    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        let time = world.conntrack_udp_time()?;
        let mut dataplane = world.installed()?;
        dataplane.set_yield_time(time)?;
        if dataplane.mode()? == Mode::Off {
            dataplane.set_mode(Mode::Shadow)?;
        }
        Ok(())
    }

    fn undo(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        if let Some(mut dataplane) = world.dataplane()? {
            dataplane.set_mode(Mode::Off)?;
        }
        Ok(())
    }
}

/// Leaves to the rules what the rules are translating.
struct Yield;

impl Step<NodeWorld<'_>> for Yield {
    fn id(&self) -> &'static str {
        "yield-flows"
    }

    fn lasting(&self) -> Lasting {
        Lasting::Record
    }

    fn describe(&self, _facts: &Facts) -> String {
        "leave the UDP flows that conntrack translates now to the rules, until they end".to_owned()
    }

    /// The flows change from moment to moment; only once the hooks are active there is nothing left to do.
    fn check(&self, world: &mut NodeWorld<'_>) -> Result<Check, StepError> {
        Ok(match world.mode()? {
            None => Check::NotDone(NO_MAPS.to_owned()),
            Some(_) => Check::Done,
        })
    }

    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        let flows = world.kernel_flows()?;
        Ok(world.installed()?.yield_to(&flows)?)
    }
}

/// Switches the hooks on.
struct Activate;

/// How long no UDP socket may have used a translation before the hooks count as unused.
const QUIET: Duration = Duration::from_secs(5);
/// How often the counters are looked at meanwhile.
const GLANCE: Duration = Duration::from_millis(200);
/// What a step misses that needs maps.
const NO_MAPS: &str = "there are no maps";

impl Step<NodeWorld<'_>> for Activate {
    fn id(&self) -> &'static str {
        "activate"
    }

    fn describe(&self, _facts: &Facts) -> String {
        "switch the hooks from shadow to active, by one write".to_owned()
    }

    fn describe_undo(&self, _facts: &Facts) -> String {
        "switch the hooks to drain, wait for UDP sockets, then to shadow".to_owned()
    }

    fn check(&self, world: &mut NodeWorld<'_>) -> Result<Check, StepError> {
        Ok(match world.mode()? {
            Some(Mode::Active) => Check::Done,
            // The packet path stands back for a while when it comes and before it goes; that step knows how to go on.
            Some(Mode::Drain) if matches!(world.mark(SERVE_PACKETS)?, Mark::Doing | Mark::Undoing) => Check::Done,
            Some(mode) => Check::NotDone(format!("the mode is {}", mode.name())),
            None => Check::NotDone(NO_MAPS.to_owned()),
        })
    }

    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        // Flows that began since the step before, or before a run that is resumed: few, and found quickly.
        let flows = world.kernel_flows()?;
        let mut dataplane = world.installed()?;
        dataplane.yield_to(&flows)?;
        Ok(dataplane.set_mode(Mode::Active)?)
    }

    fn undo(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        let Some(mut dataplane) = world.dataplane()? else { return Ok(()) };
        if !matches!(dataplane.mode()?, Mode::Active | Mode::Drain) {
            return Ok(());
        }
        dataplane.set_mode(Mode::Drain)?;
        drain(world, &dataplane)?;
        Ok(dataplane.set_mode(Mode::Shadow)?)
    }
}

/// Waits until no unconnected UDP socket uses a translation any more. Connected ones need none: they talk to their backend
/// without the hooks.
fn drain(world: &NodeWorld<'_>, dataplane: &Dataplane) -> Result<(), StepError> {
    let begun = Instant::now();
    let mut last = dataplane.counters()?.datagrams();
    if last == 0 || world.options.force {
        return Ok(());
    }
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < QUIET {
        if world.stop.load(Ordering::SeqCst) {
            return Err(StepError::Interrupted);
        }
        if begun.elapsed() >= world.options.drain_timeout {
            return Err(StepError::NotDrained { waited: begun.elapsed() });
        }
        std::thread::sleep(GLANCE);
        let now = dataplane.counters()?.datagrams();
        if now != last {
            last = now;
            quiet_since = Instant::now();
        }
    }
    Ok(())
}

pub(super) fn done(done: bool, missing: &str) -> Check {
    if done { Check::Done } else { Check::NotDone(missing.to_owned()) }
}
