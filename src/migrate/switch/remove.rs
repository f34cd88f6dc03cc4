//! The step of phase *remove*.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{drain, packets, proxy};
use crate::inspect::proxy_rules::RulesMode;
use crate::inspect::standing::standing;
use crate::migrate::gates;
use crate::migrate::journal::Mark;
use crate::migrate::phase::{Check, Finding, Gate, Lasting, Step};
use crate::migrate::removal::{Count, Removal, State, counted, remove, restore};
use crate::migrate::steps::{Facts, done};
use crate::migrate::store::StoreError;
use crate::migrate::world::{NodeWorld, StepError};

const ID: &str = "remove-rules";

/// Removes kube-proxy's rules.
pub(in crate::migrate) struct RemoveRules;

/// Where what is removed is kept.
pub(super) fn folder(world: &NodeWorld<'_>) -> PathBuf {
    world.migration.dir.join("rules")
}

impl Step<NodeWorld<'_>> for RemoveRules {
    fn id(&self) -> &'static str {
        ID
    }

    fn lasting(&self) -> Lasting {
        Lasting::IfBegun
    }

    fn describe(&self, facts: &Facts) -> String {
        if facts.mode == Some(RulesMode::Ipvs) {
            let then = if facts.cut { "what has not ended by then is cut" } else { "if some are left, stop here" };
            return format!(
                "wait for connections that only IPVS can carry, --drain-timeout at most ({then}); remove kube-proxy's {} \
                 virtual services and rules, its sets and at last kube-ipvs0, kept beside the journal; what others made stays",
                facts.rules
            );
        }
        format!(
            "remove kube-proxy's {} rules and their chains, kept beside the journal; rules of others stay",
            facts.rules
        )
    }

    fn describe_undo(&self, facts: &Facts) -> String {
        match facts.mode {
            Some(RulesMode::Ipvs) => "put kube-ipvs0, sets, virtual services and rules back as they were".to_owned(),
            _ => "put kube-proxy's rules back in their places".to_owned(),
        }
    }

    fn check(&self, world: &mut NodeWorld<'_>) -> Result<Check, StepError> {
        let now = State::read(world.node)?;
        // The device of ipvs mode may have addresses that sockets use, and then goes last.
        if !Removal::of(&now, None)?.is_at_most_the_device() {
            return Ok(Check::NotDone("rules of kube-proxy stand".to_owned()));
        }
        let told = world.dataplane()?.map(|dataplane| dataplane.rules_gone()).transpose()?.unwrap_or_default();
        Ok(done(told, "the programs do not know that the rules are gone"))
    }

    /// A removal that was begun goes on.
    fn waits(&self, world: &mut NodeWorld<'_>) -> Result<Option<String>, StepError> {
        if world.facts.mode != Some(RulesMode::Ipvs) || world.mark(ID)? == Mark::Doing {
            return Ok(None);
        }
        drain::left(world)
    }

    fn patience(&self, world: &NodeWorld<'_>) -> Duration {
        world.options.drain_timeout
    }

    fn goes_on(&self, world: &NodeWorld<'_>) -> bool {
        world.cut
    }

    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        proxy::prove_away(world)?;
        let cut: usize = world.kernel_flows_left()?.of_ipvs.values().sum();
        let folder = folder(world);
        State::read(world.node)?.keep(&folder)?;
        // First, since two may refuse what has no backend, but somebody has to.
        world.installed()?.set_rules_gone(true)?;
        let removed = remove(world.node, &State::kept(&folder)?, None)?;
        count(world, &removed);
        let mut note = format!("removed {}", words(&removed));
        if cut > 0 {
            world.count("connections_cut", cut);
            let _ = write!(note, "; {cut} connections through IPVS were cut");
        }
        world.note(note);
        Ok(())
    }

    /// The rules are back before the programs leave anything to them.
    fn undo(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        let folder = folder(world);
        if folder.exists() {
            let restored = restore(world.node, &State::kept(&folder)?)?;
            count(world, &restored);
            world.note(format!("put back {}", words(&restored)));
        }
        if let Some(mut dataplane) = world.dataplane()? {
            dataplane.set_rules_gone(false)?;
        }
        forget(&folder)
    }

    /// What was put back was looked at until nothing was missing; only then what was kept has gone.
    fn is_undone(&self, world: &mut NodeWorld<'_>) -> Result<bool, StepError> {
        Ok(!folder(world).exists())
    }
}

/// Keeps it no longer: kube-proxy may change its rules from now on.
pub(super) fn forget(folder: &Path) -> Result<(), StepError> {
    match fs_err::remove_dir_all(folder) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::Io { action: "remove", path: folder.to_owned(), source }.into())
        }
        _ => Ok(()),
    }
}

pub(super) fn count(world: &mut NodeWorld<'_>, counts: &[Count]) {
    for (what, number) in counts.iter().flat_map(|count| &count.numbers) {
        world.count(what, *number);
    }
}

/// All together, by what it is.
pub(super) fn words(counts: &[Count]) -> String {
    let mut totals: BTreeMap<&str, usize> = BTreeMap::new();
    for (what, number) in counts.iter().flat_map(|count| &count.numbers) {
        *totals.entry(what).or_default() += number;
    }
    // Most of it first; what there is of each kind says which mode it was.
    let mut parts: Vec<_> = totals.into_iter().filter(|(_, number)| *number > 0).collect();
    parts.sort_by_key(|(_, number)| Reverse(*number));
    let parts: Vec<_> = parts.into_iter().map(|(what, number)| counted(number, what)).collect();
    match parts.split_last() {
        None => "nothing: there was nothing to do".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{} and {last}", first.join(", ")),
    }
}

/// Nothing of kube-proxy's stands, and connects end no worse than before.
pub(in crate::migrate) struct Removed;

impl Gate<NodeWorld<'_>> for Removed {
    fn describe(&self) -> &'static str {
        "no rule of kube-proxy stands, and connects end no worse than before"
    }

    fn findings(&self, world: &mut NodeWorld<'_>) -> Result<Vec<Finding>, StepError> {
        let left: Vec<String> = standing()?.iter().map(ToString::to_string).collect();
        let rules = if left.is_empty() {
            Finding::ok("rules", "none of kube-proxy's stand")
        } else {
            Finding::fail("rules", left.join("; "))
        };
        let mut out = vec![rules, packets::devices(world)?];
        out.extend(gates::probes(world)?);
        out.push(gates::errors(world)?);
        Ok(out)
    }
}
