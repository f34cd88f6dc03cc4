//! Files that act when the node or a program on it starts: sysctls of the boot, manifests, API server addresses, registries.

use std::io;
use std::path::Path;

use fs_err as fs;
use serde::{Deserialize, Serialize};

/// The content of `setup.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Networking lines of sysctl.d and its kin, in the order in which systemd-sysctl applies them: the last one wins.
    pub sysctls: Vec<Line>,
    /// Manifests that start kube-proxy.
    pub manifests: Vec<Line>,
    /// Where kubelet and kube-proxy reach the API server.
    pub api_servers: Vec<Line>,
    /// Places that name a port of localhost as a container registry.
    pub localhost_registries: Vec<Line>,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// The line itself.
    pub text: String,
}

/// In the order of precedence, lowest first; a file hides one of its name in a folder before (sysctl.d(5)).
const SYSCTL_FOLDERS: [&str; 4] = ["usr/lib/sysctl.d", "usr/local/lib/sysctl.d", "run/sysctl.d", "etc/sysctl.d"];

const MANIFEST_FOLDERS: [&str; 6] = [
    "etc/kubernetes/manifests",
    "etc/kubernetes/addons",
    "var/lib/rancher/rke2/agent/pod-manifests",
    "var/lib/rancher/rke2/server/manifests",
    "var/lib/rancher/k3s/server/manifests",
    "var/snap/microk8s/current/args",
];

const KUBECONFIGS: [&str; 5] = [
    "etc/kubernetes/kubelet.conf",
    "etc/kubernetes/bootstrap-kubelet.conf",
    "var/lib/kubelet/kubeconfig",
    "var/lib/kube-proxy/kubeconfig.conf",
    "var/lib/kube-proxy/kubeconfig",
];

const REGISTRY_FILES: [&str; 5] = [
    "etc/containerd/config.toml",
    "etc/docker/daemon.json",
    "etc/containers/registries.conf",
    "etc/rancher/k3s/registries.yaml",
    "etc/rancher/rke2/registries.yaml",
];

impl Setup {
    /// Reads the files below a root.
    pub(super) fn read(root: &Path) -> io::Result<Self> {
        let mut setup = Self::default();
        let mut sysctl_files: Vec<(String, String)> = Vec::new();
        for folder in SYSCTL_FOLDERS {
            for name in files(&root.join(folder))? {
                sysctl_files.retain(|(known, _)| *known != name);
                sysctl_files.push((name.clone(), format!("{folder}/{name}")));
            }
        }
        sysctl_files.sort();
        let in_order = sysctl_files.into_iter().map(|(_, path)| path).chain(["etc/sysctl.conf".to_owned()]);
        for path in in_order {
            lines(root, &path, is_net, &mut setup.sysctls)?;
        }
        for folder in MANIFEST_FOLDERS {
            for name in files(&root.join(folder))? {
                let mut found = Vec::new();
                lines(root, &format!("{folder}/{name}"), |line| line.contains("kube-proxy"), &mut found)?;
                setup.manifests.extend(found.into_iter().take(1));
            }
        }
        for path in KUBECONFIGS {
            lines(root, path, |line| line.starts_with("server:"), &mut setup.api_servers)?;
        }
        let hosts = "etc/containerd/certs.d";
        let of_host = files(&root.join(hosts))?.into_iter().map(|host| format!("{hosts}/{host}/hosts.toml"));
        for path in REGISTRY_FILES.into_iter().map(str::to_owned).chain(of_host) {
            let local = |line: &str| ["localhost:", "127.0.0.1:"].iter().any(|host| line.contains(host));
            lines(root, &path, local, &mut setup.localhost_registries)?;
        }
        Ok(setup)
    }
}

/// Whether a line of sysctl.d sets a key of the network; a dash in front lets it fail.
fn is_net(line: &str) -> bool {
    let key = line.trim_start_matches('-');
    key.starts_with("net.") || key.starts_with("net/")
}

/// Names of a folder's entries, sorted; none where there is no folder.
fn files(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// The lines of a file that are wanted; none where there is no file.
fn lines(root: &Path, path: &str, wanted: impl Fn(&str) -> bool, out: &mut Vec<Line>) -> io::Result<()> {
    let bytes = match fs::read(root.join(path)) {
        Ok(bytes) => bytes,
        // A link to a file that is not there, or a folder, says nothing.
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(());
        }
        Err(e) => return Err(e),
    };
    for (i, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
        let text = line.trim();
        if !text.starts_with(['#', ';']) && wanted(text) {
            out.push(Line { file: format!("/{path}"), line: i + 1, text: text.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Setup;

    #[test]
    fn files_hide_each_other_as_sysctl_d_says() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs_err::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs_err::write(path, text).expect("written");
        };
        write("usr/lib/sysctl.d/50-a.conf", "net.ipv4.ip_forward = 0\n");
        write("etc/sysctl.d/50-a.conf", "# net.core.somaxconn = 1\n-net.ipv4.ip_forward = 1\nkernel.panic = 1\n");
        write("etc/sysctl.conf", "net/netfilter/nf_conntrack_max=5\n");
        write("etc/kubernetes/manifests/kube-proxy.yaml", "kind: Pod\nmetadata:\n  name: kube-proxy\n");
        write("etc/kubernetes/manifests/etcd.yaml", "kind: Pod\n");
        write("etc/kubernetes/kubelet.conf", "clusters:\n- cluster:\n    server: https://192.0.2.1:6443\n");
        write("etc/containerd/certs.d/example.org/hosts.toml", "[host.\"http://localhost:30500\"]\n");
        let setup = Setup::read(root.path()).expect("it can be read");
        let shown = |lines: &[super::Line]| {
            lines.iter().map(|l| format!("{}:{} {}", l.file, l.line, l.text)).collect::<Vec<_>>()
        };
        assert_eq!(
            shown(&setup.sysctls),
            [
                "/etc/sysctl.d/50-a.conf:2 -net.ipv4.ip_forward = 1",
                "/etc/sysctl.conf:1 net/netfilter/nf_conntrack_max=5"
            ]
        );
        assert_eq!(shown(&setup.manifests), ["/etc/kubernetes/manifests/kube-proxy.yaml:3 name: kube-proxy"]);
        assert_eq!(shown(&setup.api_servers), ["/etc/kubernetes/kubelet.conf:3 server: https://192.0.2.1:6443"]);
        assert_eq!(setup.localhost_registries.len(), 1);
    }

    #[test]
    fn an_empty_root_says_nothing() {
        let root = tempfile::tempdir().expect("a folder");
        assert_eq!(Setup::read(root.path()).expect("it can be read"), Setup::default());
    }
}
