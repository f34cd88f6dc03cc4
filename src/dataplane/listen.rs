//! Listening to what the programs do, event by event.
//!
//! One listener at a time: what it asks for is in one element of a map, and the programs look at nothing else. It says so for a
//! few seconds at a time and renews that, so that one that was killed costs nothing for long.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::time::Duration;

use aya::maps::{Map, MapData, RingBuf};
use kpx_abi::{Addr, Cause, Event as AbiEvent, Listener as Asked, Reason, is_stand_in, map_name};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};

use super::error::DataplaneError;
use super::maps::{failed, open};
use super::pins::Paths;
use super::reconcile::{self, Full, ip};
use crate::inspect::bpf::sys::{self, Table};

/// How long the programs go on telling a listener that says nothing more; it is renewed well within.
const LEASE: Duration = Duration::from_secs(3);
/// How often a listener has to renew.
pub const RENEWAL: Duration = Duration::from_secs(1);

/// What an event is about, in the words of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum EventKind {
    /// A new connection or flow was sent to a backend
    Translated,
    /// Refused, as a rule that rejects would
    Refused,
    /// Dropped
    Dropped,
    /// Left to the kernel's rules, or to whoever comes next
    Left,
    /// A Service remembers the backend that a client got
    Affinity,
    /// An address of the node was chosen for the backend to see
    Snat,
    /// First packet of a flow that was taken over from the kernel, or given back
    HandedOver,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Translated, Self::Refused, Self::Dropped, Self::Left, Self::Affinity, Self::Snat, Self::HandedOver];

    /// The kind of the events of a reason; `None` where there are none: what happens for each packet is only counted.
    pub const fn of(reason: Reason) -> Option<Self> {
        Some(match reason {
            Reason::TcpConnect | Reason::UdpConnect | Reason::UdpFirst | Reason::FlowOpened => Self::Translated,
            Reason::Refused | Reason::BindRefused | Reason::PacketRefused => Self::Refused,
            Reason::PacketDropped | Reason::ConntrackFull | Reason::NoPort | Reason::NoSource | Reason::FrozenFlow => {
                Self::Dropped
            }
            Reason::RefusalPassed
            | Reason::DropPassed
            | Reason::Shadow
            | Reason::Yielded
            | Reason::DrainPassed
            | Reason::Missed
            | Reason::NoStorage
            | Reason::Deferred => Self::Left,
            Reason::Affinity => Self::Affinity,
            Reason::Masqueraded => Self::Snat,
            Reason::TakenOver | Reason::GivenBack => Self::HandedOver,
            _ => return None,
        })
    }

    /// The name, lower case with hyphens.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Translated => "translated",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
            Self::Left => "left",
            Self::Affinity => "affinity",
            Self::Snat => "snat",
            Self::HandedOver => "handed-over",
        }
    }
}

/// Why an event happened: what is counted for it, or why there was no backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// By what it is counted.
    Reason(Reason),
    /// Why the lookup found no backend.
    Cause(Cause),
}

impl Why {
    /// All that an event can have.
    pub fn all() -> impl Iterator<Item = Self> {
        let reasons = Reason::ALL.into_iter().filter(|reason| EventKind::of(*reason).is_some()).map(Self::Reason);
        Cause::ALL.into_iter().map(Self::Cause).chain(reasons)
    }

    /// The name, lower case with underscores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reason(reason) => reason.name(),
            Self::Cause(cause) => cause.name(),
        }
    }
}

/// Which events are wanted; the programs tell no others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of these kinds; of all if empty.
    pub kinds: BTreeSet<EventKind>,
    /// For these reasons; for any if empty.
    pub reasons: BTreeSet<Why>,
    /// Of these Services, by their numbers in the maps; of any.
    pub services: Option<BTreeSet<u32>>,
    /// With this address as client, destination, or what takes its place.
    pub address: Option<IpAddr>,
    /// With this port there.
    pub port: Option<u16>,
    /// Of sockets of processes in the cgroup with this id, or below it.
    pub cgroup: Option<u64>,
    /// One of so many; 0 and 1 are all.
    pub sample: u32,
}

impl Filter {
    fn asked(&self, until_ns: u64) -> Asked {
        let bits =
            |reasons: &mut dyn Iterator<Item = Reason>| reasons.fold(0, |bits, reason| bits | 1 << reason as u32);
        let kinds = |reason: &Reason| {
            EventKind::of(*reason).is_some_and(|kind| self.kinds.is_empty() || self.kinds.contains(&kind))
        };
        let any = self.reasons.is_empty();
        let reasons = |reason: &Reason| any || self.reasons.contains(&Why::Reason(*reason));
        let causes = Cause::ALL.into_iter().filter(|cause| self.reasons.contains(&Why::Cause(*cause)));
        Asked {
            until_ns,
            kinds: bits(&mut Reason::ALL.into_iter().filter(kinds)),
            reasons: bits(&mut Reason::ALL.into_iter().filter(reasons)),
            cgroup: self.cgroup.unwrap_or(0),
            causes: causes.fold(0, |bits, cause| bits | 1 << cause as u32),
            sample: self.sample,
            pid: std::process::id(),
            addr: self.address.map_or([0; 16], |address| reconcile::endpoint(SocketAddr::new(address, 0)).0),
            port: self.port.unwrap_or(0).to_be(),
            services: self.services.is_some().into(),
            ..Asked::default()
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// How long ago, when it was read.
    pub age: Duration,
    /// By what it is counted.
    pub reason: Reason,
    /// Why the lookup found no backend, if that is why.
    pub cause: Option<Cause>,
    /// IANA protocol number.
    pub protocol: u8,
    /// Who sends; `None` of a socket that has no address yet.
    pub client: Option<IpAddr>,
    /// The client's port, once it has one.
    pub client_port: Option<u16>,
    /// Where it is sent to.
    pub destination: SocketAddr,
    /// What takes the place: the backend; of [`EventKind::Snat`] the source that the backend sees.
    pub to: Option<SocketAddr>,
    /// The Service's number in the maps.
    pub service: Option<u32>,
    /// The process of a socket.
    pub pid: Option<u32>,
    /// The id of its cgroup.
    pub cgroup: Option<u64>,
    /// The device (ifindex) of a packet.
    pub device: Option<u32>,
}

impl Event {
    /// What it is about.
    pub fn kind(&self) -> EventKind {
        EventKind::of(self.reason).unwrap_or(EventKind::Left)
    }

    fn of(event: &AbiEvent, now_ns: u64) -> Option<Self> {
        let unspecified = |addr: &Addr| *addr == [0; 16];
        let to = (!unspecified(&event.to)).then(|| SocketAddr::new(ip(event.to), u16::from_be(event.to_port)));
        let client = !unspecified(&event.client) && !is_stand_in(&event.client);
        Some(Self {
            age: Duration::from_nanos(now_ns.saturating_sub(event.at_ns)),
            reason: *Reason::ALL.get(usize::from(event.reason))?,
            cause: Cause::ALL.into_iter().find(|cause| *cause as u8 == event.cause),
            protocol: event.proto,
            client: client.then(|| ip(event.client)),
            client_port: Some(u16::from_be(event.client_port)).filter(|port| *port != 0),
            destination: SocketAddr::new(ip(event.destination), u16::from_be(event.destination_port)),
            to,
            service: Some(event.service).filter(|id| *id != 0),
            pid: Some(event.pid).filter(|id| *id != 0),
            cgroup: Some(event.cgroup).filter(|id| *id != 0),
            device: Some(event.device).filter(|id| *id != 0),
        })
    }
}

/// Whoever listens. The programs are told that nobody does when it goes.
pub struct Listener {
    paths: Paths,
    filter: Filter,
    asked: Table<u32, Asked>,
    services: Table<u32, u8>,
    reasons: Table<u32, u64>,
    events: RingBuf<MapData>,
    lost_before: u64,
    /// Held for as long as this listens.
    _lock: fs_err::File,
}

impl Listener {
    /// Begins to listen to the dataplane that is pinned there; an error names the process that does so already.
    pub fn start(paths: &Paths, filter: Filter) -> Result<Self, DataplaneError> {
        let maps = paths.maps();
        let asked: Table<u32, Asked> = open(&maps, map_name::LISTENER)?;
        let lock = fs_err::File::open(&maps)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let other = asked.get(&0).map_err(failed("read", map_name::LISTENER))?.unwrap_or_default();
            return Err(DataplaneError::Listening { pid: other.pid });
        }
        let path = maps.join(map_name::EVENTS);
        let unreadable = |source: aya::maps::MapError| DataplaneError::Events { source: Box::new(source) };
        let events = MapData::from_pin(path).map_err(unreadable)?;
        let mut found = Self {
            paths: paths.clone(),
            asked,
            services: open(&maps, map_name::LISTENED)?,
            reasons: open(&maps, map_name::REASONS)?,
            events: RingBuf::try_from(Map::RingBuf(events)).map_err(unreadable)?,
            lost_before: 0,
            filter,
            _lock: lock,
        };
        // What somebody was told who did not read it.
        while found.events.next().is_some() {}
        found.lost_before = found.count_lost()?;
        found.ask_for_services()?;
        found.renew()?;
        Ok(found)
    }

    /// Goes on with these Services.
    pub fn set_services(&mut self, services: BTreeSet<u32>) -> Result<(), DataplaneError> {
        self.filter.services = Some(services);
        self.ask_for_services()
    }

    fn ask_for_services(&self) -> Result<(), DataplaneError> {
        let Some(wanted) = &self.filter.services else { return Ok(()) };
        let size = self.services.max_entries();
        if wanted.len() > size as usize {
            return Err(Full { map: map_name::LISTENED, size, resting: false }.into());
        }
        let there = self.services.dump().map_err(failed("read", map_name::LISTENED))?;
        for (id, _) in there.iter().filter(|(id, _)| !wanted.contains(id)) {
            self.services.delete(id).map_err(failed("delete from", map_name::LISTENED))?;
        }
        wanted.iter().try_for_each(|id| self.services.put(id, &1)).map_err(failed("write", map_name::LISTENED))
    }

    /// Says that this listens still; fails if the dataplane is another by now. To be called every [`RENEWAL`].
    pub fn renew(&self) -> Result<(), DataplaneError> {
        let path = self.paths.maps().join(map_name::EVENTS);
        let failed_to_ask = |source| DataplaneError::Object { action: "ask about", path: path.clone(), source };
        let pinned = match sys::obj_get(&path) {
            Ok(map) => sys::map_info(map.as_fd()).map_err(failed_to_ask)?.id,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(source) => return Err(failed_to_ask(source)),
        };
        if sys::map_info(self.events.as_fd()).map_err(failed_to_ask)?.id != pinned {
            return Err(DataplaneError::Replaced { pins: self.paths.pins.clone() });
        }
        let lease = u64::try_from(LEASE.as_nanos()).unwrap_or(u64::MAX);
        self.ask(&self.filter.asked(sys::monotonic_ns().saturating_add(lease)))
    }

    fn ask(&self, asked: &Asked) -> Result<(), DataplaneError> {
        self.asked.put(&0, asked).map_err(failed("write", map_name::LISTENER))
    }

    /// Waits until there may be an event, a signal came, or time is up.
    pub fn wait(&self, time: Duration) -> Result<(), DataplaneError> {
        let time = Timespec::try_from(time).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(&mut [PollFd::new(&self.events, PollFlags::IN)], Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(failed("wait for", map_name::EVENTS)(error.into())),
        }
    }

    /// The next event, if there is one.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let record = self.events.next()?;
            // Records of a size that this kpx does not know are another's.
            if let Some(event) = sys::value_of(&record).and_then(|event| Event::of(&event, sys::monotonic_ns())) {
                return Some(event);
            }
        }
    }

    /// How many events had no room since this began to listen.
    pub fn lost(&self) -> Result<u64, DataplaneError> {
        Ok(self.count_lost()?.saturating_sub(self.lost_before))
    }

    fn count_lost(&self) -> Result<u64, DataplaneError> {
        let copies = self.reasons.get_all(&(Reason::EventLost as u32)).map_err(failed("read", map_name::REASONS))?;
        Ok(copies.unwrap_or_default().iter().sum())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Should this fail, the lease ends soon.
        let _ = self.ask(&Asked::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_the_filter_says() {
        let all = Filter::default().asked(7);
        assert_eq!((all.until_ns, all.causes, all.services, all.sample), (7, 0, 0, 0));
        for reason in Reason::ALL {
            assert_eq!(all.wants(reason as u32, 0), EventKind::of(reason).is_some(), "{reason:?}");
        }
        let filter = Filter {
            kinds: BTreeSet::from([EventKind::Refused, EventKind::Dropped]),
            reasons: BTreeSet::from([Why::Cause(Cause::NoBackend), Why::Reason(Reason::NoPort)]),
            address: Some("10.96.0.10".parse().unwrap()),
            port: Some(80),
            ..Filter::default()
        };
        let asked = filter.asked(1);
        assert!(asked.wants(Reason::Refused as u32, Cause::NoBackend as u32));
        assert!(asked.wants(Reason::NoPort as u32, 0));
        assert!(!asked.wants(Reason::RefusalPassed as u32, Cause::NoBackend as u32), "another kind");
        assert!(!asked.wants(Reason::PacketRefused as u32, Cause::UndefinedPort as u32), "another cause");
        let address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 96, 0, 10];
        assert!(asked.meets(&address, 80_u16.to_be()) && !asked.meets(&address, 81_u16.to_be()));
    }

    #[test]
    fn names_are_different() {
        let names: BTreeSet<&str> = Why::all().map(Why::name).collect();
        assert_eq!(names.len(), Why::all().count());
        let kinds: BTreeSet<&str> = EventKind::ALL.into_iter().map(EventKind::name).collect();
        assert_eq!(kinds.len(), EventKind::ALL.len());
    }
}
