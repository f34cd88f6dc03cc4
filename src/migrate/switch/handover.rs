//! The step of phase *handover*.

use std::collections::BTreeMap;

use super::packets;
use crate::dataplane::handover::{Unfit, take_over};
use crate::migrate::gates;
use crate::migrate::phase::{Check, Finding, Gate, Lasting, Step};
use crate::migrate::steps::Facts;
use crate::migrate::world::{NodeWorld, StepError};

/// Takes running flows over.
pub(in crate::migrate) struct TakeOver;

/// How often the kernel's flows are looked through: one look finds those that began before the packet path served, and what
/// is found later was on its way.
const LOOKS: usize = 5;

impl Step<NodeWorld<'_>> for TakeOver {
    fn id(&self) -> &'static str {
        "take-over"
    }

    /// Whoever detaches the packet path gives them back.
    fn lasting(&self) -> Lasting {
        Lasting::Record
    }

    fn describe(&self, _facts: &Facts) -> String {
        "take over the flows that the kernel's NAT carries to Services, by overlap: nothing is dropped".to_owned()
    }

    fn check(&self, world: &mut NodeWorld<'_>) -> Result<Check, StepError> {
        packets::attached(world)
    }

    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        let mut dataplane = world.installed()?;
        let mut taken = 0;
        let mut left = BTreeMap::new();
        for look in 0..LOOKS {
            let found = take_over(&mut dataplane, |_| true)?;
            taken += found.flows.len();
            left = by_reason(found.left.iter().map(|(_, why)| *why));
            if found.flows.is_empty() && look > 0 {
                break;
            }
            // Flows that the kernel has forgotten are new ones when they go on. One that the rules begin at this very moment
            // is found by the next look.
            dataplane.forget_left(&world.entries()?)?;
        }
        world.count("flows_taken_over", taken);
        world.count("flows_left", left.values().sum());
        world.note(format!("{taken} flows taken over{}", kept(&left)));
        Ok(())
    }
}

/// Flows to Services that stay with the kernel, by the reason. What has ended, and what is no Service's, is none.
fn by_reason(left: impl Iterator<Item = Unfit>) -> BTreeMap<Unfit, usize> {
    let mut by_reason = BTreeMap::new();
    for why in left.filter(|why| !matches!(why, Unfit::Ended | Unfit::NoService)) {
        *by_reason.entry(why).or_default() += 1;
    }
    by_reason
}

fn kept(left: &BTreeMap<Unfit, usize>) -> String {
    if left.is_empty() {
        return "; none stays with the kernel".to_owned();
    }
    let parts = left.iter().map(|(why, n)| format!("{n} {why}")).collect::<Vec<_>>();
    format!("; {} stay with the kernel until they end: {}", left.values().sum::<usize>(), parts.join(", "))
}

/// Nobody but the packet path translates what it can.
pub(in crate::migrate) struct Handed;

impl Gate<NodeWorld<'_>> for Handed {
    fn describe(&self) -> &'static str {
        "the kernel translates no flow that the packet path could, and connects end no worse than before"
    }

    fn findings(&self, world: &mut NodeWorld<'_>) -> Result<Vec<Finding>, StepError> {
        let mut out = vec![packets::devices(world)?];
        let flows = world.kernel_flows_left()?;
        out.push(if flows.fit == 0 {
            Finding::ok("flows", format!("{} of the kernel's stay with it", flows.unfit))
        } else {
            Finding::fail("flows", format!("{} of the kernel's could be taken over", flows.fit))
        });
        out.extend(gates::probes(world)?);
        out.push(gates::errors(world)?);
        Ok(out)
    }
}
