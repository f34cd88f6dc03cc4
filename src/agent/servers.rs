//! The end points that kube-proxy had: load balancers, the kubelet and dashboards go on asking them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::http::{self, Answer};
use super::metrics::label;
use super::status::{Health, HealthCheck, Shared};
use crate::inspect::kube::AGENTS_MODE;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers `/healthz` and `/livez`.
///
/// `/healthz` is for load balancers: 503 when the node cannot serve or is about to go. `/livez` is for the kubelet: a node
/// that is about to go is no reason to restart anything. kube-proxy calls itself healthy before its first sync; here
/// `/healthz` waits for it, since a node without maps serves nobody.
pub(super) async fn health(at: SocketAddr, shared: Arc<Shared>) {
    let state = Arc::clone(&shared);
    http::serve(at, shared, move |request: &Request<Incoming>| {
        let health = state.health();
        let (ok, counter) = match request.uri().path() {
            "/healthz" => (health.healthy && health.serving && health.node_eligible, &state.metrics.healthz),
            "/livez" => (health.healthy, &state.metrics.livez),
            _ => return http::not_found(),
        };
        let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        counter.get_or_create(&label("code", status.as_str())).inc();
        http::answer(status, JSON, body(&health).to_string())
    })
    .await;
}

/// kube-proxy's body, with what is wrong besides. A healthy one calls itself updated now, as kube-proxy's does.
fn body(health: &Health) -> serde_json::Value {
    let now = jiff::Timestamp::now();
    let healthy = health.healthy && health.serving;
    let synced = health.synced.map(|time| time.to_string());
    let updated = if healthy { Some(now.to_string()) } else { synced.clone() };
    let family = json!({ "lastUpdated": synced, "healthy": healthy });
    json!({
        "lastUpdated": updated,
        "currentTime": now.to_string(),
        "nodeEligible": health.node_eligible,
        "healthy": healthy,
        "status": { "IPv4": family, "IPv6": family },
        "conditions": health.conditions,
    })
}

/// Answers `/metrics`, `/proxyMode` and `/healthz`.
pub(super) async fn metrics(at: SocketAddr, shared: Arc<Shared>) {
    let state = Arc::clone(&shared);
    http::serve(at, shared, move |request: &Request<Incoming>| match request.uri().path() {
        "/metrics" => http::answer(StatusCode::OK, OPEN_METRICS, state.metrics.text()),
        // Tools compare it with `iptables`, `ipvs` and `nftables`, and must not take this for one of them.
        "/proxyMode" => http::answer(StatusCode::OK, TEXT, AGENTS_MODE),
        "/healthz" => http::answer(StatusCode::OK, TEXT, "ok"),
        _ => http::not_found(),
    })
    .await;
}

/// The `healthCheckNodePort`s to answer on, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HealthChecks {
    /// Each port with its Service; two Services cannot have one port, the API server sees to it.
    pub(super) ports: BTreeMap<u16, HealthCheck>,
    /// The node's addresses to answer on; empty: all.
    pub(super) addresses: Vec<IpAddr>,
}

/// Answers on the `healthCheckNodePort`s that there are at any time, while kube-proxy's ports are this agent's.
pub(super) async fn health_checks(
    mut wanted: watch::Receiver<HealthChecks>,
    mut ours: watch::Receiver<bool>,
    shared: Arc<Shared>,
) {
    let mut servers: BTreeMap<SocketAddr, JoinHandle<()>> = BTreeMap::new();
    loop {
        let addresses: Vec<SocketAddr> = {
            let checks = wanted.borrow_and_update();
            let all = [every_address()];
            let at: &[IpAddr] = if checks.addresses.is_empty() { &all } else { &checks.addresses };
            let ports = checks.ports.keys().filter(|_| *ours.borrow_and_update());
            ports.flat_map(|port| at.iter().map(|ip| SocketAddr::new(*ip, *port))).collect()
        };
        servers.retain(|at, server| {
            let keep = addresses.contains(at);
            if !keep {
                server.abort();
                shared.listening(*at, None);
            }
            keep
        });
        for at in addresses {
            servers.entry(at).or_insert_with(|| {
                let (checks, state) = (wanted.clone(), Arc::clone(&shared));
                let answer = move |_: &Request<Incoming>| health_check(&checks.borrow(), at.port(), &state.health());
                tokio::spawn(http::serve(at, Arc::clone(&shared), answer))
            });
        }
        let changed = tokio::select! {
            changed = wanted.changed() => changed,
            changed = ours.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// `[::]` takes IPv4 too, where the kernel has IPv6.
fn every_address() -> IpAddr {
    match std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => Ipv6Addr::UNSPECIFIED.into(),
        Err(_) => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// kube-proxy's answer, to any path: 200 while a ready endpoint is on this node.
fn health_check(checks: &HealthChecks, port: u16, health: &Health) -> Answer {
    let Some(check) = checks.ports.get(&port) else { return http::not_found() };
    let healthy = health.healthy && health.serving;
    let ok = healthy && check.local_endpoints > 0;
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "service": { "namespace": check.service.namespace, "name": check.service.name },
        "localEndpoints": check.local_endpoints,
        "serviceProxyHealthy": healthy,
    });
    let mut answer = http::answer(status, JSON, serde_json::to_string_pretty(&body).unwrap_or_default());
    answer.headers_mut().insert("X-Load-Balancing-Endpoint-Weight", check.local_endpoints.into());
    answer
}
