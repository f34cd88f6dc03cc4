//! The sysctls that kube-proxy sets when it starts, and that are gone with the next boot when there is none.

use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::inspect::conntrack::Limits;
use crate::inspect::kube::{Conntrack, ProxyConfig, ProxyMode};

/// kube-proxy gives each bucket of the hash table so many entries.
const ENTRIES_A_BUCKET: u64 = 4;

/// What a setting may do to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// It becomes this.
    Be,
    /// It becomes at least this.
    AtLeast,
}

/// One sysctl to set.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    /// Path below `/proc/sys`.
    path: &'static str,
    value: u64,
    rule: Rule,
}

/// What became of a sysctl.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It was set.
    Set {
        /// What it was.
        before: u64,
    },
    /// It could not be read or set.
    Failed(io::Error),
}

/// A sysctl that was not as kube-proxy would have it.
#[derive(Debug)]
pub(super) struct Change {
    path: &'static str,
    value: u64,
    pub(super) outcome: Outcome,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.path.replace('/', ".");
        match &self.outcome {
            Outcome::Set { before } => write!(f, "{name} is {}, as kube-proxy sets it; it was {before}", self.value),
            Outcome::Failed(error) => write!(f, "{name} should be {}, as kube-proxy sets it: {error}", self.value),
        }
    }
}

/// The sysctls of connection tracking in this network namespace.
pub(super) fn conntrack(proc_sys: &Path) -> Limits {
    let mut text = String::new();
    for entry in fs_err::read_dir(proc_sys.join("net/netfilter")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if let (Some(name), Ok(value)) = (name.to_str(), fs_err::read_to_string(entry.path())) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "net.netfilter.{name} = {}", value.trim());
        }
    }
    Limits::parse(text.as_bytes())
}

/// Whether the kernel forwards IPv4 packets; `None` if it does not tell.
pub(super) fn forwards(proc_sys: &Path) -> Option<bool> {
    read(&proc_sys.join("net/ipv4/ip_forward")).ok().map(|value| value != 0)
}

/// Sets what kube-proxy would set. What the kernel does not have, and what is right already, is no change.
pub(super) fn apply(proc_sys: &Path, config: &ProxyConfig, processors: usize) -> Vec<Change> {
    let changes = wanted(config, processors).into_iter().filter_map(|Wanted { path, value, rule }| {
        let file = proc_sys.join(path);
        let outcome = match read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Outcome::Failed(error),
            Ok(before) if before == value || rule == Rule::AtLeast && before > value => return None,
            Ok(before) => match fs_err::write(&file, value.to_string()) {
                Ok(()) => Outcome::Set { before },
                Err(error) => Outcome::Failed(error),
            },
        };
        Some(Change { path, value, outcome })
    });
    changes.collect()
}

fn read(file: &Path) -> io::Result<u64> {
    fs_err::read_to_string(file)?.trim().parse().map_err(io::Error::other)
}

/// How many flows kube-proxy lets the kernel's conntrack have; zero where it leaves that to the kernel.
pub(super) fn tracked(config: &ProxyConfig, processors: usize) -> u64 {
    let Conntrack { max_per_core, min, .. } = config.conntrack.value;
    if max_per_core == 0 { 0 } else { (u64::from(max_per_core) * processors as u64).max(min.into()) }
}

/// How many processors there are.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Zero means that kube-proxy leaves a value alone.
fn wanted(config: &ProxyConfig, processors: usize) -> Vec<Wanted> {
    let Conntrack { tcp_established, tcp_close_wait, tcp_be_liberal, udp, udp_stream, .. } = config.conntrack.value;
    let mut wanted = Vec::new();
    let most = tracked(config, processors);
    if most > 0 {
        let at_least = |path, value| Wanted { path, value, rule: Rule::AtLeast };
        wanted.push(at_least("net/netfilter/nf_conntrack_max", most));
        wanted.push(at_least("net/netfilter/nf_conntrack_buckets", most / ENTRIES_A_BUCKET));
    }
    let mut be = |path, value| {
        if value > 0 {
            wanted.push(Wanted { path, value, rule: Rule::Be });
        }
    };
    let seconds = |time: Duration| time.as_secs();
    be("net/netfilter/nf_conntrack_tcp_timeout_established", seconds(tcp_established));
    be("net/netfilter/nf_conntrack_tcp_timeout_close_wait", seconds(tcp_close_wait));
    be("net/netfilter/nf_conntrack_tcp_be_liberal", tcp_be_liberal.into());
    be("net/netfilter/nf_conntrack_udp_timeout", seconds(udp));
    be("net/netfilter/nf_conntrack_udp_timeout_stream", seconds(udp_stream));
    be("net/ipv4/ip_forward", (config.mode.value == ProxyMode::Ipvs).into());
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::kube::ConfigSources;

    fn config(flags: &[(&str, &str)]) -> ProxyConfig {
        let flags: Vec<_> = flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ProxyConfig::read(&ConfigSources { flags: &flags, ..ConfigSources::default() }).expect("flags").0
    }

    #[test]
    fn the_table_of_flows_grows_and_never_shrinks() {
        let folder = tempfile::tempdir().expect("a folder");
        let netfilter = folder.path().join("net/netfilter");
        fs_err::create_dir_all(&netfilter).expect("made");
        let put = |name: &str, value: &str| fs_err::write(netfilter.join(name), value).expect("written");
        let get = |name: &str| fs_err::read_to_string(netfilter.join(name)).expect("read");
        for (before, after) in [("65536\n", "262144"), ("1048576\n", "1048576\n")] {
            put("nf_conntrack_max", before);
            put("nf_conntrack_buckets", "300000\n");
            put("nf_conntrack_tcp_timeout_established", "432000\n");
            let changes = apply(folder.path(), &config(&[]), 8);
            assert_eq!(get("nf_conntrack_max"), after);
            assert_eq!(get("nf_conntrack_buckets"), "300000\n");
            assert_eq!(get("nf_conntrack_tcp_timeout_established"), "86400");
            let told = changes.iter().map(ToString::to_string).collect::<Vec<_>>();
            assert!(
                told.iter().any(|line| line
                    == "net.netfilter.nf_conntrack_tcp_timeout_established is 86400, as kube-proxy sets it; it was 432000"),
                "{told:?}"
            );
        }
        // Few processors: the least that kube-proxy takes.
        put("nf_conntrack_max", "65536\n");
        apply(folder.path(), &config(&[]), 1);
        assert_eq!(get("nf_conntrack_max"), "131072");
    }

    #[test]
    fn what_kube_proxy_is_told_to_leave_alone_stays() {
        let zeros = config(&[
            ("conntrack-max-per-core", "0"),
            ("conntrack-tcp-timeout-established", "0s"),
            ("conntrack-tcp-timeout-close-wait", "0s"),
        ]);
        assert_eq!(wanted(&zeros, 8), []);
        let ipvs = config(&[("proxy-mode", "ipvs"), ("conntrack-max-per-core", "0"), ("conntrack-udp-timeout", "45s")]);
        let paths: Vec<_> = wanted(&ipvs, 8).iter().map(|w| (w.path, w.value)).collect();
        assert!(
            paths.contains(&("net/ipv4/ip_forward", 1))
                && paths.contains(&("net/netfilter/nf_conntrack_udp_timeout", 45))
        );
    }
}
