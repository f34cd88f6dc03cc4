//! What a node's old dataplanes left, and what of it is wrong or dangerous: checks as data over typed state.
//!
//! A [`Check`] names what it looks for, why that matters and what to do; its function gets [`Facts`] and returns the
//! evidence. Facts are read once, when the first check asks for them; a fact that is not there makes checks *skipped*,
//! with the reason, never silently passed.

mod check;
mod checks;
mod cost;
mod facts;
mod flows;
mod page;

pub use check::{Area, Check, Evidence, Found, Severity, Skip};
pub use checks::{all, find};
pub use cost::{Cost, Growth, Met, Place, THRESHOLDS, Threshold, costs};
pub use facts::{Facts, Raw};
pub use flows::Flows;
pub use page::{page, section};

use crate::capture::{Node, XtablesLock};

/// What became of one check.
#[derive(Debug)]
pub struct Judged {
    /// The check.
    pub check: &'static Check,
    /// What it found.
    pub found: Found,
}

impl Judged {
    /// Whether there is something to act on.
    pub fn fired(&self) -> bool {
        self.found.as_ref().is_ok_and(|found| !found.is_empty())
    }

    /// The evidence, empty for a check that passed or was skipped.
    pub fn evidence(&self) -> &[Evidence] {
        self.found.as_deref().unwrap_or_default()
    }
}

/// Runs the checks of these areas on a node; what serving Services costs comes with the area of the rules that do.
pub fn audit(node: &Node, areas: &[Area]) -> Audit {
    let raw = Raw::new(node);
    let facts = Facts::new(&raw);
    let judged = judge(&facts, areas);
    let rules = [Area::Iptables, Area::Nftables, Area::Ipvs].iter().any(|area| areas.contains(area));
    let (costs, lock) = if rules { (costs(&facts), facts.lock().ok().cloned()) } else { (Vec::new(), None) };
    Audit { judged, costs, lock }
}

/// What an audit found.
#[derive(Debug)]
pub struct Audit {
    /// Each check with what became of it.
    pub judged: Vec<Judged>,
    /// What serving Services costs, for each family.
    pub costs: Vec<Cost>,
    /// Who holds iptables-legacy's lock; `None` where that was not looked at.
    pub lock: Option<XtablesLock>,
}

/// Runs the checks of these areas on facts.
pub fn judge(facts: &Facts<'_>, areas: &[Area]) -> Vec<Judged> {
    facts.prefetch(areas);
    let wanted = all().filter(|check| areas.contains(&check.area));
    wanted.map(|check| Judged { check, found: (check.run)(facts) }).collect()
}
