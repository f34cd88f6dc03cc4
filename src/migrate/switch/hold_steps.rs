//! The steps of phase *hold*.

use super::forward::{self, Wanted};
use super::hold;
use crate::migrate::phase::{Check, Finding, Gate, Step};
use crate::migrate::plan::first_few;
use crate::migrate::steps::{Facts, done};
use crate::migrate::world::{NodeWorld, StepError};

/// Makes the table that keeps conntrack and NAT at work.
pub(in crate::migrate) struct HoldTable;

impl Step<NodeWorld<'_>> for HoldTable {
    fn id(&self) -> &'static str {
        "hold-table"
    }

    fn describe(&self, facts: &Facts) -> String {
        let unseen = facts.marks.unseen;
        format!(
            "make nftables table inet {}: conntrack and NAT stay at work, packets marked {unseen:#x} are not tracked",
            hold::TABLE
        )
    }

    fn describe_undo(&self, _facts: &Facts) -> String {
        format!("delete nftables table inet {}", hold::TABLE)
    }

    /// A table that was released on purpose is not missed.
    fn check(&self, world: &mut NodeWorld<'_>) -> Result<Check, StepError> {
        if super::release::is_released(world)? {
            return Ok(Check::Done);
        }
        let told = world.programmed_marks()?.is_some_and(|marks| marks.unseen == world.marks.unseen);
        Ok(done(told && hold::stands(world.marks)?, "the table that keeps NAT at work is not there"))
    }

    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        hold::put(world.marks)?;
        if let Some(mut dataplane) = world.dataplane()? {
            dataplane.set_unseen_mark(world.marks.unseen)?;
        }
        Ok(())
    }

    fn undo(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        if let Some(mut dataplane) = world.dataplane()? {
            dataplane.set_unseen_mark(0)?;
        }
        Ok(hold::away()?)
    }

    fn is_undone(&self, _world: &mut NodeWorld<'_>) -> Result<bool, StepError> {
        Ok(!hold::exists()?)
    }
}

/// Name of the step.
pub(in crate::migrate) const ACCEPT_FORWARDED: &str = "accept-forwarded";

/// Lets Services' packets through where FORWARD drops.
pub(in crate::migrate) struct AcceptForwarded;

impl Step<NodeWorld<'_>> for AcceptForwarded {
    fn id(&self) -> &'static str {
        ACCEPT_FORWARDED
    }

    fn describe(&self, facts: &Facts) -> String {
        let Wanted { marks, as_theirs } = Wanted::of(facts);
        let what = if as_theirs {
            format!("what is established or marked {:#x}", marks.accept)
        } else {
            format!("flows that were taken over, marked {:#x}", marks.unseen)
        };
        format!("where chain FORWARD drops: let pass {what}, in that very chain")
    }

    fn describe_undo(&self, _facts: &Facts) -> String {
        "take kpx's rules out of chain FORWARD".to_owned()
    }

    fn check(&self, world: &mut NodeWorld<'_>) -> Result<Check, StepError> {
        if world.programmed_marks()?.is_none_or(|marks| marks.accept != world.marks.accept) {
            return Ok(Check::NotDone("packets are not marked".to_owned()));
        }
        let wrong = forward::wrong(world.node, Wanted::of(&world.facts))?;
        Ok(done(wrong.is_empty(), &format!("drops what it has to let pass: {}", wrong.join(", "))))
    }

    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        forward::put(world.node, Wanted::of(&world.facts))?;
        if let Some(mut dataplane) = world.dataplane()? {
            dataplane.set_accept_mark(world.marks.accept)?;
        }
        Ok(())
    }

    fn undo(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        if let Some(mut dataplane) = world.dataplane()? {
            dataplane.set_accept_mark(0)?;
        }
        Ok(forward::away(world.node)?)
    }

    fn is_undone(&self, world: &mut NodeWorld<'_>) -> Result<bool, StepError> {
        Ok(!forward::exists(world.node)?)
    }
}

/// Nothing would be left without anybody who serves it.
pub(in crate::migrate) struct Standing;

impl Gate<NodeWorld<'_>> for Standing {
    fn describe(&self) -> &'static str {
        "eBPF can serve every frontend just as the rules do"
    }

    fn findings(&self, world: &mut NodeWorld<'_>) -> Result<Vec<Finding>, StepError> {
        let others = world.unserved.clone();
        Ok(vec![if others.is_empty() {
            Finding::ok("all-served", format!("{} frontends", world.served.frontends().len()))
        } else {
            Finding::fail("all-served", first_few(others, "frontends").join("; "))
        }])
    }
}
