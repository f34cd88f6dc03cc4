//! Processes that have to do with Services and rules: which of them run, and the few flags that say how.

use std::io;

use fs_err as fs;
use serde::{Deserialize, Serialize};

/// A running process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// Name, cut by the kernel at 15 bytes.
    pub name: String,
    /// Process id.
    pub pid: u32,
    /// The flags that concern kube-proxy. Others may hold secrets and are left out.
    pub flags: Vec<String>,
    /// Its cgroup, by the hierarchy that tells most: whether a pod, a unit or nobody has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
}

/// Who is looked for.
const NAMES: [&str; 19] = [
    "antrea-agent",
    "calico-node",
    "cilium-agent",
    "containerd",
    "crio",
    "dockerd",
    "firewalld",
    "flanneld",
    "hyperkube",
    "k0s",
    "k3s",
    "k3s-agent",
    "k3s-server",
    "kube-proxy",
    "kube-router",
    "kubelet",
    "kubelite",
    "ovnkube",
    "rke2",
];

/// Starts of the flags that are kept.
const FLAGS: [&str; 18] = [
    "--bind-address",
    "--cleanup",
    "--cluster-cidr",
    "--config",
    "--conntrack-",
    "--detect-local-mode",
    "--disable-kube-proxy",
    "--healthz-bind-address",
    "--hostname-override",
    "--iptables-",
    "--ipvs-",
    "--kube-proxy-arg",
    "--make-iptables-util-chains",
    "--masquerade-all",
    "--metrics-bind-address",
    "--nodeport-addresses",
    "--pod-manifest-path",
    "--proxy-mode",
];

/// The content of `processes.json`.
pub(super) fn read() -> io::Result<Vec<Process>> {
    // An unreadable /proc is an error; a process that ends meanwhile is not.
    fs::read_dir("/proc")?;
    let mut found: Vec<_> = names()
        .into_iter()
        .filter(|(_, name)| NAMES.contains(&name.as_str()))
        .map(|(pid, name)| Process {
            flags: flags(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()),
            cgroup: fs::read_to_string(format!("/proc/{pid}/cgroup")).ok().as_deref().and_then(cgroup),
            name,
            pid,
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Every process's id and name.
pub(super) fn names() -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| Some((pid, fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned())))
        .collect()
}

/// The path of the hierarchy that tells most, of `/proc/PID/cgroup`: the unified one, or where that has no controllers the one of
/// systemd.
fn cgroup(text: &str) -> Option<String> {
    let path = |start: &str| text.lines().find_map(|line| line.split_once(start).map(|(_, path)| path));
    let found = [path("::"), path(":name=systemd:")].into_iter().flatten();
    found.max_by_key(|path| path.len()).map(str::to_owned)
}

/// The flags of a command line that are kept, each with its value.
fn flags(cmdline: &[u8]) -> Vec<String> {
    let words: Vec<_> = cmdline.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
    let mut kept = Vec::new();
    for (i, word) in words.iter().enumerate().skip(1) {
        if !FLAGS.iter().any(|flag| word.starts_with(flag)) {
            continue;
        }
        match words.get(i + 1) {
            Some(value) if !word.contains('=') && !value.is_empty() && !value.starts_with('-') => {
                kept.push(format!("{word}={value}"));
            }
            _ => kept.push(word.clone()),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::{cgroup, flags, names};

    #[test]
    fn only_flags_that_concern_kube_proxy() {
        let line = b"k3s\0server\0--token\0s3cret\0--disable-kube-proxy\0--kube-proxy-arg\0proxy-mode=ipvs\0--cluster-cidr=10.42.0.0/16\0";
        assert_eq!(
            flags(line),
            ["--disable-kube-proxy", "--kube-proxy-arg=proxy-mode=ipvs", "--cluster-cidr=10.42.0.0/16"]
        );
    }

    #[test]
    fn the_cgroup_is_that_of_either_version() {
        let hybrid = "12:cpuset:/kubepods/pod1\n1:name=systemd:/system.slice/kube-proxy.service\n0::/\n";
        assert_eq!(cgroup(hybrid).as_deref(), Some("/system.slice/kube-proxy.service"));
        assert_eq!(
            cgroup("0::/kubepods.slice/kubepods-pod1.slice\n").as_deref(),
            Some("/kubepods.slice/kubepods-pod1.slice")
        );
        assert_eq!(cgroup(""), None);
    }

    #[test]
    fn this_process_is_among_them() {
        assert!(names().iter().any(|(pid, _)| *pid == std::process::id()));
    }
}
