//! The node that is switched: a lab, with the rules of others, and what became of them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use kpx::capture::{NodeOptions, command};
use kpx::lab::{Lab, Spec};

use super::support;

/// The kpx of this build.
pub(super) const KPX: &str = env!("CARGO_BIN_EXE_kpx");

/// Programs that save rules.
const SAVES: [&str; 4] = ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"];

/// Chains named as kube-proxy's are, that are the kubelet's.
const KUBELETS: [&str; 3] = ["KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT"];

/// What docker, Calico, the portmap plugin of CNI and an administrator have on nodes, in their own form.
const FOREIGN: &str = "\
*nat
:DOCKER - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-DN-4f1c2a - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 8880 -j CNI-DN-4f1c2a
-A CNI-DN-4f1c2a -s 10.244.1.0/24 -p tcp -m tcp --dport 8880 -j KUBE-MARK-MASQ
-A CNI-DN-4f1c2a -p tcp -m tcp --dport 8880 -j DNAT --to-destination 10.244.1.250:80
COMMIT
*filter
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:cali-FORWARD - [0:0]
:cali-from-wl-dispatch - [0:0]
-P FORWARD DROP
-A INPUT -s 192.0.2.0/24 -p tcp -m tcp --dport 6443 -m comment --comment \"the KUBE API, from the office\" -j ACCEPT
-A FORWARD -m comment --comment \"cali:wUHhoiAYhphO9Mso\" -j cali-FORWARD
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -s 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT
-A FORWARD -d 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT
-A DOCKER-USER -j RETURN
-A cali-FORWARD -m comment --comment \"cali:vjrMJCRpqwy5oRoX\" -j MARK --set-xmark 0x0/0xe0000
-A cali-FORWARD -i cali+ -m comment --comment \"cali:8ZoYfO5HKXWbB3pk\" -j cali-from-wl-dispatch
COMMIT
";

/// What firewalld has, beside iptables.
const FIREWALLD: &str = "\
table inet firewalld {
  chain filter_FORWARD { type filter hook forward priority 10; policy accept; ct state established,related accept; }
}
";

pub(super) struct Node {
    pub(super) lab: Lab,
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// The recorded node of the repository.
pub(super) fn builtin() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lab/node")
}

/// A folder like a snapshot's, of a recorded node with so many Services.
pub(super) fn large(root: &Path, size: usize) -> io::Result<tempfile::TempDir> {
    let (from, folder) = (root.join(format!("scale/{size}")), tempfile::tempdir()?);
    for name in ["services.json", "endpointslices.json", "nodes.json", "iptables-save.txt", "ip6tables-save.txt"] {
        fs_err::write(folder.path().join(name), support::recorded(&from, name)?)?;
    }
    Ok(folder)
}

impl Node {
    pub(super) fn up(name: &str, from: &Path) -> io::Result<Self> {
        let options = NodeOptions { from: Some(from.to_owned()), ..NodeOptions::default() };
        let recorded = kpx::capture::Node::open(&options).map_err(other)?;
        let spec = Spec::read(&recorded, name).map_err(other)?;
        Ok(Self { lab: Lab::up(&spec, Path::new(KPX)).map_err(other)? })
    }

    /// Runs a line of shell in the node's network namespace.
    pub(super) fn sh(&self, line: &str, stdin: Option<&[u8]>) -> io::Result<command::Output> {
        let netns = self.lab.names().node();
        command::run("ip", ["netns", "exec", &netns, "sh", "-c", line], stdin).map_err(other)
    }

    fn must(&self, line: &str, stdin: Option<&[u8]>) -> io::Result<Vec<u8>> {
        let output = self.sh(line, stdin)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(io::Error::other(format!("{line}: {}", String::from_utf8_lossy(&output.stderr))))
    }

    pub(super) fn add_foreign_rules(&self) -> io::Result<()> {
        self.must("iptables-nft-restore --noflush", Some(FOREIGN.as_bytes()))?;
        self.must("nft -f -", Some(FIREWALLD.as_bytes())).map(drop)
    }

    /// All lines of all saves, with the table before each.
    pub(super) fn lines(&self) -> io::Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        for save in SAVES {
            let text = self.must(save, None)?;
            let mut table = String::new();
            for line in String::from_utf8_lossy(&text).lines().filter(|line| !line.starts_with('#')) {
                if line.starts_with('*') {
                    table = format!("{save} {line}");
                } else if line.starts_with('-') || line.starts_with(':') {
                    let line = line.split(" [").next().unwrap_or(line);
                    found.insert(format!("{table} {line}"));
                }
            }
        }
        let firewalld = self.must("nft list table inet firewalld 2>/dev/null || true", None)?;
        let rules = String::from_utf8_lossy(&firewalld).into_owned();
        found.extend(rules.lines().filter(|line| line.contains("accept")).map(|line| format!("nft {}", line.trim())));
        Ok(found)
    }

    /// How many rules kube-proxy has.
    pub(super) fn rules(&self) -> io::Result<usize> {
        Ok(self.lines()?.iter().filter(|line| line.contains(" -A ") && !is_foreign(line)).count())
    }
}

/// Whether somebody else made the line: no chain of kube-proxy's is in it, or it is in a chain of somebody's.
fn is_foreign(line: &str) -> bool {
    let kubes = |word: &str| {
        word.trim_start_matches(':').starts_with("KUBE-") && !KUBELETS.contains(&word.trim_start_matches(':'))
    };
    let mut words = line.split(' ').skip_while(|word| !word.starts_with('-') && !word.starts_with(':')).peekable();
    match words.next() {
        Some(chain) if chain.starts_with(':') => !kubes(chain),
        Some(_) => {
            let chain = words.next().unwrap_or_default();
            let built_in = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"].contains(&chain);
            !(kubes(chain) || built_in && words.any(kubes))
        }
        None => true,
    }
}

/// What was on the node before.
pub(super) struct Before(BTreeSet<String>);

impl Before {
    pub(super) fn of(node: &Node) -> io::Result<Self> {
        Ok(Self(node.lines()?))
    }

    /// How many lines are others'.
    pub(super) fn foreign(&self) -> usize {
        self.0.iter().filter(|line| is_foreign(line)).count()
    }

    /// How many lines of others are gone, and how many of kube-proxy's are left.
    pub(super) fn compare(&self, node: &Node) -> io::Result<(usize, usize)> {
        let now = node.lines()?;
        let gone = self.0.iter().filter(|line| is_foreign(line) && !now.contains(*line));
        Ok((gone.count(), now.iter().filter(|line| !is_foreign(line)).count()))
    }
}
