//! Servers that say who they are and whom they see, and clients that check every byte.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

/// How long anything may take before it counts as lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long something may take that is expected not to come.
pub(crate) const SILENCE: Duration = Duration::from_millis(700);
const TICK: Duration = Duration::from_millis(20);

/// A server for TCP and UDP on one port; ends with this value.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts it in the network namespace of this thread.
    pub(crate) fn start(name: &str, at: &str) -> Self {
        let at: SocketAddr = at.parse().expect("an address with a port");
        let stop = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind(at).expect("the port is free");
        listener.set_nonblocking(true).expect("a listener can be told not to wait");
        let socket = UdpSocket::bind(at).expect("the port is free");
        socket.set_read_timeout(Some(TICK)).expect("a time-out can be set");
        let (tcp, udp) = (stop.clone(), stop.clone());
        let (tcp_name, udp_name) = (name.to_owned(), name.to_owned());
        let threads = vec![
            std::thread::spawn(move || accept(&listener, &tcp_name, &tcp)),
            std::thread::spawn(move || answer(&socket, &udp_name, &udp)),
        ];
        Self { stop, threads }
    }

    /// The same for whoever connects to this listener.
    pub(super) fn of(name: &'static str, listener: TcpListener) -> Self {
        listener.set_nonblocking(true).expect("a listener can be told not to wait");
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        Self { stop, threads: vec![std::thread::spawn(move || accept(&listener, name, &told))] }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, name: &str, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            // A client that hangs up early is its own affair.
            Ok((stream, client)) => {
                let name = name.to_owned();
                std::thread::spawn(move || drop(talk(stream, &name, client)));
            }
            Err(_) => std::thread::sleep(TICK),
        }
    }
}

/// A line with the server's name and the client's address; then everything that comes is sent back.
fn talk(mut stream: TcpStream, name: &str, client: SocketAddr) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{name} {client}\n").as_bytes())?;
    let mut room = vec![0; 1 << 16];
    loop {
        let size = stream.read(&mut room)?;
        if size == 0 {
            return Ok(());
        }
        stream.write_all(&room[..size])?;
    }
}

/// Each datagram back, behind the server's name and the client's address.
fn answer(socket: &UdpSocket, name: &str, stop: &AtomicBool) {
    let mut room = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((size, client)) = socket.recv_from(&mut room) {
            let mut text = format!("{name} {client} ").into_bytes();
            text.extend(&room[..size]);
            let _ = socket.send_to(&text, client);
        }
    }
}

/// Bytes that differ from place to place.
pub(crate) fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// A TCP connection to a server.
pub(crate) struct Talk {
    stream: TcpStream,
}

impl Talk {
    /// Connects; the server's name and the client's address as it sees it.
    pub(crate) fn to(at: &str) -> io::Result<(Self, String)> {
        Self::over(TcpStream::connect_timeout(&at.parse().expect("an address with a port"), PATIENCE)?)
    }

    /// The same over a connection that there is.
    pub(crate) fn over(stream: TcpStream) -> io::Result<(Self, String)> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut talk = Self { stream };
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            talk.stream.read_exact(&mut byte)?;
            if byte[0] == b'\n' {
                return Ok((talk, String::from_utf8_lossy(&line).into_owned()));
            }
            line.push(byte[0]);
        }
    }

    /// The client's address and port as the client knows them.
    pub(crate) fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("a connection has two ends")
    }

    /// Ends the connection by a reset.
    pub(crate) fn abort(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("a socket can be told so");
    }

    /// Sends bytes and compares what comes back.
    pub(crate) fn echo(&mut self, count: usize) {
        let sent = bytes(count);
        let mut writer = self.stream.try_clone().expect("a socket has a second handle");
        let returned = std::thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&sent).expect("the server takes everything"));
            let mut returned = vec![0; count];
            self.stream.read_exact(&mut returned).expect("the server returns everything");
            returned
        });
        assert!(returned == sent, "what came back differs");
    }
}

/// A TCP connection's answer: who answered, and whom it saw.
pub(crate) fn tcp(at: &str) -> io::Result<String> {
    let (mut talk, line) = Talk::to(at)?;
    talk.echo(4000);
    Ok(line)
}

/// The same from this address and port, which others of the client may have too.
pub(super) fn tcp_from(from: &str, to: &str) -> io::Result<String> {
    let (mut talk, line) = Talk::over(connect_from(from, to)?)?;
    talk.echo(4000);
    Ok(line)
}

/// A TCP connection from this address and port, which others of the client may have too.
pub(super) fn connect_from(from: &str, to: &str) -> io::Result<TcpStream> {
    let parse = |text: &str| text.parse::<SocketAddr>().expect("an address with a port");
    let (from, to) = (parse(from), parse(to));
    let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let made = socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&made, true)?;
    bind(&made, &from)?;
    connect(&made, &to)?;
    Ok(TcpStream::from(made))
}

/// A UDP socket of this namespace for the first or the second family.
pub(crate) fn udp(family: usize) -> UdpSocket {
    let socket = UdpSocket::bind(["0.0.0.0:0", "[::]:0"][family]).expect("a socket can be bound");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    socket
}

/// One datagram of this size there and one back; the answer has to come from where it was sent to. Who answered, and whom
/// it saw.
pub(crate) fn exchange(socket: &UdpSocket, to: &str, size: usize) -> io::Result<String> {
    let to: SocketAddr = to.parse().expect("an address with a port");
    let sent = bytes(size);
    socket.send_to(&sent, to)?;
    let mut room = vec![0; 1 << 16];
    let (size, from) = socket.recv_from(&mut room)?;
    assert_eq!(from, to, "the answer comes from the frontend");
    let answer = &room[..size];
    assert!(answer.ends_with(&sent), "what came back differs");
    let head = &answer[..answer.len() - sent.len()];
    Ok(String::from_utf8_lossy(head).trim_end().to_owned())
}

/// The address, without port, that a server saw.
pub(crate) fn seen(answer: &str) -> String {
    let at = answer.split(' ').nth(1).expect("a name and an address");
    at.parse::<SocketAddr>().expect("an address with a port").ip().to_string()
}
