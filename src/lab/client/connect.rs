//! One short connection: connect, one exchange, close. Also the probe of a Service that must refuse, or be silent.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::flow::start_connect;
use super::{Expect, Target};
use crate::lab::poll::Poller;
use crate::lab::wire::{FRAME, Frame, Kind};
use crate::model::Protocol;

/// How a short connection went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Answered; the time is that of the connect alone.
    Answered(Duration),
    /// Connection refused.
    Refused,
    /// Nothing came.
    Silent,
    /// Anything else.
    Failed(String),
}

impl Outcome {
    /// In a word or two.
    pub(super) fn word(&self) -> &str {
        match self {
            Self::Answered(_) => "answered",
            Self::Refused => "refused",
            Self::Silent => "timed out",
            Self::Failed(why) => why,
        }
    }

    /// Of a Service of which that is expected.
    pub(super) const fn expectation(&self) -> Option<Expect> {
        match self {
            Self::Answered(_) => Some(Expect::Answer),
            Self::Refused => Some(Expect::Refusal),
            Self::Silent => Some(Expect::Silence),
            Self::Failed(_) => None,
        }
    }
}

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// A short connection under way.
pub(super) struct Connect {
    /// Index of the frontend.
    pub(super) target: usize,
    socket: Socket,
    expect: Expect,
    since: Instant,
    connected: Option<Duration>,
}

impl Connect {
    /// Starts it.
    pub(super) fn open(index: usize, target: &Target) -> io::Result<Self> {
        let since = Instant::now();
        let socket = match target.protocol {
            Protocol::Udp => {
                let any =
                    if target.addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let any: std::net::IpAddr = any;
                let socket = UdpSocket::bind((any, 0))?;
                socket.set_nonblocking(true)?;
                socket.connect(target.addr)?;
                socket.send(&Frame::new(Kind::Echo, 0, 0).to_bytes())?;
                Socket::Udp(socket)
            }
            _ => Socket::Tcp(start_connect(target.addr)?),
        };
        Ok(Self { target: index, socket, expect: target.expect, since, connected: None })
    }

    /// Registers the socket with the event loop.
    pub(super) fn watch(&self, poller: &Poller, token: u64) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(stream) => poller.writable(stream, token),
            Socket::Udp(socket) => poller.readable(socket, token),
        }
    }

    /// How long to wait before it counts as silent. Where silence is expected, half a second is enough of it.
    pub(super) const fn patience(&self) -> Duration {
        match self.expect {
            Expect::Silence => Duration::from_millis(500),
            _ => Duration::from_secs(2),
        }
    }

    /// The socket is ready; the outcome, once known.
    pub(super) fn ready(&mut self, poller: &Poller, token: u64) -> Option<Outcome> {
        let mut bytes = [0; FRAME];
        match &mut self.socket {
            Socket::Tcp(stream) if self.connected.is_none() => {
                match stream.take_error() {
                    Ok(None) => {}
                    Ok(Some(error)) | Err(error) => return Some(refused_or_failed(&error, Protocol::Tcp)),
                }
                self.connected = Some(self.since.elapsed());
                let asked = poller
                    .now_readable(&*stream, token)
                    .and_then(|()| stream.write_all(&Frame::new(Kind::Echo, 0, 0).to_bytes()));
                asked.err().map(|error| refused_or_failed(&error, Protocol::Tcp))
            }
            Socket::Tcp(stream) => match stream.read(&mut bytes) {
                Ok(0) => Some(Outcome::Failed("closed early".to_owned())),
                Ok(_) => Some(Outcome::Answered(self.connected.unwrap_or_default())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                Err(error) => Some(refused_or_failed(&error, Protocol::Tcp)),
            },
            Socket::Udp(socket) => match socket.recv(&mut bytes) {
                Ok(_) => Some(Outcome::Answered(self.since.elapsed())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                Err(error) => Some(refused_or_failed(&error, Protocol::Udp)),
            },
        }
    }

    /// Patience is at its end.
    pub(super) fn given_up(&self) -> Outcome {
        match self.connected {
            Some(_) => Outcome::Failed("connected, but no answer".to_owned()),
            None => Outcome::Silent,
        }
    }
}

/// The outcome that an error stands for.
///
/// A datagram that a REJECT rule of the node's own OUTPUT chain meets makes `send` itself say EPERM; for TCP that would be
/// no refusal.
pub(super) fn refused_or_failed(error: &io::Error, protocol: Protocol) -> Outcome {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Outcome::Refused,
        io::ErrorKind::PermissionDenied if protocol == Protocol::Udp => Outcome::Refused,
        _ => Outcome::Failed(error.to_string()),
    }
}
