//! Addresses, networks and durations in the forms that Kubernetes writes and takes.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;

/// Reads an address as Kubernetes does: numbers of an IPv4 address may have leading zeros and are decimal all the same.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))?;
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

/// Reads a network; bits of the host part are cleared, as the rules made from it have them.
pub(super) fn parse_net(text: &str) -> Option<IpNet> {
    let (ip, prefix) = text.split_once('/')?;
    IpNet::new(parse_ip(ip)?, prefix.parse().ok()?).ok().map(|net| net.trunc())
}

/// Durations in Go's notation.
pub(super) struct GoDuration;

impl GoDuration {
    /// Reads `24h0m0s`, `250ms`, `1.5h` and the like; negative ones are refused.
    pub(super) fn parse(text: &str) -> Option<Duration> {
        if text == "0" {
            return Some(Duration::ZERO);
        }
        let mut total = Duration::ZERO;
        let mut rest = text;
        while !rest.is_empty() {
            let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, tail) = rest.split_at(unit_at);
            let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let seconds = match unit {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
            total += Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
            rest = tail;
        }
        (!text.is_empty()).then_some(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_the_forms_the_api_server_once_let_in() {
        assert_eq!(parse_ip("010.096.0.1"), Some(IpAddr::from([10, 96, 0, 1])));
        assert_eq!(parse_ip("fd00::1").map(|ip| ip.to_string()).as_deref(), Some("fd00::1"));
        for bad in ["", "10.96.0", "10.96.0.1.2", "10.96.0.256", "10.96.0.x", "10.+96.0.1"] {
            assert_eq!(parse_ip(bad), None, "{bad:?}");
        }
        assert_eq!(parse_net("10.1.2.3/8").map(|n| n.to_string()).as_deref(), Some("10.0.0.0/8"));
        for bad in ["10.0.0.0", "10.0.0.0/33", "/8", "10.0.0.0/"] {
            assert_eq!(parse_net(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn durations_of_go() {
        assert_eq!(GoDuration::parse("24h0m0s"), Some(Duration::from_hours(24)));
        assert_eq!(GoDuration::parse("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(GoDuration::parse("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(GoDuration::parse("0s"), Some(Duration::ZERO));
        for bad in ["", "5", "-1s", "1x", "h"] {
            assert_eq!(GoDuration::parse(bad), None, "{bad:?}");
        }
    }
}
