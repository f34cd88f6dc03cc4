//! How long the node's iptables rules take to load, tried in a network namespace that lasts as long as the trial.

use std::thread;
use std::time::Instant;

use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde::Serialize;

use crate::capture::{Captured, Item, Node, Variant};
use crate::lab::{self, LabError, Rules};
use crate::model::Family;
use crate::ui::{Failure, Table};

/// One family of one backend.
#[derive(Debug, Serialize)]
pub(super) struct Load {
    /// The tool that loads them.
    tool: String,
    /// Rules in all tables.
    rules: usize,
    /// Seconds to load them where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seconds: Option<f64>,
    /// Seconds to replace them by themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    again_seconds: Option<f64>,
    /// Why there are no times.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Loads the rules of each backend and family twice, in a namespace of its own.
pub(super) fn measure(node: &Node) -> Result<Vec<Load>, Failure> {
    let sets = match node.read(Item::Ipset)? {
        Captured::Present { bytes, .. } => bytes,
        Captured::Absent { .. } => Vec::new(),
    };
    let mut loads = Vec::new();
    for variant in [Variant::Nft, Variant::Legacy] {
        for family in Family::BOTH {
            let Captured::Present { bytes: text, .. } = node.read(Item::IptablesSave(family, variant))? else {
                continue;
            };
            let rules = text.split(|b| *b == b'\n').filter(|line| is_rule(line)).count();
            if rules == 0 {
                continue;
            }
            let loaded = Rules { family, variant, text };
            let mut load = Load {
                tool: loaded.program().to_owned(),
                rules,
                first_seconds: None,
                again_seconds: None,
                problem: None,
            };
            match apart(|| twice(&loaded, &sets)) {
                Ok((first, again)) => (load.first_seconds, load.again_seconds) = (Some(first), Some(again)),
                Err(error) => load.problem = Some(crate::error::with_causes(&error)),
            }
            loads.push(load);
        }
    }
    Ok(loads)
}

/// A rule as saved, with its counters or without.
fn is_rule(line: &[u8]) -> bool {
    line.starts_with(b"-A ") || line.starts_with(b"[")
}

fn twice(rules: &Rules, sets: &[u8]) -> Result<(f64, f64), LabError> {
    // A rule that names a set cannot be loaded without it.
    lab::restore_ipsets(sets)?;
    let once = || {
        let begun = Instant::now();
        lab::load_rules(std::slice::from_ref(rules)).map(|()| begun.elapsed().as_secs_f64())
    };
    Ok((once()?, once()?))
}

/// Runs `work` in a thread with a network namespace of its own. No name holds it: it ends with the thread.
fn apart<T: Send>(work: impl FnOnce() -> Result<T, LabError> + Send) -> Result<T, LabError> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            #[expect(
                unsafe_code,
                reason = "unshare is unsafe for the flags about file descriptors only, which are not used"
            )]
            let apart = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
            apart.map_err(|e| LabError::Namespace { name: "of its own".to_owned(), source: e.into() })?;
            work()
        });
        match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// For people.
pub(super) fn table(loads: &[Load]) -> Table {
    /// kube-proxy's default `minSyncPeriod`, seconds.
    const SYNC: f64 = 1.0;
    let mut table = Table::new(&["LOADED-BY", "RULES", "FIRST", "AGAIN"])
        .right(&["RULES", "FIRST", "AGAIN"])
        .title("what it costs: a load of all these rules, measured in a network namespace of its own");
    let time = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.2} s"));
    let mut words = Vec::new();
    for load in loads {
        table.row([load.tool.clone(), load.rules.to_string(), time(load.first_seconds), time(load.again_seconds)]);
        words.extend(load.problem.as_ref().map(|problem| format!("{}: not measured: {problem}", load.tool)));
    }
    if loads.is_empty() {
        words.push("there are no iptables rules to load".to_owned());
    } else if loads.iter().any(|load| load.again_seconds.is_some_and(|seconds| seconds > SYNC)) {
        words.push(
            "kube-proxy writes once in a second at most (minSyncPeriod): a full sync that takes longer delays every change by it"
                .to_owned(),
        );
    }
    if words.is_empty() { table } else { table.footer(words.join("\n")) }
}
