//! Entries counted, joined with the Services they belong to.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::entry::{Entry, Nat, Translator};
use crate::model::{Family, Frontend, Protocol, ServiceTable};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Flows to backends that are in no list are kept up to this many, for the rest only their number: a table full of them
/// must not fill the memory.
const STRANGERS: usize = 1000;

/// Flows of one frontend.
#[derive(Clone, Copy, Debug)]
pub struct ServiceCount<'t> {
    /// The frontend.
    pub frontend: &'t Frontend,
    /// Entries.
    pub flows: u64,
    /// Those that a change of the dataplane must carry on: see [`Carried`].
    pub open: u64,
    /// Those whose backend is in none of the frontend's lists.
    pub to_strangers: u64,
}

/// Flows of one frontend to one backend.
#[derive(Clone, Copy, Debug)]
pub struct BackendCount<'t> {
    /// The frontend.
    pub frontend: &'t Frontend,
    /// The backend.
    pub backend: SocketAddr,
    /// Whether one of the frontend's lists has it.
    pub listed: bool,
    /// Entries.
    pub flows: u64,
    /// Those that a change of the dataplane must carry on.
    pub open: u64,
}

/// Entries of one protocol in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StateCount {
    /// IANA number of the protocol.
    pub protocol: u8,
    /// See [`Entry::phase`].
    pub state: &'static str,
    /// Entries.
    pub flows: u64,
}

/// Flows to Services that somebody still uses: TCP and SCTP that is not closed, and all UDP. A change of the dataplane must
/// carry them on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Carried {
    /// TCP.
    pub tcp: u64,
    /// UDP.
    pub udp: u64,
    /// SCTP.
    pub sctp: u64,
}

/// A UDP flow that goes on to a backend which none of its frontend's lists has. kube-proxy deletes such entries; while they
/// stand, what the client sends is lost.
#[derive(Clone, Copy, Debug)]
pub struct StuckFlow<'t> {
    /// The frontend.
    pub frontend: &'t Frontend,
    /// The client.
    pub client: SocketAddr,
    /// The backend that is in no list.
    pub backend: SocketAddr,
    /// Seconds until the entry goes if nothing more is sent.
    pub timeout: Option<u32>,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    flows: u64,
    open: u64,
}

/// Counts of a table of entries. Its size depends on the Services, not on the entries.
pub struct Census<'t> {
    frontends: &'t [Frontend],
    by_address: Map<(IpAddr, u16, Protocol), usize>,
    /// By frontend; its strangers in the second half.
    counts: Vec<(Tally, u64)>,
    backends: Map<(usize, SocketAddr), (bool, Tally)>,
    states: Map<(u8, &'static str), u64>,
    translations: BTreeMap<(Nat, Option<Translator>), u64>,
    strangers: usize,
    carried: Carried,
    stuck: Vec<StuckFlow<'t>>,
    stuck_count: u64,
    total: u64,
    of_services: u64,
}

impl<'t> Census<'t> {
    /// Nothing counted yet; frontends and their backends as in `table`.
    pub fn new(table: &'t ServiceTable) -> Self {
        let frontends = table.frontends();
        let mut by_address: Map<_, usize> = Map::default();
        let mut backends: Map<_, (bool, Tally)> = Map::default();
        for (i, frontend) in frontends.iter().enumerate() {
            // Of several on one address, all lists count as those of the first: who of them serves, the entry does not tell.
            let first = *by_address.entry(frontend.key.address()).or_insert(i);
            for backend in frontend.cluster.iter().chain(&frontend.local) {
                backends.insert((first, backend.addr()), (true, Tally::default()));
            }
        }
        Self {
            frontends,
            by_address,
            counts: vec![Default::default(); frontends.len()],
            backends,
            states: Map::default(),
            translations: BTreeMap::new(),
            strangers: 0,
            carried: Carried::default(),
            stuck: Vec::new(),
            stuck_count: 0,
            total: 0,
            of_services: 0,
        }
    }

    /// Counts one entry.
    pub fn add(&mut self, entry: &Entry) {
        self.total += 1;
        *self.states.entry((entry.protocol, entry.phase())).or_default() += 1;
        *self.translations.entry((entry.nat(), entry.translator())).or_default() += 1;
        let Some(frontend) = self.frontend(entry) else { return };
        self.of_services += 1;
        let open = u64::from(is_open(entry));
        let add = |tally: &mut Tally| {
            tally.flows += 1;
            tally.open += open;
        };
        add(&mut self.counts[frontend].0);
        if !entry.is_to_backend() {
            return;
        }
        match entry.protocol {
            6 => self.carried.tcp += open,
            17 => self.carried.udp += open,
            _ => self.carried.sctp += open,
        }
        let key = (frontend, entry.reply.source);
        let known = self.backends.get_mut(&key);
        let listed = known.as_ref().is_some_and(|(listed, _)| *listed);
        if let Some((_, tally)) = known {
            add(tally);
        } else if self.strangers < STRANGERS {
            self.strangers += 1;
            add(&mut self.backends.entry(key).or_default().1);
        }
        if !listed {
            self.counts[frontend].1 += 1;
            if entry.protocol == Protocol::Udp.number() {
                self.stuck(frontend, entry);
            }
        }
    }

    /// A flow of a Service without any backend left is stuck as well, but kube-proxy leaves it: there is nowhere else to go.
    fn stuck(&mut self, frontend: usize, entry: &Entry) {
        let of = &self.frontends[frontend];
        if of.cluster.is_empty() && of.local.is_empty() {
            return;
        }
        self.stuck_count += 1;
        if self.stuck.len() < STRANGERS {
            self.stuck.push(StuckFlow {
                frontend: of,
                client: entry.original.source,
                backend: entry.reply.source,
                timeout: entry.timeout,
            });
        }
    }

    /// The frontend that an entry belongs to: by the address that the client asked for; a NodePort, which is on every address of
    /// the node, only if the entry is translated.
    fn frontend(&self, entry: &Entry) -> Option<usize> {
        let protocol = entry.service_protocol()?;
        let asked = entry.original.destination;
        let at = |ip| self.by_address.get(&(ip, asked.port(), protocol)).copied();
        at(asked.ip()).or_else(|| entry.is_to_backend().then(|| at(Family::of(asked.ip()).unspecified())).flatten())
    }

    /// Entries.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Entries that belong to a Service.
    pub const fn of_services(&self) -> u64 {
        self.of_services
    }

    /// Frontends with flows, those with the most first.
    pub fn services(&self) -> Vec<ServiceCount<'t>> {
        let count = |(frontend, (tally, strangers)): (&'t Frontend, &(Tally, u64))| {
            let counted = ServiceCount { frontend, flows: tally.flows, open: tally.open, to_strangers: *strangers };
            (tally.flows > 0).then_some(counted)
        };
        let mut list: Vec<_> = self.frontends.iter().zip(&self.counts).filter_map(count).collect();
        list.sort_by_key(|c| (std::cmp::Reverse(c.flows), c.frontend.key));
        list
    }

    /// Backends with flows, those with the most first. Of those in no list, the first [`STRANGERS`].
    pub fn backends(&self) -> Vec<BackendCount<'t>> {
        let mut list: Vec<_> = self
            .backends
            .iter()
            .filter(|(_, (_, tally))| tally.flows > 0)
            .map(|((frontend, backend), (listed, tally))| BackendCount {
                frontend: &self.frontends[*frontend],
                backend: *backend,
                listed: *listed,
                flows: tally.flows,
                open: tally.open,
            })
            .collect();
        list.sort_by_key(|c| (std::cmp::Reverse(c.flows), c.frontend.key, c.backend));
        list
    }

    /// By protocol and state, the most first.
    pub fn states(&self) -> Vec<StateCount> {
        let mut list: Vec<_> = self
            .states
            .iter()
            .map(|((protocol, state), flows)| StateCount { protocol: *protocol, state, flows: *flows })
            .collect();
        list.sort_by_key(|c| (std::cmp::Reverse(c.flows), c.protocol, c.state));
        list
    }

    /// By what is translated, and by whom.
    pub const fn translations(&self) -> &BTreeMap<(Nat, Option<Translator>), u64> {
        &self.translations
    }

    /// Flows that a change of the dataplane must carry on.
    pub const fn carried(&self) -> Carried {
        self.carried
    }

    /// UDP flows to backends that are in no list, the first thousand, and how many there are.
    pub fn stuck_flows(&self) -> (&[StuckFlow<'t>], u64) {
        (&self.stuck, self.stuck_count)
    }
}

/// Whether somebody still uses the flow.
fn is_open(entry: &Entry) -> bool {
    !matches!(entry.state, Some("TIME_WAIT" | "CLOSE" | "CLOSED" | "NONE"))
}
