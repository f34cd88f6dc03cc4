//! Probes: real connects from inside the cgroup, made by a child process, compared before and after the switch.
//!
//! A probe opens a connection and closes it again; to UDP it sends one empty datagram. What counts is not that it
//! succeeds (a backend may be down) but that nothing which succeeded before fails after.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::capture::command::{self, CommandError};
use crate::dataplane::{AddressFlags, served_at_sockets};
use crate::error::Hinted;
use crate::model::{Detector, Exposure, Family, Frontend, Protocol, ServiceTable, TrafficSource};

/// What to connect to, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    /// The class of frontends it stands for, such as `TCP IPv4 Cluster`.
    pub class: String,
    /// The Service, for people.
    pub name: String,
    /// Address and port of the frontend.
    pub addr: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// TCP: connected. UDP: an answer came.
    Answered,
    /// UDP: sent, and nobody objected.
    Sent,
    /// ECONNREFUSED.
    Refused,
    /// No answer in time.
    TimedOut,
    /// EHOSTUNREACH or ENETUNREACH.
    Unreachable,
    /// EPERM or EACCES.
    Denied,
    /// Any other error.
    Failed,
}

impl Ending {
    /// How well a client is off: served, told at once that it is not, or left waiting.
    const fn rank(self) -> u8 {
        match self {
            Self::Answered | Self::Sent => 2,
            Self::Refused => 1,
            Self::TimedOut | Self::Unreachable | Self::Denied | Self::Failed => 0,
        }
    }

    /// In words.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Sent => "sent",
            Self::Refused => "refused",
            Self::TimedOut => "timed out",
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// A target and how its probe ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// The target.
    #[serde(flatten)]
    pub target: Target,
    /// How it ended.
    pub ending: Ending,
}

/// What a child process is asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// cgroup to move into.
    pub cgroup: PathBuf,
    /// How long to wait for an answer.
    pub timeout: Duration,
    /// What to connect to.
    pub targets: Vec<Target>,
}

/// Why probes could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The child could not be run.
    #[error("cannot run the probe")]
    Run(#[from] CommandError),
    /// The child failed.
    #[error("the probe failed: {said}")]
    Failed {
        /// What it said.
        said: String,
    },
    /// Its answer is not what was expected.
    #[error("cannot understand the answer of the probe")]
    Answer(#[from] serde_json::Error),
    /// The process could not move into the cgroup.
    #[error("cannot move the probe into cgroup {cgroup}")]
    Move {
        /// The cgroup.
        cgroup: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program of this process is not known.
    #[error("cannot find kpx's own program")]
    Program(#[source] io::Error),
}

impl Hinted for ProbeError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Run(source) => source.hints(),
            Self::Move { .. } => vec!["processes can be moved by root, into a cgroup2 directory".to_owned()],
            _ => Vec::new(),
        }
    }
}

/// Frontends to probe: the first two of each class of a table that the hooks serve, NodePorts at the first of the node's
/// addresses that they answer on.
pub fn targets(served: &ServiceTable, addresses: &BTreeMap<IpAddr, AddressFlags>) -> Vec<Target> {
    const PER_CLASS: usize = 2;
    let mut by_class: BTreeMap<String, Vec<Target>> = BTreeMap::new();
    let own = |family| {
        let mut own =
            addresses.iter().filter(|(ip, flags)| Family::of(**ip) == family && flags.has(AddressFlags::NODEPORT));
        own.find(|(ip, _)| !ip.is_loopback()).map(|(ip, _)| *ip)
    };
    for f in served.frontends().iter().filter(|f| served_at_sockets(f).is_ok()) {
        let class = class(f);
        let known = by_class.entry(class.clone()).or_default();
        if known.len() < PER_CLASS {
            let ip = if f.key.exposure == Exposure::NodePort { own(Family::of(f.key.ip)) } else { Some(f.key.ip) };
            let Some(addr) = ip.map(|ip| SocketAddr::new(ip, f.key.port)) else { continue };
            known.push(Target { class, name: f.display_name(), addr, protocol: f.key.protocol });
        }
    }
    by_class.into_values().flatten().collect()
}

fn class(f: &Frontend) -> String {
    let family = Family::of(f.key.ip);
    let exposure = match f.key.exposure {
        Exposure::ClusterIp => String::new(),
        other => format!("{other} "),
    };
    // The prober is the node.
    let verdict = f.treatment(TrafficSource::Node, &Detector::Unknown).no_backends;
    let backends = verdict.map_or_else(String::new, |verdict| format!(", no backend ({verdict})"));
    format!("{exposure}{} {family} {}{backends}", f.key.protocol, f.policy())
}

/// Makes the probes in a child process inside the cgroup, all at once.
pub fn run(request: &Request) -> Result<Vec<Probed>, ProbeError> {
    let program = std::env::current_exe().map_err(ProbeError::Program)?;
    let input = serde_json::to_vec(request)?;
    let output = command::run(&program.to_string_lossy(), ["migrate", "probe"], Some(&input))?;
    if !output.status.success() {
        return Err(ProbeError::Failed { said: String::from_utf8_lossy(&output.stderr).trim().to_owned() });
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The child's side: moves into the cgroup and connects.
pub fn serve(request: &Request) -> Result<Vec<Probed>, ProbeError> {
    enter(&request.cgroup).map_err(|source| ProbeError::Move { cgroup: request.cgroup.clone(), source })?;
    Ok(std::thread::scope(|scope| {
        let probes: Vec<_> =
            request.targets.iter().map(|target| (target, scope.spawn(|| probe(target, request.timeout)))).collect();
        probes
            .into_iter()
            .map(|(target, thread)| {
                let ending = thread.join().expect("a probe turns every error into an ending");
                Probed { target: target.clone(), ending }
            })
            .collect()
    }))
}

/// Moves this process into a cgroup. Every process is in the root cgroup or below it, where the root's hooks see it.
fn enter(cgroup: &Path) -> io::Result<()> {
    let is_root = !cgroup.join("cgroup.type").exists();
    if is_root { Ok(()) } else { fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()) }
}

fn probe(target: &Target, timeout: Duration) -> Ending {
    let result = match target.protocol {
        Protocol::Tcp => TcpStream::connect_timeout(&target.addr, timeout).map(|_| Ending::Answered),
        Protocol::Udp | Protocol::Sctp => datagram(target.addr, timeout),
    };
    result.unwrap_or_else(|e| ending(&e))
}

fn datagram(addr: SocketAddr, timeout: Duration) -> io::Result<Ending> {
    let any: IpAddr = if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(addr)?;
    socket.send(&[])?;
    // A refusal by the rules comes back as an ICMP error within the round trip; silence is the usual answer to nothing.
    socket.set_read_timeout(Some(timeout.min(Duration::from_millis(200))))?;
    match socket.recv(&mut [0; 64]) {
        Ok(_) => Ok(Ending::Answered),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(Ending::Sent),
        Err(e) => Err(e),
    }
}

fn ending(error: &io::Error) -> Ending {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Ending::Refused,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Ending::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Ending::Unreachable,
        io::ErrorKind::PermissionDenied => Ending::Denied,
        _ => Ending::Failed,
    }
}

/// The probes that ended better before: an answer became an error, or a refusal a silence.
pub fn worse<'a>(before: &[Probed], after: &'a [Probed]) -> Vec<(Ending, &'a Probed)> {
    let then: BTreeMap<_, _> = before.iter().map(|p| ((p.target.addr, p.target.protocol), p.ending)).collect();
    after
        .iter()
        .filter_map(|now| {
            let ending = *then.get(&(now.target.addr, now.target.protocol))?;
            (ending.rank() > now.ending.rank()).then_some((ending, now))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(addr: SocketAddr, protocol: Protocol) -> Target {
        Target { class: "c".into(), name: "n".into(), addr, protocol }
    }

    #[test]
    fn probes_tell_answered_refused_and_sent_apart() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let closed = {
            let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            gone.local_addr().unwrap()
        };
        let ends: Vec<_> = [
            target(listener.local_addr().unwrap(), Protocol::Tcp),
            target(closed, Protocol::Tcp),
            target(silent.local_addr().unwrap(), Protocol::Udp),
            target(closed, Protocol::Udp),
        ]
        .iter()
        .map(|t| probe(t, Duration::from_secs(5)))
        .collect();
        assert_eq!(ends, [Ending::Answered, Ending::Refused, Ending::Sent, Ending::Refused]);
    }

    #[test]
    fn only_what_worked_before_can_be_worse() {
        let addr = |n: u8| SocketAddr::from(([10, 0, 0, n], 80));
        let probed = |n, ending| Probed { target: target(addr(n), Protocol::Tcp), ending };
        let before = [
            probed(1, Ending::Answered),
            probed(2, Ending::Refused),
            probed(3, Ending::Answered),
            probed(4, Ending::TimedOut),
        ];
        let after = [
            probed(1, Ending::Refused),
            probed(2, Ending::TimedOut),
            probed(3, Ending::Answered),
            probed(4, Ending::Answered),
            probed(5, Ending::Refused),
        ];
        let worse: Vec<_> = worse(&before, &after).iter().map(|(then, now)| (*then, now.target.addr)).collect();
        assert_eq!(worse, [(Ending::Answered, addr(1)), (Ending::Refused, addr(2))]);
    }
}
