//! The clients of a lab: one process a place (the node itself, a pod, outside), hundreds of flows in one thread.
//!
//! It runs as the hidden `kpx lab client` inside its namespace and cgroup, gets its [`Orders`] as one line of JSON on
//! stdin, then one [`Command`] a line; it answers with [`Event`]s, one a line, and ends when stdin does.

mod connect;
mod flow;
mod tally;

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::connect::Connect;
use self::flow::{Flow, Next};
#[cfg(test)]
pub(super) use self::tally::ClassTally;
use self::tally::Tally;
pub(super) use self::tally::{PhaseTally, Tallies};
pub use self::tally::{Trouble, Unlike};
use super::LabError;
use super::poll::{Poller, Turn};
use crate::model::Protocol;

/// Kind of a flow: what could break it differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A TCP connection that stays open while its server pushes records.
    Tcp,
    /// One question and its answer after the other, over one TCP connection.
    TcpRequest,
    /// A TCP connection that carries much at once, both ways, and every byte of it is compared.
    TcpBulk,
    /// A TCP connection on which nothing is said until its end.
    TcpIdle,
    /// A UDP socket with `connect`, as resolvers use.
    UdpConnected,
    /// A UDP socket with `sendto` alone.
    UdpUnconnected,
    /// A UDP socket with `connect` that says something every twenty seconds.
    UdpIdle,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Tcp,
        Self::TcpRequest,
        Self::TcpBulk,
        Self::TcpIdle,
        Self::UdpConnected,
        Self::UdpUnconnected,
        Self::UdpIdle,
    ];

    /// Its protocol.
    const fn protocol(self) -> Protocol {
        match self {
            Self::Tcp | Self::TcpRequest | Self::TcpBulk | Self::TcpIdle => Protocol::Tcp,
            Self::UdpConnected | Self::UdpUnconnected | Self::UdpIdle => Protocol::Udp,
        }
    }

    /// Whether silence is what it is for.
    const fn is_idle(self) -> bool {
        matches!(self, Self::TcpIdle | Self::UdpIdle)
    }

    /// How many questions are asked at once, where the client asks and the backend only answers.
    const fn questions(self) -> Option<u64> {
        match self {
            Self::TcpRequest => Some(1),
            Self::TcpBulk => Some(BULK),
            _ => None,
        }
    }

    /// As in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::TcpRequest => "tcp-request",
            Self::TcpBulk => "tcp-bulk",
            Self::TcpIdle => "tcp-idle",
            Self::UdpConnected => "udp-connected",
            Self::UdpUnconnected => "udp-unconnected",
            Self::UdpIdle => "udp-idle",
        }
    }
}

/// Frames that a bulk flow sends at once: 16 KiB.
const BULK: u64 = 256;

/// What a client must meet at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// A backend answers.
    Answer,
    /// Port unreachable: no usable endpoint.
    Refusal,
    /// Nothing at all: a Local policy without a local endpoint.
    Silence,
}

impl Expect {
    /// What a Service does that is expected to do this.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Refusal => "refuse",
            Self::Silence => "stay silent",
        }
    }
}

/// A frontend that clients use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `namespace/name:port`.
    pub service: String,
    /// Address and port that clients use.
    pub addr: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// What they must meet.
    pub expect: Expect,
}

/// What one client process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Orders {
    /// Where the client is, for messages: `node`, `pod`, `outside`.
    pub(super) place: String,
    /// Time between two records that a server pushes, microseconds.
    pub(super) interval_us: u64,
    /// Time between two records that the client sends, microseconds.
    pub(super) keep_us: u64,
    /// Flows opened at the start, which stay until the end.
    pub(super) long: u32,
    /// Flows opened per second while traffic runs.
    pub(super) timed_per_second: u32,
    /// Life of each of these, milliseconds.
    pub(super) timed_ms: u64,
    /// TCP connections per second: one exchange, then closed.
    pub(super) connects_per_second: u32,
    /// Exchanges per second that go round all frontends, of either protocol, also those that must not answer.
    pub(super) rounds_per_second: u32,
    /// Upper part of session numbers, unique in the lab.
    pub(super) session_base: u64,
    /// Frontends to use.
    pub(super) targets: Vec<Target>,
}

/// What the parent says, one JSON object a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub(super) enum Command {
    /// What happens from now on belongs to this phase.
    Phase {
        /// Its name.
        name: String,
    },
    /// End every flow in good order, then report.
    Stop,
}

/// What the client says, one JSON object a line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Event {
    /// The flows of the start are open (or have failed).
    Ready {
        /// How many are open.
        open: u64,
    },
    /// The sums of a phase that is over.
    Phase(PhaseTally),
    /// Everything has ended: the sums of all phases.
    Done(Tallies),
    /// The client cannot go on.
    Failed {
        /// Why.
        message: String,
    },
}

const STDIN: u64 = 0;
const FLOW: u64 = 1 << 56;
const CONNECT: u64 = 2 << 56;
const OPEN_FLOW: u64 = 3 << 56;
const OPEN_CONNECT: u64 = 4 << 56;
const OPEN_PROBE: u64 = 5 << 56;
const OPEN_ROUND: u64 = 6 << 56;
const KIND: u64 = 0xff << 56;

/// Refusals are a part of the traffic, not its load.
const PROBE_EVERY: Duration = Duration::from_millis(1500);
/// How long the end of the last flow is waited for.
const DRAIN: Duration = Duration::from_secs(6);
/// Flows of the start are opened over this time, so that their records do not come in bursts.
const RAMP: Duration = Duration::from_millis(600);
/// Time for the first probes to be answered, or to be known as silent.
const SETTLE: Duration = Duration::from_millis(600);

/// Runs a client until it is told to stop or stdin ends.
pub(crate) fn run() -> Result<(), LabError> {
    let outcome = drive();
    if let Err(error) = &outcome {
        say(&Event::Failed { message: super::error::in_a_line(error) })?;
    }
    outcome
}

fn drive() -> Result<(), LabError> {
    let mut input = Lines::default();
    let orders = loop {
        if let Some(line) = input.next() {
            break line;
        }
        if !input.fill()? {
            return Ok(());
        }
    };
    let orders: Orders =
        serde_json::from_slice(&orders).map_err(|source| LabError::Recorded { place: "stdin".to_owned(), source })?;
    super::serve::raise_file_limit();
    let mut client = Client::new(orders)?;
    client.drive(&mut input)
}

/// Standard input without a buffer behind it: what is not read yet stays visible to the event loop.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
}

impl Lines {
    /// Reads what is there; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        let length = rustix::io::read(io::stdin(), &mut bytes)?;
        self.bytes.extend_from_slice(&bytes[..length]);
        Ok(length > 0)
    }

    /// Takes the next whole line.
    fn next(&mut self) -> Option<Vec<u8>> {
        let end = memchr::memchr(b'\n', &self.bytes)?;
        Some(self.bytes.drain(..=end).collect())
    }
}

fn say(event: &Event) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, event)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Targets that are walked in a circle.
struct Circle {
    list: Vec<usize>,
    at: usize,
}

impl Circle {
    /// The targets that `keep` selects.
    fn of(targets: &[Target], keep: impl Fn(&Target) -> bool) -> Self {
        Self { list: (0..targets.len()).filter(|i| keep(&targets[*i])).collect(), at: 0 }
    }

    fn next(&mut self) -> Option<usize> {
        let entry = self.list.get(self.at % self.list.len().max(1)).copied();
        self.at += 1;
        entry
    }
}

/// In which order flows of each class are opened: half of them TCP.
const TURNS: [Class; 10] = [
    Class::Tcp,
    Class::UdpConnected,
    Class::TcpRequest,
    Class::UdpUnconnected,
    Class::TcpIdle,
    Class::UdpIdle,
    Class::Tcp,
    Class::UdpConnected,
    Class::TcpBulk,
    Class::UdpUnconnected,
];

struct Client {
    orders: Orders,
    poller: Poller,
    flows: HashMap<u64, Flow>,
    connects: HashMap<u64, Connect>,
    answering: [Circle; TURNS.len()],
    turn: usize,
    connectable: Circle,
    refusing: Circle,
    everyone: Circle,
    tally: Tally,
    next: u64,
    starting: u32,
    announced: bool,
    stopping: Option<Instant>,
}

impl Client {
    fn new(orders: Orders) -> io::Result<Self> {
        let answers = |t: &Target| t.expect == Expect::Answer;
        // Each starts at another place, so that two circles of TCP do not go to the same targets.
        let mut answering =
            TURNS.map(|class| Circle::of(&orders.targets, |t| answers(t) && class.protocol() == t.protocol));
        for (i, circle) in answering.iter_mut().enumerate() {
            circle.at = circle.list.len() * i / TURNS.len();
        }
        let connectable = Circle::of(&orders.targets, |t| answers(t) && t.protocol == Protocol::Tcp);
        let refusing = Circle::of(&orders.targets, |t| !answers(t));
        let everyone = Circle::of(&orders.targets, |_| true);
        Ok(Self {
            poller: Poller::new()?,
            flows: HashMap::new(),
            connects: HashMap::new(),
            answering,
            turn: 0,
            connectable,
            refusing,
            everyone,
            tally: Tally::new(orders.place.clone()),
            next: 0,
            starting: orders.long,
            announced: false,
            stopping: None,
            orders,
        })
    }

    fn drive(&mut self, input: &mut Lines) -> Result<(), LabError> {
        self.poller.readable(io::stdin(), STDIN)?;
        let start = Instant::now();
        for i in 0..self.orders.long {
            self.poller.at(start + RAMP * i / self.orders.long.max(1), OPEN_FLOW | 1);
        }
        // Each Service that must not answer is asked once before anything is done, so that a later change is known as one.
        let refusing: Vec<usize> = self.refusing.list.clone();
        for (i, index) in (0u32..).zip(&refusing) {
            self.poller.at(start + RAMP * i / refusing.len() as u32, OPEN_PROBE | (1 + *index as u64));
        }
        let begin = start + RAMP;
        self.poller.at(begin, OPEN_FLOW);
        self.poller.at(begin, OPEN_CONNECT);
        self.poller.at(begin, OPEN_PROBE);
        self.poller.at(begin, OPEN_ROUND);
        let mut turns = Vec::new();
        loop {
            self.poller.wait(&mut turns)?;
            for turn in turns.drain(..) {
                match turn {
                    Turn::Ready(STDIN) => {
                        if !input.fill()? {
                            return Ok(());
                        }
                        while let Some(line) = input.next() {
                            self.obey(&line)?;
                        }
                    }
                    Turn::Ready(token) if token & KIND == FLOW => self.flow_ready(token & !KIND),
                    Turn::Ready(token) => self.connect_turn(token & !KIND, true),
                    Turn::Due(token) => self.due(token)?,
                }
            }
            let begun = self.starting == 0 && start.elapsed() > RAMP + SETTLE && self.flows.values().all(Flow::begun);
            if !self.announced && begun {
                self.announced = true;
                say(&Event::Ready { open: self.flows.len() as u64 })?;
            }
            if let Some(since) = self.stopping {
                let over = since.elapsed() > DRAIN;
                if over {
                    for (_, flow) in std::mem::take(&mut self.flows) {
                        self.tally.lost(&flow, &self.orders.targets[flow.target], "did not end");
                    }
                }
                if self.flows.is_empty() && (self.connects.is_empty() || over) {
                    say(&Event::Done(self.tally.finish(&self.orders.targets)))?;
                    return Ok(());
                }
            }
        }
    }

    fn obey(&mut self, line: &[u8]) -> Result<(), LabError> {
        let command =
            serde_json::from_slice(line).map_err(|source| LabError::Recorded { place: "stdin".to_owned(), source })?;
        match command {
            Command::Phase { name } => {
                let open = self.flows.len() as u64;
                if let Some(ended) = self.tally.phase(name, open) {
                    say(&Event::Phase(ended))?;
                }
            }
            Command::Stop => self.stopping = Some(Instant::now()),
        }
        Ok(())
    }

    fn due(&mut self, token: u64) -> io::Result<()> {
        let now = Instant::now();
        let each = |rate: u32| Duration::from_secs(1) / rate.max(1);
        match token & KIND {
            FLOW => self.flow_due(token & !KIND, now),
            CONNECT => self.connect_turn(token & !KIND, false),
            _ if self.stopping.is_some() => {}
            OPEN_FLOW if token & !KIND == 1 => {
                self.starting -= 1;
                self.open_flow(None)?;
            }
            OPEN_FLOW if self.orders.timed_per_second > 0 => {
                self.poller.at(now + each(self.orders.timed_per_second), OPEN_FLOW);
                self.open_flow(Some(Duration::from_millis(self.orders.timed_ms)))?;
            }
            OPEN_CONNECT if self.orders.connects_per_second > 0 => {
                self.poller.at(now + each(self.orders.connects_per_second), OPEN_CONNECT);
                if let Some(index) = self.connectable.next() {
                    self.open_connect(index)?;
                }
            }
            OPEN_ROUND if self.orders.rounds_per_second > 0 => {
                self.poller.at(now + each(self.orders.rounds_per_second), OPEN_ROUND);
                if let Some(index) = self.everyone.next() {
                    self.open_connect(index)?;
                }
            }
            OPEN_PROBE if token & !KIND > 0 => self.open_connect((token & !KIND) as usize - 1)?,
            OPEN_PROBE => {
                self.poller.at(now + PROBE_EVERY, OPEN_PROBE);
                if let Some(index) = self.refusing.next() {
                    self.open_connect(index)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn open_flow(&mut self, lifetime: Option<Duration>) -> io::Result<()> {
        // A class without targets leaves its turn to the next.
        let found = (0..TURNS.len()).find_map(|_| {
            let turn = self.turn % TURNS.len();
            self.turn += 1;
            self.answering[turn].next().map(|target| (target, TURNS[turn]))
        });
        let Some((target, class)) = found else { return Ok(()) };
        let id = self.next;
        self.next += 1;
        let addr = self.orders.targets[target].addr;
        let session = self.orders.session_base | id;
        self.tally.opened(class, target);
        match Flow::open(session, class, target, addr, lifetime, &self.orders) {
            Ok(flow) => {
                flow.watch(&self.poller, FLOW | id)?;
                self.poller.at(Instant::now() + flow.first_turn(id), FLOW | id);
                self.flows.insert(id, flow);
            }
            Err(error) => {
                self.tally.never_opened(class, &self.orders.targets[target], &error);
            }
        }
        Ok(())
    }

    fn flow_ready(&mut self, id: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let next = flow.ready(&self.poller, FLOW | id, &mut self.tally);
        self.after(id, next);
    }

    fn flow_due(&mut self, id: u64, now: Instant) {
        let stopping = self.stopping.is_some();
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let next = flow.turn(now, stopping);
        if matches!(next, Next::Stay) {
            self.poller.at(now + flow.pace(), FLOW | id);
        }
        self.after(id, next);
    }

    fn after(&mut self, id: u64, next: Next) {
        match next {
            Next::Stay => {}
            Next::Ended => {
                if let Some(flow) = self.flows.remove(&id) {
                    self.tally.ended(&flow);
                }
            }
            Next::Lost(why) => {
                if let Some(flow) = self.flows.remove(&id) {
                    self.tally.lost(&flow, &self.orders.targets[flow.target], &why);
                }
            }
        }
    }

    fn open_connect(&mut self, index: usize) -> io::Result<()> {
        let id = self.next;
        self.next += 1;
        let target = &self.orders.targets[index];
        match Connect::open(index, target) {
            Ok(connect) => {
                connect.watch(&self.poller, CONNECT | id)?;
                self.poller.at(Instant::now() + connect.patience(), CONNECT | id);
                self.connects.insert(id, connect);
            }
            Err(error) => self.tally.connected(index, target, &connect::refused_or_failed(&error, target.protocol)),
        }
        Ok(())
    }

    fn connect_turn(&mut self, id: u64, ready: bool) {
        let Some(connect) = self.connects.get_mut(&id) else { return };
        let outcome = if ready { connect.ready(&self.poller, CONNECT | id) } else { Some(connect.given_up()) };
        if let Some(outcome) = outcome
            && let Some(connect) = self.connects.remove(&id)
        {
            self.tally.connected(connect.target, &self.orders.targets[connect.target], &outcome);
        }
    }
}
