//! Streams that notice every loss: the server pushes numbered records and checks the client's, and both keep the time.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// Between two records of the server.
const PUSH: Duration = Duration::from_millis(2);
/// Between two datagrams of a client.
const ASK: Duration = Duration::from_millis(5);
/// How long a stream may stand still before it counts as dead.
const DEAD: Duration = Duration::from_secs(8);
/// How long an answer to a datagram may take before it counts as lost.
const LOST: Duration = Duration::from_millis(400);
const RECORD: usize = 64;

fn record(number: u64) -> [u8; RECORD] {
    let mut bytes = [0x5a; RECORD];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("a record is longer"))
}

/// What a server has seen.
#[derive(Default)]
struct Log {
    peers: Mutex<BTreeSet<SocketAddr>>,
    trouble: Mutex<Vec<String>>,
}

impl Log {
    fn seen(&self, peer: SocketAddr) {
        self.peers.lock().expect("no holder panics").insert(peer);
    }
}

/// A server for TCP and UDP on one port, in the network namespace of the thread that started it; ends with this value.
pub(super) struct Pusher {
    stop: Arc<AtomicBool>,
    log: Arc<Log>,
    threads: Vec<JoinHandle<()>>,
}

impl Pusher {
    pub(super) fn start(at: &str) -> Self {
        let at: SocketAddr = at.parse().expect("an address with a port");
        let (stop, log) = (Arc::new(AtomicBool::new(false)), Arc::new(Log::default()));
        let listener = TcpListener::bind(at).expect("the port is free");
        listener.set_nonblocking(true).expect("a listener can be told not to wait");
        let socket = UdpSocket::bind(at).expect("the port is free");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out can be set");
        let (accept, answer) = ((stop.clone(), log.clone()), (stop.clone(), log.clone()));
        let threads = vec![
            spawn(move || {
                while !accept.0.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, peer)) => {
                            accept.1.seen(peer);
                            push(stream, &accept.0, &accept.1);
                        }
                        Err(_) => sleep(Duration::from_millis(5)),
                    }
                }
            }),
            spawn(move || {
                let mut room = [0; 2048];
                while !answer.0.load(Ordering::Relaxed) {
                    if let Ok((size, peer)) = socket.recv_from(&mut room) {
                        answer.1.seen(peer);
                        let _ = socket.send_to(&room[..size], peer);
                    }
                }
            }),
        ];
        Self { stop, log, threads }
    }

    /// The addresses that clients had, in all their time.
    pub(super) fn peers(&self) -> BTreeSet<SocketAddr> {
        self.log.peers.lock().expect("no holder panics").clone()
    }

    /// What went wrong, as the server sees it.
    pub(super) fn trouble(&self) -> Vec<String> {
        self.log.trouble.lock().expect("no holder panics").clone()
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Pushes in one thread and reads in another.
fn push(stream: TcpStream, stop: &Arc<AtomicBool>, log: &Arc<Log>) {
    let _ = (stream.set_nonblocking(false), stream.set_nodelay(true), stream.set_read_timeout(Some(DEAD)));
    let mut writer = stream.try_clone().expect("a socket has a second handle");
    let ends = stop.clone();
    spawn(move || {
        for number in 0.. {
            if ends.load(Ordering::Relaxed) || writer.write_all(&record(number)).is_err() {
                return;
            }
            sleep(PUSH);
        }
    });
    let log = log.clone();
    spawn(move || {
        let (mut stream, mut room, mut expected) = (stream, [0; RECORD], 0);
        loop {
            match stream.read_exact(&mut room) {
                Ok(()) if number(&room) == expected => expected += 1,
                // The client has hung up.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return,
                other => {
                    let told = format!("record {expected} of the client: {other:?} {}", number(&room));
                    log.trouble.lock().expect("no holder panics").push(told);
                    return;
                }
            }
        }
    });
}

/// A stream or an exchange of datagrams that goes on until it is ended.
pub(super) struct Stream {
    /// The client's address.
    pub(super) from: SocketAddr,
    stop: Arc<AtomicBool>,
    gap: Arc<AtomicU64>,
    count: Arc<AtomicU64>,
    thread: JoinHandle<Result<u64, String>>,
}

impl Stream {
    /// Begins a TCP stream in the network namespace of this thread.
    pub(super) fn tcp(to: &str) -> Self {
        let to: SocketAddr = to.parse().expect("an address with a port");
        let stream = TcpStream::connect_timeout(&to, DEAD).unwrap_or_else(|error| panic!("{to}: {error}"));
        stream.set_read_timeout(Some(DEAD)).expect("a time-out can be set");
        stream.set_nodelay(true).expect("a socket can be told so");
        let from = stream.local_addr().expect("it is bound");
        Self::begin(from, move |stop, tick| {
            let (mut stream, mut room, mut expected) = (stream, [0; RECORD], 0);
            while !stop.load(Ordering::Relaxed) {
                let told = |error: io::Error| format!("record {expected}: {error}");
                stream.read_exact(&mut room).map_err(told)?;
                if number(&room) != expected {
                    return Err(format!("record {} instead of {expected}", number(&room)));
                }
                tick();
                stream.write_all(&record(expected)).map_err(told)?;
                expected += 1;
            }
            // Everything that has been sent is to arrive.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            Ok(0)
        })
    }

    /// Begins an exchange of datagrams; it ends with how many were lost.
    pub(super) fn udp(to: &str) -> Self {
        let to: SocketAddr = to.parse().expect("an address with a port");
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).expect("a socket can be bound");
        socket.connect(to).expect("a route leads there");
        socket.set_read_timeout(Some(LOST)).expect("a time-out can be set");
        let from = socket.local_addr().expect("it is bound");
        Self::begin(from, move |stop, tick| {
            let (mut room, mut lost) = ([0; 2048], 0);
            for expected in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                socket.send(&record(expected)).map_err(|error| format!("datagram {expected}: {error}"))?;
                let answered = loop {
                    match socket.recv(&mut room) {
                        Ok(_) if number(&room) == expected => break true,
                        // A late one, which has been counted as lost.
                        Ok(_) => {}
                        Err(_) => break false,
                    }
                };
                if answered {
                    tick();
                } else {
                    lost += 1;
                }
                sleep(ASK);
            }
            Ok(lost)
        })
    }

    fn begin(
        from: SocketAddr,
        work: impl FnOnce(&AtomicBool, &dyn Fn()) -> Result<u64, String> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (gap, count) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (ends, longest, counted) = (stop.clone(), gap.clone(), count.clone());
        let thread = spawn(move || {
            let last = std::cell::Cell::new(Instant::now());
            work(&ends, &|| {
                let now = Instant::now();
                let passed = u64::try_from((now - last.replace(now)).as_micros()).expect("not that long");
                longest.fetch_max(passed, Ordering::Relaxed);
                counted.fetch_add(1, Ordering::Relaxed);
            })
        });
        Self { from, stop, gap, count, thread }
    }

    /// The longest time without anything received since this was asked last.
    pub(super) fn longest_gap(&self) -> Duration {
        Duration::from_micros(self.gap.swap(0, Ordering::Relaxed))
    }

    /// How many records have come.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Ends it: how many datagrams were lost, or what broke the stream.
    pub(super) fn end(self) -> Result<u64, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the client does not panic")
    }
}
