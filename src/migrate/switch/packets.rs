//! The step of phase *packets*, and all of the way back from the packet path.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::proxy::{self, ProxyError};
use super::{carry, generate};
use crate::dataplane::handover::{GivenBack, Kept, give_back};
use crate::dataplane::{Dataplane, FlowId, Mode, NodeDevice, carries_packets, has_pods, node_devices, pod_networks};
use crate::migrate::gates;
use crate::migrate::phase::{Check, Finding, Gate, Step};
use crate::migrate::steps::{Facts, done};
use crate::migrate::world::{NodeWorld, StepError};
use crate::model::Family;

/// Attaches the packet path to the node's devices and lets it serve what is new.
pub(in crate::migrate) struct ServePackets;

/// Name of the step.
pub(in crate::migrate) const SERVE_PACKETS: &str = "serve-packets";
/// How often flows that cannot be given back are looked at.
const GLANCE: Duration = Duration::from_millis(500);
/// A first packet is on its way through the node for no longer. What has not left by then was dropped on it (by a firewall, say): no
/// backend knows of it, and what the client sends next begins anew by the rules.
const UNDERWAY: Duration = Duration::from_secs(2);

impl Step<NodeWorld<'_>> for ServePackets {
    fn id(&self) -> &'static str {
        SERVE_PACKETS
    }

    fn describe(&self, _facts: &Facts) -> String {
        "attach the packet path to the network devices, leave flows that the kernel knows to it, serve new ones"
            .to_owned()
    }

    fn describe_undo(&self, _facts: &Facts) -> String {
        "leave new flows to the rules, give running ones to the kernel's NAT, detach the packet path".to_owned()
    }

    fn check(&self, world: &mut NodeWorld<'_>) -> Result<Check, StepError> {
        let Some(dataplane) = world.dataplane()? else { return Ok(Check::NotDone("there are no maps".to_owned())) };
        let on = dataplane.device_numbers()?;
        let missing: Vec<String> =
            wanted()?.into_iter().filter(|d| !on.contains(&d.index)).map(|device| device.name).collect();
        Ok(match dataplane.mode()? {
            _ if !missing.is_empty() => Check::NotDone(format!("not on {}", missing.join(", "))),
            Mode::Active => Check::Done,
            mode => Check::NotDone(format!("the mode is {}", mode.name())),
        })
    }

    /// The programs stand back from what is new until the flows of datagrams are known that the rules have. From then on they
    /// note by themselves which the rules begin, so that there is no moment whose flows nobody knows of.
    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        let time = world.conntrack_udp_time()?;
        let mut dataplane = world.installed()?;
        dataplane.set_yield_time(time)?;
        dataplane.set_networks(&pod_networks(&world.served))?;
        if dataplane.mode()? == Mode::Active {
            dataplane.set_mode(Mode::Drain)?;
        }
        let detectors = Family::BOTH.map(|family| &world.served.facts(family).detector);
        let on = dataplane.attach_devices(carries_packets, |device| has_pods(detectors, device))?;
        if let Some((_, error)) = on.troubles.into_iter().next() {
            return Err(error.into());
        }
        let left = dataplane.leave_to_rules(&world.entries()?, time)?;
        dataplane.set_mode(Mode::Active)?;
        let devices = on.devices.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", ");
        world.count("flows_of_datagrams_left", left);
        world.note(format!("on {devices}; {left} flows of datagrams stay the kernel's for now"));
        Ok(())
    }

    fn undo(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        let Some(mut dataplane) = world.dataplane()? else { return carry::back(world).map(drop) };
        let mode = dataplane.mode()?;
        if dataplane.device_numbers()?.is_empty() {
            carry::back(world)?;
        } else {
            kube_proxy_back(world)?;
            if mode != Mode::Off {
                dataplane.set_mode(Mode::Drain)?;
                let given = give_all_back(world, &mut dataplane)?;
                let back = carry::back(world)?;
                world.count("flows_given_back", given + back);
                let rest = if back > 0 { format!("; {back} come back out of their zone") } else { String::new() };
                world.note(format!("{given} flows given to the kernel's NAT{rest}"));
            }
            dataplane.detach_devices()?;
            // What is left in the table would be met again by whoever attaches next.
            dataplane.forget_all_flows()?;
        }
        // As the phases before left it.
        if dataplane.mode()? == Mode::Drain {
            dataplane.set_mode(Mode::Active)?;
        }
        Ok(())
    }

    fn is_undone(&self, world: &mut NodeWorld<'_>) -> Result<bool, StepError> {
        Ok(!attached(world)?.is_done())
    }
}

/// Whether the packet path is on any device.
pub(super) fn attached(world: &NodeWorld<'_>) -> Result<Check, StepError> {
    let on = world.dataplane()?.map(|dataplane| dataplane.device_numbers()).transpose()?.unwrap_or_default();
    Ok(done(!on.is_empty(), "the packet path is on no device"))
}

/// The devices that the packet path belongs on.
fn wanted() -> Result<Vec<NodeDevice>, StepError> {
    Ok(node_devices()?.into_iter().filter(carries_packets).collect())
}

/// Before new flows are left to the rules: kube-proxy runs again if that is known how, and the rules are not behind the API. Whether
/// one runs.
pub(super) fn kube_proxy_back(world: &mut NodeWorld<'_>) -> Result<bool, StepError> {
    let runs = match proxy::start(world) {
        // The step that stopped it says what became of this.
        Err(_) if world.options.force => return Ok(false),
        started => started?,
    };
    if world.options.force {
        return Ok(runs);
    }
    let mut generated = false;
    let deadline = Instant::now() + if runs { Duration::from_secs(30) } else { Duration::ZERO };
    loop {
        // Without the API nobody can tell, and the way back must not depend on it.
        let Ok(tables) = world.tables() else { return Ok(runs) };
        let differences = tables.differences().len();
        if differences == 0 {
            return Ok(runs);
        }
        if Instant::now() >= deadline {
            if runs || generated {
                return Err(ProxyError::RulesBehind { differences }.into());
            }
            generate::rules_in_step(world, &tables)?;
            generated = true;
            continue;
        }
        std::thread::sleep(GLANCE);
    }
}

/// Gives every flow back that the kernel can carry, and waits for the end of those that it cannot; how many it has now.
fn give_all_back(world: &NodeWorld<'_>, dataplane: &mut Dataplane) -> Result<usize, StepError> {
    let begun = Instant::now();
    let mut given = 0;
    loop {
        dataplane.forget_flows(&world.flow_timeouts()?)?;
        let GivenBack { flows, kept } = give_back(dataplane, |_| true)?;
        given += flows.len();
        let mut left: BTreeMap<Kept, Vec<FlowId>> = BTreeMap::new();
        let waits = |why: Kept| match why {
            Kept::Ended => false,
            Kept::NotBegun => begun.elapsed() < UNDERWAY,
            _ => true,
        };
        for (id, why) in kept.iter().filter(|(_, why)| waits(*why)) {
            left.entry(*why).or_default().push(*id);
        }
        if flows.is_empty() && (left.is_empty() || world.options.force) {
            return Ok(given);
        }
        if world.stop.load(Ordering::SeqCst) {
            return Err(StepError::Interrupted);
        }
        if flows.is_empty() {
            if begun.elapsed() >= world.options.drain_timeout {
                let one = |(why, ids): (&Kept, &Vec<FlowId>)| {
                    let first =
                        ids.first().map(|id| format!("{} to {}, protocol {}", id.client, id.frontend, id.protocol));
                    format!("{} {why} (such as {})", ids.len(), first.unwrap_or_default())
                };
                let why = left.iter().map(one).collect::<Vec<_>>().join(", ");
                return Err(StepError::FlowsLeft { flows: left.values().map(Vec::len).sum(), why });
            }
            std::thread::sleep(GLANCE);
        }
    }
}

/// The packet path is where it belongs and makes no mistakes.
pub(in crate::migrate) struct PacketsServe;

impl Gate<NodeWorld<'_>> for PacketsServe {
    fn describe(&self) -> &'static str {
        "the packet path is on every device, drops nothing for want of room, and connects end no worse than before"
    }

    fn findings(&self, world: &mut NodeWorld<'_>) -> Result<Vec<Finding>, StepError> {
        let mut out = vec![devices(world)?];
        out.extend(gates::probes(world)?);
        out.push(gates::errors(world)?);
        Ok(out)
    }
}

/// The packet path is on every device.
pub(in crate::migrate) fn devices(world: &mut NodeWorld<'_>) -> Result<Finding, StepError> {
    Ok(match ServePackets.check(world)? {
        Check::Done => Finding::ok("devices", format!("the packet path is on {} devices", wanted()?.len())),
        Check::NotDone(missing) => Finding::fail("devices", missing),
    })
}
