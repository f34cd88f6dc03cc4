//! What a client does: real sockets, and what it and the server saw.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use serde::{Deserialize, Serialize};

use super::netns::enter;
use super::server::QUESTION;

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum How {
    /// A TCP connection.
    Tcp,
    /// TCP, and 300 000 bytes there and back.
    TcpLarge,
    /// A datagram of a socket that is not connected.
    Udp,
    /// A datagram of a connected socket.
    UdpConnected,
    /// 8 000 bytes in one datagram there and back.
    UdpLarge,
}

impl How {
    const fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::TcpLarge)
    }
}

/// Attempts of a client, each with a socket of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ask {
    /// The network namespace to be in.
    pub(super) netns: PathBuf,
    /// Where to bind; unspecified is nowhere in particular.
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) how: How,
    /// How many, unless one is not answered.
    pub(super) count: usize,
    /// How long one may take.
    pub(super) patience: Duration,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Heard {
    Answer {
        /// Who answered, by its own account.
        server: SocketAddr,
        /// Whom the server saw.
        seen: SocketAddr,
        /// The client's own port.
        own: u16,
    },
    /// The answer came from another address than the one spoken to, as the client sees it.
    Stranger(SocketAddr),
    /// `ECONNREFUSED`.
    Refused,
    /// Nothing within the patience.
    Silence,
    /// Another error.
    Error(i32),
    /// What came back was not what was sent.
    Garbled,
}

/// What can be asked of a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Attempts; ends with the first that is not answered.
    Try(Ask),
    /// A flow that stays open, under a name.
    Open(String, Ask),
    /// Whether it still works: five more records in order (TCP), or another question (UDP).
    Again(String),
    Close(String),
}

/// A flow that is open.
enum Flow {
    Tcp { lines: BufReader<TcpStream>, last: u64, first: Heard },
    Udp { socket: UdpSocket, ask: Ask },
}

/// A client's open flows.
#[derive(Default)]
pub(super) struct Flows(Mutex<BTreeMap<String, Flow>>);

impl Flows {
    /// Does what is asked, in a thread of the caller that is used for nothing else.
    pub(super) fn answer(&self, request: Request) -> Vec<Heard> {
        let flows = || self.0.lock().expect("no holder panics");
        match request {
            Request::Try(ask) => {
                go(&ask);
                let mut heard = Vec::new();
                for _ in 0..ask.count {
                    heard.push(judge(once(&ask)));
                    if !matches!(heard.last(), Some(Heard::Answer { .. })) {
                        break;
                    }
                }
                heard
            }
            Request::Open(name, ask) => {
                go(&ask);
                let opened = Flow::open(ask).and_then(|mut flow| Ok((flow.again()?, flow)));
                let heard = judge(opened.map(|(heard, flow)| {
                    flows().insert(name, flow);
                    heard
                }));
                vec![heard]
            }
            Request::Again(name) => {
                let mut flow = flows().remove(&name).expect("a flow opened before");
                let heard = judge(flow.again());
                flows().insert(name, flow);
                vec![heard]
            }
            Request::Close(name) => {
                flows().remove(&name);
                Vec::new()
            }
        }
    }
}

fn go(ask: &Ask) {
    enter(&fs_err::File::open(&ask.netns).expect("the world lives"));
}

fn judge(outcome: io::Result<Heard>) -> Heard {
    outcome.unwrap_or_else(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Heard::Silence,
        io::ErrorKind::ConnectionRefused => Heard::Refused,
        _ => Heard::Error(error.raw_os_error().unwrap_or(0)),
    })
}

fn once(ask: &Ask) -> io::Result<Heard> {
    if !ask.how.is_tcp() {
        return exchange(&udp(ask)?, ask);
    }
    let stream = tcp(ask)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let heard = greeting(&mut lines, ask)?;
    if ask.how == How::TcpLarge && !comes_back(stream, &mut lines, 300_000)? {
        return Ok(Heard::Garbled);
    }
    Ok(heard)
}

fn greeting(lines: &mut BufReader<TcpStream>, ask: &Ask) -> io::Result<Heard> {
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let stream = lines.get_ref();
    Ok(told(&line, stream.local_addr()?, stream.peer_addr()?, ask))
}

/// `I YOU`, as servers say it.
fn told(line: &str, own: SocketAddr, peer: SocketAddr, ask: &Ask) -> Heard {
    if peer != ask.to {
        return Heard::Stranger(peer);
    }
    let both = line.trim().split_once(' ').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    both.map_or(Heard::Garbled, |(server, seen)| Heard::Answer { server, seen, own: own.port() })
}

fn payload(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8).collect()
}

fn comes_back(mut stream: TcpStream, lines: &mut BufReader<TcpStream>, size: usize) -> io::Result<bool> {
    let sent = payload(size);
    writeln!(stream, "large {size}")?;
    stream.write_all(&sent)?;
    let mut back = vec![0; size];
    lines.read_exact(&mut back)?;
    Ok(back == sent)
}

fn tcp(ask: &Ask) -> io::Result<TcpStream> {
    let family = if ask.to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    if !ask.from.ip().is_unspecified() || ask.from.port() != 0 {
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &ask.from)?;
    }
    match connect(&socket, &ask.to) {
        Ok(()) => {}
        Err(rustix::io::Errno::INPROGRESS) => {
            let limit = ask.patience.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
            let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
            if poll(&mut fds, Some(&limit))? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sockopt::socket_error(&socket)??;
        }
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ask.patience))?;
    Ok(stream)
}

fn udp(ask: &Ask) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(ask.from)?;
    socket.set_read_timeout(Some(ask.patience))?;
    if ask.how == How::UdpConnected {
        socket.connect(ask.to)?;
    }
    Ok(socket)
}

fn exchange(socket: &UdpSocket, ask: &Ask) -> io::Result<Heard> {
    let sent = if ask.how == How::UdpLarge { payload(8000) } else { vec![b'?'] };
    if ask.how == How::UdpConnected {
        socket.send(&sent)?;
    } else {
        socket.send_to(&sent, ask.to)?;
    }
    let mut room = vec![0; 1 << 16];
    let (size, peer) = socket.recv_from(&mut room)?;
    let text = &room[..size];
    let end = text.iter().position(|b| *b == b'\n').map_or(size, |at| at + 1);
    if sent.len() > QUESTION && text[end..] != sent[..] {
        return Ok(Heard::Garbled);
    }
    Ok(told(&String::from_utf8_lossy(&text[..end]), socket.local_addr()?, peer, ask))
}

impl Flow {
    fn open(ask: Ask) -> io::Result<Self> {
        if !ask.how.is_tcp() {
            return Ok(Self::Udp { socket: udp(&ask)?, ask });
        }
        let mut stream = tcp(&ask)?;
        let mut lines = BufReader::new(stream.try_clone()?);
        let first = greeting(&mut lines, &ask)?;
        stream.write_all(b"push\n")?;
        Ok(Self::Tcp { lines, last: 0, first })
    }

    fn again(&mut self) -> io::Result<Heard> {
        match self {
            Self::Udp { socket, ask } => match exchange(socket, ask) {
                // The agent has ended it: whoever owns it makes another.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EDESTADDRREQ)) => {
                    go(ask);
                    *socket = udp(ask)?;
                    exchange(socket, ask)
                }
                outcome => outcome,
            },
            Self::Tcp { lines, last, first } => {
                // What was sent before now proves nothing, and is read within this moment.
                let begun = Instant::now();
                let mut younger = 0;
                while younger < 5 {
                    let mut line = String::new();
                    lines.read_line(&mut line)?;
                    if line.trim().parse() != Ok(*last + 1) {
                        return Ok(Heard::Garbled);
                    }
                    *last += 1;
                    younger += u32::from(begun.elapsed() > Duration::from_millis(100));
                }
                Ok(first.clone())
            }
        }
    }
}
