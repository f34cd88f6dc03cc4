//! What a node will be able to do: each [`Feature`] tried on the running kernel, or foretold from files.

mod advice;
mod answer;
mod cluster;
mod feature;
mod kernel;
mod node;
mod page;
mod registry;
pub mod trial;

use std::path::Path;

pub use advice::{Advice, Fact, Leaning};
pub use answer::{Answer, Basis, Finding};
pub use feature::{Area, Feature, Target};
pub use kernel::{Kernel, KernelError, read_btf, read_config};
pub use node::{Places, cgroup_root, pod_processes};
pub use page::{page, section};
pub use registry::{all, find};

use crate::capture::Node;
use crate::severity::Severity;
use trial::Trials;

/// What became of one feature.
#[derive(Debug)]
pub struct Judged {
    /// The feature.
    pub feature: &'static Feature,
    /// What was found.
    pub finding: Finding,
    /// How bad its absence is.
    pub severity: Severity,
    /// Whether the operator asked for it by name.
    pub required: bool,
}

impl Judged {
    /// Whether there is something to act on. What is required and cannot be told is not there.
    pub fn fired(&self) -> bool {
        match self.finding.answer {
            Answer::Works => false,
            Answer::Lacks => true,
            Answer::Unknown => self.required,
        }
    }

    /// Whether it cannot be told, and nobody insists.
    pub fn is_open(&self) -> bool {
        self.finding.answer == Answer::Unknown && !self.required
    }
}

/// Where answers come from.
#[derive(Debug)]
pub struct Sources<'s> {
    /// What files say of the kernel.
    pub kernel: &'s Kernel,
    /// Whether the kernel is the running one, and this node the one that is asked about.
    pub here: Option<Places<'s>>,
    /// What came of trying; where nothing was tried, why not.
    pub trials: Result<&'s Trials, &'s str>,
    /// The cluster around, if it is asked about.
    pub node: Option<&'s Node>,
}

/// What a preflight found.
#[derive(Debug)]
pub struct Preflight {
    /// Each feature that the target needs.
    pub judged: Vec<Judged>,
    /// Whether to move, and why.
    pub advice: Advice,
}

/// Answers for each feature that a target needs, or that is required.
pub fn judge(sources: &Sources<'_>, target: Target, required: &[&'static Feature]) -> Preflight {
    let seen = sources.here.as_ref().map(node::look).unwrap_or_default();
    let cluster = sources.node.map(cluster::look).unwrap_or_default();
    let answer = |feature: &Feature| {
        if let Some(finding) = seen.get(feature.name).filter(|finding| finding.answer != Answer::Unknown) {
            return finding.clone();
        }
        if feature.area == Area::Cluster {
            return cluster.findings.get(feature.name).cloned().unwrap_or_else(|| Finding::unknown("no node was read"));
        }
        let tried = sources.trials.ok().and_then(|trials| trials.get(feature.name));
        if let Some(tried) = tried.filter(|tried| tried.answer != Answer::Unknown) {
            return Finding::new(tried.answer, Basis::Tried, tried.reason.clone());
        }
        let mut finding = sources.kernel.predict(feature);
        // Why it was not tried or seen is worth a word where nothing else tells.
        let why = tried.map(|tried| &tried.reason).or_else(|| seen.get(feature.name).map(|finding| &finding.reason));
        if let (Answer::Unknown, Some(why)) = (finding.answer, why) {
            finding.reason.clone_from(why);
        }
        finding
    };
    let judged: Vec<Judged> = all()
        .filter_map(|feature| {
            let required = required.iter().any(|wanted| wanted.id == feature.id);
            let severity = if required { Some(Severity::Error) } else { feature.need(target) }?;
            Some(Judged { feature, finding: answer(feature), severity, required })
        })
        .collect();
    let advice = advice::advise(&judged, &cluster, target);
    Preflight { judged, advice }
}

/// Tries everything on the running kernel.
pub fn try_here(cgroup: Result<&Path, &str>) -> Result<Trials, trial::TrialError> {
    trial::run(cgroup.ok())
}
