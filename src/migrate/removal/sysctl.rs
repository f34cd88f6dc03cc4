//! Sysctls that kube-proxy sets.

use std::collections::BTreeMap;

use super::Count;
use super::change::{Act, Change};

/// Those that kube-proxy sets in one mode or another. Not the size of conntrack's hash table, which the kernel rounds.
const KEYS: [&str; 15] = [
    "net.ipv4.conf.all.arp_announce",
    "net.ipv4.conf.all.arp_ignore",
    "net.ipv4.conf.all.route_localnet",
    "net.ipv4.ip_forward",
    "net.ipv4.vs.conn_reuse_mode",
    "net.ipv4.vs.conntrack",
    "net.ipv4.vs.expire_nodest_conn",
    "net.ipv4.vs.expire_quiescent_template",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
    "net.netfilter.nf_conntrack_tcp_timeout_established",
    "net.netfilter.nf_conntrack_udp_timeout",
    "net.netfilter.nf_conntrack_udp_timeout_stream",
    "net.ipv6.conf.all.forwarding",
];

/// Their values in lines of `sysctl -a`.
fn values(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once(" = ")).filter(|(key, _)| KEYS.contains(key)).collect()
}

/// The lines that are worth keeping.
pub(super) fn own(text: &str) -> String {
    values(text).iter().map(|(key, value)| [key, " = ", value, "\n"].concat()).collect()
}

/// Without it IPVS keeps connections whose server has gone, and conntrack's entries of them are dropped whenever they end.
const EXPIRE: &str = "net.ipv4.vs.expire_nodest_conn";

/// The change that lets IPVS forget connections together with their servers.
pub(super) fn expiry(now: &str) -> Option<Change> {
    let change = || Change {
        act: Act::Sysctls(vec![(format!("/proc/sys/{}", EXPIRE.replace('.', "/")), "1".to_owned())]),
        count: Count::new("sysctls", [("values", 1)]),
    };
    (values(now).get(EXPIRE) == Some(&"0")).then(change)
}

/// The change that writes those that have another value now. One that is not there now cannot be written.
pub(super) fn restoration(then: &str, now: &str) -> Option<Change> {
    let now = values(now);
    let differs = |(key, value): &(&str, &str)| now.get(key).is_some_and(|now| now != value);
    let path = |(key, value): (&str, &str)| (format!("/proc/sys/{}", key.replace('.', "/")), value.to_owned());
    let changed: Vec<_> = values(then).into_iter().filter(differs).map(path).collect();
    let count = Count::new("sysctls", [("values", changed.len())]);
    (!changed.is_empty()).then_some(Change { act: Act::Sysctls(changed), count })
}
