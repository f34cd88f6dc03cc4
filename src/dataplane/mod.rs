//! kpx's eBPF dataplane: load, attach, fill, switch modes, read back, remove.
//!
//! Everything is pinned on a BPF filesystem, so it keeps serving when no kpx runs, and the next kpx takes it up where
//! the last one left it, also where that one was killed half-way.

mod ask;
mod attach;
mod counters;
mod devices;
mod direct;
mod entries;
mod environment;
mod error;
mod flows;
mod foreign;
mod forget;
pub mod handover;
mod hooks;
mod keep;
mod layouts;
mod left;
mod links;
mod listen;
mod load;
mod maglev;
mod maps;
mod packet;
mod pins;
mod reconcile;
mod recover;
mod served;
mod upgrade;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use kpx_abi::{Config, FrontendKey as AbiKey, LAYOUT_VERSION, Options, YieldKey, YieldUntil, map_name};

pub use ask::{Answer, Asked, Fate};
pub use attach::XdpMode;
pub use counters::{Counters, ServiceCounters};
pub use devices::{NodeDevice, carries_packets, has_pods, read as node_devices};
pub use direct::{DSR_NEEDS, Dsr};
pub use environment::{AddressFlags, ClientAddresses, NetworkFlags, node_addresses, pod_networks};
pub use error::DataplaneError;
pub use flows::FlowId;
pub use foreign::{ForeignHook, Position, foreign_hooks, hooks_in_front};
pub use forget::{Forgotten, MapUse, forget_flows, map_use, timeouts};
pub use keep::Keeper;
pub use kpx_abi::{Cause, FlowState, Mode, Reason, Stats, Timeouts};
pub use links::Attachment;
pub use listen::{Event, EventKind, Filter, Listener, RENEWAL, Why};
pub use load::verify;
pub use maglev::{DEFAULT_SIZE as MAGLEV_SIZE, SIZES as MAGLEV_SIZES};
pub use packet::OnDevices;
pub use pins::Paths;
pub use reconcile::{Changes, Full};
pub use served::{NotServed, Served, served, served_at_sockets};
pub use upgrade::Upgrade;

use crate::inspect::bpf::sys;
use crate::model::{BackendSelection, Detector, Family, Frontend, FrontendKey, Policy, ServiceTable};
use maps::Maps;
use pins::Pinned;
use reconcile::{Image, Node, Planner, Wanted, key_of};

/// How many Service ports change at once where the maps have no room for all changes together.
const CHUNK: usize = 512;

/// How many of each thing the maps of a new dataplane can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Frontends.
    pub frontends: u32,
    /// Backends.
    pub backends: u32,
    /// Slots: a backend takes one in each list that names it, and a list that changes is written anew before the old
    /// one is free.
    pub slots: u32,
    /// UDP flows of the kernel to stand back from; takes memory only as they come.
    pub yields: u32,
    /// Addresses of the node and of ClusterIPs.
    pub addresses: u32,
    /// Networks of pods, of ClusterIPs, and of each node whose backends answer directly; takes memory only as they come.
    pub networks: u32,
    /// Source ranges of all Services.
    pub sources: u32,
    /// Network namespaces whose sockets' addresses are known.
    pub clients: u32,
    /// Clients whose affinity to a Service is remembered; the one that came longest ago makes room for a further one.
    pub affinity: u32,
    /// Entries of flows of the packet path: two for each, and two more if it is masqueraded; takes memory only as they come.
    pub conntrack: u32,
    /// Fragmented datagrams whose ports are remembered at one time.
    pub fragments: u32,
    /// Flows straight to their destination that are remembered, so that one by way of a Service is told from them; the one
    /// used longest ago makes room for a further one.
    pub direct: u32,
    /// Events that wait for whoever listens; what has no room is lost, and counted.
    pub events: u32,
}

impl Default for Capacity {
    /// Room for a few thousand Services.
    fn default() -> Self {
        Self {
            frontends: 4096,
            backends: 16_384,
            slots: 32_768,
            yields: 32_768,
            addresses: 8192,
            networks: 16_384,
            sources: 4096,
            clients: 4096,
            affinity: 65_536,
            conntrack: 524_288,
            fragments: 8192,
            direct: 8192,
            events: 4096,
        }
    }
}

impl Capacity {
    /// Room for this table and half as much again, and for a few thousand Services at least.
    pub fn for_table(table: &ServiceTable) -> Self {
        let mut need = [0_usize; 4];
        for frontend in table.frontends().iter().filter(|f| served(f).is_ok()) {
            let lists = || frontend.cluster.iter().chain(&frontend.local);
            let slots: usize = lists().map(|b| usize::from(b.weight)).sum();
            let maglev =
                usize::from(frontend.selection == Some(BackendSelection::Maglev)) * maglev::DEFAULT_SIZE as usize;
            for (sum, more) in need.iter_mut().zip([1, lists().count(), slots + 2 * maglev, frontend.sources.len()]) {
                *sum += more;
            }
        }
        let roomy = |need: usize, least: u32| u32::try_from(need + need / 2).unwrap_or(u32::MAX / 4).max(least);
        let least = Self::default();
        let [frontends, backends, slots, sources] = need;
        Self {
            frontends: roomy(frontends, least.frontends),
            backends: roomy(backends, least.backends),
            slots: roomy(slots, least.slots),
            sources: roomy(sources, least.sources),
            addresses: roomy(frontends, least.addresses),
            ..least
        }
    }

    /// The same with room for Maglev tables of this size for every Service port of the table that does not say how its backends
    /// are chosen: each may have two lists, and is written anew before the old tables are free.
    #[must_use]
    pub fn with_maglev(self, table: &ServiceTable, size: u32) -> Self {
        let silent = table.frontends().iter().filter(|f| f.selection.is_none() && served(f).is_ok());
        let ports: HashSet<_> = silent
            .map(|f| {
                let lists = 1 + u32::from(f.policy() == Policy::Local && f.key.exposure.is_external());
                let alone = f.service.is_none().then_some(f.key);
                (&f.service, &f.port_name, f.key.protocol, Family::of(f.key.ip), alone, lists)
            })
            .collect();
        let slots = ports.iter().fold(0_u32, |sum, port| sum.saturating_add(port.5.saturating_mul(size)));
        let roomy = slots.saturating_add(slots / 2).min(u32::MAX / 4);
        Self { slots: self.slots.saturating_add(roomy), ..self }
    }

    /// The same with room for twice as many UDP flows of the kernel as there are now, where that is more.
    #[must_use]
    pub fn with_flows(self, now: usize) -> Self {
        Self { yields: u32::try_from(now * 2).unwrap_or(u32::MAX / 4).max(self.yields), ..self }
    }

    /// The same with room for as many flows of the packet path as the kernel's conntrack may have, where that is more: two entries
    /// for each, since most are not masqueraded.
    #[must_use]
    pub fn with_tracked(self, flows: u64) -> Self {
        Self { conntrack: u32::try_from(flows * 2).unwrap_or(u32::MAX / 4).max(self.conntrack), ..self }
    }

    /// The same with one size as given, by its name; `None` if there is none of that name.
    pub fn with_size(mut self, name: &str, size: u32) -> Option<Self> {
        let (_, field) = self.by_name().into_iter().find(|(known, _)| *known == name)?;
        *field = size;
        Some(self)
    }

    /// The names of all sizes.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::default().by_name().map(|(name, _)| name).into_iter()
    }

    const fn by_name(&mut self) -> [(&'static str, &mut u32); 13] {
        [
            ("frontends", &mut self.frontends),
            ("backends", &mut self.backends),
            ("slots", &mut self.slots),
            ("sources", &mut self.sources),
            ("addresses", &mut self.addresses),
            ("networks", &mut self.networks),
            ("clients", &mut self.clients),
            ("affinity", &mut self.affinity),
            ("conntrack", &mut self.conntrack),
            ("fragments", &mut self.fragments),
            ("direct", &mut self.direct),
            ("yields", &mut self.yields),
            ("events", &mut self.events),
        ]
    }

    /// Entries for the frontends: some more, since a frontend that changes gets another before the old one is free.
    const fn entries(&self) -> u32 {
        self.frontends + 2 * CHUNK as u32 + 1
    }
}

/// A UDP flow to a frontend that the kernel's conntrack carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFlow {
    /// Where the client sends to.
    pub frontend: SocketAddr,
    /// The client's port.
    pub source_port: u16,
    /// How long conntrack keeps it if nothing more is sent.
    pub expires_in: Duration,
}

/// An installed dataplane.
#[derive(Debug)]
pub struct Dataplane {
    paths: Paths,
    maps: Maps,
    image: Image,
    planner: Planner,
    node: Node,
    upgraded: Option<Upgrade>,
}

/// Monotonic time, as the kernel's programs see it.
fn now() -> Duration {
    Duration::from_nanos(sys::monotonic_ns())
}

/// The configuration of a new dataplane.
fn first_config() -> Config {
    let snat = packet::source_ports();
    Config {
        layout_version: LAYOUT_VERSION,
        // Before Linux 5.14 the namespace cannot be told; then the rules refuse datagrams.
        node_netns: sys::netns_cookie().unwrap_or(0),
        snat_first: snat.first,
        snat_last: snat.last,
        ..Config::default()
    }
}

impl Dataplane {
    /// Takes up the dataplane that is pinned there, or loads and pins a new one; attaches nothing.
    ///
    /// One that an older kpx pinned is brought to this one's programs and layout first: at no moment is anything that was
    /// attached without a program, and where the kernel refuses the new programs the old ones stay. What an installation or
    /// upgrade that was killed left behind is taken away or finished. Pins that are gone while programs are attached are made
    /// again where these tell what was pinned. A new dataplane is in mode [`Mode::Off`].
    pub fn install(paths: &Paths, capacity: &Capacity) -> Result<Self, DataplaneError> {
        paths.check_bpffs()?;
        paths.open_cgroup()?;
        let upgraded = upgrade::upgrade(paths, load::OBJECT, capacity, &mut || Ok(()))?;
        if let Some(found) = Self::adopt(paths)? {
            return Ok(Self { upgraded, ..found });
        }
        load::unpin(paths)?;
        load::load_new(paths, capacity)?;
        upgrade::mark(paths, load::OBJECT)?;
        Self::open(paths)
    }

    /// What [`Self::install`] replaced, if it did.
    pub const fn upgraded(&self) -> Option<&Upgrade> {
        self.upgraded.as_ref()
    }

    /// Whether the pinned programs are those of this kpx.
    pub fn is_current(&self) -> bool {
        upgrade::is_marked(&self.paths, load::OBJECT)
    }

    /// Takes up the dataplane that is pinned there; `None` if there is none, or only the remains of an installation or
    /// removal that was killed.
    pub fn adopt(paths: &Paths) -> Result<Option<Self>, DataplaneError> {
        match paths.look()? {
            Pinned::Nothing | Pinned::Remains => Ok(None),
            Pinned::Damaged(missing) => Err(missing.error(paths)),
            Pinned::Older(found) => Err(DataplaneError::Layout {
                pins: paths.pins.clone(),
                found: format!("layout {found}"),
                expected: LAYOUT_VERSION,
            }),
            Pinned::Newer(found) => {
                Err(DataplaneError::Newer { pins: paths.pins.clone(), found, known: LAYOUT_VERSION })
            }
            Pinned::Replacing => Err(DataplaneError::Unfinished { pins: paths.pins.clone() }),
            Pinned::Complete => Self::open(paths).map(Some),
        }
    }

    /// The same, or an error that says that there is none.
    pub fn expect(paths: &Paths) -> Result<Self, DataplaneError> {
        Self::adopt(paths)?.ok_or_else(|| DataplaneError::NotInstalled { pins: paths.pins.clone() })
    }

    fn open(paths: &Paths) -> Result<Self, DataplaneError> {
        let maps = Maps::open(&paths.maps())?;
        let mut config = maps.config()?;
        if config.layout_version == 0 {
            config = first_config();
            maps.set_config(&config)?;
        }
        let image = maps.image()?;
        let planner = Planner::adopt(&image, now());
        let node = Node {
            pods: [config.options.has(Options::PODS_V4), config.options.has(Options::PODS_V6)],
            selection: if config.options.has(Options::MAGLEV) {
                BackendSelection::Maglev
            } else {
                BackendSelection::Random
            },
            maglev_size: maglev::size(config.options.maglev_size()),
            dsr: match (config.options.has(Options::DSR), config.options.has(Options::DSR_ASKED)) {
                (false, _) => Dsr::Off,
                (true, true) => Dsr::Asked,
                (true, false) => Dsr::All,
            },
        };
        Ok(Self { paths: paths.clone(), maps, image, planner, node, upgraded: None })
    }

    /// Where it is.
    pub const fn paths(&self) -> &Paths {
        &self.paths
    }

    /// How a backend is chosen for frontends that do not say, and how many slots a Maglev table has, of
    /// [`MAGLEV_SIZES`]. The next [`Self::fill`] puts it into force; whoever takes the maps up keeps to it.
    pub fn set_selection(&mut self, selection: BackendSelection, maglev_size: u32) -> Result<(), DataplaneError> {
        self.node.selection = selection;
        self.node.maglev_size = maglev_size;
        let number = maglev::number(maglev_size);
        let is_maglev = selection == BackendSelection::Maglev;
        self.set_options(|options| options.with(Options::MAGLEV, is_maglev).with_maglev_size(number))
    }

    /// Which clients outside are answered directly by the nodes that their backends are on (direct server return): flows
    /// to backends on [`NetworkFlags::DIRECT`] networks are announced to their nodes, and flows that other nodes announce
    /// from [`AddressFlags::NODE`] addresses are taken. Flows that are open stay as they are. Frontends follow with
    /// the next [`Self::fill`]; whoever takes the maps up keeps to it.
    pub fn set_dsr(&mut self, dsr: Dsr) -> Result<(), DataplaneError> {
        self.node.dsr = dsr;
        self.set_options(|options| {
            options.with(Options::DSR, dsr != Dsr::Off).with(Options::DSR_ASKED, dsr == Dsr::Asked)
        })
    }

    /// Which clients outside are answered directly.
    pub const fn dsr(&self) -> Dsr {
        self.node.dsr
    }

    /// Makes the maps serve what can be served of this table (see [`Served::of`]), and nothing else.
    pub fn fill(&mut self, table: &ServiceTable) -> Result<Changes, DataplaneError> {
        let served = Served::of(table).table;
        self.recognise_pods(&served)?;
        let wanted = Wanted::of(served.frontends(), &self.node);
        match self.planner.plan(&self.image, &wanted, now()) {
            Ok((ops, changes)) => {
                self.write(&ops)?;
                Ok(changes)
            }
            Err(_) => self.fill_slowly(&wanted),
        }
    }

    /// Tells the programs whether sockets of other namespaces count as pods.
    fn recognise_pods(&mut self, table: &ServiceTable) -> Result<(), DataplaneError> {
        self.node.pods = Family::BOTH.map(|family| table.facts(family).detector != Detector::None);
        let [v4, v6] = self.node.pods;
        self.set_options(|options| options.with(Options::PODS_V4, v4).with(Options::PODS_V6, v6))
    }

    /// Tells the programs that the kernel has no rules of kube-proxy, or that it has: whether a packet that they leave
    /// alone is still refused by somebody.
    pub fn set_rules_gone(&mut self, gone: bool) -> Result<(), DataplaneError> {
        self.set_options(|options| options.with(Options::RULES_GONE, gone))
    }

    /// What [`Self::set_rules_gone`] was told last.
    pub fn rules_gone(&self) -> Result<bool, DataplaneError> {
        Ok(self.maps.config()?.options.has(Options::RULES_GONE))
    }

    fn set_options(&mut self, change: impl FnOnce(Options) -> Options) -> Result<(), DataplaneError> {
        let config = self.maps.config()?;
        let options = change(config.options);
        if options == config.options { Ok(()) } else { self.maps.set_config(&Config { options, ..config }) }
    }

    /// Makes the maps serve these frontends as given and no longer those, leaving all others alone: for one change of an
    /// endpoint, where looking at the whole table would take longer than the change.
    ///
    /// Given are all frontends of a Service port that changes: those that are not given part with the others' counters
    /// and affinity. They must be ones that can be served; others are an error of the caller and are not written.
    pub fn update(&mut self, changed: &[Frontend], removed: &[FrontendKey]) -> Result<Changes, DataplaneError> {
        let wanted = Wanted::of(changed.iter().filter(|f| served(f).is_ok()), &self.node);
        let removed: Vec<AbiKey> = removed.iter().map(key_of).collect();
        self.change(&wanted, &removed)
    }

    fn change(&mut self, wanted: &[Wanted], removed: &[AbiKey]) -> Result<Changes, DataplaneError> {
        loop {
            match self.planner.change(&self.image, wanted, removed, now()) {
                Ok((ops, changes)) => {
                    self.write(&ops)?;
                    return Ok(changes);
                }
                Err(full) if full.resting => std::thread::sleep(Duration::from_millis(100)),
                Err(full) => return Err(full.into()),
            }
        }
    }

    /// The same as [`Self::fill`] in pieces, where there is no room for old and new of everything at once.
    fn fill_slowly(&mut self, wanted: &[Wanted]) -> Result<Changes, DataplaneError> {
        let keys: HashSet<&AbiKey> = wanted.iter().flat_map(Wanted::keys).collect();
        let removed: Vec<AbiKey> = self.image.keys().filter(|key| !keys.contains(key)).copied().collect();
        let mut sum = self.change(&[], &removed)?;
        for chunk in wanted.chunks(CHUNK) {
            sum = sum.plus(&self.change(chunk, &[])?);
        }
        Ok(sum)
    }

    fn write(&mut self, ops: &[reconcile::Op]) -> Result<(), DataplaneError> {
        let written = self.maps.apply(ops, &mut self.image);
        if written.is_err() {
            // The plan was done in part: what it left is what an adopted dataplane would find.
            self.image = self.maps.image()?;
            self.planner = Planner::adopt(&self.image, now());
        }
        written
    }

    /// The table that the maps hold now, as the kernel sees them; names of Services are not in there.
    ///
    /// A frontend whose entries contradict each other is left out, so that a comparison with the table filled in shows it.
    pub fn table(&self) -> Result<ServiceTable, DataplaneError> {
        Ok(reconcile::table(&self.maps.image()?).0)
    }

    /// The mode that the programs are in.
    pub fn mode(&self) -> Result<Mode, DataplaneError> {
        Ok(Mode::from_number(self.maps.config()?.mode))
    }

    /// Switches the mode: one byte of one map entry, seen at once by every program that starts from now on.
    pub fn set_mode(&mut self, mode: Mode) -> Result<(), DataplaneError> {
        let config = self.maps.config()?;
        self.maps.set_config(&Config { mode: mode as u32, ..config })
    }

    /// Sets how long after its last datagram conntrack keeps a UDP flow: the largest of `nf_conntrack_udp_timeout` and
    /// `nf_conntrack_udp_timeout_stream`. A second is added, for the clocks' sake.
    pub fn set_yield_time(&mut self, time: Duration) -> Result<(), DataplaneError> {
        let time = time + Duration::from_secs(1);
        let yield_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let config = self.maps.config()?;
        self.maps.set_config(&Config { yield_ns, ..config })
    }

    /// Stands back from these UDP flows once active: they were translated by the kernel before the programs were
    /// attached, so no socket remembers them. In shadow mode sockets remember by themselves. Flows given before stay.
    pub fn yield_to(&mut self, flows: &[KernelFlow]) -> Result<(), DataplaneError> {
        let size = self.maps.yields.max_entries();
        if flows.len() > size as usize {
            return Err(Full { map: map_name::YIELD, size, resting: false }.into());
        }
        let now = now();
        let entries = flows.iter().map(|flow| {
            let (addr, port) = reconcile::endpoint(flow.frontend);
            let until = now + flow.expires_in + Duration::from_secs(1);
            let key = YieldKey { addr, port, source_port: flow.source_port.to_be() };
            (key, YieldUntil { until_ns: u64::try_from(until.as_nanos()).unwrap_or(u64::MAX) })
        });
        let (keys, values): (Vec<_>, Vec<_>) = entries.unzip();
        self.maps.yields.put_many(&keys, &values).map_err(maps::failed("write", map_name::YIELD))
    }

    /// Forgets the flows of [`Self::yield_to`] that the kernel no longer keeps.
    pub fn forget_yields(&mut self) -> Result<(), DataplaneError> {
        let flows = self.maps.yields.dump().map_err(maps::failed("read", map_name::YIELD))?;
        let now = sys::monotonic_ns();
        for (key, _) in flows.iter().filter(|(_, until)| until.until_ns < now) {
            self.maps.yields.delete(key).map_err(maps::failed("delete from", map_name::YIELD))?;
        }
        Ok(())
    }

    /// What the programs have counted.
    pub fn counters(&self) -> Result<Counters, DataplaneError> {
        counters::read(&self.maps)
    }

    /// Attaches the programs to the cgroup, what restores addresses first. What is attached stays.
    pub fn attach(&mut self) -> Result<(), DataplaneError> {
        links::attach(&self.paths)
    }

    /// Whether the programs are attached.
    pub fn attachment(&self) -> Result<Attachment, DataplaneError> {
        links::attachment(&self.paths)
    }

    /// Detaches the programs, what translates first. Twice is no error.
    pub fn detach(&mut self) -> Result<(), DataplaneError> {
        links::detach(&self.paths)
    }

    /// Detaches and unpins everything, in whatever state it is. Twice is no error.
    pub fn remove(paths: &Paths) -> Result<(), DataplaneError> {
        links::detach(paths)?;
        packet::detach_all(paths)?;
        load::unpin(paths)
    }
}
