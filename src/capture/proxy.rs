//! kube-proxy's own end points, and what its log and configuration say about the node's name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::error::CaptureError;
use super::http::{self, Answer};
use super::{Captured, Item};

/// Default of `metricsBindAddress`: /metrics, /proxyMode, /configz.
const METRICS_PORT: u16 = 10249;
/// Default of `healthzBindAddress`: /healthz, /livez.
const HEALTHZ_PORT: u16 = 10256;
/// kube-proxy listens on the loopback address of the node's first family, or on all addresses.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Port and path of an item that kube-proxy serves.
const fn endpoint(item: Item) -> Option<(u16, &'static str)> {
    match item {
        Item::ProxyMode => Some((METRICS_PORT, "/proxyMode")),
        Item::Configz => Some((METRICS_PORT, "/configz")),
        Item::Metrics => Some((METRICS_PORT, "/metrics")),
        Item::Healthz => Some((HEALTHZ_PORT, "/healthz")),
        Item::Livez => Some((HEALTHZ_PORT, "/livez")),
        _ => None,
    }
}

/// The URL that is asked first.
pub(super) fn url(item: Item) -> Option<String> {
    endpoint(item).map(|(port, path)| format!("http://127.0.0.1:{port}{path}"))
}

/// Asks kube-proxy; `None` for an item that it does not serve.
pub(super) fn read(item: Item) -> Option<Result<Captured, CaptureError>> {
    let (port, path) = endpoint(item)?;
    Some(ask(item, port, path))
}

fn ask(item: Item, port: u16, path: &str) -> Result<Captured, CaptureError> {
    for ip in LOOPBACK {
        let to = SocketAddr::new(ip, port);
        let place = format!("http://{to}{path}");
        return match http::get(to, path) {
            Err(e) if e.is_refused() => continue,
            Err(source) => Err(CaptureError::Http { item, place, source }),
            Ok(answer) => Ok(captured(item, place, answer)),
        };
    }
    Ok(Captured::Absent { reason: format!("nothing listens on 127.0.0.1:{port} or [::1]:{port}") })
}

fn captured(item: Item, place: String, answer: Answer) -> Captured {
    let Answer { status, head, body } = answer;
    match item {
        // An unhealthy kube-proxy answers 503: that is the finding.
        Item::Healthz | Item::Livez if status != 404 => {
            Captured::Present { bytes: [head.as_bytes(), b"\r\n\r\n", &body].concat(), place }
        }
        _ if status == 200 => Captured::Present { bytes: body, place },
        _ => Captured::Absent { reason: format!("{place} answered with status {status}") },
    }
}

/// `--hostname-override` as kube-proxy logs its flags at start, lower-cased as kube-proxy does.
pub(super) fn node_name_in_log(log: &[u8]) -> Option<String> {
    const FLAG: &[u8] = b"FLAG: --hostname-override=\"";
    let rest = &log[memchr::memmem::find(log, FLAG)? + FLAG.len()..];
    let value = &rest[..memchr::memchr(b'"', rest)?];
    named(str::from_utf8(value).ok()?)
}

/// `hostnameOverride` of /configz.
pub(super) fn node_name_in_configz(configz: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(configz).ok()?;
    named(value.get("kubeproxy.config.k8s.io")?.get("hostnameOverride")?.as_str()?)
}

fn named(name: &str) -> Option<String> {
    let name = name.trim().to_lowercase();
    (!name.is_empty()).then_some(name)
}

/// The name that the kube-proxy running here goes by, if it is told one.
pub(super) fn live_node_name() -> Option<String> {
    match read(Item::Configz)? {
        Ok(Captured::Present { bytes, .. }) => node_name_in_configz(&bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names() {
        let log = b"I1123 15:00:46.015174   16345 flags.go:64] FLAG: --help=\"false\"\n\
                    I1123 15:00:46.015174   16345 flags.go:64] FLAG: --hostname-override=\"Node-A\"\n";
        assert_eq!(node_name_in_log(log).as_deref(), Some("node-a"));
        assert_eq!(node_name_in_log(b"FLAG: --hostname-override=\"\"\n"), None);
        assert_eq!(node_name_in_log(b"FLAG: --hostname-override=\"cut"), None);
        let configz = br#"{"kubeproxy.config.k8s.io":{"hostnameOverride":"node-a"}}"#;
        assert_eq!(node_name_in_configz(configz).as_deref(), Some("node-a"));
        assert_eq!(node_name_in_configz(b"{}"), None);
    }
}
