//! The cleaner: a thread that ends what still leads to backends which have gone, some time after the maps have changed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::metrics::{label, seconds};
use super::status::{Condition, Shared};
use super::watched::{Look, Watched};
use super::{addresses, conntrack, sockets};
use crate::error::with_causes;
use crate::inspect::kube::LiftedService;
use crate::model::Protocol;

/// How long changes are gathered: a look through all flows and sockets is not made for each.
const GATHER: Duration = Duration::from_secs(1);

/// How long after a look that did not come through it is made again.
const AGAIN: Duration = Duration::from_secs(5);

/// Starts the cleaner, which ends with the process.
pub(super) fn start(pins: PathBuf, shared: Arc<Shared>) -> std::io::Result<Arc<Watched>> {
    let watched = Arc::new(Watched::default());
    let told = Arc::clone(&watched);
    std::thread::Builder::new().name("cleaner".to_owned()).spawn(move || run(&pins, &shared, &told))?;
    Ok(watched)
}

fn run(pins: &Path, shared: &Shared, watched: &Watched) {
    let mut look = watched.wait(GATHER);
    loop {
        let troubles = clean(pins, shared, watched, &look);
        let done = troubles.is_empty();
        shared.condition(Condition::Cleanup, (!done).then(|| troubles.join("; ")));
        look = if done {
            watched.looked(&look);
            watched.wait(GATHER)
        } else {
            std::thread::sleep(AGAIN);
            watched.look()
        };
    }
}

/// Ends at once what leads to endpoints of these Services that are gone, as the agent does some time after the maps have
/// changed: flows of datagrams in this network namespace's conntrack, and sockets in all namespaces that the hooks of these pins
/// have connected. What could not be done, if anything.
pub fn end_stale(pins: &Path, services: &[LiftedService]) -> Vec<String> {
    let watched = Watched::default();
    watched.disturb(services.iter().map(|service| (&service.name, service.ports.as_slice())));
    clean(pins, &Shared::new(), &watched, &watched.look())
}

fn clean(pins: &Path, shared: &Shared, watched: &Watched, look: &Look) -> Vec<String> {
    let mut troubles = Vec::new();
    let local = match addresses::local() {
        Ok(local) => local,
        Err(error) => return vec![format!("the node's addresses: {}", with_causes(&error))],
    };
    if look.concerns(Protocol::Udp) {
        let started = Instant::now();
        let is_stale = |sent_to, answers_from| watched.is_stale_flow(sent_to, answers_from, &local);
        match conntrack::clean(is_stale) {
            Ok(count) => {
                tracing::info!(count, "stale UDP flows ended");
                shared.metrics.conntrack_deleted.inc_by(count as u64);
            }
            Err(error) => troubles.push(format!("conntrack: {}", with_causes(&error))),
        }
        shared.metrics.conntrack_time.observe(seconds(started.elapsed()));
    }
    let is_stale = |protocol: Protocol, sent_to: SocketAddr, backend: SocketAddr| {
        watched.is_stale_socket(protocol, sent_to, backend, &local)
    };
    let (closed, refused) = sockets::close(look, &is_stale, &sockets::peers(pins));
    for (protocol, count) in closed {
        tracing::info!(count, %protocol, "sockets closed whose backend has gone");
        shared.metrics.sockets_closed.get_or_create(&label("protocol", protocol.lower())).inc_by(count as u64);
    }
    let refused: BTreeSet<String> = refused.iter().map(|error| with_causes(error)).collect();
    troubles.extend(refused);
    troubles
}
