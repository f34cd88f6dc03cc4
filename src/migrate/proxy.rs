//! Whether kube-proxy is alive and up to date, from what it answers on its two ports.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What kube-proxy says about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyHealth {
    /// Its mode, from `/proxyMode`.
    pub mode: Option<String>,
    /// Its version, from `/metrics`.
    pub version: Option<String>,
    /// `/healthz`; `None` when it does not answer.
    pub healthz: Option<Healthz>,
    /// Seconds since 1970 at which a sync was last queued and last done, by family as the metric labels it (empty label
    /// before Kubernetes 1.34).
    pub syncs: BTreeMap<String, SyncTimes>,
}

/// The answer of `/healthz`.
#[derive(Clone, Debug, PartialEq)]
pub struct Healthz {
    /// Whether the status code is 200.
    pub ok: bool,
    /// The first line, such as `HTTP/1.1 503 Service Unavailable`.
    pub status: String,
    /// kube-proxy's clock, seconds since 1970.
    pub now: Option<f64>,
}

/// When rules were queued for writing and when they were written, seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SyncTimes {
    /// `kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds`.
    pub queued: Option<f64>,
    /// `kubeproxy_sync_proxy_rules_last_timestamp_seconds`.
    pub done: Option<f64>,
}

/// How long a queued sync may wait before the rules count as stale. kube-proxy's default `minSyncPeriod` is 1 s.
const PATIENCE_SECONDS: f64 = 10.0;
/// The same where kube-proxy's clock is not known: twice its default `syncPeriod`, as its own health check allows.
const PATIENCE_WITHOUT_CLOCK_SECONDS: f64 = 60.0;

impl ProxyHealth {
    /// Reads the answers; absent ones say nothing.
    pub fn parse(mode: Option<&[u8]>, healthz: Option<&[u8]>, metrics: Option<&[u8]>) -> Self {
        let mode = mode.map(|m| String::from_utf8_lossy(m).trim().to_owned()).filter(|m| !m.is_empty());
        let healthz = healthz.and_then(parse_healthz);
        let mut health = Self { mode, healthz, ..Self::default() };
        if let Some(metrics) = metrics {
            health.read_metrics(&String::from_utf8_lossy(metrics));
        }
        health
    }

    /// Whether anything answered.
    pub const fn is_alive(&self) -> bool {
        self.healthz.is_some() || self.mode.is_some()
    }

    /// In words, without anything that changes from one moment to the next.
    pub fn describe(&self) -> String {
        let version = self.version.as_deref().map(|v| format!(", {v}")).unwrap_or_default();
        match (&self.healthz, self.is_alive()) {
            (Some(h), _) if h.ok => format!("answers and is healthy{version}"),
            (Some(h), _) => format!("answers {}{version}", h.status),
            (None, true) => format!("answers{version}"),
            (None, false) => "does not answer (not running here, or not reachable)".to_owned(),
        }
    }

    /// Why the rules may be older than the API objects; empty: no reason known.
    pub fn stale(&self) -> Vec<String> {
        let mut out = Vec::new();
        if let Some(healthz) = self.healthz.as_ref().filter(|h| !h.ok) {
            out.push(format!("/healthz answers {}", healthz.status));
        }
        let now = self.healthz.as_ref().and_then(|h| h.now);
        for (family, times) in &self.syncs {
            let (Some(queued), Some(done)) = (times.queued, times.done) else { continue };
            let waits = match now {
                Some(now) if queued > done => now - queued > PATIENCE_SECONDS,
                Some(_) => false,
                None => queued - done > PATIENCE_WITHOUT_CLOCK_SECONDS,
            };
            if waits {
                let family = if family.is_empty() { String::new() } else { format!(" of {family}") };
                out.push(format!(
                    "/metrics: a sync{family} is queued and the last one done is {:.0} s older",
                    queued - done
                ));
            }
        }
        out
    }

    fn read_metrics(&mut self, text: &str) {
        for line in text.lines().filter(|l| l.starts_with("kube")) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            if name == "kubernetes_build_info" {
                self.version = label(labels, "git_version").map(str::to_owned);
                continue;
            }
            let Ok(value) = value.parse::<f64>() else { continue };
            let family = label(labels, "ip_family").unwrap_or("").to_owned();
            match name {
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds" => {
                    self.syncs.entry(family).or_default().queued = Some(value);
                }
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds" => {
                    self.syncs.entry(family).or_default().done = Some(value);
                }
                _ => {}
            }
        }
    }
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

fn parse_healthz(bytes: &[u8]) -> Option<Healthz> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "currentTime")]
        current_time: Option<jiff::Timestamp>,
    }
    let text = String::from_utf8_lossy(bytes);
    let status = text.lines().next().filter(|l| l.starts_with("HTTP/"))?.trim().to_owned();
    let ok = status.split(' ').nth(1) == Some("200");
    let body = text.split_once("\r\n\r\n").or_else(|| text.split_once("\n\n")).map_or("", |(_, body)| body);
    let now = serde_json::from_str::<Body>(body.trim()).ok().and_then(|b| b.current_time);
    Some(Healthz { ok, status, now: now.map(|t| t.as_duration().as_secs_f64()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"lastUpdated\":\"2026-11-23T15:01:14.445357601Z\",\"currentTime\":\"2026-11-23T15:01:14.445295679Z\",\"nodeEligible\":true,\"healthy\":true}";
    const METRICS: &str = r#"kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv4"} 1.795446046449479e+09
kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv6"} 1.7954460464494805e+09
kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} 1.7954460467481198e+09
kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv6"} 1.7954460468580093e+09
kubernetes_build_info{build_date="2026-07-17T00:00:00Z",git_version="v1.36.2",major="1"} 1
"#;

    fn parse(healthz: &str, metrics: &str) -> ProxyHealth {
        ProxyHealth::parse(Some(b"iptables"), Some(healthz.as_bytes()), Some(metrics.as_bytes()))
    }

    #[test]
    fn a_recorded_healthy_proxy_is_alive_and_not_stale() {
        let health = parse(HEALTHY, METRICS);
        assert_eq!(health.stale(), Vec::<String>::new());
        assert_eq!(health.describe(), "answers and is healthy, v1.36.2");
    }

    #[test]
    fn a_sync_that_waits_is_stale_for_its_family_only() {
        let late = METRICS.replace(
            "last_timestamp_seconds{ip_family=\"IPv6\"} 1.7954460468580093e+09",
            "last_timestamp_seconds{ip_family=\"IPv6\"} 1.795446000e+09",
        );
        let stale = parse(HEALTHY, &late).stale();
        assert_eq!(stale, ["/metrics: a sync of IPv6 is queued and the last one done is 46 s older"]);
    }

    #[test]
    fn a_sync_queued_just_now_is_not_stale() {
        let now = METRICS.replace("1.795446046449479e+09", "1.795446074000e+09");
        assert_eq!(parse(HEALTHY, &now).stale(), Vec::<String>::new());
    }

    #[test]
    fn an_unhealthy_answer_is_stale() {
        let stale = parse(&HEALTHY.replace("200 OK", "503 Service Unavailable"), METRICS).stale();
        assert_eq!(stale, ["/healthz answers HTTP/1.1 503 Service Unavailable"]);
    }

    #[test]
    fn nothing_answered_is_known_as_such() {
        let health = ProxyHealth::parse(None, None, None);
        assert!(!health.is_alive());
        assert_eq!(health.stale(), Vec::<String>::new());
    }
}
