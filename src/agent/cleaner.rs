//! The cleaner: a thread that ends what still leads to backends which have gone, some time after the maps have changed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::metrics::{label, seconds};
use super::ports::Ports;
use super::status::{Condition, Shared};
use super::{addresses, conntrack, sockets};
use crate::error::with_causes;
use crate::inspect::kube::LiftedPort;
use crate::model::Protocol;

/// How long changes are gathered: a look through all flows and sockets is not made for each.
const GATHER: Duration = Duration::from_secs(1);

/// Starts the cleaner. It ends when nobody tells it anything any more.
pub(super) fn start(pins: PathBuf, shared: Arc<Shared>) -> std::io::Result<Sender<Vec<LiftedPort>>> {
    let (sender, receiver) = channel();
    std::thread::Builder::new().name("cleaner".to_owned()).spawn(move || run(&pins, &shared, &receiver))?;
    Ok(sender)
}

fn run(pins: &std::path::Path, shared: &Shared, disturbed: &Receiver<Vec<LiftedPort>>) {
    while let Ok(first) = disturbed.recv() {
        let mut ports = Ports::default();
        ports.put(first);
        std::thread::sleep(GATHER);
        for more in disturbed.try_iter() {
            ports.put(more);
        }
        let troubles = clean(pins, shared, &ports);
        shared.condition(Condition::Cleanup, (!troubles.is_empty()).then(|| troubles.join("; ")));
    }
}

fn clean(pins: &std::path::Path, shared: &Shared, ports: &Ports) -> Vec<String> {
    let mut troubles = Vec::new();
    let local = match addresses::local() {
        Ok(local) => local,
        Err(error) => return vec![format!("the node's addresses: {}", with_causes(&error))],
    };
    if ports.any(Protocol::Udp) {
        let started = Instant::now();
        match conntrack::clean(ports, &local) {
            Ok(count) => {
                tracing::info!(count, "stale UDP flows ended");
                shared.metrics.conntrack_deleted.inc_by(count as u64);
            }
            Err(error) => troubles.push(format!("conntrack: {}", with_causes(&error))),
        }
        shared.metrics.conntrack_time.observe(seconds(started.elapsed()));
    }
    let (closed, refused) = sockets::close(ports, &local, &sockets::peers(pins));
    for (protocol, count) in closed {
        tracing::info!(count, %protocol, "sockets closed whose backend has gone");
        shared.metrics.sockets_closed.get_or_create(&label("protocol", protocol.lower())).inc_by(count as u64);
    }
    let refused: BTreeSet<String> = refused.iter().map(|error| with_causes(error)).collect();
    troubles.extend(refused);
    troubles
}
