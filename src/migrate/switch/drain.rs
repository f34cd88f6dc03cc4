//! The step that keeps IPVS from anything new, for connections that nobody else can carry.

use std::collections::BTreeMap;

use super::proxy;
use super::remove::{count, folder, forget, words};
use crate::dataplane::handover::Unfit;
use crate::migrate::phase::{Check, Lasting, Step};
use crate::migrate::removal::{State, drain, restore};
use crate::migrate::steps::{Facts, done};
use crate::migrate::world::{NodeWorld, StepError};

/// Gives the servers of kube-proxy's virtual services weight 0: what is open goes on, and nothing new begins there.
pub(in crate::migrate) struct DrainServers;

/// Name of the step.
pub(super) const DRAIN: &str = "drain-servers";

impl Step<NodeWorld<'_>> for DrainServers {
    fn id(&self) -> &'static str {
        DRAIN
    }

    fn lasting(&self) -> Lasting {
        Lasting::IfBegun
    }

    fn describe(&self, _facts: &Facts) -> String {
        "give the servers of kube-proxy's virtual services weight 0: connections that only IPVS can carry go on, and none begins"
            .to_owned()
    }

    fn describe_undo(&self, _facts: &Facts) -> String {
        "give the servers their weights again".to_owned()
    }

    fn check(&self, world: &mut NodeWorld<'_>) -> Result<Check, StepError> {
        Ok(done(State::read(world.node)?.is_drained()?, "servers of kube-proxy's virtual services take what is new"))
    }

    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        proxy::prove_away(world)?;
        State::read(world.node)?.keep(&folder(world))?;
        let drained = drain(world.node)?;
        count(world, &drained);
        Ok(())
    }

    /// What is kept has the weights. The step that removes virtual services has brought them back with these, if it was begun.
    fn undo(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        let folder = folder(world);
        if folder.exists() {
            let restored = restore(world.node, &State::kept(&folder)?)?;
            world.note(format!("put back {}", words(&restored)));
        }
        forget(&folder)
    }

    fn is_undone(&self, world: &mut NodeWorld<'_>) -> Result<bool, StepError> {
        Ok(!folder(world).exists())
    }
}

/// Connections that only IPVS carries, in words; `None` where there is none.
pub(super) fn left(world: &NodeWorld<'_>) -> Result<Option<String>, StepError> {
    let of_ipvs = world.kernel_flows_left()?.of_ipvs;
    Ok((!of_ipvs.is_empty()).then(|| in_words(&of_ipvs)))
}

fn in_words(of_ipvs: &BTreeMap<Unfit, usize>) -> String {
    let parts = of_ipvs.iter().map(|(why, n)| format!("{n} {why}")).collect::<Vec<_>>();
    format!("{} connections that only IPVS can carry ({})", of_ipvs.values().sum::<usize>(), parts.join(", "))
}
