//! The audit: each check where it fires and where it is silent, whole recordings, and its screens.

mod affinity;
mod cases;
mod folder;
mod hostile;
mod live;
mod netlink;
mod recordings;

pub(crate) use self::netlink::one_service;
use kpx::audit::{Area, Judged, audit};
use kpx::capture::{Node, NodeOptions};

/// Runs all checks on a snapshot.
fn judged(options: NodeOptions) -> Vec<Judged> {
    audit(&Node::open(&options).expect("the snapshot opens"), &Area::ALL).judged
}

/// What one check said, for messages: `found`, `passed` or the reason of a skip, with its evidence.
fn said(judged: &[Judged], id: &str) -> String {
    let judged = judged.iter().find(|j| j.check.id == id).unwrap_or_else(|| panic!("{id} is a check"));
    match &judged.found {
        Err(skip) => format!("skipped: {}", skip.0),
        Ok(found) if found.is_empty() => "passed".to_owned(),
        Ok(found) => found.iter().map(|e| format!("found {}: {}", e.at, e.text)).collect::<Vec<_>>().join("\n"),
    }
}
