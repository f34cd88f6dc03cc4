//! Backends: each tells who it is and whom it sees, pushes numbered records when asked to, and returns large payloads.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use kpx::model::Protocol;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::netns::Netns;

/// A datagram up to this size is a question; a larger one is to come back.
pub(super) const QUESTION: usize = 64;
/// Between two pushed records.
const INTERVAL: Duration = Duration::from_millis(20);

/// Backends in one namespace; they end with this value.
pub(super) struct Servers {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Servers {
    /// Starts them.
    pub(super) fn start(netns: &Netns, at: &BTreeSet<(SocketAddr, Protocol)>) -> Self {
        let sockets: Vec<Socket> =
            netns.inside(|| at.iter().map(|(addr, protocol)| listen(*addr, *protocol)).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = Some(spawn(move || serve(&sockets, &stopped)));
        Self { stop, thread }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn listen(addr: SocketAddr, protocol: Protocol) -> Socket {
    let bound = match protocol {
        Protocol::Tcp => TcpListener::bind(addr).and_then(|l| l.set_nonblocking(true).map(|()| Socket::Tcp(l))),
        _ => UdpSocket::bind(addr).and_then(|s| s.set_nonblocking(true).map(|()| Socket::Udp(s))),
    };
    bound.unwrap_or_else(|error| panic!("{addr}/{protocol}: {error}"))
}

fn serve(sockets: &[Socket], stop: &Arc<AtomicBool>) {
    let moment = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    while !stop.load(Ordering::Relaxed) {
        let mut fds: Vec<_> = sockets
            .iter()
            .map(|socket| match socket {
                Socket::Tcp(listener) => PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
                Socket::Udp(socket) => PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN),
            })
            .collect();
        // An interrupted wait is only a shorter one.
        let _ = poll(&mut fds, Some(&moment));
        for (socket, ready) in sockets.iter().zip(fds.iter().map(PollFd::revents)) {
            match socket {
                _ if ready.is_empty() => {}
                Socket::Tcp(listener) => {
                    while let Ok((stream, client)) = listener.accept() {
                        let stop = stop.clone();
                        // A client that hangs up is its own affair.
                        spawn(move || drop(converse(stream, client, &stop)));
                    }
                }
                Socket::Udp(socket) => answer(socket),
            }
        }
    }
}

/// `I YOU\n`, and for a large datagram itself again.
fn answer(socket: &UdpSocket) {
    let mut room = vec![0; 1 << 16];
    loop {
        match socket.recv_from(&mut room) {
            Ok((size, client)) => {
                let mut text = format!("{} {client}\n", socket.local_addr().expect("it is bound")).into_bytes();
                if size > QUESTION {
                    text.extend_from_slice(&room[..size]);
                }
                let _ = socket.send_to(&text, client);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // The answer to an earlier client was refused; the next call reads on.
            Err(_) => {}
        }
    }
}

/// Greets with `I YOU\n`, then does what it is told: `push` or `large SIZE`.
fn converse(mut stream: TcpStream, client: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    writeln!(stream, "{} {client}", stream.local_addr()?)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    if line.trim() == "push" {
        for number in 1u64.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            writeln!(stream, "{number}")?;
            sleep(INTERVAL);
        }
    } else if let Some(size) = line.trim().strip_prefix("large ") {
        let mut bytes = vec![0; size.parse().unwrap_or(0)];
        lines.read_exact(&mut bytes)?;
        stream.write_all(&bytes)?;
    }
    Ok(())
}
