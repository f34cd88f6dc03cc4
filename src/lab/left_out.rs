//! What of the recorded node a lab does not have, or not as it was: told by name, never left out in silence.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::LabError;
use super::network::Network;
use crate::capture::{BpfObjects, Captured, Host, Item, Node};
use crate::model::{Frontend, Protocol, ServiceTable};

/// Something of the recorded node that the lab does not have, or not so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// What it is, by the name that the node has for it.
    pub what: String,
    /// Why, or how it is instead.
    pub why: String,
}

impl LeftOut {
    pub(super) fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into() }
    }
}

/// Names are listed up to this many.
const FEW: usize = 4;

/// `a, b, c, d and 7 more`.
pub(super) fn few<T: std::fmt::Display>(names: &[T]) -> String {
    let shown: Vec<String> = names.iter().take(FEW).map(ToString::to_string).collect();
    match names.len().saturating_sub(FEW) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// What a snapshot holds that no lab builds.
pub(super) fn of_snapshot(node: &Node, network: &Network, table: &ServiceTable) -> Result<Vec<LeftOut>, LabError> {
    let mut out: Vec<LeftOut> = kernel(node)?.into_iter().collect();
    out.extend(network.unlike.iter().cloned());
    out.extend(routing_rules(node)?);
    out.extend(programs(node)?);
    let sctp = table.frontends().iter().filter(|f| f.key.protocol == Protocol::Sctp);
    let sctp: BTreeSet<String> = sctp.map(Frontend::display_name).collect();
    if !sctp.is_empty() {
        let names: Vec<&String> = sctp.iter().collect();
        let why = "carried over, but the lab's clients speak TCP and UDP only";
        out.push(LeftOut::new(format!("traffic by SCTP: {}", few(&names)), why));
    }
    Ok(out)
}

fn present(node: &Node, item: Item) -> Result<Option<Vec<u8>>, LabError> {
    Ok(match node.read(item)? {
        Captured::Present { bytes, .. } => Some(bytes),
        Captured::Absent { .. } => None,
    })
}

/// Another kernel may do what this one does not, and the other way round.
fn kernel(node: &Node) -> Result<Option<LeftOut>, LabError> {
    let Some(bytes) = present(node, Item::Host)? else { return Ok(None) };
    let Ok(there) = serde_json::from_slice::<Host>(&bytes) else { return Ok(None) };
    let here = Host::read()?.kernel_release;
    Ok((there.kernel_release != here)
        .then(|| LeftOut::new(format!("kernel {}", there.kernel_release), format!("this machine's is {here}"))))
}

/// Rules of policy routing, but for those that every namespace has.
fn routing_rules(node: &Node) -> Result<Option<LeftOut>, LabError> {
    #[derive(Deserialize)]
    struct Rule {
        priority: u32,
        #[serde(default)]
        table: Option<String>,
    }
    let Some(bytes) = present(node, Item::RouteRules)? else { return Ok(None) };
    let rules: Vec<Rule> = serde_json::from_slice(&bytes).unwrap_or_default();
    let own: Vec<String> = rules
        .into_iter()
        .filter(|rule| ![0, 32_766, 32_767].contains(&rule.priority))
        .map(|rule| format!("{} to table {}", rule.priority, rule.table.unwrap_or_default()))
        .collect();
    Ok((!own.is_empty()).then(|| {
        LeftOut::new(format!("rules of policy routing: {}", few(&own)), "packets are routed by the main table")
    }))
}

/// Kinds of programs that packets or sockets meet.
const MEETING: [&str; 4] = ["sched_cls", "xdp", "cgroup_sock_addr", "sock_ops"];

/// Programs of others, which a snapshot names but does not hold.
fn programs(node: &Node) -> Result<Option<LeftOut>, LabError> {
    let Some(bytes) = present(node, Item::BpfObjects)? else { return Ok(None) };
    let Ok(objects) = serde_json::from_slice::<BpfObjects>(&bytes) else { return Ok(None) };
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for program in objects.programs.iter().filter(|p| MEETING.contains(&p.kind.as_str()) && !p.name.starts_with("kpx_"))
    {
        *names.entry(format!("{} ({})", program.name, program.kind)).or_default() += 1;
    }
    let number: usize = names.values().sum();
    let names: Vec<String> = names.into_keys().collect();
    Ok((number > 0).then(|| {
        LeftOut::new(
            format!("BPF programs of others ({number}): {}", few(&names)),
            "a snapshot names them and does not hold them; kpx migrate plan on the node says whether they are in the way",
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(few(&["a", "b"]), "a, b");
        assert_eq!(few(&["a", "b", "c", "d", "e", "f"]), "a, b, c, d and 2 more");
    }
}
