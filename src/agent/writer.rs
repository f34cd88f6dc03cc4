//! Writes the table into the maps: what is owed, no more, and only when it is this process's turn.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::Options;
use super::conntrack;
use super::devices::{Devices, has_pods};
use super::status::{Condition, Shared};
use super::table::{Address, LiveTable};
use crate::capture::netlink::{Netlink, NetlinkError};
use crate::dataplane::{
    Attachment, Capacity, Dataplane, DataplaneError, Dsr, Keeper, Mode, NodeDevice, OnDevices, Paths, XdpMode,
    node_devices, served,
};
use crate::error::{Hinted as _, with_causes};
use crate::inspect::kube::Place;
use crate::migrate::{Holder, Lock, Store, StoreError};
use crate::model::{BackendSelection, Exposure, Frontend, FrontendKey};

/// The dataplane, and what it does not have yet.
#[derive(Debug)]
pub(super) struct Writer {
    paths: Paths,
    store: Store,
    sizes: Vec<MapSize>,
    /// How many flows the kernel's conntrack may have, as kube-proxy is configured.
    tracked: u64,
    defaults: Defaults,
    dataplane: Option<Dataplane>,
    keeper: Option<Keeper>,
    /// Devices whose drivers have run the short cut: what is new there is a repair.
    short_cuts: BTreeSet<u32>,
    /// This process, as it last held the lock: if another did since, the maps may be otherwise than remembered.
    last: Option<Holder>,
    /// Addresses that the maps may have otherwise than the table.
    owed: BTreeSet<Address>,
    /// Whether the maps may have anything otherwise than the table.
    all_owed: bool,
    /// Whether something was left in that may have to go, since not every object could be read.
    held_back: bool,
    /// Whether this agent has brought the programs to its own, or tried to. Once is enough: of two agents that run at a time,
    /// the later one's programs stay.
    upgraded: bool,
}

/// A size of maps that the operator chose: `backends=65536`.
#[derive(Clone, Debug)]
pub struct MapSize {
    name: String,
    size: u32,
}

/// The text is no size of a map.
#[derive(Debug, thiserror::Error)]
#[error("give a number for one of {}: backends=65536", Capacity::names().collect::<Vec<_>>().join(", "))]
pub struct NoSize;

impl FromStr for MapSize {
    type Err = NoSize;

    fn from_str(text: &str) -> Result<Self, NoSize> {
        let (name, number) = text.split_once('=').ok_or(NoSize)?;
        let size = number.parse().ok().filter(|size| *size > 0).ok_or(NoSize)?;
        Capacity::default().with_size(name, size).ok_or(NoSize)?;
        Ok(Self { name: name.to_owned(), size })
    }
}

impl MapSize {
    fn of(&self, capacity: Capacity) -> Capacity {
        capacity.with_size(&self.name, self.size).unwrap_or(capacity)
    }
}

/// How Services are served that do not say.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// How a backend is chosen.
    pub selection: BackendSelection,
    /// Slots of a Maglev table, of [`MAGLEV_SIZES`](crate::dataplane::MAGLEV_SIZES).
    pub maglev_size: u32,
    /// Whether backends on other nodes answer clients outside directly.
    pub dsr: Dsr,
}

/// What is to be attached where.
#[derive(Clone, Debug)]
pub struct Attach {
    /// The socket hooks, to the cgroup.
    pub sockets: bool,
    /// The packet path, to network devices.
    pub packets: bool,
    /// To which devices.
    pub devices: Devices,
    /// The short cut in drivers.
    pub xdp: Xdp,
    /// In the drivers of which devices.
    pub xdp_devices: Devices,
}

/// Whether there is a short cut in drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Xdp {
    /// None
    Off,
    /// Before the stack, for any driver; no faster than none
    Generic,
    /// In the driver; a device whose driver cannot is told of
    Native,
    /// In the driver, where it can
    Auto,
}

/// What attaching depends on.
pub(super) struct Wanted<'a> {
    /// Who decides.
    pub(super) stance: Stance,
    /// What the operator wants.
    pub(super) attach: &'a Attach,
    /// Which of kube-proxy's rules, if any, stand beside.
    pub(super) rules_stand: bool,
    /// How long conntrack remembers a flow of datagrams.
    pub(super) udp_time: Duration,
    /// What is served.
    pub(super) table: &'a LiveTable,
    /// How pods are recognised.
    pub(super) place: &'a Place,
}

/// Why not everything could be attached.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttachError {
    /// The kernel refuses, or what is there is not ours.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// Which flows the rules carry cannot be found out.
    #[error("the flows of kube-proxy's rules are not known")]
    Flows(#[source] NetlinkError),
}

/// Who decides what is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stance {
    /// Nobody else: all is attached.
    Alone,
    /// A migration is under way or in force, or was rolled back to rules that stand: what it has attached is kept attached, no more.
    Migrating,
}

/// What became of an attempt to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// The maps have everything.
    All,
    /// There are no maps to write, and it is not for the agent to make them.
    Nothing,
    /// Something is still owed.
    Later,
}

/// What was found otherwise than it should be, and put right.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Pins that were gone.
    pub(super) pins: Vec<PathBuf>,
    /// What was attached to the cgroup, where that was not all.
    pub(super) attached: Option<Attachment>,
    /// Devices that had lost programs, with their names.
    pub(super) devices: Vec<(NodeDevice, Vec<&'static str>)>,
    /// Devices that had none before, which is no repair.
    pub(super) joined: Vec<NodeDevice>,
    /// Devices that the packet path is on.
    pub(super) on: usize,
    /// Devices that could not be attached to, and why.
    pub(super) troubles: Vec<String>,
    /// The mode, where it was not to serve.
    pub(super) mode: Option<Mode>,
}

impl Writer {
    pub(super) fn new(options: &Options, tracked: u64) -> Self {
        Self {
            paths: options.paths.clone(),
            store: Store::new(options.state_dir.clone()),
            sizes: options.sizes.clone(),
            tracked,
            defaults: options.defaults,
            dataplane: None,
            keeper: None,
            short_cuts: BTreeSet::new(),
            last: None,
            owed: BTreeSet::new(),
            all_owed: true,
            held_back: false,
            upgraded: false,
        }
    }

    /// The dataplane, if there is one.
    pub(super) const fn dataplane(&self) -> Option<&Dataplane> {
        self.dataplane.as_ref()
    }

    /// The same, to be changed in this process's turn.
    pub(super) const fn dataplane_mut(&mut self, _turn: &Lock) -> Option<&mut Dataplane> {
        self.dataplane.as_mut()
    }

    /// Whether an earlier kpx's dataplane serves.
    pub(super) fn serves_already(&self, attach: &Attach) -> Result<bool, DataplaneError> {
        let found = match Dataplane::adopt(&self.paths) {
            // It is taken over when all objects are known, and can be asked then.
            Err(DataplaneError::Layout { .. } | DataplaneError::Unfinished { .. } | DataplaneError::Damaged { .. }) => {
                None
            }
            result => result?,
        };
        let Some(found) = found else { return Ok(false) };
        serves(&found, attach)
    }

    /// The migration whose rollback has given this node back to kube-proxy's rules, if that was the last word.
    pub(super) fn given_back(&self) -> Result<Option<String>, StoreError> {
        let Some(newest) = self.store.list()?.pop() else { return Ok(None) };
        Ok(newest.progress()?.is_closed().then_some(newest.id))
    }

    /// Who decides what is attached.
    pub(super) fn stance(&self) -> Result<Stance, StoreError> {
        let Some(migration) = self.store.current()? else { return Ok(Stance::Alone) };
        // Once the rules are gone nobody else serves, also after a boot that took all programs.
        Ok(if migration.progress()?.is_carried_over() { Stance::Alone } else { Stance::Migrating })
    }

    /// The table may be otherwise at these addresses.
    pub(super) fn owe(&mut self, addresses: BTreeSet<Address>) {
        self.owed.extend(addresses);
    }

    /// Every object can be read: what was left in for the sake of one may go.
    pub(super) const fn all_readable(&mut self) {
        self.all_owed |= self.held_back;
    }

    /// Whether there is something to write.
    pub(super) fn owes(&self) -> bool {
        self.all_owed || !self.owed.is_empty()
    }

    /// Takes the turn; `None` while another kpx changes the node.
    pub(super) fn turn(&mut self, shared: &Shared) -> Option<Lock> {
        match self.store.lock(Duration::ZERO) {
            Ok(lock) => {
                if self.last.is_none() || lock.previous() != self.last.as_ref() {
                    self.dataplane = None;
                    self.keeper = None;
                    self.all_owed = true;
                }
                self.last = Some(lock.holder().clone());
                shared.condition(Condition::Locked, None);
                Some(lock)
            }
            Err(error) => {
                shared.condition(Condition::Locked, Some(with_causes(&error)));
                None
            }
        }
    }

    /// Writes what is owed. `partial` says that there are objects which nobody could ever read: then nothing is taken out
    /// that may be theirs.
    pub(super) fn write(
        &mut self,
        _turn: &Lock,
        table: &LiveTable,
        place: &Place,
        stance: Stance,
        partial: bool,
        shared: &Shared,
    ) -> Written {
        if self.dataplane.is_none() {
            let opened =
                self.open(table, place, stance, shared).and_then(|found| found.map(|d| self.ready(d)).transpose());
            match opened {
                Ok(Some(dataplane)) => self.dataplane = Some(dataplane),
                Ok(None) => return Written::Nothing,
                Err(error) => return failed(&error, shared),
            }
        }
        let Some(dataplane) = &mut self.dataplane else { return Written::Nothing };
        let result = if self.all_owed {
            fill(dataplane, table, place, partial)
        } else {
            update(dataplane, table, self.owed.iter())
        };
        match result {
            Ok(()) => {
                self.held_back = partial && (self.held_back || self.all_owed);
                self.owed.clear();
                self.all_owed = false;
                shared.condition(Condition::MapFull, None);
                shared.condition(Condition::MapWrite, None);
                Written::All
            }
            Err(error) => {
                self.write_singly(table);
                failed(&error, shared)
            }
        }
    }

    /// Where all together do not fit, some may: no Service waits for another one's room.
    fn write_singly(&mut self, table: &LiveTable) {
        let Some(dataplane) = &mut self.dataplane else { return };
        let (gone, wanted): (Vec<Address>, Vec<Address>) =
            self.owed.iter().copied().partition(|address| table.at(address).is_none());
        for address in gone.into_iter().chain(wanted) {
            if update(dataplane, table, std::iter::once(&address)).is_ok() {
                self.owed.remove(&address);
            }
        }
    }

    fn open(
        &mut self,
        table: &LiveTable,
        place: &Place,
        stance: Stance,
        shared: &Shared,
    ) -> Result<Option<Dataplane>, DataplaneError> {
        let pinned = Dataplane::adopt(&self.paths);
        if stance == Stance::Migrating {
            let other = match &pinned {
                Ok(found) => found.as_ref().is_some_and(|dataplane| !dataplane.is_current()),
                Err(error) => matches!(error, DataplaneError::Layout { .. } | DataplaneError::Unfinished { .. }),
            };
            let text = "the programs are another kpx's: they are replaced once no migration is open";
            shared.condition(Condition::Upgrade, other.then(|| text.to_owned()));
            return pinned;
        }
        if self.upgraded && matches!(pinned, Ok(Some(_))) {
            return pinned;
        }
        self.upgraded = true;
        // Where rules stand, their flows need room. Where they cannot be counted, attaching will say so.
        let carried = conntrack::carried(table).map_or(0, |carried| carried.len());
        let whole = table.table(place);
        let computed = Capacity::for_table(&whole).with_flows(carried).with_tracked(self.tracked);
        let computed = match self.defaults.selection {
            BackendSelection::Random => computed,
            BackendSelection::Maglev => computed.with_maglev(&whole, self.defaults.maglev_size),
        };
        let capacity = self.sizes.iter().fold(computed, |sum, size| size.of(sum));
        match (Dataplane::install(&self.paths, &capacity), pinned) {
            (Ok(dataplane), _) => {
                shared.condition(Condition::Upgrade, None);
                tell_upgrade(&dataplane, shared);
                Ok(Some(dataplane))
            }
            // The old programs serve on, and the maps are the same: these follow the API as before.
            (Err(error), Ok(Some(dataplane))) => {
                let text = format!("the programs are another kpx's and stay: {}", with_causes(&error));
                shared.condition(Condition::Upgrade, Some(text));
                Ok(Some(dataplane))
            }
            (Err(error), _) => {
                self.upgraded = false;
                Err(error)
            }
        }
    }

    /// What was opened, told how Services are served that do not say: before the table is written, which depends on it.
    fn ready(&self, mut dataplane: Dataplane) -> Result<Dataplane, DataplaneError> {
        dataplane.set_selection(self.defaults.selection, self.defaults.maglev_size)?;
        dataplane.set_dsr(self.defaults.dsr)?;
        Ok(dataplane)
    }

    /// Attaches what is to be attached and lets it serve; what was pinned or attached before and is no longer, is so again.
    ///
    /// Beside standing rules nothing serves before the flows of datagrams that the rules carry are known: as in a migration,
    /// the programs watch first, then those flows are listed, and only then do the programs serve.
    pub(super) fn attach(&mut self, _turn: &Lock, wanted: &Wanted<'_>) -> Result<Option<Repairs>, AttachError> {
        let mut repairs = Repairs::default();
        let Some(dataplane) = &mut self.dataplane else { return Ok(None) };
        match &self.keeper {
            Some(keeper) => repairs.pins = keeper.restore(&self.paths)?,
            None => self.keeper = Some(Keeper::hold(&self.paths)?),
        }
        dataplane.set_rules_gone(!wanted.rules_stand)?;
        dataplane.forget_yields()?;
        match wanted.stance {
            Stance::Alone => serve(dataplane, wanted, &mut self.short_cuts, &mut repairs)?,
            Stance::Migrating => keep(dataplane, wanted, &mut repairs)?,
        }
        Ok(Some(repairs))
    }

    /// Whether Services are served now.
    pub(super) fn is_serving(&self, attach: &Attach) -> bool {
        self.dataplane.as_ref().is_some_and(|dataplane| serves(dataplane, attach).unwrap_or(false))
    }
}

fn serves(dataplane: &Dataplane, attach: &Attach) -> Result<bool, DataplaneError> {
    Ok(dataplane.mode()? == Mode::Active
        && (!attach.sockets || dataplane.attachment()? == Attachment::Attached)
        && (!attach.packets || !dataplane.device_numbers()?.is_empty()))
}

/// Nobody else decides: all that is wanted is attached, and serves.
fn serve(
    dataplane: &mut Dataplane,
    wanted: &Wanted<'_>,
    short_cuts: &mut BTreeSet<u32>,
    repairs: &mut Repairs,
) -> Result<(), AttachError> {
    let attach = wanted.attach;
    let mode = dataplane.mode()?;
    dataplane.set_yield_time(wanted.udp_time)?;
    let watches_first = wanted.rules_stand && mode == Mode::Off;
    if watches_first {
        dataplane.set_mode(Mode::Shadow)?;
    }
    let attachment = dataplane.attachment()?;
    if attach.sockets && attachment != Attachment::Attached {
        dataplane.attach()?;
        repairs.attached = Some(attachment);
    } else if !attach.sockets && attachment != Attachment::Detached {
        dataplane.detach()?;
        tracing::warn!("the socket hooks are detached: --paths does not name them");
    }
    if attach.packets {
        let before = dataplane.device_numbers()?;
        if mode == Mode::Active {
            leave_to_rules_for_newcomers(dataplane, wanted, &before)?;
        }
        let on = dataplane.attach_devices(|d| attach.devices.packets(d), |d| has_pods(wanted.place, d))?;
        note(on, |device| before.contains(&device.index), repairs);
        short_cut(dataplane, attach, short_cuts, repairs)?;
    } else if !dataplane.device_numbers()?.is_empty() {
        dataplane.detach_devices()?;
        tracing::warn!("the packet path is detached: --paths does not name it");
    }
    if wanted.rules_stand && mode != Mode::Active {
        leave_to_rules(dataplane, wanted)?;
    }
    if mode != Mode::Active {
        dataplane.set_mode(Mode::Active)?;
        repairs.mode = Some(mode);
    }
    Ok(())
}

/// A migration decides: what it has attached stays attached, and nothing else is. Where the packet path serves, it belongs on
/// devices that are new, too.
fn keep(dataplane: &mut Dataplane, wanted: &Wanted<'_>, repairs: &mut Repairs) -> Result<(), AttachError> {
    let attachment = dataplane.attachment()?;
    if matches!(attachment, Attachment::Partly(_)) && dataplane.mode()? == Mode::Active {
        dataplane.attach()?;
        repairs.attached = Some(attachment);
    }
    let before = dataplane.device_numbers()?;
    if !before.is_empty() {
        let joins = dataplane.mode()? == Mode::Active;
        let belongs = |d: &NodeDevice| before.contains(&d.index) || (joins && wanted.attach.devices.packets(d));
        if joins {
            leave_to_rules_for_newcomers(dataplane, wanted, &before)?;
        }
        let on = dataplane.attach_devices(belongs, |d| has_pods(wanted.place, d))?;
        note(on, |device| before.contains(&device.index), repairs);
    }
    Ok(())
}

fn short_cut(
    dataplane: &mut Dataplane,
    attach: &Attach,
    had: &mut BTreeSet<u32>,
    repairs: &mut Repairs,
) -> Result<(), DataplaneError> {
    let mode = match attach.xdp {
        // With none wanted, one that an earlier agent has left goes.
        Xdp::Off if !dataplane.has_short_cuts()? => return Ok(()),
        Xdp::Off | Xdp::Native | Xdp::Auto => XdpMode::Native,
        Xdp::Generic => XdpMode::Generic,
    };
    let on = dataplane.attach_xdp(|d| attach.xdp != Xdp::Off && attach.xdp_devices.short_cut(d), mode)?;
    for (device, programs) in on.new {
        if had.contains(&device.index) {
            repairs.devices.push((device, programs));
        } else {
            tracing::info!("{} runs the short cut", device.name);
        }
    }
    *had = on.devices.iter().map(|device| device.index).collect();
    for (device, error) in on.troubles {
        if attach.xdp == Xdp::Auto {
            tracing::debug!("no short cut: {}: {}", device.name, with_causes(&error));
        } else {
            repairs.troubles.push(with_causes(&error));
        }
    }
    Ok(())
}

/// Sorts what attaching to devices has come to.
fn note(on: OnDevices, had_them: impl Fn(&NodeDevice) -> bool, repairs: &mut Repairs) {
    repairs.on = on.devices.len();
    for (device, programs) in on.new {
        if had_them(&device) {
            repairs.devices.push((device, programs));
        } else {
            repairs.joined.push(device);
        }
    }
    let netlink = Netlink::route().ok();
    for (device, error) in on.troubles {
        // Devices go while they are looked at, and that is no trouble.
        if netlink.as_ref().is_none_or(|netlink| netlink.interface(device.index).is_some()) {
            repairs.troubles.push(with_causes(&error));
        }
    }
}

/// Where a device is to get programs that serve at once, beside standing rules.
fn leave_to_rules_for_newcomers(
    dataplane: &mut Dataplane,
    wanted: &Wanted<'_>,
    before: &BTreeSet<u32>,
) -> Result<(), AttachError> {
    let newcomer = |device: &NodeDevice| wanted.attach.devices.packets(device) && !before.contains(&device.index);
    if wanted.rules_stand && node_devices()?.iter().any(newcomer) {
        leave_to_rules(dataplane, wanted)?;
    }
    Ok(())
}

fn leave_to_rules(dataplane: &mut Dataplane, wanted: &Wanted<'_>) -> Result<(), AttachError> {
    let carried = conntrack::carried(wanted.table).map_err(AttachError::Flows)?;
    let flows = dataplane.leave_to_rules(&carried, wanted.udp_time)?;
    tracing::info!(flows, "kube-proxy's rules stand: their flows of datagrams stay theirs");
    Ok(())
}

fn tell_upgrade(dataplane: &Dataplane, shared: &Shared) {
    let Some(upgrade) = dataplane.upgraded() else { return };
    let kind = if upgrade.from == upgrade.to { "programs" } else { "layout" };
    tracing::info!(from = upgrade.from, to = upgrade.to, "another kpx's programs are replaced by this one's");
    shared.metrics.upgrades.get_or_create(&super::metrics::label("kind", kind)).inc();
}

fn fill(dataplane: &mut Dataplane, table: &LiveTable, place: &Place, partial: bool) -> Result<(), DataplaneError> {
    let table = table.table(place);
    if partial {
        let served: Vec<Frontend> = table.frontends().iter().filter(|f| served(f).is_ok()).cloned().collect();
        dataplane.update(&served, &[])?;
    } else {
        dataplane.fill(&table)?;
    }
    Ok(())
}

fn update<'a>(
    dataplane: &mut Dataplane,
    table: &LiveTable,
    addresses: impl Iterator<Item = &'a Address>,
) -> Result<(), DataplaneError> {
    let mut services = BTreeSet::new();
    let mut removed = Vec::new();
    for address in addresses {
        match table.at(address) {
            Some(frontend) => services.extend(frontend.service.as_ref()),
            None => removed.push(key(address)),
        }
    }
    // What belongs together is given together: the frontends of a Service port share its numbers.
    let frontends = services.into_iter().flat_map(|service| table.of(service));
    let (changed, left): (Vec<&Frontend>, Vec<&Frontend>) = frontends.partition(|frontend| served(frontend).is_ok());
    removed.extend(left.into_iter().map(|frontend| key(&frontend.key.address())));
    let changed: Vec<Frontend> = changed.into_iter().cloned().collect();
    dataplane.update(&changed, &removed)?;
    Ok(())
}

/// The key of whatever is at an address: the maps do not tell exposures apart.
const fn key(&(ip, port, protocol): &Address) -> FrontendKey {
    FrontendKey { ip, port, protocol, exposure: Exposure::ClusterIp }
}

fn failed(error: &DataplaneError, shared: &Shared) -> Written {
    let (condition, map) = match error {
        DataplaneError::Full(full) => (Condition::MapFull, full.map),
        DataplaneError::Map { map, .. } => (Condition::MapWrite, *map),
        _ => (Condition::MapWrite, ""),
    };
    let text = std::iter::once(with_causes(error)).chain(error.hints()).collect::<Vec<_>>().join("; hint: ");
    shared.condition(condition, Some(text));
    shared.metrics.write_failures.get_or_create(&super::metrics::label("map", map)).inc();
    Written::Later
}
