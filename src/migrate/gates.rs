//! The gates between the phases; `kpx migrate verify` looks at the same things.

use std::time::Duration;

use super::phase::{Finding, Gate, PhaseName};
use super::plan::first_few;
use super::planner::describe_difference;
use super::probe::{Probed, worse};
use super::switch;
use super::world::{self, NodeWorld, StepError};
use crate::dataplane::{Attachment, ForeignHook, Mode, hooks_in_front};
use crate::model::Difference;

/// API = rules = maps.
pub(super) struct Equality;

/// How often API and rules are compared before they count as different: kube-proxy writes rules a second or so after
/// the API changed.
const ATTEMPTS: u32 = 3;
const BETWEEN: Duration = Duration::from_secs(1);

impl Gate<NodeWorld<'_>> for Equality {
    fn describe(&self) -> &'static str {
        "API, rules and maps treat every packet alike"
    }

    fn findings(&self, world: &mut NodeWorld<'_>) -> Result<Vec<Finding>, StepError> {
        equality(world)
    }
}

/// Compares API with rules and API with maps.
pub(super) fn equality(world: &mut NodeWorld<'_>) -> Result<Vec<Finding>, StepError> {
    let rules = if !world.rules_serve()? {
        world.read_api()?;
        Finding::ok("api-rules", "not compared: nothing new is served by the rules")
    } else if world.migration.progress()?.gate_passed(PhaseName::Stop) {
        // Nobody brings them in step any more, and what is new since is the agent's alone.
        world.read_api()?;
        Finding::ok("api-rules", "not compared: they were in step when kube-proxy was stopped")
    } else {
        api_rules(world)?
    };
    let differences = world.map_differences()?;
    let addresses = world.address_differences()?;
    let maps = if !differences.is_empty() {
        Finding::fail("api-maps", list(&differences))
    } else if addresses != 0 {
        Finding::fail("api-maps", format!("{addresses} addresses of the node are not as the hooks know them"))
    } else {
        Finding::ok("api-maps", format!("{} frontends served, no difference", world.served.frontends().len()))
    };
    Ok(vec![rules, maps])
}

/// Compares API with rules.
fn api_rules(world: &mut NodeWorld<'_>) -> Result<Finding, StepError> {
    let mut attempt = 1;
    loop {
        let tables = world.tables()?;
        let differences = tables.differences();
        if differences.is_empty() {
            return Ok(Finding::ok("api-rules", format!("{} frontends, no difference", tables.api.frontends().len())));
        }
        if attempt == ATTEMPTS {
            return Ok(Finding::fail("api-rules", list(&differences)));
        }
        attempt += 1;
        std::thread::sleep(BETWEEN);
    }
}

fn list(differences: &[Difference]) -> String {
    let lines = differences.iter().map(describe_difference).collect();
    format!("{} differences: {}", differences.len(), first_few(lines, "differences").join("; "))
}

/// The hooks see the sockets of the cgroup, and nobody translates before them.
pub(super) struct HooksSee;

impl Gate<NodeWorld<'_>> for HooksSee {
    fn describe(&self) -> &'static str {
        "the hooks see the sockets of the cgroup, and nobody translates before them"
    }

    fn findings(&self, world: &mut NodeWorld<'_>) -> Result<Vec<Finding>, StepError> {
        let mut out = vec![hooks(world)?, foreign(world)?];
        let (finding, probes) = seen(world)?;
        out.push(finding);
        // Behind a boot without rules nobody serves: that is nothing to compare with.
        if world.mode()? != Some(Mode::Active) && world.rules_serve()? {
            world.keep_probes(&probes)?;
        }
        Ok(out)
    }
}

/// All hooks are attached.
pub(super) fn hooks(world: &mut NodeWorld<'_>) -> Result<Finding, StepError> {
    Ok(match world.attachment()? {
        Attachment::Attached => Finding::ok("hooks", "all programs attached"),
        Attachment::Detached => Finding::fail("hooks", "no program is attached"),
        Attachment::Partly(missing) => Finding::fail("hooks", format!("not attached: {}", missing.join(", "))),
    })
}

/// No other owner's program runs before ours.
pub(super) fn foreign(world: &mut NodeWorld<'_>) -> Result<Finding, StepError> {
    let first: Vec<String> = hooks_in_front(&world.paths)?.iter().map(describe_hook).collect();
    Ok(if first.is_empty() {
        Finding::ok("foreign-hooks", "no other owner's program runs before kpx's")
    } else {
        Finding::fail("foreign-hooks", first_few(first, "programs").join("; "))
    })
}

/// One line for another owner's program.
pub(super) fn describe_hook(hook: &ForeignHook) -> String {
    format!("{} on {}: program {} (id {})", hook.hook, hook.cgroup.display(), hook.name, hook.program_id)
}

/// Probes move the counters.
fn seen(world: &mut NodeWorld<'_>) -> Result<(Finding, Vec<Probed>), StepError> {
    let before = world::seen(&world.counters()?);
    let probes = world.probe()?;
    let after = world::seen(&world.counters()?);
    Ok((moved("counters", probes.len(), before, after), probes))
}

fn moved(check: &'static str, probes: usize, before: u64, after: u64) -> Finding {
    let seen = after.saturating_sub(before);
    let text = format!("{probes} probes made, {seen} connects and datagrams to Services counted");
    if seen >= probes as u64 { Finding::ok(check, text) } else { Finding::fail(check, text) }
}

/// Real connects to each class of frontends end no worse than with the rules.
pub(super) struct Probes;

impl Gate<NodeWorld<'_>> for Probes {
    fn describe(&self) -> &'static str {
        "connects to each class of Service end no worse than before, and the counters move"
    }

    fn findings(&self, world: &mut NodeWorld<'_>) -> Result<Vec<Finding>, StepError> {
        let mut out = vec![mode(world)?];
        out.extend(probes(world)?);
        out.push(errors(world)?);
        Ok(out)
    }
}

/// The hooks are active.
pub(super) fn mode(world: &mut NodeWorld<'_>) -> Result<Finding, StepError> {
    Ok(match world.mode()? {
        Some(Mode::Active) => Finding::ok("mode", "active"),
        Some(mode) => Finding::fail("mode", mode.name()),
        None => Finding::fail("mode", "nothing is installed"),
    })
}

/// A backend chosen at random may be down, with the rules as with the hooks: only what fails each time is worse.
const TRIES: u32 = 3;

/// Makes the probes and compares them with those made before the switch.
pub(super) fn probes(world: &mut NodeWorld<'_>) -> Result<Vec<Finding>, StepError> {
    let then = world.probes_before()?;
    let counted = world::seen(&world.counters()?);
    let mut probes = world.probe()?;
    let counters = moved("counters", probes.len(), counted, world::seen(&world.counters()?));
    for _ in 1..TRIES {
        if worse(&then, &probes).is_empty() {
            break;
        }
        for (old, new) in probes.iter_mut().zip(world.probe()?) {
            if !worse(&then, std::slice::from_ref(old)).is_empty() {
                *old = new;
            }
        }
    }
    let bad: Vec<String> = worse(&then, &probes)
        .iter()
        .map(|(before, p)| {
            let t = &p.target;
            format!("{} {}/{}: {} before, {} now", t.name, t.addr, t.protocol, before.word(), p.ending.word())
        })
        .collect();
    let finding = if bad.is_empty() {
        let against = if then.is_empty() { "nothing to compare with" } else { "none worse than before the switch" };
        Finding::ok("probes", format!("{} made, {against}", probes.len()))
    } else {
        Finding::fail("probes", first_few(bad, "probes").join("; "))
    };
    Ok(vec![finding, counters])
}

/// The error counters stand at zero.
pub(super) fn errors(world: &mut NodeWorld<'_>) -> Result<Finding, StepError> {
    let errors = world::errors(&world.counters()?);
    Ok(if errors == 0 {
        Finding::ok("errors", "no lookup missed, no socket without storage")
    } else {
        Finding::fail("errors", format!("{errors} lookups missed or sockets without storage"))
    })
}

/// Everything that must hold while a migration is in force, or stopped on its way there.
pub(super) fn verify(world: &mut NodeWorld<'_>) -> Result<Vec<Finding>, StepError> {
    let mut out = equality(world)?;
    out.push(hooks(world)?);
    out.push(foreign(world)?);
    if !world.rules_serve()? {
        out.push(switch::devices(world)?);
    }
    out.push(mode(world)?);
    out.extend(probes(world)?);
    out.push(errors(world)?);
    Ok(out)
}
