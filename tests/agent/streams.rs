//! Servers that push numbered records, clients that miss none, and whom the server saw.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a record is pushed.
const PUSH: Duration = Duration::from_millis(10);
const TICK: Duration = Duration::from_millis(50);

/// Pushes to whoever connects or sends a datagram, until this value goes.
pub(super) struct Pusher {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeSet<(&'static str, SocketAddr)>>>,
}

impl Pusher {
    /// Starts it in the network namespace of this thread.
    pub(super) fn start(at: &str) -> Self {
        let at: SocketAddr = at.parse().expect("an address with a port");
        let pusher = Self { stop: Arc::default(), seen: Arc::default() };
        let listener = TcpListener::bind(at).expect("the port is free");
        listener.set_nonblocking(true).expect("it can be");
        let (stop, seen) = (Arc::clone(&pusher.stop), Arc::clone(&pusher.seen));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok((mut stream, client)) = listener.accept() else {
                    std::thread::sleep(TICK);
                    continue;
                };
                seen.lock().unwrap_or_else(PoisonError::into_inner).insert(("tcp", client));
                stream.set_nonblocking(false).expect("it can be");
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || push(&stop, |record| stream.write_all(record).is_ok()));
            }
        });
        let socket = UdpSocket::bind(at).expect("the port is free");
        socket.set_read_timeout(Some(TICK)).expect("it can be set");
        let (stop, seen) = (Arc::clone(&pusher.stop), Arc::clone(&pusher.seen));
        std::thread::spawn(move || {
            let mut room = [0; 16];
            while !stop.load(Ordering::Relaxed) {
                let Ok((_, client)) = socket.recv_from(&mut room) else { continue };
                if seen.lock().unwrap_or_else(PoisonError::into_inner).insert(("udp", client)) {
                    let (socket, stop) = (socket.try_clone().expect("a second handle"), Arc::clone(&stop));
                    std::thread::spawn(move || {
                        push(&stop, |record| {
                            let _ = socket.send_to(record, client);
                            true
                        });
                    });
                }
            }
        });
        pusher
    }

    /// The clients, as the server saw them.
    pub(super) fn seen(&self) -> BTreeSet<(&'static str, SocketAddr)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn push(stop: &AtomicBool, mut send: impl FnMut(&[u8]) -> bool) {
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) || !send(&number.to_be_bytes()) {
            return;
        }
        std::thread::sleep(PUSH);
    }
}

/// A client that listens.
pub(super) struct Stream {
    name: String,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Heard>,
}

/// What a client has heard.
#[derive(Debug)]
pub(super) struct Heard {
    /// Which stream.
    pub(super) name: String,
    /// Records that came.
    pub(super) records: u64,
    /// Numbers that did not, between those that did.
    pub(super) missing: u64,
    /// The longest time between two records.
    pub(super) gap: Duration,
    /// Why it ended, if it was not told to.
    pub(super) failure: Option<String>,
}

impl Stream {
    /// A connection from the network namespace of this thread.
    pub(super) fn tcp(to: &str) -> Self {
        let to: SocketAddr = to.parse().expect("an address with a port");
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10)).expect("it connects");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("it can be set");
        Self::start(format!("tcp {to}"), move || {
            let mut record = [0; 8];
            stream.read_exact(&mut record).map(|()| record)
        })
    }

    /// A connected socket, which says now and then that it is still there.
    pub(super) fn udp(to: &str) -> Self {
        let to: SocketAddr = to.parse().expect("an address with a port");
        let socket = UdpSocket::bind(SocketAddr::new(kpx::model::Family::of(to.ip()).unspecified(), 0)).expect("bound");
        // The answers have to come from where it sends to, else they do not come.
        socket.connect(to).expect("connected");
        socket.send(b"hello").expect("sent");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("it can be set");
        let mut said = Instant::now();
        Self::start(format!("udp {to}"), move || {
            if said.elapsed() > Duration::from_millis(200) {
                said = Instant::now();
                socket.send(b"still here")?;
            }
            let mut record = [0; 8];
            socket.recv(&mut record).map(|_| record)
        })
    }

    fn start(name: String, mut next: impl FnMut() -> std::io::Result<[u8; 8]> + Send + 'static) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let (told, of) = (Arc::clone(&stop), name.clone());
        let thread = std::thread::spawn(move || {
            let mut heard = Heard { name: of, records: 0, missing: 0, gap: Duration::ZERO, failure: None };
            let (mut last, mut expected) = (None::<Instant>, None::<u64>);
            while !told.load(Ordering::Relaxed) {
                match next() {
                    Ok(record) => {
                        let number = u64::from_be_bytes(record);
                        heard.records += 1;
                        heard.missing += expected.map_or(0, |expected| number.abs_diff(expected));
                        expected = Some(number + 1);
                        heard.gap = heard.gap.max(last.map_or(Duration::ZERO, |last| last.elapsed()));
                        last = Some(Instant::now());
                    }
                    Err(error) => {
                        heard.failure = Some(error.to_string());
                        break;
                    }
                }
            }
            heard
        });
        Self { name, stop, thread }
    }

    /// What it has heard, which ends with this.
    pub(super) fn end(self) -> Heard {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| panic!("{} panicked", self.name))
    }
}
