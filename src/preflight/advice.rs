//! When to stay with kube-proxy.

use std::fmt;

use serde::Serialize;

use super::Judged;
use super::answer::Answer;
use super::cluster::Cluster;
use super::feature::{Area, Target};
use crate::severity::Severity;

/// Services below which a change is hardly worth its while for the rules' cost alone: a rule of thumb, not measured.
const FEW: usize = 50;

/// Which way the facts lean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Leaning {
    /// Stay with kube-proxy.
    Stay,
    /// Nothing stands in the way.
    Move,
    /// Too little is known.
    Open,
}

impl fmt::Display for Leaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stay => "stay with kube-proxy",
            Self::Move => "nothing stands in the way",
            Self::Open => "too little is known",
        })
    }
}

/// A fact that the advice rests on.
#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    /// Which way it leans.
    pub leaning: Leaning,
    /// What is so, a sentence.
    pub text: String,
}

/// The advice.
#[derive(Clone, Debug, Serialize)]
pub struct Advice {
    /// Which way.
    pub leaning: Leaning,
    /// What it rests on.
    pub facts: Vec<Fact>,
}

pub(super) fn advise(judged: &[Judged], cluster: &Cluster, target: Target) -> Advice {
    let mut facts = Vec::new();
    let mut add = |leaning, text: String| facts.push(Fact { leaning, text });
    // How kpx is run can be changed at once; the kernel and the root of cgroups cannot.
    let of_kernel = |j: &&Judged| {
        !matches!(j.feature.area, Area::Cluster | Area::Node) && j.feature.need(target) == Some(Severity::Error)
    };
    let by = |answer: Answer| -> Vec<&str> {
        judged.iter().filter(of_kernel).filter(|j| j.finding.answer == answer).map(|j| j.feature.name).collect()
    };
    let (lacking, mut unknown) = (by(Answer::Lacks), by(Answer::Unknown));
    // That the verifier takes the programs can only be tried; the features that they use tell as much as files can.
    unknown.retain(|name| *name != "programs");
    if !lacking.is_empty() {
        add(Leaning::Stay, format!("The kernel lacks what the dataplane cannot do without: {}.", lacking.join(", ")));
    } else if unknown.is_empty() {
        add(Leaning::Move, "The kernel has all that the dataplane cannot do without.".to_owned());
    } else {
        add(Leaning::Open, format!("Of the kernel it cannot be told whether it has: {}.", unknown.join(", ")));
    }
    match cluster.windows {
        Some(0) | None => {}
        Some(count) => {
            add(Leaning::Open, format!("{} with Windows: kube-proxy stays there.", crate::ui::count(count, "node")));
        }
    }
    match cluster.services {
        Some(count) if count < FEW => add(
            Leaning::Stay,
            format!(
                "{}: below some {FEW} (a rule of thumb) there is little to win.",
                crate::ui::count(count, "Service")
            ),
        ),
        Some(count) => {
            add(
                Leaning::Move,
                format!("{}: their rules are walked and rewritten.", crate::ui::count(count, "Service")),
            );
        }
        None => add(Leaning::Open, "How many Services there are is not known.".to_owned()),
    }
    add(
        Leaning::Open,
        "Stay if an audit demands Services as iptables or nftables rules: eBPF has none to show. No node says whether one does."
            .to_owned(),
    );
    let any = |leaning| facts.iter().any(|fact: &Fact| fact.leaning == leaning);
    let leaning = if any(Leaning::Stay) {
        Leaning::Stay
    } else if unknown.is_empty() && cluster.services.is_some() {
        Leaning::Move
    } else {
        Leaning::Open
    };
    Advice { leaning, facts }
}
