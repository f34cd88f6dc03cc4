//! Whose kube-proxy's ports are: this agent's, but for while a kube-proxy is on the node or on its way back.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::status::Shared;
use super::writer::Stance;
use crate::migrate::{Store, StoreError, kube_proxy_runs};

/// How often the journal is looked at: load balancers ask every few seconds.
const GLANCE: Duration = Duration::from_millis(250);
/// How often processes are looked through.
const PROCESSES: Duration = Duration::from_secs(2);

/// Finds out for ever whether the ports are this agent's.
pub(super) async fn follow(store: Store, stance: watch::Receiver<Stance>, ours: watch::Sender<bool>) {
    let mut seen: Option<(Instant, bool)> = None;
    loop {
        let alone = *stance.borrow() == Stance::Alone;
        // Whoever cannot read the journal leaves the ports to whom they are with.
        if let Ok(now) = are_ours(&store, alone, &mut seen) {
            ours.send_if_modified(|ours| std::mem::replace(ours, now) != now);
        }
        tokio::time::sleep(GLANCE).await;
    }
}

fn are_ours(store: &Store, alone: bool, seen: &mut Option<(Instant, bool)>) -> Result<bool, StoreError> {
    let Some(newest) = store.list()?.pop() else { return Ok(alone) };
    let progress = newest.progress()?;
    if progress.is_closed() {
        return Ok(alone);
    }
    if let Some(away) = progress.kube_proxy_is_away() {
        return Ok(away);
    }
    let looked = seen.filter(|(when, _)| when.elapsed() < PROCESSES);
    let (_, runs) = looked.unwrap_or_else(|| *seen.insert((Instant::now(), kube_proxy_runs())));
    Ok(!runs)
}

/// Serves while the ports are this agent's, and leaves them otherwise.
pub(super) async fn while_ours<F: Future<Output = ()>>(
    mut ours: watch::Receiver<bool>,
    at: std::net::SocketAddr,
    shared: &Shared,
    serve: impl Fn() -> F,
) {
    while ours.wait_for(|ours| *ours).await.is_ok() {
        tokio::select! {
            () = serve() => return,
            left = ours.wait_for(|ours| !*ours) => if left.is_err() { return },
        }
        shared.listening(at, None);
        tracing::info!("{at} is left to kube-proxy");
    }
}
