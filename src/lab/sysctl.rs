//! The recorded sysctls that a network namespace has of its own, and setting them there.

use std::path::PathBuf;

use super::{LabError, LeftOut};

/// Prefixes of what belongs to a namespace and bears on Services. Sizes and limits of conntrack are the machine's.
const OWN: [&str; 8] = [
    "net.ipv4.ip_forward",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.conf.",
    "net.ipv6.conf.",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "net.netfilter.nf_conntrack_tcp_loose",
    "net.netfilter.nf_conntrack_tcp_timeout_",
];

/// What of `net.*.conf.DEVICE` a lab takes over.
const CONF: [&str; 6] = ["forwarding", "route_localnet", "rp_filter", "arp_ignore", "arp_announce", "disable_ipv6"];

/// The `name = value` lines that a lab sets in its node's namespace.
pub(super) fn of_a_namespace(text: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().filter_map(|line| line.split_once(" = ").or_else(|| line.split_once("= ")));
    lines
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .filter(|(name, value)| !value.is_empty() && wanted(name))
        .collect()
}

fn wanted(name: &str) -> bool {
    let udp_or_generic = name.starts_with("net.netfilter.nf_conntrack_udp_timeout");
    let of_device = name.contains(".conf.");
    (udp_or_generic || OWN.iter().any(|prefix| name.starts_with(prefix)))
        && (!of_device || CONF.iter().any(|leaf| name.rsplit('.').next() == Some(leaf)))
        && name != "net.ipv4.ip_forward_update_priority"
        && name != "net.ipv4.ip_forward_use_pmtu"
}

/// The file of a sysctl. Interface names may hold dots, which the separator of the path is then not one of: such names
/// are left to the kernel's defaults.
fn path(name: &str) -> Option<PathBuf> {
    let parts: Vec<&str> = name.split('.').collect();
    let plain = parts.iter().all(|part| !part.is_empty() && !part.contains('/'));
    plain.then(|| std::iter::once("/proc/sys").chain(parts).collect())
}

/// The same for recorded values, which this kernel may not take: gives those and why.
pub(super) fn try_set<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<LeftOut> {
    let failed = |(name, value)| {
        let error = set([(name, value)]).err()?;
        Some(LeftOut::new(format!("sysctl {name} = {value}"), super::error::in_a_line(&error)))
    };
    values.into_iter().filter_map(failed).collect()
}

/// Sets sysctls of the calling thread's network namespace; those of interfaces that are not there are passed over.
pub(super) fn set<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<(), LabError> {
    for (name, value) in values {
        match path(name) {
            Some(path) if path.exists() => fs_err::write(path, value)?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_namespace_owns() {
        let text = include_bytes!("../../tests/data/lab/node/sysctl.txt");
        let values = of_a_namespace(text);
        let has = |name: &str, value: &str| values.iter().any(|(n, v)| n == name && v == value);
        assert!(has("net.ipv4.ip_forward", "1"));
        assert!(has("net.ipv4.conf.all.route_localnet", "1"));
        assert!(has("net.netfilter.nf_conntrack_udp_timeout_stream", "120"));
        for (name, _) in &values {
            assert!(!name.contains("conntrack_max") && !name.contains("buckets") && !name.contains("nf_log"), "{name}");
        }
    }
}
