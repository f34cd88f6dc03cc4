//! The backends of a lab: one process that listens on every endpoint's own address and port, in several namespaces.
//!
//! It runs as the hidden `kpx lab serve`, gets one line of JSON ([`Sites`]) on stdin, answers with one line on stdout
//! when everything listens, and stays until it is killed. A socket belongs to the namespace it was made in, whatever its
//! thread does later, so that one thread holds them all.

use std::collections::HashMap;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::poll::{Poller, Turn};
use super::wire::{Account, FRAME, Frame, Kind, Stream};
use super::{LabError, netns, pages};
use crate::model::Protocol;

/// Where the backends listen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sites {
    /// Listeners, by namespace.
    pub(super) sites: Vec<Site>,
    /// What kube-proxy's own ports answered on the recorded node.
    pub(super) pages: Option<Pages>,
}

/// The listeners of one namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Site {
    /// Its name.
    pub(super) netns: String,
    /// TCP addresses.
    pub(super) tcp: Vec<SocketAddr>,
    /// UDP addresses.
    pub(super) udp: Vec<SocketAddr>,
}

/// Recorded answers of kube-proxy, served as it would.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Pages {
    /// The node's namespace.
    pub(super) netns: String,
    /// Path of the request and file with the answer's body.
    pub(super) files: Vec<(String, PathBuf)>,
}

/// A session whose client says nothing for so long is over.
const ABANDONED: Duration = Duration::from_secs(10);
/// An account is kept for so long after the end, should its datagram have to be asked for again.
const KEPT: Duration = Duration::from_secs(5);

/// Room for the datagrams of hundreds of flows while this process, or the kernel's softirq, waits for a processor.
const BUFFER: usize = 8 << 20;

/// Runs the backends until killed; returns early only if stdin ends before the sites are known.
pub(crate) fn run() -> Result<(), LabError> {
    let outcome = serve();
    if let Err(error) = &outcome {
        // The parent reads this line in place of "ready"; if it is gone, nobody does.
        let _ = writeln!(io::stdout().lock(), "{}", super::error::in_a_line(error));
    }
    outcome
}

fn serve() -> Result<(), LabError> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    if line.is_empty() {
        return Ok(());
    }
    let sites: Sites =
        serde_json::from_str(&line).map_err(|source| LabError::Recorded { place: "stdin".to_owned(), source })?;
    raise_file_limit();
    let mut backends = Backends::listen(&sites)?;
    if let Some(pages) = sites.pages {
        pages::serve(&pages)?;
    }
    let mut out = io::stdout().lock();
    writeln!(out, "ready")?;
    out.flush()?;
    drop(out);
    backends.serve()
}

/// Hundreds of listeners and connections do not fit into the usual 1024 descriptors.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // A limit that cannot be raised shows itself at the first descriptor too many.
    let _ = setrlimit(Resource::Nofile, limit);
}

enum Listener {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

struct Connection {
    stream: TcpStream,
    cut: Stream,
    session: Option<Session>,
    /// Bytes the socket did not take yet.
    unsent: Vec<u8>,
}

struct Session {
    id: u64,
    interval: Duration,
    account: Account,
    last: Instant,
    ended: bool,
}

struct Datagrams {
    session: Session,
    listener: usize,
    peer: SocketAddr,
}

/// What a token of the poller stands for; kept in its upper byte.
const LISTENER: u64 = 1 << 56;
const CONNECTION: u64 = 2 << 56;
const DATAGRAMS: u64 = 3 << 56;
const KIND: u64 = 0xff << 56;

struct Backends {
    poller: Poller,
    listeners: Vec<Listener>,
    connections: HashMap<u64, Connection>,
    datagrams: HashMap<u64, Datagrams>,
    next: u64,
}

impl Session {
    fn new(id: u64, interval_us: u64, now: Instant) -> Self {
        let interval = Duration::from_micros(interval_us.clamp(1_000, 60_000_000));
        Self { id, interval, account: Account::default(), last: now, ended: false }
    }

    fn heard(&mut self, now: Instant) {
        let gap = now.duration_since(self.last).as_micros() as u64;
        self.account.longest_gap_us = self.account.longest_gap_us.max(gap);
        self.last = now;
    }

    /// The next record; it counts once [`Self::pushed`] says that it is on its way.
    fn push(&self) -> [u8; FRAME] {
        Frame::new(Kind::Push, self.id, self.account.pushed + 1).to_bytes()
    }

    fn pushed(&mut self) {
        self.account.pushed += 1;
    }

    fn account(&self) -> [u8; FRAME] {
        Frame { kind: Kind::Account, session: self.id, seq: 0, account: self.account }.to_bytes()
    }
}

impl Backends {
    fn listen(sites: &Sites) -> Result<Self, LabError> {
        let mut listeners = Vec::new();
        for site in &sites.sites {
            let failed = |addr: SocketAddr, protocol| {
                move |source| LabError::Listen { addr, protocol, netns: site.netns.clone(), source }
            };
            listeners.extend(netns::inside(&site.netns, || {
                let mut here = Vec::new();
                for addr in &site.tcp {
                    let listener = TcpListener::bind(addr).map_err(failed(*addr, Protocol::Tcp))?;
                    listener.set_nonblocking(true)?;
                    here.push(Listener::Tcp(listener));
                }
                for addr in &site.udp {
                    let socket = UdpSocket::bind(addr).map_err(failed(*addr, Protocol::Udp))?;
                    socket.set_nonblocking(true)?;
                    // Beyond the limit of unprivileged sockets; without it, a stall of this process would look like loss.
                    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)
                        .map_err(io::Error::from)?;
                    rustix::net::sockopt::set_socket_send_buffer_size(&socket, BUFFER).map_err(io::Error::from)?;
                    here.push(Listener::Udp(socket));
                }
                Ok(here)
            })?);
        }
        let poller = Poller::new()?;
        for (i, listener) in listeners.iter().enumerate() {
            let token = LISTENER | i as u64;
            match listener {
                Listener::Tcp(listener) => poller.readable(listener, token)?,
                Listener::Udp(socket) => poller.readable(socket, token)?,
            }
        }
        Ok(Self { poller, listeners, connections: HashMap::new(), datagrams: HashMap::new(), next: 0 })
    }

    fn serve(&mut self) -> Result<(), LabError> {
        let mut turns = Vec::new();
        loop {
            self.poller.wait(&mut turns)?;
            for turn in turns.drain(..) {
                match turn {
                    Turn::Ready(token) if token & KIND == LISTENER => self.arrived((token & !KIND) as usize),
                    Turn::Ready(token) => self.readable(token & !KIND),
                    Turn::Due(token) if token & KIND == CONNECTION => self.push_stream(token & !KIND),
                    Turn::Due(token) => self.push_datagram(token & !KIND),
                }
            }
        }
    }

    fn arrived(&mut self, index: usize) {
        match &self.listeners[index] {
            Listener::Tcp(listener) => {
                while let Ok((stream, _)) = listener.accept() {
                    let id = self.next;
                    self.next += 1;
                    let ready = stream
                        .set_nonblocking(true)
                        .and_then(|()| stream.set_nodelay(true))
                        .and_then(|()| self.poller.readable(&stream, CONNECTION | id));
                    if ready.is_ok() {
                        let connection =
                            Connection { stream, cut: Stream::default(), session: None, unsent: Vec::new() };
                        self.connections.insert(id, connection);
                    }
                }
            }
            Listener::Udp(_) => self.datagrams_at(index),
        }
    }

    fn datagrams_at(&mut self, index: usize) {
        let mut bytes = [0; 2 * FRAME];
        loop {
            let Listener::Udp(socket) = &self.listeners[index] else { return };
            let (length, peer) = match socket.recv_from(&mut bytes) {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error of an earlier answer; the next call reads on.
                Err(_) => continue,
            };
            let Some(frame) = Frame::from_bytes(&bytes[..length]) else { continue };
            let now = Instant::now();
            match frame.kind {
                Kind::Echo => {
                    let _ = socket.send_to(&frame.to_bytes(), peer);
                }
                Kind::Keep | Kind::End => self.heard_datagram(frame, index, peer, now),
                _ => {}
            }
        }
    }

    fn heard_datagram(&mut self, frame: Frame, index: usize, peer: SocketAddr, now: Instant) {
        let flow = self.datagrams.entry(frame.session).or_insert_with(|| {
            let session = Session::new(frame.session, frame.account.interval_us, now);
            self.poller.at(now + session.interval, DATAGRAMS | frame.session);
            Datagrams { session, listener: index, peer }
        });
        if flow.listener != index {
            flow.session.account.moves += 1;
        }
        if flow.peer != peer {
            flow.session.account.source_changes += 1;
        }
        if frame.kind == Kind::Keep {
            flow.session.heard(now);
            flow.session.account.received += 1;
            return;
        }
        flow.session.ended = true;
        flow.session.last = now;
        // The account goes where the question came from, over the socket it came to; the records went to the first peer.
        if let Listener::Udp(socket) = &self.listeners[index] {
            let _ = socket.send_to(&flow.session.account(), peer);
        }
    }

    fn push_datagram(&mut self, id: u64) {
        let Some(flow) = self.datagrams.get_mut(&id) else { return };
        let now = Instant::now();
        let silence = now.duration_since(flow.session.last);
        // One that is to be silent for long is not given up for it.
        let abandoned = ABANDONED.max(flow.session.interval * 3);
        if silence > abandoned || (flow.session.ended && silence > KEPT) {
            self.datagrams.remove(&id);
            return;
        }
        if flow.session.ended {
            self.poller.at(now + KEPT, DATAGRAMS | id);
            return;
        }
        // A socket without room has not sent it: the client is to get the same record next time.
        if let Listener::Udp(socket) = &self.listeners[flow.listener]
            && socket.send_to(&flow.session.push(), flow.peer).is_ok()
        {
            flow.session.pushed();
        }
        let next = now + flow.session.interval;
        self.poller.at(next, DATAGRAMS | id);
    }

    fn readable(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut bytes = [0; 4096];
        let alive = loop {
            match connection.stream.read(&mut bytes) {
                Ok(0) => break false,
                Ok(length) => {
                    connection.cut.push(&bytes[..length]);
                    if !connection.frames(id, &mut self.poller) {
                        break false;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        if !alive {
            self.connections.remove(&id);
        }
    }

    fn push_stream(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(session) = connection.session.as_mut().filter(|session| !session.ended) else { return };
        let next = Instant::now() + session.interval;
        let record = session.push();
        session.pushed();
        if connection.send(&record) {
            self.poller.at(next, CONNECTION | id);
        } else {
            self.connections.remove(&id);
        }
    }
}

impl Connection {
    /// Handles the frames that are whole; false when the connection is to be closed.
    fn frames(&mut self, id: u64, poller: &mut Poller) -> bool {
        loop {
            let frame = match self.cut.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => return self.flush(),
                Err(_) => return false,
            };
            let now = Instant::now();
            match (frame.kind, self.session.as_mut()) {
                (Kind::Echo, _) => self.unsent.extend_from_slice(&frame.to_bytes()),
                (Kind::Hello, None) => {
                    let session = Session::new(frame.session, frame.account.interval_us, now);
                    poller.at(now + session.interval, CONNECTION | id);
                    self.session = Some(session);
                }
                (Kind::Keep, Some(session)) => {
                    session.heard(now);
                    session.account.received += 1;
                }
                (Kind::End, Some(session)) => {
                    session.ended = true;
                    let account = session.account();
                    if !self.send(&account) {
                        return false;
                    }
                }
                _ => return false,
            }
        }
    }

    /// Sends, keeping back what the socket does not take; false when the connection is dead.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.unsent.extend_from_slice(bytes);
        self.flush()
    }

    fn flush(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => return false,
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}
