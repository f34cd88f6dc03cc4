//! The step of phase *release*.

use super::{carry, hold, remove};
use crate::inspect::proxy_rules::RulesMode;
use crate::inspect::standing::ipvs_device;
use crate::migrate::journal::Mark;
use crate::migrate::phase::{Check, Step};
use crate::migrate::removal::{self, State};
use crate::migrate::steps::{Facts, done};
use crate::migrate::world::{NodeWorld, StepError};

const ID: &str = "release";

/// Whether the table was deleted, or may have been, on purpose.
pub(super) fn is_released(world: &NodeWorld<'_>) -> Result<bool, StepError> {
    Ok(matches!(world.mark(ID)?, Mark::Doing | Mark::Done | Mark::Undoing))
}

/// Lets go of conntrack and NAT.
pub(in crate::migrate) struct Release;

impl Step<NodeWorld<'_>> for Release {
    fn id(&self) -> &'static str {
        ID
    }

    fn describe(&self, facts: &Facts) -> String {
        let rest = match facts.mode {
            Some(RulesMode::Ipvs) => ", the zone's table, and what kube-ipvs0 still has of addresses that sockets use",
            _ => "",
        };
        format!("once no flow needs it, delete nftables table inet {}{rest}", hold::TABLE)
    }

    fn describe_undo(&self, _facts: &Facts) -> String {
        format!("make nftables table inet {} again", hold::TABLE)
    }

    fn check(&self, world: &mut NodeWorld<'_>) -> Result<Check, StepError> {
        if world.facts.mode == Some(RulesMode::Ipvs) && (ipvs_device()? || carry::exists()?) {
            return Ok(Check::NotDone("kube-ipvs0 has addresses that sockets use".to_owned()));
        }
        Ok(done(is_released(world)? && !hold::exists()?, "the table that keeps NAT at work stands"))
    }

    /// Two kinds of flows need the table: those that the kernel's NAT carries still, and those that were taken over, whose packets
    /// conntrack would take for new ones, to which rules of others apply.
    fn waits(&self, world: &mut NodeWorld<'_>) -> Result<Option<String>, StepError> {
        let left = world.kernel_flows_left()?;
        let kernels = left.fit + left.unfit;
        let taken = world.installed()?.unseen_flows(&world.flow_timeouts()?)?;
        let mut parts = Vec::new();
        if kernels > 0 {
            parts.push(format!("{kernels} flows that the kernel's NAT carries"));
        }
        if taken > 0 {
            parts.push(format!("{taken} flows that were taken over"));
        }
        Ok((!parts.is_empty()).then(|| parts.join(" and ")))
    }

    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        let folder = remove::folder(world);
        if world.facts.mode == Some(RulesMode::Ipvs) && folder.exists() {
            carry::away()?;
            removal::remove(world.node, &State::kept(&folder)?, None)?;
        }
        world.installed()?.set_unseen_mark(0)?;
        Ok(hold::away()?)
    }

    fn undo(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        hold::put(world.marks)?;
        if let Some(mut dataplane) = world.dataplane()? {
            dataplane.set_unseen_mark(world.marks.unseen)?;
        }
        Ok(())
    }

    fn is_undone(&self, world: &mut NodeWorld<'_>) -> Result<bool, StepError> {
        Ok(hold::stands(world.marks)?)
    }
}
