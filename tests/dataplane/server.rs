//! Backends: each says its name and the address of the client as it sees it.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A backend for TCP and UDP on one port; ends with this value.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    at: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts it in the network namespace of this thread.
    pub(crate) fn start(name: &'static str, at: &str) -> Self {
        let at: SocketAddr = at.parse().expect("an address with a port");
        let stop = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind(at).expect("the backend's port is free");
        let socket = UdpSocket::bind(at).expect("the backend's port is free");
        let (stop_tcp, stop_udp) = (stop.clone(), stop.clone());
        let tcp = std::thread::spawn(move || {
            while let Ok((mut stream, client)) = listener.accept() {
                if stop_tcp.load(Ordering::Relaxed) {
                    return;
                }
                // A client that hangs up early is its own affair.
                let _ = write!(stream, "{name} {client}");
            }
        });
        let udp = std::thread::spawn(move || {
            let mut room = [0; 64];
            loop {
                let (_, client) = socket.recv_from(&mut room).expect("the backend can receive");
                if stop_udp.load(Ordering::Relaxed) {
                    return;
                }
                drop(socket.send_to(format!("{name} {client}").as_bytes(), client));
            }
        });
        Self { stop, at, threads: vec![tcp, udp] }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes both threads.
        let _ = TcpStream::connect(self.at);
        let _ = UdpSocket::bind(SocketAddr::new(self.at.ip(), 0)).and_then(|socket| socket.send_to(b"", self.at));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
