//! One flow: a session with a backend through a Service, judged by what both ends saw of it.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::tally::Tally;
use super::{Class, Orders};
use crate::lab::poll::Poller;
use crate::lab::wire::{FRAME, Frame, Kind, Stream};
use crate::model::Protocol;

/// A flow whose records stop for so long is lost.
const SILENCE: Duration = Duration::from_secs(2);
/// How often a UDP backend is asked for its account, should a datagram be late.
const ASK: u32 = 5;
/// Time between two such questions.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// What becomes of a flow after a turn.
#[derive(Debug)]
pub(super) enum Next {
    /// It goes on.
    Stay,
    /// It ended and nothing is missing.
    Ended,
    /// It is lost, for this reason.
    Lost(String),
}

enum Socket {
    Tcp(TcpStream, Stream),
    Connected(UdpSocket),
    Unconnected(UdpSocket),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Open,
    Ending { since: Instant, asked: u32 },
}

/// One flow.
pub(super) struct Flow {
    /// Index of the frontend.
    pub(super) target: usize,
    /// Its kind.
    pub(super) class: Class,
    /// When it was opened.
    pub(super) opened: Instant,
    addr: SocketAddr,
    session: u64,
    interval: Duration,
    keep: Duration,
    lifetime: Option<Duration>,
    socket: Socket,
    state: State,
    sent: u64,
    received: u64,
    last: Instant,
    /// When it last said something by itself.
    said: Instant,
    /// What a socket did not take yet.
    unsent: Vec<u8>,
}

/// How often an idle flow of datagrams says something.
const SELDOM: Duration = Duration::from_secs(20);
/// How often a backend pushes to an idle connection: the most that it can be told.
const NEVER: Duration = Duration::from_mins(1);

impl Flow {
    /// Opens a socket and, for UDP, sends the first record.
    pub(super) fn open(
        session: u64,
        class: Class,
        target: usize,
        addr: SocketAddr,
        lifetime: Option<Duration>,
        orders: &Orders,
    ) -> io::Result<Self> {
        let (socket, state) = match class {
            Class::Tcp | Class::TcpRequest | Class::TcpBulk | Class::TcpIdle => {
                (Socket::Tcp(start_connect(addr)?, Stream::default()), State::Connecting)
            }
            Class::UdpConnected | Class::UdpIdle => {
                let socket = datagram_socket(addr)?;
                socket.connect(addr)?;
                (Socket::Connected(socket), State::Open)
            }
            Class::UdpUnconnected => (Socket::Unconnected(datagram_socket(addr)?), State::Open),
        };
        let now = Instant::now();
        let (interval, keep) = match class {
            Class::TcpIdle => (NEVER, Duration::from_micros(orders.keep_us)),
            Class::UdpIdle => (SELDOM, SELDOM),
            _ => (Duration::from_micros(orders.interval_us), Duration::from_micros(orders.keep_us)),
        };
        let mut flow = Self {
            target,
            class,
            opened: now,
            addr,
            session,
            interval,
            keep,
            lifetime,
            socket,
            state,
            sent: 0,
            received: 0,
            last: now,
            said: now,
            unsent: Vec::new(),
        };
        if state == State::Open {
            flow.send_keep()?;
        }
        Ok(flow)
    }

    /// Registers the socket with the event loop.
    pub(super) fn watch(&self, poller: &Poller, token: u64) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(stream, _) => poller.writable(stream, token),
            Socket::Connected(socket) | Socket::Unconnected(socket) => poller.readable(socket, token),
        }
    }

    /// When the first turn is due; spread by `id` so that flows do not beat in step.
    pub(super) fn first_turn(&self, id: u64) -> Duration {
        self.pace().mul_f64(0.5 + f64::from((id % 16) as u32) / 32.0)
    }

    /// Time between two turns.
    ///
    /// An idle flow looks more often than it speaks, or its end would be waited for.
    pub(super) fn pace(&self) -> Duration {
        if matches!(self.state, State::Ending { .. }) || self.class.is_idle() { ASK_EVERY } else { self.keep }
    }

    /// Whether it has its first record; one of those that come and go is not waited for.
    pub(super) fn begun(&self) -> bool {
        let open = self.class.is_idle() && self.state == State::Open;
        open || self.received > 0 || self.lifetime.is_some()
    }

    /// When the last record came: the moment from which on a lost flow was lost.
    pub(super) const fn last_heard(&self) -> Instant {
        self.last
    }

    /// The client's own address, for messages.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(stream, _) => stream.local_addr().ok(),
            Socket::Connected(socket) | Socket::Unconnected(socket) => socket.local_addr().ok(),
        }
    }

    /// The socket is ready.
    pub(super) fn ready(&mut self, poller: &Poller, token: u64, tally: &mut Tally) -> Next {
        if let Socket::Tcp(stream, _) = &self.socket
            && self.state == State::Connecting
        {
            match stream.take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => return Next::Lost(format!("connect: {error}")),
            }
            let now = Instant::now();
            (self.state, self.last) = (State::Open, now);
            let begun = poller.now_readable(stream, token).and_then(|()| match self.class.questions() {
                Some(questions) => self.ask(questions),
                None => self.send(Frame::new(Kind::Hello, self.session, 0).every(self.interval.as_micros() as u64)),
            });
            return match begun {
                Ok(()) => Next::Stay,
                Err(error) => Next::Lost(format!("first send: {error}")),
            };
        }
        loop {
            match self.receive() {
                Ok(None) => return Next::Stay,
                Ok(Some(frame)) => match self.heard(frame, tally) {
                    Next::Stay => {}
                    end => return end,
                },
                Err(why) => return Next::Lost(why),
            }
        }
    }

    /// The next frame that is there.
    fn receive(&mut self) -> Result<Option<Frame>, String> {
        let mut bytes = [0; 2 * FRAME];
        match &mut self.socket {
            Socket::Tcp(stream, cut) => loop {
                match cut.next() {
                    Ok(Some(frame)) => return Ok(Some(frame)),
                    Ok(None) => {}
                    Err(_) => return Err("bytes that no backend of the lab sends".to_owned()),
                }
                match stream.read(&mut bytes) {
                    Ok(0) => return Err("closed early".to_owned()),
                    Ok(length) => cut.push(&bytes[..length]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err("reset".to_owned()),
                    Err(error) => return Err(format!("receive: {error}")),
                }
            },
            Socket::Connected(socket) => match socket.recv(&mut bytes) {
                Ok(length) => datagram(&bytes[..length]),
                Err(error) => no_datagram(&error),
            },
            Socket::Unconnected(socket) => match socket.recv_from(&mut bytes) {
                Ok((_, source)) if source != self.addr => Err(format!("an answer came from {source}")),
                Ok((length, _)) => datagram(&bytes[..length]),
                Err(error) => no_datagram(&error),
            },
        }
    }

    fn heard(&mut self, frame: Frame, tally: &mut Tally) -> Next {
        if frame.session != self.session {
            return Next::Lost("a record of another session".to_owned());
        }
        match frame.kind {
            Kind::Push => {
                self.record(tally);
                if self.class.protocol() == Protocol::Tcp && frame.seq != self.received {
                    return Next::Lost(format!("record {} came as number {}", frame.seq, self.received));
                }
                Next::Stay
            }
            Kind::Echo if self.class.questions().is_some() => {
                self.record(tally);
                if frame != Frame::question(self.session, self.received) {
                    return Next::Lost(format!("answer {} is not what was asked", self.received));
                }
                Next::Stay
            }
            Kind::Account => self.judge(frame, tally),
            _ => Next::Lost("a record that no backend sends".to_owned()),
        }
    }

    /// Whether something is to come from the backend.
    fn awaits(&self) -> bool {
        match self.class.questions() {
            Some(_) => self.received < self.sent,
            None => !self.class.is_idle(),
        }
    }

    /// When the client began to wait for it.
    fn asked(&self) -> Instant {
        if self.class.questions().is_some() { self.said } else { self.opened }
    }

    /// One more has come.
    fn record(&mut self, tally: &mut Tally) {
        let now = Instant::now();
        // Where the client asks, the time that it takes to ask is none of the backend's.
        if self.received > 0 && !self.class.is_idle() {
            tally.gap(self.class, now.duration_since(self.last.max(self.asked())));
        }
        self.last = now;
        self.received += 1;
    }

    /// Compares the two ends' accounts.
    fn judge(&mut self, frame: Frame, tally: &mut Tally) -> Next {
        let State::Ending { asked, .. } = self.state else {
            return Next::Lost("an account that nobody asked for".to_owned());
        };
        let account = frame.account;
        let missing = account.pushed.saturating_sub(self.received) + self.sent.saturating_sub(account.received);
        if missing > 0 && self.class.protocol() == Protocol::Udp && asked < ASK {
            // It may only be late: ask again.
            return Next::Stay;
        }
        tally.account(self.class, &account);
        if account.moves > 0 {
            return Next::Lost("moved to another backend".to_owned());
        }
        if account.source_changes > 0 {
            return Next::Lost("the backend saw another source address or port".to_owned());
        }
        if missing > 0 {
            tally.records_lost(self.class, missing);
            return Next::Lost(format!("{missing} records missing"));
        }
        Next::Ended
    }

    /// The regular turn: send a record, notice silence, end when it is time.
    pub(super) fn turn(&mut self, now: Instant, stopping: bool) -> Next {
        let outcome = match self.state {
            State::Connecting if now.duration_since(self.opened) > SILENCE => {
                return Next::Lost("connect timed out".to_owned());
            }
            State::Open if self.awaits() && now.duration_since(self.last.max(self.asked())) > SILENCE => {
                return Next::Lost(format!("no record for {} s", SILENCE.as_secs()));
            }
            State::Open => {
                let over = self.lifetime.is_some_and(|life| now.duration_since(self.opened) >= life);
                if let Some(questions) = self.class.questions() {
                    match self.sent == self.received {
                        true if stopping || over => return Next::Ended,
                        true => self.ask(questions),
                        false => self.flush(),
                    }
                } else if stopping || over {
                    self.state = State::Ending { since: now, asked: 1 };
                    self.send(Frame::new(Kind::End, self.session, self.sent))
                } else if self.class == Class::TcpIdle || (self.class.is_idle() && now < self.said + self.keep) {
                    Ok(())
                } else {
                    self.send_keep()
                }
            }
            State::Ending { since, .. } if now.duration_since(since) > SILENCE => {
                return Next::Lost("the backend did not answer at the end".to_owned());
            }
            State::Ending { since, asked } if self.class.protocol() == Protocol::Udp => {
                self.state = State::Ending { since, asked: asked + 1 };
                self.send(Frame::new(Kind::End, self.session, self.sent))
            }
            State::Connecting | State::Ending { .. } => Ok(()),
        };
        match outcome {
            Ok(()) => Next::Stay,
            Err(error) => Next::Lost(format!("send: {error}")),
        }
    }

    /// Asks so many questions at once.
    fn ask(&mut self, questions: u64) -> io::Result<()> {
        for _ in 0..questions {
            self.sent += 1;
            self.unsent.extend(Frame::question(self.session, self.sent).to_bytes());
        }
        self.said = Instant::now();
        self.flush()
    }

    /// Sends what the socket takes of what is to be sent.
    fn flush(&mut self) -> io::Result<()> {
        let Socket::Tcp(stream, _) = &mut self.socket else { return Ok(()) };
        while !self.unsent.is_empty() {
            match stream.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn send_keep(&mut self) -> io::Result<()> {
        self.sent += 1;
        self.said = Instant::now();
        self.send(Frame::new(Kind::Keep, self.session, self.sent).every(self.interval.as_micros() as u64))
    }

    fn send(&mut self, frame: Frame) -> io::Result<()> {
        let bytes = frame.to_bytes();
        match &mut self.socket {
            // A socket that cannot take 64 bytes has had no acknowledgement for long: that is a loss, and reported as one.
            Socket::Tcp(stream, _) => stream.write_all(&bytes),
            Socket::Connected(socket) => socket.send(&bytes).map(drop),
            Socket::Unconnected(socket) => socket.send_to(&bytes, self.addr).map(drop),
        }
    }
}

fn datagram(bytes: &[u8]) -> Result<Option<Frame>, String> {
    Frame::from_bytes(bytes).map(Some).ok_or_else(|| "a datagram that no backend of the lab sends".to_owned())
}

fn no_datagram(error: &io::Error) -> Result<Option<Frame>, String> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
        io::ErrorKind::ConnectionRefused => Err("refused".to_owned()),
        _ => Err(format!("receive: {error}")),
    }
}

fn datagram_socket(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = match addr {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Starts a TCP connect without waiting for it.
pub(super) fn start_connect(addr: SocketAddr) -> io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    match connect(&socket, &addr) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}
