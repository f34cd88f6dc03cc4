//! What the checks judge: read, walked, tried and counted once, before the first of them.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, Instant};

use kpx_abi::{Reason, Stats};

use super::probe::{self, Attempt};
use super::serving::{Kpx, Serving};
use super::target::Target;
use crate::capture::{self, CaptureError, Captured, Item, Node};
use crate::dataplane::DataplaneError;
use crate::error::with_causes;
use crate::inspect::ipset::{self, Sets};
use crate::inspect::iptables::Saved;
use crate::inspect::kube::{self, KubeState};
use crate::inspect::nftables::{self, OtherTable};
use crate::model::{Exposure, Family, Frontend, FrontendKey, Protocol, ServiceTable, TrafficSource, join_names};
use crate::path::{self, Around, Packet, Path};
use crate::preflight;
use crate::source::Places;

/// Most frontends that are walked and tried; where all Services are meant none is.
const MOST: usize = 16;
/// Most backends of a frontend that are tried past it.
const MOST_BACKENDS: usize = 4;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What is complained of.
    pub target: Target,
    /// The client that complains.
    pub client: Option<IpAddr>,
    /// A process of the pod to connect from; `None`: of any pod.
    pub pod: Option<u32>,
    /// Whether to make connections.
    pub connect: bool,
    /// How long to watch the counters.
    pub listen: Duration,
}

/// Connections that were tried from one place, or why none was.
pub(super) type Tried = Result<Vec<Attempt>, String>;

/// A counter of the programs: what it was before, and what after.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) reason: Reason,
    pub(super) before: u64,
    pub(super) after: u64,
}

/// Everything the checks judge.
pub struct Patient<'n> {
    pub(super) node: &'n Node,
    pub(super) asked: Asked,
    /// What the API says.
    pub(super) api: Result<KubeState, String>,
    /// Who serves.
    pub(super) serving: Serving,
    /// What the API asks for of the target; where it is not known, what is served.
    pub(super) wanted: ServiceTable,
    /// What is served of the target.
    pub(super) has: ServiceTable,
    pub(super) around: Around,
    /// nftables tables of others.
    pub(super) others: Result<Vec<OtherTable>, String>,
    /// Where Cilium would pin its maps.
    pub(super) cilium: PathBuf,
    /// From the host.
    pub(super) host: Tried,
    /// From the cgroup and the network of a pod; the process that it was.
    pub(super) pod: Result<(u32, Vec<Attempt>), String>,
    /// From the host to the backends of what did not answer.
    pub(super) backends: Vec<Attempt>,
    /// Whether kpx counted the connections of the host: none where kpx does not serve, or nothing was tried.
    pub(super) counted: Option<bool>,
    /// What the programs counted meanwhile.
    pub(super) moved: Result<Vec<Moved>, String>,
}

impl<'n> Patient<'n> {
    /// Reads everything, connects, and watches the counters.
    pub fn read(
        node: &'n Node,
        places: &Places,
        cgroup: Result<PathBuf, String>,
        asked: Asked,
    ) -> Result<Self, CaptureError> {
        let around = Around::read(node)?;
        let api = kube::read_node(node).map_err(|error| with_causes(&error));
        let serving = Serving::find(node, places, cgroup);
        let is_local = |ip| around.is_local(ip) == Some(true);
        let meant = |table: &ServiceTable| table.filter(|frontend| asked.target.means(frontend, is_local));
        let served = serving.table().map(|table| match &api {
            Ok(api) => join_names(table, &api.table),
            Err(_) => table.clone(),
        });
        let has = served.as_ref().map(meant).unwrap_or_default();
        let wanted = api.as_ref().map_or_else(|_| has.clone(), |api| meant(&api.table));
        let others = if asked.target == Target::Node { Err("no Service was named".to_owned()) } else { others(node) };
        let none = || "not tried".to_owned();
        let mut patient = Self {
            node,
            asked,
            api,
            serving,
            wanted,
            has,
            around,
            others,
            cilium: places.cilium.clone(),
            host: Err(none()),
            pod: Err(none()),
            backends: Vec::new(),
            counted: None,
            moved: Err("kpx does not serve here".to_owned()),
        };
        patient.try_out();
        Ok(patient)
    }

    /// The frontends that are looked at one by one.
    pub(super) fn frontends(&self) -> impl Iterator<Item = &Frontend> {
        let most = if self.asked.target == Target::Node { 0 } else { MOST };
        self.wanted.frontends().iter().take(most)
    }

    /// Whether all Services are meant.
    pub(super) fn is_general(&self) -> bool {
        self.asked.target == Target::Node
    }

    /// Where clients send to for a frontend: a NodePort is asked for on an address of the node.
    pub(super) fn destination(&self, key: &FrontendKey) -> Option<SocketAddr> {
        if key.exposure != Exposure::NodePort {
            return Some(SocketAddr::new(key.ip, key.port));
        }
        let family = Family::of(key.ip);
        let asked = match self.asked.target {
            Target::Address { ip, .. } if Family::of(ip) == family => Some(ip),
            _ => None,
        };
        let primary = || self.api.as_ref().ok()?.primary_addresses().into_iter().find(|ip| Family::of(*ip) == family);
        let any = || {
            let own: &BTreeSet<IpAddr> = self.around.addresses.as_ref()?;
            own.iter().copied().find(|ip| Family::of(*ip) == family && !ip.is_loopback() && !is_link_local(*ip))
        };
        let here = |ip: &IpAddr| self.around.is_local(*ip) != Some(false);
        Some(SocketAddr::new(asked.or_else(|| primary().filter(here)).or_else(any)?, key.port))
    }

    /// The first packet of a client of this kind to a frontend.
    pub(super) fn packet(&self, key: &FrontendKey, origin: TrafficSource) -> Option<Packet> {
        let destination = self.destination(key)?;
        let source = match origin {
            TrafficSource::Node => self.around.source_to(destination.ip()),
            TrafficSource::Outside | TrafficSource::Pod => {
                self.asked.client.filter(|ip| Family::of(*ip) == Family::of(destination.ip()))
            }
        };
        let interface = source.and_then(|ip| self.around.interface_to(ip)).map(str::to_owned);
        let interface = interface.filter(|_| origin != TrafficSource::Node);
        Some(Packet { origin, source, destination, protocol: key.protocol, interface })
    }

    /// What the client that complains is; `None` where nobody was named.
    pub(super) fn client_origin(&self) -> Option<TrafficSource> {
        let ip = self.asked.client?;
        let table = self.api.as_ref().map_or(&self.wanted, |api| &api.table);
        let local = self.around.addresses.clone().unwrap_or_default();
        path::origin_of(ip, self.around.interface_to(ip), &local, table)
    }

    /// The packet's way by what serves; an error where that is not known.
    pub(super) fn walk(&self, packet: &Packet) -> Result<Path, String> {
        match &self.serving {
            Serving::Kpx(kpx) => {
                path::through_maps(&kpx.dataplane, packet, &self.around).map_err(|error| with_causes(&error))
            }
            Serving::Rules(lifted) => Ok(path::through_table(&lifted.table, "rules", packet, &self.around)),
            Serving::Nobody => Err("nobody serves".to_owned()),
            Serving::Unknown(why) => Err(why.clone()),
        }
    }

    /// Its way from kpx's hooks on to its backend, through the tables that iptables-save shows and the nftables tables of others; none
    /// where these cannot be read.
    pub(super) fn beyond(&self, packet: &Packet, backend: SocketAddr) -> Vec<Path> {
        let packet = Packet { destination: backend, ..packet.clone() };
        let family = usize::from(packet.family() == Family::V6);
        let sets = match self.node.read(Item::Ipset) {
            Ok(Captured::Present { bytes, .. }) => ipset::parse(&bytes).unwrap_or_default(),
            _ => Sets::new(),
        };
        let saved = Saved::capture(self.node);
        let backends = saved.as_ref().ok().and_then(|saved| saved.backends().ok()).unwrap_or_default();
        let dumps = backends.iter().filter_map(|backend| backend.dumps[family].as_ref());
        let of_iptables = dumps.map(|dump| path::through_iptables(dump, &sets, &packet, &self.around));
        let others = self.others.iter().flatten();
        of_iptables.chain(others.filter_map(|table| path::through_others(table, &packet, &self.around))).collect()
    }

    /// Its way by what the API asks for.
    pub(super) fn wanted_way(&self, packet: &Packet) -> Option<Path> {
        let api = self.api.as_ref().ok()?;
        Some(path::through_table(&api.table, "api", packet, &self.around))
    }

    fn try_out(&mut self) {
        let start = Instant::now();
        let before = self.serving.as_kpx().map(reasons);
        if !self.node.is_live() {
            let why = "a snapshot is nothing to connect from".to_owned();
            (self.host, self.pod) = (Err(why.clone()), Err(why));
        } else if self.is_general() {
            let why = "no Service was named".to_owned();
            (self.host, self.pod) = (Err(why.clone()), Err(why));
        } else if !self.asked.connect {
            let why = "no connection was to be made".to_owned();
            (self.host, self.pod) = (Err(why.clone()), Err(why));
        } else {
            self.connect();
        }
        let Some(before) = before else { return };
        std::thread::sleep(self.asked.listen.saturating_sub(start.elapsed()));
        let after = self.serving.as_kpx().map_or_else(|| Ok(Vec::new()), reasons);
        self.moved = before
            .and_then(|before| Ok(before.into_iter().zip(after?)))
            .map_err(|e| with_causes(&e))
            .map(|both| both.map(|((reason, before), (_, after))| Moved { reason, before, after }).collect());
    }

    fn connect(&mut self) {
        let goals: Vec<(SocketAddr, Protocol)> = self
            .frontends()
            .filter(|frontend| frontend.key.protocol != Protocol::Sctp)
            .filter_map(|frontend| Some((self.destination(&frontend.key)?, frontend.key.protocol)))
            .collect();
        if goals.is_empty() {
            let why = "there is nothing to connect to".to_owned();
            (self.host, self.pod) = (Err(why.clone()), Err(why));
            return;
        }
        let mine = |kpx: &Kpx| counted(kpx, &self.has);
        let before = self.serving.as_kpx().and_then(mine);
        let request = probe::Request { cgroup: self.hosts_cgroup(), netns: None, to: goals.clone() };
        self.host = probe::run(&request).map_err(|error| with_causes(&error));
        let after = self.serving.as_kpx().and_then(|kpx| counted(kpx, &self.has));
        self.counted = before.zip(after).filter(|_| self.host.is_ok()).map(|(before, after)| after > before);
        self.pod = self.connect_from_pod(goals);
        let fails = |frontend: &&Frontend| {
            let to = self.destination(&frontend.key);
            let failed = |attempt: &Attempt| Some(attempt.to) == to && attempt.outcome.is_err();
            self.host.iter().flatten().any(failed)
        };
        let silent =
            self.frontends().filter(fails).flat_map(|f| f.own_list().iter().take(MOST_BACKENDS).map(move |b| (b, f)));
        let behind: BTreeSet<_> = silent.map(|(backend, f)| (backend.addr(), f.key.protocol)).collect();
        if !behind.is_empty() {
            let request = probe::Request { to: behind.into_iter().collect(), ..request };
            self.backends = probe::run(&request).unwrap_or_default();
        }
    }

    /// The cgroup that a process of the host should be in for the hooks to see its sockets, unless this one is already.
    fn hosts_cgroup(&self) -> Option<PathBuf> {
        let hooks = self.serving.as_kpx()?.cgroup.as_ref().ok()?;
        let own = cgroup_of("self").ok()?;
        (!own.starts_with(hooks)).then(|| hooks.clone())
    }

    fn connect_from_pod(&self, to: Vec<(SocketAddr, Protocol)>) -> Result<(u32, Vec<Attempt>), String> {
        let pid = match self.asked.pod {
            Some(pid) => pid,
            None => preflight::pod_processes().first().copied().ok_or("no process of a pod is to be seen from here")?,
        };
        let cgroup = cgroup_of(&pid.to_string())?;
        let request = probe::Request { cgroup: Some(cgroup), netns: Some(format!("/proc/{pid}/ns/net")), to };
        let attempts = probe::run(&request).map_err(|error| format!("process {pid}: {}", with_causes(&error)))?;
        Ok((pid, attempts))
    }
}

/// The nftables tables of others.
fn others(node: &Node) -> Result<Vec<OtherTable>, String> {
    match node.read(Item::NftOthers).map_err(|error| with_causes(&error))? {
        Captured::Present { bytes, .. } => {
            nftables::others(&bytes).map(|others| others.tables).map_err(|error| with_causes(&error))
        }
        Captured::Absent { reason } => Err(reason),
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The cgroup2 directory of a process.
pub(super) fn cgroup_of(process: &str) -> Result<PathBuf, String> {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup")).map_err(|e| format!("process {process}: {e}"))?;
    let root = capture::cgroup::root().map_err(|error| with_causes(&error))?;
    directory(&text, &root).map_err(|why| format!("process {process}: {why}"))
}

/// The directory that the text of `/proc/PID/cgroup` names, below the root of the hierarchy.
fn directory(text: &str, root: &FilePath) -> Result<PathBuf, &'static str> {
    match text.lines().find_map(|line| line.strip_prefix("0::/")) {
        None => Err("it is in no cgroup2"),
        // What a container's cgroup namespace hides has no path in here.
        Some(path) if path.split('/').any(|part| part == "..") => {
            Err("its cgroup is outside of this cgroup namespace: run kpx in the host's")
        }
        Some("") => Ok(root.to_owned()),
        Some(path) => Ok(root.join(path)),
    }
}

fn reasons(kpx: &Kpx) -> Result<Vec<(Reason, u64)>, DataplaneError> {
    Ok(kpx.dataplane.counters()?.reasons.into_iter().collect())
}

/// All that kpx has counted for these frontends.
fn counted(kpx: &Kpx, table: &ServiceTable) -> Option<u64> {
    let counters = kpx.dataplane.counters().ok()?;
    let own = counters.services.iter().filter(|service| table.frontends().iter().any(|f| f.key == service.key));
    let all = |Stats { connects, datagrams, refused, shadow, passed }: Stats| {
        connects + datagrams + refused + shadow + passed
    };
    Some(own.map(|service| all(service.stats)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_of_a_process_is_one_that_can_be_reached() {
        let of = |text| directory(text, FilePath::new("/sys/fs/cgroup"));
        assert_eq!(of("0::/\n"), Ok(PathBuf::from("/sys/fs/cgroup")));
        let pod = "2:cpu:/kubepods\n0::/kubepods.slice/pod1\n";
        assert_eq!(of(pod), Ok(PathBuf::from("/sys/fs/cgroup/kubepods.slice/pod1")));
        of("0::/../../kubepods.slice/pod1\n").expect_err("outside of this namespace");
        of("2:cpu:/kubepods\n").expect_err("cgroup v1 only");
    }
}
