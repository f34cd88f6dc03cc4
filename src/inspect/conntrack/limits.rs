//! The table's size and time-outs from the sysctls, and what of them kube-proxy changed.

use std::time::Duration;

use serde::Serialize;

use crate::inspect::sysctl::Sysctls;

const PREFIX: &str = "net.netfilter.nf_conntrack_";

/// What the kernel has before anybody sets it, for what kube-proxy may set (Documentation/networking/nf_conntrack-sysctl.rst).
/// Without a number: by the memory of the machine.
const DEFAULTS: [(&str, Option<u64>); 7] = [
    ("max", None),
    ("buckets", None),
    ("tcp_timeout_established", Some(432_000)),
    ("tcp_timeout_close_wait", Some(60)),
    ("udp_timeout", Some(30)),
    ("udp_timeout_stream", Some(120)),
    ("tcp_be_liberal", Some(0)),
];

/// The sysctls of connection tracking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    sysctls: Sysctls,
}

/// One sysctl that kube-proxy may have set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Full name.
    pub name: String,
    /// Its value now.
    pub now: u64,
    /// What a reboot gives; `None`: as many as the memory allows.
    pub default: Option<u64>,
}

impl Limits {
    /// Reads the text of `sysctl -a`.
    pub fn parse(text: &[u8]) -> Self {
        Self::of(Sysctls::parse(text))
    }

    /// Those among all sysctls of a node.
    pub const fn of(sysctls: Sysctls) -> Self {
        Self { sysctls }
    }

    fn get(&self, name: &str) -> Option<u64> {
        self.sysctls.number(&format!("{PREFIX}{name}"))
    }

    /// Most entries there may be.
    pub fn max(&self) -> Option<u64> {
        self.get("max")
    }

    /// Entries when the sysctls were read.
    pub fn count(&self) -> Option<u64> {
        self.get("count")
    }

    /// Buckets of the hash table.
    pub fn buckets(&self) -> Option<u64> {
        self.get("buckets")
    }

    /// A time-out in seconds, by the name after `net.netfilter.nf_conntrack_`.
    pub fn timeout(&self, name: &str) -> Option<u64> {
        self.get(name)
    }

    /// How long after its last datagram a UDP flow is kept: the longer of its two time-outs, or the kernel's default where
    /// neither is known.
    pub fn udp_time(&self) -> Duration {
        const DEFAULT: Duration = Duration::from_mins(2);
        let seconds = self.get("udp_timeout").max(self.get("udp_timeout_stream"));
        seconds.map_or(DEFAULT, Duration::from_secs)
    }

    /// Those kube-proxy may have set and that are not what the kernel begins with: a reboot without kube-proxy takes them back.
    pub fn changed(&self) -> Vec<Setting> {
        let setting = |(name, default): &(&str, Option<u64>)| {
            let now = self.get(name)?;
            (*default != Some(now)).then(|| Setting { name: format!("{PREFIX}{name}"), now, default: *default })
        };
        DEFAULTS.iter().filter_map(setting).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_of_the_two_times_counts() {
        let text =
            b"net.netfilter.nf_conntrack_udp_timeout = 30\nnet.netfilter.nf_conntrack_udp_timeout_stream = 300\n";
        assert_eq!(Limits::parse(text).udp_time(), Duration::from_mins(5));
        assert_eq!(Limits::parse(b"").udp_time(), Duration::from_mins(2));
    }

    #[test]
    fn what_differs_from_the_kernels_own_is_told() {
        let text = b"net.netfilter.nf_conntrack_max = 262144\nnet.netfilter.nf_conntrack_tcp_timeout_established = 86400\n\
                     net.netfilter.nf_conntrack_tcp_timeout_close_wait = 60\nnet.netfilter.nf_conntrack_udp_timeout = x\n";
        let changed = Limits::parse(text).changed();
        let names: Vec<_> = changed.iter().map(|s| (s.name.as_str(), s.now, s.default)).collect();
        assert_eq!(
            names,
            [
                ("net.netfilter.nf_conntrack_max", 262_144, None),
                ("net.netfilter.nf_conntrack_tcp_timeout_established", 86_400, Some(432_000)),
            ]
        );
    }
}
